"""Tabular models: what happened is counted, and what is best is found by sweeping over all states.

For games whose joint observation is one of S one-hot states and whose actions are discrete. `CountModel` is a world to
imagine in; `Tables` are what it, or the rules of a game, say about every state and joint action.

Shape suffixes: B rows, N agents, S states, J joint actions (the last agent's choice varies fastest).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from presage.common.game import Carry, GameError, GameSpec, Outcome, Rows, View, Window
from presage.common.method import Metrics
from presage.common.replay import Replay


@dataclass(frozen=True, kw_only=True)
class Tables:
    """A stochastic game of finitely many states, float64."""

    transitions: Tensor
    """(S, J, S) probabilities of the next state"""
    rewards: Tensor
    """(S, J, N) expected rewards"""
    terminations: Tensor
    """(S, J, N) probabilities that an agent has no future after the step"""


class CountModel:
    """The maximum-likelihood model of a tabular game: relative frequencies and mean rewards, a `World` of `Dyna`.

    A pair of state and joint action is known from `known` visits on. Of the others it is assumed that they lead
    anywhere with even chances and pay `unknown_reward` ("uniform"), or, as in R-MAX (Brafman and Tennenholtz 2002),
    that they lead back to the same state for ever and pay `unknown_reward`, the largest reward there is ("stay").

    Args:
        spec: a game of discrete actions in which every observation is the same one-hot state.
        unknown, unknown_reward, known: as above; `known` >= 1.

    Raises:
        GameError: the game is not of that kind; from `observe` where a row is not, or `ValueError` for bad numbers.
    """

    def __init__(
        self, spec: GameSpec, *, unknown: Literal["uniform", "stay"] = "uniform", unknown_reward: float = 0.0,
        known: int = 1, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        states = tuple(range(spec.obs_dim))
        if not spec.discrete or any(agent.obs != states for agent in spec.agents) or spec.goal_dim:
            raise GameError(
                f"{spec.name!r} cannot be counted: every agent must choose among discrete actions and see the same "
                f"one-hot state of {spec.obs_dim} entries, and there must be no goals"
            )
        if known < 1 or unknown not in ("uniform", "stay"):
            raise ValueError(f"known={known} must be >= 1 and unknown={unknown!r} 'uniform' or 'stay'")
        self.spec, self.unknown, self.unknown_reward, self.known = spec, unknown, unknown_reward, known
        sizes = [head.size for _, head, _ in spec.heads]
        self._strides = [int(np.prod(sizes[k + 1 :])) for k in range(len(sizes))]
        shape = (spec.obs_dim, int(np.prod(sizes)))
        self.counts = torch.zeros(*shape, spec.obs_dim, dtype=torch.float64, device=device)
        """(S, J, S) how often a pair led to a state"""
        self.paid = torch.zeros(*shape, spec.n, dtype=torch.float64, device=device)
        """(S, J, N) sums of rewards"""
        self.ended = torch.zeros(*shape, spec.n, dtype=torch.float64, device=device)
        """(S, J, N) how often an agent terminated"""

    @property
    def kernel(self) -> CountKernel:
        """What has been counted so far, as a world to imagine in."""
        return CountKernel(self, self.tables())

    @property
    def visits(self) -> Tensor:
        """(S, J) how often every pair was tried."""
        return self.counts.sum(2)

    def doubt(self, window: Window, act: Tensor) -> None:
        """Nobody to ask: counts have no members that could disagree."""
        return

    def fit(self, replay: Replay, rng: torch.Generator) -> Metrics:
        """Count everything in `replay`, and nothing else; `rng` is not used."""
        for counted in (self.counts, self.paid, self.ended):
            counted.zero_()
        self.observe(replay.rows(replay.all()))
        return {"model/known_pairs": float((self.visits >= self.known).double().mean())}

    def observe(self, rows: Rows) -> Tensor:
        """Count some more rows; which pairs became known by them, `(S, J)` bool."""
        before = self.visits >= self.known
        for obs in (rows.obs, rows.next_obs):
            if not bool(((obs == 0) | (obs == 1)).all() & (obs.sum(1) == 1).all()):
                raise GameError(f"a joint observation of {self.spec.name!r} is no one-hot state; it cannot be counted")
        place = rows.obs.argmax(1) * self.counts.shape[1] + self.joint(rows.act)
        ones = torch.ones(len(place), dtype=torch.float64, device=place.device)
        self.counts.view(-1).index_add_(0, place * self.spec.obs_dim + rows.next_obs.argmax(1), ones)
        self.paid.view(-1, self.spec.n).index_add_(0, place, rows.reward.double())
        self.ended.view(-1, self.spec.n).index_add_(0, place, rows.terminated.double())
        return (self.visits >= self.known) & ~before

    def joint(self, act: Tensor) -> Tensor:
        """The numbers `(B,)` of joint actions `(B, A)`."""
        heads = zip(self.spec.heads, self._strides, strict=True)
        return torch.stack([act[:, where].argmax(1) * stride for (_, _, where), stride in heads]).sum(0)

    def tables(self) -> Tables:
        """What is expected of every pair."""
        visits = self.visits[..., None]
        known, often = visits >= self.known, visits.clamp_min(1.0)
        states = self.spec.obs_dim
        if self.unknown == "uniform":
            elsewhere = torch.full_like(self.counts, 1.0 / states)
        else:
            elsewhere = torch.eye(states, dtype=torch.float64, device=self.counts.device)[:, None].expand_as(
                self.counts
            )
        return Tables(
            transitions=torch.where(known, self.counts / often, elsewhere),
            rewards=torch.where(known, self.paid / often, self.unknown_reward),
            terminations=torch.where(known, self.ended / often, 0.0),
        )


class CountKernel:
    """Tables as a kernel; satisfies `Kernel`. Agents terminate independently of each other and of the next state."""

    def __init__(self, model: CountModel, tables: Tables) -> None:
        self.spec, self.tables, self._joint = model.spec, tables, model.joint

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        """Nothing to remember."""
        return None

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        """One step of all branches under `act (B, A)`: the next state is drawn, the reward is the expected one."""
        state, joint = view.obs.argmax(1), self._joint(act)
        after = torch.multinomial(self.tables.transitions[state, joint], 1, generator=rng)[:, 0]
        obs = torch.nn.functional.one_hot(after, self.spec.obs_dim).to(view.obs.dtype)
        reward = self.tables.rewards[state, joint].to(view.obs.dtype)
        chance = self.tables.terminations[state, joint]
        over = torch.zeros_like(chance, dtype=torch.bool)
        if self.spec.terminates:
            over = torch.rand(chance.shape, generator=rng, device=chance.device, dtype=chance.dtype) < chance
        return None, Outcome(after=View.of(self.spec, obs, acting=~over), reward=reward, terminated=over)


class Values(NamedTuple):
    """What a team can get: the mean over agents of their rewards, under the best joint action."""

    state: Tensor
    """(S,)"""
    action: Tensor
    """(S, J)"""
    backups: int
    """pairs of state and joint action that were recomputed to find them"""


def value_iteration(tables: Tables, discount: float, tolerance: float = 1e-10, most: int = 100_000) -> Values:
    """The team's best values, by sweeps over all pairs until none moves by more than `tolerance`.

    Raises:
        ValueError: the discount is not in [0, 1), or `most` sweeps do not suffice.
    """
    _check(discount)
    reward, going = _team(tables)
    value = reward.new_zeros(len(reward))
    for sweep in range(1, most + 1):
        action = reward + discount * going * (tables.transitions @ value)
        latest = action.amax(1)
        moved, value = float((latest - value).abs().max()), latest
        if moved <= tolerance:
            return Values(value, action, sweep * action.numel())
    raise ValueError(f"values still move by {moved} after {most} sweeps; give more, or a larger tolerance")


def prioritised_sweeping(
    tables: Tables, discount: float, start: Tensor | None = None, threshold: float = 1e-10, most: int = 1_000_000
) -> Values:  # fmt: skip
    """The team's best values by single backups, those first that promise to move most (Moore and Atkeson 1993).

    A pair is recomputed, and its predecessors queued by how much the change of the state's value can move them, while
    any queued pair is off by more than `threshold`.

    Args:
        start: `(S, J)` values of a model that was much alike; None begins at 0. most: backups at most.

    Raises:
        ValueError: the discount is not in [0, 1).
    """
    _check(discount)
    reward, going = (x.cpu().numpy() for x in _team(tables))  # single numbers are what numpy is fast at
    transitions = tables.transitions.cpu().numpy()
    action = np.zeros_like(reward) if start is None else start.cpu().numpy().copy()
    value = action.max(1)
    arrivals = [np.argwhere(transitions[..., state] * going > 0).tolist() for state in range(len(reward))]

    def wanted(state: int, choice: int) -> float:
        return float(reward[state, choice] + discount * going[state, choice] * (transitions[state, choice] @ value))

    queue: list[tuple[float, int, int]] = []
    for state, choice in np.ndindex(*reward.shape):
        error = abs(wanted(state, choice) - float(action[state, choice]))
        if error > threshold:
            queue.append((-error, state, choice))
    heapq.heapify(queue)
    backups = 0
    while queue and backups < most:
        _, state, choice = heapq.heappop(queue)
        latest = wanted(state, choice)
        if abs(latest - float(action[state, choice])) <= threshold:
            continue  # a later entry for the same pair was served first
        backups += 1
        action[state, choice] = latest
        moved = abs(float(action[state].max()) - float(value[state]))
        value[state] = action[state].max()
        if moved == 0.0:
            continue
        for before, by in arrivals[state]:
            error = abs(wanted(before, by) - float(action[before, by]))
            if error > threshold:
                heapq.heappush(queue, (-error, before, by))
    device = tables.rewards.device
    return Values(torch.from_numpy(value).to(device), torch.from_numpy(action).to(device), backups)


def _team(tables: Tables) -> tuple[Tensor, Tensor]:
    """The team's expected reward `(S, J)`, and the chance that the game goes on: until all agents have terminated."""
    return tables.rewards.mean(2), 1.0 - tables.terminations.prod(2)


def _check(discount: float) -> None:
    if not 0 <= discount < 1:
        raise ValueError(f"discount={discount} must lie in [0, 1)")
