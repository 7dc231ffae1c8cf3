"""Q-learning that pools all opponents on soccer."""

from presage.common.cli import script
from presage.scenarios.soccer_models import STEPS, dron
from presage.scenarios.tasks import SOCCER

scenario = SOCCER.scenario(
    "soccer_dqn",
    "DQN",
    "Q-learning of the state alone, on grid soccer against two kinds of opponent",
    dron("pooled"),
    steps=STEPS,
    evaluation_episodes=256,
)


if __name__ == "__main__":
    script(scenario.name)
