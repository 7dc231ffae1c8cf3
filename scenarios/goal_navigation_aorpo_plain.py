"""AORPO with the game's goals alone."""

from presage.common.cli import script
from presage.scenarios.goal_navigation_models import aorpo
from presage.scenarios.tasks import GOAL_NAVIGATION

scenario = GOAL_NAVIGATION.scenario(
    "goal_navigation_aorpo_plain",
    "AORPO",
    "learned dynamics and opponent models, on goal navigation",
    aorpo("none"),
)


if __name__ == "__main__":
    script(scenario.name)
