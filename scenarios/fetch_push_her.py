"""Hindsight on pushing."""

from presage.common.cli import script
from presage.scenarios.goal_models import fetch_push_her
from presage.scenarios.tasks import FETCH_PUSH

scenario = FETCH_PUSH.scenario(
    "fetch_push_her",
    "HER",
    "hindsight on real rows, on pushing a block",
    fetch_push_her(),
)


if __name__ == "__main__":
    script(scenario.name)
