"""Methods sized for the two pendulums on two cores. Both arms have the learner, and its step size, in common."""

from __future__ import annotations

from typing import Literal

from presage.common.dyna import DynaConfig
from presage.common.fit import FitConfig
from presage.common.mbpo import MBPOConfig
from presage.common.sac import SACConfig

LEARNER = SACConfig(learning_rate=1e-3)
"""with the one of the step sizes 3e-4 and 1e-3 by which SAC learned sooner on both pendulums, on one tuning seed"""


def mbpo(model: Literal["ensemble", "true"] = "ensemble") -> MBPOConfig:
    """MBPO: branches of one step, ten updates per env step, fits of a thousand updates at most."""
    return MBPOConfig(sac=LEARNER, model=model, fit=FitConfig(max_updates=1_000))


def sac() -> MBPOConfig:
    """SAC: one update per env step, on real rows alone."""
    return MBPOConfig(sac=LEARNER, loop=DynaConfig(real_share=1.0, updates_per_step=1.0, warmup_steps=500))
