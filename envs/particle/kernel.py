"""Imagining with the true physics: the bound that no learned dynamics of a particle game can beat."""

from __future__ import annotations

import torch

from presage.envs.batched import RulesKernel
from presage.envs.particle.rules import ParticleRules
from presage.envs.particle.scenario import Scenario


class TrueKernel(RulesKernel):
    """A kernel that steps a particle scenario itself, from joint observations of it alone.

    The observations may come from `ParticleGame` or from mpe2.

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
        super().__init__(ParticleRules(scenario, device=device, dtype=dtype, continuous=continuous))
