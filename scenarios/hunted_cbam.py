"""CBAM on a prey among predators of a pool."""

from presage.common.cli import script
from presage.scenarios.hunted_models import scenario_of

scenario = scenario_of(
    "hunted_cbam",
    "CBAM",
    "identity",
    "an embedding that tells who the predators are, for a prey that sees them from near by alone",
)


if __name__ == "__main__":
    script(scenario.name)
