"""AORPO sized for particle games on two cores, and what is known of their observations' geometry."""

from __future__ import annotations

from typing import Any

from presage.common.dyna import DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.marl.aorpo import AORPOConfig

Vectors = tuple[tuple[int, ...], ...]
"""columns of the joint observation that form vectors on the plane"""

SPREAD_VECTORS: Vectors = tuple((18 * i + 4 + 2 * k, 18 * i + 5 + 2 * k) for i in range(3) for k in range(5))
"""of each agent: the ways to three landmarks and to two others"""
SPEAKER_LISTENER_VECTORS: Vectors = ((5, 6), (7, 8), (9, 10))
"""the listener's ways to the landmarks"""


def aorpo(vectors: Vectors = (), updates_per_step: float = 1.0, **numbers: Any) -> AORPOConfig:
    """AORPO whose ensemble reads the lengths and directions of `vectors` as well.

    Rewards of these games are distances and contacts. Without their lengths as inputs an ensemble explains next to
    nothing of spread's rewards at the sizes of data that matter here; with them, most.

    Args:
        numbers: further fields of `AORPOConfig`.
    """
    return AORPOConfig(
        loop=DynaConfig(updates_per_step=updates_per_step, fit_every=1_000),
        ensemble=EnsembleConfig(members=5, elites=5, hidden=(128, 128), outcome_hidden=(128, 128), vectors=vectors),
        fit=FitConfig(max_updates=1_000),
        **numbers,
    )
