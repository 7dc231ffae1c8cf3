"""MBPO on the hopper."""

from presage.common.cli import script
from presage.scenarios.mujoco_models import mbpo
from presage.scenarios.tasks import HOPPER

scenario = HOPPER.scenario(
    "hopper_mbpo",
    "MBPO",
    "short branches in a learned model, on the hopper",
    mbpo("Hopper"),
)


if __name__ == "__main__":
    script(scenario.name)
