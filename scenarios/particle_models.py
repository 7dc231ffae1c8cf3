"""AORPO sized for particle games on two cores."""

from __future__ import annotations

from typing import Any

from presage.common.dyna import DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.marl.aorpo import AORPOConfig


def aorpo(updates_per_step: float = 1.0, *, distances: bool = True, **numbers: Any) -> AORPOConfig:
    """AORPO sized for two cores.

    Args:
        distances: learn rewards from the lengths of the next state's vectors alone. Where few layouts of landmarks have
            been seen, an ensemble that reads coordinates as well learns them by heart.
        numbers: further fields of `AORPOConfig`.
    """
    ensemble = EnsembleConfig(
        members=5, elites=5, hidden=(128, 128), outcome_hidden=(128, 128),
        reward_input="lengths" if distances else "transition",
    )  # fmt: skip
    return AORPOConfig(
        loop=DynaConfig(updates_per_step=updates_per_step, fit_every=1_000),
        ensemble=ensemble,
        fit=FitConfig(learning_rate=5e-3, max_updates=2_000),
        **numbers,
    )
