"""Multi-agent SAC on cooperative navigation."""

from presage.common.cli import script
from presage.scenarios.particle_models import model_free
from presage.scenarios.tasks import SPREAD

scenario = SPREAD.scenario(
    "spread_masac",
    "MASAC",
    "multi-agent SAC with joint critics on cooperative navigation",
    model_free("joint"),
)


if __name__ == "__main__":
    script(scenario.name)
