"""Formation: agents spread evenly over a circle around a landmark. mpe2 `simple_formation_v1`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import Renaming, Term, World, WorldState
from presage.envs.particle.scenario import (
    Before,
    Scenario,
    alike,
    at_rest,
    marks,
    matched_distances,
    orders,
    pair_distance,
    square,
    uniform,
)

RADIUS = 0.5
CLOSE = 0.05
"""distance from its place at which an agent counts as there"""
FAR = 2.0
"""distance beyond which more costs no more"""


@dataclass(frozen=True, kw_only=True)
class Formation(Scenario):
    """An agent sees its velocity and position and the landmark from where it stands, and nothing of the others."""

    agents: int = 4
    """N, >= 1"""
    terminate_on_success: bool = False
    """end the episode once every agent is at its place"""

    def __post_init__(self) -> None:
        if self.agents < 1:
            raise GameError(f"formation needs at least one agent, got agents={self.agents}")

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "formation"

    @cached_property
    def world(self) -> World:
        """N agents that collide, a landmark that does not."""
        return World(agents=alike("agent", self.agents), landmarks=marks(1, size=0.03))

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent: velocity, position, the landmark from where it stands."""
        return tuple(own_and_landmarks(self.world, i) for i in range(self.agents))

    def interchangeable(self) -> list[Renaming]:
        """Agents are alike; of more than four, whose orders are too many, the rotations."""
        return alike_agents(self.agents, 1)

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Agents uniform in [-1, 1]^2, at rest; the landmark in [-0.5, 0.5]^2."""
        number = uniform(copies, 2 * self.agents + 2, rng)
        return at_rest(self.world, square(number[:, :-2]), square(number[:, -2:], 0.5))

    def missed(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`: distances to the places of the cheapest assignment. Places are even angles apart
        from the smallest angle, in [0, 2 pi), at which an agent stands.
        """
        position, centre = self.world.position(state), self.world.landmark_position(state)
        x, y = (position - centre).unbind(2)
        angle = torch.atan2(y, x)
        first = torch.where(angle < 0, angle + 2 * math.pi, angle).amin(1, keepdim=True)
        even = first + torch.arange(self.agents, device=first.device, dtype=first.dtype) * (2 * math.pi / self.agents)
        places = centre + RADIUS * torch.stack([even.cos(), even.sin()], 2)
        return matched_distances(pair_distance(position, places))

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
        """The state behind `obs (B, O)`; the landmark as agent 0 sees it."""
        return seen_by_first(self.world, obs)


def own_and_landmarks(world: World, agent: int) -> tuple[Term, ...]:
    """An agent's velocity and position, and the landmarks from where it stands."""
    n = len(world.agents)
    terms = [*world.velocity_terms(agent), *world.position_terms(agent)]
    for entity in range(n, n + len(world.landmarks)):
        terms += world.position_terms(entity, agent)
    return tuple(terms)


def alike_agents(agents: int, landmarks: int) -> list[Renaming]:
    """All orders of up to four agents, the rotations of more; landmarks stay."""
    given, stay = tuple(range(agents)), tuple(range(landmarks))
    found = orders(range(agents)) if agents <= 4 else [given[k:] + given[:k] for k in given]
    return [Renaming(order, stay) for order in found]


def seen_by_first(world: World, obs: Tensor) -> WorldState:
    """The state behind `obs (B, O)` of agents who see `own_and_landmarks`."""
    seen = obs.reshape(len(obs), len(world.agents), -1)
    velocity, position = seen[:, :, :2], seen[:, :, 2:4]
    landmarks = position[:, :1] + seen[:, 0, 4:].reshape(len(obs), -1, 2)
    return at_rest(world, position, landmarks, velocity=velocity)
