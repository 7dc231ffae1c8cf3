"""Adversary (physical deception): agents know which landmark is the goal, the adversary does not.

mpe2 `simple_adversary_v3`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import DAMPING, TIME_STEP, Body, Renaming, Term, World, WorldState
from presage.envs.particle.scenario import Before, Scenario, alike, at_rest, length, marks, orders, square, uniform


@dataclass(frozen=True, kw_only=True)
class Adversary(Scenario):
    """Nobody sees a velocity, its own included: two joint observations and the actions between determine the next."""

    good: int = 2
    """agents beside the one adversary, and landmarks; >= 1"""
    frames = 2

    def __post_init__(self) -> None:
        if self.good < 1:
            raise GameError(f"adversary needs at least one good agent, got good={self.good}")

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "adversary"

    @cached_property
    def world(self) -> World:
        """The adversary, the agents, as many landmarks; nothing collides. Private: where the goal is."""
        return World(
            agents=(
                *alike("adversary", 1, size=0.15, collides=False),
                *alike("agent", self.good, size=0.15, collides=False),
            ),
            landmarks=marks(self.good, size=0.08), private=2, points=1,
        )  # fmt: skip

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent, from where it stands: the goal, but for the adversary; landmarks; others."""
        world, n, seen = self.world, self.good + 1, []
        for i in range(n):
            terms = world.point_terms(0, i) if i > 0 else []
            for entity in [*range(n, n + self.good), *(j for j in range(n) if j != i)]:
                terms += world.position_terms(entity, i)
            seen.append(tuple(terms))
        return tuple(seen)

    def interchangeable(self) -> list[Renaming]:
        """Agents are alike, and so are landmarks; the goal stays where it is."""
        return [
            Renaming(a, b, (0, 1)) for a in orders(range(1), range(1, self.good + 1)) for b in orders(range(self.good))
        ]

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """A uniform goal; everything uniform in [-1, 1]^2, at rest."""
        number = uniform(copies, 1 + 2 * (2 * self.good + 1), rng)
        place = square(number[:, 1:])
        landmarks = place[:, self.good + 1 :]
        goal = landmarks[torch.arange(copies, device=rng.device), (number[:, 0] * self.good).long()]
        return at_rest(self.world, place[:, : self.good + 1], landmarks, private=goal)

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`: the adversary's distance to the goal, which it pays; agents get it, less their
        nearest one's.
        """
        away = length(self.world.position(state) - self.world.own(state)[:, None])
        team = away[:, :1] - away[:, 1:].amin(1, keepdim=True)
        return torch.cat([-away[:, :1], team.expand(-1, self.good)], 1)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """A state like the one behind `obs (B, O)`, with the first landmark at the origin: nobody sees where it is.

        Velocities follow from where everybody stood and how it pushed one step earlier; at first all are at rest.

        Raises:
            GameError: without `before`: nobody sees a velocity.
        """
        if before is None:
            raise GameError("'adversary' shows no velocities: its state follows from two joint observations")
        position, landmarks, goal = self._places(obs)
        drift = (position - self._places(before.obs)[0]) / TIME_STEP
        velocity = (1.0 - DAMPING) * drift + Body.accel * TIME_STEP * before.push
        return at_rest(
            self.world, position, landmarks, velocity=velocity * before.known[:, None, None], private=goal
        )  # fmt: skip

    def _places(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Agents `(B, N, 2)`, landmarks `(B, K, 2)` and goal `(B, 2)`, seen from the first landmark."""
        seen = torch.split(obs, [len(terms) for terms in self.observed()], 1)
        firsts = [seen[0][:, :2], *(part[:, 2:4] for part in seen[1:])]  # of the first landmark, from every agent
        position = -torch.stack(firsts, 1)
        landmarks = position[:, :1] + seen[0][:, : 2 * self.good].reshape(len(obs), self.good, 2)
        return position, landmarks, position[:, 1] + seen[1][:, :2]
