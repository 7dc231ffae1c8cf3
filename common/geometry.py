"""Lengths and directions of vectors that a game's observations hold: what forces and rewards of point masses depend on.

Shape suffixes: O observation, K vectors, D their dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Geometry(nn.Module):
    """`(..., O)` to `(..., O + K + D * K)`: the observation, the length of every declared vector, every unit vector
    (first components of all, then second ones).

    Lengths below 1e-15 count as that, so that gradients stay finite.

    Args:
        vectors: K groups of D columns each, as `GameSpec.vectors` declares them; empty where there are none.
    """

    index: Tensor

    def __init__(self, vectors: Sequence[Sequence[int]]) -> None:
        super().__init__()
        size = len(vectors[0]) if vectors else 0
        self.width = len(vectors) * (1 + size)
        index = torch.tensor(list(vectors), dtype=torch.long).view(len(vectors), size)
        self.register_buffer("index", index.T.contiguous().view(-1), persistent=False)
        self._shape = (size, len(vectors))

    def forward(self, obs: Tensor) -> Tensor:
        return torch.cat([obs, self.features(obs)], -1) if self.width else obs

    def features(self, obs: Tensor) -> Tensor:
        """Lengths and unit vectors alone, `(..., K + D * K)`."""
        if not self.width:
            return obs[..., :0]
        components = self._components(obs)
        length = _length(components)
        unit = components / length.clamp_min(1e-3)[..., None, :]
        return torch.cat([length, unit.flatten(-2)], -1)

    def lengths(self, obs: Tensor) -> Tensor:
        """The lengths alone, `(..., K)`."""
        return _length(self._components(obs)) if self.width else obs[..., :0]

    def _components(self, obs: Tensor) -> Tensor:
        """`(..., D, K)`."""
        return obs.index_select(-1, self.index).view(*obs.shape[:-1], *self._shape)


def _length(components: Tensor) -> Tensor:
    """`(..., D, K)` to `(..., K)`; a few long rows to add are quicker than `norm` over many short ones."""
    first, *others = components.unbind(-2)
    total = first.square()
    for component in others:
        total = total + component.square()
    return total.clamp_min(1e-30).sqrt()
