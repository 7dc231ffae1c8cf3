"""AORPO with foresight goals."""

from presage.common.cli import script
from presage.scenarios.goal_navigation_models import aorpo
from presage.scenarios.tasks import GOAL_NAVIGATION

scenario = GOAL_NAVIGATION.scenario(
    "goal_navigation_aorpo",
    "AORPO, foresight",
    "learned dynamics, opponent models and foresight goals, on goal navigation",
    aorpo("foresight"),
)


if __name__ == "__main__":
    script(scenario.name)
