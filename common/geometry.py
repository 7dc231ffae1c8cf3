"""Lengths and directions of vectors that a game's observations hold: what forces and rewards of point masses depend on.

Shape suffixes: B batch, S state, K vectors, D their dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Geometry(nn.Module):
    """`(..., S)` to `(..., K + K * D)`: the length of every declared vector, then every unit vector."""

    index: Tensor

    def __init__(self, vectors: Sequence[Sequence[int]], state_dim: int) -> None:
        """
        Args:
            vectors: K groups of D state columns each. state_dim: S.

        Raises:
            ValueError: the groups differ in length, or reach outside the state.
        """
        super().__init__()
        sizes = {len(group) for group in vectors}
        if len(sizes) > 1:
            raise ValueError(f"vectors={tuple(vectors)} must be groups of one length: 2 on a plane, 3 in space")
        if any(not 0 <= column < state_dim for group in vectors for column in group):
            raise ValueError(f"vectors={tuple(vectors)} must hold columns of the state, 0..{state_dim - 1}")
        size = sizes.pop() if sizes else 0
        self.width = len(vectors) * (1 + size)
        index = torch.tensor(list(vectors), dtype=torch.long).view(len(vectors), size)
        self.register_buffer("index", index, persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        if not self.width:
            return state[..., :0]
        vectors = state[..., self.index]
        length = vectors.norm(dim=-1)
        unit = vectors / length.clamp(min=1e-3)[..., None]
        return torch.cat([length, unit.flatten(-2)], -1)
