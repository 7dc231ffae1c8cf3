"""What a particle scenario says: its bodies, where they start, what agents see and what they are paid.

One scenario is one file of this folder. A state of B games is one tensor `(D, B)`; see `physics` for its rows.

Shape suffixes: B batch, N agents, K landmarks, R observed numbers, D rows of the state, U chances of a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from presage.common.game import GoalRule
from presage.envs.particle.physics import Body, Renaming, Term, World, WorldState

MOST_ENUMERATED = 5
"""bodies whose assignments are enumerated, all rows at once; of more, they are solved row by row"""

Look = Callable[[Tensor, Tensor], Tensor]
"""(state `(D, B)`, what `observed` names `(R, B)`) -> what is seen `(R, B)`"""


class Before(NamedTuple):
    """The step that led to a state, where a single joint observation does not tell it."""

    obs: Tensor
    """(B, O) joint observation"""
    push: Tensor
    """(B, N, 2) in [-1, 1]"""
    known: Tensor
    """(B,) bool: false where the state is an episode's first one"""


class Scenario(ABC):
    """A particle game."""

    frames = 1
    """joint observations needed to determine the next one; >= 1"""
    chances = 0
    """U, uniform numbers in [0, 1) that a step of one game takes"""

    @property
    def goals(self) -> tuple[tuple[int, ...], ...]:
        """Per agent, its indices into the joint goal vector; () for a scenario without goals."""
        return ()

    @property
    def achieved(self) -> tuple[int, ...]:
        """Indices into the joint observation that hold the achieved goal."""
        return ()

    @property
    def goal_rule(self) -> GoalRule | None:
        """What reaching a goal is worth; None without goals."""
        return None

    def desired(self, state: Tensor) -> Tensor:
        """The desired goals `(B, G)` in `state (D, B)`."""
        return state.new_zeros(state.shape[1], 0)

    @property
    @abstractmethod
    def name(self) -> str:
        """The scenario's name."""

    @property
    @abstractmethod
    def world(self) -> World:
        """Its bodies."""

    @abstractmethod
    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent, the numbers it sees, each a difference of two rows of the state."""

    def look(self, device: torch.device) -> Look | None:
        """What hides, sorts or replaces some of the observed numbers; None where they are seen as they are."""
        return None

    def interchangeable(self) -> list[Renaming]:
        """Orders of bodies (and of private numbers with them) under which the game is the same, the given one too."""
        return [same(self.world)]

    @abstractmethod
    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Initial states of `copies` episodes, float64 on the generator's device.

        One copy's numbers are drawn after another's, so that they do not depend on how many copies follow.
        """

    def happen(self, state: Tensor, chance: Tensor) -> Tensor:
        """The state `(D, B)` after what the scenario adds to a step of the physics; `chance (U, B)`."""
        return state

    @abstractmethod
    def rewards(self, state: Tensor) -> Tensor:
        """Each agent's reward `(B, N)` for arriving in `state (D, B)`."""

    @property
    def terminates(self) -> bool:
        """Whether an episode can end before its last step."""
        return False

    def over(self, state: Tensor) -> Tensor:
        """`(B,)` bool: whether the episode ends in `state (D, B)`, for all agents at once."""
        return torch.zeros(state.shape[1], dtype=torch.bool, device=state.device)

    @abstractmethod
    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """A state that goes on exactly like the one behind the joint observation `obs (B, O)`.

        Args:
            before: the step that led there, for scenarios with `frames = 2`; others do not read it.

        Raises:
            GameError: it is needed, and not given.
        """


def same(world: World) -> Renaming:
    """The renaming that changes nothing."""
    return Renaming(tuple(range(len(world.agents))), tuple(range(len(world.landmarks))), tuple(range(world.private)))


def orders(*groups: range) -> list[tuple[int, ...]]:
    """Every order of 0..n-1 in which the places of each group are exchanged among themselves; groups follow each other
    and cover 0..n-1.
    """
    found: list[tuple[int, ...]] = [()]
    for group in groups:
        found = [(*head, *tail) for head in found for tail in permutations(group)]
    return found


def alike(stem: str, count: int, **body: object) -> tuple[Body, ...]:
    """Equal bodies called `stem_0`, `stem_1` and so on."""
    return tuple(Body(name=f"{stem}_{k}", **body) for k in range(count))  # type: ignore[arg-type]  # Body's fields


def marks(count: int, stem: str = "landmark", **body: object) -> tuple[Body, ...]:
    """Landmarks that nothing collides with."""
    return alike(stem, count, **({"collides": False} | body), movable=False)


def uniform(copies: int, numbers: int, rng: torch.Generator) -> Tensor:
    """`(copies, numbers)` float64 uniform in [0, 1), one copy's after another's."""
    return torch.rand(copies, numbers, generator=rng, device=rng.device, dtype=torch.float64)


def square(number: Tensor, half: float = 1.0) -> Tensor:
    """Points `(B, K, 2)` uniform in [-half, half]^2 of uniform numbers `(B, 2 K)` in [0, 1)."""
    return (number * 2.0 - 1.0).mul(half).reshape(len(number), -1, 2)


def at_rest(
    world: World, position: Tensor, landmarks: Tensor, *, velocity: Tensor | None = None,
    message: Tensor | None = None, private: Tensor | None = None,
) -> WorldState:  # fmt: skip
    """A state of `world`, at rest and with nothing said, unless given otherwise."""
    rows = len(position)
    return WorldState(
        position=position,
        velocity=torch.zeros_like(position) if velocity is None else velocity,
        landmarks=landmarks,
        message=position.new_zeros(rows, len(world.speakers), world.words) if message is None else message,
        private=position.new_zeros(rows, world.private) if private is None else private,
    )


def pair_distance(first: Tensor, second: Tensor) -> Tensor:
    """Distances `(B, N, K)` between points `(B, N, 2)` and points `(B, K, 2)`."""
    apart = first[:, :, None] - second[:, None]
    return torch.hypot(apart[..., 0], apart[..., 1])


def length(vector: Tensor) -> Tensor:
    """Lengths `(...)` of vectors `(..., 2)`."""
    return torch.hypot(vector[..., 0], vector[..., 1])


def touching(first: Tensor, second: Tensor, sizes: float | Tensor) -> Tensor:
    """`(B, N, K)` bool: whose centres are nearer to each other than `sizes`, the sum of their radii."""
    return pair_distance(first, second) < sizes


def trespass(position: Tensor) -> Tensor:
    """mpe2's penalty `(B, N)` for positions `(B, N, 2)` near the edge of the screen and beyond, over both axes."""
    x = position.abs()
    beyond = (2.0 * x - 2.0).exp().clamp(max=10.0)
    return torch.where(x < 0.9, 0.0, torch.where(x < 1.0, (x - 0.9) * 10.0, beyond)).sum(-1)


def matched_distances(distance: Tensor) -> Tensor:
    """Distances `(B, N)` to the places that agents get in the assignment of least total distance.

    Args:
        distance: `(B, N, N)` from every agent to every place.
    """
    n = distance.shape[1]
    if n <= MOST_ENUMERATED:
        agents, every = torch.arange(n, device=distance.device), torch.tensor(list(permutations(range(n))))
        every = every.to(distance.device)
        best = every[distance[:, agents, every].sum(-1).argmin(1)]
    else:
        solved = np.empty((len(distance), n), dtype=np.int64)
        for row, costs in enumerate(distance.detach().cpu().double().numpy()):
            solved[row] = linear_sum_assignment(costs)[1]
        best = torch.from_numpy(solved).to(distance.device)
    return distance.gather(2, best[:, :, None]).squeeze(2)
