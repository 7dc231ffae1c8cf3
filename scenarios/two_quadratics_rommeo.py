"""ROMMEO-AC on the max of two quadratics."""

from presage.common.cli import script
from presage.scenarios.tasks import TWO_QUADRATICS
from presage.scenarios.toy_models import rommeo

scenario = TWO_QUADRATICS.scenario(
    "two_quadratics_rommeo",
    "ROMMEO-AC",
    "opponent models biased towards what would suit oneself, on the max of two quadratics",
    rommeo(),
)


if __name__ == "__main__":
    script(scenario.name)
