"""Subgoals that make a long way easy: hierarchical foresight (Nair, Finn 2020, "Hierarchical Foresight", 1909.05829)
over states instead of images.

Of all ways from where one is to the goal over K places between, the one is taken whose worst stretch is the least
costly to plan: the places are searched by the cross-entropy method, and each stretch is priced by planning it in the
model. No reward and no policy are needed.

Shape suffixes: B situations, M stretches, P candidates, K subgoals, S entries of a place, Z of a code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

StretchCost = Callable[[Tensor, Tensor], Tensor]
"""what it costs to plan from places `(M, S)` to places `(M, S)`: `(M,)`, 0 where it succeeds"""
Decode = Callable[[Tensor, Tensor], Tensor]
"""from codes `(B, P, K, Z)`, standard normal at first, and starts `(B, S)`, places `(B, P, K, S)`"""


@dataclass(frozen=True, kw_only=True)
class SubgoalSearch:
    """How places are searched, by the authors' code."""

    subgoals: int = 1
    """K, >= 1"""
    population: int = 100
    """P, ways of an iteration; >= elites"""
    elites: int = 20
    """best ways that the next ones are drawn around; >= 2"""
    iterations: int = 3
    """>= 1"""

    def __post_init__(self) -> None:
        if self.subgoals < 1 or self.iterations < 1 or not 2 <= self.elites <= self.population:
            raise ValueError(
                f"subgoals={self.subgoals} and iterations={self.iterations} must be >= 1, and 2 <= "
                f"elites={self.elites} <= population={self.population}"
            )


class Way(NamedTuple):
    """What a search has found."""

    places: Tensor
    """(B, K, S)"""
    cost: Tensor
    """(B,) of the worst stretch"""


def in_box(low: Tensor, high: Tensor) -> Decode:
    """Codes as places of a box: half a side from the middle is two standard deviations, and what lies outside is moved
    to the edge.
    """
    middle, reach = (low + high) / 2, (high - low) / 2
    return lambda codes, start: torch.minimum(torch.maximum(middle + reach * codes / 2, low), high)


def subgoals_to(
    start: Tensor, goal: Tensor, cost: StretchCost, decode: Decode, width: int, search: SubgoalSearch,
    rng: torch.Generator,
) -> Way:  # fmt: skip
    """The best way from `start (B, S)` to `goal (B, S)` among those of the last iteration.

    Args:
        cost: of a stretch; asked for `B * P * (K + 1)` stretches at once, `iterations` times.
        decode: of a code; `width`: Z.

    Raises:
        ValueError: starts and goals are not of one shape.
    """
    if start.shape != goal.shape:
        raise ValueError(f"starts {tuple(start.shape)} and goals {tuple(goal.shape)} must be of one shape")
    size, places = start.shape
    shape = (size, search.population, search.subgoals, width)
    mean, std = start.new_zeros(size, 1, *shape[2:]), start.new_ones(size, 1, *shape[2:])
    for _ in range(search.iterations):
        codes = mean + std * torch.randn(shape, generator=rng, device=start.device, dtype=start.dtype)
        between = decode(codes, start)
        ends = (part[:, None, None].expand(-1, search.population, 1, -1) for part in (start, goal))
        first, last = ends
        way = torch.cat([first, between, last], 2)
        stretches = cost(way[:, :, :-1].reshape(-1, places), way[:, :, 1:].reshape(-1, places))
        worst = stretches.view(size, search.population, -1).amax(2)
        worst = torch.where(worst.isnan(), torch.inf, worst)
        best = worst.topk(search.elites, 1, largest=False)
        chosen = codes.gather(1, best.indices[..., None, None].expand(-1, -1, *shape[2:]))
        mean, std = chosen.mean(1, keepdim=True), chosen.std(1, keepdim=True)
    rows = torch.arange(size, device=start.device)
    return Way(between[rows, best.indices[:, 0]], best.values[:, 0])
