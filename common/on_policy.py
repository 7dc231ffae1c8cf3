"""On-policy training: collect some steps of every copy, learn from them chunk by chunk, forget them.

Who learns may remember: its memory at the start of every chunk is kept, so that a chunk can be read again, by
back-propagation through its own steps alone. Where an episode ends, a new one begins with a fresh memory.

Shape suffixes: T time, C game copies, N agents, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from presage.common.evaluate import renew
from presage.common.game import Carry, GameSpec, Rows, View, Window
from presage.common.learner_metrics import learner_metrics
from presage.common.learner_state import self_saving
from presage.common.ledger import Ledger
from presage.common.method import Metrics, Pursuer
from presage.common.replay import Replay
from presage.common.streams import Streams

Memory = tuple[Tensor, ...]
"""what is remembered, one row per copy in each tensor; () where nothing is"""
Kept = Mapping[str, Tensor]
"""what a learner said when it acted and wants back when it learns, `(C, ...)` each"""


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig:
    """How much is collected, and cut into what; the defaults are those of LIAM's authors, whose episodes last 50."""

    collect_steps: int = 50
    """env steps of every copy between two rounds of learning; a multiple of `chunk`"""
    chunk: int = 5
    """steps of a chunk: of one update, of what is looked ahead, and of back-propagation through time; >= 1"""

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.collect_steps < 1 or self.collect_steps % self.chunk:
            raise ValueError(
                f"collect_steps={self.collect_steps} must be a multiple of chunk={self.chunk}, and both >= 1"
            )


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """T steps in a row of C copies, and what was remembered before them. Episodes may begin and end on the way."""

    rows: Rows
    """every column `(T, C, ...)`; `rows.view[t]` is what was seen before step t"""
    memory: Memory
    """at the start"""
    kept: Kept
    """(T, C, ...) each"""

    @property
    def first(self) -> Tensor:
        """(T, C) bool: an episode begins, and whoever remembers anything forgets it before it looks."""
        return self.rows.step == 0

    @property
    def over(self) -> Tensor:
        """(T, C) bool: the episode ended with the step; one that was given up ended where the next one begins."""
        found = self.rows.truncated | self.rows.terminated.all(-1)
        found[:-1] |= self.first[1:]
        return found

    def before(self, start: Tensor, done: Tensor) -> Tensor:
        """What was done in the step before each, `(T, C, ...)`, zeros where an episode begins.

        Args:
            start: `(C, ...)` what was done before the first of the steps. done: `(T, C, ...)` in each of them.
        """
        found = torch.cat([start[None], done[:-1]])
        return found.masked_fill(self.first.view(*self.first.shape, *(1,) * (found.ndim - 2)), 0.0)


def side_by_side(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks of equal length as one, copies of one after copies of another."""
    rows = {f.name: torch.cat([getattr(chunk.rows, f.name) for chunk in chunks], 1) for f in fields(Rows)}
    memory = tuple(torch.cat(parts) for parts in zip(*(chunk.memory for chunk in chunks), strict=True))
    kept = {name: torch.cat([chunk.kept[name] for chunk in chunks], 1) for name in chunks[0].kept}
    return Chunk(rows=Rows(**rows), memory=memory, kept=kept)


class OnPolicyLearner(Protocol):
    """What learns: a module that acts with a memory, for all agents of a game, and improves on what it has just done.

    What was done in a step is what `act` answered, and what came of it is in the next view; so whoever infers something
    from the others' moves does that in `act` or in `told`, and its evaluation goes by the same code.
    """

    metrics: dict[str, Tensor]
    """of the last update, by name, on the device; listed in `checkpoint_skip`"""

    @property
    def policy(self) -> nn.Module:
        """The parameters that it acts by."""
        ...

    def begin(self, rows: int) -> Memory:
        """What is remembered at an episode's start, of so many copies."""
        ...

    def act(self, memory: Memory, view: View, rng: torch.Generator | None) -> tuple[Memory, Tensor, Kept]:
        """What is remembered after looking and acting; the joint action `(C, A)`, the greedy one with rng None; and
        what is to be kept with the step.
        """
        ...

    def told(self, memory: Memory, act: Tensor) -> Memory:
        """What `act` left in memory, had all agents done `act (C, A)`."""
        ...

    def update(self, chunks: Sequence[Chunk]) -> None:
        """Learn from what was collected, chunks in order of time, each updated from once."""
        ...


class MemoryActor:
    """A learner as an `Actor`."""

    def __init__(self, spec: GameSpec, learner: OnPolicyLearner) -> None:
        self.spec, self.learner = spec, learner

    @torch.no_grad()
    def init(self, window: Window) -> Carry:
        """What is remembered before the last view of `window`: the earlier ones are looked at again."""
        fresh = memory = self.learner.begin(len(window))
        for t in range(window.obs.shape[1] - 1):
            seen, _, _ = self.learner.act(memory, View.of(self.spec, window.obs[:, t]), None)
            memory = renew(self.learner.told(seen, window.act[:, t]), fresh, ~window.valid[:, t])
        return memory

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`; with rng None the greedy one."""
        memory, act, _ = self.learner.act(carry, view, rng)
        return memory, act


class Collection:
    """Steps that were not learned from yet, and what is remembered of the open episodes; it saves itself."""

    def __init__(self, learner: OnPolicyLearner, config: OnPolicyConfig, device: torch.device) -> None:
        self.learner, self.config, self.device = learner, config, device
        self._steps = 0
        self._columns: dict[str, Tensor] = {}
        """of rows, `(collect_steps, C, ...)` each, of which the first `_steps` hold something"""
        self._kept: list[Kept] = []
        self._starts: list[Memory] = []
        """memories at the starts of chunks"""
        self._memory: Memory | None = None
        self._over = torch.zeros(0, dtype=torch.bool, device=device)
        """(C,) bool: copies whose next view begins an episode"""

    @torch.no_grad()
    def act(self, view: View, rng: torch.Generator) -> Tensor:
        """Joint actions `(C, A)` for the next step."""
        memory = self.learner.begin(len(view))
        if self._memory is not None:
            memory = renew(self._memory, memory, self._over)
        if self._steps % self.config.chunk == 0:
            self._starts.append(memory)
        self._memory, act, kept = self.learner.act(memory, view, rng)
        self._kept.append(kept)
        return act

    @torch.no_grad()
    def add(self, rows: Rows) -> bool:
        """Take the step that `act` was asked for; whether enough are collected."""
        assert self._memory is not None
        self._memory = self.learner.told(self._memory, rows.act)
        self._over = rows.truncated | rows.terminated.all(1)
        for f in fields(Rows):
            column: Tensor = getattr(rows, f.name)
            if f.name not in self._columns:
                self._columns[f.name] = column.new_zeros(self.config.collect_steps, *column.shape)
            self._columns[f.name][self._steps] = column
        self._steps += 1
        return self._steps == self.config.collect_steps

    def take(self) -> list[Chunk]:
        """All chunks in order of time, to be learned from before the next step; memories of open episodes stay."""
        found, size = [], self.config.chunk
        for place, memory in enumerate(self._starts):
            part = slice(place * size, (place + 1) * size)
            rows = Rows(**{name: column[part] for name, column in self._columns.items()})
            found.append(Chunk(rows=rows, memory=memory, kept=_each(self._kept[part])))
        self._steps, self._kept, self._starts = 0, [], []
        return found

    def state(self) -> dict[str, Any]:
        """Tensors from which `restore` continues exactly."""
        return {
            "columns": {name: column[: self._steps].to("cpu", copy=True) for name, column in self._columns.items()},
            "kept": {name: part.cpu() for name, part in _each(self._kept).items()},
            "starts": [[part.cpu() for part in memory] for memory in self._starts],
            "memory": None if self._memory is None else [part.cpu() for part in self._memory],
            "over": self._over.cpu(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._columns, self._steps = {}, len(state["columns"].get("obs", ()))
        for name, column in state["columns"].items():
            shape = (self.config.collect_steps, *column.shape[1:])
            self._columns[name] = torch.zeros(shape, dtype=column.dtype, device=self.device)
            self._columns[name][: self._steps] = column.to(self.device)
        kept = {name: part.to(self.device) for name, part in state["kept"].items()}
        self._kept = [{name: part[t] for name, part in kept.items()} for t in range(self._steps)]
        self._starts = [self._placed(memory) for memory in state["starts"]]
        self._memory = None if state["memory"] is None else self._placed(state["memory"])
        self._over = state["over"].to(self.device)

    def _placed(self, memory: Sequence[Tensor]) -> Memory:
        return tuple(part.to(self.device) for part in memory)


class OnPolicy(nn.Module):
    """Collects, lets a learner learn, and forgets; what a run trains."""

    checkpoint_skip = ("ledger", "metrics", "collection", "actor", "on_phase")
    """saved apart, or made again"""

    pursuit: Pursuer | None = None
    """goals are the game's own"""
    world = None
    imagined = None
    """nothing is imagined"""
    replay_capacity = 1
    """what was learned from is not needed again; the loop keeps the newest step of every copy"""

    def __init__(
        self, spec: GameSpec, config: OnPolicyConfig, learner: Any, streams: Streams, device: torch.device
    ) -> None:
        """
        Args:
            spec: the game. config: how much is collected. learner: an `OnPolicyLearner` that is a module.
            streams: "act" draws the actions.
        """
        super().__init__()
        self.spec, self.config = spec, config
        self.learner = learner
        self.actor = MemoryActor(spec, learner)
        self.collection = Collection(learner, config, device)
        self.act_rng = streams("act")
        self.ledger = Ledger(spec.n, device=device)
        self.env_steps = 0
        self.updates = 0
        self.metrics: Metrics = {}
        self.on_phase: Callable[[str], None] | None = None

    @property
    def policy(self) -> nn.Module:
        """The parameters that are acted by."""
        found: nn.Module = self.learner.policy
        return found

    @property
    def persistent(self) -> dict[str, Any]:
        """Parts that save themselves."""
        return self_saving({"ledger": self.ledger, "collection": self.collection})

    def explore(self, view: View) -> Tensor:
        """Joint actions `(C, A)`, as the policies sample them."""
        return self.collection.act(view, self.act_rng)

    def learn(self, replay: Replay, rows: Rows) -> None:
        """Take note of `rows`, and learn once there are enough."""
        self.env_steps += len(rows)
        self.ledger.add_real_steps(rows.acting)
        if self.collection.add(rows):
            if self.on_phase is not None:
                self.on_phase("update")
            chunks = self.collection.take()
            self.learner.update(chunks)
            self.updates += len(chunks)

    def losses(self) -> Metrics:
        """What the learner said of its last update, by metric tag; {} before the first."""
        return learner_metrics(self.spec, self.learner, None)


def _each(steps: Sequence[Kept]) -> dict[str, Tensor]:
    """By name, `(T, C, ...)` of T steps."""
    return {name: torch.stack([kept[name] for kept in steps]) for name in steps[0]} if steps else {}
