"""A multistep model: the state h steps on is predicted at once, from the branch's start and the actions since.

Errors of a one-step model feed on each other; here step h is one prediction, whatever h is (Asadi, Misra, Kim, Littman
2019, 1905.13320). The price: the longer the run, the fewer rows show it, and the wider the inputs.

Shape suffixes: B batch, A joint action, N agent, S state, H horizon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig, RewardRule, TerminationRule
from presage.common.fit import EnsembleFitter, FitConfig, FitReport
from presage.common.game import GameSpec, Outcome, Rows, View, Window
from presage.common.propagation import EnsembleCarry, EnsembleKernel


class MultistepEnsemble(nn.Module):
    """One ensemble for every h = 1..H: `f_h(s_t, a_t .. a_{t+h-1})` predicts `s_{t+h} - s_t` (or, with
    `target="absolute"`, `s_{t+h}` itself).

    Only what is seen and who acts at the start is read beside the actions. Rewards and flags of a step are the business
    of the first head, which is an ordinary one-step ensemble; it reads the states that the others predict.
    """

    def __init__(
        self,
        spec: GameSpec,
        config: EnsembleConfig,
        horizon: int,
        rng: torch.Generator,
        *,
        reward: RewardRule | None = None,
        terminates: TerminationRule | None = None,
    ) -> None:
        """
        Args:
            spec: the game. config: the networks of every head. horizon: H >= 1. rng: draws the weights, on the CPU.
            reward, terminates: rules instead of learning them, as for `DynamicsEnsemble`.

        Raises:
            ValueError: `horizon` is below 1; and as for `DynamicsEnsemble`.
        """
        super().__init__()
        if horizon < 1:
            raise ValueError(f"horizon={horizon} must be >= 1")
        self.spec, self.config, self.horizon = spec, config, horizon
        first = DynamicsEnsemble(spec, config, rng, reward=reward, terminates=terminates)
        later = (DynamicsEnsemble(spec, config, rng, steps=steps) for steps in range(2, horizon + 1))
        self._heads = nn.ModuleList([first, *later])

    @property
    def heads(self) -> list[DynamicsEnsemble]:
        """The ensemble of every h, that of one step first."""
        return list(self._each())

    def _each(self) -> Iterator[DynamicsEnsemble]:
        for head in self._heads:
            if not isinstance(head, DynamicsEnsemble):
                raise TypeError(f"expected an ensemble, got {type(head).__name__}")
            yield head


class MultistepFitter:
    """Fits every head on real rows alone: on all runs of h rows inside one episode; all heads hold out alike."""

    def __init__(self, ensemble: MultistepEnsemble, config: FitConfig, rng: torch.Generator) -> None:
        self.ensemble = ensemble
        self.fitters = [EnsembleFitter(head, config, rng) for head in ensemble.heads]
        for fitter in self.fitters:
            fitter.salt = self.fitters[0].salt

    def fit(
        self, rows: Rows, rng: torch.Generator, *, window: Window | None = None, lanes: int = 1, first: int = 0
    ) -> list[FitReport]:
        """Fit all heads on `rows (B)`, ordered by time, then copy; arguments and errors as for `EnsembleFitter.fit`.

        Returns:
            a report of every head, that of one step first.
        """
        return [fitter.fit(rows, rng, window=window, lanes=lanes, first=first) for fitter in self.fitters]

    def state(self) -> dict[str, Any]:
        """Plain data and tensors from which `restore` continues exactly; the ensemble's own state is apart."""
        return {"heads": [fitter.state() for fitter in self.fitters]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        for fitter, saved in zip(self.fitters, state["heads"], strict=True):
            fitter.restore(saved)


@dataclass(frozen=True, kw_only=True)
class MultistepCarry:
    """What a `MultistepKernel` remembers of B branches."""

    heads: tuple[EnsembleCarry, ...]
    """of every head; the frames before the anchor in all but the first, which goes along step by step"""
    anchor: View | None
    """where the present window of H steps began; None before its first step"""
    acts: Tensor | None
    """(B, h * A) the joint actions since"""


class MultistepKernel:
    """A multistep ensemble as a world to imagine in; satisfies `Kernel`.

    Step h of a branch is predicted from the branch's start; after H steps a new window starts at the predicted state.
    Every step has the distribution that its head predicts from the start; the noise of two steps is drawn
    independently, also where it is not. Propagation as in `EnsembleKernel`, the elites of every head for themselves.
    """

    def __init__(
        self,
        ensemble: MultistepEnsemble,
        propagation: Literal["fresh", "fixed", "mean", "mixture"] = "fresh",
        particles: int | None = None,
    ) -> None:
        """
        Args:
            particles: rows that imagine the same plan, as in `EnsembleKernel`.

        Raises:
            ValueError: an unknown propagation, or "moments": states that are drawn anew belong to no start.
        """
        if propagation not in ("fresh", "fixed", "mean", "mixture"):
            raise ValueError(f"propagation={propagation!r} must be 'fresh', 'fixed', 'mean' or 'mixture'")
        self.ensemble = ensemble
        self._kernels = [EnsembleKernel(head, propagation, particles) for head in ensemble.heads]

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> MultistepCarry:
        """Start B branches at the end of `window` for the agents `ego (B,)`; errors as for `EnsembleKernel.init`."""
        heads = tuple(kernel.init(window, ego, rng) for kernel in self._kernels)
        return MultistepCarry(heads=heads, anchor=None, acts=None)

    def step(
        self, carry: MultistepCarry, view: View, act: Tensor, rng: torch.Generator
    ) -> tuple[MultistepCarry, Outcome]:
        """One step of all branches under `act (B, A)`; differentiable in the views' tensors and the actions."""
        one = self._kernels[0]
        if carry.anchor is None or carry.acts is None:
            anchor, acts, steps = view, act, 1
            first, outcome = one.step(carry.heads[0], view, act, rng)
        else:
            anchor, acts = carry.anchor, torch.cat([carry.acts, act], 1)
            steps = acts.shape[1] // act.shape[1]
            _, ahead = self._kernels[steps - 1].step(carry.heads[steps - 1], anchor, acts, rng)
            first, outcome = one.step_to(carry.heads[0], view, act, one.ensemble.state(ahead.after), rng)
        heads = (first, *carry.heads[1:])
        if steps < self.ensemble.horizon:
            return MultistepCarry(heads=heads, anchor=anchor, acts=acts), outcome
        heads = tuple(replace(head, past=first.past) for head in heads)
        return MultistepCarry(heads=heads, anchor=None, acts=None), outcome
