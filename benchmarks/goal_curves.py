"""Success against env steps in games of goals: arms with the same sweep of update-to-data ratios, then measured.

1. Sweep: every arm and ratio on a tuning seed and tuning episodes, for half of the arm's budget; an arm's ratio is the
   one whose success, then return, averaged over the evaluations, is highest; of equals, the one with most updates.
2. Measure: every arm at its own ratio on other seeds and other evaluation episodes. The first seed's goals, and one of
   its trained episodes, are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claims import write
from benchmarks.long_runs import EPISODES, TUNING_EPISODES, Curve, Curves, train_curve
from presage.common import plugins
from presage.common.closing import record_episode, report_goals
from presage.common.curves import SeedCurves
from presage.common.report import PICTURE_FILE, plot_curves
from presage.common.training import Training

TUNING_SEED = 100
SUCCESS, ONCE = "success_rate", "success_once_rate"
"""share of an evaluation's episodes at whose end all goals are reached, and at any of whose steps they are"""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One method of a comparison."""

    scenario: str
    """by name"""
    steps: int
    """env steps of a measured run"""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """fields of the method, by dotted path, that differ from the scenario's"""
    borrows: str = ""
    """the arm whose ratio it takes instead of a sweep of its own"""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One game's comparison."""

    name: str
    """of the game, in keys and figures"""
    kept: Curves
    """where finished runs are kept"""
    arms: Mapping[str, Arm]
    """by label"""
    evaluate_every: int
    """env steps between two evaluations"""
    ratios: tuple[float, ...]
    """updates per env step that every arm is swept over"""
    seeds: tuple[int, ...]
    """that are measured"""
    ratio: str = "loop.updates_per_step"
    """where the method keeps it"""
    episodes: int = 64
    """of an evaluation"""

    def sweep(self, arm: str) -> list[Job]:
        """An arm's runs on the tuning seed."""
        return [Job(study=self, arm=arm, ratio=ratio, seed=TUNING_SEED) for ratio in self.ratios]

    def chosen(self, arm: str) -> float | None:
        """The ratio that an arm is measured at; None while its sweep is not complete."""
        done, scores = self.kept.read(), {}
        for job in self.sweep(self.arms[arm].borrows or arm):
            if job.key not in done:
                return None
            run = done[job.key]
            scores[job.ratio] = float(np.mean(run[SUCCESS])), float(np.mean(run["returns"])), job.ratio
        return max(scores, key=lambda ratio: scores[ratio])

    def measured(self, arm: str) -> list[Job]:
        """An arm's runs at its own ratio, as soon as it is known."""
        ratio = self.chosen(arm)
        return [] if ratio is None else [Job(study=self, arm=arm, ratio=ratio, seed=seed) for seed in self.seeds]

    def jobs(self) -> list[Job]:
        """What can be run by now: the sweep, then seed after seed."""
        swept = [job for arm, numbers in self.arms.items() if not numbers.borrows for job in self.sweep(arm)]
        return swept + sorted((job for arm in self.arms for job in self.measured(arm)), key=lambda job: job.seed)

    def curves(self, measure: str = SUCCESS) -> dict[str, SeedCurves]:
        """The measured runs of every arm.

        Raises:
            SystemExit: some are not finished.
        """
        done, found = self.kept.read(), {}
        for arm in self.arms:
            runs = self.measured(arm)
            if not runs or any(job.key not in done for job in runs):
                raise SystemExit(f"nothing to report yet: {self.name}, {arm}, lacks finished runs")
            found[arm] = SeedCurves.align([(done[job.key]["env_steps"], done[job.key][measure]) for job in runs])
        return found

    def figures(self, curves: Mapping[str, SeedCurves], rng: np.random.Generator) -> dict[str, float]:
        """Every arm's success at the end of its budget, with its interval, and its ratio."""
        found: dict[str, float] = {}
        for arm, curve in curves.items():
            name, band = f"{self.name}_{named(arm)}", curve.band(rng)
            ends = {"": band.value, "_low": band.low, "_high": band.high}
            found |= {f"{name}_success{end}": float(values[-1]) for end, values in ends.items()}
            found[f"{name}_updates_per_step"] = self.chosen(arm) or 0.0
        return found


def write_success(study: Study, y_label: str = "goals reached") -> None:
    """The claims file and the picture of a study whose figures are every arm's success at the end of its env steps.

    Raises:
        SystemExit: some runs are not finished.
    """
    rng, curves = np.random.default_rng(0), study.curves()
    found = {name.removeprefix(f"{study.name}_"): value for name, value in study.figures(curves, rng).items()}
    figures = {"env_steps": float(max(arm.steps for arm in study.arms.values()))}
    for arm, numbers in ((named(label), numbers) for label, numbers in study.arms.items()):
        figures[f"env_steps_{arm}"] = float(numbers.steps)
        figures |= {f"success_{arm}{end}": found[f"{arm}_success{end}"] for end in ("", "_low", "_high")}
        figures[f"updates_per_step_{arm}"] = found[f"{arm}_updates_per_step"]
    bands = {arm: curve.band(rng) for arm, curve in curves.items()}
    plot_curves(bands, study.kept.path.parent.parent / f"{study.kept.name}.png", y_label=y_label)
    write(
        study.kept.name, figures=figures, seeds=list(study.seeds), made=study.kept.made(),
        depends=study.kept.depends(), aims={},
        notes=f"Success: goals reached at the end of an episode, interquartile mean over seeds. {study.kept.origin()}",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    study: Study
    arm: str
    ratio: float
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.study.name}/{self.arm}/{self.ratio:g}/{self.seed}"

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        study, arm, tuning = self.study, self.study.arms[self.arm], self.seed == TUNING_SEED
        scenario = plugins.load("scenario", arm.scenario)
        method = scenario.method
        for path, value in {**arm.changes, study.ratio: self.ratio}.items():
            method = changed(method, path.split("."), value)
        scenario = replace(
            scenario, label=self.arm, method=method, seed=self.seed, threads=1, device="cpu",
            steps=arm.steps // (2 if tuning else 1), evaluate_every=study.evaluate_every,
            checkpoint_every=4 * study.evaluate_every, keep_checkpoints=1, evaluation_episodes=study.episodes,
            evaluation_seed=TUNING_EPISODES if tuning else EPISODES,
        )  # fmt: skip
        pictures = pictures_of(study.kept, f"{study.name}_{named(self.arm)}") if self.seed == study.seeds[0] else None
        return train_curve(scenario, study.kept.folder(self.key), finish=partial(success, pictures=pictures))


def changed(config: Any, path: Sequence[str], value: Any) -> Any:
    """A frozen configuration with another value at a path of field names."""
    first, *rest = path
    return replace(config, **{first: changed(getattr(config, first), rest, value) if rest else value})


def pictures_of(kept: Curves, name: str) -> Path:
    """Where the pictures of a trained run go."""
    return kept.path.parent.parent / "goals" / name


def success(training: Training, pictures: Path | None = None) -> dict[str, list[float]]:
    """What every evaluation's episodes reached, on average.

    Args:
        pictures: a folder for a picture of the run's goals and for one of its trained episodes, where games are drawn.
    """
    if pictures is not None:
        report_goals(training, pictures)
        record_episode(training, pictures / PICTURE_FILE)
    return {name: [float(np.mean(found[name])) for _, found in training.history] for name in (SUCCESS, ONCE)}


def named(arm: str) -> str:
    """An arm in the names of figures."""
    return arm.lower().replace(",", "").replace(" ", "_")
