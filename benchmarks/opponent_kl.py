"""How near models of others come to scripted opponents whose policies are known, by how much they were shown.

Every family that states distributions is fitted to the first moments of a record, a fifth of them held out for early
stopping, and judged by the Kullback-Leibler divergence of what is truly played from what it predicts, at moments of
other episodes, in nats per head of one-hot actions or per number of box actions. Opponents' logits and means are linear
in what they observe, with weights drawn from the seed. Nothing is tuned on the seeds that are measured.

Clones read what the opponent observes; LIAM reads what its ego observes and did, and how much that has changed, from
which all else has to be worked out. As published it reads no changes; that is shown beside it, without an aim, where
others' speeds, which nobody shows to its ego, matter most. Policy inference and counting stop by nothing and take all
that is shown, the former in batches drawn from it. Counting is exact in the game of two states; elsewhere no context
comes twice, and it is left out.

Without an aim as well, opponents that are hard to copy: three of ten moves at random, the others those of the greedy
players that head for the landmark which the cheapest assignment gives them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.claims import Aim, write
from benchmarks.long_runs import Curve, Curves, circumstance, command_line
from presage.common.curves import SeedCurves
from presage.common.game import Game, GameSpec
from presage.common.intervals import Band
from presage.envs.registry import make
from presage.marl.opponents.assessment import Expects, assess
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from presage.marl.opponents.frequencies import Frequencies, FrequenciesConfig
from presage.marl.opponents.history_cloning import HistoryCloning, HistoryCloningConfig
from presage.marl.opponents.liam_model import LIAMModel, LIAMModelConfig
from presage.marl.opponents.policies import Stated, linear, noisy
from presage.marl.opponents.policy_inference import PolicyInference, PolicyInferenceConfig
from presage.marl.opponents.record import Record
from presage.scenarios.particle_parts import greedy_spread

SEEDS, SIZES = (0, 1, 2, 3, 4), (1_000, 4_000, 16_000, 64_000)
"""moments that are shown"""
COPIES, JUDGED, HELD = 64, 6_400, 0.2
"""games side by side; moments that are judged by; share of what is shown that is held out"""
PASSES, UPDATES, EVERY, BATCH, LENGTH = 60, 5_000, 250, 256, 8
"""most passes of a fit over what is shown; most gradient steps where these are counted, and how many lie between two
looks at what is held out; moments of a batch, of those that are fitted step by step; moments of a history"""
LEVEL = 0.02
"""nats per dimension that every family is to come to"""
KEPT = Curves("opponent_kl")


@dataclass(frozen=True, kw_only=True)
class World:
    """A game and those who play it."""

    game: str
    options: dict[str, bool]
    opponents: Callable[[GameSpec, torch.Generator], Stated]
    aimed: tuple[str, ...]
    """families whose divergences count in `worst_kl_per_dimension`"""
    beside: tuple[str, ...] = ()
    """families that are shown without an aim"""

    @property
    def families(self) -> tuple[str, ...]:
        """All that are fitted."""
        return (*self.aimed, *self.beside)

    def make(self) -> Game:
        """The game."""
        return make(self.game, COPIES, **self.options)


def of_observations(spec: GameSpec, rng: torch.Generator) -> Stated:
    """Linear in what each agent observes."""
    return linear(spec, rng)


def greedy_with_slips(spec: GameSpec, rng: torch.Generator) -> Stated:
    """To the landmarks of the cheapest assignment, three of ten moves at random."""
    return noisy(spec, greedy_spread(spec, {}), 0.3)


NETWORKS = ("cloning", "ensemble", "mixture", "history", "inference", "liam")
WORLDS = {
    "pennies": World(game="toy/two_state_pennies", options={}, opponents=of_observations,
                     aimed=("frequencies", *NETWORKS)),
    "spread": World(game="particle/spread", options={}, opponents=of_observations, aimed=NETWORKS),
    "spread_continuous": World(game="particle/spread", options={"continuous": True}, opponents=of_observations,
                               aimed=NETWORKS, beside=("liam_as_published",)),
    "greedy": World(game="particle/spread", options={}, opponents=greedy_with_slips, aimed=(), beside=NETWORKS),
}  # fmt: skip


def counted(record: Record, size: int, rng: torch.Generator) -> Expects:
    """A table of what was done where."""
    table = Frequencies(record.spec, FrequenciesConfig(), egos=(0,))
    table.fit(record.moments(torch.arange(size)))
    return table


def cloned(
    record: Record, size: int, rng: torch.Generator, *, members: int = 1, components: int = 1
) -> Expects:  # fmt: skip
    """Behaviour cloning: an ensemble of so many members, each a mixture of so many components."""
    config = BehaviourCloningConfig(
        window=size, passes=PASSES, patience=4, entropy_bonus=0.0, members=members, components=components
    )
    bank = BehaviourCloning(record.spec, config, rng, egos=(0,))
    bank.fit(record.moments(torch.arange(size)), rng, held=torch.arange(size) >= (1 - HELD) * size)
    return bank


def cloned_from_history(record: Record, size: int, rng: torch.Generator) -> Expects:
    """A recurrent network that reads the opponent's observations."""
    config = HistoryCloningConfig(sees="opponent", length=LENGTH, updates=UPDATES, evaluate_every=EVERY)
    model = HistoryCloning(record.spec, config, rng, ego=0)
    shown, held = _parted(size)
    model.fit(record, rng, index=shown, held=held)
    return model


def inferred(record: Record, size: int, rng: torch.Generator) -> Expects:
    """Policy inference, as many passes as the clones at most."""
    bank = PolicyInference(record.spec, PolicyInferenceConfig(learning_rate=1e-3), rng, egos=(0,))
    for _ in range(min(UPDATES, PASSES * size // BATCH)):
        moments = record.moments(torch.randint(size, (BATCH,), generator=rng))
        bank.learn(moments.view, moments.act, rng)
    return bank


def encoded(record: Record, size: int, rng: torch.Generator, *, changes: bool = True) -> Expects:
    """LIAM's encoder and decoder, which read what the ego observed and did, and how much that has changed."""
    config = LIAMModelConfig(length=LENGTH, updates=UPDATES, evaluate_every=EVERY, changes=changes)
    model = LIAMModel(record.spec, config, rng, ego=0)
    shown, held = _parted(size)
    model.fit(record, rng, index=shown, held=held)
    return model


def _parted(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Moments to fit to, and to stop by."""
    first = int((1 - HELD) * size)
    return torch.arange(first), torch.arange(first, size)


FAMILIES: dict[str, Callable[[Record, int, torch.Generator], Expects]] = {
    "frequencies": counted, "cloning": cloned, "ensemble": partial(cloned, members=5),
    "mixture": partial(cloned, components=3), "history": cloned_from_history, "inference": inferred, "liam": encoded,
    "liam_as_published": partial(encoded, changes=False),
}  # fmt: skip
"""models of all others, kept by the first agent, after so many moments"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A family on one world and seed, by how much it was shown."""

    world: str
    family: str
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished ones."""
        return f"{self.world}/{self.family}/{self.seed}"

    def run(self) -> Curve:
        """Play, fit and judge."""
        torch.set_num_threads(1)
        started, world = time.perf_counter(), WORLDS[self.world]
        game = world.make()
        opponents = world.opponents(game.spec, torch.Generator().manual_seed(1_000 + self.seed))
        record, apart = (
            _played(game, opponents, count, seed) for count, seed in ((SIZES[-1], self.seed), (JUDGED, 500 + self.seed))
        )
        game.close()
        found: Curve = {"moments": list(SIZES), "nll": [], "floor": [], "kl": []}
        for size in SIZES:
            model = FAMILIES[self.family](record, size, torch.Generator().manual_seed(self.seed))
            qualities = assess(model, apart, truth=opponents.predicted).qualities
            widths = [_dimensions(game.spec, quality.agent) for quality in qualities]
            for name, values in (
                ("nll", [quality.nll for quality in qualities]), ("floor", [quality.floor for quality in qualities]),
                ("kl", [quality.divergence for quality in qualities]),
            ):  # fmt: skip
                found[name].append(float(np.mean(np.array(values) / widths)))
        return {**found, "outcome": found["kl"][-1], **circumstance(started)}


def _played(game: Game, opponents: Stated, moments: int, seed: int) -> Record:
    """At least so many moments, in whole episodes."""
    record, length = Record(game.spec), game.spec.episode_limit or 1
    episodes = -(-moments // (length * COPIES)) * COPIES
    record.play(game, opponents, episodes, seed, rng=torch.Generator().manual_seed(seed))
    return record


def _dimensions(spec: GameSpec, agent: str) -> int:
    """Heads of one-hot actions, or numbers of box actions."""
    return sum(1 if head.kind == "discrete" else head.size for head in spec.agents[spec.index(agent)].heads)


def jobs() -> list[Job]:
    """All of them, seed by seed."""
    return [
        Job(world=name, family=family, seed=seed)
        for seed in SEEDS for name, world in WORLDS.items() for family in world.families
    ]  # fmt: skip


def report() -> None:
    """Figures and the picture from what is finished."""
    done, rng, figures = KEPT.read(), np.random.default_rng(0), dict[str, float]()
    curves: dict[str, dict[str, Band]] = {}
    for name, world in WORLDS.items():
        for family in world.families:
            runs = [done[key] for key in (f"{name}/{family}/{seed}" for seed in SEEDS) if key in done]
            if len(runs) < len(SEEDS):
                raise SystemExit(f"nothing to report yet: {name}/{family} lacks seeds")
            band = SeedCurves.align([(run["moments"], run["kl"]) for run in runs]).band(rng)
            figure = f"kl_{name}_{family}"
            figures |= {figure: float(band.value[-1]), f"{figure}_low": float(band.low[-1]),
                        f"{figure}_high": float(band.high[-1])}  # fmt: skip
            curves.setdefault(name, {})[family] = band
    worst = max(
        run["kl"][-1]
        for name, world in WORLDS.items()
        for run in (done[f"{name}/{family}/{seed}"] for family in world.aimed for seed in SEEDS)
    )  # fmt: skip
    _draw(curves, KEPT.path.parent.parent / "opponent_kl.png")
    write(
        "opponent_kl", figures={"worst_kl_per_dimension": worst, **figures}, seeds=list(SEEDS), made=KEPT.made(),
        depends=KEPT.depends(), aims={"worst_kl_per_dimension": Aim(op="<=", value=LEVEL)},
        notes=f"After {SIZES[-1]:,} moments, of which a fifth is held out for early stopping; interquartile means over "
        "seeds, and the worst of all seeds, of all worlds but `greedy`, and of all families but LIAM as published. The "
        f"models are those of all other agents that the first one keeps. {KEPT.origin()}",
    )  # fmt: skip


def _draw(curves: Mapping[str, Mapping[str, Band]], path: Path) -> None:
    """What NLL is above its floor in the long run, which differs from seed to seed, by moments; a panel for every
    world.
    """
    figure = Figure(figsize=(4.0 * len(curves), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(curves))
    colours, lines = {family: f"C{place}" for place, family in enumerate(FAMILIES)}, {}
    for axes, (name, families) in zip(panels, curves.items(), strict=True):
        for family, band in families.items():
            (lines[family.replace("_", " ")],) = axes.plot(band.x, band.value, marker=".", color=colours[family])
            axes.fill_between(band.x, band.low, band.high, color=colours[family], alpha=0.2, linewidth=0)
        if WORLDS[name].aimed:
            axes.axhline(LEVEL, color="0.45", linestyle=":", linewidth=1.2)
        axes.set(xscale="log", yscale="log", xlabel="moments shown", title=name.replace("_", " "))
        axes.grid(visible=True, alpha=0.25)
    panels[0].set_ylabel("negative log-likelihood above its floor,\nnats per dimension")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
