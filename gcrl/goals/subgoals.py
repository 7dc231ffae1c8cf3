"""Subgoals that make a long way easy: hierarchical foresight (Nair, Finn 2020, "Hierarchical Foresight", 1909.05829)
over states instead of images.

Of all ways from where one is to the goal over K places between, the one is taken whose worst stretch is the least
costly to plan: the places are searched by the cross-entropy method, and each stretch is priced by planning it in the
model. No reward and no policy are needed.

Shape suffixes: B situations, M stretches, P candidates, K subgoals, S entries of a place, Z of a code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.evaluate import first_window
from presage.common.game import ALL_AGENTS, Actor, GameError, GameSpec, GoalRule, Kernel, View
from presage.gcrl.goals.source import NOTHING, Pursuits

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


@dataclass(frozen=True, kw_only=True)
class ForeseenSubgoalsConfig:
    """How far a subgoal may be, and what it is chosen from."""

    search: SubgoalSearch = field(default_factory=SubgoalSearch)
    """over places"""
    length: int = 10
    """H, imagined steps of the policy on every stretch; >= 1"""
    pool: int = 1_000
    """outcomes of the replay that places are drawn to, so that all of them can be; >= 1"""

    def __post_init__(self) -> None:
        if self.length < 1 or self.pool < 1:
            raise ValueError(f"length={self.length} and pool={self.pool} must be >= 1")


class ForeseenSubgoals:
    """The source of first subgoals on the way to the game's own goals; a `GoalSource`.

    A stretch costs what is left of it after some steps of the present policy in the model, its distance in goals.
    Places are codes of the box of achieved goals, drawn to the nearest outcome that has been seen, with whose
    observation the model goes on from there.
    """

    checkpoint_skip = ("kernel", "actor")
    """saved with whoever imagines and acts"""
    metrics = NOTHING

    def __init__(
        self, spec: GameSpec, rule: GoalRule, kernel: Kernel, actor: Actor,
        config: ForeseenSubgoalsConfig | None = None, ready: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        """
        Args:
            rule: the game's `goal_rule`. kernel: the model. actor: the present policy.
            ready: whether the model has been fitted; until then goals are the game's own.

        Raises:
            GameError: the model reads more than one frame, which a place of the box does not have.
        """
        if spec.frames > 1:
            raise GameError(f"{spec.name!r} needs {spec.frames} frames; subgoals are foreseen where one is enough")
        self.spec, self.rule, self.kernel, self.actor = spec, rule, kernel, actor
        self.config, self.ready = config or ForeseenSubgoalsConfig(), ready

    @torch.no_grad()
    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """Goals `(C, G)`: the first place of the best way to the game's own; that itself where it is as near."""
        if not len(replay) or not self.ready():
            return start.desired
        rows = replay.rows(replay.sample(self.config.pool, rng))
        seen = torch.cat([rows.next_obs, rows.next_achieved], 1)
        goals = rows.next_achieved
        box = in_box(goals.amin(0), goals.amax(0))
        width = self.spec.goal_dim

        def decode(codes: Tensor, start: Tensor) -> Tensor:
            wished = box(codes, start)
            nearest = torch.cdist(wished.reshape(-1, width), goals).argmin(1)
            return seen[nearest].view(*wished.shape[:-1], -1)

        def cost(one: Tensor, other: Tensor) -> Tensor:
            return self.left(one, other[:, self.spec.obs_dim :], rng)

        here = torch.cat([start.obs, start.achieved], 1)
        there = torch.cat([start.obs, start.desired], 1)  # of a goal only what is to be achieved is read
        way = subgoals_to(here, there, cost, decode, width, self.config.search, rng)
        straight = cost(here, there)
        return torch.where((straight <= way.cost)[:, None], start.desired, way.places[:, 0, self.spec.obs_dim :])

    def left(self, places: Tensor, goals: Tensor, rng: torch.Generator) -> Tensor:
        """What is left, `(M,)`, of the way from `places (M, O + G)` to `goals (M, G)`; 0 where they are reached."""
        obs, achieved = places[:, : self.spec.obs_dim], places[:, self.spec.obs_dim :]
        view = View.of(self.spec, obs, achieved=achieved, desired=goals)
        window = first_window(self.spec, view)
        everyone = torch.full((len(view),), ALL_AGENTS, device=obs.device)
        carry, memory = self.kernel.init(window, everyone, rng), self.actor.init(window)
        for _ in range(self.config.length):
            memory, act = self.actor.step(memory, view, None)
            carry, outcome = self.kernel.step(carry, view, act, rng)
            view = outcome.after
        left = (view.achieved - goals).square().sum(1).sqrt()
        return left.masked_fill(self.rule.success(view.achieved, goals).all(1), 0.0)

    def ended(self, pursuits: Pursuits) -> None:
        """Nothing to note."""

    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Nothing to fit: the model is fitted by whoever imagines in it."""
