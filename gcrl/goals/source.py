"""What a source of goals is: it says which goal each episode pursues. Relabelling and evaluation are not its business.

Shape suffixes: C episodes that begin or end, G goal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import View

NOTHING: Mapping[str, float] = MappingProxyType({})
"""to log"""


@dataclass(frozen=True, kw_only=True)
class Pursuits:
    """Episodes that ended, and how their pursuits went."""

    start: View
    """(C) what was seen first; its `desired` are the game's own goals"""
    goals: Tensor
    """(C, G) pursued instead, or the same"""
    reached: Tensor
    """(C,) bool: at some step"""

    def __len__(self) -> int:
        return len(self.goals)


class GoalSource(Protocol):
    """Proposes goals, and learns from how they go."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """What there is to log, by name."""
        ...

    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """Goals `(C, G)` for C episodes that begin at `start`, whose `desired` are the game's own goals."""
        ...

    def ended(self, pursuits: Pursuits) -> None:
        """Take note of episodes that are over."""
        ...

    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Fit what is to be fitted, to all that has been seen."""
        ...


class GameGoals:
    """The game's own goals."""

    metrics = NOTHING

    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """As they are."""
        return start.desired

    def ended(self, pursuits: Pursuits) -> None:
        """Nothing to note."""

    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Nothing to fit."""


class UniformGoals:
    """Goals uniform in a box."""

    metrics = NOTHING

    def __init__(self, low: Tensor, high: Tensor) -> None:
        """
        Args:
            low, high: `(G,)`.

        Raises:
            ValueError: the box is empty.
        """
        if low.shape != high.shape or not bool((low <= high).all()):
            raise ValueError(f"low={low.tolist()} must be <= high={high.tolist()}, entry by entry")
        self.low, self.high = low, high

    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """Drawn for every episode."""
        share = torch.rand(len(start), len(self.low), generator=rng, device=self.low.device)
        return self.low + share * (self.high - self.low)

    def ended(self, pursuits: Pursuits) -> None:
        """Nothing to note."""

    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Nothing to fit."""


class AchievedGoals:
    """Goals that have been achieved, all rows of the replay alike; before there are any, the game's own."""

    metrics = NOTHING

    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """Drawn for every episode."""
        if not len(replay):
            return start.desired
        return replay.achieved_after(replay.sample(len(start), rng)[:, None])

    def ended(self, pursuits: Pursuits) -> None:
        """Nothing to note."""

    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Nothing to fit."""
