"""Columns of the next observation that a game gives by rule, so that no model needs to learn them.

Shape suffixes: B rows, O observation, A joint action, S state, C known columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from presage.common.game import GameSpec, View


class KnownRule(nn.Module):
    """Puts what is known in place of what was predicted.

    Over several steps a column is known where it never changes, or follows from the last action; of the step before,
    where it never changes.
    """

    columns: Tensor
    """(C,) of the joint observation"""
    factors: Tensor
    """(O + A, C) of the present joint observation and of the joint action"""
    offset: Tensor
    """(C,)"""

    def __init__(self, spec: GameSpec, used: bool, steps: int = 1, *, backward: bool = False) -> None:
        """
        Args:
            used: otherwise nothing counts as known. steps: how far ahead is predicted. backward: what came before is.
        """
        super().__init__()
        known = [
            column for column in (spec.known if used else ())
            if column.constant or not (backward or (steps > 1 and column.obs))
        ]  # fmt: skip
        factors = torch.zeros(spec.obs_dim + spec.act_dim, len(known))
        for k, column in enumerate(known):
            for place, factor in (*column.obs, *((spec.obs_dim + a, factor) for a, factor in column.act)):
                factors[place, k] += factor
        self.act_dim = spec.act_dim
        at = torch.tensor([column.column for column in known], dtype=torch.long)
        self.register_buffer("columns", at, persistent=False)
        self.register_buffer("factors", factors, persistent=False)
        self.register_buffer("offset", torch.tensor([column.offset for column in known]), persistent=False)

    def forward(self, state: Tensor, view: View, act: Tensor) -> Tensor:
        """The predicted states `(..., B, S)` with what is known in its place.

        Args:
            view: `(B)` the present. act: `(B, steps * A)` joint actions, the last one at the end.
        """
        if not len(self.columns):
            return state
        now = torch.cat([view.obs, act[:, act.shape[1] - self.act_dim :]], 1)
        known = now @ self.factors + self.offset
        return state.index_copy(-1, self.columns, known.expand(*state.shape[:-1], -1))

    def forget(self, target: Tensor) -> Tensor:
        """Targets `(B, S)` with zeros where nothing is to be learned."""
        return target.index_fill(1, self.columns, 0.0) if len(self.columns) else target
