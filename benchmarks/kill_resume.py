"""Runs killed without warning in every phase, resumed, and held against one that was never interrupted.

Every run is a process of its own, which says on a pipe which phase begins. It is killed (SIGKILL) at a random instant
of a phase, again and again: each resumed process is the next one's victim. The last phase that came out of the pipe is
the one that the kill fell into. At last the run is resumed to its end and compared with the uninterrupted one to the
bit: everything that a checkpoint holds, and every line of metrics but durations.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.claims import Aim, write
from presage.common import checkpoint
from presage.common.dyna import DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.metrics import METRICS_FILE, read_metrics, without_times
from presage.common.run import resume, start
from presage.common.scenario import CONFIG_FILE, GameConfig, Scenario
from presage.common.schedules import LengthRamp
from presage.marl.aorpo import AORPOConfig
from presage.marl.masac import MASACConfig

PHASES = ("collection", "fit", "rollout", "update", "checkpoint")
RUNS = 4
"""runs that are killed, once in each phase; each is another seed"""
FIRST_SEED = 0

SMALL = (32, 32)
METHOD = AORPOConfig(
    learner=MASACConfig(hidden=SMALL),
    loop=DynaConfig(
        batch_size=64, updates_per_step=0.5, warmup_steps=100, fit_every=80, rollout_every=40, rollout_starts=32,
        horizon=LengthRamp(start_epoch=0, end_epoch=0, start=3, end=3), replay_capacity=400, kept_rollouts=4,
    ),
    ensemble=EnsembleConfig(members=3, elites=2, hidden=SMALL, outcome_hidden=SMALL),
    fit=FitConfig(max_updates=60, evaluate_every=20),
)  # fmt: skip


def scenario(seed: int) -> Scenario[AORPOConfig]:
    """AORPO on mpe2's spread, which cannot save its own state; the replay wraps around, the horizon is real."""
    return Scenario(
        name="kill_resume", game=GameConfig(name="mpe/simple_spread_v3", copies=2), method=METHOD, steps=800, seed=seed,
        evaluate_every=160, evaluation_episodes=4, checkpoint_every=70, threads=1, device="cpu",
    )  # fmt: skip


def play(folder: Path, seed: int) -> None:
    """What a child process does: start the run in `folder`, or go on with it, and say each phase on standard output."""

    def say(phase: str) -> None:
        os.write(1, f"{phase}\n".encode())

    if (folder / CONFIG_FILE).exists():
        resume(folder, on_phase=say)
    else:
        start(scenario(seed), folder, on_phase=say)


def kill_in(phase: str, folder: Path, seed: int, chance: random.Random) -> str | None:
    """Go on with a run in another process, and kill it at a random instant of a random occurrence of `phase`.

    Returns:
        the phase that the kill fell into; None where the run came to its end before.
    """
    command = [sys.executable, "-m", "benchmarks.kill_resume", str(folder), str(seed)]
    wanted = chance.randint(1, 20 if phase in ("collection", "update") else 3)
    length, began, now, seen = 0.0, time.monotonic(), "", 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        if child.stdout is None:
            raise RuntimeError("the child has no pipe")
        for line in child.stdout:
            moment = time.monotonic()
            if now == phase:  # how long this phase took last time
                length = moment - began
            now, began = line.decode().strip(), moment
            seen += now == phase
            if seen == wanted:
                time.sleep(chance.random() * length)
                child.send_signal(signal.SIGKILL)
                break
        rest = child.stdout.read().decode().splitlines()  # what it said before it died
    return (rest[-1] if rest else now) if child.returncode == -signal.SIGKILL else None


def kills_of(folder: Path, seed: int, chance: random.Random) -> Counter[str]:
    """Kill one run in every phase, in random order, and then resume it to its end."""
    counts: Counter[str] = Counter()
    for phase in chance.sample(PHASES, len(PHASES)):
        while counts[phase] == 0:
            hit = kill_in(phase, folder, seed, chance)
            if hit is None:
                raise RuntimeError(f"the run ended before it was killed in {phase}; give it more steps")
            counts[hit] += 1
            print(f"seed {seed}: wanted {phase}, killed in {hit}", flush=True)
    resume(folder)
    return counts


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a tree, with its path."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}/{index}")
    else:
        yield path, tree


def last_state(folder: Path) -> dict[str, Any]:
    """All that the newest checkpoint holds but the length of the metrics file, in which durations are written."""
    found = checkpoint.latest(folder / "checkpoints")
    if found is None:
        raise RuntimeError(f"{folder} has no checkpoint")
    tree = checkpoint.load(found)
    del tree["schedule"][3]
    return dict(leaves(tree))


def compare(whole: Path, killed: Path) -> tuple[float, int, int]:
    """Largest difference of a parameter or optimiser moment; values of any kind, and metric lines, that differ."""
    ours, theirs = last_state(whole), last_state(killed)
    largest, differing = 0.0, len(ours.keys() ^ theirs.keys())
    for path in ours.keys() & theirs.keys():
        first, second = (np.asarray(value) for value in (ours[path], theirs[path]))
        floats = first.dtype.kind == "f" and first.shape == second.shape
        if floats and path.startswith("/learner/") and first.size:
            largest = max(largest, float(np.nanmax(np.abs(first - second), initial=0.0)))
        differing += not np.array_equal(first, second, equal_nan=floats)
    lines = [[json.dumps(r) for r in without_times(read_metrics(f / METRICS_FILE))] for f in (whole, killed)]
    unlike = sum(a != b for a, b in zip(*lines, strict=False)) + abs(len(lines[0]) - len(lines[1]))
    return largest, differing, unlike


def main() -> None:
    """Measure, and keep the figures."""
    torch.set_num_threads(1)
    chance = random.Random(0)
    kills: Counter[str] = Counter()
    found = []
    seeds = range(FIRST_SEED, FIRST_SEED + RUNS)
    with tempfile.TemporaryDirectory() as place:
        for seed in seeds:
            whole, killed = Path(place, f"whole_{seed}"), Path(place, f"killed_{seed}")
            start(scenario(seed), whole)
            kills += kills_of(killed, seed, chance)
            found.append(compare(whole, killed))
    figures = {
        "kills": kills.total(),
        "kills_in_rarest_phase": min(kills[phase] for phase in PHASES),
        "max_parameter_difference": max(largest for largest, _, _ in found),
        "differing_values": sum(differing for _, differing, _ in found),
        "differing_metric_lines": sum(unlike for _, _, unlike in found),
    }
    nothing = Aim(op="<=", value=0)
    write(
        "kill_resume",
        figures=figures,
        aims={
            "kills": Aim(op=">=", value=20),
            "kills_in_rarest_phase": Aim(op=">=", value=3),
            "max_parameter_difference": nothing,
            "differing_values": nothing,
            "differing_metric_lines": nothing,
        },
        depends=["common", "marl", "envs"],
        seeds=list(seeds),
        notes=(
            f"{RUNS} runs of AORPO on mpe2's spread, killed by phase: "
            f"{', '.join(f'{phase} {count}' for phase, count in sorted(kills.items()))}; 1 thread, CPU; parameters and "
            "optimiser moments of all networks, then every value of the last checkpoint, replays included"
        ),
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        play(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
