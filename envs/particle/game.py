"""Particle games played in many copies at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from presage.common.game import View
from presage.envs.batched import BatchedGame
from presage.envs.particle.drawing import draw
from presage.envs.particle.physics import WorldState
from presage.envs.particle.rules import ParticleRules
from presage.envs.particle.scenario import Scenario


class ParticleGame(BatchedGame):
    """A particle scenario in `copies` copies, equal to mpe2's parallel environment step by step.

    Args:
        scenario: `Spread()`, `Tag()` or another one.
        copies: games played side by side, >= 1.
        device: where all tensors live.
        dtype: of states, observations and rewards; mpe2 computes in float64 and shows float32.
        continuous: Box actions in place of discrete ones.
        episode_limit: env steps in an episode, >= 1.

    Raises:
        GameError: for sizes below 1; from `step` before `reset`, or for an action that is not one of this game.
    """

    rules: ParticleRules

    def __init__(
        self,
        scenario: Scenario,
        copies: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        continuous: bool = False,
        episode_limit: int = 25,
    ) -> None:
        rules = ParticleRules(scenario, device=device, dtype=dtype, continuous=continuous, episode_limit=episode_limit)
        super().__init__(rules, copies)

    def world_state(self) -> WorldState:
        """Where everything is now, batch first."""
        return self.rules.world.unpack(self._playing())

    def place(self, state: WorldState) -> View:
        """Go on from `state` in all copies; the clocks run on from where they are.

        Raises:
            GameError: where a shape does not fit this game.
        """
        return self.inject(self.rules.pack(state))

    def render(self, copy: int = 0) -> NDArray[np.uint8]:
        """Draw one copy; `(H, W, 3)` uint8."""
        return draw(self.rules.world, self.world_state(), copy)
