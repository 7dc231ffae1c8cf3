"""AORPO where nobody tuned it: predators against prey, who all learn, and cooperative navigation with Box actions.

How well a side of `simple_tag_v3` plays depends on whom it meets, so that sides are crossed: each trained side is held
against random moves in its own place, against one and the same other side.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.claims import Aim, write
from benchmarks.long_runs import EPISODES, Curve, Curves, train_curve, work_through
from presage.common import plugins
from presage.common.evaluate import RandomActor, evaluate
from presage.common.game import Actor, Carry, GameSpec, View, Window
from presage.common.intervals import score_interval
from presage.common.streams import streams
from presage.common.training import Training

SEEDS = (0, 1, 2)
STEPS = {"tag_aorpo": 3_000, "spread_continuous_aorpo": 1_500}
EVALUATED = 64
"""episodes of an evaluation"""
KEPT = Curves("other_games")


class Sides:
    """Some agents play by one actor's greedy actions, the others at random."""

    def __init__(self, spec: GameSpec, actor: Actor, agents: Sequence[str], rng: torch.Generator) -> None:
        self.actor, self.random, self.rng = actor, RandomActor(spec), rng
        self.chosen = torch.zeros(spec.act_dim, dtype=torch.bool)
        for name, columns in zip(spec.names, spec.act, strict=True):
            self.chosen[columns] = name in agents

    def init(self, window: Window) -> Carry:
        """The actor's own memory."""
        return self.actor.init(window)

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`."""
        carry, trained = self.actor.step(carry, view, None)
        return carry, torch.where(self.chosen, trained, self.random.step(None, view, self.rng)[1])


def crossed(training: Training) -> dict[str, float]:
    """Gains of trained agents over random ones in the same place, in return per episode.

    Predators are measured against random prey, prey against the trained predators; in a game of one team, everybody.
    """
    spec, game = training.spec, training.evaluation_game

    def returns(agents: Sequence[str]) -> dict[str, float]:
        sides = Sides(spec, training.trainee.actor, agents, streams(EPISODES)("random"))
        found = evaluate(game, sides, EVALUATED, EPISODES).returns.mean(axis=0)
        return dict(zip(spec.names, found.tolist(), strict=True))

    predators = [name for name in spec.names if name.startswith("adversary")]
    nobody, everybody = returns([]), returns(spec.names)
    if not predators:
        return {"gain": float(np.mean([everybody[name] - nobody[name] for name in spec.names]))}
    hunting = returns(predators)
    prey = [name for name in spec.names if name not in predators]
    return {
        "predators_gain": float(np.mean([hunting[name] - nobody[name] for name in predators])),
        "prey_gain": float(np.mean([everybody[name] - hunting[name] for name in prey])),
    }


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run on one thread of the CPU."""

    scenario: str
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{self.scenario}/{self.seed}"

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        steps = STEPS[self.scenario]
        scenario = replace(
            plugins.load("scenario", self.scenario), steps=steps, seed=self.seed, threads=1, device="cpu",
            evaluate_every=steps // 4, checkpoint_every=steps // 2, keep_checkpoints=1,
            evaluation_episodes=EVALUATED, evaluation_seed=EPISODES,
        )  # fmt: skip
        return train_curve(scenario, KEPT.folder(self.key), finish=crossed)


def jobs() -> list[Job]:
    """All runs, seed after seed."""
    return [Job(scenario=scenario, seed=seed) for seed in SEEDS for scenario in STEPS]


def report() -> None:
    """Figures from the finished runs."""
    done, rng = KEPT.read(), np.random.default_rng(0)
    figures: dict[str, float] = {}
    aims: dict[str, Aim] = {}
    for scenario, gains in (("tag_aorpo", ("predators_gain", "prey_gain")), ("spread_continuous_aorpo", ("gain",))):
        runs = [done[key] for key in (f"{scenario}/{seed}" for seed in SEEDS) if key in done]
        if len(runs) < 2:
            continue
        figures[f"{scenario}_env_steps"] = STEPS[scenario]
        for gain in gains:
            found = score_interval([run[gain] for run in runs], rng)
            name = f"{scenario}_{gain}"
            figures |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            aims[f"{name}_low"] = Aim(op=">=", value=0.0)
    write(
        "other_games", figures=figures, aims=aims, seeds=list(SEEDS), made=KEPT.made(), depends=KEPT.depends(),
        notes="A gain is the return per episode of trained agents less that of random moves in their place, averaged "
        f"over the side's agents. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--report-only", action="store_true", help="read the finished runs alone")
    options = parser.parse_args()
    if not options.report_only:
        work_through(KEPT, jobs, options.processes)
    report()
