"""Spread (cooperative navigation): N agents cover N landmarks without touching each other. mpe2 `simple_spread_v3`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import Renaming, Term, World, WorldState
from presage.envs.particle.scenario import Before, Scenario, alike, at_rest, marks, pair_distance, square, uniform

AGENT_SIZE = 0.15
UNUSED_WORDS = 2
"""zeros that every agent sees in place of the words of every other one, all of which are silent"""


@dataclass(frozen=True, kw_only=True)
class Spread(Scenario):
    """As many landmarks as agents; an agent sees its velocity and position, and everything else relative to itself."""

    agents: int = 3
    """N, >= 1"""
    local_ratio: float = 0.5
    """weight of an agent's own collisions, against that of the distances, which all share; in [0, 1]"""
    reward: Literal["mpe2", "original"] = "mpe2"
    """`original`: every agent gets the sum over agents of distances and collisions, where an agent counts as in
    collision with itself (Lowe et al. 2017); has no local ratio"""

    def __post_init__(self) -> None:
        if self.agents < 1:
            raise GameError(f"spread needs at least one agent, got agents={self.agents}")
        if not 0.0 <= self.local_ratio <= 1.0:
            raise GameError(f"local_ratio={self.local_ratio} must lie in [0, 1]")
        if self.reward not in ("mpe2", "original"):
            raise GameError(f"reward={self.reward!r} must be 'mpe2' or 'original'")
        if self.reward == "original" and self.local_ratio != Spread.local_ratio:
            raise GameError(f"local_ratio={self.local_ratio} has no meaning with reward='original'; leave it out")

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "spread"

    @cached_property
    def world(self) -> World:
        """N agents that collide, N landmarks that do not."""
        return World(
            agents=alike("agent", self.agents, size=AGENT_SIZE), landmarks=marks(self.agents), words=UNUSED_WORDS
        )

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent: velocity, position, landmarks from where it stands, other agents likewise, others' words."""
        world, n = self.world, self.agents
        seen = []
        for i in range(n):
            others = [j for j in range(n) if j != i]
            terms = [*world.velocity_terms(i), *world.position_terms(i)]
            for entity in [*range(n, 2 * n), *others]:
                terms += world.position_terms(entity, i)
            for j in others:
                terms += world.message_terms(j)
            seen.append(tuple(terms))
        return tuple(seen)

    def interchangeable(self) -> list[Renaming]:
        """Agents are alike, and so are landmarks; of more than four, whose orders are too many, the rotations."""
        given = tuple(range(self.agents))
        rotations = [given[k:] + given[:k] for k in given]
        orders = list(permutations(given)) if self.agents <= 4 else rotations
        return [Renaming(agents, landmarks) for agents in orders for landmarks in orders]

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Agents and landmarks uniform in [-1, 1]^2, agents at rest."""
        place = square(uniform(copies, 4 * self.agents, rng))
        return at_rest(self.world, place[:, : self.agents], place[:, self.agents :])

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`: each landmark's distance to the nearest agent, and collisions, both negative."""
        agents, landmarks = self.world.position(state), self.world.landmark_position(state)
        uncovered = pair_distance(agents, landmarks).amin(1).sum(1, keepdim=True)
        touching = (pair_distance(agents, agents) < 2 * AGENT_SIZE).sum(2, dtype=state.dtype)  # (B, N), itself included
        if self.reward == "original":
            total = self.agents * uncovered + touching.sum(1, keepdim=True)
            return -total.expand(-1, self.agents)
        return (1.0 - touching) * self.local_ratio - uncovered * (1.0 - self.local_ratio)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """The state behind `obs (B, O)`; landmarks as agent 0 sees them."""
        n = self.agents
        seen = obs.reshape(len(obs), n, 6 * n)
        position = seen[:, :, 2:4]
        landmarks = position[:, :1] + seen[:, 0, 4 : 4 + 2 * n].reshape(len(obs), n, 2)
        return at_rest(self.world, position, landmarks, velocity=seen[:, :, :2])
