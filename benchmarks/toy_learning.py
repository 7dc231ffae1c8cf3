"""What learned policies reach on toy worlds whose optimum is known: a point mass, a linear system, and Climb.

Multi-agent SAC learns them all, with one agent on the first two. On Climb a run counts as failed unless its greedy
policies end at the best joint action. Improving each agent against what the others do now leads away from it (the best
choice against a partner who is not yet there is the safe one), so the two agents are held against one that chooses for
both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.claims import Aim, write
from benchmarks.long_runs import EPISODES, Curve, Curves, train_curve, work_through
from presage.common.dyna import DynaConfig
from presage.common.evaluate import evaluate
from presage.common.game import Carry, View, Window
from presage.common.intervals import score_interval
from presage.common.parts import Parts
from presage.common.scenario import GameConfig, Scenario
from presage.envs.batched import BatchedGame
from presage.envs.toy import LinearQuadratic, PointMass
from presage.marl.masac import MASACConfig
from presage.marl.model_free import ModelFreeConfig

SEEDS, CLIMBERS = tuple(range(5)), tuple(range(20))
CLIMBED = 11.0
"""what Climb pays at best"""
EVALUATED = 256
"""episodes of an evaluation"""
KEPT = Curves("toy_learning")
ONE = MASACConfig(hidden=(64, 64), learning_rate=1e-3, target_rate=0.01, discount=0.95, initial_temperature=0.01)
"""chosen on seeds 100 to 102, among two step sizes and two lengths, for the linear system"""
TWO = MASACConfig(hidden=(32,), learning_rate=1e-2, target_rate=0.02)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A world, who learns it, and for how many updates: one follows every step of all copies."""

    game: GameConfig
    learner: MASACConfig
    updates: int
    seeds: Sequence[int]

    def scenario(self, name: str, seed: int) -> Scenario[ModelFreeConfig]:
        """One run."""
        copies = self.game.copies
        steps = (self.updates + 10) * copies
        loop = DynaConfig(
            real_share=1.0, warmup_steps=10 * copies, updates_per_step=1 / copies, replay_capacity=100_000
        )
        return Scenario(
            name=name, label="MASAC", description="a toy world", game=self.game,
            method=ModelFreeConfig(learner=self.learner, loop=loop), steps=steps, seed=seed, threads=1, device="cpu",
            evaluate_every=steps // 8 // copies * copies, checkpoint_every=steps, keep_checkpoints=1,
            evaluation_episodes=EVALUATED, evaluation_seed=EPISODES,
        )  # fmt: skip


TASKS = {
    "point_mass": Task(game=GameConfig(name="toy/point_mass", copies=32), learner=replace(ONE, discount=0.9),
                       updates=5_000, seeds=SEEDS),
    "linear_quadratic": Task(game=GameConfig(name="toy/linear_quadratic", copies=32), learner=ONE, updates=5_000,
                             seeds=SEEDS),
    "climb": Task(game=GameConfig(name="toy/climb", copies=32), learner=TWO, updates=300, seeds=CLIMBERS),
    "climb_one_agent": Task(game=GameConfig(name="toy/climb", copies=32, options={"one_agent": True}), learner=TWO,
                            updates=300, seeds=CLIMBERS),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    task: str
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.task}/{self.seed}"

    def run(self) -> Curve:
        """Run it to its end."""
        return train_curve(TASKS[self.task].scenario(self.task, self.seed), KEPT.folder(self.key))


def jobs() -> list[Job]:
    """All runs."""
    return [Job(task=name, seed=seed) for name, task in TASKS.items() for seed in task.seeds]


class Known:
    """Notes the best return from every first observation, and does nothing."""

    def __init__(self, rules: PointMass | LinearQuadratic) -> None:
        self.rules = rules
        self.best: list[float] = []

    def init(self, window: Window) -> Carry:
        """Episodes begin."""
        self.best += self.rules.optimum(window.now.obs).tolist()
        return None

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, torch.Tensor]:
        """Zero actions."""
        return carry, torch.zeros(len(view.obs), self.rules.spec.act_dim)


def optimum(task: str) -> float:
    """The mean best return on the very episodes that runs are evaluated on."""
    scenario = TASKS[task].scenario(task, 0)
    game = Parts.of(scenario).evaluation_game(scenario.game, EVALUATED)
    if not isinstance(game, BatchedGame) or not isinstance(game.rules, PointMass | LinearQuadratic):
        raise TypeError(f"{task} is not a batched world with a known optimum")
    known = Known(game.rules)
    evaluate(game, known, EVALUATED, EPISODES)
    return float(np.mean(known.best[:EVALUATED]))


def report() -> None:
    """Figures from the finished runs."""
    done, rng = KEPT.read(), np.random.default_rng(0)
    last = {
        name: np.asarray([done[f"{name}/{seed}"]["returns"][-1] for seed in task.seeds if f"{name}/{seed}" in done])
        for name, task in TASKS.items()
    }
    absent = [name for name, task in TASKS.items() if len(last[name]) < len(task.seeds)]
    if absent:
        raise SystemExit(f"nothing to report yet: {', '.join(absent)} lack finished runs")
    figures: dict[str, float] = {}
    for name in ("point_mass", "linear_quadratic"):
        best, found = optimum(name), score_interval(last[name], rng)
        figures |= {f"{name}_optimum": best, f"{name}_loss_over_optimum": found.value / best - 1.0,
                    f"{name}_return": found.value, f"{name}_return_low": found.low,
                    f"{name}_return_high": found.high}  # fmt: skip
    for name in ("climb", "climb_one_agent"):
        figures |= {f"{name}_return": float(last[name].mean()), f"{name}_runs": len(last[name]),
                    f"{name}_failure_rate": float((last[name] < CLIMBED).mean())}  # fmt: skip
    write(
        "toy_learning", figures=figures, seeds=list(CLIMBERS), made=KEPT.made(), depends=KEPT.depends(),
        aims={"linear_quadratic_loss_over_optimum": Aim(op="<=", value=0.05)},
        notes=f"Losses are shares of the optimum; seeds {list(SEEDS)} but for Climb. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    work_through(KEPT, jobs, 2)
    report()
