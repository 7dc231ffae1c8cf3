"""Methods of goals sized for two cores. All arms of a comparison share the learner, its exploration and its numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from presage.common.ddpg import DDPGConfig
from presage.common.dqn import DQNConfig
from presage.common.dyna import DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.schedules import LengthRamp
from presage.common.target_range import TargetRange
from presage.gcrl.foresight import ForesightConfig
from presage.gcrl.goals.choice import GoalsConfig
from presage.gcrl.goals.maximum_entropy import MaximumEntropyConfig
from presage.gcrl.her import HERConfig
from presage.gcrl.learners import GoalLearnerConfig
from presage.gcrl.mapgo import MapGoConfig
from presage.gcrl.relabelling import RelabellingConfig


def learner(
    *, rewards: tuple[float, float] = (-1.0, 0.0), discount: float = 0.98, hidden: int = 256, **numbers: Any
) -> GoalLearnerConfig:
    """DDPG with its inputs standardised, targets held to what returns can be, and a small price on large actions.

    Args:
        rewards: the smallest and the largest of the game. discount: gamma. hidden: width of the three hidden layers.
        numbers: further fields of `DDPGConfig`.
    """
    ddpg = DDPGConfig(
        hidden=(hidden,) * 3, discount=discount, targets=TargetRange.of_rewards(*rewards, discount), target_every=1,
        **({"target_rate": 0.005, "action_penalty": 0.1} | numbers),
    )  # fmt: skip
    return GoalLearnerConfig(ddpg=ddpg)


def her(
    learner: GoalLearnerConfig, warmup_steps: int, updates_per_step: float = 1.0, *, batch_size: int = 256,
    **numbers: Any,
) -> HERConfig:  # fmt: skip
    """Hindsight on real rows alone.

    Args:
        warmup_steps: env steps with random actions before anything is learned. numbers: further fields of `HERConfig`.
    """
    loop = DynaConfig(
        real_share=1.0, batch_size=batch_size, warmup_steps=warmup_steps, updates_per_step=updates_per_step
    )
    return HERConfig(learner=learner, loop=loop, **numbers)


def mapgo(
    learner: GoalLearnerConfig, warmup_steps: int, updates_per_step: float = 5.0, *, batch_size: int = 256,
    horizon: int = 5, fit_every: int = 250, foresight: ForesightConfig | None = None, **numbers: Any,
) -> MapGoConfig:  # fmt: skip
    """Foresight for real rows, a twentieth of a batch, and branches that pursue goals for the rest. Half of these rows
    get a later outcome of their own branch as their goal, which the paper does not have: a policy that reaches nothing
    yet is hardly ever paid in its branches.

    Args:
        warmup_steps: as above. horizon: imagined steps of a branch, of all branches 25,000. fit_every: env steps
            between two fits. foresight: how far to look. numbers: further fields of `MapGoConfig`.
    """
    loop = DynaConfig(
        real_share=0.05, batch_size=batch_size, warmup_steps=warmup_steps, updates_per_step=updates_per_step,
        fit_every=fit_every, rollout_every=fit_every, rollout_starts=25_000 // horizon, kept_rollouts=4,
        horizon=LengthRamp(start_epoch=0, end_epoch=0, start=horizon, end=horizon),
    )  # fmt: skip
    ensemble = EnsembleConfig(members=5, elites=3, hidden=(128, 128, 128))
    fit = FitConfig(max_updates=1_000)
    relabelling = RelabellingConfig(
        foresight=foresight or ForesightConfig(), pool=2_000, pool_updates=250, branch_hindsight=0.5
    )
    own: dict[str, Any] = {"ensemble": ensemble, "fit": fit, "relabelling": relabelling}
    return MapGoConfig(learner=learner, loop=loop, **(own | numbers))


def bits() -> HERConfig:
    """Hindsight's recipe for bits (Andrychowicz et al. 2017): cycles of 16 episodes and 40 updates of 128 rows, targets
    that move a twentieth of the way every cycle and are held to what returns can be, a fifth of the actions at random,
    four of five goals by "future".
    """
    discount, copies, length = 0.98, 16, 15
    dqn = DQNConfig(discount=discount, targets=TargetRange.of_rewards(-1.0, 0.0, discount))
    loop = DynaConfig(
        real_share=1.0, batch_size=128, warmup_steps=copies * length, updates_per_step=40 / (copies * length)
    )
    return HERConfig(learner=GoalLearnerConfig(algorithm="dqn", normalise=False, dqn=dqn), loop=loop)


WORLD_LEARNER = learner(hidden=64)


def world_her() -> HERConfig:
    """Hindsight in the 2D world."""
    return her(WORLD_LEARNER, 200)


def world_mapgo(**numbers: Any) -> MapGoConfig:
    """MapGo in the 2D world."""
    return mapgo(WORLD_LEARNER, 200, **numbers)


FETCH_REACH_LEARNER = learner(hidden=128)


def fetch_reach_her() -> HERConfig:
    """Hindsight on reaching."""
    return her(FETCH_REACH_LEARNER, 100)


def fetch_reach_mapgo() -> MapGoConfig:
    """MapGo on reaching."""
    return mapgo(FETCH_REACH_LEARNER, 100, fit_every=100)


FETCH_PUSH_LEARNER = learner()


def fetch_push_her() -> HERConfig:
    """Hindsight on pushing: few updates on many rows, as in the papers."""
    return her(FETCH_PUSH_LEARNER, 5_000, 0.1, batch_size=1_024)


def fetch_push_mapgo() -> MapGoConfig:
    """MapGo on pushing."""
    return mapgo(FETCH_PUSH_LEARNER, 5_000, 0.1, batch_size=1_024, fit_every=10_000)


POINT_MAZE_LEARNER = learner(rewards=(0.0, 1.0), discount=0.99)


def point_maze_her(**numbers: Any) -> HERConfig:
    """Hindsight in the maze; episodes end at their goals."""
    return her(POINT_MAZE_LEARNER, 2_000, **numbers)


def point_maze_mapgo() -> MapGoConfig:
    """MapGo in the maze; branches and foresight lead well beyond the distance at which a goal counts as reached."""
    return mapgo(
        POINT_MAZE_LEARNER, 2_000, 1.0, horizon=30, fit_every=2_000, foresight=ForesightConfig(length=50)
    )  # fmt: skip


LONG_WAYS = MaximumEntropyConfig(cutoff=-30.0, lowest=-95.0)
"""with a discount of 0.99, goals count as reachable up to 35 env steps away at first, and up to 298 in the end"""


def in_a_maze(goals: GoalsConfig) -> GoalsConfig:
    """A source of goals for the maze, whose episodes wander on from goals of one's own."""
    return goals if goals.source == "game" else replace(goals, wander=0.1)
