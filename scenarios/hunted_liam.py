"""LIAM on a prey among predators of a pool."""

from presage.common.cli import script
from presage.scenarios.hunted_models import scenario_of

scenario = scenario_of(
    "hunted_liam",
    "LIAM",
    "liam",
    "an embedding that tells what the predators see and do, for a prey that sees them from near by alone",
)


if __name__ == "__main__":
    script(scenario.name)
