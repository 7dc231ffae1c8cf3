"""Stochastic games given as tables: the state is one of S, and known to all.

Shape suffixes: B rows, N agents, S states, K actions of an agent.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules

Floats = NDArray[np.float64]


class TabularGame(Rules):
    """States, transitions and payoffs in tables; every agent sees the state as a one-hot vector.

    Args:
        name: the game's.
        payoffs: `(N, S, K_1, ..., K_N)` what each agent gets. transitions: `(S, K_1, ..., K_N, S)` probabilities.
        start: `(S,)` probabilities of the first state. episode_limit: env steps in an episode, >= 1.

    Raises:
        GameError: the tables do not fit each other, or probabilities do not add up to 1.
    """

    chances = 1

    def __init__(
        self, name: str, payoffs: Floats, transitions: Floats, start: Floats, *, episode_limit: int = 50,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        agents, states, sizes = len(payoffs), payoffs.shape[1], payoffs.shape[2:]
        if len(sizes) != agents or transitions.shape != (states, *sizes, states) or start.shape != (states,):
            raise GameError(
                f"payoffs {payoffs.shape} of {agents} agents take transitions of shape {(states, *sizes, states)} and "
                f"start of {(states,)}, got {transitions.shape} and {start.shape}"
            )
        for label, chances in (("transitions", transitions), ("start", start)):
            if bool((chances < 0).any()) or not np.allclose(chances.sum(-1), 1.0):
                raise GameError(f"{label} must be probabilities that add up to 1 over next states")
        self.payoffs, self.transitions, self.start = payoffs, transitions, start
        self.device, self.dtype = torch.device(device), torch.float32
        self.spec = GameSpec(
            name=name,
            agents=tuple(
                AgentSpec(name=f"agent_{i}", obs=tuple(range(states)), heads=(Head(kind="discrete", size=size),))
                for i, size in enumerate(sizes)
            ),
            obs_dim=states, episode_limit=episode_limit,
        )  # fmt: skip

        def table(x: Floats) -> Tensor:
            return torch.as_tensor(x, dtype=torch.float64, device=self.device)

        self._payoffs = table(payoffs).reshape(agents, -1).T
        self._edges = table(transitions).reshape(-1, states).cumsum(1)
        self._start = table(start).cumsum(0)
        self._stride = [int(np.prod(sizes[i + 1 :])) for i in range(agents)]
        self._joint = int(np.prod(sizes))

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, 1)` int64 first states."""
        number = torch.rand(copies, 1, generator=rng, device=self.device, dtype=torch.float64)
        return torch.searchsorted(self._start, number, right=True).clamp(max=len(self._start) - 1)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """`(B, 1)` next states."""
        if chance is None:
            raise GameError("a stochastic game takes a uniform number for each step")
        edges = self._edges[self._place(state, act)]
        return torch.searchsorted(edges, chance.to(edges), right=True).clamp(max=edges.shape[1] - 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """The state as a one-hot vector `(B, S)`."""
        return {"obs": torch.nn.functional.one_hot(state[:, 0], self.spec.obs_dim).to(self.dtype)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """`(B, N)` for the joint action in the state before it."""
        return self._payoffs[self._place(before, act)].to(self.dtype)

    def reconstruct(self, window: Window) -> Tensor:
        """The state that is seen, `(B, 1)`."""
        seen: Tensor = window.now.obs.argmax(1, keepdim=True)
        return seen

    def _place(self, state: Tensor, act: Tensor) -> Tensor:
        """Which row of the tables, `(B,)`."""
        chosen = [act[:, where].argmax(1) * stride for where, stride in zip(self.spec.act, self._stride, strict=True)]
        return state[:, 0] * self._joint + torch.stack(chosen).sum(0)


def two_state_pennies(stakes: tuple[float, float] = (1.0, 2.0), stay: float = 0.7) -> tuple[Floats, Floats, Floats]:
    """Matching pennies in two states with different stakes, where the state does not depend on what is played.

    The first agent wins its stake where both choose alike, and loses it otherwise; the state is the first one with
    probability `stay`, whatever it was. Both agents can only choose evenly, and the value is 0 everywhere.

    Returns:
        payoffs, transitions and start, for `TabularGame`.
    """
    pennies = np.array([[1.0, -1.0], [-1.0, 1.0]])
    first = np.stack([stake * pennies for stake in stakes])
    transitions = np.broadcast_to([stay, 1.0 - stay], (2, 2, 2, 2)).copy()
    return np.stack([first, -first]), transitions, np.array([0.5, 0.5])
