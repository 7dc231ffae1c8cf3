"""Opponents that change: noticing that one plays another policy, and knowing again the one that it plays.

Shape suffixes: B rows, N agents, K remembered models, T time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from presage.common.game import GameError, Window
from presage.marl.opponents.assessment import Expects
from presage.marl.opponents.predicted import Part, Predicted


@dataclass(frozen=True, kw_only=True)
class PageTestConfig:
    """When surprise counts as a change."""

    drift: float = 0.2
    """nats by which a moment's surprise may exceed what is expected before it counts; half of the smallest change that
    matters, counted as a divergence; > 0"""
    threshold: float = 8.0
    """nats of surprise that have to come together; the larger, the fewer false alarms and the later true ones; > 0"""

    def __post_init__(self) -> None:
        if self.drift <= 0 or self.threshold <= 0:
            raise ValueError(f"drift={self.drift} and threshold={self.threshold} must be > 0")


class PageTest:
    """Flags a change of what agents play, for each of B rows and N agents (cumulative sums, Page 1954).

    A model that is right is surprised, on average, by its own entropy: the excess over that, less a drift, is summed up
    while the sum is positive.
    """

    def __init__(self, rows: int, agents: int, config: PageTestConfig | None = None) -> None:
        self.config = config or PageTestConfig()
        self.sum = torch.zeros(rows, agents, dtype=torch.float64)
        """(B, N) surprise since the last moment at which there was none"""
        self.since = torch.zeros(rows, agents, dtype=torch.int64)
        """(B, N) moments since then: when a change is flagged, the estimate of how long ago it was"""

    def observe(self, surprise: Tensor, expected: Tensor, acting: Tensor | None = None) -> Tensor:
        """Take note of one moment.

        Args:
            surprise: `(B, N)` negative log-likelihood of what was done. expected: `(B, N)` the entropy of what was
                predicted. acting: `(B, N)` bool; nothing is learned of agents that did not act.

        Returns:
            `(B, N)` bool: where a change is flagged; these start afresh.
        """
        step = surprise.double() - expected.double() - self.config.drift
        if acting is not None:
            step = torch.where(acting, step, 0.0)
        total = (self.sum + step).clamp_min(0.0)
        flagged = total > self.config.threshold
        self.since = torch.where(total > 0, self.since + 1, 0)
        self.sum = torch.where(flagged, 0.0, total)
        return flagged

    def begin(self, where: Tensor | None = None) -> None:
        """Start afresh, everywhere or in the rows `where (B,)`."""
        chosen = torch.ones(len(self.sum), dtype=torch.bool) if where is None else where
        self.sum, self.since = self.sum.clone(), self.since.clone()
        self.sum[chosen], self.since[chosen] = 0.0, 0


class Recall:
    """Models of opponents that were met before, and the chances that each of B rows faces each of them.

    Chances follow Bayes' rule from what is done; between two moments an opponent may have become any other with a small
    chance (a hidden Markov chain's forward pass; fixed share, Herbster and Warmuth 1998), so that none is ruled out.
    """

    def __init__(
        self, models: Mapping[str, Expects], rows: int, *, switching: float = 0.01, agents: Sequence[int] | None = None
    ) -> None:
        """
        Args:
            models: by the name of whom they are of; all for one game and one and the same ego.
            rows: B. switching: chance of a change from one moment to the next, in [0, 1).
            agents: whose actions tell them apart; None: all but the ego's.

        Raises:
            GameError: no models, or models of unlike games or egos, or of several egos.
        """
        if not models:
            raise GameError("there is nothing to recall; give at least one model")
        if not 0 <= switching < 1:
            raise ValueError(f"switching={switching} must lie in [0, 1)")
        self.models, self.switching = dict(models), switching
        first = next(iter(self.models.values()))
        odd = [name for name, model in self.models.items() if model.spec != first.spec or model.ego != first.ego]
        if odd or len(first.ego) != 1:
            raise GameError(
                f"models must be of one game and of one and the same ego; {odd or list(self.models)} are not"
            )
        self.spec, self.ego = first.spec, tuple[int, ...](first.ego)
        self.history = max(model.history for model in self.models.values())
        own = [i for i in range(self.spec.n) if i != first.ego[0]] if agents is None else list(agents)
        self._agents = torch.tensor(own, dtype=torch.int64)
        self.log_chances = torch.full((rows, len(self.models)), -math.log(len(self.models)))
        """(B, K) of facing each of them, in the order of `names`"""

    @property
    def names(self) -> tuple[str, ...]:
        """Of those that are remembered."""
        return tuple(self.models)

    @property
    def chances(self) -> Tensor:
        """`(B, K)`."""
        return self.log_chances.exp()

    def remember(self, name: str, model: Expects) -> None:
        """Add one more, as likely from now on as a change to it is, or replace one of that name.

        Raises:
            GameError: a model of another game or ego.
        """
        if model.spec != self.spec or model.ego != self.ego:
            raise GameError(f"{name!r} is of another game or ego than what is remembered")
        if name not in self.models:
            count = len(self.models) + 1
            new = torch.full((len(self.log_chances), 1), math.log(1 / count))
            self.log_chances = torch.cat([self.log_chances + math.log1p(-1 / count), new], 1)
        self.models[name] = model
        self.history = max(self.history, model.history)

    def begin(self, where: Tensor | None = None) -> None:
        """Hold all alike again, everywhere or in the rows `where (B,)`."""
        chosen = torch.ones(len(self.log_chances), dtype=torch.bool) if where is None else where
        even = torch.full_like(self.log_chances, -math.log(len(self.models)))
        self.log_chances = torch.where(chosen[:, None], even, self.log_chances)

    @torch.no_grad()
    def observe(self, window: Window, act: Tensor) -> None:
        """Take note of what all agents did, `act (B, A)`, at the ends of B windows."""
        acting = window.now.acting[:, self._agents]
        found = []
        for model in self.models.values():
            log_p = model.expected(window).log_prob(act)[:, self._agents]
            found.append(torch.where(acting, log_p, 0.0).sum(1))
        told = (self.log_chances + torch.stack(found, 1)).log_softmax(1)
        if self.switching:
            even = math.log(self.switching / len(self.models))
            told = torch.logaddexp(told + math.log1p(-self.switching), torch.full_like(told, even))
        self.log_chances = told

    def expected(self, window: Window) -> Predicted:
        """What is expected of all agents: the models' mixture, by their chances."""
        found = [model.expected(window) for model in self.models.values()]
        parts = []
        for k, part in enumerate(found[0].parts):
            alike = [predicted.parts[k] for predicted in found]
            weights = [own.log_weights + self.log_chances[None, :, j, None] for j, own in enumerate(alike)]
            parts.append(
                Part(
                    group=part.group, parameters=torch.cat([own.parameters for own in alike], 2),
                    log_weights=torch.cat(weights, 2), legal=part.legal,
                )
            )  # fmt: skip
        return Predicted(spec=self.spec, parts=tuple(parts))
