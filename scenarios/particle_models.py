"""AORPO sized for particle games on two cores."""

from __future__ import annotations

from typing import Any

from presage.common.dyna import DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.marl.aorpo import AORPOConfig


def aorpo(updates_per_step: float = 1.0, **numbers: Any) -> AORPOConfig:
    """AORPO sized for two cores.

    Args:
        numbers: further fields of `AORPOConfig`.
    """
    return AORPOConfig(
        loop=DynaConfig(updates_per_step=updates_per_step, fit_every=1_000),
        ensemble=EnsembleConfig(members=5, elites=5, hidden=(128, 128), outcome_hidden=(128, 128)),
        fit=FitConfig(max_updates=1_000),
        **numbers,
    )
