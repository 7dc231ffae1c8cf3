"""Gymnasium environments, goal environments among them: games of one agent, called "agent"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gymnasium import Env

from presage.envs.lane import Declaration, Moment, Transition, number, require_seed, unpack
from presage.envs.observations import joint_spec

AGENT = "agent"
RESET = ("observation", "info")
STEP = ("observation", "reward", "terminated", "truncated", "info")


class GymnasiumLane:
    """One Gymnasium environment behind joint rows; its registered step limit is the game's episode limit.

    Args:
        env: a `gymnasium.Env`.
        declared: what its author says about it.

    Raises:
        GameError: for spaces that are not supported, and wherever the environment breaks its API.
    """

    def __init__(self, env: Env[Any, Any], declared: Declaration) -> None:
        self._env = env
        name = type(env.unwrapped).__name__ if env.spec is None else env.spec.id
        require_seed(env, name)
        if env.spec is not None and declared.episode_limit is None:
            declared = replace(declared, episode_limit=env.spec.max_episode_steps)
        agent = (AGENT, env.observation_space, env.action_space)
        self.departed: Sequence[int] = []
        self.spec, (self._reader,) = joint_spec(declared, name, [agent], turns=False)

    def reset(self, seed: int, now: Moment, copy: int) -> None:
        observation, info = unpack(self._env.reset(seed=seed), "reset", RESET, self.spec.name)
        self._reader.read(observation, now, copy)
        self._reader.read_mask(observation, info, now, copy)
        now.acting[copy] = True

    def step(self, actions: Sequence[Any], result: Transition, copy: int) -> bool:
        answer = unpack(self._env.step(actions[0]), "step", STEP, self.spec.name)
        observation, reward, terminated, truncated, info = answer
        result.reward[copy] = number(reward, AGENT)
        self._reader.read(observation, result.after, copy)
        if terminated:
            result.terminated[copy] = True
            return True
        result.after.acting[copy] = True
        self._reader.read_mask(observation, info, result.after, copy, over=bool(truncated))
        return bool(truncated)

    def render(self) -> Any:
        return self._env.render()

    def close(self) -> None:
        self._env.close()
