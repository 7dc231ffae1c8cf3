"""Particle games as PettingZoo environments."""

from __future__ import annotations

from presage.envs.particle.game import ParticleGame
from presage.envs.particle.scenario import Scenario
from presage.envs.views import ParallelView


class ParticleParallelEnv(ParallelView):
    """One copy of a particle scenario as a PettingZoo `ParallelEnv`, with the spaces that mpe2 has.

    Args:
        scenario: such as `Tag(adversaries=4)`.
        max_cycles: env steps in an episode, >= 1.
        continuous_actions: Box actions in place of discrete ones.
        render_mode: "rgb_array", or None for an environment that does not draw.

    Raises:
        GameError: for any other render mode, or `max_cycles` below 1.
    """

    def __init__(
        self, scenario: Scenario, *, max_cycles: int = 25, continuous_actions: bool = False,
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        game = ParticleGame(scenario, 1, continuous=continuous_actions, episode_limit=max_cycles)
        super().__init__(game, render_mode)
        self.world_game = game
