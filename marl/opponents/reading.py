"""What models of the others read of the joint observation, so that they see what they may and nothing else.

Shape suffixes: I egos, N agents, g agents of a group, P parts (I or a multiple), M rows of a part, w numbers read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from presage.common.game import GameError, GameSpec
from presage.common.geometry import Geometry
from presage.common.heads import Group, groups_of
from presage.common.networks import Normaliser

Sees = Literal["opponent", "own", "state"]
"""what a model may read: what the modelled agent observes, what the ego does, or everything"""


class Reading(nn.Module):
    """Standardised observations, agent by agent, with the lengths and directions of the vectors in them."""

    def __init__(
        self, spec: GameSpec, sees: Sees, ego: Sequence[int], *, geometry: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            ego: (I) the agents that keep models. geometry: read the vectors that the game declares as well.

        Raises:
            GameError: the models are to read what their egos observe, and these observe unequally much.
        """
        super().__init__()
        self.spec, self.sees, self.ego = spec, sees, tuple(ego)
        self.groups = groups_of(spec, device)
        self.normaliser = Normaliser(spec.obs_dim).to(device)
        self._columns = [self._columns_of(group).to(device) for group in self.groups]
        vectors = [self._vectors_of(group) if geometry else () for group in self.groups]
        self.geometries = [Geometry(own).to(device) for own in vectors]

    @property
    def widths(self) -> list[int]:
        """w of every group."""
        return [
            columns.shape[-1] + own.width for columns, own in zip(self._columns, self.geometries, strict=True)
        ]  # fmt: skip

    def _columns_of(self, group: Group) -> Tensor:
        """What the models of a group's agents read of the joint observation: `(g, w)`, or `(I, g, w)` by ego."""
        if self.sees == "opponent":
            return group.obs
        if self.sees == "state":
            return torch.arange(self.spec.obs_dim).expand(len(group.agents), -1)
        widths = {len(self.spec.obs[ego]) for ego in self.ego}
        if len(widths) > 1:
            raise GameError(
                f"egos {[self.spec.names[ego] for ego in self.ego]} observe {sorted(widths)} numbers; models that read "
                "their ego's observation need equally many: make a bank for each"
            )
        own = torch.tensor([self.spec.obs[ego] for ego in self.ego])
        return own[:, None].expand(-1, len(group.agents), -1)

    def _vectors_of(self, group: Group) -> Sequence[Sequence[int]]:
        """The vectors in what the models of a group's agents read."""
        if self.sees == "opponent":
            return group.vectors
        if self.sees == "state":
            return self.spec.vectors
        found = {self.spec.vectors_of(ego) for ego in self.ego}
        return found.pop() if len(found) == 1 else ()

    def forward(self, obs: Tensor, parts: int) -> list[Tensor]:
        """Per group, what its networks read `(P, g, M, w)` of observations `(P M, O)`.

        Raises:
            GameError: rows that the parts cannot share evenly.
        """
        if len(obs) % parts:
            raise GameError(
                f"{len(obs)} rows cannot be shared evenly by {len(self.ego)} egos; order them ego after ego"
            )
        raw, scaled = (x.view(parts, -1, self.spec.obs_dim) for x in (obs, self.normaliser(obs)))
        found = []
        for columns, geometry in zip(self._columns, self.geometries, strict=True):
            read = _taken(scaled, columns)
            if geometry.width:
                read = torch.cat([read, geometry.features(_taken(raw, columns))], -1)
            found.append(read)
        return found


def _taken(x: Tensor, columns: Tensor) -> Tensor:
    """The columns `(g, w)`, or `(I, g, w)` for each ego, of `x (P, M, O)`: `(P, g, M, w)`."""
    if columns.ndim == 2:
        return x[:, :, columns].transpose(1, 2)
    own = columns.repeat(len(x) // len(columns), 1, 1)
    ego = torch.arange(len(x), device=x.device)[:, None, None]
    return x.transpose(1, 2)[ego, own].transpose(2, 3)
