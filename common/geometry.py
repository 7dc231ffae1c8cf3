"""Lengths and directions of vectors that a game's observations hold: what forces and rewards of point masses depend on.

Shape suffixes: B batch, O observation, K vectors, D their dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Geometry(nn.Module):
    """`(..., O)` to `(..., O + K + K * D)`: the observation, the length of every declared vector, every unit vector.

    Args:
        vectors: K groups of D columns each, as `GameSpec.vectors` declares them; empty where there are none.
    """

    index: Tensor

    def __init__(self, vectors: Sequence[Sequence[int]]) -> None:
        super().__init__()
        size = len(vectors[0]) if vectors else 0
        self.width = len(vectors) * (1 + size)
        index = torch.tensor(list(vectors), dtype=torch.long).view(len(vectors), size)
        self.register_buffer("index", index, persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        return torch.cat([obs, self.features(obs)], -1) if self.width else obs

    def features(self, obs: Tensor) -> Tensor:
        """Lengths and unit vectors alone, `(..., K + K * D)`."""
        if not self.width:
            return obs[..., :0]
        length = self.lengths(obs)
        unit = obs[..., self.index] / length.clamp(min=1e-3)[..., None]
        return torch.cat([length, unit.flatten(-2)], -1)

    def lengths(self, obs: Tensor) -> Tensor:
        """The lengths alone, `(..., K)`."""
        lengths: Tensor = obs[..., self.index].norm(dim=-1)
        return lengths
