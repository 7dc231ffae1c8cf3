"""SOM on the coin game."""

from presage.common.cli import script
from presage.scenarios.coins_models import COINS, som

scenario = COINS.scenario(
    "coins_som",
    "SOM",
    "each infers the other's goal with its own network, on a board of coins",
    som("inferred"),
    evaluation_episodes=256,
)


if __name__ == "__main__":
    script(scenario.name)
