"""Rows of small systems whose laws are known, for tests of models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from presage.common.game import GameSpec, Rows, View
from tests.common.toy import box_agent, generator


def box_game(obs: int, act: int, agents: int = 1, **varies: bool | int) -> GameSpec:
    """Agents that all read the whole joint observation and write `act` numbers each."""
    names = [box_agent(f"a{i}", range(obs), act) for i in range(agents)]
    return GameSpec(name="system", agents=tuple(names), obs_dim=obs, **varies)  # type: ignore[arg-type]  # plain flags


def transitions(
    spec: GameSpec,
    size: int,
    law: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]],
    seed: int = 0,
    *,
    low: float = -1.0,
    high: float = 1.0,
    **flags: Tensor,
) -> Rows:
    """`size` independent rows: `law(obs, act, rng)` gives next observations `(B, O)` and rewards `(B, N)`.

    Args:
        low, high: observations are uniform between them. flags: columns of the rows that are not the plain ones.
    """
    rng = generator(seed)
    obs = low + (high - low) * torch.rand(size, spec.obs_dim, generator=rng)
    act = 2 * torch.rand(size, spec.act_dim, generator=rng) - 1
    after, reward = law(obs, act, rng)
    never = torch.zeros(size, spec.n, dtype=torch.bool)
    rows = Rows.of(
        spec, View.of(spec, obs), act, reward, View.of(spec, after), never, never[:, 0], torch.zeros(size)
    )  # fmt: skip
    return rows.with_(**flags) if flags else rows
