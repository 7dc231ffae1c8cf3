"""Methods for cooperative communication: those of the other particle games, which begin to learn after a fraction of an
episode. The game is learned so fast that 500 random env steps would be most of a run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from presage.marl.aorpo import AORPOConfig
from presage.marl.model_free import ModelFreeConfig
from presage.scenarios import particle_models

WARMUP = 40
"""env steps with random actions, two in each of 20 copies: of 20, 40, 60 and 100 what AORPO and multi-agent SAC learned
best from in `benchmarks/speaker_listener_aorpo.py`, on one tuning seed"""


def aorpo(**numbers: Any) -> AORPOConfig:
    """AORPO that fits every 100 env steps and imagines after every step of the 20 copies.

    Args:
        numbers: further fields of `AORPOConfig`.
    """
    base = particle_models.aorpo(**numbers)
    return replace(base, loop=replace(base.loop, warmup_steps=WARMUP, fit_every=100, rollout_every=20))


def model_free(critic: Literal["joint", "own"]) -> ModelFreeConfig:
    """Multi-agent SAC (`critic="joint"`) or independent SAC (`"own"`)."""
    base = particle_models.model_free(critic)
    return replace(base, loop=replace(base.loop, warmup_steps=WARMUP))
