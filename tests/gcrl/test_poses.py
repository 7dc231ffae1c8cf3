"""Poses that are imagined are judged as what their quaternions say, whatever their length."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from presage.common.game import GameSpec
from presage.common.relabel import Goals
from presage.common.streams import streams
from presage.envs.goal_rules import DistanceRule, PoseRule
from presage.gcrl.foresight import Foresight
from presage.gcrl.mapgo import MapGoConfig
from presage.gcrl.poses import UnitPoses, of_imagined
from tests.common.toy import box_agent, generator

RULE = PoseRule(position_threshold=0.5, rotation_threshold=0.3)
HAND = GameSpec(
    name="hand", agents=(box_agent("a", range(7), 2, range(7)),), obs_dim=7, goal_dim=7, achieved=tuple(range(7)),
    episode_limit=5,
)  # fmt: skip


def poses(size: int) -> tuple[Tensor, Tensor]:
    """Pairs, some of which are near enough in every respect."""
    rng = generator(0)
    desired = torch.randn(size, 7, generator=rng)
    achieved = desired + 0.2 * torch.randn(size, 7, generator=rng)
    for pose in (achieved, desired):
        pose[:, 3:] /= pose[:, 3:].norm(dim=1, keepdim=True)
    return achieved, desired


@pytest.mark.parametrize("reward_type", ["penalty", "distance"])
def test_lengths_of_quaternions_count_for_nothing(reward_type: str) -> None:
    rule = PoseRule(position_threshold=0.5, rotation_threshold=0.3, reward_type=reward_type)  # type: ignore[arg-type]
    unit, (achieved, desired) = UnitPoses(rule), poses(400)
    stretched = [pose.clone() for pose in (achieved, desired)]
    for pose, factor in zip(stretched, (0.9, 1.2), strict=True):
        pose[:, 3:] *= factor
    torch.testing.assert_close(unit.reward(*stretched), rule.reward(achieved, desired), atol=2e-3, rtol=0)
    assert torch.equal(unit.success(*stretched), rule.success(achieved, desired))
    assert 0.05 < float(rule.success(achieved, desired).double().mean()) < 0.95
    assert not torch.equal(rule.success(*stretched), rule.success(achieved, desired)), "which the rule alone gets wrong"
    assert not bool(unit.terminated(*stretched).any())


def test_mapgo_judges_by_it_and_other_rules_stay_as_they_are() -> None:
    dyna = MapGoConfig().build(HAND, streams(0), torch.device("cpu"), None, RULE)
    assert isinstance(dyna.relabel, Foresight)
    assert dyna.relabel.goals.rule == UnitPoses(RULE)
    points = DistanceRule(threshold=0.1)
    assert of_imagined(points) is points
    assert of_imagined(None) is None
    assert Goals(HAND, RULE).rule is RULE
