"""MapGo on pushing."""

from presage.common.cli import script
from presage.scenarios.goal_models import fetch_push_mapgo
from presage.scenarios.tasks import FETCH_PUSH

scenario = FETCH_PUSH.scenario(
    "fetch_push_mapgo",
    "MapGo",
    "foresight for real rows and branches that pursue goals, on pushing a block",
    fetch_push_mapgo(),
)


if __name__ == "__main__":
    script(scenario.name)
