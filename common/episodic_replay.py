"""A replay that also knows how far each row's episode reaches: what hindsight draws its goals from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from presage.common.game import GameSpec, Rows
from presage.common.replay import Replay, consecutive

_OPEN = -1
"""in place of the number of an episode's last row, while it goes on"""


class Span(NamedTuple):
    """How many rows of a row's own episode are held."""

    before: Tensor
    """(B,) int64: rows before it that the ring has not forgotten"""
    after: Tensor
    """(B,) int64: rows after it; of an open episode those that are there by now"""


class EpisodicReplay(Replay):
    """Rings of rows that can be walked along their episodes.

    Of a row are known its number in its episode (`Rows.step`) and, kept here, that of the episode's last row. An
    episode is over for the replay when the lane's next one begins; what is open is taken as far as it has come.
    """

    def __init__(
        self,
        spec: GameSpec,
        capacity: int,
        lanes: int,
        *,
        device: torch.device | str = "cpu",
        block_rows: int = 16_384,
    ) -> None:
        """
        Args:
            spec, capacity, lanes, device, block_rows: as of `Replay`.

        Raises:
            ValueError: the capacity does not hold one row per lane.
        """
        super().__init__(spec, capacity, lanes, device=device, block_rows=block_rows)
        self._last = torch.full((lanes * self.slots,), _OPEN, dtype=torch.int32, device=self.device)
        """number in its episode of the last row of each row's episode; made again from the rows' own numbers on load"""
        layout = self._layout[torch.float32]
        achieved = [layout["next_obs"][0] + k for k in spec.achieved] or list(range(*layout.get("next_achieved", (0,))))
        self._outcome, self._pursued = achieved, list(range(*layout.get("desired", (0,))))
        """columns of the storage that hold what was achieved after a step, and what was to be"""

    @property
    def nbytes(self) -> int:
        """Bytes of the storage once full."""
        return super().nbytes + self._last.nbytes

    def extend(self, rows: Rows, lane: Tensor | None = None) -> None:
        """As `Replay.extend`."""
        before = self.totals
        super().extend(rows, lane)
        spans = [(max(old, total - self.slots), total) for old, total in zip(before, self.totals, strict=True)]
        if len(set(spans)) == 1:  # every lane has got as many
            time = torch.arange(*spans[0], device=self.device).repeat(self.lanes)
            lane = torch.arange(self.lanes, device=self.device).repeat_interleave(len(time) // self.lanes)
        else:
            counts = torch.tensor([end - start for start, end in spans], device=self.device)
            time = torch.cat([torch.arange(*span, device=self.device) for span in spans])
            lane = torch.arange(self.lanes, device=self.device).repeat_interleave(counts)
        index = lane * self.slots + time % self.slots
        self._last[index] = _OPEN
        first = self._step[index] == 0
        self._close(lane[first], time[first] - 1)

    def _close(self, lane: Tensor, time: Tensor) -> None:
        """Write the last number into the rows that are held of the episodes whose last rows are at `time` of `lane`."""
        total = torch.tensor(self.totals, device=self.device)[lane]
        oldest = (total - self.slots).clamp_min(0)
        held = time >= oldest
        lane, time, oldest = lane[held], time[held], oldest[held]
        last = self._step[lane * self.slots + time % self.slots]
        count = torch.minimum(last.long(), time - oldest) + 1
        lane, time, last, start = (x.repeat_interleave(count) for x in (lane, time, last, count.cumsum(0) - count))
        back = torch.arange(len(start), device=self.device) - start
        self._last[lane * self.slots + (time - back) % self.slots] = last

    def load(self, folder: Path, saved: Mapping[str, Any]) -> None:
        """As `Replay.load`."""
        super().load(folder, saved)
        self._last.fill_(_OPEN)
        for lane, (total, filled) in enumerate(zip(self.totals, self.filled, strict=True)):
            time = torch.arange(total - filled, total, device=self.device)
            begins = time[self._step[lane * self.slots + time % self.slots] == 0]
            self._close(torch.full_like(begins, lane), begins - 1)

    # ------------------------------------------------------------- episodes

    def span(self, index: Tensor) -> Span:
        """How far the episodes of the rows at `index (B,)` reach before and after them."""
        if len(set(self.totals)) == 1:
            newest: Tensor | int = self.totals[0] - 1
            held: Tensor | int = min(self.totals[0], self.slots)
        else:
            lane = index // self.slots
            newest = torch.tensor(self.totals, device=self.device)[lane] - 1
            held = (newest + 1).clamp_max(self.slots)
        age = (newest - index) % self.slots
        step, last = (part.index_select(0, index).long() for part in (self._step, self._last))
        return Span(torch.minimum(step, held - 1 - age), torch.where(last == _OPEN, age, last - step))

    def shifted(self, index: Tensor, steps: Tensor) -> Tensor:
        """The rows so many env steps later (earlier where negative), in the same lanes; see `span` for how many there
        are.

        Args:
            index: (B,) rows, or of any shape that goes with that of `steps`.
        """
        slot = index % self.slots
        return index + (slot + steps) % self.slots - slot

    def achieved_after(self, index: Tensor) -> Tensor:
        """What was achieved after the steps at `index`: `(B, G)` from rows `(B, 1)`, or entry by entry from rows of
        their own, `(B, G)`.
        """
        return self._entries(index, self._outcome)

    def pursued(self, index: Tensor) -> Tensor:
        """What was to be achieved in the steps at `index`, likewise."""
        return self._entries(index, self._pursued)

    def _entries(self, index: Tensor, columns: list[int]) -> Tensor:
        """`(B, G)` entries of the storage; what lies side by side in a row is fetched at once, which is much faster."""
        together = consecutive(columns)
        if index.shape[1] == 1 and isinstance(together, slice):
            return self._numbers[:, together].index_select(0, index[:, 0])
        places = torch.tensor(columns, device=self.device) + index * self._numbers.shape[1]
        return self._numbers.view(-1).take(places)


def episodic(replay: Replay) -> EpisodicReplay:
    """`replay`, for what has to know its episodes.

    Raises:
        TypeError: it does not.
    """
    if not isinstance(replay, EpisodicReplay):
        raise TypeError(f"goals need an EpisodicReplay, got {type(replay).__name__}")
    return replay
