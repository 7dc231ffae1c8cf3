"""Records of what others have stored: a run's replay, and Minari's datasets."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path
from typing import Any

from presage.common.game import GameError, GameSpec
from presage.common.replay import Replay
from presage.common.run_folder import RunError, RunFolder
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.record import Record


def from_run(folder: Path | str) -> Record:
    """The real rows that a run has kept: its agents as they learned and explored, oldest first in every copy.

    Raises:
        RunError: there is no run, or it has no checkpoint yet.
    """
    run = RunFolder(folder)
    tree = run.newest()
    if tree is None:
        raise RunError(f"{run.path} has no checkpoint yet; train it on with: presage resume {run.path}")
    spec = GameSpec.from_json(tree["spec"])
    shape = tree["replays"]["real"]["shape"]
    lanes = int(shape["lanes"])
    replay = Replay(spec, int(shape["slots"]) * lanes, lanes, block_rows=int(shape["block_slots"]) * lanes)
    run.load_replays(tree, {"real": replay})
    record, index = Record(spec), replay.all()
    for lane in range(lanes):
        rows = replay.rows(index[index // replay.slots == lane])
        starts = (rows.step == 0).nonzero().squeeze(1).tolist()
        edges = sorted({0, *starts, len(rows)})
        lengths = [end - start for start, end in pairwise(edges)]
        record.extend_moments(Moments.of(rows), lengths)
    return record


def from_minari(dataset: Any) -> Record:
    """The episodes of a Minari dataset, whose one agent is called "agent".

    Args:
        dataset: `minari.load_dataset(...)`, or its id.

    Raises:
        GameError: minari is not installed, or the spaces are not supported.
    """
    if isinstance(dataset, str):
        try:
            dataset = importlib.import_module("minari").load_dataset(dataset)
        except ModuleNotFoundError as error:
            raise GameError(f"reading {dataset!r} needs minari: pip install minari") from error
    record = Record.of(dataset)
    for episode in dataset.iterate_episodes():
        steps = len(episode.actions)
        for t in range(steps):
            observation = _at(episode.observations, t)
            record.add({"agent": observation}, {"agent": episode.actions[t]}, over=t == steps - 1)
    return record


def _at(observations: Any, t: int) -> Any:
    """One moment's observation, out of arrays by key or by place."""
    if isinstance(observations, dict):
        return {key: _at(part, t) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_at(part, t) for part in observations)
    return observations[t]
