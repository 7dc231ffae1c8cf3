"""MBPO beside SAC on the hopper and the half-cheetah: env steps to the return that SAC has at the end of its budget.

1. Sweep: both methods over three update-to-data ratios on a tuning seed and tuning episodes; a method's ratio is the
   one with the best mean return over the second half of its run.
2. Measure: both at their own ratio on other seeds and other episodes.

3. Where MBPO misses its aim, remedies are tried as in the sweep, among them the true dynamics, which set the limit.

Learner, warm-up and evaluations are the same for both. MBPO gets two fifths of SAC's env steps, which is its aim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.claims import Aim, write
from benchmarks.long_runs import EPISODES, TUNING_EPISODES, Curve, Curves, command_line, train_curve
from presage.common import plugins
from presage.common.curves import SeedCurves, StepsTo, steps_to
from presage.common.intervals import interquartile_mean
from presage.common.report import plot_curves
from presage.common.schedules import LengthRamp

TASKS, METHODS, SEEDS, TUNING_SEED = ("hopper", "half_cheetah"), {"mbpo": "MBPO", "sac": "SAC"}, (0, 1, 2), 100
STEPS = {"mbpo": 8_000, "sac": 20_000}
"""env steps of a measured run; runs of the sweep have half of them"""
RATIOS = {"mbpo": (5.0, 10.0, 20.0), "sac": (1.0, 2.0, 5.0)}
"""updates per env step that each method is swept over"""
AIM = 0.4
"""of SAC's env steps"""
REMEDIES: dict[str, dict[str, Any]] = {
    "branches_of_five_steps": {
        "horizon": LengthRamp(start_epoch=0, end_epoch=0, start=5, end=5), "rollout_starts": 2_000,
    },
    "half_of_a_batch_real": {"real_share": 0.5},
    "fits_twice_as_often": {"fit_every": 125, "rollout_every": 125},
    "true_dynamics": {},
}  # fmt: skip
"""what is tried, and what it changes of MBPO's loop"""
KEPT = Curves("mbpo_mujoco")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    task: str
    method: str
    ratio: float
    seed: int
    remedy: str = ""
    """what is tried; "" for MBPO as it is"""

    @property
    def tuning(self) -> bool:
        """Whether it is one of the sweep."""
        return self.seed == TUNING_SEED

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.task}/{self.remedy or self.method}/{self.ratio:g}/{self.seed}"

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        perfect = "_perfect" if self.remedy == "true_dynamics" else ""
        scenario = plugins.load("scenario", f"{self.task}_{self.method}{perfect}")
        loop = replace(scenario.method.loop, updates_per_step=self.ratio, **REMEDIES.get(self.remedy, {}))
        scenario = replace(
            scenario, method=replace(scenario.method, loop=loop), seed=self.seed, threads=1, device="cpu",
            steps=STEPS[self.method] // (2 if self.tuning else 1), evaluate_every=500, checkpoint_every=2_000,
            keep_checkpoints=1, evaluation_episodes=32,
            evaluation_seed=TUNING_EPISODES if self.tuning else EPISODES,
        )  # fmt: skip
        return train_curve(scenario, KEPT.folder(self.key))


def sweep(task: str, method: str) -> list[Job]:
    """A method's runs on the tuning seed."""
    return [Job(task=task, method=method, ratio=ratio, seed=TUNING_SEED) for ratio in RATIOS[method]]


def chosen(task: str, method: str) -> float | None:
    """The ratio that a method is measured at; None while its sweep is not complete."""
    done, scores = KEPT.read(), {}
    for job in sweep(task, method):
        if job.key not in done:
            return None
        returns = done[job.key]["returns"]
        scores[job.ratio] = float(np.mean(returns[len(returns) // 2 :]))
    return max(scores, key=lambda ratio: scores[ratio])


def measured(task: str, method: str) -> list[Job]:
    """A method's runs at its own ratio, as soon as it is known."""
    ratio = chosen(task, method)
    return [] if ratio is None else [Job(task=task, method=method, ratio=ratio, seed=seed) for seed in SEEDS]


def curves_of(task: str) -> dict[str, SeedCurves]:
    """Both methods' measured runs; {} while one lacks some."""
    done = KEPT.read()
    found = {
        method: SeedCurves.align([(done[job.key]["env_steps"], done[job.key]["returns"]) for job in runs])
        for method in METHODS
        if (runs := measured(task, method)) and all(job.key in done for job in runs)
    }
    return found if found.keys() == METHODS.keys() else {}


def compared(curves: Mapping[str, SeedCurves]) -> StepsTo:
    """MBPO's env steps to what SAC has at the end of its budget."""
    return steps_to(curves["mbpo"], float(interquartile_mean(curves["sac"].returns[:, -1])))


def tried(task: str) -> list[Job]:
    """The remedies, where it is known that they are needed."""
    curves, ratio = curves_of(task), chosen(task, "mbpo")
    if not curves or ratio is None or compared(curves).steps < AIM * STEPS["sac"]:
        return []
    return [Job(task=task, method="mbpo", ratio=ratio, seed=TUNING_SEED, remedy=name) for name in REMEDIES]


def jobs() -> list[Job]:
    """What can be run by now: the sweeps, then seed after seed, then remedies."""
    pairs = [(task, method) for task in TASKS for method in METHODS]
    waves = zip(*(runs for pair in pairs if (runs := measured(*pair))), strict=True)
    found = [job for pair in pairs for job in sweep(*pair)] + [job for wave in waves for job in wave]
    return found + [job for task in TASKS for job in tried(task)]


def report() -> None:
    """Figures and pictures from the finished runs."""
    done, rng, figures = KEPT.read(), np.random.default_rng(0), dict[str, float]()
    for task in TASKS:
        curves = curves_of(task)
        if not curves:
            raise SystemExit(f"nothing to report yet: {task} lacks finished runs")
        for method in METHODS:
            last = curves[method].band(rng)
            figures |= {f"{task}_{method}_updates_per_step": chosen(task, method) or 0.0,
                        f"{task}_{method}_return": float(last.value[-1]),
                        f"{task}_{method}_return_low": float(last.low[-1]),
                        f"{task}_{method}_return_high": float(last.high[-1])}  # fmt: skip
        reached = compared(curves)
        name, every = task.replace("_", ""), float(np.diff(curves["mbpo"].steps)[-1])
        least = reached.steps + (0.0 if reached.reached else every)  # the budget itself would look like a success
        figures |= {f"{task}_mbpo_steps": reached.steps, f"{task}_mbpo_reached": float(reached.reached),
                    f"steps_ratio_to_sac_{name}": least / STEPS["sac"]}  # fmt: skip
        remedies = [*sweep(task, "mbpo"), *tried(task)]
        for job in remedies if tried(task) else []:
            if job.key in done:
                about = f"remedy_{job.remedy}" if job.remedy else f"{job.ratio:g}_updates_a_step"
                figures[f"{task}_{about}_return"] = float(np.mean(done[job.key]["returns"][-2:]))
        path = KEPT.path.parent.parent / f"mbpo_{task}.png"
        plot_curves({METHODS[method]: curve.band(rng) for method, curve in curves.items()}, path)
    write(
        "mbpo_mujoco", figures=figures, seeds=list(SEEDS), made=KEPT.made(), depends=KEPT.depends(),
        aims={f"steps_ratio_to_sac_{task.replace('_', '')}": Aim(op="<=", value=AIM) for task in TASKS},
        notes=f"SAC's return after {STEPS['sac']} env steps; MBPO's runs end after {STEPS['mbpo']}; a level that they "
        "never reach counts as one evaluation more than they had, and its ratio is a bound. Swept: "
        f"{RATIOS}, seed {TUNING_SEED}. Remedies, and updates a step: the mean of the last two returns of "
        f"{STEPS['mbpo'] // 2} env steps on that seed. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
