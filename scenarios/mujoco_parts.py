"""The true dynamics of MuJoCo's bodies on a plane, to imagine in: their own environments, put back into states seen.

An observation is the state but for the body's place along the way, on which nothing depends; the hopper's speeds are
shown up to 10 alone, so that a faster one is put back at that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch

from presage.common.game import GameSpec
from presage.envs.gymnasium_kernel import GymnasiumKernel


def hopper_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> GymnasiumKernel:
    """`Hopper-v5`."""
    return _kernel("Hopper-v5", spec, options, device)


def half_cheetah_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> GymnasiumKernel:
    """`HalfCheetah-v5`."""
    return _kernel("HalfCheetah-v5", spec, options, device)


def _kernel(name: str, spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> GymnasiumKernel:
    def put_back(env: Any, obs: np.ndarray) -> None:
        positions = env.model.nq - 1
        env.set_state(np.concatenate([[0.0], obs[:positions]]), obs[positions:])

    return GymnasiumKernel(spec, gymnasium.make(name, **options).unwrapped, put_back, device=device)
