"""Push (keep-away): an adversary pushes the agent away from a goal that the agent alone knows.

mpe2 `simple_push_v3`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.envs.particle.physics import Term, World, WorldState
from presage.envs.particle.scenario import Before, Scenario, alike, at_rest, length, marks, square, uniform

LANDMARKS = 2
DARK = 0.1
LANDMARK_COLOUR = ((DARK, DARK + 0.8, DARK), (DARK, DARK, DARK + 0.8))
AGENT_COLOUR = ((0.25, 0.25 + 0.5, 0.25), (0.25, 0.25, 0.25 + 0.5))
"""of the good agent, by goal"""


@dataclass(frozen=True, kw_only=True)
class Push(Scenario):
    """Nobody sees where it is, only where everything is from there."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "push"

    @cached_property
    def world(self) -> World:
        """An adversary and an agent, who collide, and two landmarks. Private: where the goal is; the agent's colour;
        the landmarks' colours, which are always the same.
        """
        return World(
            agents=(*alike("adversary", 1), *alike("agent", 1)), landmarks=marks(LANDMARKS), private=2 + 3 + 6, points=1
        )

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Velocity; for the agent goal and its own colour; landmarks; for the agent their colours; the other one."""
        world = self.world
        places = [[*world.position_terms(2, i), *world.position_terms(3, i)] for i in range(2)]
        adversary = [*world.velocity_terms(0), *places[0], *world.position_terms(1, 0)]
        agent = [*world.velocity_terms(1), *world.point_terms(0, 1), *world.private_terms(2, 3), *places[1],
                 *world.private_terms(5), *world.position_terms(0, 1)]  # fmt: skip
        return tuple(adversary), tuple(agent)

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """A uniform goal; everything uniform in [-1, 1]^2, at rest."""
        number = uniform(copies, 1 + 2 * (2 + LANDMARKS), rng)
        goal, place = (number[:, 0] * LANDMARKS).long(), square(number[:, 1:])
        own, all_colours = place.new_tensor(AGENT_COLOUR)[goal], place.new_tensor(LANDMARK_COLOUR).flatten()
        where = place[torch.arange(copies, device=rng.device), 2 + goal]
        private = torch.cat([where, own, all_colours.expand(copies, -1)], 1)
        return at_rest(self.world, place[:, :2], place[:, 2:], private=private)

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, 2)` for `state (D, B)`: the agent pays its distance to the goal; the adversary gets it, less its own."""
        away = length(self.world.position(state) - self.world.own(state)[:, None, :2])
        return torch.stack([away[:, 1] - away[:, 0], -away[:, 1]], 1)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """A state like the one behind `obs (B, 27)`, with the agent at the origin: nobody sees where it is."""
        of_adversary, of_agent = obs[:, :8], obs[:, 8:]
        velocity = torch.stack([of_adversary[:, :2], of_agent[:, :2]], 1)
        position = torch.stack([of_agent[:, 17:], torch.zeros_like(of_agent[:, 17:])], 1)
        private = torch.cat([of_agent[:, 2:7], of_agent[:, 11:17]], 1)
        return at_rest(
            self.world, position, of_agent[:, 7:11].reshape(-1, 2, 2), velocity=velocity, private=private
        )  # fmt: skip
