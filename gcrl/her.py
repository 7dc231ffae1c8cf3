"""Hindsight experience replay as a method (Andrychowicz et al. 2017, 1707.01495): an off-policy learner over goals,
whose rows are relabelled with what was achieved later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from presage.common.ddpg import DDPGConfig
from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import GameError, GameSpec, GoalRule, Kernel
from presage.common.relabel import Ends
from presage.common.streams import Streams
from presage.common.target_range import TargetRange
from presage.gcrl.goals.choice import GoalsConfig
from presage.gcrl.hindsight import Hindsight, Shares
from presage.gcrl.learners import GoalLearnerConfig, value_of


def _real_rows() -> DynaConfig:
    return DynaConfig(real_share=1.0)


@dataclass(frozen=True, kw_only=True)
class HERConfig:
    """Hindsight's parts."""

    learner: GoalLearnerConfig = field(default_factory=GoalLearnerConfig)
    """what learns"""
    loop: DynaConfig = field(default_factory=_real_rows)
    """how much is collected and updated; what it says of fitting and imagining is not read"""
    shares: Shares = field(default_factory=Shares)
    """what the goals of a batch are; `Shares.of(0)` is no hindsight"""
    persistence: float = 0.98
    """of the `geometric` share"""
    ends: Ends = "rule"
    """when a relabelled row has no future; see `presage.common.relabel.Goals`"""
    goals: GoalsConfig = field(default_factory=GoalsConfig)
    """what episodes pursue"""

    def __post_init__(self) -> None:
        if self.loop.real_share != 1:
            raise ValueError(f"loop.real_share={self.loop.real_share} must be 1: this method imagines nothing")

    @classmethod
    def paper(cls, length: int = 50) -> HERConfig:
        """The numbers of Plappert et al. 2018 and their code, for episodes of `length` env steps in 38 copies of a game
        that pays -1 and 0: hours on a machine of nineteen workers, days on two cores.

        One learner takes a batch as large as all their workers' together; the first cycle plays at random.
        """
        discount, cycle = 1 - 1 / length, 38 * length
        ddpg = DDPGConfig(discount=discount, targets=TargetRange.of_rewards(-1.0, 0.0, discount))
        loop = DynaConfig(real_share=1.0, batch_size=19 * 256, warmup_steps=cycle, updates_per_step=40 / cycle)
        return cls(learner=GoalLearnerConfig(ddpg=ddpg), loop=loop, ends="never")

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """The learner on a game of goals; see `presage.common.method.Method`.

        Raises:
            GameError: the game has no goals, or the learner does not suit it.
            ValueError: the source of goals needs a model.
        """
        if not spec.goal_dim:
            raise GameError(f"{spec.name!r} has no goals to look back for; take a method without goals")
        learner, actor = self.learner.build(spec, streams, device)
        relabel = pursuit = None
        if goal_rule is not None:
            value = value_of(learner, actor)
            pursuit = self.goals.build(
                spec, goal_rule, value, self.learner.discount, actor, streams, device, ends=self.ends
            )
            relabel = Hindsight(
                spec, goal_rule, self.shares, persistence=self.persistence, ends=self.ends, device=device
            )
        return Dyna(spec, self.loop, learner, actor, streams, relabel=relabel, pursuit=pursuit, device=device)
