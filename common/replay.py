"""The replay: rings of transitions on the learner's device, one ring ("lane") per game copy or per ego.

A lane holds one copy's rows in the order in which they were played, so that windows of past observations can be served.
All floating-point columns of a row lie side by side in one tensor, all flags in another: a batch is two gathers.
Columns that a game never varies (legality, turns, terminations, goals) take no memory and are made on the way out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from presage.common.game import ALL_AGENTS, GameError, GameSpec, Rows, Window, row_widths


class Replay:
    """Rings of rows that are sampled uniformly, read by index, looked back from, and saved block by block."""

    def __init__(
        self,
        spec: GameSpec,
        capacity: int,
        lanes: int,
        *,
        device: torch.device | str = "cpu",
        per_ego: bool = False,
        block_rows: int = 16_384,
    ) -> None:
        """
        Args:
            spec: the game whose rows are kept.
            capacity: rows kept in all lanes together; rounded down to a multiple of `lanes`.
            lanes: rings; one per game copy for real rows, one per ego for imagined ones.
            device: where the rows live.
            per_ego: the lane's number is the `ego` of its rows (else every row serves all agents).
            block_rows: rows per file of the persisted replay; only blocks that changed are written again.

        Raises:
            ValueError: the capacity does not hold one row per lane.
        """
        if lanes < 1 or capacity < lanes:
            raise ValueError(f"a replay needs capacity >= lanes >= 1, got capacity={capacity}, lanes={lanes}")
        self.spec, self.lanes, self.per_ego = spec, lanes, per_ego
        self.slots = capacity // lanes
        self.device = torch.device(device)
        absent = set() if spec.acting_varies else {"acting", "next_acting"}
        absent |= set() if spec.legal_varies else {"legal", "next_legal"}
        absent |= set() if spec.terminates else {"terminated"}
        absent |= {"achieved", "next_achieved"} if spec.achieved else set()
        self._layout: dict[torch.dtype, dict[str, tuple[int, int]]] = {torch.float32: {}, torch.bool: {}}
        self._widths = row_widths(spec)
        self._achieved = consecutive(spec.achieved)
        on = torch.ones((), dtype=torch.bool, device=self.device)
        flags = {"acting": on, "next_acting": on, "terminated": ~on, "legal": on, "next_legal": on}
        self._constant = {name: flag for name, flag in flags.items() if name in absent}
        self._everyone = torch.full((), ALL_AGENTS, dtype=torch.int16, device=self.device)
        ends = {torch.float32: 0, torch.bool: 0}
        for name, (shape, dtype) in self._widths.items():
            width = shape[0] if shape else 1
            if dtype in ends and name not in absent and width:
                self._layout[dtype][name] = (ends[dtype], ends[dtype] + width)
                ends[dtype] += width
        rows = lanes * self.slots
        self._numbers = _zeros((rows, ends[torch.float32]), np.float32, self.device)
        self._flags = _zeros((rows, ends[torch.bool]), np.bool_, self.device)
        self._step = _zeros((rows,), np.int32, self.device)
        self.totals = [0] * lanes
        """rows ever inserted, per lane"""
        self._block_slots = max(1, block_rows // lanes)
        self._versions = [0] * -(-self.slots // self._block_slots)
        self._saved: dict[int, Path] = {}
        """the file that holds each block's content of its present version, where there is one"""

    # ------------------------------------------------------------------ size

    @property
    def filled(self) -> list[int]:
        """Rows held now, per lane."""
        return [min(total, self.slots) for total in self.totals]

    def __len__(self) -> int:
        return sum(self.filled)

    @property
    def nbytes(self) -> int:
        """Bytes of the storage once full."""
        return self._numbers.nbytes + self._flags.nbytes + self._step.nbytes

    # ---------------------------------------------------------------- insert

    def extend(self, rows: Rows, lane: Tensor | None = None) -> None:
        """Insert rows, overwriting the oldest of a full lane.

        Args:
            rows: B rows. Without `lane` they are ordered by time, then lane: B is a multiple of the lanes.
            lane: (B,) lane of each row; rows of one lane are inserted in the order given.

        Raises:
            GameError: the rows do not fit the lanes or the game.
        """
        rows = rows.to(self.device)
        if rows.obs.shape[1] != self.spec.obs_dim or rows.act.shape[1] != self.spec.act_dim:
            raise GameError(
                f"rows of widths (O, A) = {rows.obs.shape[1], rows.act.shape[1]} do not belong to game "
                f"{self.spec.name!r}, whose widths are {self.spec.obs_dim, self.spec.act_dim}"
            )
        if not len(rows):
            return
        if lane is None:
            if len(rows) % self.lanes:
                raise GameError(f"{len(rows)} rows cannot be shared evenly by {self.lanes} lanes; pass `lane`")
            steps = len(rows) // self.lanes
            counts = [steps] * self.lanes
            lane = torch.arange(self.lanes, device=self.device).repeat(steps)
            rank = torch.arange(steps, device=self.device).repeat_interleave(self.lanes)
        else:
            lane = lane.to(device=self.device, dtype=torch.int64)
            order = torch.argsort(lane, stable=True)
            counts = torch.bincount(lane, minlength=self.lanes).tolist()
            if len(counts) > self.lanes:
                raise GameError(f"a row is meant for lane {len(counts) - 1}, the replay has lanes 0..{self.lanes - 1}")
            starts = torch.cumsum(torch.tensor([0, *counts[:-1]], device=self.device), 0)
            rank = torch.empty_like(lane)
            rank[order] = torch.arange(len(lane), device=self.device) - starts[lane[order]]
        if max(counts) > self.slots:  # only the newest rows of an overfull insertion survive
            keep = rank >= torch.tensor(counts, device=self.device)[lane] - self.slots
            rows, lane, rank = rows[keep], lane[keep], rank[keep]
        total = torch.tensor(self.totals, device=self.device)
        index = lane * self.slots + (total[lane] + rank) % self.slots
        for dtype, storage in ((torch.float32, self._numbers), (torch.bool, self._flags)):
            columns = [getattr(rows, name).reshape(len(rows), -1) for name in self._layout[dtype]]
            if columns:
                storage[index] = torch.cat(columns, 1).to(dtype)
        self._step[index] = rows.step
        for start, count in set(zip(self.totals, counts, strict=True)):
            self._touch(start, min(count, self.slots))
        self.totals = [total + count for total, count in zip(self.totals, counts, strict=True)]

    def _touch(self, total: int, count: int) -> None:
        """Mark the blocks of `count <= slots` slots from ring position `total` as changed."""
        start = total % self.slots
        end = start + count
        for low, high in ((start, min(end, self.slots)), (0, end - self.slots)):
            if low < high:
                for block in range(low // self._block_slots, -(-high // self._block_slots)):
                    self._versions[block] += 1

    def clear(self) -> None:
        """Forget all rows."""
        for filled in set(self.filled):
            self._touch(0, filled)
        self.totals = [0] * self.lanes

    # ------------------------------------------------------------------ read

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Indices `(count,)` of rows drawn uniformly, with replacement, from all rows held.

        Raises:
            GameError: the replay is empty.
        """
        filled = self.filled
        size = sum(filled)
        if size == 0:
            raise GameError(f"the replay of {self.spec.name!r} is empty; collect env steps before sampling")
        draw = torch.randint(size, (count,), generator=rng, device=self.device)
        if min(filled) == max(filled):
            return draw // filled[0] * self.slots + draw % filled[0]
        ends = torch.cumsum(torch.tensor(filled, device=self.device), 0)
        lane = torch.searchsorted(ends, draw, right=True)
        return lane * self.slots + draw - (ends - torch.tensor(filled, device=self.device))[lane]

    def sample_lanes(self, count: int, rng: torch.Generator, newest: int | None = None) -> Tensor:
        """Indices `(lanes * count,)`: `count` rows drawn uniformly from every lane, lane after lane.

        Args:
            newest: of each lane's rows only so many of the latest are drawn from; None for all of them.

        Raises:
            GameError: a lane is empty.
            ValueError: `newest` is below 1.
        """
        live = self.filled
        if min(live) == 0:
            raise GameError(f"lane {live.index(0)} of the replay of {self.spec.name!r} is empty")
        if newest is not None:
            if newest < 1:
                raise ValueError(f"newest={newest} must be >= 1, or None for all rows")
            live = [min(rows, newest) for rows in live]
        share = torch.rand(self.lanes, count, generator=rng, device=self.device, dtype=torch.float64)
        size, total = (torch.tensor(numbers, device=self.device)[:, None] for numbers in (live, self.totals))
        slot = (total - size + (share * size).long()) % self.slots
        return (slot + torch.arange(self.lanes, device=self.device)[:, None] * self.slots).reshape(-1)

    def latest(self, count: int) -> Tensor:
        """Indices of the newest `count` rows (fewer where fewer are held), by time, then lane; oldest first.

        Time is a row's number in its lane. With lanes of different fill each gives `count / lanes` of its newest rows,
        rounded up, or all it has.
        """
        per_lane = -(-count // self.lanes)
        taken = [min(per_lane, filled) for filled in self.filled]
        if len(set(self.totals)) == 1:
            index = self._at_times(self.totals[0] - taken[0], self.totals[0])
        else:
            times = [torch.arange(total - take, total) for total, take in zip(self.totals, taken, strict=True)]
            time = torch.cat(times)
            lane = torch.arange(self.lanes).repeat_interleave(torch.tensor(taken))
            index = (lane * self.slots + time % self.slots)[time.argsort(stable=True)].to(self.device)
        return index[max(0, len(index) - count) :]

    def all(self) -> Tensor:
        """Indices of every row held, by time, then lane; oldest first."""
        return self.latest(self.lanes * self.slots)

    def complete(self) -> tuple[Tensor, int]:
        """Indices of the rows of all times of which every lane holds its row, by time, then lane.

        Returns:
            the indices, and the first of these times: rows that each lane has forgotten or left out before it. A row's
            place in the game's history, (time, lane), is the same in every call.
        """
        first = max(total - filled for total, filled in zip(self.totals, self.filled, strict=True))
        return self._at_times(first, max(first, min(self.totals))), first

    def _at_times(self, first: int, last: int) -> Tensor:
        """Indices of the rows of all lanes at the times `first <= time < last`, by time, then lane."""
        time = torch.arange(first, last, device=self.device)[:, None]
        lane = torch.arange(self.lanes, device=self.device)
        return (lane * self.slots + time % self.slots).reshape(-1)

    def rows(self, index: Tensor) -> Rows:
        """The rows at `index (B,)`, in new tensors."""
        size, spec = len(index), self.spec
        numbers, flags = (
            part.index_select(0, index) for part in (self._numbers, self._flags)
        )  # faster than part[index]
        found: dict[str, Tensor] = {}
        for dtype, gathered in ((torch.float32, numbers), (torch.bool, flags)):
            for name, (lo, hi) in self._layout[dtype].items():
                found[name] = gathered[:, lo:hi] if self._widths[name][0] else gathered[:, lo]
        for name, value in self._constant.items():
            found[name] = value.expand(size, self._widths[name][0][0])
        for name, source in (("achieved", "obs"), ("next_achieved", "next_obs"), ("desired", "")):
            if name not in found:
                found[name] = found[source][:, self._achieved] if spec.achieved and source else numbers[:, :0]
        ego = (index // self.slots).to(torch.int16) if self.per_ego else self._everyone.expand(size)
        return Rows(**found, step=self._step.index_select(0, index), ego=ego)

    def window(self, index: Tensor, length: int, *, after: bool = False) -> Window:
        """The last `length` views up to each row, never across the start of its episode.

        Args:
            index: (B,) rows. length: T >= 1, the views of a window.
            after: end the windows at the rows' next observations instead of their observations.

        Returns:
            windows of B trajectories; where the episode began (or the ring has forgotten) earlier views repeat the
            first one known, with `valid` false and a zero action.

        Raises:
            GameError: `length` is below 1.
        """
        if length < 1:
            raise GameError(f"a window shows at least one view, got length={length}")
        lane = index // self.slots
        slot = index % self.slots
        total = torch.tensor(self.totals, device=self.device)[lane]
        # time of a slot: the newest one that maps to it
        time = total - 1 - (total - 1 - slot) % self.slots
        known = torch.minimum(self._step[index].long(), time - (total - self.slots).clamp_min(0))
        back = torch.arange(length - 1, -1, -1, device=self.device)
        past = back - 1 if after else back  # rows whose observation is shown; -1 is the next observation itself
        reach = torch.minimum(past[None, :].clamp_min(0), known[:, None])
        at = lane[:, None] * self.slots + (slot[:, None] - reach) % self.slots
        layout = self._layout[torch.float32]
        obs = self._numbers[:, slice(*layout["obs"])][at]
        act = self._numbers[:, slice(*layout["act"])][at]
        valid = past[None, :] <= known[:, None]
        rows = self.rows(index)
        chosen = valid.clone()
        chosen[:, -1] = False
        if after:
            obs = torch.cat([obs[:, :-1], rows.next_obs[:, None]], 1)
        now = rows.next_view if after else rows.view
        return Window(obs=obs, act=act * chosen[..., None], valid=valid, now=now)

    # --------------------------------------------------------------- persist

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the blocks that changed since the last save as new files; files already written stay as they are.

        A file gets its name once it is complete. That it has reached the disk, and its digest, are the business of
        `checkpoint.save`, which takes these files as external ones.

        Returns:
            plain data for `load`, whose "files" are the names of all block files in use: a checkpoint lists them, and
            files that no kept checkpoint lists may be deleted.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for block in range(self._blocks_in_use(self.totals)):
            path = folder.resolve() / f"block_{block:05d}_{self._versions[block]:09d}.safetensors"
            if self._saved.get(block) != path or not path.exists():
                scratch = path.with_name(f".{path.name}.partial")
                save_file({name: part.cpu().contiguous() for name, part in self._block(block).items()}, scratch)
                scratch.replace(path)
                self._saved[block] = path
            files.append(path.name)
        return {"totals": list(self.totals), "shape": self._shape(), "versions": list(self._versions), "files": files}

    def load(self, folder: Path, saved: Mapping[str, Any]) -> None:
        """Become the replay that `save` described; every block is looked at before anything is changed.

        Contents are not compared with digests: `checkpoint.load` has done that.

        Raises:
            GameError: it was saved for another game, capacity or number of lanes, or a file is missing or damaged.
        """
        if saved["shape"] != self._shape():
            raise GameError(
                f"the saved replay is laid out as {saved['shape']}, this one as {self._shape()}; resume with the "
                "settings of the run's config.yaml"
            )
        totals = [int(total) for total in saved["totals"]]
        paths = [folder.resolve() / name for name in saved["files"]]
        if len(paths) != self._blocks_in_use(totals):
            raise GameError(f"{len(paths)} files cannot hold rows {totals} of a replay laid out as {self._shape()}")
        blocks = [_read(path, self._block(block)) for block, path in enumerate(paths)]
        for block, parts in enumerate(blocks):
            for name, part in self._block(block).items():
                part.copy_(parts[name])
        self.totals, self._versions = totals, [int(version) for version in saved["versions"]]
        self._saved = dict(enumerate(paths))

    def _blocks_in_use(self, totals: list[int]) -> int:
        return -(-min(max(totals), self.slots) // self._block_slots)

    def _shape(self) -> dict[str, Any]:
        """What two replays must have in common for one to load the other's files."""
        columns = {name: [lo, hi] for layout in self._layout.values() for name, (lo, hi) in layout.items()}
        return {"lanes": self.lanes, "slots": self.slots, "block_slots": self._block_slots, "columns": columns}

    def _block(self, block: int) -> dict[str, Tensor]:
        """Views of all lanes' slots in one block."""
        part = slice(block * self._block_slots, (block + 1) * self._block_slots)
        return {
            name: storage.view(self.lanes, self.slots, *storage.shape[1:])[:, part]
            for name, storage in (("numbers", self._numbers), ("flags", self._flags), ("step", self._step))
        }


def consecutive(columns: Sequence[int]) -> slice | list[int]:
    """`columns` to index with: a slice where they follow each other, which copies nothing."""
    start, count = (columns[0], len(columns)) if columns else (0, 0)
    return slice(start, start + count) if list(columns) == list(range(start, start + count)) else list(columns)


def _read(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a block file; raises GameError unless they have the names, shapes and dtypes of `like`."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise GameError(f"the replay's file {path} cannot be read: {error}; use another checkpoint") from error
    wanted, got = ({k: (list(v.shape), str(v.dtype)) for k, v in sorted(x.items())} for x in (like, found))
    if got != wanted:
        raise GameError(f"the replay's file {path} holds {got} instead of {wanted}; use another checkpoint")
    return found


def _zeros(shape: tuple[int, ...], dtype: type[np.generic], device: torch.device) -> Tensor:
    """Zeros on `device`. On the CPU they are NumPy's, which the operating system hands out page by page as they are
    written, so that an empty replay takes no memory; torch's own would all be written at once.
    """
    lazy = torch.from_numpy(np.zeros(shape, dtype=dtype))
    return lazy if device.type == "cpu" else torch.zeros(shape, dtype=lazy.dtype, device=device)
