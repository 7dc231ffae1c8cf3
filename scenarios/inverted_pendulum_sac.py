"""SAC on the inverted pendulum."""

from presage.common.cli import script
from presage.scenarios.pendulum_models import sac
from presage.scenarios.tasks import INVERTED_PENDULUM

scenario = INVERTED_PENDULUM.scenario(
    "inverted_pendulum_sac",
    "SAC",
    "soft actor-critic on real rows alone, on the inverted pendulum",
    sac(),
)


if __name__ == "__main__":
    script(scenario.name)
