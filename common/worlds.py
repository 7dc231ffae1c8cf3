"""Worlds that `Dyna` can imagine in: a learned ensemble that is fitted again and again, or a kernel that is given."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import GoalRule, Kernel, View, Window
from presage.common.holdout import Numbered, Split
from presage.common.live_terms import members_apart
from presage.common.method import Metrics
from presage.common.propagation import EnsembleKernel, Propagation
from presage.common.replay import Replay


def rules_of(rule: GoalRule) -> tuple[Callable[[View, Tensor, View], Tensor], Callable[[View, Tensor, View], Tensor]]:
    """Rewards and ends of imagined steps in a game of goals: those of the goal that a branch pursues."""

    def reward(view: View, act: Tensor, after: View) -> Tensor:
        return rule.reward(after.achieved, view.desired)

    def terminates(view: View, act: Tensor, after: View) -> Tensor:
        return rule.terminated(after.achieved, view.desired)

    return reward, terminates


class LearnedWorld:
    """A dynamics ensemble, fitted to the real rows of all times that every lane of the replay holds."""

    kernel: Kernel

    def __init__(
        self, ensemble: DynamicsEnsemble, config: FitConfig, rng: torch.Generator, propagation: Propagation = "fresh"
    ) -> None:
        """
        Args:
            rng: decides which rows are held out. propagation: which member answers for a row; see `EnsembleKernel`.
        """
        self.ensemble = ensemble
        self.fitter = EnsembleFitter(ensemble, config, rng)
        self.kernel = EnsembleKernel(ensemble, propagation)

    def fit(self, replay: Replay, rng: torch.Generator) -> Metrics:
        """Fit to the real rows, numbered by their place in the game's history."""
        index, first = replay.complete()
        frames = self.ensemble.spec.frames
        window = replay.window(index, frames) if frames > 1 else None
        report = self.fitter.fit(replay.rows(index), rng, window=window, lanes=replay.lanes, first=first)
        return {f"model/{name}": value for name, value in report.metrics().items()}

    def doubt(self, window: Window, act: Tensor) -> Tensor | None:
        """How far apart the members are at each situation, a total variation `(B,)`; None where they predict no noise,
        so that any two that differ at all are as far apart as can be.
        """
        return None if self.ensemble.config.noise == "none" else members_apart(self.ensemble, window, act)

    def held_out(self, replay: Replay) -> Tensor:
        """Positions among the rows that `replay.complete` gives of those that the first owner is not fitted to."""
        index, first = replay.complete()
        rows, config = replay.rows(index), self.fitter.config
        numbered = Numbered.of(rows.ego, rows.step, replay.lanes, first, config.holdout_stretch)
        owners = self.ensemble.config.owners
        return Split.of(numbered, owners, config.holdout, config.max_holdout, self.fitter.salt).held_out[0]


class GivenWorld:
    """A kernel that needs no fitting: the true game, for the limit that a perfect model sets."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def fit(self, replay: Replay, rng: torch.Generator) -> Metrics:
        """Nothing to fit."""
        return {}

    def doubt(self, window: Window, act: Tensor) -> Tensor:
        """None: zeros `(B,)`."""
        return act.new_zeros(len(act))
