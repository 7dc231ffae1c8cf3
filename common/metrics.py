"""What a run measured, line by line: `metrics.jsonl` and TensorBoard events that survive a kill and a resume.

A tag is `family/name`, followed by `/agent` or `/group` where there are several: `eval/mean_reward/speaker`. Families:

* `rollout/*` real experience: `ep_rew_mean`, `ep_len_mean`, `opponent_queries`
* `eval/*` evaluations: `mean_reward`, `mean_ep_length`
* `train/*` the learner: losses, temperature, gradient norms
* `model/*` the dynamics: `nll`, `holdout_mse`, `disagreement`, `rollout_len`
* `opponent/<agent>/*` a model of that agent: `nll`, `accuracy`, `rollout_len`
* `goal/*` relabelling and subgoals: `success_rate`, `final_distance`, `relabel_frac`
* `time/*` durations and rates, the only family that a resumed run does not repeat

The x axis of all of them is env steps.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from presage.common.intervals import Array

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Record = dict[str, float]
"""one line of `metrics.jsonl`: `env_steps` and the value of each tag"""

METRICS_FILE = "metrics.jsonl"
EVENTS_FOLDER = "tensorboard"
ENV_STEPS = "env_steps"
QUERIES = "rollout/opponent_queries"
"""opponent queries so far, summed over (ego, agent); `/<ego>/<agent>` behind it for each pair"""

_TAG = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9_.+-]+)+")


class MetricLog:
    """Appends metrics to a run folder; everything past a checkpoint can be cut off before a run goes on."""

    def __init__(self, folder: Path, *, position: int | None = None, tensorboard: bool = True) -> None:
        """Open the log of the run in `folder`, which is made if need be.

        Args:
            folder: the run's folder.
            position: None for a new run; to go on, what `position()` said at the checkpoint. Later lines are cut.
            tensorboard: whether to write events too.

        Raises:
            FileExistsError: for a new run in a folder that already holds metrics.
        """
        self._folder = folder
        self._path = folder / METRICS_FILE
        self._tensorboard = tensorboard
        self._events: SummaryWriter | None = None
        self._warned: set[str] = set()
        self._env_steps = 0
        folder.mkdir(parents=True, exist_ok=True)
        if position is None and self._path.exists() and self._path.stat().st_size:
            raise FileExistsError(
                f"{self._path} holds the metrics of an earlier run; resume that run, or choose another folder"
            )
        self._file = self._path.open("ab")
        if position is None:
            self._open_events(None)
        else:
            self.truncate(position)

    def write(self, env_steps: int, values: Mapping[str, Any]) -> None:
        """Append one line, and one event per tag.

        A NaN or infinite value is written as null, for JSON knows neither, and warned of once per tag; in TensorBoard
        it stays what it is.

        Args:
            env_steps: x axis; never smaller than in the line before.
            values: numbers, or tensors and arrays of one number, by tag.

        Raises:
            ValueError: for a tag that is not `family/name`, or env steps that go back.
            TypeError: for a value that is not one number.
        """
        if env_steps < self._env_steps:
            raise ValueError(f"env_steps={env_steps} goes back behind {self._env_steps}, the line before")
        numbers = {tag: _number(tag, value) for tag, value in values.items()}
        for tag, value in numbers.items():
            if not math.isfinite(value) and tag not in self._warned:
                self._warned.add(tag)
                warnings.warn(f"{tag} is {value} at env step {env_steps}", RuntimeWarning, stacklevel=2)
        record = {ENV_STEPS: env_steps} | {k: v if math.isfinite(v) else None for k, v in numbers.items()}
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()
        if self._events is not None:
            for tag, value in numbers.items():
                self._events.add_scalar(tag, value, env_steps)
        self._env_steps = env_steps

    def position(self) -> int:
        """Bytes written, all of them safely on disk: what a checkpoint stores."""
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()
        return self._file.tell()

    def truncate(self, position: int) -> None:
        """Cut every line past `position`, and have TensorBoard forget the events of later env steps.

        Raises:
            ValueError: where the file is shorter than `position`, or does not have the end of a line there.
        """
        content = self._path.read_bytes()
        if not 0 <= position <= len(content):
            raise ValueError(
                f"{self._path} has {len(content)} bytes and cannot be cut at {position}: "
                "the checkpoint is of another run"
            )
        if position and content[position - 1 : position] != b"\n":
            raise ValueError(f"{self._path} has no end of a line at byte {position}: the checkpoint is of another run")
        self._file.truncate(position)
        self._file.seek(position)
        kept = read_metrics(self._path)
        self._env_steps = int(kept[-1][ENV_STEPS]) if kept else 0
        self._open_events(self._env_steps + 1 if kept else 0)

    def close(self) -> None:
        """Close the files; the log takes no more lines."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_events(self, purge_step: int | None) -> None:
        """Start an event file whose reader drops the events of earlier files from `purge_step` on."""
        if not self._tensorboard:
            return
        from torch.utils.tensorboard import SummaryWriter  # half a second that reading metrics need not pay

        if self._events is not None:
            self._events.close()
        folder = self._folder / EVENTS_FOLDER
        newest = max(map(_second, folder.glob("events.out.tfevents.*")), default=0)
        while int(time.time()) == newest:  # readers take files by name, and the second comes first in it
            time.sleep(0.01)
        self._events = SummaryWriter(str(folder), purge_step=purge_step)


def read_metrics(path: Path) -> list[Record]:
    """All whole lines of a `metrics.jsonl`; null is given back as NaN.

    A last line without its end, as a kill leaves it, is left out.

    Raises:
        ValueError: for any other line that is not a record, with its number.
    """
    *lines, _ = path.read_bytes().split(b"\n")
    return [_record(path, number, line) for number, line in enumerate(lines, start=1)]


def series(records: Sequence[Record], tag: str) -> tuple[Array, Array]:
    """The env steps and values, both `(T,)`, of the records that hold `tag`."""
    found = [(record[ENV_STEPS], record[tag]) for record in records if tag in record]
    steps_and_values = np.asarray(found, dtype=np.float64).reshape(-1, 2)
    return steps_and_values[:, 0], steps_and_values[:, 1]


def without_times(records: Sequence[Record]) -> list[Record]:
    """The records less `time/*`: what a resumed run repeats bit for bit."""
    return [{tag: value for tag, value in record.items() if not tag.startswith("time/")} for record in records]


def _second(events: Path) -> int:
    """When a file of events was begun, in seconds since 1970."""
    return int(events.name.split(".")[3])


def _number(tag: str, value: Any) -> float:
    if not _TAG.fullmatch(tag):
        raise ValueError(f"{tag!r} is no tag: write family/name, as in train/loss or eval/mean_reward/agent_0")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{tag} takes one number, got {value!r}; log its mean, or one tag per entry") from error


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        data = json.loads(line)
        record = {tag: math.nan if value is None else value for tag, value in data.items()}
        record[ENV_STEPS] = int(record[ENV_STEPS])
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {number}, is not a record of metrics: {line[:80]!r}") from error
    return record
