"""Counting: how often each action was taken in each context. The exact baseline that every other model is to be held
beside, and all that is needed where contexts are few.

Box actions get the normal of what they were before squashing.

Shape suffixes: M moments, N agents, g agents of a group, C contexts, w columns of a context, a width of an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from presage.common.game import Carry, GameSpec, Rows, View, Window
from presage.common.heads import Group, groups_of
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.predicted import Part, Predicted, silenced

LEAST_DEVIATION = 1e-3
"""of a normal, before squashing"""


@dataclass(frozen=True, kw_only=True)
class FrequenciesConfig:
    """What counts as a context, and how long a moment is remembered."""

    sees: Literal["nothing", "opponent", "state"] = "opponent"
    """what makes a context: nothing, so that there is one; what the modelled agent observes; or everything"""
    resolution: float = 1e-3
    """observations that round to the same multiple of it are alike; > 0"""
    prior: float = 1.0
    """added to the count of every action in every context, by how often it was taken in all of them; >= 0"""
    window: int | None = None
    """newest moments that count; None for all; >= 1"""
    memory: float | None = None
    """moments after which one counts e times less; None: never; > 0"""

    def __post_init__(self) -> None:
        if self.sees not in ("nothing", "opponent", "state"):
            raise ValueError(f"sees={self.sees!r} must be 'nothing', 'opponent' or 'state'")
        if self.resolution <= 0 or self.prior < 0:
            raise ValueError(f"resolution={self.resolution} must be > 0 and prior={self.prior} >= 0")
        if (self.window is not None and self.window < 1) or (self.memory is not None and self.memory <= 0):
            raise ValueError(f"window={self.window} must be >= 1 and memory={self.memory} > 0, or None")


class _Table:
    """The counts of one agent by context; the last row is that of all contexts together."""

    def __init__(self, keys: NDArray[np.void], counts: Tensor) -> None:
        self.keys, self.counts = keys, counts

    def rows(self, keys: NDArray[np.void]) -> Tensor:
        """The rows of these contexts, the last one for those that were never met."""
        if not len(self.keys):
            return torch.full((len(keys),), -1)
        place = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return torch.from_numpy(np.where(self.keys[place] == keys, place, len(self.keys)))


class Frequencies:
    """Counts of what every agent did; a memoryless model of all of them."""

    history = 1
    """views that an answer reads"""

    def __init__(
        self, spec: GameSpec, config: FrequenciesConfig | None = None, *, egos: Sequence[int | str] = (0,)
    ) -> None:
        """
        Args:
            egos: whose model this is; all of them expect the same.
        """
        self.spec, self.config = spec, config or FrequenciesConfig()
        self.ego = tuple(spec.index(ego) for ego in egos)
        self.groups = groups_of(spec)
        self._tables: dict[int, _Table] = {}

    def fit(self, seen: Moments | Rows) -> None:
        """Count what was done at M moments, newest last; earlier counts are forgotten."""
        moments = Moments.of(seen) if isinstance(seen, Rows) else seen
        if self.config.window is not None:
            moments = moments[-self.config.window :]
        age = torch.arange(len(moments) - 1, -1, -1, dtype=torch.float64)
        weight = torch.ones_like(age) if self.config.memory is None else torch.exp(-age / self.config.memory)
        for group in self.groups:
            for agent in group.agents:
                acts = moments.view.acting[:, agent]
                own = moments.act[:, self.spec.act[agent]][acts].double()
                keys, place = np.unique(self._keys(moments.view.obs[acts], agent), return_inverse=True)
                known = torch.from_numpy(place.reshape(-1))
                self._tables[agent] = _Table(keys, self._count(group, own, weight[acts], known, len(keys)))

    def _count(self, group: Group, own: Tensor, weight: Tensor, known: Tensor, contexts: int) -> Tensor:
        """Per context, and for all at last, `(C + 1, p)`: the logits of one-hot heads, or means and log deviations."""
        if group.discrete:
            counted = own * weight[:, None]
            everywhere = counted.sum(0)
            counts = torch.zeros(contexts, own.shape[1], dtype=torch.float64).index_add(0, known, counted)
            total, start = [], 0
            for head in group.heads:
                columns = slice(start, start + head.size)
                share = everywhere[columns] / everywhere[columns].sum().clamp_min(1e-300)
                if not bool(everywhere[columns].any()):
                    share = torch.full_like(share, 1 / head.size)
                total.append(torch.cat([counts[:, columns] + self.config.prior * share, share[None]]))
                start += head.size
            return torch.cat(total, 1).clamp_min(1e-30).log().float()
        before = own.clamp(-1 + 1e-6, 1 - 1e-6).atanh()
        sums = torch.stack([torch.ones_like(before), before, before.square()]) * weight[:, None]
        each = torch.zeros(3, contexts, own.shape[1], dtype=torch.float64).index_add(1, known, sums)
        everything = sums.sum(1, keepdim=True)
        alike = everything / everything[:1].clamp_min(1e-300)
        if not len(own):
            alike = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)[:, None, None].expand(-1, 1, own.shape[1])
        number, first, second = torch.cat([each + self.config.prior * alike, alike], 1)
        mean = first / number.clamp_min(1e-300)
        deviation = (second / number.clamp_min(1e-300) - mean.square()).clamp_min(LEAST_DEVIATION**2).sqrt()
        return torch.cat([mean, deviation.log()], 1).float()

    def _keys(self, obs: Tensor, agent: int) -> NDArray[np.void]:
        """What tells the contexts of B observations apart, `(B,)`."""
        columns: Sequence[int] = ()
        if self.config.sees == "opponent":
            columns = self.spec.obs[agent]
        elif self.config.sees == "state":
            columns = range(self.spec.obs_dim)
        read = (obs[:, list(columns)].double() / self.config.resolution).round().long().cpu().numpy()
        return _keys(np.concatenate([np.zeros((len(read), 1), dtype=np.int64), read], 1))

    def predicted(self, view: View) -> Predicted:
        """What is expected of all agents; before the first fit anything legal, or a standard normal."""
        parts = []
        for group in self.groups:
            found = []
            for agent in group.agents:
                table = self._tables.get(agent)
                if table is None:
                    found.append(torch.zeros(len(view), group.parameters))
                else:
                    found.append(table.counts[table.rows(self._keys(view.obs, agent))])
            numbers = torch.stack(found).to(view.obs.device)[:, :, None]
            legal = group.of_actions(view.legal) if group.discrete and self.spec.legal_varies else None
            parts.append(
                Part(group=group, parameters=numbers, log_weights=numbers.new_zeros(numbers.shape[:3]), legal=legal)
            )
        return Predicted(spec=self.spec, parts=tuple(parts))

    def expected(self, window: Window) -> Predicted:
        """As `predicted`, at the ends of windows."""
        return self.predicted(window.now)

    def init(self, window: Window) -> Carry:
        """Nothing: counts are memoryless."""
        return None

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """What all agents are expected to do, `(B, A)`; the modes where rng is None."""
        predicted = self.predicted(view)
        return carry, silenced(self.spec, predicted.mode() if rng is None else predicted.sample(rng), view)

    def log_prob(self, view: View, act: Tensor) -> Tensor:
        """Log-probability of every agent's slice of `act (B, A)`: `(B, N)`."""
        return self.predicted(view).log_prob(act)

    def state(self) -> dict[str, Any]:
        """Copies of all counts, by agent, from which `restore` continues exactly."""
        return {
            name: {"cells": _cells(table.keys), "counts": table.counts.clone()}
            for i, name in enumerate(self.spec.names)
            if (table := self._tables.get(i)) is not None
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self._tables = {
            self.spec.index(name): _Table(_keys(table["cells"]), table["counts"].clone())
            for name, table in state.items()
        }


def _keys(cells: NDArray[np.int64]) -> NDArray[np.void]:
    """Contexts `(C, w)` of whole numbers, each as one value that can be sorted: `(C,)`."""
    whole = np.ascontiguousarray(cells, dtype=np.int64)
    return whole.view(np.dtype((np.void, whole.shape[1] * whole.itemsize))).reshape(-1)


def _cells(keys: NDArray[np.void]) -> NDArray[np.int64]:
    """The inverse of `_keys`."""
    return keys.view(np.int64).reshape(len(keys), keys.dtype.itemsize // 8).copy()
