"""Independent SAC on cooperative communication."""

from presage.common.cli import script
from presage.marl.masac import MASACConfig
from presage.marl.model_free import ModelFreeConfig
from presage.scenarios.tasks import SPEAKER_LISTENER

scenario = SPEAKER_LISTENER.scenario(
    "speaker_listener_isac",
    "independent SAC",
    "every agent for itself, on cooperative communication",
    ModelFreeConfig(learner=MASACConfig(critic="own")),
)


if __name__ == "__main__":
    script(scenario.name)
