"""A joint action learner on the climbing game."""

from presage.common.cli import script
from presage.scenarios.tasks import CLIMB
from presage.scenarios.toy_models import rommeo_q

scenario = CLIMB.scenario(
    "climb_jal",
    "JAL",
    "a joint action learner, which answers the average over what it has seen, on the climbing game",
    rommeo_q("averaged"),
)


if __name__ == "__main__":
    script(scenario.name)
