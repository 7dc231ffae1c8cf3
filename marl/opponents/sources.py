"""Records of what others have stored: runs, files, and Minari's datasets."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch

from presage.common.agent import load
from presage.common.game import GameError, GameSpec
from presage.common.parts import Parts
from presage.common.policy import JointPolicy
from presage.common.replay import Replay
from presage.common.run_folder import RunError, RunFolder
from presage.common.scenario import CONFIG_FILE, OWN_GAME, read_scenario
from presage.marl.opponents.archive import from_file
from presage.marl.opponents.assessment import Truth
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.policies import learned
from presage.marl.opponents.record import Record

METADATA = "metadata.json"
"""what a Minari dataset's folder of data holds"""


def read(
    data: Path | str, *, rows: Literal["play", "replay"] = "play", episodes: int = 64, seed: int = 0,
    greedy: bool = False,
) -> tuple[Record, Truth | None]:  # fmt: skip
    """A record of whatever lies at `data`, and what was truly played where that is known.

    Args:
        data: a run's folder; a file that `Record.save` wrote, or a NumPy archive of one's own (see
            `presage.marl.opponents.archive`); or a Minari dataset by its id or folder.
        rows: of a run: new episodes under its policy, or those of its replay. episodes, seed, greedy: of the former.

    Raises:
        GameError, RunError, CheckpointError, ConfigError: there is none of them, or it cannot be read.
    """
    path = Path(data)
    if (path / CONFIG_FILE).is_file():
        return (from_run(path), None) if rows == "replay" else from_policy(path, episodes, seed, greedy=greedy)
    if rows == "replay" or greedy:
        raise GameError(f"rows={rows!r} and greedy={greedy} are of runs, and {path} is none (it has no {CONFIG_FILE})")
    if path.is_file():
        return from_file(path), None
    if path.is_dir() and _minari_folder(path) is None:
        raise GameError(
            f"{path} is a folder of neither a run ({CONFIG_FILE}) nor a Minari dataset ({METADATA}); give one"
        )
    return from_minari(str(data)), None


def from_policy(folder: Path | str, episodes: int, seed: int, *, greedy: bool = False) -> tuple[Record, Truth | None]:
    """New episodes of a run's game, played by its newest policy.

    Args:
        episodes: >= 1. seed: of the games and of sampled actions. greedy: the likeliest actions instead of samples.

    Returns:
        the episodes; and what was played in them, where actions are sampled and the policy tells its distributions.

    Raises:
        RunError, CheckpointError, ConfigError, GameError: there is no run, it has no checkpoint yet, or plays a game
            without a name.
    """
    if episodes < 1:
        raise GameError(f"episodes={episodes} must be >= 1")
    agent, scenario = load(folder, device="cpu"), read_scenario(Path(folder))
    if scenario.game.name == OWN_GAME:
        raise GameError(
            f"{folder} plays an environment without a name, which is not to be had here; take rows='replay'"
        )
    game = Parts.of(scenario).evaluation_game(scenario.game, episodes)
    record = Record(game.spec)
    try:
        rng = None if greedy else torch.Generator().manual_seed(seed)
        record.play(game, agent.actor, episodes, seed, rng=rng)
    finally:
        game.close()
    if greedy or not isinstance(agent.actor, JointPolicy):
        return record, None
    return record, learned(agent.actor).predicted


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
        dataset: `minari.load_dataset(...)`, its id, or its folder.

    Raises:
        GameError: minari is not installed, there is no such dataset here, or its spaces are not supported.
    """
    if isinstance(dataset, str | Path):
        dataset = _minari_dataset(dataset)
    record = Record.of(dataset)
    for episode in dataset.iterate_episodes():
        steps = len(episode.actions)
        for t in range(steps):
            observation = _at(episode.observations, t)
            record.add({"agent": observation}, {"agent": episode.actions[t]}, over=t == steps - 1)
    return record


def _minari_folder(path: Path) -> Path | None:
    """The folder of data in a Minari dataset's folder, which may be that itself; None where it is neither."""
    return next((folder for folder in (path / "data", path) if (folder / METADATA).is_file()), None)


def _minari_dataset(name: Path | str) -> Any:
    """A dataset by its id or folder; nothing is downloaded."""
    try:
        minari = importlib.import_module("minari")
    except ModuleNotFoundError as error:
        raise GameError(
            f"{str(name)!r} is no run and no file here; if it is a Minari dataset, reading it needs minari: "
            'pip install "presage[minari]"'
        ) from error
    folder = _minari_folder(Path(name))
    try:
        return minari.load_dataset(str(name)) if folder is None else minari.MinariDataset(folder)
    except (OSError, ValueError, KeyError, AssertionError) as error:  # Minari asserts what it expects of a file
        if folder is not None:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            raise GameError(
                f"the Minari dataset in {folder} cannot be read ({what}); fetch or write it again"
            ) from error
        raise GameError(
            f"{str(name)!r} is no run, no file and no Minari dataset here; correct it, or for a dataset of that id: "
            f"minari download {name}"
        ) from error


def _at(observations: Any, t: int) -> Any:
    """One moment's observation, out of arrays by key or by place."""
    if isinstance(observations, dict):
        return {key: _at(part, t) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_at(part, t) for part in observations)
    return observations[t]
