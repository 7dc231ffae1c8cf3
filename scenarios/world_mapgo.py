"""MapGo in its 2D world."""

from presage.common.cli import script
from presage.scenarios.goal_models import world_mapgo
from presage.scenarios.tasks import WORLD

scenario = WORLD.scenario(
    "world_mapgo",
    "MapGo",
    "foresight for real rows and branches that pursue goals, in MapGo's 2D world",
    world_mapgo(),
)


if __name__ == "__main__":
    script(scenario.name)
