"""MapGo in a maze."""

from presage.common.cli import script
from presage.scenarios.goal_models import point_maze_mapgo
from presage.scenarios.tasks import POINT_MAZE

scenario = POINT_MAZE.scenario(
    "point_maze_mapgo",
    "MapGo",
    "foresight for real rows and branches that pursue goals, in a maze",
    point_maze_mapgo(),
)


if __name__ == "__main__":
    script(scenario.name)
