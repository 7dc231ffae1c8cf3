"""Simple: one agent goes to one landmark. mpe2 `simple_v3`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.envs.particle.physics import Term, World, WorldState
from presage.envs.particle.scenario import Before, Scenario, alike, at_rest, marks, square, uniform


@dataclass(frozen=True, kw_only=True)
class Simple(Scenario):
    """The agent sees its velocity and where the landmark is from where it stands."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "simple"

    @cached_property
    def world(self) -> World:
        """One agent and one landmark; nothing collides."""
        return World(agents=alike("agent", 1, collides=False), landmarks=marks(1))

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Velocity, and the landmark from where the agent stands."""
        return ((*self.world.velocity_terms(0), *self.world.position_terms(1, 0)),)

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Both uniform in [-1, 1]^2, the agent at rest."""
        place = square(uniform(copies, 4, rng))
        return at_rest(self.world, place[:, :1], place[:, 1:])

    def rewards(self, state: Tensor) -> Tensor:
        """Minus the squared distance to the landmark: `(B, 1)` for `state (D, B)`."""
        missed = self.world.landmark_position(state) - self.world.position(state)
        return -missed.square().sum(-1)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """A state like the one behind `obs (B, 4)`, with the agent at the origin: it does not see where it is."""
        velocity, landmark = obs[:, None, :2], obs[:, None, 2:]
        return at_rest(self.world, torch.zeros_like(velocity), landmark, velocity=velocity)
