"""How well an actor plays: episodes on fixed evaluation seeds, and a recording of one of them.

Shape suffixes: C game copies, E episodes, N agents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import imageio.v3 as imageio
import numpy as np
import torch
from torch import Tensor

from presage.common.game import Actor, Carry, Game, GameError, GameSpec, GoalRule, Rows, View, Window
from presage.common.intervals import Array

Measure = Callable[[Rows], Tensor]
"""one number or flag per row `(C,)`, taken from the last transition of each episode"""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What happened in E episodes; those of one game copy lie side by side, in the order in which they were played."""

    agents: tuple[str, ...]
    returns: Array
    """(E, N) undiscounted sum of each agent's rewards"""
    lengths: Array
    """(E,) env steps"""
    measures: Mapping[str, Array] = field(default_factory=dict)
    """by name, (E,) what was measured at each episode's last transition"""

    @property
    def mean_returns(self) -> Array:
        """The return of each episode, `(E,)`: the sum over its steps of the mean over agents."""
        return np.asarray(self.returns.mean(axis=1))

    @property
    def mean_return(self) -> float:
        """The return, averaged over episodes."""
        return float(self.mean_returns.mean())

    def per_episode(self) -> dict[str, list[float]]:
        """The numbers of every episode by name, as evaluation files keep them."""
        found = {"return": self.mean_returns, "length": self.lengths, **self.measures}
        return {name: values.tolist() for name, values in found.items()}

    def metrics(self) -> dict[str, float]:
        """Averages over episodes by tag, for the metric log."""
        found = {"eval/mean_reward": self.mean_return, "eval/mean_ep_length": float(self.lengths.mean())}
        if len(self.agents) > 1:
            by_agent = self.returns.mean(axis=0)
            found |= {f"eval/mean_reward/{name}": float(by_agent[i]) for i, name in enumerate(self.agents)}
        return found | {f"eval/{name}": float(values.mean()) for name, values in self.measures.items()}


@torch.no_grad()
def evaluate(
    game: Game, actor: Actor, episodes: int, seed: int, *,
    rng: torch.Generator | None = None, measures: Mapping[str, Measure] | None = None,
    goal_rule: GoalRule | None = None,
) -> Evaluation:  # fmt: skip
    """Play exactly `episodes` episodes, the same ones for the same seed.

    Every copy plays the same number of episodes and only its first ones count: were the first `episodes` to end counted
    instead, short episodes would be over-represented.

    Args:
        game: reset by this; not the one that experience is collected from.
        actor: answers for all agents.
        episodes: E, a multiple of the game's copies.
        seed: of the evaluation; one that no tuning has seen.
        rng: None for greedy actions; else actions are sampled with it.
        measures: what else to take from the last transition of each episode.
        goal_rule: of a game of goals: whether all agents' goals are reached at an episode's last step
            (`success_rate`) and at any one (`success_once_rate`), and how far the goal is at the end (`goal_distance`).

    Raises:
        GameError: for a number of episodes that the copies cannot share equally, or a game whose episodes do not start
            over where they ended.
    """
    spec, copies = game.spec, game.copies
    if episodes < 1 or episodes % copies:
        raise GameError(
            f"{episodes} episodes cannot be shared equally by {copies} copies of {spec.name!r}; "
            f"ask for a multiple of {copies}, or make the game with a divisor of {episodes}"
        )
    each = episodes // copies
    measures = dict(measures or {})
    pursuit = None if goal_rule is None else _Pursuit(goal_rule)
    if pursuit is not None:
        measures |= pursuit.measures
    returns = np.zeros((copies, each, spec.n))
    lengths = np.zeros((copies, each))
    measured = {name: np.zeros((copies, each)) for name in measures}
    played = np.zeros(copies, dtype=np.int64)
    for rows, over in play(game, actor, seed, rng):
        if pursuit is not None:
            pursuit.watch(rows)
        counted = np.flatnonzero(played < each)
        returns[counted, played[counted]] += rows.reward.cpu().numpy()[counted]
        lengths[counted, played[counted]] += 1
        ended = counted[over[counted]]
        if ended.size:
            for name, measure in measures.items():
                measured[name][ended, played[ended]] = measure(rows).cpu().numpy()[ended]
            played[ended] += 1
            if (played == each).all():
                break
    return Evaluation(
        agents=spec.names, returns=returns.reshape(episodes, spec.n), lengths=lengths.reshape(episodes),
        measures={name: values.reshape(episodes) for name, values in measured.items()},
    )  # fmt: skip


class _Pursuit:
    """How the open episodes of C copies stand to their goals."""

    def __init__(self, rule: GoalRule) -> None:
        self.rule = rule
        self.once: Tensor | None = None
        self.measures: dict[str, Measure] = {
            "success_rate": self.reached, "success_once_rate": lambda rows: self._watched(), "goal_distance": self.away,
        }  # fmt: skip

    def reached(self, rows: Rows) -> Tensor:
        """Whether all agents' goals count as reached now, `(C,)`."""
        return self.rule.success(rows.next_achieved, rows.desired).all(-1)

    def away(self, rows: Rows) -> Tensor:
        """Euclidean distance of the joint goal, `(C,)`, in its own units."""
        distance: Tensor = torch.linalg.vector_norm(rows.next_achieved - rows.desired, dim=-1)
        return distance

    def watch(self, rows: Rows) -> None:
        """Take note of one step of every copy; at step 0 an episode begins."""
        now = self.reached(rows)
        self.once = now if self.once is None else now | (self.once & (rows.step > 0))

    def _watched(self) -> Tensor:
        assert self.once is not None
        return self.once


def play(
    game: Game, actor: Actor, seed: int, rng: torch.Generator | None = None
) -> Iterator[tuple[Rows, np.ndarray[Any, np.dtype[np.bool_]]]]:
    """Reset the game and play on for ever; a copy whose episode ends starts its actor's memory afresh.

    Yields:
        the C transitions of each env step, and where they ended an episode `(C,)`.

    Raises:
        GameError: where a copy does not start over, at step 0, exactly after its episode ended.
    """
    view = game.reset(seed)
    carry = actor.init(first_window(game.spec, view))
    expected = torch.zeros(game.copies, dtype=torch.int32, device=view.obs.device)
    while True:
        carry, act = actor.step(carry, view, rng)
        rows, view = game.step(act)
        astray = rows.step != expected
        if bool(astray.any()):
            copy = int(astray.nonzero()[0])
            raise GameError(
                f"copy {copy} of {game.spec.name!r} is at step {int(rows.step[copy])} of its episode, not "
                f"{int(expected[copy])}: an episode must end where the row is truncated or all agents are terminated, "
                "and nowhere else"
            )
        over = rows.truncated | rows.terminated.all(dim=1)
        expected = torch.where(over, 0, expected + 1)
        yield rows, over.cpu().numpy()
        if bool(over.any()):
            carry = renew(carry, actor.init(first_window(game.spec, view)), over)


def first_window(spec: GameSpec, view: View) -> Window:
    """The window at an episode's start: `view` alone, and no action yet."""
    size = len(view)
    return Window(
        obs=view.obs[:, None],
        act=view.obs.new_zeros(size, 1, spec.act_dim),
        valid=torch.ones(size, 1, dtype=torch.bool, device=view.obs.device),
        now=view,
    )


def renew(carry: Carry, fresh: Carry, where: Tensor) -> Carry:
    """The carry with the rows `where (C,)` taken from `fresh`, which is made alike: a tensor, a tuple of them, or None.

    Raises:
        GameError: where the two are not made alike.
    """
    if carry is None and fresh is None:
        return None
    if isinstance(carry, Tensor) and isinstance(fresh, Tensor) and carry.shape == fresh.shape:
        return torch.where(where.reshape(-1, *(1,) * (carry.ndim - 1)), fresh, carry)
    if isinstance(carry, tuple) and isinstance(fresh, tuple) and len(carry) == len(fresh):
        return tuple(renew(old, new, where) for old, new in zip(carry, fresh, strict=True))
    raise GameError(
        f"an actor remembers {_shape(carry)} after a step and {_shape(fresh)} at an episode's start; "
        "a carry is a tensor with one row per copy, a tuple of such, or None, and keeps its shape"
    )


def _shape(carry: Carry) -> str:
    return f"a tensor {tuple(carry.shape)}" if isinstance(carry, Tensor) else f"a {type(carry).__name__}"


class RandomActor:
    """Acts uniformly at random over legal entries and over [-1, 1]; needs an rng."""

    def __init__(self, spec: GameSpec) -> None:
        self._spec = spec

    def init(self, window: Window) -> None:
        return None

    def step(self, carry: None, view: View, rng: torch.Generator | None) -> tuple[None, Tensor]:
        if rng is None:
            raise ValueError("a random actor has no greedy action; pass an rng to evaluate it")
        return None, self._spec.random_action(view.acting, view.legal, rng)


class RenderableGame(Game, Protocol):
    """A game that can draw its copies."""

    def render(self, copy: int) -> np.ndarray:
        """The picture of one copy, `(height, width, 3)` uint8."""
        ...


@torch.no_grad()
def record(
    game: RenderableGame, actor: Actor, seed: int, path: Path, *,
    rng: torch.Generator | None = None, frames_per_second: float = 15.0,
) -> float:  # fmt: skip
    """Write the first episode of copy 0 as a GIF, one frame per env step, drawn before the action.

    Where an episode ends the game is already in its next one, so the very last state is never drawn. The format keeps
    equal frames in a row as one that lasts longer.

    Returns:
        the episode's return.
    """
    game.reset(seed)
    frames = [game.render(0)]
    total = 0.0
    for rows, over in play(game, actor, seed, rng):  # resets to the same start
        total += float(rows.reward[0].mean())
        if over[0]:
            break
        frames.append(game.render(0))
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(path, np.stack(frames), extension=".gif", duration=1000 / frames_per_second, loop=0)
    return total
