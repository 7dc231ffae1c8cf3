"""How much of a maze a run has been in by which env step, from a single start: sources of goals beside the game's own.

PointMaze's large maze with one start and seven goals, cut after 300 steps; the learner is hindsight's on real rows, the
same for all, but for `foreseen subgoals`, which need a model and learn from its branches as well, and for `random`,
which never learns. Coverage is the share of the maze's free cells, cut into quarters, that the ball has been in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np

from benchmarks.claims import write
from benchmarks.goal_curves import named, pictures_of, success
from benchmarks.long_runs import EPISODES, Curve, Curves, command_line, train_curve
from presage.common import plugins
from presage.common.curves import SeedCurves
from presage.common.report import plot_curves
from presage.common.training import Training
from presage.gcrl.goals.choice import GoalsConfig
from presage.gcrl.goals.goal_gan import GoalGANConfig
from presage.gcrl.goals.subgoals import ForeseenSubgoalsConfig
from presage.scenarios.goal_models import LONG_WAYS, in_a_maze, point_maze_mapgo

LOW, HIGH = (-5.5, -4.0), (5.5, 4.0)
"""the box of goals: the maze with its walls"""
GOAL_GAN = GoalGANConfig(goals=24, tries=2, least_positive=4)
"""rounds of 48 episodes, so that a run has some"""
RANDOM = "random"
ARMS = {
    RANDOM: GoalsConfig(),
    "the game": GoalsConfig(),
    "uniform": GoalsConfig(source="uniform", low=LOW, high=HIGH),
    "achieved": GoalsConfig(source="achieved"),
    "MEGA": GoalsConfig(source="maximum_entropy", maximum_entropy=LONG_WAYS),
    "OMEGA": GoalsConfig(source="maximum_entropy", maximum_entropy=replace(LONG_WAYS, annealed=True)),
    "Skew-Fit": GoalsConfig(source="maximum_entropy", maximum_entropy=replace(LONG_WAYS, power=-1.0)),
    "intermediate": GoalsConfig(source="intermediate"),
    "GoalGAN": GoalsConfig(source="goal_gan", low=LOW, high=HIGH, goal_gan=GOAL_GAN),
    "HGG": GoalsConfig(source="hindsight", reach=math.dist(LOW, HIGH)),
    "foreseen subgoals": GoalsConfig(source="subgoals", subgoals=ForeseenSubgoalsConfig(length=50)),
}
"""sources by label; all but the game's wander on from their goals, and one is not asked at all"""
SEEDS, STEPS, EVERY, PARTS = (0, 1, 2), 50_000, 5_000, 2
KEPT = Curves("maze_coverage")


def coverage(training: Training) -> dict[str, list[float]]:
    """Share of the free quarter-cells that have been visited by every evaluation."""
    maze = gymnasium.make("PointMaze_Large_Diverse_G-v3").unwrapped.maze  # type: ignore[attr-defined]  # a maze's own
    walls = np.array([[cell == 1 for cell in row] for row in maze.maze_map])
    rows = training.replay.rows(training.replay.all())
    place = rows.next_achieved.double().cpu().numpy()
    column = np.floor((place[:, 0] + maze.x_map_center) / maze.maze_size_scaling * PARTS).astype(int)
    row = np.floor((maze.y_map_center - place[:, 1]) / maze.maze_size_scaling * PARTS).astype(int)
    cell = row * walls.shape[1] * PARTS + column
    free = PARTS**2 * int((~walls).sum())
    made = [min(env_steps, len(cell)) for env_steps, _ in training.history]
    return {"coverage": [len(np.unique(cell[:count])) / free for count in made]}


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
        scenario = plugins.load("scenario", "point_maze_mega")
        goals = in_a_maze(ARMS[self.arm])
        method = point_maze_mapgo() if goals.source == "subgoals" else scenario.method
        warmup = STEPS if self.arm == RANDOM else method.loop.warmup_steps
        loop = replace(method.loop, updates_per_step=0.5, warmup_steps=warmup)
        scenario = replace(
            scenario, label=self.arm, method=replace(method, goals=goals, loop=loop), seed=self.seed,
            threads=1, device="cpu", steps=STEPS, evaluate_every=EVERY, checkpoint_every=2 * EVERY, keep_checkpoints=1,
            evaluation_episodes=32, evaluation_seed=EPISODES,
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
    plot_curves(bands, KEPT.path.parent.parent / "maze_coverage.png", y_label="share of the maze visited")
    write(
        "maze_coverage", figures=figures, seeds=list(SEEDS), made=KEPT.made(), depends=KEPT.depends(), aims={},
        notes=f"Interquartile means over seeds after {STEPS} env steps. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
