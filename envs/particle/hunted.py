"""Tag as LIAM was studied on it: a short-sighted prey gains by company of one predator, and loses by that of more.

Papoudakis, Christianos, Albrecht 2021 (2006.09447), predator-prey, by the released code. What differs: there are no
walls behind the border that the prey has to keep inside of.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import World, WorldState
from presage.envs.particle.scenario import Look, alike, at_rest, pair_distance, square, touching, uniform
from presage.envs.particle.tag import OBSTACLE_SIZE, Tag

SIZE = 0.07
"""radius of predators and prey"""
NEAR = 4 * SIZE
"""distance of two centres from which they keep each other company: twice the one at which they touch"""
BORDER, OUTSIDE = 0.99, 10.0
"""where the prey's arena ends in either coordinate, and what a step outside costs it"""
UNSEEN = -5.0
"""both coordinates of what is out of sight"""


@dataclass(frozen=True, kw_only=True)
class Hunted(Tag):
    """Predators, one prey and obstacles, who observe what they do in tag; but what is farther from the prey than
    `sight` in either coordinate is shown to it as `UNSEEN`.
    """

    sight: float = 0.5
    """of the prey, > 0; `inf` hides nothing"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.good != 1 or self.sight <= 0:
            raise GameError(f"hunted needs one prey, good={self.good}, and sight={self.sight} > 0")

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
        return torch.cat([hunters, (worth - OUTSIDE * outside)[:, None]], 1)
