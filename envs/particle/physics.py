"""The particle physics of mpe2, batched: bodies, the rows of their state, and one step of it.

The state of B games is one tensor `(D, B)` with the batch last, so that every operation runs over contiguous memory and
what an agent observes is a difference of rows. Its rows are, in order: agents' x, agents' y, their x-velocities,
their y-velocities, the words in the air, landmarks' x, landmarks' y, the scenario's private numbers, one zero.
`WorldState` is the same thing by name and batch first; `World.pack` and `World.unpack` lead from one to the other.

mpe2 moves a body with the velocity it had *before* the push (the original particle world used the one after it).

Shape suffixes: B batch, N agents, K landmarks, P contact pairs, D rows of the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from presage.common.game import GameError

TIME_STEP = 0.1
DAMPING = 0.25
"""share of its velocity that a body loses in a step"""
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
"""length over which the contact force sets in"""

Term = tuple[int, int]
"""one observed number: the row it is read from, and the row that is taken from it (the zero row for none)"""


@dataclass(frozen=True, kw_only=True)
class Body:
    """An agent or a landmark."""

    name: str
    size: float = 0.05
    """radius"""
    collides: bool = True
    movable: bool = True
    silent: bool = True
    """whether it sends no words"""
    symbols: tuple[int, ...] = ()
    """sizes of the separate symbols that its words are made of, each an action head of its own; () for mpe2's way: one
    word, in the same choice as the move where it moves as well"""
    mass: float = 1.0
    accel: float = 5.0
    """force of a full push"""
    max_speed: float | None = None


@dataclass(frozen=True, kw_only=True)
class WorldState:
    """Where everything is and what is being said; rows are games."""

    position: Tensor
    """(B, N, 2) of the agents"""
    velocity: Tensor
    """(B, N, 2) of the agents"""
    landmarks: Tensor
    """(B, K, 2)"""
    message: Tensor
    """(B, S, M): words last sent by each of the S agents that are not silent"""
    private: Tensor
    """(B, V): what the scenario keeps of its own, such as the colour of a goal"""


class Renaming(NamedTuple):
    """For every place after the renaming, the agent, landmark or private number that comes there."""

    agents: tuple[int, ...]
    landmarks: tuple[int, ...]
    private: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class World:
    """The bodies of a scenario and where each number of their state lies."""

    agents: tuple[Body, ...]
    landmarks: tuple[Body, ...] = ()
    words: int = 0
    """M, numbers in a message"""
    private: int = 0
    """V, numbers of the state that belong to the scenario alone"""
    points: int = 0
    """points in space that the private numbers begin with, each an x and a y"""

    def __post_init__(self) -> None:
        moving = [body.name for body in self.landmarks if body.movable]
        if moving:
            raise GameError(f"landmarks never move; declare {', '.join(moving)} with movable=False or as agents")
        if self.speakers and not self.words:
            raise GameError(f"{self.agents[self.speakers[0]].name} is not silent but messages hold words=0 numbers")
        for body in self.agents:
            if body.symbols and (body.silent or sum(body.symbols) != self.words):
                raise GameError(
                    f"{body.name}: symbols={body.symbols} must add up to words={self.words}, of an agent that speaks"
                )
        if 2 * self.points > self.private:
            raise GameError(f"points={self.points} need {2 * self.points} private numbers, there are {self.private}")

    @cached_property
    def speakers(self) -> tuple[int, ...]:
        """The agents that are not silent."""
        return tuple(i for i, body in enumerate(self.agents) if not body.silent)

    @property
    def moving_rows(self) -> int:
        """The number of leading rows that a step replaces; those behind stay as they are for a whole episode."""
        return 4 * len(self.agents) + len(self.speakers) * self.words

    @property
    def zero(self) -> int:
        """The last row, always 0."""
        return self.moving_rows + 2 * len(self.landmarks) + self.private

    def position_rows(self, entity: int) -> tuple[int, int]:
        """The x and y rows of an entity; agents come first, then landmarks."""
        n, k = len(self.agents), len(self.landmarks)
        if entity < n:
            return entity, n + entity
        return self.moving_rows + entity - n, self.moving_rows + k + entity - n

    @property
    def first_rows(self) -> frozenset[int]:
        """The x rows of all positions and velocities: an observation of one is followed by the y row's."""
        n, first, own = len(self.agents), self.moving_rows, self.zero - self.private
        return frozenset(
            [*range(n), *range(2 * n, 3 * n), *range(first, first + len(self.landmarks)),
             *range(own, own + 2 * self.points, 2)]
        )  # fmt: skip

    def renamed(self, agents: Sequence[int], landmarks: Sequence[int], private: Sequence[int]) -> list[int]:
        """For every row of the state, the row that it is taken from where bodies and private numbers change places.

        Raises:
            GameError: a speaker is to change places.
        """
        moved = [i for i, old in enumerate(agents) if i != old]
        if set(moved) & set(self.speakers):
            raise GameError(f"agents {moved} cannot change places: their words would have to as well")
        n, k, rows = len(self.agents), len(self.landmarks), list(range(self.zero + 1))
        for i, old in enumerate(agents):
            for first in (0, n, 2 * n, 3 * n):
                rows[first + i] = first + old
        for i, old in enumerate(landmarks):
            for first in (self.moving_rows, self.moving_rows + k):
                rows[first + i] = first + old
        for i, old in enumerate(private):
            rows[self.zero - self.private + i] = self.zero - self.private + old
        return rows

    def velocity_terms(self, agent: int) -> list[Term]:
        """An agent's velocity."""
        n = len(self.agents)
        return [(2 * n + agent, self.zero), (3 * n + agent, self.zero)]

    def position_terms(self, entity: int, origin: int | None = None) -> list[Term]:
        """An entity's position, seen from the entity `origin` where one is given."""
        from_rows = (self.zero, self.zero) if origin is None else self.position_rows(origin)
        return list(zip(self.position_rows(entity), from_rows, strict=True))

    def kept(self, term: Term) -> bool:
        """Whether an observed number stays what it is for a whole episode."""
        return min(term) >= self.moving_rows

    def word(self, term: Term) -> int | None:
        """Which word of all that are in the air an observed number is; None for other numbers."""
        first = 4 * len(self.agents)
        return term[0] - first if first <= term[0] < self.moving_rows and term[1] == self.zero else None

    def message_terms(self, agent: int) -> list[Term]:
        """The words an agent last sent; zeros for a silent one."""
        if agent not in self.speakers:
            return [(self.zero, self.zero)] * self.words
        first = 4 * len(self.agents) + self.speakers.index(agent) * self.words
        return [(first + word, self.zero) for word in range(self.words)]

    def private_terms(self, first: int = 0, count: int | None = None) -> list[Term]:
        """The scenario's own numbers from the `first` on, all of them or `count`."""
        own, count = self.zero - self.private, self.private - first if count is None else count
        return [(own + k, self.zero) for k in range(first, first + count)]

    def point_terms(self, point: int, origin: int) -> list[Term]:
        """A private point, seen from the entity `origin`."""
        own = self.zero - self.private + 2 * point
        return list(zip((own, own + 1), self.position_rows(origin), strict=True))

    def position(self, state: Tensor) -> Tensor:
        """Agents' positions `(B, N, 2)` in `state (D, B)`; a view."""
        n = len(self.agents)
        return state[: 2 * n].view(2, n, state.shape[1]).permute(2, 1, 0)

    def landmark_position(self, state: Tensor) -> Tensor:
        """Landmarks' positions `(B, K, 2)` in `state (D, B)`; a view."""
        first, k = self.moving_rows, len(self.landmarks)
        return state[first : first + 2 * k].view(2, k, state.shape[1]).permute(2, 1, 0)

    def own(self, state: Tensor) -> Tensor:
        """The scenario's own numbers `(B, V)` in `state (D, B)`; a view."""
        return state[self.zero - self.private : self.zero].T

    def pack(self, named: WorldState, *, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """The state tensor `(D, B)` of a named state; raises GameError where a shape does not fit this world."""
        n, size = len(self.agents), len(named.position)
        shapes = {
            "position": (size, n, 2),
            "velocity": (size, n, 2),
            "landmarks": (size, len(self.landmarks), 2),
            "message": (size, len(self.speakers), self.words),
            "private": (size, self.private),
        }
        for name, shape in shapes.items():
            found = tuple(getattr(named, name).shape)
            if found != shape:
                raise GameError(f"{name} has shape {found}; this world needs {shape}")
        parts = [
            named.position.permute(2, 1, 0).flatten(0, 1),
            named.velocity.permute(2, 1, 0).flatten(0, 1),
            named.message.permute(1, 2, 0).flatten(0, 1),
            named.landmarks.permute(2, 1, 0).flatten(0, 1),
            named.private.T,
            named.position.new_zeros(1, size),
        ]
        return torch.cat([part.to(device=device, dtype=dtype) for part in parts])

    def unpack(self, state: Tensor) -> WorldState:
        """The named state of `state (D, B)`; views."""
        n, spoken = len(self.agents), (len(self.speakers), self.words, state.shape[1])
        return WorldState(
            position=self.position(state),
            velocity=self.position(state[2 * n :]),
            landmarks=self.landmark_position(state),
            message=state[4 * n : self.moving_rows].view(spoken).permute(2, 0, 1),
            private=self.own(state),
        )


class Differences:
    """Numbers that are each one row of the state less another row of it."""

    def __init__(self, terms: Sequence[Term], *, device: torch.device | str) -> None:
        rows = torch.tensor(terms, dtype=torch.long, device=device).reshape(-1, 2)
        self._plus, self._minus = rows.T.contiguous()

    def __call__(self, state: Tensor) -> Tensor:
        """The numbers `(R, B)` of `state (D, B)`."""
        return state.index_select(0, self._plus) - state.index_select(0, self._minus)


class Physics:
    """mpe2's step of one world: pushes and contacts, then positions, then velocities.

    Two bodies at the very same point have no direction to be pushed apart in: as in mpe2, their state becomes NaN.
    """

    def __init__(self, world: World, *, device: torch.device | str, dtype: torch.dtype) -> None:
        self.world = world
        agents, n = world.agents, len(world.agents)

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        self._accel = column([body.accel if body.movable else 0.0 for body in agents])
        self._time = column([TIME_STEP if body.movable else 0.0 for body in agents])
        light = all(body.mass == 1.0 for body in agents)
        self._impulse = self._time if light else column(
            [TIME_STEP / body.mass if body.movable else 0.0 for body in agents]
        )  # fmt: skip
        self._keep = column([1.0 - DAMPING if body.movable else 1.0 for body in agents])
        limits = [float("inf") if body.max_speed is None else body.max_speed for body in agents]
        self._max_speed = column(limits) if min(limits) < float("inf") else None

        bodies = (*agents, *world.landmarks)
        pairs = [
            (a, b)
            for a, b in combinations(range(len(bodies)), 2)
            if bodies[a].collides and bodies[b].collides and (bodies[a].movable or bodies[b].movable)
        ]
        self._pairs = len(pairs)
        self._apart = Differences(
            [(world.position_rows(a)[axis], world.position_rows(b)[axis]) for axis in (0, 1) for a, b in pairs],
            device=device,
        )
        self._touch = column([bodies[a].size + bodies[b].size for a, b in pairs]) if pairs else None
        # Each agent sums a fixed list of entries of [forces, -forces, zero]: deterministic on every device, where
        # adding at indices is not. All lists have the length of the longest.
        on_agent = [
            [p if i == a else len(pairs) + p for p, (a, b) in enumerate(pairs) if i in (a, b) and agents[i].movable]
            for i in range(n)
        ]
        self._most = max(map(len, on_agent))
        padded = [entries + [2 * len(pairs)] * (self._most - len(entries)) for entries in on_agent]
        self._entries = torch.tensor(padded, dtype=torch.long, device=device).reshape(-1)
        self._none = torch.zeros((), dtype=dtype, device=device)

    def step(self, state: Tensor, push: Tensor, message: Tensor) -> Tensor:
        """The state `(D, B)` one step after `state (D, B)`.

        Args:
            push: `(2, N, B)` in [-1, 1] by axis; what an immovable agent pushes has no effect.
            message: `(S * M, B)` words of the agents that are not silent.
        """
        world = self.world
        n, size = len(world.agents), state.shape[1]
        position, velocity = state[: 2 * n].view(2, n, size), state[2 * n : 4 * n].view(2, n, size)
        if self._touch is None:
            force = push * self._accel
        else:
            force = torch.addcmul(self._contact(state, self._touch), push, self._accel)
        after = torch.addcmul(velocity * self._keep, force, self._impulse)
        if self._max_speed is not None:
            after = after * (self._max_speed / torch.hypot(after[0], after[1])).clamp(max=1.0)
        moved = torch.addcmul(position, velocity, self._time)
        unmoved = state[world.moving_rows :]
        return torch.cat([moved.view(2 * n, size), after.view(2 * n, size), message, unmoved])

    def _contact(self, state: Tensor, touch: Tensor) -> Tensor:
        """The contact force `(2, N, B)` on every agent: a smooth ramp once two bodies are nearer than their sizes."""
        size = state.shape[1]
        apart = self._apart(state).view(2, self._pairs, size)
        distance = torch.hypot(apart[0], apart[1])
        depth = torch.logaddexp((touch - distance) / CONTACT_MARGIN, self._none) * CONTACT_MARGIN
        force = apart * (CONTACT_FORCE * depth / distance)
        signed = torch.cat([force, -force, force.new_zeros(2, 1, size)], 1)
        return signed.index_select(1, self._entries).view(2, len(self.world.agents), self._most, size).sum(2)
