"""Rows per second that a hindsight replay gives out, goals and rewards drawn anew, beside Stable-Baselines3's buffer
and tianshou's.

A million rows are stored, in episodes of 50, of the widths of Fetch's pushing (25 observed, 3 of a goal, 4 of an
action); four of five rows get a future goal. All sides take turns, round after round, in batches of three sizes, and
medians are compared. Stable-Baselines3 is in a process of its own and gives tensors; tianshou gives arrays, relabels
whole episodes in its storage, and gives seven of eight of them other goals, as it comes.

`_bare` is what no relabelling can go below: drawing and gathering the same rows without other goals.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from tianshou.data import Batch, HERReplayBuffer

from benchmarks.claims import Aim, imported, write
from benchmarks.peer_process import PeerProcess
from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import AgentSpec, GameSpec, Head, Rows, View
from presage.common.memory import keep_freed_memory
from presage.envs.goal_rules import DistanceRule
from presage.gcrl.hindsight import Hindsight

PEER = "benchmarks/peers/sb3_her.py"
ROWS, HORIZON, OBS, GOAL, ACT = 1_000_000, 50, 25, 3, 4
BATCHES = (256, 1_024, 16_384)
COPIES = 8
"""lanes of our replay: as many rows in all"""


def game_spec() -> GameSpec:
    """The widths of Fetch's pushing; the achieved goal is the object's place in the observation."""
    agent = AgentSpec(
        name="agent", obs=tuple(range(OBS)), heads=(Head(kind="box", size=ACT),), goal=tuple(range(GOAL)),
        low=(-1.0,) * ACT, high=(1.0,) * ACT, shape=(ACT,),
    )  # fmt: skip
    return GameSpec(name="push", agents=(agent,), obs_dim=OBS, goal_dim=GOAL, achieved=(3, 4, 5), episode_limit=HORIZON)


def ours() -> tuple[Callable[[int], object], Callable[[int], object]]:
    """Calls that give out a batch, relabelled, and as it is stored."""
    spec, rng = game_spec(), torch.Generator().manual_seed(0)
    replay = EpisodicReplay(spec, ROWS, COPIES)
    relabel = Hindsight(spec, DistanceRule(threshold=0.05))
    for start in range(0, ROWS // COPIES, HORIZON):
        size = HORIZON * COPIES
        step = torch.arange(HORIZON).repeat_interleave(COPIES)
        view, after = (
            View.of(spec, torch.randn(size, OBS, generator=rng), desired=torch.randn(size, GOAL, generator=rng))
            for _ in range(2)
        )
        never, act = torch.zeros(size, 1, dtype=torch.bool), torch.rand(size, ACT, generator=rng)
        replay.extend(Rows.of(spec, view, act, -torch.ones(size, 1), after, never, step == HORIZON - 1, step))
        assert start + HORIZON <= ROWS // COPIES

    def bare(batch: int) -> Rows:
        return replay.rows(replay.sample(batch, rng))

    def relabelled(batch: int) -> Rows:
        index = replay.sample(batch, rng)
        return relabel(replay, index, replay.rows(index), rng)

    return relabelled, bare


def tianshou() -> Callable[[int], object]:
    """A call that samples from tianshou's buffer."""

    def reward(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        return np.where(np.linalg.norm(achieved - desired, axis=-1) > 0.05, np.float32(-1.0), np.float32(0.0))

    buffer, rng = HERReplayBuffer(ROWS, compute_reward_fn=reward, horizon=HORIZON), np.random.default_rng(0)
    widths = {"observation": OBS, "achieved_goal": GOAL, "desired_goal": GOAL}
    for k in range(ROWS):
        now, after = (
            Batch({name: rng.normal(size=width).astype(np.float32) for name, width in widths.items()}) for _ in range(2)
        )
        action = rng.uniform(-1.0, 1.0, ACT).astype(np.float32)
        over = (k + 1) % HORIZON == 0
        buffer.add(Batch(obs=now, act=action, rew=-1.0, terminated=False, truncated=over, obs_next=after, info=Batch()))
    return buffer.sample


def timed(call: Callable[[int], object], batch: int, count: int) -> list[float]:
    """Seconds of each of `count` batches."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call(batch)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measure all sides in turn, and keep the ratios of their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2, help="of torch, on both sides")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    peer = PeerProcess("sb3", PEER, ["--threads", str(options.threads)])
    versions = peer.ask("open", rows=ROWS, horizon=HORIZON, obs=OBS, goal=GOAL, act=ACT)
    relabelled, bare = ours()
    theirs = tianshou()
    figures: dict[str, float] = {}
    for batch in BATCHES:
        count = max(2, 16_384 // batch)
        sides: dict[str, Callable[[], list[float]]] = {
            "presage": partial(timed, relabelled, batch, count),
            "bare": partial(timed, bare, batch, count),
            "sb3": partial(peer.ask, "sample", batch=batch, count=count),
            "tianshou": partial(timed, theirs, batch, 2),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for round_ in range(-1, options.rounds):
            for name, side in sides.items():
                seconds = side()
                if round_ >= 0:
                    times[name] += seconds
        median = {name: statistics.median(seconds) for name, seconds in times.items()}
        figures |= {f"{name}_{batch}_rows_per_s": round(batch / seconds) for name, seconds in median.items()}
        figures |= {f"over_{name}_{batch}": median[name] / median["presage"] for name in ("sb3", "tianshou", "bare")}
    peer.end()
    write(
        "her_speed", figures=figures, depends=[*imported(), PEER],
        aims={"over_sb3_256": Aim(op=">=", value=3.0), "over_sb3_16384": Aim(op=">=", value=3.0),
              "over_tianshou_256": Aim(op=">=", value=50.0)},
        versions={f"{name} (peer)": number for name, number in versions.items()},
        notes=f"{options.threads} threads, float32; medians of {options.rounds} rounds in turn; `over_x` is x's time "
        f"over ours. Peer: `.peers/sb3/bin/python {PEER}`, HerReplayBuffer's defaults. tianshou: HERReplayBuffer's "
        "defaults, in our process.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
