"""DDPG and TD3: tianshou's own updates to rounding, targets as the papers hold them, exploration, the toy optimum."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from tianshou.algorithm.modelfree.ddpg import DDPG
from tianshou.algorithm.modelfree.td3 import TD3
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor

from presage.common.ddpg import DDPGConfig, build_ddpg
from presage.common.game import GameError, GameSpec, Rows, View
from presage.common.learner_state import learner_state, restore_learner
from presage.common.one_batch import OneBatch
from presage.common.target_range import TargetRange
from tests.common.toy import PLAIN, box_agent, discrete_agent, generator, random_rows

ONE = GameSpec(name="one", agents=(box_agent("a", (0, 1, 2), 2),), obs_dim=3, terminates=True)
CHOOSER = GameSpec(name="chooser", agents=(discrete_agent("a", (0, 1, 2), 4),), obs_dim=3)
PLAINEST: dict[str, Any] = {
    "hidden": (16, 8), "action_penalty": 0.0, "target_every": 1, "target_rate": 0.02, "discount": 0.9,
}  # fmt: skip
"""what tianshou's own classes can do as well"""


def improve(learner: Any, rows: Rows) -> Any:
    with policy_within_training_step(learner.policy):
        return learner.update(OneBatch(rows), None)


def numbers_of(learner: Any) -> list[Tensor]:
    return [value.detach().clone() for value in learner.parameters()]


@pytest.mark.parametrize("twin", [False, True], ids=["DDPG", "TD3"])
def test_updates_are_those_of_tianshou(twin: bool) -> None:
    config = DDPGConfig(**PLAINEST, twin=twin, smoothing=0.0)
    ours, _ = build_ddpg(ONE, config, generator(0))
    theirs, _ = build_ddpg(ONE, config, generator(0))
    kind: type[Any] = TD3 if twin else DDPG
    rng = generator(1)
    for _ in range(6):
        rows = random_rows(ONE, 32, rng)
        found = improve(ours, rows)
        with policy_within_training_step(theirs.policy):
            wanted = kind.update(theirs, OneBatch(rows), 32)
        assert found.get_loss_stats_dict() == pytest.approx(wanted.get_loss_stats_dict(), rel=1e-4, abs=1e-6)
        for one, two in zip(numbers_of(ours), numbers_of(theirs), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("held", "reward", "value", "wanted"),
    [
        ("target", -1.0, -100.0, -50.0), ("target", 0.0, 3.0, 0.0), ("target", -1.0, 2.0, 0.0),
        ("value", -1.0, 2.0, -1.0), ("value", -1.0, -80.0, -50.0), ("target", -1.0, -80.0, -50.0),
    ],
)  # fmt: skip
def test_targets_are_held_as_in_the_papers(held: Any, reward: float, value: float, wanted: float) -> None:
    bounds = TargetRange(low=-50.0, high=0.0, held=held)
    found = bounds.of(torch.tensor([reward]), torch.tensor([0.98]), torch.tensor([value]))
    assert float(found) == pytest.approx(wanted, abs=1e-5)


def test_the_range_of_returns_follows_from_that_of_rewards() -> None:
    penalty, bonus = TargetRange.of_rewards(-1.0, 0.0, 0.98), TargetRange.of_rewards(0.0, 1.0, 0.9)
    assert [penalty.low, penalty.high, bonus.low, bonus.high] == pytest.approx([-50.0, 0.0, 0.0, 10.0])
    assert TargetRange.of_rewards(1.0, 2.0, 0.5) == TargetRange(low=1.0, high=4.0)


def test_what_has_ended_is_worth_its_reward_and_what_was_cut_goes_on() -> None:
    learner, _ = build_ddpg(ONE, DDPGConfig(**PLAINEST), generator(0))
    rows = random_rows(ONE, 40, generator(1))
    next_act = learner.policy.actor(rows.next_obs)[0]
    value = learner.critic(rows.next_obs, next_act)[:, 0]
    wanted = rows.reward[:, 0] + 0.9 * torch.where(rows.terminated[:, 0], 0.0, value)
    torch.testing.assert_close(learner.targets(rows), wanted.detach())
    assert rows.truncated.any()


def test_a_changed_reward_moves_the_target() -> None:
    learner, _ = build_ddpg(ONE, DDPGConfig(**PLAINEST), generator(0))
    rows = random_rows(ONE, 8, generator(1))
    moved = learner.targets(rows.with_(reward=rows.reward + 100)) - learner.targets(rows)
    torch.testing.assert_close(moved, torch.full((8,), 100.0), atol=1e-3, rtol=0)


def test_smoothed_actions_stay_in_the_box_and_the_lower_critic_counts() -> None:
    config = DDPGConfig(**PLAINEST, twin=True, smoothing=50.0, smoothing_limit=50.0)
    learner, _ = build_ddpg(ONE, config, generator(0))
    seen: list[Tensor] = []
    for critic in (learner.critic_old, learner.critic2_old):
        critic.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    rows = random_rows(ONE, 500, generator(1))
    targets = learner.targets(rows)
    assert float(seen[0].abs().max()) == 1.0
    assert float((seen[0].abs() == 1).float().mean()) > 0.8
    values = [critic.module(rows.next_obs, seen[0])[:, 0] for critic in (learner.critic_old, learner.critic2_old)]
    lower = rows.reward[:, 0] + 0.9 * torch.where(rows.terminated[:, 0], 0.0, torch.minimum(*values))
    torch.testing.assert_close(targets, lower.detach())


def test_targets_move_once_per_cycle_of_policy_steps() -> None:
    config = DDPGConfig(**{**PLAINEST, "target_every": 3}, twin=True, delay=2)
    learner, _ = build_ddpg(ONE, config, generator(0))
    rng, moved, acted = generator(1), [], []
    for _ in range(12):
        old, policy = (deepcopy(list(part.parameters())) for part in (learner.critic_old, learner.policy))
        improve(learner, random_rows(ONE, 16, rng))
        moved.append(any(not torch.equal(a, b) for a, b in zip(old, learner.critic_old.parameters(), strict=True)))
        acted.append(any(not torch.equal(a, b) for a, b in zip(policy, learner.policy.parameters(), strict=True)))
    assert acted == [True, False] * 6
    assert [k for k, each in enumerate(moved) if each] == [4, 10]


def test_the_penalty_pulls_actions_to_the_middle() -> None:
    def size(penalty: float) -> float:
        config = DDPGConfig(hidden=(32,), action_penalty=penalty, learning_rate=1e-2)
        learner, actor = build_ddpg(ONE, config, generator(0))
        rng = generator(1)
        rows = random_rows(ONE, 64, rng)
        for _ in range(200):
            improve(
                learner,
                rows.with_(reward=rows.act.sum(1, keepdim=True) * 0.1, terminated=torch.ones_like(rows.terminated)),
            )
        return float(actor.step(None, rows.view, None)[1].abs().mean())

    assert size(1.0) < 0.3 * size(0.0)


def test_exploration_is_noise_and_a_share_of_uniform_actions_row_by_row() -> None:
    _, actor = build_ddpg(ONE, DDPGConfig(hidden=(8,), noise=0.05, random_share=0.25), generator(0))
    view = View.of(ONE, torch.zeros(20_000, 3))
    greedy = actor.step(None, view, None)[1]
    act = actor.step(None, view, generator(1))[1]
    ONE.check_action(act)
    far = ((act - greedy).abs() > 0.3).any(1)
    assert 0.18 < float(far.float().mean()) < 0.25
    near = (act - greedy)[~far]
    assert float(near.std()) == pytest.approx(0.06, abs=0.02)
    assert torch.equal(act, actor.step(None, view, generator(1))[1])


@pytest.mark.parametrize("twin", [False, True], ids=["DDPG", "TD3"])
def test_a_restored_learner_goes_on_exactly(twin: bool) -> None:
    config = DDPGConfig(hidden=(8,), twin=twin, target_every=2)
    learner, _ = build_ddpg(ONE, config, generator(0))
    rng = generator(1)
    rows = [random_rows(ONE, 16, rng) for _ in range(9)]
    for each in rows[:4]:
        improve(learner, each)
    saved = learner_state(learner)
    other, _ = build_ddpg(ONE, config, generator(5))
    restore_learner(other, saved)
    for each in rows[4:]:
        for side in (learner, other):
            torch.manual_seed(7)
            improve(side, each)
    for one, two in zip(numbers_of(learner), numbers_of(other), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("twin", [False, True], ids=["DDPG", "TD3"])
def test_it_finds_the_best_action_of_a_bandit(twin: bool) -> None:
    config = DDPGConfig(hidden=(32, 32), twin=twin, action_penalty=0.0, learning_rate=1e-3, critic_rate=3e-3)
    learner, actor = build_ddpg(ONE, config, generator(0))
    rng = generator(1)
    torch.manual_seed(0)
    best = torch.tensor([0.5, -0.3])
    for _ in range(1_500):
        rows = random_rows(ONE, 64, rng)
        reward = -(rows.act - best).square().sum(1, keepdim=True)
        improve(learner, rows.with_(reward=reward, terminated=torch.ones_like(rows.terminated)))
    act = actor.step(None, View.of(ONE, torch.randn(50, 3, generator=rng)), None)[1]
    assert float((act - best).abs().mean()) < 0.1


@pytest.mark.parametrize("spec", [PLAIN, CHOOSER], ids=["two agents", "discrete"])
def test_games_that_it_cannot_play_are_refused(spec: GameSpec) -> None:
    with pytest.raises(GameError, match="one agent with box actions"):
        build_ddpg(spec, DDPGConfig(), generator(0))


def test_other_buffers_are_refused() -> None:
    learner, _ = build_ddpg(ONE, DDPGConfig(hidden=(8,)), generator(0))
    with pytest.raises(TypeError, match="updates take a OneBatch of rows, got object"):
        learner.update(object(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0}, {"critic_rate": -1.0}, {"discount": 1.5}, {"target_rate": 0.0}, {"target_every": 0},
        {"action_penalty": -1.0}, {"noise": -0.1}, {"random_share": 2.0}, {"smoothing_limit": 0.0}, {"delay": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        DDPGConfig(**wrong)


def test_ranges_upside_down_are_refused() -> None:
    with pytest.raises(ValueError, match=r"low=1\.0 must be <= high=0\.0"):
        TargetRange(low=1.0, high=0.0)
    with pytest.raises(ValueError, match="held='sum' must be"):
        TargetRange(held="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"discount=1\.0 must lie in"):
        TargetRange.of_rewards(-1.0, 0.0, 1.0)
