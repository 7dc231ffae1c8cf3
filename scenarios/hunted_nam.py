"""NAM on a prey among predators of a pool."""

from presage.common.cli import script
from presage.scenarios.hunted_models import scenario_of

scenario = scenario_of(
    "hunted_nam",
    "NAM",
    "none",
    "a memory that learns by rewards alone, for a prey that sees its predators from near by alone",
)


if __name__ == "__main__":
    script(scenario.name)
