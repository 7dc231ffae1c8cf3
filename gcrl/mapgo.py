"""MapGo (Zhu et al. 2021, 2105.06350): foresight goal inference for real rows, and short branches with goals in a
learned model ("universal model-based policy optimisation").

Without imagined rows it is foresight alone; with `relabel="hindsight"` it is MBPO with goals, and HER without imagined
rows. On a game without goals it is MBPO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from presage.common.ddpg import DDPGConfig
from presage.common.dyna import Dyna, DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.evaluate import first_window
from presage.common.fit import FitConfig
from presage.common.game import GameSpec, GoalRule, Kernel, View
from presage.common.live_terms import members_apart
from presage.common.mbpo import build_world
from presage.common.propagation import Propagation
from presage.common.relabel import Ends, Pooled, Relabeller
from presage.common.schedules import LengthRamp
from presage.common.streams import Streams
from presage.common.worlds import GivenWorld, LearnedWorld
from presage.gcrl.foresight import Foresight, ForesightConfig
from presage.gcrl.goals.choice import GoalsConfig, Model
from presage.gcrl.hindsight import BranchHindsight, Hindsight, Shares
from presage.gcrl.learners import GoalLearnerConfig, value_of


def _loop() -> DynaConfig:
    return DynaConfig(
        updates_per_step=10, warmup_steps=10_000, real_share=12 / 256, fit_every=50, rollout_every=50,
        rollout_starts=10_000, kept_rollouts=12, horizon=LengthRamp(start_epoch=0, end_epoch=0, start=3, end=3),
    )  # fmt: skip


def _learner() -> GoalLearnerConfig:
    return GoalLearnerConfig(ddpg=DDPGConfig(target_every=10))  # targets move once per env step


def _ensemble() -> EnsembleConfig:
    return EnsembleConfig(members=6, elites=3)


@dataclass(frozen=True, kw_only=True)
class MapGoConfig:
    """MapGo's parts. Schedules and shares are those of the released code; the networks of the model and their fit are
    the suite's own, and targets are not held unless `learner` says so.
    """

    learner: GoalLearnerConfig = field(default_factory=_learner)
    """what learns"""
    loop: DynaConfig = field(default_factory=_loop)
    """when to fit, how far to imagine, what to learn from; `real_share=1` imagines nothing"""
    relabel: Literal["foresight", "hindsight", "none"] = "foresight"
    """where the goals of real rows come from"""
    foresight: ForesightConfig = field(default_factory=ForesightConfig)
    """how far to look"""
    pool: int = 0
    """rows that are relabelled by foresight at once, to draw batches from; 0: every batch anew, as in the release"""
    pool_updates: int = 500
    """updates that draw from the same pool; >= 1"""
    shares: Shares = field(default_factory=Shares)
    """of hindsight, for real rows with `relabel="hindsight"`"""
    aims: Shares = field(default_factory=Shares)
    """what imagined branches pursue"""
    branch_hindsight: float = 0.0
    """share of imagined rows that get a later outcome of their own branch as their goal; 0 in the paper; in [0, 1]"""
    ends: Ends = "rule"
    """when a relabelled row has no future; see `presage.common.relabel.Goals`"""
    goals: GoalsConfig = field(default_factory=GoalsConfig)
    """what episodes pursue"""
    model: Literal["ensemble", "true"] = "ensemble"
    """imagine in a learned ensemble, or in the game's own dynamics where it offers them"""
    ensemble: EnsembleConfig = field(default_factory=_ensemble)
    """the networks of the learned world; rewards and ends are the game's rule for goals, not learned"""
    fit: FitConfig = field(default_factory=FitConfig)
    """how they are fitted"""
    propagation: Propagation = "fresh"
    """which of them answers for a row; see `EnsembleKernel`, whose "moments" are for plans alone"""

    def __post_init__(self) -> None:
        if self.relabel not in ("foresight", "hindsight", "none"):
            raise ValueError(f"relabel={self.relabel!r} must be 'foresight', 'hindsight' or 'none'")
        if not 0 <= self.branch_hindsight <= 1:
            raise ValueError(f"branch_hindsight={self.branch_hindsight} must lie in [0, 1]")
        if self.pool < 0 or self.pool_updates < 1:
            raise ValueError(f"pool={self.pool} must be >= 0 and pool_updates={self.pool_updates} >= 1")

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """MapGo on a game of one agent; see `presage.common.method.Method`.

        Raises:
            GameError: the true dynamics are asked for and the game does not offer them, or the learner does not suit
                the game.
        """
        learner, actor = self.learner.build(spec, streams, device)
        world = None
        if self.loop.real_share < 1 or (spec.goal_dim and self.relabel == "foresight"):
            world = build_world(
                spec, self.model, self.ensemble, self.fit, streams, device, true_kernel, self.propagation, goal_rule
            )
        relabel: Relabeller | None = None
        aims: Relabeller | None = None
        branch_relabel, pursuit = None, None
        if spec.goal_dim and goal_rule is not None:
            pursuit = self.goals.build(
                spec, goal_rule, value_of(learner, actor), self.learner.discount, actor, streams, device,
                model=model_of(world),
            )  # fmt: skip
            aims = Hindsight(spec, goal_rule, self.aims, ends=self.ends, device=device)
            if self.branch_hindsight:
                branch_relabel = BranchHindsight(
                    spec, goal_rule, self.branch_hindsight, ends=self.ends, device=device
                )  # fmt: skip
            if self.relabel == "hindsight":
                relabel = Hindsight(spec, goal_rule, self.shares, ends=self.ends, device=device)
            elif self.relabel == "foresight" and world is not None:
                relabel = Foresight(
                    spec, goal_rule, world.kernel, actor, self.foresight, doubt=doubt_of(world), ends=self.ends,
                    device=device,
                )  # fmt: skip
        if isinstance(relabel, Foresight) and self.pool:
            relabel = Pooled(relabel, self.pool, self.pool_updates)
        return Dyna(
            spec, self.loop, learner, actor, streams, world=world, relabel=relabel, aims=aims,
            branch_relabel=branch_relabel, pursuit=pursuit,
            device=device,
        )  # fmt: skip


def model_of(world: LearnedWorld | GivenWorld | None) -> Model | None:
    """A world as sources of goals ask for it."""
    if world is None:
        return None
    fitter = world.fitter if isinstance(world, LearnedWorld) else None
    return Model(kernel=world.kernel, ready=lambda: fitter is None or fitter.fits > 0)


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
