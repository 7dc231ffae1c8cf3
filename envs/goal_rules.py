"""Rewards, ends and success of goal environments as tensor code, row by row.

An environment's own `compute_reward` takes batches, but its `compute_terminated` gives one answer for a whole batch,
and pens are compared row by row only.

Shape suffixes: N agents, G goal. Leading dimensions written `...` are free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import torch
from torch import Tensor

from presage.common.game import GameError, GoalRule


@dataclass(frozen=True, kw_only=True)
class DistanceRule:
    """One agent, whose goal is a point: near enough counts."""

    threshold: float
    """distance at which the goal counts as reached"""
    reward_type: Literal["penalty", "bonus", "distance", "exponential"] = "penalty"
    """-1 or 0 (Fetch, Hand), 0 or 1 (mazes), minus the distance, exp of minus the distance"""
    touching_counts: bool = False
    """whether a distance of exactly the threshold is a success (mazes)"""
    terminates: bool = False
    """whether an episode ends at its goal"""

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` by `reward_type`."""
        distance = _distance(achieved, desired)
        if self.reward_type == "distance":
            return -distance
        if self.reward_type == "exponential":
            return (-distance).exp()
        inside = distance <= self.threshold
        return inside.to(distance.dtype) - (1.0 if self.reward_type == "penalty" else 0.0)

    def terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` bool: at the goal, where episodes end there."""
        return (_distance(achieved, desired) <= self.threshold) & self.terminates

    def success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` bool: near enough."""
        distance = _distance(achieved, desired)
        return distance <= self.threshold if self.touching_counts else distance < self.threshold


@dataclass(frozen=True, kw_only=True)
class PoseRule:
    """One agent, whose goal is a position and a quaternion (w, x, y, z) of an object in a hand; episodes never end."""

    position_threshold: float = 0.01
    """metres"""
    rotation_threshold: float = 0.1
    """radians"""
    position: bool = True
    """whether the position counts"""
    rotation: bool = True
    """whether the rotation counts"""
    ignore_z: bool = False
    """whether a turn around the z axis counts for nothing (pens)"""
    reward_type: Literal["penalty", "distance"] = "penalty"
    """-1 or 0; or minus ten times the distance, minus the angle"""

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` by `reward_type`."""
        if self.reward_type == "penalty":
            return self.success(achieved, desired).to(achieved.dtype) - 1.0
        distance, angle = self._apart(achieved, desired)
        return -(10.0 * distance + angle)

    def terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` bool, all false."""
        return torch.zeros((*achieved.shape[:-1], 1), dtype=torch.bool, device=achieved.device)

    def success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` bool: position and rotation are both near enough."""
        distance, angle = self._apart(achieved, desired)
        return (distance < self.position_threshold) & (angle < self.rotation_threshold)

    def _apart(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and angle between two poses, `(..., 1)` each; 0 for what does not count."""
        distance = _distance(achieved[..., :3], desired[..., :3])
        turn, wanted = achieved[..., 3:], desired[..., 3:]
        if self.ignore_z:
            x, y, _ = _angles(turn)
            turn = _turned(x, y, _angles(wanted)[2])
        # The real part of turn * conjugate(wanted) is the product of the two as vectors.
        angle = 2.0 * (turn * wanted).sum(-1, keepdim=True).clamp(-1.0, 1.0).arccos()
        zero = torch.zeros_like(distance)
        return distance if self.position else zero, angle if self.rotation else zero


def goal_rule_of(env: gymnasium.Env[Any, Any]) -> GoalRule | None:
    """The rule of a goal environment: what it holds as `goal_rule`, or, of gymnasium-robotics' environments, the one
    with just the options that `env` was made with.

    Returns:
        None for an environment without goals.

    Raises:
        GameError: the environment has goals, and its rule is not known.
    """
    raw: Any = env.unwrapped
    own: GoalRule | None = getattr(raw, "goal_rule", None)
    if own is not None:
        return own
    inside = getattr(env.observation_space, "spaces", {})
    if not {"achieved_goal", "desired_goal"} <= set(inside):
        return None
    kinds = {kind.__name__ for kind in type(raw).__mro__}
    dense = getattr(raw, "reward_type", "sparse") == "dense"
    if "MazeEnv" in kinds:
        return DistanceRule(
            threshold=0.45, reward_type="exponential" if dense else "bonus", touching_counts=True,
            terminates=not raw.continuing_task,
        )  # fmt: skip
    if "BaseManipulateEnv" in kinds:
        return PoseRule(
            position_threshold=raw.distance_threshold, rotation_threshold=raw.rotation_threshold,
            position=raw.target_position != "ignore", rotation=raw.target_rotation != "ignore",
            ignore_z=raw.ignore_z_target_rotation, reward_type="distance" if dense else "penalty",
        )  # fmt: skip
    if hasattr(raw, "distance_threshold"):  # Fetch, HandReach
        return DistanceRule(threshold=raw.distance_threshold, reward_type="distance" if dense else "penalty")
    raise GameError(
        f"{env} has goals, and how they are paid for is not known; pass goal_rule=..., or let the environment hold "
        "one: an object with the methods of presage.common.game.GoalRule"
    )


def _distance(achieved: Tensor, desired: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(achieved - desired, dim=-1, keepdim=True)
    return distance


def _angles(quaternion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The turns around x, y and z, one after the other in the turning frame, that make up rotations `(..., 4)`."""
    w, x, y, z = (quaternion / torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)).unbind(-1)
    sine, a, b = 2.0 * (x * z + w * y), 2.0 * (w * x - y * z), 1.0 - 2.0 * (x * x + y * y)
    level = torch.hypot(a, b)  # the cosine of the turn around y; at 0 the other two turn around one axis
    free = level > 1e-15
    about_z = torch.where(
        free,
        torch.atan2(2.0 * (w * z - x * y), 1.0 - 2.0 * (y * y + z * z)),
        torch.atan2(2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z)),
    )
    return torch.where(free, torch.atan2(a, b), 0.0), torch.atan2(sine, level), about_z


def _turned(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The quaternion `(..., 4)` of a turn around x, then y, then z: the product of three half-angle quaternions."""
    cx, sx, cy, sy, cz, sz = (f(angle / 2.0) for angle in (x, y, z) for f in (torch.cos, torch.sin))
    w, i, j, k = cx * cy, sx * cy, cx * sy, sx * sy
    return torch.stack([w * cz - k * sz, i * cz + j * sz, j * cz - i * sz, k * cz + w * sz], -1)
