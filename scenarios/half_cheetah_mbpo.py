"""MBPO on the half-cheetah."""

from presage.common.cli import script
from presage.scenarios.mujoco_models import mbpo
from presage.scenarios.tasks import HALF_CHEETAH

scenario = HALF_CHEETAH.scenario(
    "half_cheetah_mbpo",
    "MBPO",
    "short branches in a learned model, on the half-cheetah",
    mbpo("HalfCheetah"),
)


if __name__ == "__main__":
    script(scenario.name)
