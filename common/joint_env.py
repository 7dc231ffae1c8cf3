"""A game as a gymnasium environment over flat joint vectors, so that tianshou's collectors can play it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from presage.common.game import Game, GameError, View
from presage.common.policy import joint_action_space


class JointEnv(gym.Env[np.ndarray, np.ndarray]):
    """One copy of a game: observations `(O,)`, actions `(A,)`, rewards `(N,)`, or a float with one agent.

    Action samples are one-hot where the game's actions are, so that random collection plays legal moves.
    """

    def __init__(self, game: Game) -> None:
        """
        Args:
            game: with a single copy; it is played and closed by this environment alone.

        Raises:
            GameError: the game has several copies, or turns, deaths, illegal actions or goals, which have no place in
                tianshou's batches.
        """
        spec = game.spec
        if game.copies != 1:
            raise GameError(f"a gymnasium environment is one copy of a game, got {spec.name!r} in {game.copies} copies")
        if spec.acting_varies or spec.legal_varies or spec.goal_dim:
            raise GameError(
                f"{spec.name!r} has turns, deaths, illegal actions or goals, which tianshou's collectors do not keep; "
                "train it by presage's own loop, `presage train` or presage.common.run"
            )
        self.game = game
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (spec.obs_dim,))
        self.action_space = joint_action_space(spec)
        self._next: View | None = None
        """the first view of an episode that the game has begun by itself and no `reset` has shown yet"""
        self._playing = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode: the game's next one after one that ended, else the first of a new seed."""
        super().reset(seed=seed)
        if seed is not None or self._next is None:
            self._next = self.game.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        obs, self._next, self._playing = self._next.obs, None, True
        return _row(obs), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Play the joint action `(A,)`; the episode has terminated once it has for all agents.

        Raises:
            GameError: no episode is open, or the action is not one of the game.
        """
        if not self._playing:
            raise GameError(f"no episode of {self.game.spec.name!r} is open; call reset() before step()")
        rows, view = self.game.step(torch.as_tensor(action, dtype=torch.float32)[None])
        terminated, truncated = bool(rows.terminated.all()), bool(rows.truncated[0])
        if terminated or truncated:
            self._next, self._playing = view, False
        reward = _row(rows.reward) if self.game.spec.n > 1 else float(rows.reward)
        return _row(rows.next_obs), reward, terminated, truncated, {}

    def close(self) -> None:
        """Free what the game holds."""
        self.game.close()


def _row(batch: torch.Tensor) -> np.ndarray:
    """The only row of `(1, X)`, as an array of its own."""
    return batch[0].to("cpu", torch.float32, copy=True).numpy()
