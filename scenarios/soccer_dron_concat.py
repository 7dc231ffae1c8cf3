"""DRON with features joined on soccer."""

from presage.common.cli import script
from presage.scenarios.soccer_models import SOCCER, dron

scenario = SOCCER.scenario(
    "soccer_dron_concat",
    "DRON-concat",
    "the opponent's features joined to the state's, on grid soccer against two kinds of it",
    dron("concat"),
    evaluation_episodes=256,
)


if __name__ == "__main__":
    script(scenario.name)
