"""Env steps to a return: AORPO beside its baselines and its limit, every arm with the same sweep of update-to-data
ratios.

1. Sweep: every arm and ratio on tuning seeds and tuning episodes; a run ends once it has held the threshold for two
   evaluations. An arm's ratio is the one with fewest env steps to the threshold, then with the best last return.
2. Measure: every arm at its own ratio on other seeds and other evaluation episodes, to the end of its budget.
3. Report: interquartile means over seeds with intervals, steps to the threshold, ratios, queries and lengths.

Finished runs are kept as curves in `benchmarks/results/curves/NAME.json`, so that the whole can be stopped and gone on
with at any time, also from another clone. Runs under way are ordinary run folders in `runs/`, and are resumed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claims import Aim, commit, imported, write
from presage.common import plugins
from presage.common.circumstances import Circumstances
from presage.common.curves import SeedCurves, gap_closed, steps_ratio, steps_to
from presage.common.evaluate import RandomActor, evaluate
from presage.common.metrics import METRICS_FILE, QUERIES, read_metrics
from presage.common.parts import Parts
from presage.common.report import plot_curves
from presage.common.run_folder import RunFolder
from presage.common.scenario import Scenario
from presage.common.streams import streams
from presage.common.training import Training

ROOT = Path(__file__).resolve().parent.parent
RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""updates per env step that every arm is swept over"""
TUNING_SEEDS, TUNING_EPISODES = (100,), 2_000_000_011
SEEDS, EPISODES = (0, 1, 2, 3, 4), 1_000_000_007
EVALUATED = 64
"""episodes of an evaluation"""
SHARE = 0.6
"""of the gap between the random policy and the scripted reference: the threshold"""

Curve = dict[str, Any]
"""one finished run: env_steps, returns, queries, lengths, seconds, and the commit that it was made from"""


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


@dataclass(frozen=True, kw_only=True)
class Study:
    """One game's comparison."""

    name: str
    """of the claims file"""
    arms: Mapping[str, Scenario[Any]]
    """by label; "AORPO", "MASAC" and "perfect model" are compared by name"""
    steps: Mapping[str, int]
    """env steps of a run, by arm; runs of the sweep end earlier where they hold the threshold"""
    evaluate_every: int
    """env steps between two evaluations"""
    borrowed: Mapping[str, str]
    """arms that take another arm's ratio instead of a sweep of their own (ablations)"""
    aims: Mapping[str, Aim]
    """by figure"""
    notes: str = ""
    """what was tried and found"""

    @property
    def kept(self) -> Curves:
        """The curves of finished runs."""
        return Curves(self.name)

    def levels(self, episodes_seed: int) -> tuple[float, float]:
        """Returns of the random policy (over eight draws of its actions) and of the scripted reference on the very
        episodes that runs are evaluated on.
        """
        key = f"levels/{episodes_seed}"
        if key not in self.kept.read():
            scenario = self.arms["AORPO"]
            parts = Parts.of(scenario)
            game = parts.evaluation_game(scenario.game, EVALUATED)
            rng = streams(episodes_seed)("random")
            drawn = [evaluate(game, RandomActor(game.spec), EVALUATED, episodes_seed, rng=rng) for _ in range(8)]
            random = float(np.mean([found.mean_return for found in drawn]))
            if parts.reference is None:
                raise ValueError(f"{scenario.name} names no scripted reference to measure the gap against")
            scripted = parts.reference(game.spec, scenario.game.options)
            self.kept.keep(
                key, {"random": random, "reference": evaluate(game, scripted, EVALUATED, episodes_seed).mean_return}
            )
        found = self.kept.read()[key]
        return found["random"], found["reference"]

    def threshold(self, episodes_seed: int) -> float:
        """The return at which `SHARE` of the gap is closed."""
        random, reference = self.levels(episodes_seed)
        return random + SHARE * (reference - random)


def study(name: str, task: str, steps: int, baseline_steps: int, evaluate_every: int, notes: str = "") -> Study:
    """AORPO, its baselines, its limit and its ablations on one task.

    Args:
        name: of the claims file. task: what the scenarios' names begin with. steps, baseline_steps: env steps of the
            model-based and of the model-free arms. evaluate_every: env steps between two evaluations.
    """
    scenarios = {
        label: plugins.load("scenario", f"{task}_{method}")
        for label, method in (("AORPO", "aorpo"), ("MASAC", "masac"), ("independent SAC", "isac"),
                              ("perfect model", "aorpo_perfect"))
    }  # fmt: skip
    aorpo = scenarios["AORPO"]
    for label, rule in (("ask always", "ask_always"), ("uniform", "uniform")):
        scenarios[label] = replace(aorpo, method=replace(aorpo.method, rule=rule))
    scenarios["conditional"] = replace(aorpo, method=replace(aorpo.method, policy="predictions"))
    free = ("MASAC", "independent SAC")
    return Study(
        name=name, arms=scenarios, steps={arm: baseline_steps if arm in free else steps for arm in scenarios},
        evaluate_every=evaluate_every, borrowed=dict.fromkeys(("ask always", "uniform", "conditional"), "AORPO"),
        aims={
            "steps_ratio_to_masac": Aim(op="<=", value=0.45), "gap_closed": Aim(op=">=", value=SHARE),
            "steps_ratio_to_perfect_model": Aim(op="<=", value=1.25),
            "queries_ratio_to_ask_always": Aim(op="<=", value=0.5),
        },
        notes=notes,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run."""

    study: Study
    arm: str
    ratio: float
    seed: int
    tuning: bool

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{'sweep' if self.tuning else 'measure'}/{self.arm}/{self.ratio:g}/{self.seed}"

    @property
    def steps(self) -> int:
        """Its budget of env steps."""
        return self.study.steps[self.arm]

    def scenario(self) -> Scenario[Any]:
        """The arm's scenario with this run's numbers, on one thread of the CPU."""
        base = self.study.arms[self.arm]
        loop = replace(base.method.loop, updates_per_step=self.ratio)
        return replace(
            base, method=replace(base.method, loop=loop), steps=self.steps, seed=self.seed, threads=1, device="cpu",
            evaluate_every=self.study.evaluate_every, checkpoint_every=4 * self.study.evaluate_every,
            keep_checkpoints=1, evaluation_episodes=EVALUATED,
            evaluation_seed=TUNING_EPISODES if self.tuning else EPISODES,
        )  # fmt: skip

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        scenario = self.scenario()
        path = ROOT / "runs" / "benchmarks" / self.study.name / self.key.replace("/", "_").replace(" ", "_")
        enough = self.study.threshold(TUNING_EPISODES) if self.tuning else float("inf")
        return train_curve(scenario, path, enough)


class _Watched(Training):
    """A training run that also ends when its last two evaluations are good enough."""

    enough = float("inf")

    @property
    def finished(self) -> bool:
        last = [float(np.mean(episodes["return"])) for _, episodes in self.history[-2:]]
        return super().finished or (len(last) == 2 and min(last) >= self.enough)


def train_curve(scenario: Scenario[Any], path: Path, enough: float = float("inf")) -> Curve:
    """Run a scenario in `path`, or go on with it there, to its end or to two evaluations in a row of `enough`.

    Raises:
        CircumstancesError: the run was begun with other code, threads or versions; delete it to begin again.
    """
    if path.exists() and RunFolder(path).newest() is None:
        shutil.rmtree(path)
    run = RunFolder(path) if path.exists() else RunFolder.create(path, scenario)
    training = _Watched(scenario, Parts.of(scenario))
    training.enough = enough
    tree = run.newest()
    if tree is not None:
        Circumstances(**tree["circumstances"]).check(training.circumstances(), anyway=False)
        training.restore(tree, run)
    started = time.perf_counter()
    with run.locked():
        stopped = training.run(run)
    training.close()
    if stopped is not None:
        raise KeyboardInterrupt
    records = read_metrics(path / METRICS_FILE)
    names = [f"opponent/{agent}/rollout_len" for agent in training.spec.names]
    lengths = [[record.get(name) for name in names] for record in records]
    return {
        "env_steps": [record["env_steps"] for record in records],
        "returns": [round(float(np.mean(episodes["return"])), 4) for _, episodes in training.history],
        "queries": [record.get(QUERIES, 0) for record in records],
        "lengths": lengths if any(value is not None for row in lengths for value in row) else None,
        "seconds": round(time.perf_counter() - started, 1),
        "commit": commit(imported(), ROOT),
    }


def best_ratio(study: Study, arm: str) -> float | None:
    """The ratio with fewest env steps to the threshold on the tuning seeds, None while the sweep is not complete."""
    arm = study.borrowed.get(arm, arm)
    done, threshold = study.kept.read(), study.threshold(TUNING_EPISODES)
    scores = {}
    for ratio in RATIOS:
        keys = [Job(study=study, arm=arm, ratio=ratio, seed=s, tuning=True).key for s in TUNING_SEEDS]
        if not done.keys() >= set(keys):
            return None
        found = []
        for curve in (done[key] for key in keys):
            good = np.asarray(curve["returns"]) >= threshold
            stays = np.flatnonzero(good[:-1] & good[1:])
            reached = curve["env_steps"][stays[0]] if len(stays) else float("inf")
            found.append((reached, -float(np.mean(curve["returns"][-2:]))))
        scores[ratio] = tuple(np.mean(found, axis=0))
    return min(scores, key=lambda ratio: scores[ratio])


def open_jobs(study: Study, arms: Sequence[str]) -> list[Job]:
    """What is left to run and can be run by now: cheap runs of the sweep first, then the measured ones."""
    done = study.kept.read()
    jobs = [
        Job(study=study, arm=arm, ratio=ratio, seed=seed, tuning=True)
        for ratio in RATIOS for arm in arms if arm not in study.borrowed for seed in TUNING_SEEDS
    ]  # fmt: skip
    for seed in SEEDS:
        for arm in arms:
            ratio = best_ratio(study, arm)
            if ratio is not None:
                jobs.append(Job(study=study, arm=arm, ratio=ratio, seed=seed, tuning=False))
    return [job for job in jobs if job.key not in done]


def _work(job: Job) -> tuple[str, Curve]:
    return job.key, job.run()


def run(study: Study, arms: Sequence[str], processes: int, hours: float) -> None:
    """Do the open jobs, several at once, and start none after `hours`."""
    for episodes in (TUNING_EPISODES, EPISODES):
        study.levels(episodes)
    deadline = time.monotonic() + 3600 * hours
    context = multiprocessing.get_context("spawn")
    running: dict[str, Any] = {}
    with context.Pool(processes, maxtasksperchild=1) as pool:
        while time.monotonic() < deadline or running:
            waiting = [job for job in open_jobs(study, arms) if job.key not in running]
            while waiting and len(running) < processes and time.monotonic() < deadline:
                job = waiting.pop(0)
                print(f"start  {job.key}, {job.steps:,} env steps", flush=True)
                running[job.key] = pool.apply_async(_work, (job,))
            for key in [key for key, result in running.items() if result.ready()]:
                _, curve = running.pop(key).get()
                study.kept.keep(key, curve)
                print(f"done   {key}: {curve['returns'][-1]} in {curve['seconds']} s", flush=True)
            if not running and not open_jobs(study, arms):
                return
            time.sleep(1)


def report(study: Study) -> None:
    """Figures and the curve's picture from the measured runs that are there."""
    done, rng = study.kept.read(), np.random.default_rng(0)
    random, reference = study.levels(EPISODES)
    threshold = random + SHARE * (reference - random)
    curves: dict[str, SeedCurves] = {}
    figures: dict[str, float] = {"random": random, "reference": reference, "threshold": threshold}
    queries: dict[str, float] = {}
    for arm in study.arms:
        ratio = best_ratio(study, arm)
        keys = [Job(study=study, arm=arm, ratio=ratio or 0, seed=s, tuning=False).key for s in SEEDS]
        runs = [done[key] for key in keys if key in done]
        if ratio is None or len(runs) < 2:
            continue
        name = arm.lower().replace(" ", "_").replace("-", "_")
        curves[arm] = SeedCurves.align([(r["env_steps"], r["returns"]) for r in runs])
        reached = steps_to(curves[arm], threshold)
        band = curves[arm].band(rng)
        figures |= {f"{name}_updates_per_step": ratio, f"{name}_seeds": len(runs), f"{name}_steps": reached.steps,
                    f"{name}_reached": float(reached.reached), f"{name}_budget": float(curves[arm].steps[-1]),
                    f"{name}_gap_closed": float(gap_closed(band.value[-1], random, reference)),
                    f"{name}_gap_closed_low": float(gap_closed(band.low[-1], random, reference)),
                    f"{name}_gap_closed_high": float(gap_closed(band.high[-1], random, reference))}  # fmt: skip
        at = np.mean([np.interp(reached.steps, r["env_steps"], r["queries"]) for r in runs])
        queries[arm] = figures[f"{name}_queries"] = float(at)
        if all(r["lengths"] for r in runs):  # modelled steps of a branch by agent, from the first imagining on
            known = [length for r in runs for length in r["lengths"] if None not in length]
            figures |= {f"{name}_length_{j}": float(mean) for j, mean in enumerate(np.mean(known, axis=0))}
    for key, baseline in (("masac", "MASAC"), ("perfect_model", "perfect model"), ("isac", "independent SAC")):
        if "AORPO" in curves and baseline in curves:
            found = steps_ratio(curves[baseline], curves["AORPO"], threshold, rng)
            figures |= {f"steps_ratio_to_{key}": found.value, f"steps_ratio_to_{key}_low": found.low,
                        f"steps_ratio_to_{key}_high": found.high}  # fmt: skip
    if "AORPO" in curves:
        for bound in ("", "_low", "_high"):
            figures[f"gap_closed{bound}"] = figures[f"aorpo_gap_closed{bound}"]
    if queries.get("ask always"):
        figures["queries_ratio_to_ask_always"] = queries["AORPO"] / queries["ask always"]
    made = Counter(str(done[key]["commit"])[:10] for key in done if "commit" in done[key])
    commits = "Runs were made from commit " + ", ".join(f"{name} ({count})" for name, count in sorted(made.items()))
    path = write(
        study.name, figures=figures, aims=study.aims, seeds=list(SEEDS),
        depends=imported(), notes=f"{study.notes} {commits}; one torch thread each.",
    )  # fmt: skip
    plot_curves(
        {arm: curve.band(rng) for arm, curve in curves.items()}, path.with_suffix(".png"),
        levels={"random": random, "scripted reference": reference, f"{SHARE:.0%} of the gap": threshold},
    )  # fmt: skip
    print(path.read_text())


def command(study: Study) -> None:
    """The command line of one study."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{study.name}", description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="*", default=list(study.arms), help="what to run; all by default")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--hours", type=float, default=4.0, help="start no run after this")
    parser.add_argument("--report-only", action="store_true", help="read the finished runs alone")
    options = parser.parse_args()
    if not options.report_only:
        run(study, options.arms, options.processes, options.hours)
    report(study)
