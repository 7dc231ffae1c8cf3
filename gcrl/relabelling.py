"""Where the goals of a method's rows come from, real and imagined, put together from numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import Actor, GameSpec, GoalRule, View
from presage.common.live_terms import members_apart
from presage.common.relabel import BranchRelabeller, Ends, Pooled, Relabeller
from presage.common.worlds import GivenWorld, LearnedWorld
from presage.gcrl.foresight import Foresight, ForesightConfig
from presage.gcrl.hindsight import BranchHindsight, Hindsight, Shares

Source = Literal["foresight", "hindsight", "none"]


@dataclass(frozen=True, kw_only=True)
class Relabelling:
    """Who gives other goals to which rows; None: nobody."""

    rows: Relabeller | None = None
    """to drawn real rows"""
    aims: Relabeller | None = None
    """to the real rows that branches start from: what these pursue"""
    branches: BranchRelabeller | None = None
    """to imagined rows, when their branches are done"""


@dataclass(frozen=True, kw_only=True)
class RelabellingConfig:
    """Where goals come from, for methods that imagine."""

    source: Source = "foresight"
    """of real rows' goals"""
    foresight: ForesightConfig = field(default_factory=ForesightConfig)
    """how far to look, with `source="foresight"`"""
    pool: int = 0
    """rows that are relabelled by foresight at once, to draw batches from; 0: each batch anew, as in MapGo's release"""
    pool_updates: int = 500
    """updates that draw from the same pool; >= 1"""
    shares: Shares = field(default_factory=Shares)
    """of hindsight for real rows, with `source="hindsight"`"""
    aims: Shares = field(default_factory=Shares)
    """what imagined branches pursue"""
    branch_hindsight: float = 0.0
    """share of imagined rows that get a later outcome of their own branch as their goal, in [0, 1]; 0 in the papers"""
    ends: Ends = "rule"
    """when a relabelled row has no future; see `presage.common.relabel.Goals`"""

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ValueError(f"source={self.source!r} must be one of {', '.join(map(repr, get_args(Source)))}")
        if not 0 <= self.branch_hindsight <= 1:
            raise ValueError(f"branch_hindsight={self.branch_hindsight} must lie in [0, 1]")
        if self.pool < 0 or self.pool_updates < 1:
            raise ValueError(f"pool={self.pool} must be >= 0 and pool_updates={self.pool_updates} >= 1")

    def build(
        self, spec: GameSpec, rule: GoalRule | None, actor: Actor, world: LearnedWorld | GivenWorld | None,
        device: torch.device,
    ) -> Relabelling:  # fmt: skip
        """The relabellers of a game.

        Args:
            rule: the game's `goal_rule`; None, as where there are no goals, relabels nothing.
            actor: the present policies. world: what foresight looks ahead in; None: where nothing is imagined.

        Raises:
            GameError: bounds of foresight are not as wide as the game's goals.
            ValueError: foresight needs a world, or one that tells how far it is off, and there is none.
        """
        if rule is None or not spec.goal_dim:
            return Relabelling()
        rows: Relabeller | None = None
        if self.source == "hindsight":
            rows = Hindsight(spec, rule, self.shares, ends=self.ends, device=device)
        elif self.source == "foresight":
            if world is None:
                raise ValueError("source='foresight' needs a world to look ahead in; build one, or take 'hindsight'")
            rows = Foresight(
                spec, rule, world.kernel, actor, self.foresight, doubt=doubt_of(world), ends=self.ends, device=device
            )
            rows = Pooled(rows, self.pool, self.pool_updates) if self.pool else rows
        branches = None
        if self.branch_hindsight:
            branches = BranchHindsight(spec, rule, self.branch_hindsight, ends=self.ends, device=device)
        aims = Hindsight(spec, rule, self.aims, ends=self.ends, device=device)
        return Relabelling(rows=rows, aims=aims, branches=branches)


def doubt_of(world: LearnedWorld | GivenWorld) -> Callable[[View, Tensor], Tensor] | None:
    """How far the members of a learned world are apart at each view, a total variation; None for a given one, and where
    members predict no noise or read several frames.
    """
    if isinstance(world, GivenWorld) or world.ensemble.config.noise == "none" or world.ensemble.spec.frames > 1:
        return None
    ensemble = world.ensemble

    def doubt(view: View, act: Tensor) -> Tensor:
        return members_apart(ensemble, first_window(ensemble.spec, view), act)

    return doubt
