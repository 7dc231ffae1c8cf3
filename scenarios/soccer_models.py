"""Q-learning on soccer, sized for two cores. All arms of a comparison share what is not the network itself."""

from __future__ import annotations

from dataclasses import replace

from presage.common.dqn import DQNConfig
from presage.common.dyna import DynaConfig
from presage.envs.toy.soccer import OPPONENT, STATE
from presage.marl.opponents.dron import DRONConfig, Network
from presage.scenarios import tasks

SOCCER = replace(tasks.SOCCER, steps=300_000)
"""three times as long: what a model of the opponent is worth shows late"""


def dron(network: Network) -> DRONConfig:
    """A network on the paper's features, learning at the rate of the authors' code by Adam, from batches four times as
    large; its target follows 2.5 times as closely, and exploration falls over the first sixth of the run.
    """
    dqn = DQNConfig(
        hidden=(50, 50), learning_rate=5e-4, discount=0.9, target_rate=1.0, target_every=1_000, random_share=0.3
    )
    loop = DynaConfig(real_share=1.0, batch_size=256, updates_per_step=0.5, warmup_steps=1_000, replay_capacity=100_000)
    return DRONConfig(
        network=network, state=STATE, opponent=OPPONENT, optimiser="adam", dqn=dqn, loop=loop,
        falling=25_000,
    )  # fmt: skip
