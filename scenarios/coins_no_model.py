"""SOM's network on the coin game, without a model of the other."""

from presage.common.cli import script
from presage.scenarios.coins_models import COINS, som

scenario = COINS.scenario(
    "coins_no_model",
    "SOM, no model",
    "without a model of the other's goal, on a board of coins",
    som("none"),
    evaluation_episodes=256,
)


if __name__ == "__main__":
    script(scenario.name)
