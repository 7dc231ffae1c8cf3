"""Hindsight on reaching."""

from presage.common.cli import script
from presage.scenarios.goal_models import fetch_reach_her
from presage.scenarios.tasks import FETCH_REACH

scenario = FETCH_REACH.scenario(
    "fetch_reach_her",
    "HER",
    "hindsight on real rows, on reaching with a robot's arm",
    fetch_reach_her(),
)


if __name__ == "__main__":
    script(scenario.name)
