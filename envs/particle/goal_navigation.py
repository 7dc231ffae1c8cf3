"""Goal navigation: cooperative navigation in which every agent has a place of its own to reach, which can be replaced.

A game of several agents and of goals at once: `achieved` is where the agents are, `desired` where they should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import Renaming, Term, World, WorldState
from presage.envs.particle.scenario import Before, Scenario, alike, at_rest, orders, square, uniform

AGENT_SIZE = 0.1


@dataclass(frozen=True)
class PlacesRule:
    """Every agent is paid for its own place."""

    threshold: float
    reward_type: Literal["penalty", "distance"]

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., N)`: -1 away from the place and 0 there, or minus the distance."""
        distance = self._distance(achieved, desired)
        return -distance if self.reward_type == "distance" else -(distance > self.threshold).to(distance.dtype)

    def terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., N)` bool, all false: agents stay where they should be until the episode is cut."""
        return torch.zeros_like(self._distance(achieved, desired), dtype=torch.bool)

    def success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., N)` bool: at the place."""
        return self._distance(achieved, desired) <= self.threshold

    def _distance(self, achieved: Tensor, desired: Tensor) -> Tensor:
        apart = achieved - desired
        return torch.hypot(apart[..., 0::2], apart[..., 1::2])


@dataclass(frozen=True, kw_only=True)
class GoalNavigation(Scenario):
    """An agent sees its velocity, its position and the others from where it stands; its goal is given apart."""

    agents: int = 3
    """N, >= 1"""
    reward_type: Literal["penalty", "distance"] = "penalty"
    """-1 away from the own place and 0 there, or minus the distance from it"""
    threshold: float = 0.1
    """distance at which a place counts as reached, > 0"""

    def __post_init__(self) -> None:
        if self.agents < 1 or self.threshold <= 0:
            raise GameError(f"goal navigation needs agents={self.agents} >= 1 and threshold={self.threshold} > 0")
        if self.reward_type not in ("penalty", "distance"):
            raise GameError(f"reward_type={self.reward_type!r} must be 'penalty' or 'distance'")

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "goal_navigation"

    @cached_property
    def world(self) -> World:
        """N agents that collide. Private: their places."""
        n = self.agents
        return World(agents=alike("agent", n, size=AGENT_SIZE), private=2 * n, points=n)

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent: velocity, position, others from where it stands."""
        world, seen = self.world, []
        for i in range(self.agents):
            terms = [*world.velocity_terms(i), *world.position_terms(i)]
            for j in range(self.agents):
                terms += world.position_terms(j, i) if j != i else []
            seen.append(tuple(terms))
        return tuple(seen)

    @property
    def goals(self) -> tuple[tuple[int, ...], ...]:
        """The agents' places, one behind the other."""
        return tuple((2 * i, 2 * i + 1) for i in range(self.agents))

    @property
    def achieved(self) -> tuple[int, ...]:
        """Everybody's own position."""
        width = 4 + 2 * (self.agents - 1)
        return tuple(width * i + axis for i in range(self.agents) for axis in (2, 3))

    @property
    def goal_rule(self) -> PlacesRule:
        """Everybody is paid for its own place."""
        return PlacesRule(self.threshold, self.reward_type)

    def desired(self, state: Tensor) -> Tensor:
        """The places `(B, 2 N)` of `state (D, B)`."""
        return self.world.own(state)

    def interchangeable(self) -> list[Renaming]:
        """Agents are alike, and each takes its place along; of more than four, the rotations."""
        given = tuple(range(self.agents))
        found = orders(range(self.agents)) if self.agents <= 4 else [given[k:] + given[:k] for k in given]
        return [Renaming(order, (), tuple(2 * i + axis for i in order for axis in (0, 1))) for order in found]

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Agents and places uniform in [-1, 1]^2, agents at rest."""
        number, n = uniform(copies, 4 * self.agents, rng), 2 * self.agents
        position = square(number[:, :n])
        return at_rest(self.world, position, position[:, :0], private=square(number[:, n:]).flatten(1))

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`, by the goal rule."""
        return self.goal_rule.reward(self.world.position(state).flatten(1), self.desired(state))

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """The state behind `obs (B, O)`, but for the places, which no observation shows and only rewards depend on."""
        seen = obs.reshape(len(obs), self.agents, -1)
        return at_rest(self.world, seen[:, :, 2:4], seen[:, :0, 2:4], velocity=seen[:, :, :2])
