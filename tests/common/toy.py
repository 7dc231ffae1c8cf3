"""Agents, rows and a small game that tests of the common parts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from presage.common.game import ALL_AGENTS, AgentSpec, GameSpec, Head, Rows, View, Window, row_widths


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def box_agent(name: str, obs: Sequence[int], width: int, goal: Sequence[int] = ()) -> AgentSpec:
    return AgentSpec(
        name=name, obs=tuple(obs), heads=(Head(kind="box", size=width),), low=(-1.0,) * width, high=(1.0,) * width,
        shape=(width,), goal=tuple(goal),
    )  # fmt: skip


def discrete_agent(name: str, obs: Sequence[int], *sizes: int) -> AgentSpec:
    heads = tuple(Head(kind="discrete", size=size) for size in sizes)
    return AgentSpec(name=name, obs=tuple(obs), heads=heads, start=(0,) * len(sizes), scalar=len(sizes) == 1)


PLAIN = GameSpec(name="plain", agents=(box_agent("a", (0, 1), 2), discrete_agent("b", (1, 2), 3)), obs_dim=3)
"""nothing varies, no goals"""
VARIED = GameSpec(
    name="varied", agents=(box_agent("a", (0, 1), 2), discrete_agent("b", (1, 2), 3)), obs_dim=3, goal_dim=2,
    terminates=True, acting_varies=True, legal_varies=True,
)  # fmt: skip
"""all flags vary, and the achieved goal is in no observation"""
REACHING = GameSpec(
    name="reaching", agents=(box_agent("a", (0, 1, 2), 1),), obs_dim=3, goal_dim=2, achieved=(2, 0), terminates=True
)
"""the achieved goal is a part of the observation"""


def columns(rows: Rows) -> dict[str, Tensor]:
    """The columns of rows by name."""
    return {field.name: getattr(rows, field.name) for field in fields(Rows)}


def assert_same_rows(found: Rows, wanted: Rows) -> None:
    """All columns are equal to the bit, in dtype and in shape."""
    for name, value in columns(wanted).items():
        got = columns(found)[name]
        assert got.dtype == value.dtype, name
        assert torch.equal(got, value), (name, got, value)


def random_rows(spec: GameSpec, size: int, rng: torch.Generator) -> Rows:
    """Rows in which everything is random that the spec lets vary, and nothing else; legal and exclusive actions."""

    def flag(width: tuple[int, ...], varies: bool) -> Tensor:
        drawn = torch.rand(size, *width, generator=rng) < 0.5
        return drawn if varies else torch.ones_like(drawn)

    found: dict[str, Tensor] = {}
    varies = {"acting": spec.acting_varies, "legal": spec.legal_varies}
    for name, (shape, dtype) in row_widths(spec).items():
        if dtype == torch.float32:
            found[name] = torch.randn(size, *shape, generator=rng)
        elif dtype == torch.bool:
            found[name] = flag(shape, varies.get(name.removeprefix("next_"), True))
    if not spec.terminates:
        found["terminated"] = torch.zeros_like(found["terminated"])
    if spec.achieved:
        for prefix in ("", "next_"):
            found[f"{prefix}achieved"] = found[f"{prefix}obs"][:, list(spec.achieved)]
    found["act"] = spec.random_action(found["acting"], found["legal"] | ~found["legal"].any(1, True), rng)
    found["step"] = torch.zeros(size, dtype=torch.int32)
    found["ego"] = torch.full((size,), ALL_AGENTS, dtype=torch.int16)
    return Rows(**found)


def window_at(view: View, act_dim: int) -> Window:
    """A window that shows nothing but `view`."""
    size = len(view)
    return Window(
        obs=view.obs[:, None], act=torch.zeros(size, 1, act_dim), valid=torch.ones(size, 1, dtype=torch.bool), now=view
    )


class LinearGame:
    """A linear system in `copies` copies; each agent is paid minus the squares of what it reads, less its effort.

    Args:
        spec: agents with any actions; nothing varies but termination, where the spec says so: beyond `bound` in the
            first component of the state.
        limit: env steps after which an episode is truncated.
    """

    def __init__(self, spec: GameSpec, copies: int = 1, limit: int = 20, bound: float = 1.5) -> None:
        self.spec, self.copies = spec, copies
        self._limit, self._bound = limit, bound
        rng = generator(99)
        self._drift = torch.linalg.qr(torch.randn(spec.obs_dim, spec.obs_dim, generator=rng))[0] * 0.95
        self._push = torch.randn(spec.act_dim, spec.obs_dim, generator=rng) * 0.3
        self._clock = torch.zeros(copies, dtype=torch.int64)
        self._view = View.of(spec, torch.zeros(copies, spec.obs_dim))
        self._rng = generator(0)

    def reset(self, seed: int) -> View:
        self._rng.manual_seed(seed)
        self._clock.zero_()
        self._view = View.of(self.spec, self._first())
        return self._view

    def _first(self) -> Tensor:
        return torch.rand(self.copies, self.spec.obs_dim, generator=self._rng) - 0.5

    def step(self, act: Tensor) -> tuple[Rows, View]:
        self.spec.check_action(act)
        before = self._view
        obs, reward, over = self.predict(before.obs, act)
        step = self._clock.clone()
        self._clock += 1
        cut = (self._clock >= self._limit) & ~over
        after = View.of(self.spec, obs)
        terminated = over[:, None].expand(-1, self.spec.n)
        rows = Rows.of(self.spec, before, act, reward, after, terminated, cut, step)
        ended = over | cut
        self._clock[ended] = 0
        self._view = View.of(self.spec, torch.where(ended[:, None], self._first(), obs))
        return rows, self._view

    def predict(self, obs: Tensor, act: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next observations `(B, O)`, the rewards `(B, N)`, and whether the episode is over `(B,)`."""
        after = obs @ self._drift + act @ self._push
        reward = [
            -(after[:, list(agent.obs)] ** 2).sum(1) - 0.1 * (act[:, where] ** 2).sum(1)
            for agent, where in zip(self.spec.agents, self.spec.act, strict=True)
        ]
        return after, torch.stack(reward, 1), (after[:, 0].abs() > self._bound) & self.spec.terminates

    def state(self) -> dict[str, Any]:
        return {"obs": self._view.obs.clone(), "clock": self._clock.clone(), "rng": self._rng.get_state()}

    def restore(self, state: Mapping[str, Any]) -> View:
        self._view, self._clock = View.of(self.spec, state["obs"]), state["clock"].clone()
        self._rng.set_state(state["rng"])
        return self._view

    def close(self) -> None:
        self._clock = torch.zeros(0, dtype=torch.int64)
