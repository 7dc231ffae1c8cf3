"""Independent SAC on cooperative navigation."""

from presage.common.cli import script
from presage.marl.masac import MASACConfig
from presage.marl.model_free import ModelFreeConfig
from presage.scenarios.tasks import SPREAD

scenario = SPREAD.scenario(
    "spread_isac",
    "independent SAC",
    "every agent for itself, on cooperative navigation",
    ModelFreeConfig(learner=MASACConfig(critic="own")),
)


if __name__ == "__main__":
    script(scenario.name)
