"""How much of a maze a run has been in by which env step, from a single start: sources of goals beside the game's own.

The maze on a plane, whose game asks for the cell that is farthest from the start; the learner is hindsight's on real
rows, the same for all, but for `foreseen subgoals`, which need a model and learn from its branches as well, and for
`random`, which never learns. Coverage is the share of the maze's free cells, cut into quarters, that have been visited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.claims import write
from benchmarks.goal_curves import named, pictures_of, success
from benchmarks.long_runs import EPISODES, Curve, Curves, command_line, train_curve
from presage.common import plugins
from presage.common.curves import SeedCurves
from presage.common.report import plot_curves
from presage.common.training import Training
from presage.envs.toy.maze import random_maze
from presage.gcrl.goals.choice import GoalsConfig
from presage.gcrl.goals.goal_gan import GoalGANConfig
from presage.gcrl.goals.maximum_entropy import MaximumEntropyConfig
from presage.gcrl.goals.subgoals import ForeseenSubgoalsConfig
from presage.scenarios.plane_maze_parts import in_pursuit

SIZE, PARTS = 5, 2
"""of the maze, and into how many a cell is cut along each axis"""
LOW, HIGH = (0.0, 0.0), (2.0 * SIZE - 1.0,) * 2
"""the box of goals: the maze with its walls"""
GOAL_GAN = GoalGANConfig(goals=24, tries=2, least_positive=4)
"""rounds of 48 episodes, so that a run has some"""
RANDOM = "random"
ARMS = {
    RANDOM: GoalsConfig(),
    "the game": GoalsConfig(),
    "uniform": GoalsConfig(source="uniform", low=LOW, high=HIGH),
    "achieved": GoalsConfig(source="achieved"),
    "MEGA": GoalsConfig(source="maximum_entropy"),
    "OMEGA": GoalsConfig(source="maximum_entropy", maximum_entropy=MaximumEntropyConfig(annealed=True)),
    "Skew-Fit": GoalsConfig(source="maximum_entropy", maximum_entropy=MaximumEntropyConfig(power=-1.0)),
    "intermediate": GoalsConfig(source="intermediate"),
    "GoalGAN": GoalsConfig(source="goal_gan", low=LOW, high=HIGH, goal_gan=GOAL_GAN),
    "HGG": GoalsConfig(source="hindsight", reach=math.dist(LOW, HIGH)),
    "foreseen subgoals": GoalsConfig(source="subgoals", subgoals=ForeseenSubgoalsConfig(length=15)),
}
"""sources by label; all but the game's wander on from their goals, and one is not asked at all"""
PICTURES = {
    "maze_coverage": ("MEGA", "OMEGA", "Skew-Fit", "uniform", "the game", RANDOM),
    "maze_coverage_others": ("MEGA", "foreseen subgoals", "HGG", "GoalGAN", "intermediate", "achieved"),
}
"""arms that are drawn, by the picture's name"""
SEEDS, STEPS, EVERY = (0, 1, 2), 50_000, 2_500
KEPT = Curves("maze_coverage")


def coverage(training: Training) -> dict[str, list[float]]:
    """Share of the free quarter-cells that have been visited by every evaluation."""
    free = PARTS**2 * int((~random_maze(SIZE)).sum())
    rows = training.replay.rows(training.replay.all())
    row, column = np.floor(rows.next_achieved.double().cpu().numpy() * PARTS).astype(int).T
    part = row * int(HIGH[1]) * PARTS + column
    made = [min(env_steps, len(part)) for env_steps, _ in training.history]
    return {"coverage": [len(np.unique(part[:count])) / free for count in made]}


def kept(training: Training, pictures: Path | None) -> dict[str, list[float]]:
    """What a finished run keeps, `pictures` as of `success`."""
    return success(training, pictures) | coverage(training)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    arm: str
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.arm}/{self.seed}"

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        scenario, method = plugins.load("scenario", "plane_maze_mega"), in_pursuit(ARMS[self.arm])
        if self.arm == RANDOM:
            method = replace(method, loop=replace(method.loop, warmup_steps=STEPS))
        game = replace(scenario.game, options={**scenario.game.options, "size": SIZE})
        scenario = replace(
            scenario, label=self.arm, game=game, method=method, seed=self.seed, threads=1, device="cpu", steps=STEPS,
            evaluate_every=EVERY, checkpoint_every=4 * EVERY, keep_checkpoints=1, evaluation_episodes=32,
            evaluation_seed=EPISODES,
        )  # fmt: skip
        pictures = pictures_of(KEPT, f"maze_{named(self.arm)}") if self.seed == SEEDS[0] else None
        return train_curve(scenario, KEPT.folder(self.key), finish=partial(kept, pictures=pictures))


def jobs() -> list[Job]:
    """All runs, seed after seed."""
    return [Job(arm=arm, seed=seed) for seed in SEEDS for arm in ARMS]


def report() -> None:
    """Figures and a picture from the finished runs."""
    done, rng, figures, bands = KEPT.read(), np.random.default_rng(0), dict[str, float](), {}
    for arm in ARMS:
        runs = [done[job.key] for job in jobs() if job.arm == arm and job.key in done]
        if len(runs) < len(SEEDS):
            raise SystemExit(f"nothing to report yet: {arm} lacks finished runs")
        for name in ("coverage", "success_rate"):
            band = SeedCurves.align([(run["env_steps"], run[name]) for run in runs]).band(rng)
            figures |= {f"{name}_{named(arm)}": float(band.value[-1]), f"{name}_{named(arm)}_low": float(band.low[-1]),
                        f"{name}_{named(arm)}_high": float(band.high[-1])}  # fmt: skip
            if name == "coverage":
                bands[arm] = band
    for name, arms in PICTURES.items():
        path = KEPT.path.parent.parent / f"{name}.png"
        plot_curves({arm: bands[arm] for arm in arms}, path, y_label="share of the maze visited")
    write(
        "maze_coverage", figures=figures, seeds=list(SEEDS), made=KEPT.made(), depends=KEPT.depends(), aims={},
        notes=f"Interquartile means over seeds after {STEPS} env steps. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
