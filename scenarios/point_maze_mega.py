"""MEGA in a maze."""

from presage.common.cli import script
from presage.gcrl.goals.choice import GoalsConfig
from presage.scenarios.goal_models import LONG_WAYS, in_a_maze, point_maze_her
from presage.scenarios.tasks import MAZE_FROM_ONE_START

scenario = MAZE_FROM_ONE_START.scenario(
    "point_maze_mega",
    "MEGA",
    "hindsight on real rows, in pursuit of what has seldom been achieved, in a maze",
    point_maze_her(goals=in_a_maze(GoalsConfig(source="maximum_entropy", maximum_entropy=LONG_WAYS))),
)


if __name__ == "__main__":
    script(scenario.name)
