"""MEGA in a maze on a plane."""

from presage.common.cli import script
from presage.gcrl.goals.choice import GoalsConfig
from presage.scenarios.plane_maze_parts import TASK, in_pursuit

scenario = TASK.scenario(
    "plane_maze_mega",
    "MEGA",
    "hindsight on real rows, in pursuit of what has seldom been achieved, in a maze on a plane",
    in_pursuit(GoalsConfig(source="maximum_entropy")),
)


if __name__ == "__main__":
    script(scenario.name)
