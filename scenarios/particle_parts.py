"""What scenarios on particle games are held against: scripted controllers, and the true dynamics to imagine in.

They read the shape of the game from its spec, so that they serve mpe2's environments and our batched ones alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from presage.common.game import GameSpec
from presage.envs.particle import GreedySpeakerListener, GreedySpread, SpeakerListener, Spread, TrueKernel


def greedy_spread(spec: GameSpec, options: Mapping[str, Any]) -> GreedySpread:
    """Every agent heads for its landmark of the cheapest assignment."""
    return GreedySpread(_spread(spec, options), continuous=not spec.discrete)


def greedy_speaker_listener(spec: GameSpec, options: Mapping[str, Any]) -> GreedySpeakerListener:
    """The speaker names the goal, the listener goes there."""
    return GreedySpeakerListener(continuous=not spec.discrete)


def spread_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> TrueKernel:
    """The physics and rewards of spread."""
    return TrueKernel(_spread(spec, options), device=device, continuous=not spec.discrete)


def speaker_listener_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> TrueKernel:
    """The physics and rewards of speaker and listener."""
    return TrueKernel(SpeakerListener(), device=device, continuous=not spec.discrete)


def _spread(spec: GameSpec, options: Mapping[str, Any]) -> Spread:
    rewards = {name: options[name] for name in ("local_ratio", "reward") if name in options}
    return Spread(agents=spec.n, **rewards)
