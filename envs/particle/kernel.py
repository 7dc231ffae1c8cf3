"""Imagining with the true physics: the bound that no learned dynamics of a particle game can beat."""

from __future__ import annotations

import torch
from torch import Tensor

from presage.common.game import Carry, GameError, Outcome, View, Window
from presage.envs.particle.scenario import Before, Scenario, uniform
from presage.envs.particle.simulator import Simulator, game_spec


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
        self._never = torch.zeros((), dtype=torch.bool, device=device)

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        """Start B branches at what is seen now; egos and chance play no part.

        Raises:
            GameError: where the observations are not of this scenario, or do not determine its state.
        """
        obs = window.now.obs
        if obs.shape[1] != self.spec.obs_dim:
            raise GameError(f"{self.spec.name!r} has {self.spec.obs_dim} joint observations, got {obs.shape[1]}")
        before = None
        if self.spec.frames > 1:
            if len(window.obs[0]) < self.spec.frames:
                raise GameError(f"{self.spec.name!r} needs windows of {self.spec.frames} joint observations")
            before = Before(window.obs[:, -2], self._simulator.pushes(window.act[:, -2]), window.valid[:, -2])
        return self._simulator.pack(self._simulator.scenario.reconstruct(obs, before)).T

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        """One step of all branches under `act (B, A)`."""
        scenario = self._simulator.scenario
        chance = uniform(len(act), scenario.chances, rng) if scenario.chances else None
        state = self._simulator.step(carry.T, act, chance)
        obs = self._simulator.observe(state)
        over = scenario.over(state) if self.spec.terminates else self._never.expand(len(obs))
        terminated = over[:, None].expand(-1, self.spec.n)
        after = View.of(self.spec, obs, desired=view.desired)
        rule = scenario.goal_rule
        reward = scenario.rewards(state) if rule is None else rule.reward(after.achieved, view.desired)
        return state.T, Outcome(after=after, reward=reward, terminated=terminated)
