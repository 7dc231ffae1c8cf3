"""MBPO on the pendulum."""

from presage.common.cli import script
from presage.common.mbpo import MBPOConfig
from presage.scenarios.tasks import PENDULUM

scenario = PENDULUM.scenario(
    "pendulum_mbpo",
    "MBPO",
    "short branches in a learned model, on the pendulum",
    MBPOConfig(),
)


if __name__ == "__main__":
    script(scenario.name)
