"""AORPO with true dynamics on cooperative communication: the limit that a perfect model sets."""

from presage.common.cli import script
from presage.scenarios.speaker_listener_models import aorpo
from presage.scenarios.tasks import SPEAKER_LISTENER

scenario = SPEAKER_LISTENER.scenario(
    "speaker_listener_aorpo_perfect",
    "AORPO, true dynamics",
    "the limit that a perfect model of the dynamics sets, on cooperative communication",
    aorpo(model="true"),
)


if __name__ == "__main__":
    script(scenario.name)
