"""Hindsight in MapGo's 2D world."""

from presage.common.cli import script
from presage.scenarios.goal_models import world_her
from presage.scenarios.tasks import WORLD

scenario = WORLD.scenario(
    "world_her",
    "HER",
    "hindsight on real rows, in MapGo's 2D world",
    world_her(),
)


if __name__ == "__main__":
    script(scenario.name)
