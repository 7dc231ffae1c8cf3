"""Rewards, ends and success as tensor code, against gymnasium-robotics' own functions."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from presage.common.game import GameError
from presage.envs.goal_rules import DistanceRule, PoseRule, goal_rule_of
from presage.envs.registry import make, make_gymnasium

POINTS: list[tuple[str, dict[str, Any]]] = [
    ("FetchReach-v4", {}),
    ("FetchPushDense-v4", {}),
    ("HandReach-v3", {}),
    ("HandReachDense-v3", {}),
    ("PointMaze_UMaze-v3", {"continuing_task": False}),
    ("PointMaze_MediumDense-v3", {}),
    ("AntMaze_UMaze-v5", {"continuing_task": False}),
]
POSES = [
    "HandManipulateBlock-v1", "HandManipulateBlockDense-v1", "HandManipulateBlockRotateZ-v1",
    "HandManipulateEggFullDense-v1", "HandManipulatePen-v1", "HandManipulatePenRotateDense-v1",
]  # fmt: skip


def goals(env: gymnasium.Env[Any, Any], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of goals: a third far from each other, a third within reach, a third equal."""
    rng, width = np.random.default_rng(0), env.observation_space["desired_goal"].shape[0]  # type: ignore[index]
    desired = rng.normal(size=(rows, width))
    scale = np.repeat([1.0, 0.3, 0.0], -(-rows // 3))[:rows, None]
    achieved = desired + scale * rng.normal(size=(rows, width)) / np.sqrt(width)
    if width == 7:
        for pose in (achieved, desired):
            pose[:, 3:] /= np.linalg.norm(pose[:, 3:], axis=1, keepdims=True)
        near = slice(rows // 3, 2 * rows // 3)
        achieved[near] = desired[near] + 0.01 * rng.normal(size=(rows // 3, 7))
        achieved[near, 3:] /= np.linalg.norm(achieved[near, 3:], axis=1, keepdims=True)
    return achieved, desired


@pytest.mark.parametrize(("name", "options"), POINTS, ids=[name for name, _ in POINTS])
def test_points_are_paid_as_the_environment_pays(name: str, options: dict[str, Any]) -> None:
    env = make_gymnasium(name, options)
    rule = goal_rule_of(env)
    assert isinstance(rule, DistanceRule)
    achieved, desired = goals(env, 300)
    raw: Any = env.unwrapped
    pair = torch.from_numpy(achieved), torch.from_numpy(desired)
    np.testing.assert_allclose(rule.reward(*pair)[:, 0], raw.compute_reward(achieved, desired, {}), atol=1e-7)
    ends = [bool(raw.compute_terminated(a, d, {})) for a, d in zip(achieved, desired, strict=True)]
    assert rule.terminated(*pair)[:, 0].tolist() == ends
    assert any(ends) == (not options.get("continuing_task", True))
    if hasattr(raw, "_is_success"):
        assert rule.success(*pair)[:, 0].tolist() == raw._is_success(achieved, desired).astype(bool).tolist()
    assert 0 < int(rule.success(*pair).sum()) < 300


@pytest.mark.parametrize(("name", "options"), POINTS, ids=[name for name, _ in POINTS])
def test_points_near_the_threshold_fall_on_the_side_that_the_environment_sees(
    name: str, options: dict[str, Any]
) -> None:
    env = make_gymnasium(name, options)
    rule = goal_rule_of(env)
    assert isinstance(rule, DistanceRule)
    raw: Any = env.unwrapped
    rng, width = np.random.default_rng(0), env.observation_space["desired_goal"].shape[0]  # type: ignore[index]
    off = np.repeat([-1e-3, -1e-6, -1e-9, 1e-9, 1e-6, 1e-3], 20)
    way, desired = rng.normal(size=(2, len(off), width))
    achieved = desired + (rule.threshold * (1 + off) / np.linalg.norm(way, axis=1))[:, None] * way
    achieved = np.concatenate([achieved, rule.threshold * np.eye(width), -rule.threshold * np.eye(width)])  # and on it
    desired = np.concatenate([desired, np.zeros((2 * width, width))])
    pair = torch.from_numpy(achieved), torch.from_numpy(desired)
    np.testing.assert_allclose(rule.reward(*pair)[:, 0], raw.compute_reward(achieved, desired, {}), atol=1e-12)
    assert rule.success(*pair)[: len(off), 0].tolist() == (off < 0).tolist()
    ends = [bool(raw.compute_terminated(a, d, {})) for a, d in zip(achieved, desired, strict=True)]
    assert rule.terminated(*pair)[:, 0].tolist() == ends
    if hasattr(raw, "_is_success"):
        assert rule.success(*pair)[:, 0].tolist() == raw._is_success(achieved, desired).astype(bool).tolist()


@pytest.mark.parametrize("name", POSES)
def test_poses_are_paid_as_the_environment_pays(name: str) -> None:
    env = make_gymnasium(name, {})
    rule = goal_rule_of(env)
    assert isinstance(rule, PoseRule)
    achieved, desired = goals(env, 120)
    raw: Any = env.unwrapped
    pair = torch.from_numpy(achieved), torch.from_numpy(desired)
    # Row by row: for pens, the environment's own code exchanges rows of a batch.
    paid = [float(raw.compute_reward(a, d, {})) for a, d in zip(achieved.copy(), desired.copy(), strict=True)]
    np.testing.assert_allclose(rule.reward(*pair)[:, 0], paid, atol=1e-6)
    reached = [bool(raw._is_success(a, d)) for a, d in zip(achieved.copy(), desired.copy(), strict=True)]
    assert rule.success(*pair)[:, 0].tolist() == reached
    assert 0 < sum(reached) < 120
    assert not rule.terminated(*pair).any()


@pytest.mark.skipif(version("gymnasium-robotics") != "1.4.2", reason="other releases may pay a batch of pens rightly")
def test_batches_of_pens_are_paid_row_by_row_which_their_environment_does_not() -> None:
    env = make_gymnasium("HandManipulatePenDense-v1", {})
    achieved, desired = goals(env, 60)
    raw: Any = env.unwrapped
    rows = [float(raw.compute_reward(a, d, {})) for a, d in zip(achieved.copy(), desired.copy(), strict=True)]
    batch = raw.compute_reward(achieved.copy(), desired.copy(), {})
    assert not np.allclose(batch, rows, atol=1e-3)
    rule = goal_rule_of(env)
    assert rule is not None
    found = rule.reward(torch.from_numpy(achieved), torch.from_numpy(desired))
    np.testing.assert_allclose(found[:, 0], rows, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FetchPush-v4", {}),
        ("HandReach-v3", {}),
        ("HandManipulatePenRotate-v1", {}),
        ("PointMaze_UMaze-v3", {"continuing_task": False}),
        ("AntMaze_UMaze-v5", {"continuing_task": False}),
    ],
)
def test_rows_of_the_game_follow_its_rule(name: str, options: dict[str, Any]) -> None:
    game = make(f"gym/{name}", 2, **options)
    rule = game.goal_rule  # type: ignore[attr-defined]
    view, rng = game.reset(0), torch.Generator().manual_seed(0)
    for _ in range(15):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        torch.testing.assert_close(rule.reward(rows.next_achieved, rows.desired), rows.reward, atol=1e-6, rtol=1e-6)
        assert torch.equal(rule.terminated(rows.next_achieved, rows.desired), rows.terminated)
    game.close()


def test_a_batch_is_judged_row_by_row_where_the_environment_gives_one_answer() -> None:
    env: Any = make_gymnasium("PointMaze_UMaze-v3", {"continuing_task": False}).unwrapped
    achieved, desired = torch.zeros(3, 2, dtype=torch.float64), torch.tensor([[0.4, 0.0], [0.0, 0.45], [0.5, 0.0]])
    rule = goal_rule_of(env)
    assert rule is not None
    assert rule.terminated(achieved, desired.double())[:, 0].tolist() == [True, True, False]
    assert env.compute_terminated(achieved.numpy(), desired.numpy(), {}) is False


def test_other_goals_need_a_rule_from_their_author() -> None:
    class Mine(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Dict(
            {key: gymnasium.spaces.Box(-1, 1, (1,)) for key in ("observation", "achieved_goal", "desired_goal")}
        )

    with pytest.raises(GameError, match=r"how they are paid for is not known; pass goal_rule=\.\.\."):
        goal_rule_of(Mine())
    assert goal_rule_of(gymnasium.make("CartPole-v1")) is None
