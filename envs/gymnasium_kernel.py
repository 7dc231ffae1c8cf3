"""Imagining in a Gymnasium environment itself: the limit that a perfect model sets, where its state can be put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from presage.common.game import Carry, GameError, GameSpec, Outcome, View, Window
from presage.envs.actions import ActionReader
from presage.envs.gymnasium_game import AGENT
from presage.envs.lane import number

PutBack = Callable[[gymnasium.Env[Any, Any], np.ndarray], None]
"""sets an environment's state to the one with this observation `(O,)`, in double precision"""


class GymnasiumKernel:
    """A kernel that sets the state of one environment and steps it, row after row.

    It is exact, and as slow as the environment: made for measuring a limit, not for training by it. The next
    observation is that of the environment at the state put back, so that observations have to determine it.

    Args:
        spec: the game's.
        env: the environment without its wrappers (`env.unwrapped`), so that no step limit ends a branch.
        put_back: sets its state.
        device: where the imagined rows live.

    Raises:
        GameError: the game has goals, which an observation does not hold.
    """

    def __init__(
        self, spec: GameSpec, env: gymnasium.Env[Any, Any], put_back: PutBack, *, device: torch.device | str = "cpu"
    ) -> None:
        if spec.goal_dim:
            raise GameError(
                f"{spec.name!r} has goals of {spec.goal_dim} numbers; an environment is put back to the state of an "
                "observation, which holds none; write a kernel for this game, such as presage.envs.fetch_push_kernel"
            )
        self.spec, self.device = spec, torch.device(device)
        self._env, self._put_back = env, put_back
        self._actions = ActionReader(spec)
        env.reset(seed=0)  # some environments refuse a first step without it; no state of it is kept

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        """Nothing to remember: each step starts from what is seen."""
        return None

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        """One step of all branches under `act (B, A)`."""
        seen = view.obs.double().cpu().numpy()
        after, reward, over = np.empty_like(seen), np.empty(len(seen)), np.empty(len(seen), dtype=bool)
        for row, (action,) in enumerate(self._actions.read(act.cpu().numpy())):
            self._put_back(self._env, seen[row])
            after[row], value, over[row], _, _ = self._env.step(action)
            reward[row] = number(value, AGENT)
        obs, rewards = (torch.as_tensor(x, dtype=view.obs.dtype, device=self.device) for x in (after, reward))
        terminated = torch.as_tensor(over, device=self.device)
        return None, Outcome(after=View.of(self.spec, obs), reward=rewards[:, None], terminated=terminated[:, None])
