"""PETS on the pendulum and on a cart-pole that has to be swung up: returns after 5,000 env steps.

Rewards are learned on the pendulum, and given on the cart-pole, as in the paper; there the paper's cross-entropy
method, particles that change their member at every step, and learned rewards are run as well. Nothing is swept: planner
and model have the numbers of the scenarios, chosen on seed 100.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.claims import Aim, write
from benchmarks.long_runs import EPISODES, Curve, Curves, command_line, train_curve
from presage.common import plugins
from presage.common.curves import SeedCurves
from presage.common.planning import CEM
from presage.common.report import plot_curves
from presage.envs.toy import CartPoleSwingUp

SEEDS, STEPS = (0, 1, 2), 5_000
TASKS = {"pendulum": "pendulum_return", "cartpole": "swingup_return"}
"""the figures' names by task"""
ARMS: dict[str, dict[str, Any]] = {
    "icem": {},
    "TS1": {"sampling": "TS1"},
    "cem": {"planner": "cem", "cem": CEM(population=200, elites=20, iterations=5)},
    "learned": {"rewards": "learned"},
}
"""what is compared, and what it changes of the scenario's numbers; all but the first on the cart-pole alone"""
KEPT = Curves("pets")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    task: str
    arm: str
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.task}/{self.arm}/{self.seed}"

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        scenario = plugins.load("scenario", f"{self.task}_pets")
        method = replace(scenario.method, **ARMS[self.arm])
        method = replace(method, cem=replace(method.cem, horizon=method.icem.horizon))
        scenario = replace(
            scenario, method=method, seed=self.seed, threads=1, device="cpu",
            steps=STEPS, evaluate_every=1_000, checkpoint_every=1_000, keep_checkpoints=1, evaluation_episodes=8,
            evaluation_seed=EPISODES,
        )  # fmt: skip
        return train_curve(scenario, KEPT.folder(self.key))


def jobs() -> list[Job]:
    """All runs, iCEM's first."""
    return [Job(task=task, arm=arm, seed=seed) for arm in ARMS for task in TASKS if arm in arms(task) for seed in SEEDS]


def arms(task: str) -> list[str]:
    """What is run on a task."""
    return list(ARMS) if task == "cartpole" else list(ARMS)[:1]


def report() -> None:
    """Figures and pictures from the finished runs."""
    done, rng, figures = KEPT.read(), np.random.default_rng(0), dict[str, float]()
    for task, figure in TASKS.items():
        bands = {}
        for arm in arms(task):
            runs = [done[key] for key in (f"{task}/{arm}/{seed}" for seed in SEEDS) if key in done]
            if len(runs) < len(SEEDS):
                continue
            band = SeedCurves.align([(run["env_steps"], run["returns"]) for run in runs]).band(rng)
            bands[arm] = band
            name = f"{figure}_{STEPS}" if arm == "icem" else f"{figure}_{arm.lower()}_{STEPS}"
            figures |= {name: float(band.value[-1]), f"{name}_low": float(band.low[-1]),
                        f"{name}_high": float(band.high[-1])}  # fmt: skip
        if not bands:
            raise SystemExit(f"nothing to report yet: {task} lacks finished runs")
        plot_curves(bands, KEPT.path.parent.parent / f"pets_{task}.png")
    best = CartPoleSwingUp.BEST_KNOWN
    figures |= {"swingup_best_known": best, f"swingup_return_share_{STEPS}": figures[f"swingup_return_{STEPS}"] / best}
    write(
        "pets", figures=figures, seeds=list(SEEDS), made=KEPT.made(), depends=KEPT.depends(),
        aims={f"pendulum_return_{STEPS}": Aim(op=">=", value=-200.0),
              f"swingup_return_share_{STEPS}": Aim(op=">=", value=0.9)},
        notes=f"Interquartile means over seeds. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
