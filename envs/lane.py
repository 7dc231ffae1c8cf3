"""One copy of a game (a lane): what is declared about it, and the joint arrays that it writes its own row of.

Shape suffixes: C game copies, N agents, O observation, A action, G goal.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces

from presage.common.game import GameError, GameSpec, GoalRule, KnownColumn, Symmetry


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What the author of a game knows and an environment's spaces do not tell. None: the adapter's default."""

    name: str = ""
    """name of the game; "" takes the environment's own"""
    frames: int = 1
    """joint observations needed to determine the next one; >= 1"""
    episode_limit: int | None = None
    """env steps after which an episode is truncated, also where the environment would go on; None: it says it itself"""
    terminates: bool | None = None
    """whether an agent can ever be terminated; default True"""
    acting_varies: bool | None = None
    """whether some agent is ever not acting; default True for turn-based games, else False"""
    legal_varies: bool | None = None
    """whether some discrete action is ever illegal; default: whether an observation space holds an `action_mask`"""
    achieved: tuple[int, ...] | None = None
    """goal environments: indices into an agent's own flattened `observation` that hold its achieved goal; default:
    none do, and the achieved goal is appended to what the agent observes"""
    goal_rule: GoalRule | None = None
    """goal environments: rewards, ends and success as functions of goals; None: they cannot be relabelled"""
    vectors: tuple[tuple[int, ...], ...] = ()
    """groups of indices into the joint observation that form vectors in space; see `GameSpec.vectors`"""
    symmetries: tuple[Symmetry, ...] = ()
    """renamings under which the game stays the same; see `GameSpec.symmetries`"""
    known: tuple[KnownColumn, ...] = ()
    """columns of the next joint observation that follow a rule; see `GameSpec.known`"""

    def __post_init__(self) -> None:
        if self.episode_limit is not None and self.episode_limit < 1:
            raise GameError(f"episode_limit={self.episode_limit} must be at least one env step")


@dataclass(kw_only=True)
class Moment:
    """What all copies show at one instant; the numpy side of a `View`."""

    obs: np.ndarray
    """(C, O) float32; zeros for agents that are absent"""
    acting: np.ndarray
    """(C, N) bool"""
    legal: np.ndarray
    """(C, A) bool; all true for agents that are not acting"""
    desired: np.ndarray
    """(C, G) float32"""

    @classmethod
    def blank(cls, spec: GameSpec, copies: int) -> Moment:
        """New arrays: nothing observed, nobody acting, everything legal."""
        return cls(
            obs=np.zeros((copies, spec.obs_dim), dtype=np.float32),
            acting=np.zeros((copies, spec.n), dtype=np.bool_),
            legal=np.ones((copies, spec.act[-1].stop), dtype=np.bool_),
            desired=np.zeros((copies, spec.goal_dim), dtype=np.float32),
        )

    def copy(self) -> Moment:
        """The same in new arrays."""
        return Moment(**{f.name: getattr(self, f.name).copy() for f in fields(self)})

    def set_row(self, copy: int, source: Moment, row: int) -> None:
        """Take one copy's row from row `row` of `source`."""
        self.obs[copy], self.acting[copy] = source.obs[row], source.acting[row]
        self.legal[copy], self.desired[copy] = source.legal[row], source.desired[row]

    def clear(self, copy: int) -> None:
        """Make one copy's row blank again."""
        self.obs[copy], self.acting[copy], self.legal[copy], self.desired[copy] = 0.0, False, True, 0.0


@dataclass(kw_only=True)
class Transition:
    """What one env step brought in all copies; the numpy side of `Rows`."""

    after: Moment
    """the true next observations and their flags, also where an episode ended"""
    reward: np.ndarray
    """(C, N) float32"""
    terminated: np.ndarray
    """(C, N) bool; stays true for an agent that ended earlier in the episode"""
    truncated: np.ndarray
    """(C,) bool: the episode is over and some agent is not terminated"""
    over: np.ndarray
    """(C,) bool: the episode is over"""

    @classmethod
    def blank(cls, spec: GameSpec, copies: int) -> Transition:
        """New arrays: no reward, nothing ended."""
        return cls(
            after=Moment.blank(spec, copies),
            reward=np.zeros((copies, spec.n), dtype=np.float32),
            terminated=np.zeros((copies, spec.n), dtype=np.bool_),
            truncated=np.zeros(copies, dtype=np.bool_),
            over=np.zeros(copies, dtype=np.bool_),
        )


class Lane(Protocol):
    """One environment behind joint rows. It writes into row `copy` of blank arrays and leaves the others alone."""

    spec: GameSpec
    departed: Sequence[int]
    """agents that ended in the last step"""

    def reset(self, seed: int, now: Moment, copy: int) -> None:
        """Start an episode; writes `now`."""
        ...

    def step(self, actions: Sequence[Any], result: Transition, copy: int) -> bool:
        """Play one action per agent, in the environment's terms; those of agents that are not acting are ignored.

        Writes everything in `result` but `truncated` and `over`; `after.acting` names who acts next, or, where the
        episode ended, who would have acted next had it gone on.

        Returns:
            whether the environment's episode is over.
        """
        ...

    def render(self) -> Any:
        """What the environment draws."""
        ...

    def close(self) -> None:
        """Close the environment."""
        ...


def unpack(answer: Any, call: str, parts: Sequence[str], game: str) -> tuple[Any, ...]:
    """The parts of what `call` returned.

    Raises:
        GameError: where it is not a tuple of that many parts.
    """
    if isinstance(answer, tuple) and len(answer) == len(parts):
        return answer
    got = f"{len(answer)} values" if isinstance(answer, tuple) else f"a {type(answer).__name__}"
    raise GameError(f"{call} of {game!r} returned {got}; it must return {len(parts)}: ({', '.join(parts)})")


def number(value: Any, agent: str) -> float:
    """A reward as a float; raises GameError for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise GameError(f"agent {agent!r} got the reward {value!r}, which is not a number") from error


def of_agent(part: Any, agent: Any, call: str, game: str) -> Any:
    """What `part`, a dict by agent that the environment returned, holds for one; raises GameError where it does not."""
    try:
        return part[agent]
    except (KeyError, TypeError, IndexError) as error:
        raise GameError(f"{call} of {game!r} lack agent {agent!r}: {part!r}") from error


def require_seed(env: Any, game: str) -> None:
    """Raise GameError unless `env.reset` can be called with a seed."""
    try:
        inspect.signature(env.reset).bind(seed=0)
    except TypeError as error:
        raise GameError(
            f"reset{inspect.signature(env.reset)} of {game!r} takes no seed; it must take seed=..."
        ) from error


def pettingzoo_agents(env: Any) -> list[tuple[Any, spaces.Space[Any], spaces.Space[Any]]]:
    """Every agent that may ever appear in a PettingZoo environment, with its observation and action space."""
    require_seed(env, str(env))
    agents = list(getattr(env, "possible_agents", ()))
    if not agents:
        raise GameError(f"{str(env)!r} has no possible_agents; a game must know all agents that may ever appear")
    return [(agent, env.observation_space(agent), env.action_space(agent)) for agent in agents]
