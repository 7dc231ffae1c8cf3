"""Line: agents spread evenly over the line between two landmarks. mpe2 `simple_line_v1`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.formation import CLOSE, FAR, alike_agents, own_and_landmarks, seen_by_first
from presage.envs.particle.physics import Renaming, Term, World, WorldState
from presage.envs.particle.scenario import (
    Before,
    Scenario,
    alike,
    at_rest,
    marks,
    matched_distances,
    pair_distance,
    square,
    uniform,
)

LENGTH = 1.25
"""distance between the landmarks"""
TURN = math.radians(5)
"""by which the second landmark is turned around the first one until it lies within [-1, 1]^2"""


@dataclass(frozen=True, kw_only=True)
class Line(Scenario):
    """An agent sees its velocity and position and the landmarks from where it stands, and nothing of the others."""

    agents: int = 4
    """N, >= 1"""
    terminate_on_success: bool = False
    """end the episode once every agent is at its place"""

    def __post_init__(self) -> None:
        if self.agents < 1:
            raise GameError(f"line needs at least one agent, got agents={self.agents}")

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "line"

    @cached_property
    def world(self) -> World:
        """N agents that collide, two landmarks that do not."""
        return World(agents=alike("agent", self.agents, size=0.03), landmarks=marks(2, size=0.02))

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent: velocity, position, both landmarks from where it stands."""
        return tuple(own_and_landmarks(self.world, i) for i in range(self.agents))

    def interchangeable(self) -> list[Renaming]:
        """Agents are alike; of more than four, whose orders are too many, the rotations. (The ends of the line are
        alike in what is paid; they stay where they are here.)
        """
        return alike_agents(self.agents, 2)

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Agents uniform in [-1, 1]^2, at rest; one landmark in [-0.25, 0.25]^2, the other one away from it at a
        uniform angle, turned on in steps of 5 degrees until it lies on the screen.
        """
        number = uniform(copies, 2 * self.agents + 3, rng)
        first = square(number[:, -3:-1], 0.25)
        turns = torch.arange(72, device=rng.device, dtype=number.dtype)
        angle = number[:, -1:] * (2 * math.pi) + turns * TURN
        ends = first + LENGTH * torch.stack([angle.cos(), angle.sin()], 2)
        chosen = (ends.abs() < 1.0).all(2).to(torch.uint8).argmax(1)  # the first one that lies on the screen
        second = ends[torch.arange(copies, device=rng.device), chosen][:, None]
        return at_rest(self.world, square(number[:, :-3]), torch.cat([first, second], 1))

    def missed(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`: distances to the places of the cheapest assignment."""
        position, ends = self.world.position(state), self.world.landmark_position(state)
        share = torch.arange(self.agents, device=state.device, dtype=state.dtype) / max(self.agents - 1, 1)
        places = ends[:, :1] + share[:, None] * (ends[:, 1:] - ends[:, :1])
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
        """The state behind `obs (B, O)`; the landmarks as agent 0 sees them."""
        return seen_by_first(self.world, obs)
