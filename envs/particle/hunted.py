"""Tag as LIAM was studied on it: a short-sighted prey gains by company of one predator, and loses by that of more.

Papoudakis, Christianos, Albrecht 2021 (2006.09447), predator-prey, by the released code. What differs: the walls that
keep everybody near have no ends and no thickness.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import CONTACT_FORCE, TIME_STEP, World, WorldState
from presage.envs.particle.scenario import Look, alike, at_rest, pair_distance, square, touching, uniform
from presage.envs.particle.tag import OBSTACLE_SIZE, Tag

SIZE = 0.07
"""radius of predators and prey"""
NEAR = 4 * SIZE
"""distance of two centres from which they keep each other company: twice the one at which they touch"""
BORDER, WALL = 0.99, 1.3
"""where the prey's arena ends in either coordinate, and where walls stand that push back like other bodies"""
UNSEEN = -5.0
"""both coordinates of what is out of sight"""


@dataclass(frozen=True, kw_only=True)
class Hunted(Tag):
    """Predators, one prey and obstacles, who observe what they do in tag; but what is farther from the prey than
    `sight` in either coordinate is shown to it as `UNSEEN`.
    """

    sight: float = 0.5
    """of the prey, > 0; `inf` hides nothing"""
    outside: float = 10.0
    """what a step outside of its arena costs the prey; >= 0"""

    chances = 1
    """none is needed, but what a scenario adds to the physics is asked for where a step takes some"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.good != 1 or self.sight <= 0 or self.outside < 0:
            raise GameError(
                f"hunted needs one prey, good={self.good}, sight={self.sight} > 0 and outside={self.outside} >= 0"
            )

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "hunted"

    @cached_property
    def world(self) -> World:
        """Adversaries, then the prey, then obstacles; all of them collide."""
        speed = self.prey_speed
        return World(
            agents=(
                *alike("adversary", self.adversaries, size=SIZE, accel=3.0, max_speed=1.0),
                *alike("agent", 1, size=SIZE, accel=4.0 * speed, max_speed=1.3 * speed),
            ),
            landmarks=alike("landmark", self.obstacles, size=OBSTACLE_SIZE, movable=False),
        )

    def look(self, device: torch.device) -> Look:
        """Hide from the prey what is out of its sight."""
        widths = [len(terms) for terms in self.observed()]
        first = sum(widths[:-1]) + 4  # of the prey's numbers, its own velocity and position come first

        def look(state: Tensor, seen: Tensor) -> Tensor:
            away = seen[first:].view(-1, 2, seen.shape[1])
            hidden = (away.abs() > self.sight).any(1, keepdim=True)
            return torch.cat([seen[:first], torch.where(hidden, UNSEEN, away).flatten(0, 1)])

        return look

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """All uniform in [-0.9, 0.9]^2, agents at rest."""
        n = len(self.world.agents)
        place = square(uniform(copies, 2 * (n + self.obstacles), rng), 0.9)
        return at_rest(self.world, place[:, :n], place[:, n:])

    def happen(self, state: Tensor, chance: Tensor) -> Tensor:
        """The state `(D, B)` after a step of the physics, with what walls do to whoever overlaps them."""
        rows = 2 * len(self.world.agents)
        position, velocity = state[:rows], state[rows : 2 * rows]
        overlap = (position.abs() + (SIZE - WALL)).clamp_min(0.0)
        pushed = velocity - TIME_STEP * CONTACT_FORCE * overlap * position.sign()
        return torch.cat([position, pushed, state[2 * rows :]])

    def touches(self, state: Tensor) -> Tensor:
        """`(B, adversaries, 1)` bool: who keeps the prey company."""
        position = self.world.position(state)
        return touching(position[:, :-1], position[:, -1:], NEAR)

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`. The prey: 1 in the company of one, -1 of more, less what it costs to be outside.
        Predators, all alike: the other way round, and a tenth of their distances from it less.
        """
        position = self.world.position(state)
        company = self.touches(state).sum((1, 2))
        worth = (company == 1).to(state.dtype) - (company > 1).to(state.dtype)
        outside = (position[:, -1].abs() > BORDER).any(1)
        far = pair_distance(position[:, :-1], position[:, -1:]).sum((1, 2))
        hunters = (-worth - 0.1 * far)[:, None].expand(-1, self.adversaries)
        return torch.cat([hunters, (worth - self.outside * outside)[:, None]], 1)
