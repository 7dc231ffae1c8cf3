"""Imagining with the true physics: the bound that no learned dynamics of a particle game can beat."""

from __future__ import annotations

import torch
from torch import Tensor

from presage.common.game import Carry, GameError, Outcome, View, Window
from presage.envs.particle.simulator import Scenario, Simulator, game_spec


class TrueKernel:
    """A kernel that steps a particle scenario itself, from joint observations of it alone.

    The observations may come from `ParticleGame` or from mpe2. The carry is the state `(B, D)`, rebuilt at the branch
    from the joint observation; later steps go on from the carry and read nothing but its row count from the view.

    Args:
        scenario: the one that is played.
        device: where the imagined rows live.
        dtype: of states, observations and rewards.
        continuous: whether its actions are Box ones.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        continuous: bool = False,
    ) -> None:
        self.spec = game_spec(scenario, continuous=continuous)
        self._simulator = Simulator(scenario, self.spec, device=device, dtype=dtype)

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        """Start B branches at what is seen now; egos and chance play no part.

        Raises:
            GameError: where the observations are not of this scenario.
        """
        obs = window.now.obs
        if obs.shape[1] != self.spec.obs_dim:
            raise GameError(f"{self.spec.name!r} has {self.spec.obs_dim} joint observations, got {obs.shape[1]}")
        return self._simulator.pack(self._simulator.scenario.reconstruct(obs)).T

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        """One step of all branches under `act (B, A)`."""
        state = self._simulator.step(carry.T, act)
        obs = self._simulator.observe(state)
        terminated = torch.zeros((), dtype=torch.bool, device=obs.device).expand(len(obs), self.spec.n)
        after = View.of(self.spec, obs)
        return state.T, Outcome(after=after, reward=self._simulator.scenario.rewards(state), terminated=terminated)
