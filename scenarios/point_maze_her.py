"""Hindsight in a maze."""

from presage.common.cli import script
from presage.scenarios.goal_models import point_maze_her
from presage.scenarios.tasks import POINT_MAZE

scenario = POINT_MAZE.scenario(
    "point_maze_her",
    "HER",
    "hindsight on real rows, in a maze",
    point_maze_her(),
)


if __name__ == "__main__":
    script(scenario.name)
