"""Env steps to success: MapGo beside hindsight, every arm with the same sweep of update-to-data ratios.

1. Sweep: every arm and ratio on a tuning seed and tuning episodes; an arm's ratio is the one whose success, averaged
   over the evaluations of its budget, is highest.
2. Measure: every arm at its own ratio on other seeds and other evaluation episodes.
3. Report: env steps from which the interquartile mean of the success stays at the task's threshold, and their ratio.

In the 2D world also: foresight without imagined rows, imagined rows with hindsight for the real ones, branches without
hindsight of their own (as published), and the world itself in place of a learned one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.claims import Aim, imported, write
from benchmarks.long_runs import EPISODES, TUNING_EPISODES, Curve, Curves, command_line, train_curve
from presage.common import plugins
from presage.common.curves import SeedCurves, steps_ratio, steps_to
from presage.common.report import plot_curves
from presage.common.scenario import Scenario
from presage.common.training import Training

TUNING_SEED = 100
KEPT = Curves("mapgo_goals")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One game's comparison."""

    steps: Mapping[str, int]
    """env steps of a run, by arm"""
    evaluate_every: int
    """env steps between two evaluations"""
    threshold: float
    """success to reach"""
    ratios: tuple[float, ...]
    """updates per env step that every arm is swept over"""
    seeds: tuple[int, ...]
    """that are measured"""


STUDIES = {
    "world": Study(
        steps={"HER": 12_000, "MapGo": 4_000, "MapGo as published": 4_000, "foresight alone": 12_000,
               "hindsight for real rows": 4_000, "MapGo, perfect model": 4_000},
        evaluate_every=100, threshold=0.95, ratios=(1.0, 5.0, 10.0), seeds=(0, 1, 2, 3, 4),
    ),
    "fetch_reach": Study(
        steps={"HER": 5_000, "MapGo": 5_000}, evaluate_every=50, threshold=0.95, ratios=(1.0, 5.0, 10.0),
        seeds=(0, 1, 2),
    ),
    "point_maze": Study(
        steps={"HER": 150_000, "MapGo": 50_000}, evaluate_every=2_500, threshold=0.8, ratios=(0.5, 1.0, 2.0),
        seeds=(0, 1, 2),
    ),
}  # fmt: skip
BORROWED = {"foresight alone": "HER", "hindsight for real rows": "MapGo", "MapGo as published": "MapGo",
            "MapGo, perfect model": "MapGo"}  # fmt: skip
"""arms that take another arm's ratio instead of a sweep of their own"""


def scenario_of(task: str, arm: str) -> Scenario[Any]:
    """What an arm runs."""
    name = {"HER": "her", "MapGo, perfect model": "mapgo_perfect"}.get(arm, "mapgo")
    found: Scenario[Any] = plugins.load("scenario", f"{task}_{name}")
    if arm == "foresight alone":
        return replace(found, method=replace(found.method, loop=replace(found.method.loop, real_share=1.0)))
    if arm == "hindsight for real rows":
        return replace(found, method=replace(found.method, relabel="hindsight"))
    if arm == "MapGo as published":
        return replace(found, method=replace(found.method, branch_hindsight=0.0))
    return found


def success(training: Training) -> dict[str, list[float]]:
    """Share of the goals that each evaluation's episodes reach at their end, and at any step."""
    return {name: [float(np.mean(found[name])) for _, found in training.history]
            for name in ("success_rate", "success_once_rate")}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    task: str
    arm: str
    ratio: float
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.task}/{self.arm}/{self.ratio:g}/{self.seed}"

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        study, scenario, tuning = STUDIES[self.task], scenario_of(self.task, self.arm), self.seed == TUNING_SEED
        loop = replace(scenario.method.loop, updates_per_step=self.ratio)
        scenario = replace(
            scenario, label=self.arm, method=replace(scenario.method, loop=loop), seed=self.seed, threads=1,
            device="cpu", steps=study.steps[self.arm] // (2 if tuning else 1), evaluate_every=study.evaluate_every,
            checkpoint_every=4 * study.evaluate_every, keep_checkpoints=1, evaluation_episodes=64,
            evaluation_seed=TUNING_EPISODES if tuning else EPISODES,
        )  # fmt: skip
        return train_curve(scenario, KEPT.folder(self.key), finish=success)


def sweep(task: str, arm: str) -> list[Job]:
    """An arm's runs on the tuning seed."""
    return [Job(task=task, arm=arm, ratio=ratio, seed=TUNING_SEED) for ratio in STUDIES[task].ratios]


def chosen(task: str, arm: str) -> float | None:
    """The ratio that an arm is measured at; None while its sweep is not complete."""
    done, scores = KEPT.read(), {}
    for job in sweep(task, BORROWED.get(arm, arm)):
        if job.key not in done:
            return None
        scores[job.ratio] = float(np.mean(done[job.key]["success_rate"]))
    return max(scores, key=lambda ratio: scores[ratio])


def measured(task: str, arm: str) -> list[Job]:
    """An arm's runs at its own ratio, as soon as it is known."""
    ratio = chosen(task, arm)
    return [] if ratio is None else [Job(task=task, arm=arm, ratio=ratio, seed=s) for s in STUDIES[task].seeds]


def jobs() -> list[Job]:
    """What can be run by now: task after task the sweep, then seed after seed."""
    found = []
    for task, study in STUDIES.items():
        found += [job for arm in study.steps if arm not in BORROWED for job in sweep(task, arm)]
        found += sorted((job for arm in study.steps for job in measured(task, arm)), key=lambda job: job.seed)
    return found


def report() -> None:
    """Figures and pictures from the finished runs."""
    done, rng, figures = KEPT.read(), np.random.default_rng(0), dict[str, float]()
    for task, study in STUDIES.items():
        curves = {
            arm: SeedCurves.align([(done[job.key]["env_steps"], done[job.key]["success_rate"]) for job in runs])
            for arm in study.steps
            if (runs := measured(task, arm)) and all(job.key in done for job in runs)
        }
        if not {"HER", "MapGo"} <= curves.keys():
            raise SystemExit(f"nothing to report yet: {task} lacks finished runs")
        for arm, curve in curves.items():
            name, reached, band = f"{task}_{named(arm)}", steps_to(curve, study.threshold), curve.band(rng)
            figures |= {f"{name}_updates_per_step": chosen(task, arm) or 0.0, f"{name}_steps": reached.steps,
                        f"{name}_reached": float(reached.reached)}  # fmt: skip
            figures |= {f"{name}_success": float(band.value[-1]), f"{name}_success_low": float(band.low[-1]),
                        f"{name}_success_high": float(band.high[-1])}  # fmt: skip
        ratio = steps_ratio(curves["MapGo"], curves["HER"], study.threshold, rng)
        name = f"steps_ratio_to_her_{task}"
        figures |= {name: 1 / ratio.value, f"{name}_low": 1 / ratio.high, f"{name}_high": 1 / ratio.low}
        bands = {arm: curve.band(rng) for arm, curve in curves.items()}
        plot_curves(bands, KEPT.path.parent.parent / f"mapgo_{task}.png", y_label="goals reached")
    figures["fetch_reach_success_5000"] = figures["fetch_reach_mapgo_success"]
    aims = {f"steps_ratio_to_her_{task}": Aim(op="<=", value=0.33) for task in STUDIES}
    write(
        "mapgo_goals", figures=figures, seeds=sorted({seed for study in STUDIES.values() for seed in study.seeds}),
        made=KEPT.made(), depends=imported(),
        aims={**aims, "fetch_reach_success_5000": Aim(op=">=", value=0.98)},
        notes="Success: goals reached at the end of an episode, interquartile mean over seeds. Thresholds: "
        f"{', '.join(f'{task} {study.threshold:g}' for task, study in STUDIES.items())}. A threshold that is not "
        f"reached counts with the arm's budget, and its ratio is a bound. {KEPT.origin()}",
    )  # fmt: skip


def named(arm: str) -> str:
    """An arm in the names of figures."""
    return arm.lower().replace(",", "").replace(" ", "_")


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
