"""MBPO on the inverted pendulum."""

from presage.common.cli import script
from presage.scenarios.pendulum_models import mbpo
from presage.scenarios.tasks import INVERTED_PENDULUM

scenario = INVERTED_PENDULUM.scenario(
    "inverted_pendulum_mbpo",
    "MBPO",
    "short branches in a learned model, on the inverted pendulum",
    mbpo(),
)


if __name__ == "__main__":
    script(scenario.name)
