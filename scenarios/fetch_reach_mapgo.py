"""MapGo on reaching."""

from presage.common.cli import script
from presage.scenarios.goal_models import fetch_reach_mapgo
from presage.scenarios.tasks import FETCH_REACH

scenario = FETCH_REACH.scenario(
    "fetch_reach_mapgo",
    "MapGo",
    "foresight for real rows and branches that pursue goals, on reaching with a robot's arm",
    fetch_reach_mapgo(),
)


if __name__ == "__main__":
    script(scenario.name)
