"""What a game is: who acts, which slice each agent reads and writes, and what one row of experience holds.

A game of `N` agents has one flat joint observation `(B, O)` and one flat joint action `(B, A)`. Agent `i` reads
`obs[:, spec.obs[i]]` (index sets may overlap) and writes `act[:, spec.act[i]]` (exclusive). A discrete action is a
one-hot slice, several heads of a MultiDiscrete action are several one-hot slices side by side, a Box action is its own
numbers scaled to [-1, 1]. An agent that is not acting writes zeros.

Shape suffixes: B batch, C game copies, N agents, O observation, A action, G goal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

ALL_AGENTS = -1
"""the `ego` of a row that serves every agent's losses"""


class GameError(ValueError):
    """A game, an action or an observation breaks the contract; the message names the value and how to fix it."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """One component of an agent's action: a one-hot choice among `size` entries, or `size` numbers in [-1, 1]."""

    kind: Literal["discrete", "box"]
    size: int
    """entries of the one-hot choice, or numbers of the box; >= 1"""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise GameError(f"an action head needs at least one entry, got size={self.size}")


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """One agent's name, what it reads, and its action in the slice's terms and in its own environment's terms."""

    name: str
    obs: tuple[int, ...]
    """indices into the joint observation that this agent reads"""
    heads: tuple[Head, ...]
    """components of its action, in slice order; all discrete or all box"""
    goal: tuple[int, ...] = ()
    """indices into the joint goal vector that are this agent's"""
    start: tuple[int, ...] = ()
    """first legal value of each discrete head in the environment's own numbering (Gymnasium's `start`); () means 0"""
    scalar: bool = True
    """a single discrete head whose environment wants an int (Discrete) rather than an array (MultiDiscrete)"""
    low: tuple[float, ...] = ()
    """lower bounds of a Box action in environment units, flattened; () for discrete heads"""
    high: tuple[float, ...] = ()
    """upper bounds of a Box action in environment units, flattened; () for discrete heads"""
    shape: tuple[int, ...] = ()
    """shape of a Box action in the environment"""

    def __post_init__(self) -> None:
        kinds = {head.kind for head in self.heads}
        if len(kinds) > 1:
            raise GameError(f"agent {self.name!r} mixes discrete and box heads in one action; split it into two agents")
        if kinds == {"box"} and (len(self.low) != self.width or len(self.high) != self.width):
            raise GameError(
                f"agent {self.name!r}: a box action of width {self.width} needs as many bounds, "
                f"got {len(self.low)} lower and {len(self.high)} upper ones"
            )

    @property
    def width(self) -> int:
        """Entries of the joint action that this agent writes."""
        return sum(head.size for head in self.heads)

    @property
    def discrete(self) -> bool:
        """Whether its action is made of one-hot heads."""
        return bool(self.heads) and self.heads[0].kind == "discrete"

    @classmethod
    def from_space(cls, name: str, obs: Sequence[int], space: spaces.Space[Any], goal: Sequence[int] = ()) -> AgentSpec:
        """An agent with the action space `space`: Discrete, MultiDiscrete, MultiBinary or a bounded Box.

        Raises:
            GameError: for any other space, or a Box without finite bounds.
        """
        common: dict[str, Any] = {"name": name, "obs": tuple(obs), "goal": tuple(goal)}
        if isinstance(space, spaces.Discrete):
            return cls(**common, heads=(Head(kind="discrete", size=int(space.n)),), start=(int(space.start),))
        if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
            heads = tuple(Head(kind="discrete", size=int(n)) for n in space.nvec)
            return cls(**common, heads=heads, start=tuple(int(s) for s in space.start), scalar=False)
        if isinstance(space, spaces.MultiBinary) and isinstance(space.n, int | np.integer):
            heads = (Head(kind="discrete", size=2),) * int(space.n)
            return cls(**common, heads=heads, start=(0,) * int(space.n), scalar=False)
        if isinstance(space, spaces.Box):
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise GameError(
                    f"agent {name!r} has an unbounded action space {space}; wrap the environment so that every action "
                    "component has finite bounds (gymnasium.wrappers.RescaleAction does)"
                )
            low, high = space.low.reshape(-1).astype(float), space.high.reshape(-1).astype(float)
            head = Head(kind="box", size=low.size)
            return cls(**common, heads=(head,), low=tuple(low), high=tuple(high), shape=tuple(space.shape))
        raise GameError(
            f"agent {name!r} has the action space {space}; supported are Discrete, one-dimensional MultiDiscrete and "
            "MultiBinary, and bounded Box"
        )

    @property
    def space(self) -> spaces.Space[Any]:
        """Its action space in the environment's own terms, as `from_space` reads it."""
        if not self.discrete:
            low, high = (np.asarray(bound, dtype=np.float32).reshape(self.shape) for bound in (self.low, self.high))
            return spaces.Box(low, high, dtype=np.float32)
        sizes = [head.size for head in self.heads]
        if self.scalar:
            return spaces.Discrete(sizes[0], start=self.starts[0])
        return spaces.MultiDiscrete(np.asarray(sizes), start=np.asarray(self.starts))

    def to_env(self, act: np.ndarray) -> Any:
        """The environment's own action for one row of this agent's slice, `act (width,)`."""
        if self.discrete:
            edges = list(accumulate((head.size for head in self.heads), initial=0))
            choice = [int(act[lo:hi].argmax()) + s for lo, hi, s in zip(edges, edges[1:], self.starts, strict=False)]
            return choice[0] if self.scalar else np.asarray(choice, dtype=np.int64)
        low, high = np.asarray(self.low), np.asarray(self.high)
        unit = np.clip(act.astype(np.float64), -1.0, 1.0)
        return (low + (unit + 1.0) * 0.5 * (high - low)).clip(low, high).astype(np.float32).reshape(self.shape)

    def from_env(self, action: Any) -> np.ndarray:
        """The slice `(width,)` of this agent for the environment's own `action`; the inverse of `to_env`."""
        slice_ = np.zeros(self.width, dtype=np.float32)
        if self.discrete:
            offset = 0
            for head, start, value in zip(self.heads, self.starts, np.atleast_1d(np.asarray(action)), strict=True):
                if not 0 <= int(value) - start < head.size:
                    last = start + head.size - 1
                    raise GameError(f"agent {self.name!r}: action {action!r} is outside {start}..{last}")
                slice_[offset + int(value) - start] = 1.0
                offset += head.size
            return slice_
        low, high = np.asarray(self.low), np.asarray(self.high)
        span = np.where(high > low, high - low, 1.0)
        slice_[:] = (np.asarray(action, dtype=np.float64).reshape(-1) - low) / span * 2.0 - 1.0
        return slice_

    @property
    def starts(self) -> tuple[int, ...]:
        """First legal value of each discrete head in the environment's numbering."""
        return self.start or (0,) * len(self.heads)


@dataclass(frozen=True)
class Symmetry:
    """A renaming of interchangeable things (agents, landmarks) under which dynamics and rewards stay the same.

    Every field says for each place after the renaming which place it is taken from.
    """

    obs: tuple[int, ...]
    """(O) of the joint observation"""
    act: tuple[int, ...]
    """(A) of the joint action"""
    agents: tuple[int, ...]
    """(N)"""
    goal: tuple[int, ...] = ()
    """(G) of the joint goal vector"""


@dataclass(frozen=True, kw_only=True)
class KnownColumn:
    """A column of the next joint observation that needs no learning: `offset` plus present numbers times factors.

    Messages are copies of what was just said, goals and colours of what they were.
    """

    column: int
    """of the joint observation"""
    obs: tuple[tuple[int, float], ...] = ()
    """columns of the present joint observation, each with its factor"""
    act: tuple[tuple[int, float], ...] = ()
    """columns of the joint action, each with its factor"""
    offset: float = 0.0

    @property
    def constant(self) -> bool:
        """Whether the column keeps its number for a whole episode."""
        return self.obs == ((self.column, 1.0),) and not self.act and self.offset == 0.0


@dataclass(frozen=True, kw_only=True)
class GameSpec:
    """The shape of a game: its agents, its joint vectors, and which flags vary from row to row."""

    name: str
    agents: tuple[AgentSpec, ...]
    obs_dim: int
    """O, width of the joint observation"""
    goal_dim: int = 0
    """G, width of the joint goal vector; 0 for a game without goals"""
    achieved: tuple[int, ...] = ()
    """indices into the joint observation that hold the achieved goal (G of them); () where it is stored apart"""
    frames: int = 1
    """joint observations needed to determine the next one; >= 1"""
    episode_limit: int | None = None
    """env steps after which an episode is truncated; None where the game says it itself"""
    terminates: bool = False
    """whether `terminated` can ever be true"""
    acting_varies: bool = False
    """whether some agent is ever not acting (turns, deaths)"""
    legal_varies: bool = False
    """whether some discrete action is ever illegal"""
    vectors: tuple[tuple[int, ...], ...] = ()
    """groups of indices into the joint observation, equally many each, that form a vector in space (a velocity, the
    way to a landmark): networks with `geometry=True` read its length and its direction as well"""
    symmetries: tuple[Symmetry, ...] = ()
    """renamings that change nothing, the identity left out: rows can be learned from under each of them"""
    known: tuple[KnownColumn, ...] = ()
    """columns of the next joint observation that follow a rule; models can pass them on instead of learning them"""

    def __post_init__(self) -> None:
        if not self.agents:
            raise GameError(f"game {self.name!r} has no agents")
        if len({len(vector) for vector in self.vectors}) > 1:
            raise GameError(
                f"game {self.name!r}: vectors={self.vectors} must be groups of one length: 2 on a plane, 3 in space"
            )
        if any(not 0 <= k < self.obs_dim for vector in self.vectors for k in vector):
            raise GameError(
                f"game {self.name!r}: vectors={self.vectors} must hold indices into the joint observation, "
                f"0..{self.obs_dim - 1}"
            )
        if self.frames < 1:
            raise GameError(f"game {self.name!r}: frames={self.frames} must be >= 1")
        names = [agent.name for agent in self.agents]
        if len(set(names)) != len(names):
            raise GameError(f"game {self.name!r}: agent names {names} are not unique")
        self._check_known()
        self._check_symmetries()
        for agent in self.agents:
            outside = [k for k in agent.obs if not 0 <= k < self.obs_dim]
            if outside:
                raise GameError(f"agent {agent.name!r} reads indices {outside} outside 0..{self.obs_dim - 1}")
        if self.achieved and len(self.achieved) != self.goal_dim:
            raise GameError(f"game {self.name!r}: {len(self.achieved)} achieved indices for goal_dim={self.goal_dim}")

    def _check_known(self) -> None:
        columns = [known.column for known in self.known]
        if len(set(columns)) < len(columns):
            raise GameError(f"game {self.name!r}: known columns {columns} name one twice")
        for known in self.known:
            reads = {"obs": (known.column, *(k for k, _ in known.obs)), "act": tuple(k for k, _ in known.act)}
            for name, size in (("obs", self.obs_dim), ("act", self.act_dim)):
                outside = [k for k in reads[name] if not 0 <= k < size]
                if outside:
                    raise GameError(
                        f"game {self.name!r}: {known} names columns {outside} outside 0..{size - 1} of the joint {name}"
                    )

    def _check_symmetries(self) -> None:
        columns = {known.column for known in self.known}
        sizes = {"obs": self.obs_dim, "act": self.act_dim, "agents": self.n, "goal": self.goal_dim}
        for symmetry in self.symmetries:
            for name, size in sizes.items():
                places = getattr(symmetry, name)
                if sorted(places) != list(range(size)):
                    raise GameError(
                        f"game {self.name!r}: a symmetry's {name}={places} must be an order of 0..{size - 1}"
                    )
            strange = sorted(columns ^ {symmetry.obs[k] for k in columns})
            if strange:
                raise GameError(
                    f"game {self.name!r}: a symmetry's obs={symmetry.obs} takes columns {strange} between those that "
                    "follow a known rule and those that do not; declare the others known as well, or none of them"
                )
            for i, old in enumerate(symmetry.agents):
                slice_ = self.act[old]
                taken = symmetry.act[self.act[i]]
                if self.agents[i].heads != self.agents[old].heads or not set(taken) <= set(
                    range(slice_.start, slice_.stop)
                ):
                    raise GameError(
                        f"game {self.name!r}: a symmetry takes agent {i}'s place from agent {old}; its actions must "
                        f"be of the same kind and come from that one's, {slice_.start}..{slice_.stop - 1}, got {taken}"
                    )

    def vectors_of(self, agent: int) -> tuple[tuple[int, ...], ...]:
        """The vectors that an agent sees whole, as indices into its own observation."""
        place = {k: own for own, k in enumerate(self.agents[agent].obs)}
        return tuple(tuple(place[k] for k in vector) for vector in self.vectors if place.keys() >= set(vector))

    @property
    def n(self) -> int:
        """N, the number of agents."""
        return len(self.agents)

    @property
    def names(self) -> tuple[str, ...]:
        """Agent names in slice order."""
        return tuple(agent.name for agent in self.agents)

    @cached_property
    def obs(self) -> tuple[tuple[int, ...], ...]:
        """Per agent, the indices of the joint observation that it reads."""
        return tuple(agent.obs for agent in self.agents)

    @cached_property
    def act(self) -> tuple[slice, ...]:
        """Per agent, the slice of the joint action that it writes."""
        edges = list(accumulate((agent.width for agent in self.agents), initial=0))
        return tuple(slice(lo, hi) for lo, hi in pairwise(edges))

    @property
    def act_dim(self) -> int:
        """A, width of the joint action."""
        return sum(agent.width for agent in self.agents)

    @cached_property
    def heads(self) -> tuple[tuple[int, Head, slice], ...]:
        """Every action head of the game as (agent index, head, slice of the joint action)."""
        found = []
        for i, agent in enumerate(self.agents):
            lo = self.act[i].start
            for head in agent.heads:
                found.append((i, head, slice(lo, lo + head.size)))
                lo += head.size
        return tuple(found)

    @property
    def discrete(self) -> bool:
        """Whether every agent's action is discrete."""
        return all(agent.discrete for agent in self.agents)

    def index(self, agent: str | int) -> int:
        """Position of an agent given by name or position; raises GameError for an unknown one."""
        if isinstance(agent, str):
            if agent not in self.names:
                raise GameError(f"game {self.name!r} has no agent {agent!r}; its agents are {', '.join(self.names)}")
            return self.names.index(agent)
        if not 0 <= agent < self.n:
            raise GameError(f"game {self.name!r} has agents 0..{self.n - 1}, got {agent}")
        return agent

    def check_action(self, act: Tensor, acting: Tensor | None = None) -> None:
        """Raise GameError unless `act (B, A)` is one-hot in every discrete slice, in [-1, 1] in every box slice, and
        zero for agents that are not acting (`acting (B, N)`, all when None).
        """
        if act.ndim != 2 or act.shape[1] != self.act_dim:
            raise GameError(f"a joint action of {self.name!r} has shape (B, {self.act_dim}), got {tuple(act.shape)}")
        for i, head, where in self.heads:
            part = act[:, where]
            on = torch.ones(len(act), dtype=torch.bool, device=act.device) if acting is None else acting[:, i]
            if head.kind == "discrete":
                one_hot = ((part == 0) | (part == 1)).all(1) & (part.sum(1) == 1)
                bad = torch.where(on, ~one_hot, (part != 0).any(1))
                wanted = f"one-hot of {head.size}, or zeros where the agent is not acting"
            else:
                inside = (part.abs() <= 1 + 1e-6).all(1)
                bad = torch.where(on, ~inside, (part != 0).any(1))
                wanted = "in [-1, 1], or zeros where the agent is not acting"
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                raise GameError(
                    f"action of agent {self.agents[i].name!r} in row {row} is {part[row].tolist()}; it must be {wanted}"
                )

    def random_action(self, acting: Tensor, legal: Tensor, rng: torch.Generator) -> Tensor:
        """A joint action `(B, A)`: uniform over legal entries and over [-1, 1], zeros for agents not acting.

        Args:
            acting: `(B, N)` bool. legal: `(B, A)` bool. rng: a generator on their device.
        """
        act = torch.zeros(legal.shape, device=legal.device)
        for i, head, where in self.heads:
            noise = torch.rand(legal.shape[0], head.size, generator=rng, device=legal.device)
            if head.kind == "discrete":
                choice = noise.masked_fill(~legal[:, where], -1.0).argmax(1)
                part = torch.nn.functional.one_hot(choice, head.size).to(act.dtype)
            else:
                part = noise * 2 - 1
            act[:, where] = part * acting[:, i : i + 1]
        return act

    def to_env(self, act: np.ndarray) -> dict[str, Any]:
        """One joint action `(A,)` as the environment's own actions by agent name."""
        return {agent.name: agent.to_env(act[where]) for agent, where in zip(self.agents, self.act, strict=True)}

    def from_env(self, actions: Mapping[str, Any]) -> np.ndarray:
        """The environment's own actions by agent name as one joint action `(A,)`; absent agents get zeros."""
        act = np.zeros(self.act_dim, dtype=np.float32)
        for name, action in actions.items():
            i = self.index(name)
            act[self.act[i]] = self.agents[i].from_env(action)
        return act

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` rebuilds an equal spec."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GameSpec:
        """The inverse of `to_json`, also after a trip through JSON (lists become tuples)."""

        def tuples(value: Any) -> Any:
            return tuple(tuples(v) for v in value) if isinstance(value, list | tuple) else value

        agents = []
        for agent in data["agents"]:
            heads = tuple(Head(**head) for head in agent["heads"])
            agents.append(AgentSpec(**{k: tuples(v) for k, v in agent.items() if k != "heads"}, heads=heads))
        symmetries = (
            Symmetry(**{k: tuples(v) for k, v in symmetry.items()}) for symmetry in data.get("symmetries", ())
        )
        known = (KnownColumn(**{k: tuples(v) for k, v in column.items()}) for column in data.get("known", ()))
        numbers = {k: tuples(v) for k, v in data.items() if k not in ("agents", "symmetries", "known")}
        return cls(**numbers, agents=tuple(agents), symmetries=tuple(symmetries), known=tuple(known))


@dataclass(frozen=True, kw_only=True)
class View:
    """What can be seen before acting, one row per game copy or branch."""

    obs: Tensor
    """(B, O) joint observation"""
    acting: Tensor
    """(B, N) bool: agents that are alive and whose turn it is"""
    legal: Tensor
    """(B, A) bool: legal entries of the joint action; all true for box slices"""
    achieved: Tensor
    """(B, G)"""
    desired: Tensor
    """(B, G)"""

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, index: Any) -> View:
        return View(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def of(cls, spec: GameSpec, obs: Tensor, **given: Tensor) -> View:
        """A view of `obs (B, O)` in which everybody acts and everything is legal unless given otherwise."""
        size = len(obs)
        ones = torch.ones((), dtype=torch.bool, device=obs.device)
        goal = obs[:, list(spec.achieved)] if spec.achieved else obs.new_zeros(size, spec.goal_dim)
        default = {
            "acting": ones.expand(size, spec.n),
            "legal": ones.expand(size, spec.act_dim),
            "achieved": goal,
            "desired": obs.new_zeros(size, spec.goal_dim),
        }
        return cls(obs=obs, **(default | given))


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Transitions: everything a learner may need to know of each. All tensors share the first dimension B."""

    obs: Tensor
    """(B, O) joint observation"""
    act: Tensor
    """(B, A) joint action"""
    reward: Tensor
    """(B, N) each agent's own reward"""
    next_obs: Tensor
    """(B, O) the true next observation, also where the episode ended"""
    acting: Tensor
    """(B, N) bool, at `obs`"""
    next_acting: Tensor
    """(B, N) bool, at `next_obs`"""
    terminated: Tensor
    """(B, N) bool: the agent has no future after this row; stops its bootstrap"""
    truncated: Tensor
    """(B,) bool: the episode was cut by a limit; never stops a bootstrap"""
    legal: Tensor
    """(B, A) bool, at `obs`"""
    next_legal: Tensor
    """(B, A) bool, at `next_obs`"""
    achieved: Tensor
    """(B, G) at `obs`"""
    next_achieved: Tensor
    """(B, G) at `next_obs`"""
    desired: Tensor
    """(B, G)"""
    step: Tensor
    """(B,) int32: env steps since the episode's start; in imagined rows, steps since the branch"""
    ego: Tensor
    """(B,) int16: the agent whose losses alone use the row, `ALL_AGENTS` for all"""

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, index: Any) -> Rows:
        return Rows(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def of(
        cls, spec: GameSpec, view: View, act: Tensor, reward: Tensor, after: View, terminated: Tensor,
        truncated: Tensor, step: Tensor, ego: Tensor | None = None,
    ) -> Rows:  # fmt: skip
        """The rows that lead from `view` by `act (B, A)` to `after`, whose own flags are the `next` ones."""
        everyone = torch.full((len(view),), ALL_AGENTS, dtype=torch.int16, device=view.obs.device)
        return cls(
            obs=view.obs, act=act, reward=reward, next_obs=after.obs, acting=view.acting, next_acting=after.acting,
            terminated=terminated, truncated=truncated, legal=view.legal, next_legal=after.legal,
            achieved=view.achieved, next_achieved=after.achieved, desired=view.desired,
            step=step.to(torch.int32), ego=everyone if ego is None else ego.to(torch.int16),
        )  # fmt: skip

    @property
    def view(self) -> View:
        """What was seen before acting."""
        return View(obs=self.obs, acting=self.acting, legal=self.legal, achieved=self.achieved, desired=self.desired)

    @property
    def next_view(self) -> View:
        """What was seen after the step."""
        return View(
            obs=self.next_obs, acting=self.next_acting, legal=self.next_legal, achieved=self.next_achieved,
            desired=self.desired,
        )  # fmt: skip

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on another device."""
        return Rows(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def with_(self, **changed: Tensor) -> Rows:
        """The same rows with some columns replaced by new tensors; nothing is edited in place."""
        return replace(self, **changed)


def concatenate(parts: Sequence[Rows]) -> Rows:
    """All rows of `parts`, in order."""
    if len(parts) == 1:
        return parts[0]
    return Rows(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Rows)})


def row_widths(spec: GameSpec) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """For every column of `Rows`: its shape behind the batch dimension, and its dtype (floats are float32)."""
    n, a, o, g = spec.n, spec.act_dim, spec.obs_dim, spec.goal_dim
    flag, number = torch.bool, torch.float32
    return {
        "obs": ((o,), number), "act": ((a,), number), "reward": ((n,), number), "next_obs": ((o,), number),
        "acting": ((n,), flag), "next_acting": ((n,), flag), "terminated": ((n,), flag), "truncated": ((), flag),
        "legal": ((a,), flag), "next_legal": ((a,), flag), "achieved": ((g,), number), "next_achieved": ((g,), number),
        "desired": ((g,), number), "step": ((), torch.int32), "ego": ((), torch.int16),
    }  # fmt: skip


@runtime_checkable
class Game(Protocol):
    """Several copies of one game, stepped together; a copy whose episode ends starts its next one by itself.

    Every episode is seeded from (seed, copy, number of the episode in that copy) by `episode_seed`, so that a copy's
    n-th episode is the same whatever happened before it.
    """

    spec: GameSpec
    copies: int

    def reset(self, seed: int) -> View:
        """Start episode 0 in every copy; C rows."""
        ...

    def step(self, act: Tensor) -> tuple[Rows, View]:
        """Play `act (C, A)` in all copies.

        Returns:
            the C transitions, with the true next observation where an episode ended; and the view to act on next,
            which in a copy whose episode ended is the first view of its next episode.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Plain data (numbers, strings, lists, tensors) from which `restore` continues exactly."""
        ...

    def restore(self, state: Mapping[str, Any]) -> View:
        """Continue from `state`; returns the view to act on next. Raises GameError where the game does not replay."""
        ...

    def close(self) -> None:
        """Free windows, processes and files."""
        ...


def episode_seed(seed: int, copy: int, episode: int) -> int:
    """The seed of one episode: a 31-bit integer that depends on all three numbers."""
    return int(np.random.SeedSequence((seed, copy, episode)).generate_state(1, dtype=np.uint32)[0] >> 1)


class GoalRule(Protocol):
    """What reaching a goal is worth, as functions of goals alone, so that goals can be replaced: tensor code on the
    device of its arguments, every row for itself. A game with goals holds one as `goal_rule`.

    `achieved (..., G)` is what was achieved *after* a step, `desired (..., G)` what was to be achieved in it.
    """

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Each agent's reward for the step, `(..., N)`."""
        ...

    def terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Whether each agent has no future after the step, `(..., N)` bool."""
        ...

    def success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Whether each agent's goal counts as reached, `(..., N)` bool."""
        ...


Carry = Any
"""what an answering or predicting part remembers between steps: a tensor or tuple of tensors, None if nothing"""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The last `length` views of B trajectories, oldest first, to burn a carry in at a branch."""

    obs: Tensor
    """(B, T, O); steps before the episode's start repeat its first observation"""
    act: Tensor
    """(B, T, A); the action taken at each of them; zeros where `valid` is false, and at the last one, not yet chosen"""
    valid: Tensor
    """(B, T) bool: false before the episode's start"""
    now: View = field(repr=False)
    """the last of them: what is seen at the branch"""

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, index: Any) -> Window:
        return Window(obs=self.obs[index], act=self.act[index], valid=self.valid[index], now=self.now[index])


class Actor(Protocol):
    """Answers for agents: a policy, a scripted controller, or an opponent model behind the same verbs."""

    def init(self, window: Window) -> Carry:
        """What to remember at the start of a trajectory whose last views are `window`; None if memoryless."""
        ...

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`; with rng None the greedy one. Agents not acting get zeros."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a kernel predicts for one step of B rows."""

    after: View
    """the next observation and its flags"""
    reward: Tensor
    """(B, N)"""
    terminated: Tensor
    """(B, N) bool"""


class Kernel(Protocol):
    """A world to imagine in: a learned ensemble, a count model, or the true game."""

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        """Start B branches at the end of `window` for the agents `ego (B,)`; fixes member ids where they stay fixed."""
        ...

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        """One step of all branches under the joint action `act (B, A)`."""
        ...
