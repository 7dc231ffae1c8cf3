"""SAC on the half-cheetah."""

from presage.common.cli import script
from presage.scenarios.mujoco_models import sac
from presage.scenarios.tasks import HALF_CHEETAH

scenario = HALF_CHEETAH.scenario(
    "half_cheetah_sac",
    "SAC",
    "soft actor-critic on real rows alone, on the half-cheetah",
    sac("HalfCheetah"),
)


if __name__ == "__main__":
    script(scenario.name)
