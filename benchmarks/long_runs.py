"""Training runs that take hours in all: several at once, kept as curves when they end, gone on with at any time.

Finished runs are kept in `benchmarks/results/curves/NAME.json`, in the repository: no run is ever made twice, in any
clone. Runs under way are ordinary run folders in `runs/benchmarks/NAME/`, and are resumed.

After a change that should move nothing, some runs are made again (`confirm`) instead of all: what comes out equal to
the last digit after thousands of updates was made by the same arithmetic.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.claims import commit, git, imported, machine
from presage.common.circumstances import Circumstances
from presage.common.metrics import METRICS_FILE, QUERIES, read_metrics
from presage.common.parts import Parts
from presage.common.run_folder import RunFolder
from presage.common.scenario import Scenario
from presage.common.training import Training

ROOT = Path(__file__).resolve().parent.parent
STARTS = {"benchmarks/confirm.py", "common/cli.py"}
"""files that start runs, and move no figure"""
CONFIRMED = "confirmed"
"""the entry among finished runs that tells which of them were made again"""
FILES = "files"
"""the entry that lists the files of the repository which any of the runs imported"""
CIRCUMSTANCE = {"seconds", "commit", "machine"}
"""what a run that is made again may differ in"""
TUNING_EPISODES, EPISODES = 2_000_000_011, 1_000_000_007
"""seeds of the evaluation's episodes, while numbers are chosen and when they are measured"""

Curve = dict[str, Any]
"""one finished run: env_steps, returns, queries, lengths, what else the benchmark keeps, seconds, and the commit,
machine and torch that it was made with; of what is no training run an "outcome" in place of its returns"""


@dataclass(frozen=True)
class Curves:
    """The finished runs of a benchmark, in a file of the repository: a run is never made twice, in any clone."""

    name: str

    @property
    def path(self) -> Path:
        """The file."""
        return ROOT / "benchmarks" / "results" / "curves" / f"{self.name}.json"

    def read(self) -> dict[str, Curve]:
        """Finished runs by key."""
        found: dict[str, Curve] = json.loads(self.path.read_text()) if self.path.exists() else {}
        return found

    def keep(self, key: str, curve: Curve) -> None:
        """Add one finished run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted((self.read() | {key: curve}).items())]
        draft = self.path.with_suffix(".draft")
        draft.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        draft.replace(self.path)

    def keep_files(self, files: Sequence[str]) -> None:
        """Add files that a run imported."""
        known = self.read().get(FILES, {"paths": []})["paths"]
        if not {*files} <= {*known}:
            self.keep(FILES, {"paths": sorted({*files, *known})})

    def depends(self) -> list[str]:
        """What the figures depend on: what the runs imported, as far as it is still there, and what this process has,
        which reports them.
        """
        known = self.read().get(FILES, {"paths": []})["paths"]
        return sorted({*imported(), *(path for path in known if (ROOT / path).is_file())} - STARTS)

    def folder(self, key: str) -> Path:
        """Where the run of that key is while it is under way."""
        return ROOT / "runs" / "benchmarks" / self.name / key.replace("/", "_").replace(" ", "_")

    def made(self) -> tuple[str, str]:
        """Commit and machines of the finished runs, for `write`: the commit at which they were confirmed; else, of
        several commits, the oldest, or one that history does not hold, by which figures are called stale.
        """
        history = (git(ROOT, "rev-list", "HEAD") or "").split()
        age = {name: place for place, name in enumerate(history)}
        runs, confirmed = self._runs(), self.read().get(CONFIRMED)
        commits = [str(run["commit"]) for run in ([confirmed] if confirmed else runs)]
        return max(commits, key=lambda name: age.get(name, len(age))), "; ".join(
            sorted({str(run["machine"]) for run in runs})
        )

    def origin(self) -> str:
        """What the finished runs were made from and on, as a sentence for a claim's notes."""
        made = Counter((str(c["commit"])[:10], c["machine"]) for c in self._runs())
        parts = [f"{n} from commit {name} on {where}" for (name, where), n in made.items()]
        again = self.read().get(CONFIRMED)
        equal = (
            f" Equal to the last digit at commit {again['commit'][:10]}: {', '.join(again['runs'])}." if again else ""
        )
        return f"Runs: {'; '.join(sorted(parts))}; one torch thread each.{equal}"

    def _runs(self) -> list[Curve]:
        return [curve for key, curve in self.read().items() if key != CONFIRMED and "commit" in curve]


class Job(Protocol):
    """One run of a benchmark."""

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        ...

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        ...


class _Watched(Training):
    """A training run that also ends when its last two evaluations are good enough."""

    enough = float("inf")

    @property
    def finished(self) -> bool:
        last = [float(np.mean(episodes["return"])) for _, episodes in self.history[-2:]]
        return super().finished or (len(last) == 2 and min(last) >= self.enough)


def train_curve(
    scenario: Scenario[Any], path: Path, enough: float = float("inf"),
    finish: Callable[[Training], Mapping[str, Any]] = lambda training: {}, parts: Parts | None = None,
) -> Curve:  # fmt: skip
    """Run a scenario in `path`, or go on with it there, to its end or to two evaluations in a row of `enough`.

    Args:
        finish: what else to keep of the trained run. parts: as of `Training`; None: what is installed.

    Raises:
        CircumstancesError: the run was begun with other code, threads or versions; delete it to begin again.
    """
    if path.exists() and RunFolder(path).newest() is None:
        shutil.rmtree(path)
    run = RunFolder(path) if path.exists() else RunFolder.create(path, scenario)
    training = _Watched(scenario, parts or Parts.of(scenario))
    training.enough = enough
    tree = run.newest()
    if tree is not None:
        Circumstances(**tree["circumstances"]).check(training.circumstances(), anyway=False)
        training.restore(tree, run)
    started = time.perf_counter()
    with closing(training), run.locked():
        if training.run(run) is not None:
            raise KeyboardInterrupt
        kept = finish(training)
    records = read_metrics(path / METRICS_FILE)
    names = [f"opponent/{agent}/rollout_len" for agent in training.spec.names]
    lengths = [[record.get(name) for name in names] for record in records]
    return {
        "env_steps": [record["env_steps"] for record in records],
        "returns": [round(float(np.mean(episodes["return"])), 4) for _, episodes in training.history],
        "queries": [record.get(QUERIES, 0) for record in records],
        "lengths": lengths if any(value is not None for row in lengths for value in row) else None,
        **circumstance(started),
        **kept,
    }


def circumstance(started: float) -> Curve:
    """What every kept run says of how it was made; `started` is the `time.perf_counter()` at which it began."""
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "commit": commit(imported(), ROOT),
        "machine": f"{machine()}, torch {torch.__version__}",
    }


def _work(job: Job) -> tuple[str, Curve, list[str]]:
    return job.key, job.run(), imported()


def _outcome(curve: Curve) -> float:
    """What a run came to, in one number."""
    return float(curve["outcome"] if "outcome" in curve else curve["returns"][-1])


def work_through(kept: Curves, jobs: Callable[[], Sequence[Job]], processes: int, hours: float = 24.0) -> None:
    """Do the jobs, several at once, and start none after `hours`.

    Args:
        jobs: those that can be done by now, most urgent first; asked again whenever one is done. Finished ones are left
            out here.
    """
    deadline = time.monotonic() + 3600 * hours
    context = multiprocessing.get_context("spawn")
    running: dict[str, Any] = {}
    with context.Pool(processes, maxtasksperchild=1) as pool:
        while True:
            for key in [key for key, result in running.items() if result.ready()]:
                _, curve, files = running.pop(key).get()
                kept.keep(key, curve)
                kept.keep_files(files)
                print(f"done   {key}: {_outcome(curve)} in {curve['seconds']} s", flush=True)
            done = kept.read()
            waiting = [job for job in jobs() if job.key not in done and job.key not in running]
            if time.monotonic() >= deadline:
                waiting = []
            if not waiting and not running:
                return
            for job in waiting[: processes - len(running)]:
                print(f"start  {job.key}", flush=True)
                running[job.key] = pool.apply_async(_work, (job,))
            time.sleep(1)


def confirm(kept: Curves, jobs: Sequence[Job], processes: int) -> None:
    """Make finished runs again from nothing, and note the commit at which they come out as they are kept.

    Raises:
        SystemExit: one comes out otherwise; its study has to be made again.
    """
    for job in jobs:
        shutil.rmtree(kept.folder(job.key), ignore_errors=True)
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        found = pool.map(_work, jobs, chunksize=1)
    done, again = kept.read(), {key: curve for key, curve, _ in found}
    for key, curve in again.items():
        before, after = ({k: v for k, v in c.items() if k not in CIRCUMSTANCE} for c in (done[key], curve))
        if json.loads(json.dumps(after)) != before:
            raise SystemExit(
                f"{key} comes out otherwise than at commit {done[key]['commit'][:10]} on {done[key]['machine']}: last "
                f"value {_outcome(curve)} instead of {_outcome(done[key])}; make the study again"
            )
    commits = {curve["commit"] for curve in again.values()}
    if len(commits) != 1:
        raise SystemExit(f"the runs are of several commits, {', '.join(sorted(commits))}; leave the checkout alone")
    kept.keep(CONFIRMED, {"commit": commits.pop(), "runs": sorted(again)})
    for _, _, files in found:
        kept.keep_files(files)


def command_line(
    description: str | None, kept: Curves, jobs: Callable[[], Sequence[Job]], report: Callable[[], None]
) -> None:  # fmt: skip
    """A study's command: do its jobs, those that are not done yet, and report."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--hours", type=float, default=24.0, help="start no run after this")
    parser.add_argument("--report-only", action="store_true", help="read the finished runs alone")
    options = parser.parse_args()
    if not options.report_only:
        work_through(kept, jobs, options.processes, options.hours)
    report()
