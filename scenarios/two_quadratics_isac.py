"""Independent SAC on the max of two quadratics."""

from presage.common.cli import script
from presage.scenarios.tasks import TWO_QUADRATICS
from presage.scenarios.toy_models import independent

scenario = TWO_QUADRATICS.scenario(
    "two_quadratics_isac",
    "independent SAC",
    "every agent for itself, on the max of two quadratics",
    independent(),
)


if __name__ == "__main__":
    script(scenario.name)
