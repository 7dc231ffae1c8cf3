"""World with communication: adversaries with a leader who sees all hunt agents who gather food and hide in forests.

mpe2 `simple_world_comm_v3`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import Body, Renaming, Term, World, WorldState
from presage.envs.particle.scenario import (
    Before,
    Look,
    Scenario,
    alike,
    at_rest,
    marks,
    orders,
    pair_distance,
    square,
    touching,
    trespass,
    uniform,
)

WORDS = 4
ADVERSARY_SIZE, GOOD_SIZE, FOOD_SIZE, FOREST_SIZE = 0.075, 0.045, 0.03, 0.3
CAUGHT, EATEN = 5.0, 2.0


@dataclass(frozen=True, kw_only=True)
class WorldComm(Scenario):
    """Who stands in a forest is seen from inside it and by the leader alone, whose words the other adversaries hear."""

    good: int = 2
    """prey, >= 1"""
    adversaries: int = 4
    """the leader included, >= 1"""
    obstacles: int = 1
    """>= 0"""
    food: int = 2
    """>= 1"""
    forests: int = 2
    """>= 1"""

    def __post_init__(self) -> None:
        if min(self.good, self.adversaries, self.food, self.forests) < 1 or self.obstacles < 0:
            raise GameError(
                f"world_comm needs good={self.good}, adversaries={self.adversaries}, food={self.food} and "
                f"forests={self.forests} >= 1, and obstacles={self.obstacles} >= 0"
            )

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "world_comm"

    @cached_property
    def world(self) -> World:
        """The leader, who speaks, other adversaries, prey; obstacles, food and forests, of which obstacles collide."""
        hunter: dict[str, float] = {"size": ADVERSARY_SIZE, "accel": 3.0, "max_speed": 1.0}
        return World(
            agents=(
                Body(name="leadadversary_0", silent=False, **hunter),  # type: ignore[arg-type]  # Body's fields
                *alike("adversary", self.adversaries - 1, **hunter),
                *alike("agent", self.good, size=GOOD_SIZE, accel=4.0, max_speed=1.3),
            ),
            landmarks=(
                *alike("landmark", self.obstacles, size=0.2, movable=False),
                *marks(self.food, "food", size=FOOD_SIZE),
                *marks(self.forests, "forest", size=FOREST_SIZE),
            ),
            words=WORDS,
        )

    @property
    def _n(self) -> int:
        return self.adversaries + self.good

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent: velocity, position, landmarks and others from where it stands, velocities of the other prey, one
        number per forest, and for adversaries the leader's word; prey have the velocities last.
        """
        return tuple(tuple(term for term, _ in numbers) for numbers in self._numbers())

    def _numbers(self) -> list[list[tuple[Term, int | None]]]:
        """Per agent and number: its term, and what hides it: None for nothing, j >= 0 if agent j does not show, and
        -1 - f for what is no difference but the flag of forest f.
        """
        world, n, found = self.world, self._n, []
        for i in range(n):
            others = [j for j in range(n) if j != i]
            own = [*world.velocity_terms(i), *world.position_terms(i)]
            for entity in range(n, n + len(world.landmarks)):
                own += world.position_terms(entity, i)
            seen: list[tuple[Term, int | None]] = [(term, None) for term in own]
            for j in others:
                seen += [(term, j) for term in world.position_terms(j, i)]
            moving = [(term, j) for j in others if j >= self.adversaries for term in world.velocity_terms(j)]
            flags: list[tuple[Term, int | None]] = []
            for f in range(self.forests):  # a difference of nothing, but one that tells the forest
                y = world.position_rows(n + self.obstacles + self.food + f)[1]
                flags.append(((y, y), -1 - f))
            if i < self.adversaries:
                found.append([*seen, *moving, *flags, *((term, None) for term in world.message_terms(0))])
            else:
                found.append([*seen, *flags, *moving])
        return found

    def look(self, device: torch.device) -> Look:
        """Hide those who do not show, and set the flags: 1 inside a forest, -1 outside."""
        n, forests = self._n, self.forests
        # Every number is kept times one row of [who shows to whom (n n), 1], plus one row of [flags (n F), 0].
        factor, added = [], []
        for i, numbers in enumerate(self._numbers()):
            for _, hides in numbers:
                factor.append(n * n if hides is None or hides < 0 else i * n + hides)
                added.append(n * forests if hides is None or hides >= 0 else i * forests - 1 - hides)
        factors, addends = (torch.tensor(rows, device=device) for rows in (factor, added))

        def look(state: Tensor, seen: Tensor) -> Tensor:
            inside = self._inside(state)
            sheltered = inside.any(2)
            together = (inside[:, :, None] & inside[:, None]).any(3)
            shows = together | ~(sheltered[:, :, None] | sheltered[:, None])
            shows[:, 0] = True
            ones, zeros = seen.new_ones(1, seen.shape[1]), seen.new_zeros(1, seen.shape[1])
            flags = inside.to(seen.dtype).mul(2.0).sub(1.0).flatten(1).T
            times = torch.cat([shows.to(seen.dtype).flatten(1).T, ones]).index_select(0, factors)
            return seen * times + torch.cat([flags, zeros]).index_select(0, addends)

        return look

    def _inside(self, state: Tensor) -> Tensor:
        """`(B, N, F)` bool: who stands in which forest of `state (D, B)`."""
        position = self.world.position(state)
        sizes = [ADVERSARY_SIZE + FOREST_SIZE] * self.adversaries + [GOOD_SIZE + FOREST_SIZE] * self.good
        return touching(position, self._landmarks(state)[2], position.new_tensor(sizes)[:, None])

    def _landmarks(self, state: Tensor) -> tuple[Tensor, ...]:
        """Obstacles, food and forests `(B, K, 2)` of `state (D, B)`."""
        return torch.split(self.world.landmark_position(state), [self.obstacles, self.food, self.forests], 1)

    def interchangeable(self) -> list[Renaming]:
        """Adversaries but for the leader are alike, so are prey, and so are the landmarks of each kind."""
        a, f = self.adversaries, self.obstacles + self.food
        kinds = range(self.obstacles), range(self.obstacles, f), range(f, f + self.forests)
        agents = orders(range(1), range(1, a), range(a, self._n))
        return [Renaming(order, places) for order in agents for places in orders(*kinds)]

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Agents uniform in [-1, 1]^2, at rest; landmarks in [-0.9, 0.9]^2."""
        n = self._n
        number = uniform(copies, 2 * (n + len(self.world.landmarks)), rng)
        return at_rest(self.world, square(number[:, : 2 * n]), square(number[:, 2 * n :], 0.9))

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`: touches, shared by adversaries, who also pay for distance to the nearest prey;
        prey pay for touches, for leaving the screen and for distance to food, and gain by food.
        """
        hunters, prey = torch.split(self.world.position(state), [self.adversaries, self.good], 1)
        food = self._landmarks(state)[1]
        caught = touching(hunters, prey, ADVERSARY_SIZE + GOOD_SIZE).to(state.dtype) * CAUGHT
        eaten = touching(prey, food, GOOD_SIZE + FOOD_SIZE).to(state.dtype) * EATEN
        of_hunters = caught.sum((1, 2))[:, None] - 0.1 * pair_distance(hunters, prey).amin(2)
        hungry = 0.05 * pair_distance(prey, food).amin(2)
        return torch.cat([of_hunters, eaten.sum(2) - caught.sum(1) - 2.0 * trespass(prey) - hungry], 1)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """The state behind `obs (B, O)`; landmarks as the leader sees them."""
        widths = [len(terms) for terms in self.observed()]
        parts = torch.split(obs, widths, 1)
        velocity, position = torch.split(torch.stack([part[:, :4] for part in parts], 1), 2, 2)
        k = len(self.world.landmarks)
        landmarks = position[:, :1] + obs[:, 4 : 4 + 2 * k].reshape(len(obs), k, 2)
        message = parts[0][:, -WORDS:]
        return at_rest(self.world, position, landmarks, velocity=velocity, message=message[:, None])
