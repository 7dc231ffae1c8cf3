"""A backward model: where one may have come from, given where one is and the action that led there (BMPO; Lai, Shen,
Zhang, Yu 2020, 2007.01995).

It is a dynamics ensemble that reads every row the other way round: inputs `(s_{t+1}, a_t)`, targets `s_t - s_{t+1}` and
`r_t`. Where several states lead to one there is no one predecessor: members answer with their spread, and the mean may
be none of them. The first state of an episode has no predecessor; it is never a row's next one.

Shape suffixes: B batch, N agent, O observation, A action, F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig, Regression, RewardRule, TerminationRule
from presage.common.game import GameSpec, Rows, View, Window
from presage.common.propagation import EnsembleCarry, EnsembleKernel, Propagation


class BackwardEnsemble(DynamicsEnsemble):
    """A dynamics ensemble of predecessors; `EnsembleFitter` fits it on the same rows as one of successors.

    "View" and "after" of its verbs are swapped: `predict(view, act)` tells the state before `view`, and the flags it
    learns are those of the state before, and whether the step ended the game. In a game of several frames it reads the
    frames that came later, in windows from `ahead`.
    """

    backward = True

    def __init__(
        self,
        spec: GameSpec,
        config: EnsembleConfig,
        rng: torch.Generator,
        *,
        reward: RewardRule | None = None,
        terminates: TerminationRule | None = None,
    ) -> None:
        """
        Args:
            spec, config, rng: as for `DynamicsEnsemble`.
            reward, terminates: rules instead of learning them, called in forward order: with the predecessor, the
                action, and the state that it led to.
        """
        super().__init__(spec, config, rng, reward=_swapped(reward), terminates=_swapped(terminates))

    def regressions(
        self, rows: Rows, window: Window | None = None, following: Sequence[Rows] = ()
    ) -> dict[str, Regression]:
        """The networks by name, each with its inputs and targets on `rows (B)`, given as they were played.

        Args:
            window: from `ahead`; needed where the game declares several frames.
        """
        return super().regressions(turned(rows), window, following)


def _swapped(rule: Callable[[View, Tensor, View], Tensor] | None) -> Callable[[View, Tensor, View], Tensor] | None:
    return None if rule is None else lambda view, act, after: rule(after, act, view)


def turned(rows: Rows) -> Rows:
    """The rows `(B)` the other way round: what was seen after the step first."""
    return rows.with_(
        obs=rows.next_obs, next_obs=rows.obs, acting=rows.next_acting, next_acting=rows.acting, legal=rows.next_legal,
        next_legal=rows.legal, achieved=rows.next_achieved, next_achieved=rows.achieved,
    )  # fmt: skip


def ahead(rows: Rows, length: int, lanes: int = 1) -> Window:
    """Windows `(B)` of `length` views that run backwards in time and end at the rows' next observations.

    Beyond an episode's last observation views repeat it, as windows of a replay repeat the first one.

    Args:
        rows: ordered by time, then copy. length: T >= 1. lanes: copies of the game.
    """
    place = torch.arange(len(rows), device=rows.obs.device)
    obs, act, valid = [rows.next_obs], [torch.zeros_like(rows.act)], [torch.ones_like(rows.truncated)]
    at = place  # of the latest row that is known
    for k in range(1, length):
        later = (place + k * lanes).clamp(max=len(rows) - 1)
        same = (place + k * lanes < len(rows)) & (rows.step[later] == rows.step + k)
        known = valid[-1] & same
        at = torch.where(known, later, at)
        obs.append(rows.next_obs[at])
        act.append(rows.act[at] * known[:, None])
        valid.append(known)
    oldest_first = [torch.stack(part[::-1], 1) for part in (obs, act, valid)]
    return Window(obs=oldest_first[0], act=oldest_first[1], valid=oldest_first[2], now=rows.next_view)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is predicted of the step that led to B views."""

    before: View
    """the observation before, and its flags"""
    reward: Tensor
    """(B, N) what the step paid"""
    terminated: Tensor
    """(B, N) bool: whether it ended an agent's game"""


class BackwardKernel:
    """A backward ensemble to imagine the past in; member assignment and noise as in `EnsembleKernel`."""

    def __init__(
        self, ensemble: BackwardEnsemble, propagation: Propagation = "fresh", particles: int | None = None
    ) -> None:
        """
        Args:
            particles: rows that imagine the same past actions, as in `EnsembleKernel`.

        Raises:
            ValueError: the ensemble predicts forward, or as for `EnsembleKernel`.
        """
        if not ensemble.backward:
            raise ValueError(f"{type(ensemble).__name__} predicts what follows; build a BackwardEnsemble")
        self.ensemble = ensemble
        self._kernel = EnsembleKernel(ensemble, propagation, particles)

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> EnsembleCarry:
        """Start B branches into the past at the end of `window`, for the agents `ego (B,)`.

        Args:
            window: runs backwards in time (see `ahead`); more than its end matters only in games of several frames.
        """
        return self._kernel.init(window, ego, rng)

    def step_back(
        self, carry: EnsembleCarry, view: View, act: Tensor, rng: torch.Generator
    ) -> tuple[EnsembleCarry, Origin]:
        """The predecessors of `view` under the joint actions `act (B, A)` that led there."""
        carry, found = self._kernel.step(carry, view, act, rng)
        return carry, Origin(before=found.after, reward=found.reward, terminated=found.terminated)
