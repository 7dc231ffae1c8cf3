"""Poses that a model imagines: a quaternion to which a predicted step is added is no longer of unit length, and angles
between such are not what a rule takes them for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from presage.common.game import GoalRule
from presage.envs.goal_rules import PoseRule


@dataclass(frozen=True)
class UnitPoses:
    """The rule for poses `(..., 7)`, position and quaternion, with all quaternions brought to unit length first."""

    rule: PoseRule

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)`."""
        return self.rule.reward(_unit(achieved), _unit(desired))

    def terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` bool."""
        return self.rule.terminated(achieved, desired)

    def success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` bool."""
        return self.rule.success(_unit(achieved), _unit(desired))


def of_imagined(rule: GoalRule | None) -> GoalRule | None:
    """The rule by which goals are judged that may have been imagined."""
    return UnitPoses(rule) if isinstance(rule, PoseRule) else rule


def _unit(pose: Tensor) -> Tensor:
    turn = pose[..., 3:]
    return torch.cat([pose[..., :3], turn / turn.norm(dim=-1, keepdim=True).clamp_min(1e-6)], -1)
