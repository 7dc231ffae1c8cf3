"""AORPO with goals on goal navigation: foresight goals, hindsight goals and neither, beside multi-agent success.

Every arm has the same sweep of update-to-data ratios on a tuning seed; success is the share of episodes at whose end
every agent stands at its own place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.claims import imported, write
from benchmarks.long_runs import EPISODES, TUNING_EPISODES, Curve, Curves, command_line, train_curve
from benchmarks.mapgo_goals import success
from presage.common import plugins
from presage.common.curves import SeedCurves
from presage.common.report import plot_curves

ARMS = {"foresight": "goal_navigation_aorpo", "hindsight": "goal_navigation_aorpo_hindsight",
        "plain": "goal_navigation_aorpo_plain"}  # fmt: skip
"""scenarios by the names of the figures"""
SEEDS, TUNING_SEED, RATIOS, STEPS = (0, 1, 2), 100, (1.0, 2.0, 5.0), 10_000
KEPT = Curves("goal_spread")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    arm: str
    ratio: float
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.arm}/{self.ratio:g}/{self.seed}"

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        scenario, tuning = plugins.load("scenario", ARMS[self.arm]), self.seed == TUNING_SEED
        aorpo = scenario.method.aorpo
        aorpo = replace(aorpo, loop=replace(aorpo.loop, updates_per_step=self.ratio))
        scenario = replace(
            scenario, method=replace(scenario.method, aorpo=aorpo), seed=self.seed, threads=1, device="cpu",
            steps=STEPS // (2 if tuning else 1), evaluate_every=500, checkpoint_every=1_000, keep_checkpoints=1,
            evaluation_episodes=64, evaluation_seed=TUNING_EPISODES if tuning else EPISODES,
        )  # fmt: skip
        return train_curve(scenario, KEPT.folder(self.key), finish=success)


def sweep(arm: str) -> list[Job]:
    """An arm's runs on the tuning seed."""
    return [Job(arm=arm, ratio=ratio, seed=TUNING_SEED) for ratio in RATIOS]


def chosen(arm: str) -> float | None:
    """The ratio that an arm is measured at, by its mean success, then by its return; None before its sweep is done."""
    done, scores = KEPT.read(), {}
    for job in sweep(arm):
        if job.key not in done:
            return None
        run = done[job.key]
        scores[job.ratio] = float(np.mean(run["success_rate"])), float(np.mean(run["returns"]))
    return max(scores, key=lambda ratio: scores[ratio])


def measured(arm: str) -> list[Job]:
    """An arm's runs at its own ratio, as soon as it is known."""
    ratio = chosen(arm)
    return [] if ratio is None else [Job(arm=arm, ratio=ratio, seed=seed) for seed in SEEDS]


def jobs() -> list[Job]:
    """What can be run by now."""
    waves = [job for arm in ARMS for job in measured(arm)]
    return [job for arm in ARMS for job in sweep(arm)] + sorted(waves, key=lambda job: job.seed)


def report() -> None:
    """Figures and a picture from the finished runs."""
    done, rng, figures, bands = KEPT.read(), np.random.default_rng(0), dict[str, float](), {}
    for arm in ARMS:
        runs = [done[job.key] for job in measured(arm) if job.key in done]
        if len(runs) < len(SEEDS):
            raise SystemExit(f"nothing to report yet: {arm} lacks finished runs")
        bands[arm] = SeedCurves.align([(run["env_steps"], run["success_rate"]) for run in runs]).band(rng)
        returns = SeedCurves.align([(run["env_steps"], run["returns"]) for run in runs]).band(rng)
        figures |= {f"success_{arm}": float(bands[arm].value[-1]), f"success_{arm}_low": float(bands[arm].low[-1]),
                    f"success_{arm}_high": float(bands[arm].high[-1]), f"return_{arm}": float(returns.value[-1]),
                    f"updates_per_step_{arm}": chosen(arm) or 0.0}  # fmt: skip
    plot_curves(bands, KEPT.path.parent.parent / "goal_spread.png", y_label="all goals reached")
    write(
        "goal_spread", figures=figures, seeds=list(SEEDS), made=KEPT.made(), depends=imported(),
        aims={}, notes=f"Interquartile means over seeds after {STEPS} env steps. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
