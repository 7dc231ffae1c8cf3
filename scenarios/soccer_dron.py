"""DRON with a mixture of experts on soccer."""

from presage.common.cli import script
from presage.scenarios.soccer_models import SOCCER, dron

scenario = SOCCER.scenario(
    "soccer_dron",
    "DRON-MoE",
    "experts on the state under a gate that sees the opponent, on grid soccer against two kinds of it",
    dron("mixture"),
    evaluation_episodes=256,
)


if __name__ == "__main__":
    script(scenario.name)
