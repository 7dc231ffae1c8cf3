"""Reference: each of two agents knows where the other one should go, and can tell it. mpe2 `simple_reference_v3`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import Term, World, WorldState
from presage.envs.particle.scenario import Before, Scenario, alike, at_rest, marks, pair_distance, square, uniform

LANDMARKS = 3
WORDS = 10
COLOUR = ((0.75, 0.25, 0.25), (0.25, 0.75, 0.25), (0.25, 0.25, 0.75))
"""of the landmarks"""


@dataclass(frozen=True, kw_only=True)
class Reference(Scenario):
    """An agent sees its velocity, the landmarks, the colour of the other one's goal, and what the other one said."""

    local_ratio: float = 0.5
    """weight of the distance that an agent answers for, against that of the mean of both; in [0, 1]"""
    reward: Literal["mpe2", "original"] = "mpe2"
    """`original`: both agents get the sum of both squared distances (Lowe et al. 2017); has no local ratio"""

    def __post_init__(self) -> None:
        if not 0.0 <= self.local_ratio <= 1.0:
            raise GameError(f"local_ratio={self.local_ratio} must lie in [0, 1]")
        if self.reward not in ("mpe2", "original"):
            raise GameError(f"reward={self.reward!r} must be 'mpe2' or 'original'")
        if self.reward == "original" and self.local_ratio != Reference.local_ratio:
            raise GameError(f"local_ratio={self.local_ratio} has no meaning with reward='original'; leave it out")

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "reference"

    @cached_property
    def world(self) -> World:
        """Two agents who move and speak, three landmarks; nothing collides. Private: the colours of the landmarks that
        agent 0 and agent 1 want the other one to reach.
        """
        return World(
            agents=alike("agent", 2, collides=False, silent=False), landmarks=marks(LANDMARKS), words=WORDS, private=6
        )

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent: velocity, landmarks from where it stands, the colour of the other one's goal, the other's word."""
        world, seen = self.world, []
        for i in range(2):
            terms = world.velocity_terms(i)
            for entity in range(2, 2 + LANDMARKS):
                terms += world.position_terms(entity, i)
            seen.append((*terms, *world.private_terms(3 * i, 3), *world.message_terms(1 - i)))
        return tuple(seen)

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Two uniform goals; everything uniform in [-1, 1]^2, at rest."""
        number = uniform(copies, 2 + 2 * (2 + LANDMARKS), rng)
        goals, place = (number[:, :2] * LANDMARKS).long(), square(number[:, 2:])
        private = place.new_tensor(COLOUR)[goals].flatten(1)
        return at_rest(self.world, place[:, :2], place[:, 2:], private=private)

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, 2)` for `state (D, B)`: the *other* agent's distance from the landmark that one wants it to reach."""
        world = self.world
        wanted = world.own(state).reshape(-1, 2, 3).argmax(2)  # (B, 2): a landmark's own colour channel is its largest
        distance = pair_distance(world.position(state), world.landmark_position(state)).flip(1)
        missed = distance.gather(2, wanted[:, :, None]).squeeze(2)
        if self.reward == "original":
            return -missed.square().sum(1, keepdim=True).expand(-1, 2)
        return -missed.mean(1, keepdim=True) * (1.0 - self.local_ratio) - missed * self.local_ratio

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """A state like the one behind `obs (B, 42)`, with agent 0 at the origin: nobody sees where it is."""
        seen = obs.reshape(len(obs), 2, 21)
        landmarks = seen[:, :, 2:8].reshape(-1, 2, LANDMARKS, 2)
        position = torch.stack([torch.zeros_like(seen[:, 0, :2]), landmarks[:, 0, 0] - landmarks[:, 1, 0]], 1)
        return at_rest(
            self.world, position, landmarks[:, 0], velocity=seen[:, :, :2], message=seen[:, :, 11:].flip(1),
            private=seen[:, :, 8:11].flatten(1),
        )  # fmt: skip
