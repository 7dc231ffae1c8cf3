"""Methods sized for particle games on two cores. All arms of a comparison share what is not the method itself."""

from __future__ import annotations

from typing import Any, Literal

from presage.common.dyna import DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.schedules import LengthRamp
from presage.marl.aorpo import AORPOConfig
from presage.marl.masac import MASACConfig
from presage.marl.model_free import ModelFreeConfig

WARMUP = 500
"""env steps with random actions before anything is learned: one episode in each of 20 copies"""


def aorpo(updates_per_step: float = 5.0, *, distances: bool = True, **numbers: Any) -> AORPOConfig:
    """AORPO: branches of 10 steps, nine tenths of a batch imagined, a fit every 500 env steps.

    Args:
        distances: learn rewards from the lengths of the next state's vectors alone. Where few layouts of landmarks have
            been seen, an ensemble that reads coordinates as well learns them by heart.
        numbers: further fields of `AORPOConfig`.
    """
    ensemble = EnsembleConfig(
        members=5, elites=5, hidden=(128, 128), outcome_hidden=(128, 128),
        reward_input="lengths" if distances else "transition",
    )  # fmt: skip
    loop = DynaConfig(
        updates_per_step=updates_per_step, warmup_steps=WARMUP, fit_every=500, real_share=0.1,
        horizon=LengthRamp(start_epoch=0, end_epoch=0, start=10, end=10),
    )  # fmt: skip
    return AORPOConfig(loop=loop, ensemble=ensemble, fit=FitConfig(learning_rate=5e-3, max_updates=1_000), **numbers)


def model_free(critic: Literal["joint", "own"], updates_per_step: float = 5.0) -> ModelFreeConfig:
    """Multi-agent SAC (`critic="joint"`) or independent SAC (`"own"`) with the numbers that AORPO's learner has."""
    loop = DynaConfig(updates_per_step=updates_per_step, warmup_steps=WARMUP, real_share=1.0)
    return ModelFreeConfig(learner=MASACConfig(critic=critic), loop=loop)
