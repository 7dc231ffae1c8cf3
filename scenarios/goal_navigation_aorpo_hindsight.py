"""AORPO with hindsight goals."""

from presage.common.cli import script
from presage.scenarios.goal_navigation_models import aorpo
from presage.scenarios.tasks import GOAL_NAVIGATION

scenario = GOAL_NAVIGATION.scenario(
    "goal_navigation_aorpo_hindsight",
    "AORPO, hindsight",
    "learned dynamics, opponent models and hindsight goals, on goal navigation",
    aorpo("hindsight"),
)


if __name__ == "__main__":
    script(scenario.name)
