"""`OneBatch`: rows that were drawn first, handed to a tianshou algorithm as a buffer of exactly those rows.

tianshou's own preprocessing recomputes targets from `buffer[indices]` and so ignores whatever was relabelled, imagined
or mixed into a batch. Here the buffer *is* the batch: `next` of a row is the row itself and returns are one-step.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from tianshou.data import Batch, ReplayBuffer, to_numpy

from presage.common.game import ALL_AGENTS, GameError, GameSpec, Rows, View


class OneBatch(ReplayBuffer):
    """A tianshou replay buffer that holds the given rows and samples all of them, in order.

    The batch has tianshou's names and those of `Rows`, as tensors on their device; with one agent its reward has shape
    (B,), else (B, N), and an end is one of all agents. What tianshou's return computation asks the buffer for is NumPy.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__(size=max(1, len(rows)))
        self.rows = rows
        one = rows.reward.shape[1] == 1
        columns = {field.name: getattr(rows, field.name) for field in fields(Rows)}
        terminated = rows.terminated.all(1)
        tianshou_names = {
            "rew": rows.reward[:, 0] if one else rows.reward,
            "terminated": terminated,
            "done": terminated | rows.truncated,
            "obs_next": rows.next_obs,
            "info": Batch(),
        }
        self._meta = Batch({"row_terminated": columns["terminated"], **columns, **tianshou_names})

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rew(self) -> np.ndarray:
        """Rewards on the host, in the type for which tianshou has compiled its kernels; likewise the two below."""
        return np.asarray(to_numpy(self._meta.rew), dtype=np.float64)

    @property
    def terminated(self) -> np.ndarray:
        """Whether the bootstrap stops."""
        return np.asarray(to_numpy(self._meta.terminated))

    @property
    def done(self) -> np.ndarray:
        """Whether the episode ended."""
        return np.asarray(to_numpy(self._meta.done))

    def __getitem__(self, index: Any) -> Batch:
        everything = isinstance(index, np.ndarray) and np.array_equal(index, np.arange(len(self)))
        return Batch(self._meta) if everything else Batch(self._meta[index])

    def sample(self, batch_size: int | None) -> tuple[Batch, np.ndarray]:
        """All rows, whatever size is asked for; a shallow copy, so that an algorithm may add columns to it."""
        index = np.arange(len(self))
        return Batch(self._meta), index

    def next(self, index: int | np.ndarray) -> np.ndarray:
        """The row itself: rows of a mix do not follow each other."""
        return np.atleast_1d(np.asarray(index))

    def unfinished_index(self) -> np.ndarray:
        """No episode is open in a mix of rows."""
        return np.array([], dtype=np.int64)


def rows_of_batch(spec: GameSpec, batch: Batch, device: torch.device | str) -> Rows:
    """The rows in a tianshou batch: those of a `OneBatch`, or those that tianshou's own buffers sampled.

    Rows from tianshou's buffers say nothing of turns, deaths and legality, so everybody acts and everything is legal.

    Raises:
        GameError: such rows belong to a game whose turns or legal actions vary.
    """
    if "row_terminated" in batch:
        names = {field.name: field.name for field in fields(Rows)} | {"terminated": "row_terminated"}
        return Rows(**{name: batch[key] for name, key in names.items()})
    if spec.acting_varies or spec.legal_varies or spec.goal_dim:
        raise GameError(
            f"{spec.name!r} has turns, deaths, illegal actions or goals, which tianshou's replay buffers do not keep; "
            "train it by presage's own loop, `presage train` or presage.common.run"
        )

    def tensor(value: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.as_tensor(value, dtype=dtype, device=device)

    obs, after = tensor(batch.obs), tensor(batch.obs_next)
    size = len(obs)
    terminated = tensor(batch.terminated, torch.bool).reshape(size, 1).expand(size, spec.n)
    return Rows.of(
        spec,
        View.of(spec, obs),
        tensor(batch.act).reshape(size, spec.act_dim),
        tensor(batch.rew).reshape(size, -1).expand(size, spec.n),
        View.of(spec, after),
        terminated,
        tensor(batch.truncated, torch.bool),
        torch.zeros(size, dtype=torch.int32, device=device),
        torch.full((size,), ALL_AGENTS, dtype=torch.int16, device=device),
    )
