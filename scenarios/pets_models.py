"""PETS with numbers that a CPU plans with in minutes: plans by iCEM, a tenth of the paper's population, small networks.

The paper's own are `PETSConfig.paper()`.
"""

from __future__ import annotations

from presage.common.pets import PETSConfig
from presage.common.planning import ICEM


def pets(horizon: int = 20, warmup_steps: int = 200, fit_every: int = 200) -> PETSConfig:
    """PETS with plans of `horizon` env steps; warm-up and fits by default every episode of the pendulum."""
    return PETSConfig(
        planner="icem", icem=ICEM(horizon=horizon, population=64, elites=10, iterations=3, noise_exponent=2.0),
        particles=5, warmup_steps=warmup_steps, fit_every=fit_every,
    )  # fmt: skip
