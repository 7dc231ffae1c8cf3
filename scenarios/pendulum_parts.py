"""The true dynamics of the two pendulums, to imagine in: their own environments, put back into the states seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch

from presage.common.game import GameSpec
from presage.envs.gymnasium_kernel import GymnasiumKernel


def pendulum_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> GymnasiumKernel:
    """`Pendulum-v1`, whose observation is (cos, sin, angular velocity) of its state (angle, angular velocity)."""

    def put_back(env: Any, obs: np.ndarray) -> None:
        env.state = np.array([np.arctan2(obs[1], obs[0]), obs[2]])

    return GymnasiumKernel(spec, gymnasium.make("Pendulum-v1", **options).unwrapped, put_back, device=device)


def inverted_pendulum_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> GymnasiumKernel:
    """`InvertedPendulum-v5`, whose observation is its state: two positions, then two velocities."""

    def put_back(env: Any, obs: np.ndarray) -> None:
        env.set_state(obs[:2], obs[2:])

    return GymnasiumKernel(spec, gymnasium.make("InvertedPendulum-v5", **options).unwrapped, put_back, device=device)
