"""MBPO beside SAC on the hopper and the half-cheetah: env steps to the return that SAC has at the end of its budget.

1. Sweep: both methods over three update-to-data ratios on a tuning seed and tuning episodes; a method's ratio is the
   one with the best mean return over the second half of its run.
2. Measure: both at their own ratio on other seeds and other episodes.

Learner, warm-up and evaluations are the same for both. MBPO gets two fifths of SAC's env steps, which is its aim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.claims import Aim, imported, write
from benchmarks.long_runs import EPISODES, TUNING_EPISODES, Curve, Curves, command_line, train_curve
from presage.common import plugins
from presage.common.curves import SeedCurves, steps_to
from presage.common.report import plot_curves

TASKS, METHODS, SEEDS, TUNING_SEED = ("hopper", "half_cheetah"), {"mbpo": "MBPO", "sac": "SAC"}, (0, 1, 2), 100
STEPS = {"mbpo": 8_000, "sac": 20_000}
"""env steps of a measured run; runs of the sweep have half of them"""
RATIOS = {"mbpo": (5.0, 10.0, 20.0), "sac": (1.0, 2.0, 5.0)}
"""updates per env step that each method is swept over"""
KEPT = Curves("mbpo_mujoco")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    task: str
    method: str
    ratio: float
    seed: int

    @property
    def tuning(self) -> bool:
        """Whether it is one of the sweep."""
        return self.seed == TUNING_SEED

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.task}/{self.method}/{self.ratio:g}/{self.seed}"

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        scenario = plugins.load("scenario", f"{self.task}_{self.method}")
        loop = replace(scenario.method.loop, updates_per_step=self.ratio)
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


def jobs() -> list[Job]:
    """What can be run by now: the sweeps, then seed after seed."""
    pairs = [(task, method) for task in TASKS for method in METHODS]
    waves = zip(*(runs for pair in pairs if (runs := measured(*pair))), strict=True)
    return [job for pair in pairs for job in sweep(*pair)] + [job for wave in waves for job in wave]


def report() -> None:
    """Figures and pictures from the finished runs."""
    done, rng, figures = KEPT.read(), np.random.default_rng(0), dict[str, float]()
    for task in TASKS:
        curves = {
            method: SeedCurves.align([(done[job.key]["env_steps"], done[job.key]["returns"]) for job in runs])
            for method in METHODS
            if (runs := measured(task, method)) and all(job.key in done for job in runs)
        }
        if curves.keys() != METHODS.keys():
            raise SystemExit(f"nothing to report yet: {task} lacks finished runs")
        for method in METHODS:
            last = curves[method].band(rng)
            figures |= {f"{task}_{method}_updates_per_step": chosen(task, method) or 0.0,
                        f"{task}_{method}_return": float(last.value[-1]),
                        f"{task}_{method}_return_low": float(last.low[-1]),
                        f"{task}_{method}_return_high": float(last.high[-1])}  # fmt: skip
        reached = steps_to(curves["mbpo"], figures[f"{task}_sac_return"])
        name = task.replace("_", "")
        figures |= {f"{task}_mbpo_steps": reached.steps, f"{task}_mbpo_reached": float(reached.reached),
                    f"steps_ratio_to_sac_{name}": reached.steps / STEPS["sac"]}  # fmt: skip
        path = KEPT.path.parent.parent / f"mbpo_{task}.png"
        plot_curves({METHODS[method]: curve.band(rng) for method, curve in curves.items()}, path)
    write(
        "mbpo_mujoco", figures=figures, seeds=list(SEEDS), made=KEPT.made(), depends=imported(),
        aims={f"steps_ratio_to_sac_{task.replace('_', '')}": Aim(op="<=", value=0.4) for task in TASKS},
        notes=f"SAC's return after {STEPS['sac']} env steps; MBPO's runs end after {STEPS['mbpo']}, so that a ratio of "
        f"0.4 that is not reached is a bound. Swept: {RATIOS}, seed {TUNING_SEED}. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
