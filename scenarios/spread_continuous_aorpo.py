"""AORPO on cooperative navigation with Box actions."""

from presage.common.cli import script
from presage.marl.aorpo import AORPOConfig
from presage.scenarios.tasks import SPREAD_CONTINUOUS

scenario = SPREAD_CONTINUOUS.scenario(
    "spread_continuous_aorpo",
    "AORPO",
    "learned dynamics and opponent models, with adaptive rollouts, on cooperative navigation with Box actions",
    AORPOConfig(),
)


if __name__ == "__main__":
    script(scenario.name)
