"""MBPO and SAC on MuJoCo's bodies with numbers that two cores can train in an hour.

They are the paper's (`MBPOConfig.paper`) but for what costs most: ten updates per env step, a tenth of the branches, a
fifth of the random steps, smaller dynamics networks with targets in units of their spread, fits of a thousand updates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from presage.common.dyna import DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.mbpo import Body, MBPOConfig


def mbpo(body: Body, model: Literal["ensemble", "true"] = "ensemble") -> MBPOConfig:
    """MBPO sized for a CPU."""
    paper = MBPOConfig.paper(body)
    return replace(
        paper,
        loop=replace(
            paper.loop, updates_per_step=10, warmup_steps=1_000, rollout_starts=10_000, replay_capacity=200_000,
        ),
        ensemble=EnsembleConfig(hidden=(200, 200), outcome_hidden=(128, 128)),
        fit=FitConfig(max_updates=1_000), model=model,
    )  # fmt: skip


def sac(body: Body) -> MBPOConfig:
    """SAC with the learner of MBPO: one update per env step, on real rows alone."""
    loop = DynaConfig(real_share=1.0, updates_per_step=1.0, warmup_steps=1_000, replay_capacity=200_000)
    return MBPOConfig(sac=MBPOConfig.paper(body).sac, loop=loop)
