"""Stable-Baselines3's hindsight replay, timed on request; runs in its environment, and imports nothing of presage.

It answers one line of JSON on stdin with one on stdout until stdin ends, so that the other side can take turns with it.
Requests have a "do" and its arguments:

- open (rows, horizon, obs, goal, act): a buffer that is full of so many rows in episodes of `horizon`, of one copy,
  with its own defaults: four of five goals by "future", no infos. Rewards are Fetch's, over whole batches.
- sample (batch, count): seconds of each of `count` batches, tensors on the CPU.
"""

import argparse
import json
import sys
import time
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv


class Reaching(gymnasium.Env[Any, Any]):
    """Spaces, and what goals are worth; it is never stepped."""

    def __init__(self, obs: int, goal: int, act: int) -> None:
        widths = {"observation": obs, "achieved_goal": goal, "desired_goal": goal}
        self.observation_space = gymnasium.spaces.Dict(
            {name: gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32) for name, width in widths.items()}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (act,), np.float32)

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, _info: Any) -> np.ndarray:
        """-1 farther than 5 cm from the goal, else 0, `(B,)`."""
        return np.where(np.linalg.norm(achieved - desired, axis=-1) > 0.05, np.float32(-1.0), np.float32(0.0))


def full(rows: int, horizon: int, obs: int, goal: int, act: int) -> HerReplayBuffer:
    """A buffer of random rows."""
    env = DummyVecEnv([lambda: Reaching(obs, goal, act)])
    buffer = HerReplayBuffer(rows, env.observation_space, env.action_space, env, device="cpu")
    rng = np.random.default_rng(0)
    widths = {"observation": obs, "achieved_goal": goal, "desired_goal": goal}
    now = {name: rng.normal(size=(1, width)).astype(np.float32) for name, width in widths.items()}
    for k in range(rows):
        after = {name: rng.normal(size=(1, width)).astype(np.float32) for name, width in widths.items()}
        after["desired_goal"] = now["desired_goal"]
        over = (k + 1) % horizon == 0
        action = rng.uniform(-1.0, 1.0, (1, act)).astype(np.float32)
        buffer.add(now, after, action, np.array([-1.0]), np.array([over]), [{"TimeLimit.truncated": over}])
        now = {**after, "desired_goal": rng.normal(size=(1, goal)).astype(np.float32)} if over else after
    return buffer


def timed(buffer: HerReplayBuffer, batch: int, count: int) -> list[float]:
    """Seconds of each of `count` batches."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        buffer.sample(batch)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Answer requests until there are no more."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    torch.set_num_threads(parser.parse_args().threads)
    buffer: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        if do == "open":
            buffer = full(**request)
            answer: Any = {name: version(name) for name in ("stable-baselines3", "torch", "numpy")}
        else:
            answer = timed(buffer, **request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
