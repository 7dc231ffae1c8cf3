"""Independent SAC on cooperative navigation."""

from presage.common.cli import script
from presage.scenarios.particle_models import model_free
from presage.scenarios.tasks import SPREAD

scenario = SPREAD.scenario(
    "spread_isac",
    "independent SAC",
    "every agent for itself, on cooperative navigation",
    model_free("own"),
)


if __name__ == "__main__":
    script(scenario.name)
