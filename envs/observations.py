"""From an environment's own observations, action masks and goals to the joint arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from gymnasium import spaces

from presage.common.game import AgentSpec, GameError, GameSpec
from presage.envs.lane import Declaration, Moment

MASK = "action_mask"
GOALS = ("achieved_goal", "desired_goal")


class Reader:
    """Reads what one agent is shown: numbers, goals where its space is a goal environment's, and its action mask.

    A Box is flattened, a Discrete becomes one-hot, a Tuple or Dict is flattened part by part. A Dict that holds an
    `action_mask`, or `observation`, `achieved_goal` and `desired_goal`, is taken apart first; the achieved goal is
    appended to the observation unless `achieved` tells where the observation already holds it.

    Args:
        agent: its name, for messages.
        space: its observation space.
        achieved: indices into its flattened observation that hold its achieved goal, None where none do.

    Raises:
        GameError: for a space that has no fixed width, or `achieved` indices that do not fit it.
    """

    def __init__(self, agent: str, space: spaces.Space[Any], achieved: Sequence[int] | None) -> None:
        self.agent = agent
        inside = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
        self.masked = inside.pop(MASK, None) is not None
        goals = [inside.pop(key) for key in GOALS] if {"observation", *GOALS} <= inside.keys() else []
        self._key = "observation" if inside.keys() == {"observation"} and (goals or self.masked) else None
        self._core = inside["observation"] if self._key else spaces.Dict(inside) if inside else space
        self._shape = self._core.shape if isinstance(self._core, spaces.Box) else None
        self._goals = tuple(zip(GOALS, goals, strict=False))
        self._width = _width(agent, self._core)
        self.goal_width = 0
        if goals:
            widths = [_width(agent, goal) for goal in goals]
            if widths[0] != widths[1]:
                raise GameError(f"agent {agent!r}: its achieved goal has {widths[0]} numbers, its desired {widths[1]}")
            self.goal_width = widths[0]
        self._achieved = list(achieved) if achieved is not None and goals else None
        if self._achieved is not None and (
            len(self._achieved) != self.goal_width or not all(0 <= k < self._width for k in self._achieved)
        ):
            raise GameError(
                f"agent {agent!r}: achieved={tuple(self._achieved)} must be {self.goal_width} indices "
                f"into an observation of {self._width} numbers"
            )
        self.width = self._width + (self.goal_width if goals and self._achieved is None else 0)
        self.place(0, 0, slice(0, 0), masks=self.masked)

    def place(self, obs: int, goal: int, act: slice, *, masks: bool) -> None:
        """Fix where this agent's numbers begin in the joint observation and goal, its slice of the action, and whether
        its game declares action masks.
        """
        self.obs = slice(obs, obs + self.width)
        self._numbers = slice(obs, obs + self._width)
        self._appended = slice(obs + self._width, obs + self.width)
        self.goal = slice(goal, goal + self.goal_width)
        self._act = act
        self._masks = masks

    @property
    def achieved(self) -> tuple[int, ...]:
        """Indices into the joint observation that hold this agent's achieved goal."""
        inside = range(self._width, self.width) if self._achieved is None else self._achieved
        return tuple(self.obs.start + k for k in inside)

    def read(self, observation: Any, moment: Moment, copy: int) -> None:
        """Write `observation` into row `copy` of `moment`.

        Raises:
            GameError: where it does not fit the agent's space.
        """
        core = observation
        if self._key is not None:
            core = self._part(observation, self._key)
        if self._shape is not None:
            numbers = np.asarray(core)
            if numbers.shape != self._shape:
                raise GameError(f"agent {self.agent!r} was shown shape {numbers.shape}; its space says {self._shape}")
            moment.obs[copy, self._numbers] = numbers if numbers.ndim == 1 else numbers.reshape(-1)
        else:
            moment.obs[copy, self._numbers] = _flatten(self.agent, self._core, core)
        if self._goals:
            achieved, desired = (_flatten(self.agent, s, self._part(observation, key)) for key, s in self._goals)
            moment.desired[copy, self.goal] = desired
            numbers = moment.obs[copy, self._numbers]
            if self._achieved is None:
                moment.obs[copy, self._appended] = achieved
            elif not np.array_equal(numbers[self._achieved], achieved.astype(np.float32)):
                raise GameError(
                    f"agent {self.agent!r}: its observation does not hold the achieved goal {achieved.tolist()} "
                    f"at indices {self._achieved}; correct achieved=... or leave it out, and the goal is appended"
                )

    def read_mask(self, observation: Any, info: Any, moment: Moment, copy: int, *, over: bool = False) -> None:
        """Write the action mask shown in `observation` or `info`, if any, into row `copy` of `moment`.

        Args:
            over: the episode has ended; a mask without a legal entry then leaves everything legal.

        Raises:
            GameError: for a mask of another width, or an agent to act that has no legal action.
        """
        holder = observation if self.masked else info if isinstance(info, Mapping) and MASK in info else None
        if holder is None:
            return
        if not self.masked and not self._masks:
            raise GameError(f"agent {self.agent!r} is shown an action mask in its info; pass legal_varies=True")
        given = self._part(holder, MASK)
        parts = given if isinstance(given, tuple | list) else (given,)
        mask = np.concatenate([np.asarray(part, dtype=np.bool_).reshape(-1) for part in parts])
        width = self._act.stop - self._act.start
        if mask.size != width:
            raise GameError(f"agent {self.agent!r}: its action mask has {mask.size} entries; its action has {width}")
        if mask.any():
            if not self._masks and not mask.all():
                raise GameError(
                    f"agent {self.agent!r} may only choose {np.flatnonzero(mask).tolist()} of {width} entries, but its "
                    "game declares legal_varies=False; pass legal_varies=True"
                )
            moment.legal[copy, self._act] = mask
        elif not over:
            raise GameError(f"agent {self.agent!r} is to act, and its action mask leaves it no legal action")

    def _part(self, observation: Any, key: str) -> Any:
        try:
            return observation[key]
        except (KeyError, TypeError, IndexError) as error:
            raise GameError(f"agent {self.agent!r} was shown {observation!r}, which has no {key!r}") from error


def joint_spec(
    declared: Declaration, name: str, agents: Sequence[tuple[str, spaces.Space[Any], spaces.Space[Any]]], *, turns: bool
) -> tuple[GameSpec, tuple[Reader, ...]]:
    """The spec of a game whose joint observation is every agent's own, side by side, and a reader for each agent.

    Args:
        declared: what its author says about it.
        name: its name where the author gives none.
        agents: name, observation space and action space of each, in slice order.
        turns: agents act one after another.

    Raises:
        GameError: for spaces that are not supported.
    """
    readers = tuple(Reader(agent, space, declared.achieved) for agent, space, _ in agents)
    if declared.achieved is not None and not any(reader.goal_width for reader in readers):
        raise GameError(f"achieved={declared.achieved} was given, but no agent of {declared.name or name!r} has a goal")
    obs = list(accumulate((reader.width for reader in readers), initial=0))
    goal = list(accumulate((reader.goal_width for reader in readers), initial=0))
    specs = [
        AgentSpec.from_space(agent, range(o, o + r.width), space, range(g, g + r.goal_width))
        for (agent, _, space), r, o, g in zip(agents, readers, obs, goal, strict=False)
    ]
    act = list(accumulate((spec.width for spec in specs), initial=0))
    masks = any(reader.masked for reader in readers) if declared.legal_varies is None else declared.legal_varies
    for i, reader in enumerate(readers):
        reader.place(obs[i], goal[i], slice(act[i], act[i + 1]), masks=masks)
    spec = GameSpec(
        name=declared.name or name,
        agents=tuple(specs),
        obs_dim=obs[-1],
        goal_dim=goal[-1],
        achieved=tuple(k for reader in readers for k in reader.achieved),
        frames=declared.frames,
        vectors=declared.vectors,
        symmetries=declared.symmetries,
        known=declared.known,
        episode_limit=declared.episode_limit,
        terminates=True if declared.terminates is None else declared.terminates,
        acting_varies=turns if declared.acting_varies is None else declared.acting_varies,
        legal_varies=masks,
    )
    return spec, readers


def _width(agent: str, space: spaces.Space[Any]) -> int:
    try:
        return int(spaces.flatdim(space))
    except (NotImplementedError, ValueError) as error:
        raise GameError(f"agent {agent!r} observes {space}, which has no fixed width; wrap the environment") from error


def _flatten(agent: str, space: spaces.Space[Any], value: Any) -> np.ndarray:
    """`value` as one vector (Gymnasium's flattening), after the checks that Gymnasium's leaves out."""
    _check(agent, space, value)
    return np.asarray(spaces.flatten(space, value))


def _check(agent: str, space: spaces.Space[Any], value: Any) -> None:
    """Raise GameError unless `value` has the parts and shapes of `space`; Box bounds and dtypes are not held to."""
    if isinstance(space, spaces.Box):
        fits = np.shape(value) == space.shape
    elif isinstance(space, spaces.Dict):
        fits = isinstance(value, Mapping) and space.spaces.keys() <= value.keys()
    elif isinstance(space, spaces.Tuple):
        fits = isinstance(value, tuple | list) and len(value) == len(space.spaces)
    else:
        fits = space.contains(value)
    if not fits:
        raise GameError(f"agent {agent!r} was shown {value!r}; its space is {space}")
    if isinstance(space, spaces.Dict):
        for key, inside in space.spaces.items():
            _check(agent, inside, value[key])
    elif isinstance(space, spaces.Tuple):
        for inside, part in zip(space.spaces, value, strict=True):
            _check(agent, inside, part)
