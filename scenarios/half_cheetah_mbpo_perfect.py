"""MBPO on the half-cheetah, imagining in the true dynamics: the limit for every learned model."""

from presage.common.cli import script
from presage.scenarios.mujoco_models import mbpo
from presage.scenarios.tasks import HALF_CHEETAH

scenario = HALF_CHEETAH.scenario(
    "half_cheetah_mbpo_perfect",
    "MBPO, true dynamics",
    "short branches in the true dynamics, on the half-cheetah",
    mbpo("HalfCheetah", model="true"),
)


if __name__ == "__main__":
    script(scenario.name)
