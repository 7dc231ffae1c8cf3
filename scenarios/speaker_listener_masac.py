"""Multi-agent SAC on cooperative communication."""

from presage.common.cli import script
from presage.marl.model_free import ModelFreeConfig
from presage.scenarios.tasks import SPEAKER_LISTENER

scenario = SPEAKER_LISTENER.scenario(
    "speaker_listener_masac",
    "MASAC",
    "multi-agent SAC with joint critics on cooperative communication",
    ModelFreeConfig(),
)


if __name__ == "__main__":
    script(scenario.name)
