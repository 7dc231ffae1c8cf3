"""ROMMEO-Q on the climbing game."""

from presage.common.cli import script
from presage.scenarios.tasks import CLIMB
from presage.scenarios.toy_models import rommeo_q

scenario = CLIMB.scenario(
    "climb_rommeo_q",
    "ROMMEO-Q",
    "tables of what all joint actions are worth, and a biased model of the other, on the climbing game",
    rommeo_q(),
)


if __name__ == "__main__":
    script(scenario.name)
