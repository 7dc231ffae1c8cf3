"""MADDPG sized for particle games on two cores. Arms of a comparison share what is not the policies themselves."""

from __future__ import annotations

from presage.common.dyna import DynaConfig
from presage.marl.maddpg import MADDPGConfig, Policies
from presage.marl.opponents.policy_inference import PolicyInferenceConfig


def maddpg(policies: Policies = "true", *, warmup: int) -> MADDPGConfig:
    """MADDPG with the others' true target policies, or with inferred ones.

    Args:
        warmup: env steps with random actions.
    """
    loop = DynaConfig(real_share=1.0, batch_size=256, updates_per_step=1.0, warmup_steps=warmup)
    return MADDPGConfig(policies=policies, loop=loop, inference=PolicyInferenceConfig(window=256))
