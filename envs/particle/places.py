"""Agents who share out the places of a shape: what formation and line have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import Renaming, Term, WorldState
from presage.envs.particle.scenario import Before, Scenario, at_rest, matched_distances, orders, pair_distance

CLOSE = 0.05
"""distance from its place at which an agent counts as there"""
FAR = 2.0
"""distance beyond which more costs no more"""


@dataclass(frozen=True, kw_only=True)
class Places(Scenario):
    """An agent sees its velocity and position and the landmarks from where it stands, and nothing of the others."""

    agents: int = 4
    """N, >= 1"""
    terminate_on_success: bool = False
    """end the episode once every agent is at its place"""

    def __post_init__(self) -> None:
        if self.agents < 1:
            raise GameError(f"{self.name} needs at least one agent, got agents={self.agents}")

    @abstractmethod
    def places(self, state: Tensor) -> Tensor:
        """The N places `(B, N, 2)` of the shape in `state (D, B)`."""

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent: velocity, position, landmarks from where it stands."""
        world, seen = self.world, []
        for i in range(self.agents):
            terms = [*world.velocity_terms(i), *world.position_terms(i)]
            for entity in range(self.agents, self.agents + len(world.landmarks)):
                terms += world.position_terms(entity, i)
            seen.append(tuple(terms))
        return tuple(seen)

    def interchangeable(self) -> list[Renaming]:
        """Agents are alike; of more than four, whose orders are too many, the rotations. Landmarks stay."""
        given, stay = tuple(range(self.agents)), tuple(range(len(self.world.landmarks)))
        found = orders(range(self.agents)) if self.agents <= 4 else [given[k:] + given[:k] for k in given]
        return [Renaming(order, stay) for order in found]

    def missed(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`: distances to the places of the cheapest assignment."""
        return matched_distances(pair_distance(self.world.position(state), self.places(state)))

    def rewards(self, state: Tensor) -> Tensor:
        """Minus the mean distance from the places, for all: `(B, N)` for `state (D, B)`."""
        return -self.missed(state).clamp(max=FAR).mean(1, keepdim=True).expand(-1, self.agents)

    @property
    def terminates(self) -> bool:
        """Whether an episode can end before its last step."""
        return self.terminate_on_success

    def over(self, state: Tensor) -> Tensor:
        """`(B,)` bool: everybody is at its place."""
        return (self.missed(state) < CLOSE).all(1)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """The state behind `obs (B, O)`; landmarks as agent 0 sees them."""
        seen = obs.reshape(len(obs), self.agents, -1)
        velocity, position = seen[:, :, :2], seen[:, :, 2:4]
        landmarks = position[:, :1] + seen[:, 0, 4:].reshape(len(obs), -1, 2)
        return at_rest(self.world, position, landmarks, velocity=velocity)
