"""Any PettingZoo or Gymnasium environment as a `Game`: several copies, stepped together, as joint rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from pettingzoo import AECEnv, ParallelEnv
from torch import Tensor

from presage.common.game import GameError, Rows, View
from presage.envs.actions import ActionReader
from presage.envs.group import Group
from presage.envs.gymnasium_game import GymnasiumLane
from presage.envs.lane import Declaration, Lane, Moment
from presage.envs.pettingzoo_aec import TurnLane
from presage.envs.pettingzoo_parallel import ParallelLane
from presage.envs.workers import WorkerPool

SHOWN = ("obs", "acting", "legal", "desired")


class ReplayError(GameError):
    """A saved open episode did not replay; `restore(error.boundary)` starts the next episode in the copies it names."""

    def __init__(self, message: str, copies: tuple[int, ...], boundary: dict[str, Any]) -> None:
        super().__init__(message)
        self.copies = copies
        """the copies whose open episode is lost"""
        self.boundary = boundary
        """the saved state with those episodes given up"""


class VectorGame:
    """`copies` copies of an environment behind the `Game` protocol.

    Rows and views lie on the CPU; a view shares its tensors with the rows before and after it.

    An environment's own state is never saved: `restore` starts each open episode again from its seed, plays its
    actions again and compares what is then shown bit by bit.

    Args:
        make_env: builds one environment (a PettingZoo ParallelEnv or AECEnv, or a gymnasium.Env); with workers,
            anything cloudpickle takes.
        copies: games played side by side, >= 1.
        workers: processes that hold the copies between them, at most `copies`; 0 plays them in this process. The
            numbers do not depend on it.
        declared: what the environment's spaces do not tell.

    Raises:
        GameError: for an environment that is not supported or breaks its API or its declaration, an action that is
            not one of this game, `step` before `reset`, and whatever happens in a worker.
    """

    def __init__(
        self, make_env: Callable[[], Any], copies: int, workers: int = 0, declared: Declaration | None = None
    ) -> None:
        if copies < 1:
            raise GameError(f"copies={copies} must be at least 1")
        if not 0 <= workers <= copies:
            raise GameError(f"workers={workers} must lie in 0..copies={copies}")
        declared = declared or Declaration()
        self.goal_rule = declared.goal_rule
        make_lane = partial(open_lane, make_env, declared)
        self._group = WorkerPool(make_lane, copies, workers) if workers else Group(make_lane, 0, copies)
        self.spec = self._group.spec
        self.copies = copies
        self._actions = ActionReader(self.spec)
        self._achieved = list(self.spec.achieved)
        self._no_goal = torch.zeros(copies, 0)
        self._seed = 0
        self._episodes = [0] * copies
        self._played: list[list[np.ndarray]] = [[] for _ in range(copies)]
        self._clock = np.zeros(copies, dtype=np.int32)
        self._now: Moment | None = None
        self._view: View | None = None

    def reset(self, seed: int) -> View:
        """Start episode 0 in every copy; C rows."""
        self._seed, self._episodes = seed, [0] * self.copies
        return self._begin(self._group.reset(seed), [[] for _ in range(self.copies)])

    def step(self, act: Tensor) -> tuple[Rows, View]:
        """Play `act (C, A)` in all copies; the transitions, and the view to act on next."""
        shown, view = self._now, self._view
        if shown is None or view is None:
            raise GameError(f"call reset(seed) before playing {self.spec.name!r}")
        if len(act) != self.copies:
            raise GameError(f"{self.spec.name!r} has {self.copies} copies, got {len(act)} rows of actions")
        act = act.detach().to(device="cpu", dtype=torch.float32, copy=True)
        played = act.numpy()
        self._actions.check(played, shown.acting, shown.legal)
        self._now = None  # where an environment raises, the copies are out of step until the next reset
        result, now = self._group.step(played)
        after = self._see(result.after)
        rows = Rows.of(
            self.spec, view, act, torch.from_numpy(result.reward), after, torch.from_numpy(result.terminated),
            torch.from_numpy(result.truncated), torch.from_numpy(self._clock),
        )  # fmt: skip
        self._clock = self._clock + 1
        for history, row in zip(self._played, played, strict=True):
            history.append(row)
        if now is not result.after:
            self._clock[result.over] = 0
            for c in np.flatnonzero(result.over).tolist():
                self._played[c] = []
                self._episodes[c] += 1
            after = self._see(now)
        self._now, self._view = now, after
        return rows, after

    def state(self) -> dict[str, Any]:
        """Plain data from which `restore` continues exactly: seed, episode numbers, and the open episodes' actions."""
        if self._now is None:
            raise GameError(f"call reset(seed) before saving {self.spec.name!r}")
        played = [row for history in self._played for row in history]
        actions = np.stack(played) if played else np.zeros((0, self.spec.act_dim), dtype=np.float32)
        return {
            "game": self.spec.name,
            "seed": self._seed,
            "episodes": list(self._episodes),
            "lengths": [len(history) for history in self._played],
            "actions": torch.from_numpy(actions),
            "replays": [True] * self.copies,
            **{name: torch.from_numpy(getattr(self._now, name).copy()) for name in SHOWN},
        }

    def restore(self, state: Mapping[str, Any]) -> View:
        """Continue from `state`; returns the view to act on next.

        Raises:
            ReplayError: where an open episode does not replay exactly.
            GameError: where the state is of another game or another number of copies.
        """
        saved = (state["game"], tuple(state["obs"].shape), state["actions"].shape[1])
        wanted = (self.spec.name, (self.copies, self.spec.obs_dim), self.spec.act_dim)
        if saved != wanted:
            raise GameError(f"the saved state is of (game, (copies, O), A) = {saved}; this game is {wanted}")
        lengths: list[int] = list(state["lengths"])
        actions = np.split(state["actions"].numpy(), np.cumsum(lengths)[:-1])
        episodes = [int(episode) for episode in state["episodes"]]
        now, faults = self._group.replay(int(state["seed"]), episodes, actions)
        lost = {}
        for c in np.flatnonzero(state["replays"]).tolist():
            differing = [name for name in SHOWN if not np.array_equal(getattr(now, name)[c], state[name][c].numpy())]
            if faults[c] or differing:
                lost[c] = faults[c] or f"{' and '.join(differing)} differ after {lengths[c]} actions"
        if lost:
            self._now = self._view = None
            raise _lost(self.spec.name, state, episodes, actions, lost)
        self._seed, self._episodes = int(state["seed"]), episodes
        return self._begin(now, [list(part.copy()) for part in actions])

    def render(self, copy: int = 0) -> np.ndarray:
        """Draw one copy; `(H, W, 3)` uint8. Its environments must have been built with render_mode="rgb_array"."""
        if not 0 <= copy < self.copies:
            raise GameError(f"{self.spec.name!r} has copies 0..{self.copies - 1}, got {copy}")
        return self._group.render(copy)

    def close(self) -> None:
        """Close all environments and end all workers."""
        self._group.close()

    def _begin(self, now: Moment, played: list[list[np.ndarray]]) -> View:
        self._played = played
        self._clock = np.array([len(history) for history in played], dtype=np.int32)
        self._now, self._view = now, self._see(now)
        return self._view

    def _see(self, moment: Moment) -> View:
        """The moment as tensors that share its memory; nobody writes to it any more."""
        goals = self.spec.goal_dim > 0
        return View(
            obs=torch.from_numpy(moment.obs),
            acting=torch.from_numpy(moment.acting),
            legal=torch.from_numpy(moment.legal),
            achieved=torch.from_numpy(moment.obs[:, self._achieved]) if goals else self._no_goal,
            desired=torch.from_numpy(moment.desired) if goals else self._no_goal,
        )


def open_lane(make_env: Callable[[], Any], declared: Declaration) -> Lane:
    """One environment behind joint rows, by its type.

    Raises:
        GameError: for an object that is none of the supported types.
    """
    env = make_env()
    if isinstance(env, ParallelEnv):
        return ParallelLane(env, declared)
    if isinstance(env, AECEnv):
        return TurnLane(env, declared)
    if isinstance(env, gymnasium.Env):
        return GymnasiumLane(env, declared)
    raise GameError(
        f"an environment must be a pettingzoo.ParallelEnv, a pettingzoo.AECEnv or a gymnasium.Env, got {env!r} "
        f"of type {type(env).__module__}.{type(env).__qualname__}"
    )


def _lost(
    name: str, state: Mapping[str, Any], episodes: list[int], actions: list[np.ndarray], lost: Mapping[int, str]
) -> ReplayError:  # fmt: skip
    """The refusal, and the state that goes on at the next episode in the copies `lost` (copy: why)."""
    kept = [part[:0] if c in lost else part for c, part in enumerate(actions)]
    boundary = dict(state) | {
        "episodes": [episode + (c in lost) for c, episode in enumerate(episodes)],
        "lengths": [len(part) for part in kept],
        "actions": torch.from_numpy(np.concatenate(kept)),
        "replays": [bool(replays) and c not in lost for c, replays in enumerate(state["replays"])],
    }
    reasons = "; ".join(f"copy {c}: {why}" for c, why in lost.items())
    return ReplayError(
        f"{name!r} does not replay its open episodes exactly ({reasons}); "
        "it resumes at an episode boundary only: restore(error.boundary) starts the next episode in these copies",
        tuple(lost),
        boundary,
    )
