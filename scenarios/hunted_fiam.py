"""FIAM on a prey among predators of a pool."""

from presage.common.cli import script
from presage.scenarios.hunted_models import scenario_of

scenario = scenario_of(
    "hunted_fiam",
    "FIAM",
    "full",
    "an embedding of what the predators see and have done, which the prey is shown: the upper bound",
)


if __name__ == "__main__":
    script(scenario.name)
