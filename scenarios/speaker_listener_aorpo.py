"""AORPO on cooperative communication."""

from presage.common.cli import script
from presage.scenarios.speaker_listener_models import aorpo
from presage.scenarios.tasks import SPEAKER_LISTENER

scenario = SPEAKER_LISTENER.scenario(
    "speaker_listener_aorpo",
    "AORPO",
    "learned dynamics and opponent models, with adaptive rollouts, on cooperative communication",
    aorpo(),
)


if __name__ == "__main__":
    script(scenario.name)
