"""MADDPG on cooperative navigation."""

from presage.common.cli import script
from presage.scenarios.maddpg_models import maddpg
from presage.scenarios.particle_models import WARMUP
from presage.scenarios.tasks import SPREAD

scenario = SPREAD.scenario(
    "spread_maddpg",
    "MADDPG",
    "deterministic policies with joint critics that know the others' policies, on cooperative navigation",
    maddpg(warmup=WARMUP),
)


if __name__ == "__main__":
    script(scenario.name)
