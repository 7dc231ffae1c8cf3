from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mpe2 import simple_spread_v3

from presage.common.game import GameError
from presage.envs.lane import Declaration
from presage.envs.vector import VectorGame
from tests.envs.probes import AGENTS, ClockGame

MORTAL = partial(ClockGame, {"walker": 2, "caller": 5, "sitter": 4}, dict.fromkeys(AGENTS, "terminated"))


def equal(first: Any, second: Any) -> bool:
    return all(torch.equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))


@pytest.mark.parametrize(
    ("make_env", "acting_varies"),
    [(partial(simple_spread_v3.parallel_env, max_cycles=4), False), (MORTAL, True)],
    ids=["spread", "agents-that-die"],
)
def test_the_numbers_do_not_depend_on_workers(make_env: Callable[[], Any], acting_varies: bool) -> None:
    declared = Declaration(acting_varies=acting_varies)
    here, there = (VectorGame(make_env, 3, workers, declared) for workers in (0, 2))
    assert here.spec == there.spec
    rng = torch.Generator().manual_seed(0)
    view, other = here.reset(3), there.reset(3)
    for _ in range(9):
        assert equal(view, other)
        act = here.spec.random_action(view.acting, view.legal, rng)
        rows, view = here.step(act)
        more, other = there.step(act)
        assert equal(rows, more)
    saved = here.state()
    assert equal(there.restore(saved), view)
    assert equal(VectorGame(make_env, 3, 3, declared).restore(saved), view)
    there.close()


class Troubled(gymnasium.Env[np.ndarray, np.integer[Any]]):
    """Counts its steps; an action 1 brings trouble."""

    observation_space = spaces.Box(-1.0, 99.0, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, trouble: Callable[[], Any]) -> None:
        self._trouble, self._t = trouble, 0
        self.render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._t = 0
        return np.zeros(1), {}

    def step(self, action: np.integer[Any]) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if action == 1:
            self._trouble()
        self._t += 1
        return np.full(1, self._t), 0.0, False, False, {}

    def render(self) -> np.ndarray:
        return np.full((2, 2, 3), self._t, dtype=np.uint8)


def fail() -> None:
    raise RuntimeError("the pole broke")


def vanish() -> None:
    os._exit(13)


CALM, TROUBLE = [1.0, 0.0], [0.0, 1.0]


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (fail, r"worker 1 \(copies 2\.\.3\): RuntimeError: the pole broke"),
        (vanish, r"worker 1 \(copies 2\.\.3\): its process ended with exit code 13"),
    ],
)
def test_what_happens_in_a_worker_arrives_as_one_sentence(trouble: Callable[[], None], message: str) -> None:
    game = VectorGame(partial(Troubled, trouble), 4, workers=2)
    game.reset(0)
    rows, _ = game.step(torch.tensor([CALM] * 4))
    assert rows.next_obs.tolist() == [[1.0]] * 4
    assert game.render(3).tolist() == [[[1] * 3] * 2] * 2
    with pytest.raises(GameError, match=message):
        game.step(torch.tensor([CALM, CALM, CALM, TROUBLE]))
    with pytest.raises(GameError, match="have ended; make the game again"):
        game.reset(0)


def test_an_environment_that_cannot_be_built_says_so_from_its_worker() -> None:
    with pytest.raises(GameError, match=r"worker 0 \(copies 0\.\.1\): an environment must be a pettingzoo"):
        VectorGame(dict, 2, workers=1)


def test_a_local_function_builds_environments_in_workers() -> None:
    steps = 3
    game = VectorGame(lambda: simple_spread_v3.parallel_env(max_cycles=steps), 2, workers=1)
    view = game.reset(0)
    act = game.spec.random_action(view.acting, view.legal, torch.Generator())
    assert [game.step(act)[0].truncated.tolist() for _ in range(3)] == [[False] * 2, [False] * 2, [True] * 2]
    game.close()


PARENT = """
import time
from functools import partial
import gymnasium
from presage.envs.vector import VectorGame
if __name__ == "__main__":
    game = VectorGame(partial(gymnasium.make, "CartPole-v1"), 2, workers=2)
    game.reset(0)
    print(*(process.pid for process in game._group._processes), flush=True)
    time.sleep(600)
"""


def running(pid: int) -> bool:
    """Whether a process is there and not waiting to be collected."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks processes up in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path: Any) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(running, workers))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))
