"""Multi-agent SAC on cooperative navigation."""

from presage.common.cli import script
from presage.marl.model_free import ModelFreeConfig
from presage.scenarios.tasks import SPREAD

scenario = SPREAD.scenario(
    "spread_masac",
    "MASAC",
    "multi-agent SAC with joint critics on cooperative navigation",
    ModelFreeConfig(),
)


if __name__ == "__main__":
    script(scenario.name)
