"""SOM and what it is held against on the coin game, sized for two cores. All arms share everything but what a policy is
told of the other's goal.
"""

from __future__ import annotations

from presage.common.actor_critic import ActorCriticConfig
from presage.common.on_policy import OnPolicyConfig
from presage.common.scenario import GameConfig
from presage.marl.opponents.som import Other, SOMConfig
from presage.scenarios.tasks import Task

BOARD: dict[str, bool | int | float | str] = {
    "height": 3, "width": 4, "coins": 2, "episode_limit": 8, "paid": "each", "centred": True,
}  # fmt: skip
"""so little time that one's own colour alone is not enough: two who know both goals end with 7.8 on average at best
(`presage.envs.toy.coins.Coins.optimum`)"""

COINS = Task(
    game=GameConfig(name="toy/coins", copies=64, options=BOARD), steps=2_000_000, evaluate_every=200_000
)  # fmt: skip
"""two agents take turns on a board of coins, and neither sees which colour the other is after"""


def som(other: Other) -> SOMConfig:
    """The network and the numbers, with or without a model of the other's goal; an update after each episode. Inference
    takes half the steps, each twice as long: goals come out the same, in half the time.
    """
    return SOMConfig(
        other=other,
        steps=5,
        rate=0.2,
        numbers=ActorCriticConfig(learning_rate=2e-3, entropy_weight=0.05),
        loop=OnPolicyConfig(collect_steps=8, chunk=8),
    )
