"""What SOM's inference cannot beat on the coin game: both are told the other's goal."""

from presage.common.cli import script
from presage.scenarios.coins_models import COINS, som

scenario = COINS.scenario(
    "coins_true_goal",
    "SOM, true goal",
    "both are told the other's goal, on a board of coins",
    som("true"),
    evaluation_episodes=256,
)


if __name__ == "__main__":
    script(scenario.name)
