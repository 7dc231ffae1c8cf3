"""The model-free baselines: multi-agent SAC with joint critics, or independent SAC, on real rows alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import GameSpec, GoalRule, Kernel
from presage.common.streams import Streams
from presage.marl.masac import MASAC, MASACConfig


def _real_rows() -> DynaConfig:
    return DynaConfig(real_share=1.0)


@dataclass(frozen=True, kw_only=True)
class ModelFreeConfig:
    """Multi-agent SAC without a model; `learner.critic="own"` makes it independent SAC."""

    learner: MASACConfig = field(default_factory=MASACConfig)
    """policies, critics and temperatures"""
    loop: DynaConfig = field(default_factory=_real_rows)
    """how much is collected and updated; what it says of fitting and imagining is not read"""

    def __post_init__(self) -> None:
        if self.loop.real_share != 1:
            raise ValueError(f"loop.real_share={self.loop.real_share} must be 1: this method imagines nothing")

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """The learner on a game; see `presage.common.method.Method`."""
        learner = MASAC(spec, self.learner, streams("learner", "cpu"), streams("update"), device=device)
        return Dyna(spec, self.loop, learner, learner.policy, streams, device=device)
