"""MapGo (Zhu et al. 2021, 2105.06350): foresight goal inference for real rows, and short branches with goals in a
learned model ("universal model-based policy optimisation").

Without imagined rows it is foresight alone; with hindsight for real rows it is MBPO with goals, and HER where none are
imagined. On a game without goals it is MBPO.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from presage.common.ddpg import DDPGConfig
from presage.common.dyna import Dyna, DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.game import GameSpec, GoalRule, Kernel
from presage.common.mbpo import build_world
from presage.common.propagation import Propagation
from presage.common.schedules import LengthRamp
from presage.common.streams import Streams
from presage.common.target_range import TargetRange
from presage.common.worlds import GivenWorld, LearnedWorld
from presage.gcrl.goals.choice import GoalsConfig, Model
from presage.gcrl.learners import GoalLearnerConfig, value_of
from presage.gcrl.poses import of_imagined
from presage.gcrl.relabelling import RelabellingConfig


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
    relabelling: RelabellingConfig = field(default_factory=RelabellingConfig)
    """where the goals of real rows and of branches come from"""
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

    @classmethod
    def paper(cls) -> MapGoConfig:
        """The released code's defaults, for a game that pays -1 and 0: days on a CPU. Whether the paper's figures were
        made with them is not known.

        Its targets are held before the reward is added, ours after.
        """
        discount = 0.98
        ddpg = DDPGConfig(discount=discount, target_every=10, targets=TargetRange.of_rewards(-1.0, 0.0, discount))
        return cls(
            learner=GoalLearnerConfig(ddpg=ddpg),
            relabelling=RelabellingConfig(ends="never"),
            ensemble=EnsembleConfig(
                members=6, elites=3, hidden=(200,) * 4, linear_skip=False, normalise_targets=False, geometry=False
            ),
            fit=FitConfig(
                loss="likelihood", learning_rate=1e-3, bootstrap=True, holdout_stretch=1, variance_weight=1.0,
                bound_penalty=0.0, weight_decay=(2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4), renamings=0,
            ),
        )  # fmt: skip

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
        goal_rule, world = of_imagined(goal_rule), None
        if self.loop.real_share < 1 or (spec.goal_dim and self.relabelling.source == "foresight"):
            world = build_world(
                spec, self.model, self.ensemble, self.fit, streams, device, true_kernel, self.propagation, goal_rule
            )
        relabelling = self.relabelling.build(spec, goal_rule, actor, world, device)
        pursuit = None
        if spec.goal_dim and goal_rule is not None:
            value, discount = value_of(learner, actor), self.learner.discount
            pursuit = self.goals.build(
                spec, goal_rule, value, discount, actor, streams, device, ends=self.relabelling.ends,
                model=model_of(world),
            )  # fmt: skip
        return Dyna(
            spec, self.loop, learner, actor, streams, world=world, relabel=relabelling.rows, aims=relabelling.aims,
            branch_relabel=relabelling.branches, pursuit=pursuit, device=device,
        )  # fmt: skip


def model_of(world: LearnedWorld | GivenWorld | None) -> Model | None:
    """A world as sources of goals ask for it."""
    if world is None:
        return None
    fitter = world.fitter if isinstance(world, LearnedWorld) else None
    return Model(kernel=world.kernel, ready=lambda: fitter is None or fitter.fits > 0)
