"""SAC on the hopper."""

from presage.common.cli import script
from presage.scenarios.mujoco_models import sac
from presage.scenarios.tasks import HOPPER

scenario = HOPPER.scenario(
    "hopper_sac",
    "SAC",
    "soft actor-critic on real rows alone, on the hopper",
    sac("Hopper"),
)


if __name__ == "__main__":
    script(scenario.name)
