"""A game of several agents as a game of one of them, the ego, against opponents who are drawn from a pool.

In every episode of every copy somebody else plays all other seats. Moves are simultaneous, and what the others will do
is settled when a state is reached, so that it can be told there. The joint observation begins with what the ego
observes; behind that are columns that no agent reads, from which losses may take labels, and judges the truth:

    what each other agent observes | what each other agent is about to do | who plays them, as a one-hot vector

Shape suffixes: C game copies, O observation, A action, J opponents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from presage.common.evaluate import first_window, renew
from presage.common.game import AgentSpec, Carry, Game, GameError, GameSpec, Rows, View
from presage.common.random_state import generator_state, restore_generator
from presage.marl.opponents.pools import Pool

Draw = Literal["uniform", "in turn"]


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Columns of a joint observation that tell of the others, and are nothing that an agent reads."""

    observations: tuple[int, ...] = ()
    """what the others observe, agent after agent"""
    actions: tuple[int, ...] = ()
    """what they are about to do, agent after agent"""
    choices: tuple[int, ...] = ()
    """sizes of the one-hot choices that `actions` consist of, in order; () where they are numbers of boxes"""
    identity: tuple[int, ...] = ()
    """who they are, as a one-hot vector"""

    def __post_init__(self) -> None:
        if self.choices and (min(self.choices) < 1 or sum(self.choices) != len(self.actions)):
            raise ValueError(
                f"choices={self.choices} must be >= 1 and sum to the {len(self.actions)} columns of actions="
                f"{self.actions}; leave them out where these are numbers"
            )
        named = [*self.observations, *self.actions, *self.identity]
        twice = sorted({k for k in named if named.count(k) > 1})
        if twice:
            raise ValueError(f"columns {twice} are named twice in {self}; each tells of one thing")

    @classmethod
    def of(cls, spec: GameSpec, ego: str | int, opponents: int) -> Hidden:
        """Those of `Against` a pool of so many opponents in a game of several agents.

        Raises:
            GameError: some of the others choose, and some act in numbers.
        """
        place = spec.index(ego)
        others = [agent for i, agent in enumerate(spec.agents) if i != place]
        if len({agent.discrete for agent in others}) > 1:
            raise GameError(
                f"of the others in {spec.name!r} some choose and some act in numbers, which are not described together"
            )
        edges = np.cumsum([
            len(spec.obs[place]), sum(len(agent.obs) for agent in others), sum(agent.width for agent in others),
            opponents,
        ]).tolist()  # fmt: skip
        parts = [tuple(range(low, high)) for low, high in pairwise(edges)]
        choices = tuple(head.size for agent in others for head in agent.heads if agent.discrete)
        return cls(observations=parts[0], actions=parts[1], choices=choices, identity=parts[2])


class Against:
    """The game; as deterministic, and as resumable, as the one that is played.

    How an episode begins and who plays it follow from (seed, copy, number of the episode), as everywhere. Opponents
    that sample draw from one stream, which starts at every `reset`; greedy ones make an episode the same whatever was
    played before it.
    """

    def __init__(self, game: Game, ego: str | int, pool: Pool, *, draw: Draw = "uniform", greedy: bool = False) -> None:
        """
        Args:
            game: of two agents or more, all of whom act in every step; played and closed by this one alone.
            ego: who is left to be played. pool: whose actors play all other seats.
            draw: "uniform" at random; "in turn", one after another along copies and then episodes, so that evaluations
                meet all equally often. greedy: let the opponents play their likeliest actions instead of samples.

        Raises:
            GameError: a game of one agent, of goals, or of turns or deaths; or a pool of another game.
        """
        inner = game.spec
        if draw not in get_args(Draw):
            raise ValueError(f"draw={draw!r} must be one of {', '.join(map(repr, get_args(Draw)))}")
        if pool.spec != inner:
            raise GameError(f"the pool plays {pool.spec.name!r} as it was, not this game of {inner.name!r}")
        if inner.n < 2 or inner.goal_dim or inner.acting_varies:
            raise GameError(
                f"{inner.name!r} has {inner.n} agents, goals of {inner.goal_dim} numbers, and turns or deaths: "
                f"{inner.acting_varies}; play a game of two agents or more without any of these"
            )
        self.game, self.pool, self.ego = game, pool, inner.index(ego)
        self.hidden = Hidden.of(inner, self.ego, len(pool))
        self.copies, self._draw, self._greedy = game.copies, draw, greedy
        others = [i for i in range(inner.n) if i != self.ego]
        own = inner.agents[self.ego]
        self._seen = [k for i in (self.ego, *others) for k in inner.obs[i]]
        self._acted = [k for i in others for k in range(inner.act_dim)[inner.act[i]]]
        self._own = inner.act[self.ego]
        width = len(own.obs)
        self.spec = GameSpec(
            name=f"{inner.name} against {len(pool)}",
            agents=(AgentSpec(**(vars(own) | {"obs": tuple(range(width))})),),
            obs_dim=len(self._seen) + len(self._acted) + len(pool), frames=inner.frames,
            episode_limit=inner.episode_limit, terminates=inner.terminates, legal_varies=inner.legal_varies,
            vectors=inner.vectors_of(self.ego),
        )  # fmt: skip
        self._seed = 0
        self._episode = np.zeros(self.copies, dtype=np.int64)
        self._who = torch.zeros(0, dtype=torch.int64)
        """(C,) who plays the others"""
        self._joint = torch.zeros(0)
        """(C, A) what they are about to do, beside anything in the ego's place"""
        self._carries: list[Carry] = []
        """what each opponent remembers of all copies; of those that it does not play, anything; [] of a pool that
        answers together"""
        self._rng = torch.Generator()
        self._view: View | None = None
        if hasattr(game, "render"):
            self.render = game.render

    @property
    def who(self) -> Tensor:
        """(C,) int64: the places in the pool of those who play now."""
        return self._who

    def inside(self, view: View) -> View:
        """What everybody sees in the game that is played, where this one shows `view`; columns that nobody observes
        there are 0, and all that the others might do is legal.
        """
        inner = self.game.spec
        obs = view.obs.new_zeros(len(view), inner.obs_dim)
        obs[:, self._seen] = view.obs[:, : len(self._seen)]
        legal = torch.ones(len(view), inner.act_dim, dtype=torch.bool, device=obs.device)
        legal[:, self._own] = view.legal
        return View.of(inner, obs, legal=legal)

    def reset(self, seed: int) -> View:
        """Start episode 0 in every copy; C rows."""
        self._seed, self._carries = seed, []
        self._episode[:] = 0
        view = self.game.reset(seed)
        device = view.obs.device
        self._rng = torch.Generator(device).manual_seed(seed)
        self._who = torch.zeros(self.copies, dtype=torch.int64, device=device)
        self._joint = view.obs.new_zeros(self.copies, self.game.spec.act_dim)
        self._begin(view, torch.ones(self.copies, dtype=torch.bool, device=device))
        self._view = self._shown(view)
        return self._view

    def step(self, act: Tensor) -> tuple[Rows, View]:
        """Play `act (C, A)` of the ego; the transitions, and the view to act on next.

        Raises:
            GameError: before `reset`; for an action that is none of the ego's; where the game ends for the ego alone.
        """
        before = self._view
        if before is None:
            raise GameError(f"call reset(seed) before playing {self.spec.name!r}")
        if act.shape != (self.copies, self.spec.act_dim):
            raise GameError(
                f"{self.spec.name!r} takes actions {self.copies, self.spec.act_dim}, got {tuple(act.shape)}"
            )
        joint = self._joint.clone()
        joint[:, self._own] = act.detach()
        rows, view = self.game.step(joint)
        everyone, one = rows.terminated.all(1), slice(self.ego, self.ego + 1)
        if bool((rows.terminated[:, self.ego] != everyone).any()):
            raise GameError(
                f"{self.game.spec.name!r} ends for {self.game.spec.names[self.ego]!r} at another time than for the "
                "others; play games that end for all at once"
            )
        over = everyone | rows.truncated
        self._decide(rows.next_view, torch.ones_like(over))  # also where an episode ended: what they would have done
        after = reached = self._shown(rows.next_view)
        if bool(over.any()):
            self._episode += over.cpu().numpy()
            self._begin(view, over)
            after = self._shown(view)
        found = Rows.of(
            self.spec, before, act.detach(), rows.reward[:, one], reached, rows.terminated[:, one], rows.truncated,
            rows.step,
        )  # fmt: skip
        self._view = after
        return found, after

    def state(self) -> dict[str, Any]:
        """Plain data and tensors from which `restore` continues exactly."""
        return {
            "game": self.spec.name, "inner": self.game.state(), "seed": self._seed, "episode": self._episode.tolist(),
            "who": _moved(self._who, "cpu"), "joint": _moved(self._joint, "cpu"),
            "carries": [_moved(carry, "cpu") for carry in self._carries],
            "random": generator_state(self._rng), "lost": [],
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> View:
        """Continue from `state`; the view to act on next.

        Raises:
            GameError: the state is of another game; or the inner game does not replay: then, where that offers to go on
                at the boundary of an episode, so does this one.
        """
        if state["game"] != self.spec.name or len(state["episode"]) != self.copies:
            raise GameError(
                f"the saved state is of {state['game']!r} in {len(state['episode'])} copies; this game is "
                f"{self.spec.name!r} in {self.copies}"
            )
        try:
            view = self.game.restore(state["inner"])
        except GameError as error:
            boundary = getattr(error, "boundary", None)
            if boundary is not None:
                lost = list(getattr(error, "copies", ()))
                error.boundary = {**state, "inner": boundary, "lost": lost}  # type: ignore[attr-defined]  # as adapters
            raise
        device = view.obs.device
        self._seed, self._episode[:] = int(state["seed"]), state["episode"]
        self._who, self._joint = _moved(state["who"], device), _moved(state["joint"], device)
        self._carries = [_moved(carry, device) for carry in state["carries"]]
        self._rng = torch.Generator(device)
        restore_generator(self._rng, state["random"])
        if state["lost"]:
            over = torch.zeros(self.copies, dtype=torch.bool, device=device)
            over[state["lost"]] = True
            self._episode[state["lost"]] += 1
            self._begin(view, over)
        self._view = self._shown(view)
        return self._view

    def close(self) -> None:
        """Free what the inner game holds."""
        self.game.close()

    def _begin(self, view: View, where: Tensor) -> None:
        """Draw who plays the episodes that begin in the copies `where (C,)`; they look, and settle what to do."""
        for copy in where.nonzero()[:, 0].tolist():
            self._who[copy] = self._drawn(copy, int(self._episode[copy]))
        if self.pool.together is None:
            fresh = [opponent.actor.init(first_window(self.game.spec, view)) for opponent in self.pool]
            kept = self._carries or fresh
            self._carries = [renew(old, new, where) for old, new in zip(kept, fresh, strict=True)]
        self._decide(view, where)

    def _drawn(self, copy: int, episode: int) -> int:
        if self._draw == "in turn":
            return (copy + self.copies * episode) % len(self.pool)
        words = np.random.SeedSequence((self._seed, copy, episode, len(self.pool))).generate_state(1, dtype=np.uint64)
        return int(words[0] % len(self.pool))

    @torch.no_grad()
    def _decide(self, view: View, where: Tensor) -> None:
        """Settle what the others do in the copies `where (C,)` of `view`, each opponent asked once."""
        rng = None if self._greedy else self._rng
        if self.pool.together is not None:
            index = where.nonzero()[:, 0]
            act = self.pool.together(view[index], self._who[index], rng)
            if act.shape != (len(index), self._joint.shape[1]):
                raise GameError(
                    f"a pool's `together` must answer with joint actions ({len(index)}, {self._joint.shape[1]}) of "
                    f"{self.game.spec.name!r}, a row for each view, and not with {tuple(act.shape)}"
                )
            self._joint[index] = act
            return
        for k, opponent in enumerate(self.pool):
            index = (where & (self._who == k)).nonzero()[:, 0]
            if len(index):
                carry, act = opponent.actor.step(_taken(self._carries[k], index), view[index], rng)
                self._carries[k] = _put(self._carries[k], index, carry)
                self._joint[index] = act

    def _shown(self, view: View) -> View:
        """What is seen of the inner game's `view`."""
        who = one_hot(self._who, len(self.pool)).to(view.obs.dtype)
        return View.of(
            self.spec, torch.cat([view.obs[:, self._seen], self._joint[:, self._acted], who], 1),
            acting=view.acting[:, self.ego : self.ego + 1], legal=view.legal[:, self._own],
        )  # fmt: skip


def _taken(carry: Carry, index: Tensor) -> Carry:
    """The rows at `index` of what was remembered."""
    if isinstance(carry, tuple):
        return tuple(_taken(part, index) for part in carry)
    return None if carry is None else carry[index]


def _put(carry: Carry, index: Tensor, new: Carry) -> Carry:
    """What was remembered with `new` rows at `index`."""
    if isinstance(carry, tuple):
        return tuple(_put(old, index, own) for old, own in zip(carry, new, strict=True))
    return None if carry is None else carry.index_copy(0, index, new)


def _moved(carry: Carry, device: torch.device | str) -> Carry:
    """A copy on `device`."""
    if isinstance(carry, list | tuple):
        return tuple(_moved(part, device) for part in carry)
    return None if carry is None else carry.to(device, copy=True)
