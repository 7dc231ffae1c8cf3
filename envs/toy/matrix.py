"""Games of a single move whose payoffs are a table: who understands them needs no learning, who learns is checked.

Shape suffixes: B rows, N agents, K actions of an agent.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules

Payoffs = NDArray[np.float64]
"""(N, K_1, ..., K_N): what each agent gets for each joint action"""

CLIMB = ((11.0, -30.0, 0.0), (-30.0, 7.0, 6.0), (0.0, 0.0, 5.0))
"""Claus and Boutilier 1998: the best joint action is the one whose neighbours are worst"""


class MatrixGame(Rules):
    """Everybody chooses once, sees nothing, and is paid; then the episode terminates.

    What is seen is a 1 for each agent, since networks need something to read.

    Args:
        name: the game's. payoffs: `(N, K_1, ..., K_N)`.

    Raises:
        GameError: payoffs are not a table for as many agents as its first dimension says.
    """

    def __init__(self, name: str, payoffs: Payoffs, *, device: torch.device | str = "cpu") -> None:
        agents = len(payoffs)
        if payoffs.ndim != agents + 1:
            raise GameError(f"payoffs of shape {payoffs.shape} are for {payoffs.ndim - 1} agents, not for {agents}")
        self.payoffs = payoffs
        self.device, self.dtype = torch.device(device), torch.float32
        self.spec = GameSpec(
            name=name,
            agents=tuple(
                AgentSpec(name=f"agent_{i}", obs=(i,), heads=(Head(kind="discrete", size=size),))
                for i, size in enumerate(payoffs.shape[1:])
            ),
            obs_dim=agents, episode_limit=1, terminates=True,
        )  # fmt: skip
        self._table = torch.as_tensor(payoffs, dtype=torch.float32, device=self.device).flatten(1)
        sizes = payoffs.shape[1:]
        self._stride = [int(np.prod(sizes[i + 1 :])) for i in range(agents)]

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """Nothing to draw: `(C, 1)` ones."""
        return torch.ones(copies, 1, device=self.device)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """Nothing moves."""
        return state

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """A 1 for each agent."""
        return {"obs": state.expand(-1, self.spec.n)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """The table's entries `(B, N)`."""
        chosen = [act[:, where].argmax(1) * stride for where, stride in zip(self.spec.act, self._stride, strict=True)]
        return self._table[:, torch.stack(chosen).sum(0)].T

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """Always."""
        return torch.ones(len(act), self.spec.n, dtype=torch.bool, device=self.device)

    def reconstruct(self, window: Window) -> Tensor:
        """`(B, 1)` ones."""
        return window.now.obs[:, :1]

    def optimum(self) -> tuple[float, tuple[int, ...]]:
        """The largest mean over agents of what a joint action pays, and that joint action: by looking at all."""
        shared = self.payoffs.mean(0)
        best = max(product(*map(range, shared.shape)), key=lambda joint: shared[joint])
        return float(shared[best]), best


class MixedMatrixGame(MatrixGame):
    """A matrix game of two choices each whose agents say how likely their first choice is, and are paid on average.

    What is learned in it is a mixed strategy: a box action from 0 to 1 in environment units.

    Raises:
        GameError: an agent has other than two choices.
    """

    def __init__(self, name: str, payoffs: Payoffs, *, device: torch.device | str = "cpu") -> None:
        super().__init__(name, payoffs, device=device)
        if set(payoffs.shape[1:]) != {2}:
            raise GameError(f"one number describes a choice between 2; {name!r} has choices among {payoffs.shape[1:]}")
        box = Head(kind="box", size=1)
        agents = (AgentSpec(name=agent.name, obs=agent.obs, heads=(box,), low=(0.0,), high=(1.0,), shape=(1,))
                  for agent in self.spec.agents)  # fmt: skip
        self.spec = replace(self.spec, agents=tuple(agents))

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """The table's entries `(B, N)`, averaged over what everybody chooses independently."""
        first = (act + 1.0) / 2.0
        joint = torch.ones(len(act), 1, device=self.device)
        for choice in torch.stack([first, 1.0 - first], 2).unbind(1):
            joint = (joint[:, :, None] * choice[:, None]).flatten(1)
        return joint @ self._table.T


def central(payoffs: Payoffs) -> Payoffs:
    """The same game for one agent that chooses for everybody and is paid the mean over agents: `(1, K_1 ... K_N)`.

    Its choices are the joint actions in row-major order. What the game costs those who decide apart is the difference.
    """
    shared: Payoffs = payoffs.mean(0).reshape(1, -1)
    return shared


def climb() -> Payoffs:
    """The climbing game: the safe choices pay 5 and 7, the best one 11, and missing it costs 30."""
    return np.array([CLIMB, CLIMB])


def penalty(cost: float = -100.0) -> Payoffs:
    """The penalty game (Claus and Boutilier 1998): two best joint actions; choosing different ones costs.

    Raises:
        GameError: the cost is above 0.
    """
    if cost > 0:
        raise GameError(f"cost={cost} of the penalty game must be <= 0")
    table = [[10.0, 0.0, cost], [0.0, 2.0, 0.0], [cost, 0.0, 10.0]]
    return np.array([table, table])


def rock_paper_scissors() -> Payoffs:
    """Zero-sum: paper beats rock, scissors paper, rock scissors. Only the uniform choice cannot be exploited."""
    first = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return np.stack([first, -first])


def cycle() -> Payoffs:
    """Two choices each, and best answers that go round: against every joint choice somebody would rather have chosen
    otherwise. Even choices are the one equilibrium, worth 1.5 to both; gradients of payoffs circle around it.

    One of the stateless games of Wen, Yang, Luo, Wang, Pan 2019 (1901.09207).
    """
    return np.array([[[0.0, 3.0], [1.0, 2.0]], [[3.0, 2.0], [0.0, 1.0]]])


def low_rank(agents: int = 3, actions: int = 4, rank: int = 2, seed: int = 0) -> Payoffs:
    """A common payoff that is a random tensor of CP rank `rank`: a sum of `rank` products of one normal factor for each
    agent, scaled to unit variance.

    Raises:
        GameError: for sizes below 1.
    """
    if min(agents, actions, rank) < 1:
        raise GameError(f"agents={agents}, actions={actions} and rank={rank} must be >= 1")
    factors = np.random.default_rng(seed).normal(size=(agents, rank, actions))
    table = np.zeros((actions,) * agents)
    for r in range(rank):
        term = np.ones(())
        for factor in factors[:, r]:
            term = np.multiply.outer(term, factor)
        table += term
    return np.stack([table / np.sqrt(rank)] * agents)
