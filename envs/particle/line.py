"""Line: agents spread evenly over the line between two landmarks. mpe2 `simple_line_v1`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.envs.particle.physics import World, WorldState
from presage.envs.particle.places import Places
from presage.envs.particle.scenario import alike, at_rest, marks, square, uniform

LENGTH = 1.25
"""distance between the landmarks"""
TURN = math.radians(5)
"""by which the second landmark is turned around the first one until it lies within [-1, 1]^2"""


@dataclass(frozen=True, kw_only=True)
class Line(Places):
    """Places are even distances apart, from one landmark to the other."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "line"

    @cached_property
    def world(self) -> World:
        """N agents that collide, two landmarks that do not."""
        return World(agents=alike("agent", self.agents, size=0.03), landmarks=marks(2, size=0.02))

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

    def places(self, state: Tensor) -> Tensor:
        """On the line: `(B, N, 2)`."""
        ends = self.world.landmark_position(state)
        share = torch.arange(self.agents, device=state.device, dtype=state.dtype) / max(self.agents - 1, 1)
        return ends[:, :1] + share[:, None] * (ends[:, 1:] - ends[:, :1])
