"""Hindsight experience replay (Andrychowicz et al. 2017, 1707.01495): a row is learned from as if what was achieved
later had been the goal.

Goals are drawn anew whenever a row is, in one tensor program; every agent's own, where there are several.

Shape suffixes: B rows, G goal, K groups of agents that share a goal (one agent: 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay, Span
from presage.common.game import GameSpec, GoalRule, Rows
from presage.common.relabel import Ends, Goals


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What a batch's goals are, in shares of its rows; they are scaled to a sum of one.

    Later outcomes are counted from the row's own on: of an episode's last row, `future` is what it achieved itself.
    """

    keep: float = 0.2
    """the goal that was pursued"""
    future: float = 0.8
    """the outcome of a row of the same episode, this one or a later one, all alike"""
    geometric: float = 0.0
    """likewise, rows `persistence` times as likely with every step ahead"""
    final: float = 0.0
    """the outcome of the episode's last row; of an open episode, of its newest"""
    episode: float = 0.0
    """the outcome of any row of the same episode that the replay still holds"""
    random: float = 0.0
    """the outcome of any row in the replay"""
    pursued: float = 0.0
    """the goal of any row in the replay"""

    def __post_init__(self) -> None:
        shares = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, share in shares.items():
            if not 0 <= share < float("inf"):
                raise ValueError(f"{name}={share} must be >= 0 and finite")
        if sum(shares.values()) == 0:
            raise ValueError("all shares are 0; give at least one, keep=1 for no hindsight at all")

    @classmethod
    def of(cls, k: float, strategy: str = "future") -> Shares:
        """The paper's `k`: so many relabelled rows for every one that keeps its goal, k / (1 + k) of a batch.

        Raises:
            ValueError: an unknown strategy.
        """
        known = [field.name for field in fields(cls) if field.name != "keep"]
        if strategy not in known:
            raise ValueError(f"strategy={strategy!r} must be one of {', '.join(known)}")
        return cls(**{"keep": 1.0, "future": 0.0, strategy: float(k)})


class Hindsight:
    """The relabeller of hindsight experience replay; see `Shares` for what it can draw.

    Shares are exact: of B rows, B times its share get a strategy, or a whole number next to that, in the mean the share
    itself. With several agents every group draws for itself.
    """

    def __init__(
        self, spec: GameSpec, rule: GoalRule, shares: Shares | None = None, *, persistence: float = 0.98,
        ends: Ends = "rule", device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec, rule: the game and its `goal_rule`. shares: of the strategies; None for four of five by `future`.
            persistence: of `geometric`, in (0, 1). ends: when a relabelled row has no future; see `Goals`.

        Raises:
            GameError: the game has no goals.
            ValueError: `persistence` is not in (0, 1).
        """
        if not 0 < persistence < 1:
            raise ValueError(f"persistence={persistence} must lie in (0, 1)")
        self.goals, self.shares, self.persistence = Goals(spec, rule, ends, device), shares or Shares(), persistence
        parts = {field.name: getattr(self.shares, field.name) for field in fields(Shares)}
        total = sum(parts.values())
        edges = [below / total for below in accumulate(parts.values(), initial=0.0)]
        self._kept = edges[1]
        """share of the rows that keep their goal"""
        self._parts = [
            (name, low, high)
            for name, (low, high) in zip(parts, pairwise(edges), strict=True)
            if high > low and name != "keep"
        ]
        """strategies that have a share, each with where it begins and ends in [0, 1]"""

    def __call__(self, replay: EpisodicReplay, index: Tensor, rows: Rows, rng: torch.Generator) -> Rows:
        """The rows at `index (B,)` of `replay` under goals drawn for them; see `Relabeller`."""
        if not self._parts:
            return rows
        goals, shape = self.goals, (len(index), self.goals.groups)
        place = goals.places(len(index), rng)
        chance = torch.rand(shape, generator=rng, device=index.device, dtype=torch.float64)
        span = Span(*(part[:, None] for part in replay.span(index)))
        chosen = place >= self._kept
        source, wishes = None, None
        for name, low, high in self._parts:
            if name in AHEAD:
                drawn = replay.shifted(index[:, None], AHEAD[name](span, chance, self.persistence))
            else:
                drawn = replay.sample(len(index) * goals.groups, rng).view(shape)
            if source is None:  # the first one's are drawn for all rows: other strategies' come over them
                source, mine = drawn, chosen
            else:
                mine = (place >= low) & (place < high)
                source = torch.where(mine, drawn, source)
            wishes = mine if name == "pursued" else wishes
        assert source is not None
        source = goals.by_entry(source)  # an entry of the goal comes from the row that its group has drawn
        desired = replay.achieved_after(source)
        if wishes is not None:
            desired = torch.where(goals.by_entry(wishes), replay.pursued(source), desired)
        return goals.replaced(rows, desired, chosen)


def _future(span: Span, chance: Tensor, persistence: float) -> Tensor:
    return (chance * (span.after + 1)).long()


def _geometric(span: Span, chance: Tensor, persistence: float) -> Tensor:
    """`persistence ** k` in k, cut off at the episode's end: the inverse of its distribution function."""
    missed = 1.0 - persistence ** (span.after + 1).double()
    steps = (torch.log1p(-chance * missed) / math.log(persistence)).long()
    return torch.minimum(steps, span.after)


def _final(span: Span, chance: Tensor, persistence: float) -> Tensor:
    return span.after.expand_as(chance)


def _episode(span: Span, chance: Tensor, persistence: float) -> Tensor:
    return (chance * (span.before + span.after + 1)).long() - span.before


AHEAD: dict[str, Callable[[Span, Tensor, float], Tensor]] = {
    "future": _future, "geometric": _geometric, "final": _final, "episode": _episode,
}  # fmt: skip
"""strategies inside an episode: how many rows ahead, from spans `(B, 1)`, uniform numbers `(B, K)` and persistence"""


class BranchHindsight:
    """Hindsight inside imagined branches: a share of their rows gets what their own branch achieved later as its goal,
    the row's own step included. Branches that pursue a goal are seldom paid by it; a branch reaches what it reaches.

    A `presage.common.relabel.BranchRelabeller`. Not in the papers.
    """

    def __init__(
        self, spec: GameSpec, rule: GoalRule, share: float, *, ends: Ends = "rule", device: torch.device | str = "cpu"
    ) -> None:
        """
        Args:
            spec, rule: the game and its `goal_rule`. share: of the rows of every step, in [0, 1]. ends: see `Goals`.

        Raises:
            GameError: the game has no goals.
            ValueError: the share is not in [0, 1].
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} must lie in [0, 1]")
        self.goals, self.share = Goals(spec, rule, ends, device), share

    def __call__(self, steps: Sequence[tuple[Rows, Tensor]], rng: torch.Generator) -> Iterator[Rows]:
        """The rows of every step, some of them under later outcomes of their branches; see `BranchRelabeller`."""
        if not steps:  # branches of no step at all, as a ramp of lengths may begin with
            return
        first = steps[0][0].next_achieved
        outcome = torch.stack([torch.zeros_like(first)] * len(steps))
        last = torch.zeros(len(first), dtype=torch.long, device=first.device)
        for u, (rows, branch) in enumerate(steps):
            outcome[u, branch], last[branch] = rows.next_achieved, u
        entry = torch.arange(first.shape[1], device=first.device)
        for u, (rows, branch) in enumerate(steps):
            chance = torch.rand(len(rows), self.goals.groups, generator=rng, device=first.device)
            then = self.goals.by_entry(u + (chance * (last[branch] - u + 1)[:, None]).long())
            chosen = self.goals.places(len(rows), rng) < self.share
            yield self.goals.replaced(rows, outcome[then, branch[:, None], entry], chosen)
