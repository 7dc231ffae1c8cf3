"""MBPO with true dynamics on the inverted pendulum: the limit that a perfect model sets."""

from presage.common.cli import script
from presage.scenarios.pendulum_models import mbpo
from presage.scenarios.tasks import INVERTED_PENDULUM

scenario = INVERTED_PENDULUM.scenario(
    "inverted_pendulum_mbpo_perfect",
    "MBPO, true dynamics",
    "the limit that a perfect model of the dynamics sets, on the inverted pendulum",
    mbpo(model="true"),
    kernel="inverted_pendulum",
)


if __name__ == "__main__":
    script(scenario.name)
