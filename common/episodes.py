"""Returns and lengths of the episodes that experience is collected in.

Shape suffixes: C game copies, N agents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from presage.common.game import Rows


class EpisodeLog:
    """Sums up open episodes, and averages those that ended since it was last asked."""

    def __init__(self, copies: int, device: torch.device | str = "cpu") -> None:
        self._returns = torch.zeros(copies, dtype=torch.float64, device=device)
        """(C,) of the open episodes: sum over steps of the mean over agents"""
        self._lengths = torch.zeros(copies, dtype=torch.int64, device=device)
        self._finished: list[tuple[float, int]] = []

    def add(self, rows: Rows) -> None:
        """Take the C transitions of one env step of every copy."""
        self._returns += rows.reward.mean(1, dtype=torch.float64)
        self._lengths += 1
        over = rows.truncated | rows.terminated.all(1)
        if bool(over.any()):
            self._finished += zip(self._returns[over].tolist(), self._lengths[over].tolist(), strict=True)
            self._returns[over] = 0.0
            self._lengths[over] = 0

    def drop(self, copies: Iterable[int]) -> None:
        """Forget the open episodes of `copies`."""
        index = list(copies)
        self._returns[index] = 0.0
        self._lengths[index] = 0

    def metrics(self) -> dict[str, float]:
        """Averages over the episodes that ended since the last call, by metric tag; {} where none did."""
        if not self._finished:
            return {}
        returns, lengths = zip(*self._finished, strict=True)
        self._finished = []
        count = len(returns)
        return {"rollout/ep_rew_mean": sum(returns) / count, "rollout/ep_len_mean": sum(lengths) / count}

    def state(self) -> dict[str, Any]:
        """Plain data from which `restore` continues."""
        return {"returns": self._returns.cpu(), "lengths": self._lengths.cpu(), "finished": list(self._finished)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._returns.copy_(state["returns"])
        self._lengths.copy_(state["lengths"])
        self._finished = [(float(total), int(length)) for total, length in state["finished"]]
