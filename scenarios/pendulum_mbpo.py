"""MBPO on the pendulum."""

from presage.common.cli import script
from presage.scenarios.pendulum_models import mbpo
from presage.scenarios.tasks import PENDULUM

scenario = PENDULUM.scenario(
    "pendulum_mbpo",
    "MBPO",
    "short branches in a learned model, on the pendulum",
    mbpo(),
)


if __name__ == "__main__":
    script(scenario.name)
