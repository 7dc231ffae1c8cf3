"""The true dynamics of games of goals, to imagine in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from presage.common.game import GameSpec
from presage.envs.batched import RulesKernel
from presage.envs.particle import GoalNavigation, TrueKernel
from presage.envs.toy.plane import World2D


def world_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> RulesKernel:
    """The steps of MapGo's 2D world."""
    return RulesKernel(World2D(device=device, **options))


def goal_navigation_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> TrueKernel:
    """The physics of goal navigation."""
    return TrueKernel(GoalNavigation(agents=spec.n), device=device, continuous=not spec.discrete)
