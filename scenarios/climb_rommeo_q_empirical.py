"""ROMMEO-Q without its bias on the climbing game."""

from presage.common.cli import script
from presage.scenarios.tasks import CLIMB
from presage.scenarios.toy_models import rommeo_q

scenario = CLIMB.scenario(
    "climb_rommeo_q_empirical",
    "ROMMEO-Q, empirical",
    "ROMMEO-Q whose model is what the other was seen to do, on the climbing game",
    rommeo_q("empirical"),
)


if __name__ == "__main__":
    script(scenario.name)
