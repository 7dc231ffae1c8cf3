"""Formation: agents spread evenly over a circle around a landmark. mpe2 `simple_formation_v1`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.envs.particle.physics import World, WorldState
from presage.envs.particle.places import Places
from presage.envs.particle.scenario import alike, at_rest, marks, square, uniform

RADIUS = 0.5


@dataclass(frozen=True, kw_only=True)
class Formation(Places):
    """Places are even angles apart on the circle, from the smallest angle at which an agent stands."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "formation"

    @cached_property
    def world(self) -> World:
        """N agents that collide, a landmark that does not."""
        return World(agents=alike("agent", self.agents), landmarks=marks(1, size=0.03))

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Agents uniform in [-1, 1]^2, at rest; the landmark in [-0.5, 0.5]^2."""
        number = uniform(copies, 2 * self.agents + 2, rng)
        return at_rest(self.world, square(number[:, :-2]), square(number[:, -2:], 0.5))

    def places(self, state: Tensor) -> Tensor:
        """On the circle: `(B, N, 2)`. The first angle is the smallest one in [0, 2 pi) of an agent."""
        centre = self.world.landmark_position(state)
        x, y = (self.world.position(state) - centre).unbind(2)
        angle = torch.atan2(y, x)
        first = torch.where(angle < 0, angle + 2 * math.pi, angle).amin(1, keepdim=True)
        step = 2 * math.pi / self.agents
        even = first + torch.arange(self.agents, device=first.device, dtype=first.dtype) * step
        return centre + RADIUS * torch.stack([even.cos(), even.sin()], 2)
