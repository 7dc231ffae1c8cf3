"""Q-learning on soccer, sized for two cores. All arms of a comparison share what is not the network itself."""

from __future__ import annotations

from presage.common.dqn import DQNConfig
from presage.common.dyna import DynaConfig
from presage.envs.toy.soccer import OPPONENT, STATE
from presage.marl.opponents.dron import DRONConfig, Network
from presage.scenarios.tasks import SOCCER

UPDATES_PER_STEP = 0.5


def dron(network: Network) -> DRONConfig:
    """A network on the paper's features, learning four times as fast as the paper's, from larger batches, by Adam; its
    target follows ten times as closely, and exploration falls over the first half of the run.
    """
    dqn = DQNConfig(
        hidden=(50, 50), learning_rate=2e-3, discount=0.9, target_rate=1.0, target_every=250, random_share=0.3
    )
    loop = DynaConfig(
        real_share=1.0, batch_size=256, updates_per_step=UPDATES_PER_STEP, warmup_steps=1_000, replay_capacity=100_000
    )
    return DRONConfig(
        network=network, state=STATE, opponent=OPPONENT, optimiser="adam", dqn=dqn, loop=loop,
        falling=round(SOCCER.steps * UPDATES_PER_STEP / 2),
    )  # fmt: skip
