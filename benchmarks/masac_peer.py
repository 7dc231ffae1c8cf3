"""Our MASAC beside BenchMARL's on cooperative navigation: what both have learned after 5,000 env steps.

- "ours": the scenario `spread_masac` with two updates per env step. "ours, plain": without geometry and renamings, so
  that its networks read what the peer's read and learn from the rows that the peer's learn from.
- "peer, recommended": every number as BenchMARL ships it. Its loop then collects 6,000 env steps at a time, makes 1,000
  updates and evaluates, so that it is given 12,000. "peer, matched": every number of ours that BenchMARL has a field
  for; how its networks share weights, how its critics are laid out and how it clips gradients stay its own.

A run's score is its mean return over the evaluations of its last 1,000 env steps, 64 episodes of greedy actions each;
an arm's is the interquartile mean over seeds. Whether both sides play the same game is checked first: the same random
actions from the same seeds have to give the same returns.

The peer's runs are not resumed: those that are interrupted begin again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.claims import Aim, commit, imported, machine, write
from benchmarks.long_runs import EPISODES, ROOT, Curve, Curves, train_curve, work_through
from presage.common import plugins
from presage.common.curves import SeedCurves
from presage.common.game import episode_seed
from presage.common.intervals import RESAMPLES, Array, interquartile_mean, percentiles, score_interval
from presage.common.parts import Parts
from presage.common.report import plot_curves
from presage.common.scenario import Scenario

ARMS = {
    "ours": "our", "ours, plain": "our_plain",
    "peer, recommended": "peer_recommended", "peer, matched": "peer_matched",
}  # fmt: skip
"""by label, what an arm's figures begin with"""
PEERS = ("peer, recommended", "peer, matched")
SEEDS = (0, 1, 2)
STEPS, EVALUATE_EVERY, LAST = 5_000, 500, 1_000
"""env steps of a run, between two evaluations, and at the end of a run that are scored"""
SHIPPED_STEPS = 12_000
"""of the peer with its own numbers, which make a thousand updates in 6,000 env steps"""
UPDATES_PER_STEP = 2.0
"""of our arms and of the matched peer: MASAC's best in the sweep of `spread_aorpo`"""
EVALUATED = 64
"""episodes of an evaluation"""
KEPT = Curves("masac_peer")
PEER_FILES = ["benchmarks/peers/benchmarl_masac.py", "benchmarks/peers/requirements-benchmarl.txt"]
ALIKE = 1e-3
"""how far the two sides' returns of one episode may lie apart: they are sums of 32-bit rewards"""


def ours(plain: bool) -> Scenario[Any]:
    """Our MASAC, as it is or without what it is told about the game's structure."""
    scenario: Scenario[Any] = plugins.load("scenario", "spread_masac")
    learner, loop = scenario.method.learner, replace(scenario.method.loop, updates_per_step=UPDATES_PER_STEP)
    if plain:
        learner, loop = replace(learner, geometry=False), replace(loop, symmetries=False)
    return replace(scenario, method=replace(scenario.method, learner=learner, loop=loop))


def matched() -> dict[str, dict[str, Any]]:
    """Our numbers under BenchMARL's names, by configuration and field."""
    scenario = ours(plain=True)
    learner, loop, copies = scenario.method.learner, scenario.method.loop, scenario.game.copies
    return {
        "experiment": {
            "gamma": learner.discount, "lr": learner.learning_rate, "polyak_tau": learner.target_rate,
            "adam_eps": 1e-8, "off_policy_collected_frames_per_batch": copies, "off_policy_n_envs_per_worker": copies,
            "off_policy_n_optimizer_steps": round(loop.updates_per_step * copies),
            "off_policy_train_batch_size": loop.batch_size, "off_policy_init_random_frames": loop.warmup_steps,
            "off_policy_memory_size": loop.replay_capacity,
        },
        "algorithm": {
            "alpha_init": learner.initial_temperature,
            "discrete_target_entropy_weight": learner.discrete_entropy_share,
        },
        "model": {
            "num_cells": list(learner.hidden),
            "activation_class": {"relu": "ReLU", "silu": "SiLU", "tanh": "Tanh"}[learner.activation],
        },
    }  # fmt: skip


def ask_peer(*arguments: str) -> Any:
    """What the peer's command answers, run in the peer's own environment.

    Raises:
        SystemExit: that environment has not been built.
        RuntimeError: the command fails; the end of what it said.
    """
    python = ROOT / ".peers" / "benchmarl" / "bin" / "python"
    if not python.exists():
        raise SystemExit("BenchMARL's environment is not there: run `make peers`, then this again")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        command = [str(python), str(ROOT / PEER_FILES[0]), *arguments, "--out", str(out)]
        asked = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if asked.returncode:
            raise RuntimeError(f"{PEER_FILES[0]} {arguments[0]} ended with {asked.returncode}:\n{asked.stderr[-3000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


def same_game(rounds: int = 8) -> Curve:
    """Random actions from the same seeds on both sides: both mean returns, over 64 episodes a round.

    Raises:
        ValueError: an episode's returns differ, so that learning curves could not be compared.
    """
    scenario, rng = ours(plain=True), torch.Generator().manual_seed(0)
    game = Parts.of(scenario).evaluation_game(scenario.game, EVALUATED)
    spec, limit = game.spec, 25
    seeds: list[int] = []
    actions: list[list[list[int]]] = []
    found: list[float] = []
    for round_ in range(rounds):
        view, total = game.reset(round_), torch.zeros(game.copies)
        played: list[list[list[int]]] = [[] for _ in range(game.copies)]
        for _ in range(limit):
            act = spec.random_action(view.acting, view.legal, rng)
            for moves, row in zip(played, act.numpy(), strict=True):
                moves.append([int(move) for move in spec.to_env(row).values()])
            rows, view = game.step(act)
            total += rows.reward.mean(1)
        if not bool(rows.truncated.all()):
            raise ValueError(f"an episode of {spec.name!r} must end after {limit} steps")
        seeds += [episode_seed(round_, copy, 0) for copy in range(game.copies)]
        actions += played
        found += total.tolist()
    game.close()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "episodes.json")
        path.write_text(json.dumps({"seeds": seeds, "actions": actions}), encoding="utf-8")
        theirs = ask_peer("play", "--episodes", str(path))
    apart = float(np.abs(np.subtract(found, theirs)).max())
    if apart > ALIKE:
        raise ValueError(f"the returns of one episode under the same actions lie {apart} apart: these are two games")
    return {"ours": float(np.mean(found)), "peer": float(np.mean(theirs)), "apart": apart}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run."""

    arm: str
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{ARMS[self.arm]}/{self.seed}"

    @property
    def steps(self) -> int:
        """Its budget of env steps."""
        return SHIPPED_STEPS if self.arm == "peer, recommended" else STEPS

    def run(self) -> Curve:
        """Run it to its end."""
        if self.arm in PEERS:
            torch.set_num_threads(1)  # as the peer's process does: the machine is noted with it
            changes = matched() if self.arm == "peer, matched" else {}
            curve: Curve = ask_peer(
                "train", "--seed", str(self.seed), "--steps", str(self.steps), "--episodes", str(EVALUATED),
                "--evaluate-every", str(EVALUATE_EVERY), "--changes", json.dumps(changes),
            )  # fmt: skip
            where = f"{machine()}, torch {curve['versions']['torch']}"
            return curve | {"changes": changes, "commit": commit([*imported(), *PEER_FILES], ROOT), "machine": where}
        scenario = replace(
            ours(plain=self.arm == "ours, plain"), steps=self.steps, seed=self.seed, threads=1, device="cpu",
            evaluate_every=EVALUATE_EVERY, checkpoint_every=4 * EVALUATE_EVERY, keep_checkpoints=1,
            evaluation_episodes=EVALUATED, evaluation_seed=EPISODES,
        )  # fmt: skip
        return train_curve(scenario, KEPT.folder(self.key))


def jobs(seeds: Sequence[int] = SEEDS, arms: Sequence[str] = tuple(ARMS)) -> list[Job]:
    """The runs of the comparison, seed after seed."""
    return [Job(arm=arm, seed=seed) for seed in seeds for arm in arms]


def score(curve: Curve) -> float:
    """Mean return over the evaluations of the last env steps."""
    steps = np.asarray(curve["env_steps"])
    late = steps > steps[-1] - LAST
    return float(np.asarray(curve["returns"])[late].mean())


def difference(scores: Array, others: Array, rng: np.random.Generator) -> tuple[float, float, float]:
    """Interquartile mean of one arm's seeds `(S,)` minus that of another's, and the ends of its bootstrap interval."""
    drawn = [
        interquartile_mean(s[rng.integers(len(s), size=(RESAMPLES, len(s)))], axis=1) for s in (scores, others)
    ]  # fmt: skip
    low, high = percentiles(drawn[0] - drawn[1])
    return float(interquartile_mean(scores) - interquartile_mean(others)), float(low), float(high)


def report() -> None:
    """Figures and the picture of the curves from the finished runs."""
    done = KEPT.read()
    keys = {arm: [Job(arm=arm, seed=seed).key for seed in SEEDS] for arm in ARMS}
    runs = {arm: [done[key] for key in keys[arm] if key in done] for arm in ARMS}
    absent = [arm for arm, curves in runs.items() if not curves]
    if absent or "random" not in done:
        raise SystemExit(f"nothing to report yet: no finished run of {', '.join(absent) or 'the random policy'}")
    rng, random = np.random.default_rng(0), done["random"]
    figures: dict[str, float] = {"random_ours": random["ours"], "random_peer": random["peer"]}
    scores = {arm: np.asarray([score(curve) for curve in curves]) for arm, curves in runs.items()}
    for arm, prefix in ARMS.items():
        interval = score_interval(scores[arm], rng)
        figures |= {
            f"{prefix}_return": interval.value, f"{prefix}_return_low": interval.low,
            f"{prefix}_return_high": interval.high, f"{prefix}_seeds": len(runs[arm]),
            f"{prefix}_seconds": float(np.mean([curve["seconds"] for curve in runs[arm]])),
        }  # fmt: skip
    best = max(PEERS, key=lambda arm: figures[f"{ARMS[arm]}_return"])
    for arm in ("ours", "ours, plain"):
        name, found = f"{ARMS[arm]}_return_minus_peers_best", difference(scores[arm], scores[best], rng)
        figures |= dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
    peer = runs[PEERS[0]][0]["versions"]
    path = write(
        "masac_peer", figures=figures, seeds=list(SEEDS), made=KEPT.made(), depends=[*KEPT.depends(), *PEER_FILES],
        aims={"our_plain_return_minus_peers_best": Aim(op=">=", value=0)},
        versions={f"{name} (peer)": version for name, version in peer.items()},
        notes=f"The peer's best arm is '{best}'. Peer: `.peers/benchmarl/bin/python {PEER_FILES[0]} train --seed SEED "
        f"--steps STEPS --evaluate-every {EVALUATE_EVERY} --episodes {EVALUATED} --out FILE`, for the matched arm "
        f"with --changes '{json.dumps(matched())}'. Its parallel copies get seeds of their own, and its matched arm "
        f"makes no updates during the warm-up. {KEPT.origin()}",
    )  # fmt: skip
    bands = {
        arm: SeedCurves.align([(curve["env_steps"], curve["returns"]) for curve in curves]).band(rng)
        for arm, curves in runs.items()
    }
    plot_curves(bands, path.with_suffix(".png"), levels={"random": random["ours"]})
    print(path.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS), help="what to run; all by default")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS), help="all by default")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--hours", type=float, default=24.0, help="start no run after this")
    parser.add_argument("--report-only", action="store_true", help="read the finished runs alone")
    options = parser.parse_args()
    if not options.report_only:
        if "random" not in KEPT.read():
            KEPT.keep("random", same_game())
        work_through(KEPT, lambda: jobs(options.seeds, options.arms), options.processes, options.hours)
    report()
