"""AORPO on cooperative communication."""

from presage.common.cli import script
from presage.marl.aorpo import AORPOConfig
from presage.scenarios.tasks import SPEAKER_LISTENER

scenario = SPEAKER_LISTENER.scenario(
    "speaker_listener_aorpo",
    "AORPO",
    "learned dynamics and opponent models, with adaptive rollouts, on cooperative communication",
    AORPOConfig(),
)


if __name__ == "__main__":
    script(scenario.name)
