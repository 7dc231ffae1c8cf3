"""Methods sized for the two pendulums on two cores; step sizes are those of 3e-4 and 1e-3 that suit each arm best."""

from __future__ import annotations

from dataclasses import replace

from presage.common.dyna import DynaConfig
from presage.common.fit import FitConfig
from presage.common.mbpo import MBPOConfig
from presage.common.sac import SACConfig


def mbpo(learning_rate: float, updates_per_step: float) -> MBPOConfig:
    """MBPO: branches of one step, fits of a minute at most."""
    base = MBPOConfig(sac=SACConfig(learning_rate=learning_rate), fit=FitConfig(max_updates=1_000))
    return replace(base, loop=replace(base.loop, updates_per_step=updates_per_step))


def sac() -> MBPOConfig:
    """SAC: one update per env step, on real rows alone."""
    loop = DynaConfig(real_share=1.0, updates_per_step=1.0, warmup_steps=500)
    return MBPOConfig(sac=SACConfig(learning_rate=1e-3), loop=loop)
