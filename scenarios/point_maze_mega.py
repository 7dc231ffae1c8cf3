"""MEGA in a maze."""

from presage.common.cli import script
from presage.gcrl.goals.choice import GoalsConfig
from presage.scenarios.goal_models import point_maze_her
from presage.scenarios.tasks import MAZE_FROM_ONE_START

scenario = MAZE_FROM_ONE_START.scenario(
    "point_maze_mega",
    "MEGA",
    "hindsight on real rows, in pursuit of what has seldom been achieved, in a maze",
    point_maze_her(goals=GoalsConfig(source="maximum_entropy", paid="bonus", wander=0.1)),
)


if __name__ == "__main__":
    script(scenario.name)
