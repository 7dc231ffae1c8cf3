"""Rows out of a tianshou replay buffer, as its collector adds them."""

from __future__ import annotations

import numpy as np
import torch
from tianshou.data import Batch, ReplayBuffer, ReplayBufferManager

from presage.common.game import GameError, GameSpec, Rows
from presage.common.one_batch import rows_of_batch
from presage.common.replay import Replay


class BufferReader:
    """Copies new transitions of a tianshou buffer into a `Replay`, one lane for each of its environments."""

    def __init__(self, spec: GameSpec, buffer: ReplayBuffer, capacity: int, device: torch.device | str) -> None:
        """
        Args:
            spec: the game. buffer: what tianshou's collector fills. capacity: real rows kept, over all lanes.

        Raises:
            GameError: the buffer does not store next observations.
        """
        parts = _lanes(buffer)
        if not all(part._save_obs_next for part in parts):
            raise GameError("the tianshou buffer leaves out next observations; make it with ignore_obs_next=False")
        self.spec, self.device = spec, device
        self._read = [0] * len(parts)
        """where each lane's next new transition will stand"""
        self._last: list[bytes | None] = [None] * len(parts)
        """the newest transition of each lane that was read; once it is overwritten, others are lost"""
        self._step = [0] * len(parts)
        self.replay = Replay(spec, capacity, len(parts), device=device)

    def new_rows(self, buffer: ReplayBuffer) -> list[Rows]:
        """The transitions added since the last call, lane by lane; they are inserted into the replay as well.

        Raises:
            GameError: the buffer was emptied, or a lane was filled more than once around, since the last call.
        """
        found = []
        for lane, part in enumerate(_lanes(buffer)):
            start, end = self._read[lane], int(part._insertion_idx)
            known = self._last[lane]
            lapped = len(part) == part.maxsize and end > 0 if known is None else _content(part, start - 1) != known
            if len(part) < start or lapped:
                raise GameError(
                    f"lane {lane} of the tianshou buffer was emptied, or overwritten before it was read; do not reset "
                    f"it, and give it more than {part.maxsize} places if it holds less than one collection"
                )
            if start == end and (known is not None or len(part) == 0):
                continue
            index = np.arange(start, end if end > start else end + part.maxsize) % part.maxsize
            batch = part[index]
            rows = rows_of_batch(self.spec, Batch(batch), self.device)
            rows = rows.with_(step=self._steps(lane, np.asarray(batch.done)))
            self.replay.extend(rows, torch.full((len(rows),), lane))
            self._read[lane], self._last[lane] = end, _content(part, end - 1)
            found.append(rows)
        return found

    def _steps(self, lane: int, done: np.ndarray) -> torch.Tensor:
        """Env steps since the episode's start, of consecutive rows of one lane."""
        place = np.arange(len(done) + 1)
        began = np.r_[-self._step[lane], np.where(done, place[1:], -self._step[lane])]
        steps = place - np.maximum.accumulate(began)
        self._step[lane] = int(steps[-1])
        return torch.as_tensor(steps[:-1], dtype=torch.int32, device=self.device)


def _lanes(buffer: ReplayBuffer) -> list[ReplayBuffer]:
    """The rings of a tianshou buffer, one for each environment."""
    return list(buffer.buffers) if isinstance(buffer, ReplayBufferManager) else [buffer]


def _content(part: ReplayBuffer, place: int) -> bytes:
    """The transition at one place of a ring."""
    row = part._meta[place]
    return b"".join(np.asarray(row[name]).tobytes() for name in ("obs", "act", "rew", "obs_next"))
