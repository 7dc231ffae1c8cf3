"""What an ensemble's gradient step, its imagined steps and a PETS action cost beside their bare matrix products and
beside mbrl-lib, and how long both libraries train until held-out rows are equally likely.

Seven members of four hidden layers of 200, batches of 256, for 17 and 54 observed numbers; five elites imagine. All
sides take turns, round after round, the peer in a process that waits in between, and medians are compared, so that a
drift of the machine's speed hits all of them alike.

- fit: one gradient step with all that belongs to it, the making of the mini-batch included. Ours is timed inside
  `EnsembleFitter.fit`, from the end of one optimiser step to the end of the next, in MBPO's released form
  (`MBPOConfig.paper`): likelihood, learned bounds, L2 per layer, bootstrap.
- imagine: a branch of one step from real rows (`init`, then `step`), every row's elite drawn anew, noise included.
- pets_action: a whole action of `PlanningActor`: 350 plans of 30 steps, 5 iterations, 20 particles that keep their
  elite. Both sides plan with the 5 elites of their 7 members (the paper has 5 members; the products are the same).
- time to NLL: from the first line of the fit to the first look at which the test rows' NLL is at or below the one of
  the ensemble that mbrl-lib's trainer returns in the end. mbrl-lib looks after every epoch, we every 100 updates; the
  scoring of the test rows is not counted. Ours has the suite's own numbers (standardised targets, all rows for every
  member) at the same widths, but fits the likelihood and has no linear path: what is asked for is likelihood. It keeps
  averages of its weights; their share and the step size were chosen on systems of another law (`--law 123`), the loss
  and the lack of a linear path on these. Both hold a fifth of the 20,000 rows out, each in its own way; the test rows
  are others that neither sees.

Our process keeps the memory that it frees, as training does (`presage.common.memory`); mbrl-lib's is as its authors
start it, and its gradient steps, imagined steps and actions are timed in a second process as well, which keeps its
memory too (`_mbrl_kept`).

What the remedies for our own overhead bring, beside the bare products of the same rounds: memory that is given back
(`_given_back`: what training did before), one thread in place of two (`_one_thread`: products gain from the second,
small tensors do not), all rows of a member through each layer at once (`_whole`: what was done before rows went through
all layers in parts that a processor's cache holds), and a loss or a network that torch compiles (`_compiled`). The
ceiling (`_floor`) is the products with what no code can leave out, a kernel each: activations, their derivatives and
Adam's step; for imagined steps and actions activations, the gathering of rows for their members, and noise.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.bare_products import floor_of_fit, floor_of_imagining, products
from benchmarks.claims import Aim, imported, write
from benchmarks.peer_process import PeerProcess
from presage.common import ensemble, fit, propagation
from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import ALL_AGENTS, AgentSpec, GameSpec, Head, Rows, View, Window
from presage.common.held_out_scores import HeldOut
from presage.common.memory import keep_freed_memory
from presage.common.model_predictive import PlanningActor
from presage.common.networks import StackedMLP
from presage.common.planning import CEM
from presage.common.propagation import EnsembleKernel

PEER = "benchmarks/peers/mbrl_ensemble.py"
SIZES = ((17, 6), (54, 15))
"""observed numbers and action entries: HalfCheetah's, and three-agent spread's"""
MEMBERS, ELITES, HIDDEN, BATCH, TRAIN, TEST = 7, 5, (200,) * 4, 256, 20_000, 2_000
ROWS = (400, 10_000, 100_000)
PARTICLES, PLANNER = 20, CEM(horizon=30, population=350, elites=35, iterations=5, smoothing=0.1)
PAPER = EnsembleConfig(
    members=MEMBERS, elites=ELITES, hidden=HIDDEN, linear_skip=False, normalise_targets=False, reward_input="joint"
)
PAPER_FIT = FitConfig(loss="likelihood", learning_rate=1e-3, batch_size=BATCH, bootstrap=True, holdout_stretch=1)
OWN = EnsembleConfig(members=MEMBERS, elites=ELITES, hidden=HIDDEN, linear_skip=False, reward_input="joint")
OWN_FIT = FitConfig(batch_size=BATCH, loss="likelihood", score="likelihood", learning_rate=3e-3, average=0.99)
Side = Callable[[], list[float]]
"""one turn of what is timed: seconds of each of some calls"""


@dataclass(frozen=True, kw_only=True)
class System:
    """A smooth system with noise of its own everywhere, of which every number is known.

    The mean change of an observation under an action is a linear drift and push, and a sum of 32 waves, of whose
    variance a linear map explains about seven tenths; the noise of every column is a logistic ridge between 0.02 and
    0.1. The reward is the first column of the next observation less a tenth of the mean square of the action.
    """

    obs: int
    act: int
    law: int = 0
    """seed of the drift, push, waves and noise"""

    def draw(self, rows: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Independent rows: `obs (B, O)` standard normal, `act (B, A)` uniform in [-1, 1], `next_obs`, `reward (B, 1)`;
        and what is true of the targets, `(B, O + 1)`: `targets`, `mean` and `std`, the observation's change first.
        """
        law = torch.Generator().manual_seed(self.law)
        width = self.obs + self.act
        push, turn, back, loud = (
            torch.randn(*shape, generator=law) / math.sqrt(shape[0])
            for shape in ((self.act, self.obs), (width, 32), (32, self.obs), (width, self.obs))
        )
        obs = torch.randn(rows, self.obs, generator=rng)
        act = 2.0 * torch.rand(rows, self.act, generator=rng) - 1.0
        both = torch.cat([obs, act], 1)
        change = -0.1 * obs + 0.1 * act @ push + 0.3 * (1.2 * both @ turn).sin() @ back
        std = 0.02 + 0.08 * (both @ loud).sigmoid()
        noisy = change + std * torch.randn(change.shape, generator=rng)
        price = 0.1 * act.square().mean(1, keepdim=True)
        return {
            "obs": obs, "act": act, "next_obs": obs + noisy, "reward": (obs + noisy)[:, :1] - price,
            "targets": torch.cat([noisy, (obs + noisy)[:, :1] - price], 1),
            "mean": torch.cat([change, (obs + change)[:, :1] - price], 1), "std": torch.cat([std, std[:, :1]], 1),
        }  # fmt: skip

    @property
    def spec(self) -> GameSpec:
        """The game's contract."""
        agent = AgentSpec(
            name="agent", obs=tuple(range(self.obs)), heads=(Head(kind="box", size=self.act),),
            low=(-1.0,) * self.act, high=(1.0,) * self.act, shape=(self.act,),
        )  # fmt: skip
        return GameSpec(name="smooth", agents=(agent,), obs_dim=self.obs)


def nll(mean: NDArray[Any], std: NDArray[Any], target: NDArray[Any]) -> float:
    """Nats per column by which members find rows unlikely: the mean over members, rows and columns, in float64.

    Args:
        mean, std: `(E, B, C)` normal predictions of every member, in the targets' own units. target: `(B, C)`.
    """
    mean, std = mean.astype(np.float64), std.astype(np.float64)
    return float((0.5 * ((target - mean) / std) ** 2 + np.log(std) + 0.5 * math.log(2 * math.pi)).mean())


def reached(seconds: Sequence[float], found: Sequence[float], target: float) -> float:
    """The first of `seconds` at which `found` is at or below `target`; infinity where none is."""
    return next((at for at, value in zip(seconds, found, strict=True) if value <= target), math.inf)


def mbrl(threads: int, *, keep_memory: bool = False) -> PeerProcess:
    """mbrl-lib in a process of its own; see its file for what it answers.

    Args:
        threads: of torch. keep_memory: start it so that it keeps the memory that it frees.
    """
    kept = {"MALLOC_TRIM_THRESHOLD_": 2**31 - 1, "MALLOC_TOP_PAD_": 64 << 20, "MALLOC_MMAP_THRESHOLD_": 1 << 30}
    return PeerProcess(
        "mbrl", PEER, ["--threads", str(threads)],
        {name: str(value) for name, value in kept.items()} if keep_memory else None,
    )  # fmt: skip


class Watched(EnsembleFitter):
    """A fit that scores test rows at every look, with the clock stopped."""

    def watch(self, test: dict[str, Tensor]) -> None:
        """Start the clock; `test` holds rows of a `System`."""
        self.test, self.began, self.paused = test, time.perf_counter(), 0.0
        self.seconds: list[float] = []
        self.found: list[float] = []

    def _score(self, found: HeldOut) -> Tensor:
        score = super()._score(found)
        now = time.perf_counter()
        self.seconds.append(now - self.began - self.paused)
        self.found.append(self.judged())
        self.paused += time.perf_counter() - now
        return score

    @torch.no_grad()
    def judged(self) -> float:
        """The test rows' NLL by all members."""
        network = self.ensemble.state_network
        inputs = torch.cat([self.test["obs"], self.test["act"]], 1)
        answer = network.predict(inputs, network.select(slice(None)))
        return nll(answer.mean.numpy(), answer.std.numpy(), self.test["targets"].numpy())


class Ours:
    """The suite's ensemble on one data set, in the paper's form."""

    def __init__(self, system: System, train: dict[str, Tensor]) -> None:
        self.spec, self.train, self.rng = system.spec, train, torch.Generator().manual_seed(1)
        self.rows = rows_of(self.spec, train)
        self.ensemble = DynamicsEnsemble(self.spec, PAPER, torch.Generator().manual_seed(0))

    def steps(self, count: int) -> list[float]:
        """Seconds of each of `count - 1` gradient steps inside one fit of `count`."""
        config = FitConfig(**{**vars(PAPER_FIT), "max_updates": count, "evaluate_every": count})
        fitter = EnsembleFitter(self.ensemble, config, torch.Generator().manual_seed(2))
        ends: list[float] = []
        fitter.optimisers["state"].register_step_post_hook(lambda *_: ends.append(time.perf_counter()))
        fitter.fit(self.rows, self.rng)
        if len(ends) != count:
            raise RuntimeError(f"{count} optimiser steps were expected, {len(ends)} seen")
        return [after - before for before, after in pairwise(ends)]

    def imagine(self, rows: int) -> Callable[[], object]:
        """A call that imagines one step of `rows` branches."""
        index = torch.arange(rows) % len(self.rows)
        window, act = self.window(index), self.train["act"][index]
        kernel, ego = EnsembleKernel(self.ensemble, "fresh"), torch.full((rows,), ALL_AGENTS)
        return lambda: kernel.step(kernel.init(window, ego, self.rng), window.now, act, self.rng)

    def action(self) -> Callable[[], object]:
        """A call that plans one action."""
        actor = PlanningActor(
            self.spec, EnsembleKernel(self.ensemble, "fixed", PARTICLES), PLANNER, particles=PARTICLES
        )
        window = self.window(torch.arange(1))
        carry = actor.init(window)
        return lambda: actor.step(carry, window.now, self.rng)

    def window(self, index: Tensor) -> Window:
        """Windows of one frame that end at the training rows at `index`."""
        view = View.of(self.spec, self.train["obs"][index])
        valid = torch.ones(len(index), 1, dtype=torch.bool)
        return Window(obs=view.obs[:, None], act=torch.zeros(len(index), 1, self.spec.act_dim), valid=valid, now=view)


def rows_of(spec: GameSpec, drawn: dict[str, Tensor]) -> Rows:
    """Rows of a `System` as a fit takes them, each an episode of its own."""
    size = len(drawn["obs"])
    view, after = View.of(spec, drawn["obs"]), View.of(spec, drawn["next_obs"])
    never = torch.zeros(size, 1, dtype=torch.bool)
    return Rows.of(spec, view, drawn["act"], drawn["reward"], after, never, never[:, 0], torch.zeros(size))


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def time_to_nll(
    system: System, drawn: dict[str, Tensor], test: dict[str, Tensor], peer: PeerProcess, seed: int, epochs: int | None
) -> dict[str, float]:
    """Seconds of both sides to mbrl-lib's own final NLL, and what both end at, for one seed.

    Args:
        epochs: after which mbrl-lib's training is cut short; None: its patience decides.
    """
    with tempfile.TemporaryDirectory() as folder:
        seconds = peer.ask("train", seed=seed, out=folder, epochs=epochs)

        def judged(epoch: int) -> float:
            mean, std = (np.load(Path(folder, f"{part}_{epoch}.npy")) for part in ("mean", "std"))
            return nll(mean, std, test["targets"].numpy())

        target = judged(-1)
        theirs = reached(seconds, [judged(epoch) for epoch in range(len(seconds))], target)
    ensemble = DynamicsEnsemble(system.spec, OWN, torch.Generator().manual_seed(seed))
    rows, rng = rows_of(system.spec, drawn), torch.Generator().manual_seed(seed + 1)
    fitter = Watched(ensemble, OWN_FIT, rng)
    fitter.watch(test)
    fitter.fit(rows, rng)
    ours = reached(fitter.seconds, fitter.found, target)
    return {
        "mbrl_nll": target, "nll": fitter.judged(), "mbrl_seconds_to_nll": theirs, "seconds_to_nll": ours,
        "mbrl_seconds_of_fit": seconds[-1], "seconds_of_fit": fitter.seconds[-1],
        "mbrl_time_to_nll_over_ours": theirs / ours,
    }  # fmt: skip


def plain_sides(system: System, ours: Ours) -> dict[str, Side]:
    """Our gradient steps, imagined steps and planned actions, and the bare products of each behind `_products`."""
    widths = widths_of(system)
    planned_step = products(ELITES, PLANNER.population * PARTICLES // ELITES, widths, backward=False)
    sides: dict[str, Side] = {
        "fit": partial(ours.steps, 21),
        "fit_products": partial(timed, products(MEMBERS, BATCH, widths, backward=True), 20),
        "pets_action": partial(timed, ours.action(), 1),
        "pets_action_products": partial(timed, planned(planned_step), 1),
    }
    for rows in ROWS:
        count, bare = calls(rows), products(ELITES, rows // ELITES, widths, backward=False)
        sides[f"imagine_{rows}"] = partial(timed, ours.imagine(rows), count)
        sides[f"imagine_{rows}_products"] = partial(timed, bare, count)
    return sides


def remedy_sides(system: System, ours: Ours) -> dict[str, Side]:
    """Remedies that are tried beside what is done, and the floors."""
    widths, planned_rows = widths_of(system), PLANNER.population * PARTICLES

    def patched(thing: object, name: str, value: object, side: Side) -> list[float]:
        with patch.object(thing, name, value):
            return side()

    plain = plain_sides(system, ours)
    torch.compiler.reset()  # else it gives up after eight shapes
    loss, network = (torch.compile(code, dynamic=False) for code in (fit.network_loss, StackedMLP._run))
    compiled = partial(patched, StackedMLP, "_run", network)
    whole = partial(patched, ensemble, "CHUNK", sys.maxsize // 2)
    with patch.object(propagation, "WHOLE_PLANS", ensemble.WHOLE):
        parts = ours.action()
    sides: dict[str, Side] = {
        "fit_compiled": partial(patched, fit, "network_loss", loss, plain["fit"]),
        "fit_floor": partial(timed, floor_of_fit(MEMBERS, BATCH, widths), 20),
        "pets_action_compiled": partial(compiled, plain["pets_action"]),
        "pets_action_parts": partial(timed, parts, 1),
        "pets_action_floor": partial(timed, planned(floor_of_imagining(ELITES, planned_rows, widths)), 1),
    }
    for rows in ROWS:
        name = f"imagine_{rows}"
        sides[f"{name}_compiled"] = partial(compiled, plain[name])
        sides[f"{name}_whole"] = partial(whole, plain[name])
        sides[f"{name}_floor"] = partial(timed, floor_of_imagining(ELITES, rows, widths), calls(rows))
    return sides


def planned(step: Callable[[], object]) -> Callable[[], None]:
    """`step` as often as one planned action imagines a step of all its plans."""

    def run() -> None:
        for _ in range(PLANNER.iterations * PLANNER.horizon):
            step()

    return run


def peer_sides(peer: PeerProcess, end: str) -> dict[str, Side]:
    """What mbrl-lib is asked for, each name with `end` behind it; its actions are last."""
    sides: dict[str, Side] = {f"fit{end}": partial(peer.ask, "steps", count=20)}
    for rows in ROWS:
        sides[f"imagine_{rows}{end}"] = partial(peer.ask, "imagine", rows=rows, count=calls(rows))
    return sides | {f"pets_action{end}": partial(peer.ask, "act", count=1)}


def widths_of(system: System) -> list[int]:
    """The layers of one network."""
    return [system.obs + system.act, *HIDDEN, 2 * (system.obs + 1)]


def calls(rows: int) -> int:
    """Calls of a turn that imagine `rows` rows each."""
    return max(1, 10_000 // rows)


def medians(sides: Mapping[str, Side], rounds: int, plans: int = 0) -> dict[str, float]:
    """Median seconds of every side, over rounds in which all take turns; the first one, which warms up, is not counted.

    Args:
        plans: rounds in which planned actions are timed.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(-1, rounds):
        for name, side in sides.items():
            if name.startswith("pets_action") and round_ >= plans:
                continue
            seconds = side()
            if round_ >= 0:
                times[name] += seconds
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def over_products(median: Mapping[str, float], end: str = "") -> dict[str, float]:
    """The times of sides in times of their bare products, `x_over_products`.

    Args:
        end: put behind every side's name.
    """
    found = {}
    for name, seconds in median.items():
        start = re.sub("_(floor|compiled|whole)$", "", name)
        if f"{start}_products" in median:
            found[f"{name}{end}_over_products"] = seconds / median[f"{start}_products"]
    return found


def speeds(system: System, ours: Ours, peers: Sequence[PeerProcess], rounds: int, plans: int) -> dict[str, float]:
    """Milliseconds of all sides and their ratios.

    Args:
        peers: mbrl-lib as it is, and where it keeps its memory. rounds: of gradient steps and imagined steps.
        plans: rounds of planned actions.
    """
    sides = plain_sides(system, ours) | remedy_sides(system, ours)
    for peer, end in zip(peers, ("_mbrl", "_mbrl_kept"), strict=True):
        sides |= peer_sides(peer, end)
    median = medians(sides, rounds, plans)
    found = {f"{name}_ms": 1e3 * seconds for name, seconds in median.items()} | over_products(median)
    for name in [name for name in median if f"{name}_mbrl" in median]:
        for whose in ("mbrl", "mbrl_kept"):
            found[f"{name}_over_{whose}"] = median[f"{name}_{whose}"] / median[name]
            found[f"{name}_products_over_{whose}"] = median[f"{name}_{whose}"] / median[f"{name}_products"]
    for rows in ROWS:
        for whose in ("", "_products", "_mbrl", "_mbrl_kept"):
            found[f"imagine_{rows}{whose}_per_s"] = round(rows / median[f"imagine_{rows}{whose}"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found |= over_products(medians(plain_sides(system, ours), rounds // 2, (plans + 1) // 2), "_one_thread")
    torch.set_num_threads(threads)
    return found


def main() -> None:
    """Measure every size, and keep the worst ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2, help="of torch, on both sides")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--plans", type=int, default=5, help="rounds of planned actions")
    parser.add_argument("--seeds", type=int, default=3, help="fits to the NLL")
    parser.add_argument("--law", type=int, default=0, help="seed of the systems; others print, and keep nothing")
    parser.add_argument("--quick", action="store_true", help="few rounds, short fits; print, and keep nothing")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.plans, options.seeds = 3, 1, 1
    epochs = 6 if options.quick else None
    torch.set_num_threads(options.threads)
    figures: dict[str, float] = {}
    versions: dict[str, str] = {}
    peers = [mbrl(options.threads), mbrl(options.threads, keep_memory=True)]
    systems = [System(obs=obs, act=act, law=options.law) for obs, act in SIZES]
    data = [
        (system.draw(TRAIN, rng), system.draw(TEST, rng))
        for system, rng in ((system, torch.Generator().manual_seed(1)) for system in systems)
    ]
    given_back = []
    for system, (drawn, _) in zip(systems, data, strict=True):
        sides = plain_sides(system, Ours(system, drawn))
        given_back.append(over_products(medians(sides, options.rounds // 2, (options.plans + 1) // 2), "_given_back"))
    if not keep_freed_memory():
        print("this C library cannot be asked to keep freed memory: figures are those of memory that is given back")
    for system, (drawn, test), before in zip(systems, data, given_back, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            for prefix, part in (("", drawn), ("test_", test)):
                for name, tensor in part.items():
                    np.save(Path(folder, f"{prefix}{name}.npy"), tensor.numpy())
            for peer in peers:
                versions = peer.ask("open", folder=folder, obs=system.obs, act=system.act)
        mean, std, targets = (test[part].numpy() for part in ("mean", "std", "targets"))
        found = {"nll_of_the_truth": nll(mean[None], std[None], targets)} | before
        fits = [time_to_nll(system, drawn, test, peers[0], seed, epochs) for seed in range(options.seeds)]
        with tempfile.TemporaryDirectory() as folder:
            peers[1].ask("train", seed=0, out=folder, epochs=1)  # it has to have an ensemble
        found |= {name: statistics.median(each[name] for each in fits) for name in fits[0]}
        found |= speeds(system, Ours(system, drawn), peers, options.rounds, options.plans)
        end = f"_{system.obs}_{system.act}"
        for name, value in found.items():
            print(f"{name}{end} {value:.6g}", flush=True)
        figures |= {f"{name}{end}": value for name, value in found.items() if math.isfinite(value)}
    for peer in peers:
        peer.end()
    worst: dict[str, Callable[[list[float]], float]] = {
        "fit_over_products": max, "imagine_over_products": max, "pets_action_over_products": max,
        "mbrl_time_to_nll_over_ours": min, "imagine_over_mbrl": min, "imagine_over_mbrl_kept": min,
        "imagine_products_over_mbrl": min,
    }  # fmt: skip
    for name, choose in worst.items():
        start, end = name.split("_over_")
        first, *rest = start.split("_", 1)
        parts = ["_".join([first, str(rows), *rest]) for rows in ROWS] if first == "imagine" else [start]
        figures[name] = choose([figures[f"{part}_over_{end}_{obs}_{act}"] for part in parts for obs, act in SIZES])
        print(f"{name} {figures[name]:.4g}")
    if options.quick or options.law:
        return
    write(
        "ensemble_speed", figures=figures, seeds=list(range(options.seeds)), depends=[*imported(), PEER],
        aims={
            "fit_over_products": Aim(op="<=", value=1.15), "imagine_over_products": Aim(op="<=", value=1.3),
            "pets_action_over_products": Aim(op="<=", value=1.3),
            "mbrl_time_to_nll_over_ours": Aim(op=">=", value=3.0), "imagine_over_mbrl": Aim(op=">=", value=1.5),
        },
        versions={f"{name} (peer)": number for name, number in versions.items()},
        notes=f"{options.threads} threads, float32; 7 x (4 x 200), batch {BATCH}, {TRAIN:,} rows; medians of "
        f"{options.rounds} rounds in turn ({options.plans} of actions), of {options.seeds} fits; half as many rounds "
        "where memory is given back and on one thread. `_over_` takes the worst size. `x_over_mbrl` is mbrl-lib's time "
        "over ours. Peer: `.peers/mbrl/bin/python "
        f"{PEER}`, configured as in its examples (mbpo_halfcheetah; pets_cartpole's planner with 30 steps).",
    )  # fmt: skip


if __name__ == "__main__":
    main()
