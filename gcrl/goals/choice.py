"""Which goals a run's episodes pursue, as numbers of a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from presage.common.game import Actor, GameError, GameSpec, GoalRule, Kernel, View
from presage.common.relabel import Ends
from presage.common.streams import Streams
from presage.gcrl.goals.goal_gan import GoalGAN, GoalGANConfig
from presage.gcrl.goals.hindsight_goals import HindsightGoals, HindsightGoalsConfig
from presage.gcrl.goals.intermediate import IntermediateConfig, IntermediateGoals
from presage.gcrl.goals.maximum_entropy import MaximumEntropy, MaximumEntropyConfig, Value
from presage.gcrl.goals.pursuit import Pursuit
from presage.gcrl.goals.source import AchievedGoals, GoalSource, UniformGoals
from presage.gcrl.goals.subgoals import ForeseenSubgoals, ForeseenSubgoalsConfig

SourceName = Literal[
    "game", "uniform", "achieved", "maximum_entropy", "intermediate", "goal_gan", "hindsight", "subgoals"
]


@dataclass(frozen=True, kw_only=True)
class Model:
    """What subgoals are foreseen in."""

    kernel: Kernel
    """of the world"""
    ready: Callable[[], bool]
    """whether it has been fitted"""


@dataclass(frozen=True, kw_only=True)
class GoalsConfig:
    """Where the goals of a run's episodes come from."""

    source: SourceName = "game"
    """the game itself; anywhere in a box; anything achieved; MEGA, OMEGA or Skew-Fit; the least certain of what was
    achieved; GoalGAN; hindsight goal generation; the first subgoal foreseen on the way to the game's goal"""
    low: tuple[float, ...] = ()
    """(G) the box of goals, for "uniform" and "goal_gan" """
    high: tuple[float, ...] = ()
    """(G) likewise"""
    reach: float = 1.0
    """the largest distance between start and goal, for "hindsight"; > 0"""
    learn_every: int = 500
    """env steps after which the source is fitted anew, when it is next asked; >= 1"""
    wander: float = 0.0
    """see `presage.gcrl.goals.pursuit.Pursuit`; in [0, 1]"""
    maximum_entropy: MaximumEntropyConfig = field(default_factory=MaximumEntropyConfig)
    """numbers of MEGA, OMEGA and Skew-Fit"""
    intermediate: IntermediateConfig = field(default_factory=IntermediateConfig)
    """numbers of the classifier of successes"""
    goal_gan: GoalGANConfig = field(default_factory=GoalGANConfig)
    """numbers of GoalGAN"""
    hindsight: HindsightGoalsConfig = field(default_factory=HindsightGoalsConfig)
    """numbers of hindsight goal generation"""
    subgoals: ForeseenSubgoalsConfig = field(default_factory=ForeseenSubgoalsConfig)
    """numbers of the search for subgoals"""

    def __post_init__(self) -> None:
        if self.source not in get_args(SourceName):
            raise ValueError(f"source={self.source!r} must be one of {', '.join(map(repr, get_args(SourceName)))}")
        if self.source in ("uniform", "goal_gan") and not (self.low and len(self.low) == len(self.high)):
            raise ValueError(f"source={self.source!r} needs a box of goals: low={self.low} and high={self.high}")

    def build(
        self, spec: GameSpec, rule: GoalRule, value: Value, discount: float, actor: Actor, streams: Streams,
        device: torch.device, *, ends: Ends = "rule", model: Model | None = None,
    ) -> Pursuit | None:  # fmt: skip
        """Who gives a run's episodes their goals; None where they are the game's own.

        Args:
            rule: the game's `goal_rule`. value, discount, actor: of the policy that pursues. ends: when it takes a
                row to have no future; see `presage.common.relabel.Goals`. model: needed for subgoals.

        Raises:
            GameError: the box is not as wide as the game's goals, or the source reads values, and the rule's rewards
                are not of two kinds.
            ValueError: subgoals are to be foreseen, and there is no model.
        """
        if self.source == "game":
            return None
        if self.source in ("maximum_entropy", "hindsight"):
            value = as_penalty(value, rule, spec.goal_dim, discount, ends, device)
        source = self._source(spec, rule, value, discount, actor, streams, device, model)
        return Pursuit(
            spec, rule, source, streams("goals"), learn_every=self.learn_every, wander=self.wander, device=device
        )  # fmt: skip

    def _source(
        self, spec: GameSpec, rule: GoalRule, value: Value, discount: float, actor: Actor, streams: Streams,
        device: torch.device, model: Model | None,
    ) -> GoalSource:  # fmt: skip
        width = spec.goal_dim
        if self.source == "achieved":
            return AchievedGoals()
        if self.source == "maximum_entropy":
            return MaximumEntropy(
                width, value, self.maximum_entropy, discount=discount, episode_limit=spec.episode_limit
            ).to(device)  # fmt: skip
        if self.source == "intermediate":
            return IntermediateGoals(spec, self.intermediate, streams("goal weights", "cpu")).to(device)
        if self.source == "hindsight":
            return HindsightGoals(width, value, self.reach, self.hindsight, discount=discount).to(device)
        if self.source == "subgoals":
            if model is None:
                raise ValueError("source='subgoals' needs a model to foresee them in; take a method that has one")
            return ForeseenSubgoals(spec, rule, model.kernel, actor, self.subgoals, model.ready)
        low, high = self._box(width, device)
        if self.source == "goal_gan":
            return GoalGAN(low, high, self.goal_gan, streams("goal weights", "cpu")).to(device)
        return UniformGoals(low, high)

    def _box(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if len(self.low) != width:
            raise GameError(f"low={self.low} and high={self.high} must have {width} numbers, as many as a goal has")
        return torch.tensor(self.low, device=device), torch.tensor(self.high, device=device)


def as_penalty(
    value: Value, rule: GoalRule, width: int, discount: float, ends: Ends, device: torch.device
) -> Value:  # fmt: skip
    """Values as if every step until a goal is reached cost 1: what sources take them for.

    With a rule that pays 1 at a goal instead, `gamma ** T` after T steps where that is the end, they are
    `-(1 - gamma ** T) / (1 - gamma)`; where it goes on, every step pays 1 more than by the other rule.

    Args:
        width: of a goal. ends: see `presage.common.relabel.Goals`.

    Raises:
        GameError: the rule pays something else.
    """
    rng = torch.Generator().manual_seed(0)
    at, way = (torch.randn(64, width, generator=rng).to(device) for _ in range(2))
    near = at + torch.logspace(-4, 3, len(at), device=device)[:, None] * way
    paid = set(rule.reward(torch.cat([at, near]), at.repeat(2, 1)).flatten().tolist())
    if paid == {-1.0, 0.0}:
        return value
    if paid != {0.0, 1.0}:
        raise GameError(
            f"the game pays {len(paid)} different rewards from {min(paid)} to {max(paid)}; sources that read values "
            "need -1 and 0, or 0 and 1: play it with sparse rewards, or take another source"
        )
    last = ends == "success" or (ends == "rule" and bool(rule.terminated(at, at).all()))

    def found(view: View, goals: Tensor) -> Tensor:
        if last:
            return -(1.0 - value(view, goals).clamp(0.0, 1.0)) / (1.0 - discount)
        return value(view, goals) - 1.0 / (1.0 - discount)

    return found
