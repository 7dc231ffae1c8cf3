"""AORPO on cooperative navigation with Box actions."""

from presage.common.cli import script
from presage.scenarios.particle_models import aorpo
from presage.scenarios.tasks import SPREAD_CONTINUOUS

scenario = SPREAD_CONTINUOUS.scenario(
    "spread_continuous_aorpo",
    "AORPO",
    "learned dynamics and opponent models, with adaptive rollouts, on cooperative navigation with Box actions",
    aorpo(),
)


if __name__ == "__main__":
    script(scenario.name)
