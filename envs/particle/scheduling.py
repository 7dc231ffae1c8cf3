"""Scheduling: one of three agents knows who should go where, goes to its own place and tells the others theirs.

The third cooperative task of AORPO (Zhang, Wang, Shen, Zhou 2021) with the bodies, observations and rewards of its
released code; the shades of the landmarks' colours are speaker-listener's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import torch
from torch import Tensor

from presage.envs.particle.physics import Body, Term, World, WorldState
from presage.envs.particle.scenario import Before, Scenario, at_rest, marks, square, uniform
from presage.envs.particle.speaker_listener import GOAL_SHADE, OTHER_SHADE

AGENTS = 3
SYMBOLS = 3
"""per receiver"""


@dataclass(frozen=True, kw_only=True)
class Scheduling(Scenario):
    """Agent 0 sends a symbol to each of the others, heard one step later; all are paid for all."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "scheduling"

    @cached_property
    def world(self) -> World:
        """Three agents and three landmarks; nothing collides. Private: where each agent should go; the colours of the
        landmarks of agents 1 and 2.
        """
        bodies = [Body(name="agent_0", size=0.075, collides=False, silent=False, symbols=(SYMBOLS, SYMBOLS))]
        bodies += [Body(name=f"agent_{i}", size=0.075, collides=False) for i in range(1, AGENTS)]
        return World(
            agents=tuple(bodies), landmarks=marks(AGENTS), words=2 * SYMBOLS, private=2 * AGENTS + 2 * AGENTS,
            points=AGENTS,
        )  # fmt: skip

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Agent 0: velocity, its place, the colours of the others' places, the others, what it said. Others: velocity,
        landmarks, the others, the symbol meant for them.
        """
        world, seen = self.world, []
        for i in range(AGENTS):
            terms, others = world.velocity_terms(i), [j for j in range(AGENTS) if j != i]
            if i == 0:
                terms += [*world.point_terms(0, 0), *world.private_terms(2 * AGENTS)]
            else:
                for entity in range(AGENTS, 2 * AGENTS):
                    terms += world.position_terms(entity, i)
            for j in others:
                terms += world.position_terms(j, i)
            word = world.message_terms(0)
            seen.append((*terms, *(word if i == 0 else word[SYMBOLS * (i - 1) : SYMBOLS * i])))
        return tuple(seen)

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """A uniform order of the landmarks; everything uniform in [-1, 1]^2, at rest."""
        number = uniform(copies, 1 + 4 * AGENTS, rng)
        place = square(number[:, 1:])
        every = torch.tensor(list(permutations(range(AGENTS))), device=rng.device)
        order = every[(number[:, 0] * len(every)).long()]  # (B, N): the landmark of every agent
        points = place[:, AGENTS:].gather(1, order[:, :, None].expand(-1, -1, 2))
        colours = torch.full((copies, 2, AGENTS), OTHER_SHADE, dtype=place.dtype, device=rng.device)
        colours = colours.scatter(2, order[:, 1:, None], GOAL_SHADE)
        private = torch.cat([points.flatten(1), colours.flatten(1)], 1)
        return at_rest(self.world, place[:, :AGENTS], place[:, AGENTS:], private=private)

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, 3)` for `state (D, B)`: three times (each agent's share, added over agents) minus the sum of squared
        distances to the places.
        """
        points = self.world.own(state)[:, : 2 * AGENTS].reshape(-1, AGENTS, 2)
        missed = (self.world.position(state) - points).square().sum((1, 2))
        return -AGENTS * missed[:, None].expand(-1, AGENTS)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """A state like the one behind `obs (B, 50)`, with agent 0 at the origin: nobody sees where it is."""
        leader, one, two = torch.split(obs, [20, 15, 15], 1)
        position = torch.cat([torch.zeros_like(leader[:, :2]), leader[:, 10:14]], 1).reshape(-1, AGENTS, 2)
        landmarks = position[:, 1:2] + one[:, 2:8].reshape(-1, AGENTS, 2)
        named = leader[:, 4:10].reshape(-1, 2, AGENTS).argmax(2)
        points = landmarks.gather(1, named[:, :, None].expand(-1, -1, 2))
        private = torch.cat([leader[:, 2:4], points.flatten(1), leader[:, 4:10]], 1)
        velocity = torch.stack([part[:, :2] for part in (leader, one, two)], 1)
        return at_rest(
            self.world, position, landmarks, velocity=velocity, message=leader[:, None, 14:], private=private
        )
