"""What a run has spent: env steps, and opponents' actions asked for or seen, per (ego, agent).

Shape suffixes: B rows, I egos (the learning agents), N agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Ledger:
    """Exact counts of the two budgets: env steps for the dynamics, opponents' actions for the opponent models.

    Queries are what the rollout generator really asked: an opponent that is not acting, or a branch that has ended, is
    asked nothing and counts nothing. (AORPO's released counter is short by a factor of starts over agents and off by
    the switch step; it is not offered, and published curves over that axis cannot be compared with these.)
    """

    env_steps: int
    """transitions of the real game, over all parallel copies"""
    queries: Tensor
    """(I, N) int64: actions asked of each real agent at imagined states"""
    seen: Tensor
    """(I, N) int64: actions of each agent that real steps revealed to the ego"""

    def __init__(self, agents: int, egos: Sequence[int] | None = None, device: torch.device | str = "cpu") -> None:
        """
        Args:
            agents: N. egos: the learning agents in the order of the rows; None for all of them.
            device: where the counts live; best where the game's rows are, since real steps add to them one by one.

        Raises:
            ValueError: where an ego is not one of the agents, or named twice.
        """
        rows = list(range(agents)) if egos is None else list(egos)
        if len(set(rows)) < len(rows) or not all(0 <= ego < agents for ego in rows):
            raise ValueError(f"egos={rows} must be different agents out of 0..{agents - 1}")
        self.egos = tuple(rows)
        self.agents = agents
        self.others = torch.ones(len(rows), agents, dtype=torch.bool, device=device)
        """(I, N) bool: false where the agent is the ego itself"""
        for row, ego in enumerate(rows):
            self.others[row, ego] = False
        self.env_steps = 0
        self.queries = torch.zeros(len(rows), agents, dtype=torch.int64, device=device)
        self.seen = torch.zeros(len(rows), agents, dtype=torch.int64, device=device)

    def add_real_steps(self, acting: Tensor) -> None:
        """Count `acting (B, N)`, one row per transition: B env steps, and every acting agent's action for all others.

        In a turn-based game the ego that waits sees the others' actions too, so whether it acts itself plays no part.
        """
        if acting.ndim != 2 or acting.shape[1] != self.agents or acting.dtype != torch.bool:
            raise ValueError(
                f"acting must be bool of shape (B, {self.agents}), got {acting.dtype} {tuple(acting.shape)}"
            )
        self.env_steps += len(acting)
        self.seen += acting.sum(0).to(self.seen.device) * self.others

    def add_queries(self, counts: Tensor) -> None:
        """Count the `counts (I, N)` actions that one imagining asked of real opponents."""
        if counts.shape != self.queries.shape or counts.is_floating_point() or counts.dtype == torch.bool:
            got = f"{counts.dtype} of shape {tuple(counts.shape)}"
            raise ValueError(f"counts must be integers of shape {tuple(self.queries.shape)}, got {got}")
        found = counts.to(self.queries.device, torch.int64)
        wrong = (found < 0) | ((found > 0) & ~self.others)
        if wrong.any():
            row, agent = (int(index) for index in wrong.nonzero()[0])
            raise ValueError(
                f"ego {self.egos[row]} reports {int(found[row, agent])} queries to agent {agent}; "
                "counts are not negative, and no agent asks itself"
            )
        self.queries += found

    @property
    def opponent_queries(self) -> int:
        """Queries of all egos to all opponents."""
        return int(self.queries.sum())

    @property
    def opponent_samples(self) -> int:
        """Opponents' actions of either kind, asked for and seen: AORPO's opponent sample complexity."""
        return int((self.queries + self.seen).sum())

    def state(self) -> dict[str, Any]:
        """Plain data, ready for JSON, from which `restore` continues."""
        return {"env_steps": self.env_steps, "queries": self.queries.tolist(), "seen": self.seen.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; raises ValueError where it is of another game."""
        counts = {
            name: torch.tensor(state[name], dtype=torch.int64, device=self.seen.device) for name in ("queries", "seen")
        }
        for name, count in counts.items():
            if count.shape != self.queries.shape:
                raise ValueError(f"the stored {name} are {tuple(count.shape)}, this run's {tuple(self.queries.shape)}")
        self.env_steps, self.queries, self.seen = int(state["env_steps"]), counts["queries"], counts["seen"]


def normalised_opponent_samples(
    queries: Tensor, input_sizes: Sequence[int], action_sizes: Sequence[int], episodes: float, episode_length: int
) -> float:
    """Opponent samples in units of episodes, the second axis of AORPO's learning curves.

    `episodes + sum_ij queries[i, j] w[j] / episode_length` with `w[j]` the share of agent j's policy input and action
    numbers in those of all agents: what one answer sends, relative to what one env step reveals. From the released
    code of Zhang et al. 2021; the paper's own normalisation could not be checked.

    Args:
        queries: `(I, N)` true query counts, `Ledger.queries`.
        input_sizes: (N,) width of each policy's input, predicted actions included where it reads them.
        action_sizes: (N,) width of each action. episodes: episodes of real experience, >= 0.
        episode_length: env steps of one episode, >= 1.
    """
    agents = queries.shape[-1]
    if not len(input_sizes) == len(action_sizes) == agents:
        raise ValueError(f"{agents} agents need as many sizes, got input {input_sizes} and action {action_sizes}")
    if min(input_sizes) < 0 or min(action_sizes) < 1:
        raise ValueError(f"sizes must be >= 0 for inputs and >= 1 for actions, got {input_sizes} and {action_sizes}")
    if episodes < 0 or episode_length < 1:
        raise ValueError(f"episodes={episodes} must be >= 0 and episode_length={episode_length} >= 1")
    sizes = torch.tensor(input_sizes, dtype=torch.float64) + torch.tensor(action_sizes, dtype=torch.float64)
    weights = sizes / sizes.sum()
    return episodes + float((queries.to("cpu", torch.float64) * weights).sum()) / episode_length
