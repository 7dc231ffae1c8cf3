"""A run's folder on disk: made once, used by one process at a time, and whole after a kill at any instant.

config.yaml         the resolved scenario
sittings.yaml       for every start and resume: command, env step, device, threads, versions
metrics.jsonl       one line per evaluation; tensorboard/ holds the same as events
evaluation.json     every episode of every evaluation, as marl-eval reads it
checkpoints/        step_*, the newest ones
replay/             blocks of rows that the checkpoints list
report/             curves, table, a recorded episode
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from presage.common import atomic_folder, checkpoint
from presage.common.checkpoint import CheckpointError
from presage.common.circumstances import Circumstances
from presage.common.replay import Replay
from presage.common.scenario import CONFIG_FILE, DRAFT, Scenario, read_scenario, write_scenario
from presage.common.tree import Tree

KIND, VERSION = "run", 1
SITTINGS_FILE = "sittings.yaml"
_LOCK = ".lock"


class RunError(RuntimeError):
    """A run cannot be started, resumed or read; the message says why and what to do."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path | str) -> None:
        """
        Raises:
            RunError: there is no run in it.
        """
        self.path = Path(path)
        self._new_parents: list[Path] = []
        self.checkpoints, self.replay, self.report = (self.path / name for name in ("checkpoints", "replay", "report"))
        if not (self.path / CONFIG_FILE).is_file():
            reason = f"it has no {CONFIG_FILE}" if self.path.exists() else "it does not exist"
            raise RunError(f"{self.path} is no run folder: {reason}; start one with presage train")

    @classmethod
    def create(cls, path: Path | str, scenario: Scenario[Any]) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            RunError: something is there already.
        """
        require_empty(path)
        path = Path(path)
        new = [parent for parent in path.parents if not parent.exists()]
        path.mkdir(parents=True, exist_ok=True)
        write_scenario(path, scenario)
        made = cls(path)
        made._new_parents = new
        return made

    def scenario(self, method: type[Any] | None = None) -> Scenario[Any]:
        """What the run is; `method` is the class of its method where that is not installed under a name."""
        return read_scenario(self.path, method)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block no other process may train in the folder; a killed one leaves no lock behind.

        Raises:
            RunError: another process holds it.
        """
        if os.name == "nt":  # has no flock
            yield
            return
        import fcntl  # absent on Windows

        with (self.path / _LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(f"another process is training in {self.path}; wait for it, or stop it first") from error
            yield

    def remove(self) -> None:
        """Delete the run with all it holds, and the folders above it that were made for it and hold nothing else."""
        shutil.rmtree(self.path)
        for parent in self._new_parents:
            if any(parent.iterdir()):
                return
            parent.rmdir()

    # -------------------------------------------------------------- sittings

    def add_sitting(self, circumstances: Circumstances, env_steps: int, command: str, differs: list[str]) -> None:
        """Note that a process begins to work on the run at `env_steps`."""
        path = self.path / SITTINGS_FILE
        known = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else []
        sitting: dict[str, Any] = {"from_env_step": env_steps, "command": command, **circumstances.to_plain()}
        if differs:
            sitting["differs"] = differs
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(yaml.safe_dump([*known, sitting], sort_keys=False), encoding="utf-8")
        draft.replace(path)

    # ----------------------------------------------------------- checkpoints

    @property
    def has_checkpoints(self) -> bool:
        """Whether any was ever completed."""
        return any(name.startswith("step_") for name in atomic_folder.names(self.checkpoints))

    def save(self, step: int, tree: Mapping[str, Tree], replays: Mapping[str, Replay], keep: int) -> None:
        """Write the checkpoint of env step `step`, then delete what no kept checkpoint needs."""
        saved = {name: replay.save(self.replay / name) for name, replay in replays.items()}
        files = [self.replay / name / file for name, replay in saved.items() for file in replay["files"]]
        place = checkpoint.step_folder(self.checkpoints, step)
        checkpoint.save(place, {**tree, "replays": saved}, kind=KIND, version=VERSION, external=files)
        checkpoint.prune(self.checkpoints, keep=keep)
        needed = checkpoint.referenced(self.checkpoints)
        for name in replays:
            for path in (self.replay / name).iterdir():
                if path.resolve() not in needed:
                    path.unlink()

    def newest(self) -> Tree | None:
        """The newest intact checkpoint; None for a run that was killed before its first one.

        Raises:
            CheckpointError: there are checkpoints and all of them are damaged.
        """
        found = checkpoint.latest(self.checkpoints)
        if found is not None:
            return checkpoint.load(found, kind=KIND, version=VERSION)
        if self.has_checkpoints:
            raise CheckpointError(
                f"every checkpoint of {self.path} is damaged; restore one from a backup, or start anew elsewhere"
            )
        return None

    def load_replays(self, tree: Tree, replays: Mapping[str, Replay]) -> None:
        """Fill the replays with the rows that a checkpoint lists."""
        for name, replay in replays.items():
            replay.load(self.replay / name, tree["replays"][name])


def require_empty(path: Path | str) -> None:
    """Raise RunError unless a new run can be made at `path`: nothing is there, or an empty folder."""
    path = Path(path)
    if path.is_dir() and any(file.name != DRAFT for file in path.iterdir()):  # a draft: killed before it began
        advice = f"resume it with: presage resume {path}" if (path / CONFIG_FILE).exists() else "it holds other files"
        raise RunError(f"the run folder {path} is not empty ({advice}); choose another with --folder")
    if path.exists() and not path.is_dir():
        raise RunError(f"the run folder {path} is a file; choose another with --folder")
