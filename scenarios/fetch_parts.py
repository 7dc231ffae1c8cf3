"""The true dynamics of the Fetch robot's games, to imagine in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from presage.common.game import GameSpec
from presage.envs.fetch_push_kernel import FetchPushKernel
from presage.envs.goal_rules import goal_rule_of
from presage.envs.registry import environment


def fetch_push_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> FetchPushKernel:
    """`fetch/push`, whose windows have to reach back to the start of an episode: the game's option `frames=51`."""
    env = environment("fetch/push", **options)
    rule = goal_rule_of(env)
    assert rule is not None
    return FetchPushKernel(spec, env.unwrapped, rule, device=device)
