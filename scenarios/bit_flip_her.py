"""Hindsight on fifteen bits."""

from presage.common.cli import script
from presage.scenarios.goal_models import bits
from presage.scenarios.tasks import BIT_FLIP

scenario = BIT_FLIP.scenario(
    "bit_flip_her",
    "HER",
    "Q-learning with hindsight, by the paper's recipe, on fifteen bits",
    bits(),
)


if __name__ == "__main__":
    script(scenario.name)
