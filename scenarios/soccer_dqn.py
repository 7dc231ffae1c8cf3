"""Q-learning that pools all opponents on soccer."""

from presage.common.cli import script
from presage.scenarios.soccer_models import SOCCER, dron

scenario = SOCCER.scenario(
    "soccer_dqn",
    "DQN",
    "Q-learning of the state alone, on grid soccer against two kinds of opponent",
    dron("pooled"),
    evaluation_episodes=256,
)


if __name__ == "__main__":
    script(scenario.name)
