"""A small run of AORPO on cooperative navigation: what `presage demo` trains."""

from presage.common.cli import script
from presage.scenarios.particle_models import aorpo
from presage.scenarios.tasks import SPREAD

scenario = SPREAD.scenario(
    "demo",
    "AORPO",
    "AORPO on cooperative navigation, small enough for a few minutes on two cores",
    aorpo(),
    steps=2_000,
)


if __name__ == "__main__":
    script(scenario.name)
