"""Reading a game under other names, so that agents that are alike share one head and need not be told apart.

Where a game declares what is interchangeable (`GameSpec.symmetries`), a network need not predict for every agent: it
predicts for one of them, and is asked again for every other one under a renaming that puts it in the first one's
place. What it reads can be put into one order as well, whatever the names: then predictions change with the names as
the game does, exactly and before any fit, an equivariant model out of ordinary networks. That takes all renamings: a
game that declares only some of them is put into a few orders instead of one.

Shape suffixes: B rows, R heads, P renamings, O observation, A action, N agents, G goal, W a vector's width, K of it
predicted by a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from presage.common.game import GameSpec, Rows, View, Window
from presage.common.symmetry import Renamings


class Columns(nn.Module):
    """Of one joint vector `(W)`: the columns that a head predicts, and where every other one is found again."""

    table: Tensor
    """(P, W) the place that a column is taken from"""
    kept: Tensor
    """(K,) columns of a renamed vector that heads predict"""
    head: Tensor
    """(W,) which head tells of a column"""
    place: Tensor
    """(P, W) where in `kept` a column comes to stand, for the renamings of its head"""

    def __init__(self, table: Tensor, head: Tensor, allowed: Tensor) -> None:
        """
        Args:
            table: `(P, W)`. head: `(W,)`. allowed: `(R, P)` bool: the renamings of a head.
        """
        super().__init__()
        stands = table.argsort(1)  # (P, W) where each column goes
        kept = torch.unique(stands.T[allowed[head]])
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("head", head, persistent=False)
        self.register_buffer("place", torch.searchsorted(kept, stands).clamp(max=len(kept) - 1), persistent=False)

    def merge(self, said: Tensor, names: Tensor) -> Tensor:
        """The joint vectors `(..., B, W)` that heads tell of: `said (..., B, R, K)` under `names (B, R)`."""
        column = torch.arange(len(self.head), device=said.device)
        at = self.head * said.shape[-1] + self.place[names[:, self.head], column]
        flat = said.flatten(-2)
        return flat.gather(-1, at.expand(*flat.shape[:-1], -1))


class Naming(nn.Module):
    """Under which names a situation is read, once for every head, and how a joint prediction is put together."""

    key: Tensor
    """(O, P) an observation times this: its place along a fixed direction under each renaming"""
    allowed: Tensor
    """(R, P) bool: the renamings that put whom a head tells of where it predicts them"""

    def __init__(self, spec: GameSpec, *, shared: bool, canonical: bool) -> None:
        """
        Args:
            spec: a game that declares symmetries.
            shared: predict for one agent of those that are alike; otherwise there is one head, for all.
            canonical: of the renamings that a head allows, take the one that brings the joint observation farthest
                along a fixed direction, so that rows that differ in names alone are read alike (a Dirichlet domain of
                the renamings); otherwise the first one.
        """
        super().__init__()
        self.canonical = canonical
        self.renamings = table = Renamings(spec)
        every = torch.ones(1, table.count, dtype=torch.bool)
        by_agent = every.expand(spec.n, -1)
        if shared:
            by_agent = (table.place == table.place.min(0).values).T
        by_agent = torch.cat([by_agent, every])  # last, what belongs to nobody
        if not canonical:
            by_agent = by_agent & (by_agent.cumsum(1) == 1)
        allowed, head = torch.unique(by_agent, dim=0, return_inverse=True)
        self.register_buffer("allowed", allowed, persistent=False)

        def whose(width: int, parts: Sequence[Sequence[int]]) -> Tensor:
            """`(width,)` the head of the first agent that has a column."""
            found: Tensor = head[-1].repeat(width)
            for i in reversed(range(spec.n)):
                found[list(parts[i])] = head[i]
            return found

        owners, state = [whose(spec.obs_dim, spec.obs)], [table.obs]
        if not spec.achieved and spec.goal_dim:
            owners.append(whose(spec.goal_dim, [agent.goal for agent in spec.agents]))
            state.append(table.goal + spec.obs_dim)
        acts = whose(spec.act_dim, [range(spec.act_dim)[where] for where in spec.act])
        self._state = Columns(torch.cat(state, 1), torch.cat(owners), allowed)
        self._agents, self._act = Columns(table.agents, head[:-1], allowed), Columns(table.act, acts, allowed)
        direction = torch.randn(spec.obs_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("key", direction[table.obs.argsort(1)].T.contiguous(), persistent=False)

    @property
    def heads(self) -> int:
        """R."""
        return len(self.allowed)

    def choose(self, obs: Tensor) -> Tensor:
        """`(B, R)` the renaming under which each head reads the joint observations `(B, O)`."""
        if not self.canonical:
            return self.allowed.byte().argmax(1).expand(len(obs), -1)
        along = (obs @ self.key)[:, None]
        return along.masked_fill(~self.allowed, -torch.inf).argmax(2)

    def columns(self, name: str) -> Columns:
        """What heads predict of the "state", of "legal" actions, or else of what every agent has one of."""
        return {"state": self._state, "legal": self._act}.get(name, self._agents)

    def rename(self, part: Tensor, name: Literal["state", "obs", "act"], names: Tensor) -> Tensor:
        """Vectors `(..., B, W)` (observations and actions: `(B, T, W)`) as heads read them, a row's heads side by side.

        Returns:
            `(..., B * R, W)` or `(B * R, T, W)`.
        """
        chosen = names.flatten()
        if name == "state":
            table = self._state.table[chosen]
            return part.repeat_interleave(self.heads, -2).gather(-1, table.expand(*part.shape[:-2], *table.shape))
        table = self.renamings.get_buffer(name)[chosen]
        return part.repeat_interleave(self.heads, 0).gather(2, table[:, None].expand(-1, part.shape[1], -1))

    def view(self, view: View, names: Tensor) -> View:
        """The views `(B)` as heads read them, `(B * R)`."""
        return self.renamings.view(view[self._again(names)], names.flatten())

    def window(self, window: Window, names: Tensor) -> Window:
        """The windows `(B)` as heads read them, `(B * R)`."""
        return self.renamings.window(window[self._again(names)], names.flatten())

    def rows(self, rows: Rows, names: Tensor) -> Rows:
        """The rows `(B)` as heads read them, `(B * R)`."""
        return self.renamings.rows(rows[self._again(names)], names.flatten())

    def merge(self, said: Tensor, kinds: Sequence[str], names: Tensor) -> Tensor:
        """Joint vectors of these kinds, side by side, `(..., B, .)`: what heads say of them, `(..., B * R, .)`."""
        if not kinds:
            return said[..., : len(names), :]
        columns = [self.columns(name) for name in kinds]
        by_head = said.reshape(*said.shape[:-2], *names.shape, said.shape[-1])
        parts = torch.split(by_head, [len(each.kept) for each in columns], -1)
        return torch.cat([each.merge(part, names) for each, part in zip(columns, parts, strict=True)], -1)

    def _again(self, names: Tensor) -> Tensor:
        """`(B * R,)` every row as often as there are heads."""
        return torch.arange(len(names), device=names.device).repeat_interleave(self.heads)
