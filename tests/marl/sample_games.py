"""Small games and random rows of them, for the tests of multi-agent methods."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from presage.common.game import ALL_AGENTS, AgentSpec, GameSpec, Rows, View
from presage.common.networks import StackedMLP
from tests.common.toy import box_agent, discrete_agent, generator

Egos = Literal["none", "own", "mixed"]
"""rows that serve everybody, as many rows of each ego, or both"""


def motley(*, flags: bool = True) -> GameSpec:
    """Agents of unlike observations and actions, two of them alike and not side by side; all flags vary, or none."""
    agents = (
        discrete_agent("scout", (0, 1, 2), 4),
        box_agent("driver", (1, 3, 4, 5), 2),
        discrete_agent("guard", (5, 2, 0), 4),
        discrete_agent("speaker", (3, 4), 2, 3),
    )
    return GameSpec(
        name="motley", agents=agents, obs_dim=6, terminates=flags, acting_varies=flags, legal_varies=flags
    )  # fmt: skip


def boxes(*, flags: bool = True) -> GameSpec:
    """Agents of unlike observations and box actions, two of them alike and not side by side; turns vary, or nothing."""
    agents = (box_agent("left", (0, 1, 2), 1), box_agent("crane", (1, 3, 4, 5), 2), box_agent("right", (5, 2, 0), 1))
    return GameSpec(name="boxes", agents=agents, obs_dim=6, terminates=flags, acting_varies=flags)


def random_view(spec: GameSpec, size: int, rng: torch.Generator, dtype: torch.dtype = torch.float32) -> View:
    """Normal observations; idle agents and illegal entries where the game has them, each head with a legal one."""
    view = View.of(spec, torch.randn(size, spec.obs_dim, generator=rng, dtype=dtype))
    given: dict[str, Tensor] = {}
    if spec.acting_varies:
        given["acting"] = torch.rand(size, spec.n, generator=rng) < 0.7
    if spec.legal_varies:
        legal = torch.rand(size, spec.act_dim, generator=rng) < 0.6
        for _, head, where in spec.heads:
            certain = torch.randint(head.size, (size, 1), generator=rng)
            legal[:, where] |= torch.arange(head.size) == certain if head.kind == "discrete" else True
        given["legal"] = legal
    return View.of(spec, view.obs, **given)


def random_rows(spec: GameSpec, size: int, seed: int, dtype: torch.dtype = torch.float32, egos: Egos = "none") -> Rows:
    """Transitions in which everything is random but the steps; also whose rows they are, and in which order."""
    rng = generator(seed)
    view, after = (random_view(spec, size, rng, dtype) for _ in range(2))
    act = spec.random_action(view.acting, view.legal, rng).to(dtype)
    terminated = torch.rand(size, spec.n, generator=rng) < 0.2
    truncated = torch.rand(size, generator=rng) < 0.2
    ego = torch.full((size,), ALL_AGENTS)
    if egos != "none":
        ego = torch.arange(size) % (spec.n + (egos == "mixed"))
        ego = torch.where(ego == spec.n, ALL_AGENTS, ego)[torch.randperm(size, generator=rng)]
    return Rows.of(
        spec, view, act, torch.randn(size, spec.n, generator=rng, dtype=dtype), after, terminated,
        truncated, torch.zeros(size), ego,
    )  # fmt: skip


def one_step_rows(spec: GameSpec, obs: Tensor, act: Tensor) -> Rows:
    """One-step episodes without reward: at `obs (B, O)` everybody acts, as in `act (B, A)`, and has no future."""
    view = View.of(spec, obs)
    return Rows.of(
        spec, view, act, torch.zeros(len(obs), spec.n), view, torch.ones(len(obs), spec.n, dtype=torch.bool),
        torch.zeros(len(obs), dtype=torch.bool), torch.zeros(len(obs)),
    )  # fmt: skip


def by_head(agent: AgentSpec, x: Tensor) -> tuple[Tensor, ...]:
    """The columns of every head of one agent's slice `(B, a)`."""
    return torch.split(x, [head.size for head in agent.heads], 1)


def stack(networks: nn.ModuleList, group: int) -> StackedMLP:
    """The stacked network of one group of agents."""
    found = networks[group]
    if not isinstance(found, StackedMLP):
        raise TypeError(f"expected a stacked network, got {type(found).__name__}")
    return found
