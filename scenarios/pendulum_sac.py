"""SAC on the pendulum."""

from presage.common.cli import script
from presage.scenarios.pendulum_models import sac
from presage.scenarios.tasks import PENDULUM

scenario = PENDULUM.scenario(
    "pendulum_sac",
    "SAC",
    "soft actor-critic on real rows alone, on the pendulum",
    sac(),
)


if __name__ == "__main__":
    script(scenario.name)
