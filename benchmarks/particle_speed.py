"""Env steps per CPU-second of three particle games: ours, mpe2's, and VMAS's, at 1 to 16,384 copies.

A step counts with all that comes of it: observations, rewards, ends, and the next episodes of copies that have come to
their 25 steps. CPU time and not wall time, on one thread and on two, the best of three repetitions; all sides in one
run, one after the other. Actions are drawn beforehand.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims import Aim, imported, write
from presage.envs.particle import SCENARIOS, ParticleGame

ROOT = Path(__file__).resolve().parent.parent
GAMES = {
    "spread": ("simple_spread_v3", "simple_spread"), "tag": ("simple_tag_v3", "simple_tag"),
    "speaker_listener": ("simple_speaker_listener_v4", "simple_speaker_listener"),
}  # fmt: skip
"""ours: mpe2's, VMAS's"""
COPIES = (1, 32, 1_024, 16_384)
EPISODE, REPETITIONS = 25, 3
PEER = "benchmarks/peers/vmas_speed.py"


def ours(name: str, copies: int, seconds: float) -> float:
    """Env steps of our batched game per CPU-second."""
    game = ParticleGame(SCENARIOS[name](), copies)
    view, rng = game.reset(0), torch.Generator().manual_seed(0)
    actions = [game.spec.random_action(view.acting, view.legal, rng) for _ in range(EPISODE)]

    def episode() -> None:
        for act in actions:
            game.step(act)

    return rate(episode, EPISODE * copies, seconds)


def mpe2s(module: str, seconds: float) -> float:
    """Env steps of mpe2's parallel environment per CPU-second."""
    env: Any = importlib.import_module(f"mpe2.{module}").parallel_env()
    env.reset(seed=0)
    actions = [{agent: env.action_space(agent).sample() for agent in env.agents} for _ in range(EPISODE)]

    def episode() -> None:
        env.reset()
        for act in actions:
            env.step(act)

    return rate(episode, EPISODE, seconds)


def single_copy(name: str, seconds: float) -> dict[str, float]:
    """Microseconds of CPU time of a single copy's step, and of its tensor work alone: as it is, traced, compiled.

    Tracing and compiling are the remedies for the price of small tensors; what they cannot take is the rest of a step.
    """
    game = ParticleGame(SCENARIOS[name](), 1)
    view, rng = game.reset(0), torch.Generator().manual_seed(0)
    act = game.spec.random_action(view.acting, view.legal, rng)
    rules, state = game.rules, game.rules.draw(1, rng)

    def work(state: torch.Tensor, act: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        after = rules.move(state, act, None)
        return after, rules.see(after)["obs"], rules.rewards(state, act, after)

    ways = {"tensors": work, "traced": torch.jit.trace(work, (state, act)), "compiled": torch.compile(work)}  # type: ignore[no-untyped-call]  # torch's
    found = {"step": 1e6 / ours(name, 1, seconds)}
    for way, compute in ways.items():
        for _ in range(20):
            compute(state, act)
        found[way] = 1e6 / rate(lambda compute=compute: compute(state, act), 1, seconds)
    return {f"{name}_1_{way}_us": cost for way, cost in found.items()}


def rate(episode: Any, steps: int, seconds: float) -> float:
    """`steps` per CPU-second of `episode`, the best of several repetitions."""
    best = 0.0
    for _ in range(REPETITIONS):
        count, start = 0, time.process_time()
        while time.process_time() - start < seconds:
            episode()
            count += steps
        best = max(best, count / (time.process_time() - start))
    return best


def vmas(threads: int, seconds: float) -> tuple[dict[str, float], dict[str, str]]:
    """VMAS's speeds by scenario and copies, from its own environment.

    Raises:
        SystemExit: that environment has not been built.
    """
    python = ROOT / ".peers" / "vmas" / "bin" / "python"
    if not python.exists():
        raise SystemExit("VMAS's environment is not there: run `make peers`, then this again")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        command = [
            str(python), str(ROOT / PEER), "--scenarios", *(peer for _, peer in GAMES.values()),
            "--copies", *map(str, COPIES), "--threads", str(threads), "--seconds", str(seconds), "--out", str(out),
        ]  # fmt: skip
        subprocess.run(command, cwd=folder, check=True)
        found = json.loads(out.read_text(encoding="utf-8"))
    return found["speeds"], found["versions"]


def main() -> None:
    """Measure all sides, on one thread and on two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of a repetition")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    versions: dict[str, str] = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        end = "" if threads == 1 else "_two_threads"
        theirs, versions = vmas(threads, options.seconds)
        for name, (module, peer) in GAMES.items():
            speeds = {copies: ours(name, copies, options.seconds) for copies in COPIES}
            reference = mpe2s(module, options.seconds)
            figures[f"{name}_mpe2_per_cpu_s{end}"] = round(reference)
            figures[f"{name}_1_over_mpe2{end}"] = speeds[1] / reference
            for copies, speed in speeds.items():
                figures[f"{name}_{copies}_per_cpu_s{end}"] = round(speed)
                figures[f"{name}_{copies}_vmas_per_cpu_s{end}"] = round(theirs[f"{peer}/{copies}"])
                figures[f"{name}_{copies}_over_vmas{end}"] = speed / theirs[f"{peer}/{copies}"]
            if threads == 1 and figures[f"{name}_1_over_mpe2"] < 1:
                figures |= single_copy(name, options.seconds)
            print(name, threads, {copies: round(speed) for copies, speed in speeds.items()}, flush=True)
    least = {"spread_32_over_vmas": 3.0, "tag_1024_over_vmas": 3.0}
    aims = {
        f"{name}_{copies}_over_vmas": Aim(op=">=", value=least.get(f"{name}_{copies}_over_vmas", 1.0))
        for name in GAMES for copies in COPIES
    }  # fmt: skip
    aims |= {f"{name}_1_over_mpe2": Aim(op=">=", value=1.0) for name in GAMES}
    aims["spread_1024_per_cpu_s"] = Aim(op=">=", value=100_000.0)
    write(
        "particle_speed", figures=figures, aims=aims, seeds=[0], depends=[*imported(), PEER],
        versions={f"{name} (peer)": number for name, number in versions.items()},
        notes=f"float32; VMAS: `.peers/vmas/bin/python {PEER}`, its `make_env` with discrete actions on the CPU. Its "
        "games are ports with physics of their own; ours are mpe2's to the last digits (`particle_parity`). Where a "
        "single copy is slower than mpe2, three remedies: cheaper checks and rewards (in place; a tenth of the step), "
        "tracing and compiling the tensor work (figures `_us`, not in place: the second needs a compiler and half a "
        "minute). The ceiling is the step less its tensor work.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
