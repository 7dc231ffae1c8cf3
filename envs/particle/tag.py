"""Tag (predator and prey): slow adversaries hunt quick agents among obstacles. mpe2 `simple_tag_v3`."""

from __future__ import annotations

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
    orders,
    square,
    touching,
    trespass,
    uniform,
)

ADVERSARY_SIZE, PREY_SIZE, OBSTACLE_SIZE = 0.075, 0.05, 0.2
CAUGHT = 10.0
"""what a touch is worth to every adversary, and costs the one that is touched"""


@dataclass(frozen=True, kw_only=True)
class Tag(Scenario):
    """Agents see their velocity and position, obstacles and others from where they stand, and prey's velocities."""

    good: int = 1
    """prey, >= 1"""
    adversaries: int = 3
    """>= 1"""
    obstacles: int = 2
    """>= 0"""
    prey_speed: float = 1.0
    """factor on the prey's acceleration and speed limit; the stages of mpe2's curriculum are 0.5, 0.75 and 1"""
    terminate_on_success: bool = False
    """end the episode once all prey are touched at the same time"""

    def __post_init__(self) -> None:
        if min(self.good, self.adversaries) < 1 or self.obstacles < 0 or self.prey_speed <= 0:
            raise GameError(
                f"tag needs good={self.good} and adversaries={self.adversaries} >= 1, obstacles={self.obstacles} >= 0 "
                f"and prey_speed={self.prey_speed} > 0"
            )

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "tag"

    @cached_property
    def world(self) -> World:
        """Adversaries, then prey, then obstacles; all of them collide."""
        return World(
            agents=(
                *alike("adversary", self.adversaries, size=ADVERSARY_SIZE, accel=3.0, max_speed=1.0),
                *alike(
                    "agent", self.good, size=PREY_SIZE, accel=4.0 * self.prey_speed, max_speed=1.3 * self.prey_speed
                ),
            ),
            landmarks=alike("landmark", self.obstacles, size=OBSTACLE_SIZE, movable=False),
        )

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent: velocity, position, obstacles and others from where it stands, velocities of the other prey."""
        world, seen = self.world, []
        n = len(world.agents)
        for i in range(n):
            others = [j for j in range(n) if j != i]
            terms = [*world.velocity_terms(i), *world.position_terms(i)]
            for entity in [*range(n, n + self.obstacles), *others]:
                terms += world.position_terms(entity, i)
            for j in others:
                terms += world.velocity_terms(j) if j >= self.adversaries else []
            seen.append(tuple(terms))
        return tuple(seen)

    def interchangeable(self) -> list[Renaming]:
        """Adversaries are alike, so are prey, and so are obstacles."""
        agents = range(self.adversaries), range(self.adversaries, len(self.world.agents))
        return [Renaming(a, b) for a in orders(*agents) for b in orders(range(self.obstacles))]

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Agents uniform in [-1, 1]^2, at rest; obstacles in [-0.9, 0.9]^2."""
        n = len(self.world.agents)
        number = uniform(copies, 2 * (n + self.obstacles), rng)
        return at_rest(self.world, square(number[:, : 2 * n]), square(number[:, 2 * n :], 0.9))

    def touches(self, state: Tensor) -> Tensor:
        """`(B, adversaries, good)` bool: who touches whom in `state (D, B)`."""
        position = self.world.position(state)
        return touching(position[:, : self.adversaries], position[:, self.adversaries :], ADVERSARY_SIZE + PREY_SIZE)

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`: touches, shared by all adversaries; prey pay for leaving the screen as well."""
        caught = self.touches(state).to(state.dtype) * CAUGHT
        hunters = caught.sum((1, 2))[:, None].expand(-1, self.adversaries)
        return torch.cat([hunters, -caught.sum(1) - trespass(self.world.position(state)[:, self.adversaries :])], 1)

    @property
    def terminates(self) -> bool:
        """Whether an episode can end before its last step."""
        return self.terminate_on_success

    def over(self, state: Tensor) -> Tensor:
        """`(B,)` bool: all prey are touched."""
        return self.touches(state).any(1).all(1)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """The state behind `obs (B, O)`; obstacles as the first adversary sees them."""
        widths = [len(terms) for terms in self.observed()]
        own = [part[:, :4] for part in torch.split(obs, widths, 1)]
        velocity, position = torch.split(torch.stack(own, 1), 2, 2)
        obstacles = obs[:, 4 : 4 + 2 * self.obstacles].reshape(len(obs), self.obstacles, 2)
        return at_rest(self.world, position, position[:, :1] + obstacles, velocity=velocity)
