"""Bit-flip with hindsight and without (Andrychowicz et al. 2017, section 4.1): success against epochs of 800 episodes.

The paper's recipe: cycles of 16 episodes and 40 updates of 128 rows, Q-learning with one hidden layer of 256, targets
that move a twentieth of the way every cycle and are held to what returns can be, a fifth of the actions at random, four
of five goals by "future". Episodes go on at their goals; a goal counts as reached where a greedy episode hits it at any
step. Nothing is tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.claims import Aim, write
from benchmarks.long_runs import EPISODES, Curve, Curves, command_line, train_curve
from presage.common import plugins
from presage.common.curves import SeedCurves
from presage.common.report import plot_curves
from presage.common.training import Training
from presage.gcrl.hindsight import Shares

SEEDS, COPIES, EPISODES_OF_AN_EPOCH = (0, 1, 2), 16, 800
EPOCHS = {15: 10, 40: 45}
"""epochs of a run by the number of bits"""
ARMS = {"her": Shares.of(4), "plain": Shares.of(0)}
SOLVED = 0.98
KEPT = Curves("bitflip")


def success(training: Training) -> dict[str, list[float]]:
    """Share of the goals that each evaluation's episodes hit."""
    return {"success": [float(np.mean(found["success_once_rate"])) for _, found in training.history]}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    bits: int
    arm: str
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.bits}/{self.arm}/{self.seed}"

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        epoch = EPISODES_OF_AN_EPOCH * self.bits
        scenario = plugins.load("scenario", "bit_flip_her")
        recipe = scenario.method
        loop = replace(recipe.loop, warmup_steps=COPIES * self.bits, updates_per_step=40 / (COPIES * self.bits))
        scenario = replace(
            scenario, label=self.arm, method=replace(recipe, loop=loop, shares=ARMS[self.arm]), seed=self.seed,
            game=replace(scenario.game, copies=COPIES, options={**scenario.game.options, "bits": self.bits}),
            threads=1, device="cpu", steps=EPOCHS[self.bits] * epoch, evaluate_every=epoch, checkpoint_every=5 * epoch,
            keep_checkpoints=1, evaluation_episodes=256, evaluation_seed=EPISODES,
        )  # fmt: skip
        return train_curve(scenario, KEPT.folder(self.key), finish=success)


def jobs() -> list[Job]:
    """All runs, the short ones first."""
    return [Job(bits=bits, arm=arm, seed=seed) for bits in EPOCHS for arm in ARMS for seed in SEEDS]


def report() -> None:
    """Figures and pictures from the finished runs."""
    done, rng, figures = KEPT.read(), np.random.default_rng(0), dict[str, float]()
    for bits, epochs in EPOCHS.items():
        bands = {}
        for arm in ARMS:
            runs = [done[key] for key in (f"{bits}/{arm}/{seed}" for seed in SEEDS) if key in done]
            if len(runs) < len(SEEDS):
                raise SystemExit(f"nothing to report yet: {bits} bits, {arm}, lacks finished runs")
            bands[arm] = SeedCurves.align([(run["env_steps"], run["success"]) for run in runs]).band(rng)
            figures |= {f"success_{bits}_{arm}": float(bands[arm].value[-1]),
                        f"success_{bits}_{arm}_low": float(bands[arm].low[-1]),
                        f"success_{bits}_{arm}_high": float(bands[arm].high[-1])}  # fmt: skip
        first = [
            next((k for k, value in enumerate(run["success"]) if value >= SOLVED), epochs + 1)
            for run in (done[f"{bits}/her/{seed}"] for seed in SEEDS)
        ]
        figures[f"epochs_{bits}"] = max(first)
        plot_curves(bands, KEPT.path.parent.parent / f"bitflip_{bits}.png", y_label="success")
    write(
        "bitflip", figures=figures, seeds=list(SEEDS), made=KEPT.made(), depends=KEPT.depends(),
        aims={"epochs_15": Aim(op="<=", value=6.0), "success_40_her": Aim(op=">=", value=0.95),
              "success_40_plain": Aim(op="<=", value=0.01)},
        notes=f"Success: interquartile mean over seeds after {EPOCHS} epochs; `epochs_x` is the slowest seed's first "
        f"epoch at {SOLVED}, or one more than were run. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
