"""AORPO on cooperative navigation."""

from presage.common.cli import script
from presage.scenarios.particle_models import aorpo
from presage.scenarios.tasks import SPREAD

scenario = SPREAD.scenario(
    "spread_aorpo",
    "AORPO",
    "learned dynamics and opponent models, with adaptive rollouts, on cooperative navigation",
    aorpo(),
)


if __name__ == "__main__":
    script(scenario.name)
