"""MBPO on the hopper, imagining in the true dynamics: the limit for every learned model."""

from presage.common.cli import script
from presage.scenarios.mujoco_models import mbpo
from presage.scenarios.tasks import HOPPER

scenario = HOPPER.scenario(
    "hopper_mbpo_perfect",
    "MBPO, true dynamics",
    "short branches in the true dynamics, on the hopper",
    mbpo("Hopper", model="true"),
)


if __name__ == "__main__":
    script(scenario.name)
