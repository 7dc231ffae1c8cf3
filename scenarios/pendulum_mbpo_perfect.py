"""MBPO with true dynamics on the pendulum: the limit that a perfect model sets."""

from presage.common.cli import script
from presage.scenarios.pendulum_models import mbpo
from presage.scenarios.tasks import PENDULUM

scenario = PENDULUM.scenario(
    "pendulum_mbpo_perfect",
    "MBPO, true dynamics",
    "the limit that a perfect model of the dynamics sets, on the pendulum",
    mbpo(model="true"),
    kernel="pendulum",
)


if __name__ == "__main__":
    script(scenario.name)
