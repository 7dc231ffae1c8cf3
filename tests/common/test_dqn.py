"""DQN: tianshou's own update, targets over legal actions, exploration, and bit-flip with hindsight."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from tianshou.algorithm.modelfree.dqn import DQN
from tianshou.utils.torch_utils import policy_within_training_step

from presage.common.dqn import DQNConfig, build_dqn
from presage.common.game import GameError, GameSpec, View
from presage.common.learner_state import learner_state, restore_learner
from presage.common.one_batch import OneBatch
from presage.common.target_range import TargetRange
from tests.common.toy import PLAIN, box_agent, discrete_agent, generator, random_rows

CHOICE = GameSpec(
    name="choice", agents=(discrete_agent("a", (0, 1, 2), 4),), obs_dim=3, terminates=True, legal_varies=True
)
FREE = GameSpec(name="free", agents=(discrete_agent("a", (0, 1, 2), 4),), obs_dim=3, terminates=True)
BOX = GameSpec(name="box", agents=(box_agent("a", (0, 1, 2), 2),), obs_dim=3)


@pytest.mark.parametrize("double", [False, True])
def test_updates_are_those_of_tianshou(double: bool) -> None:
    config = DQNConfig(hidden=(16, 8), target_every=1_000_000, double=double)
    ours, _ = build_dqn(FREE, config, generator(0))
    theirs, _ = build_dqn(FREE, config, generator(0))
    theirs.target_update_freq = 1_000_000
    rng = generator(1)
    for _ in range(6):
        rows = random_rows(FREE, 32, rng)
        found = ours.update(OneBatch(rows), None)
        buffer = OneBatch(rows)
        buffer._meta.act = rows.act.argmax(1)
        with policy_within_training_step(theirs.policy):
            wanted = DQN.update(theirs, buffer, 32)
        assert found.get_loss_stats_dict() == pytest.approx(wanted.get_loss_stats_dict(), rel=1e-4, abs=1e-6)
        for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=2e-6)


def test_targets_take_the_best_of_what_is_legal_and_are_held() -> None:
    config = DQNConfig(hidden=(8,), discount=0.9, targets=TargetRange(low=-0.1, high=0.1))
    learner, _ = build_dqn(CHOICE, config, generator(0))
    rows = random_rows(CHOICE, 40, generator(1))
    rows = rows.with_(next_legal=rows.next_legal | ~rows.next_legal.any(1, keepdim=True))
    values = learner.policy.model(rows.next_obs)[0]
    best = torch.stack([v[ok].max() for v, ok in zip(values, rows.next_legal, strict=True)])
    wanted = rows.reward[:, 0] + 0.9 * torch.where(rows.terminated[:, 0], 0.0, best)
    torch.testing.assert_close(learner.targets(rows), wanted.clamp(-0.1, 0.1).detach())


def test_the_target_moves_a_part_of_the_way_once_per_cycle() -> None:
    learner, _ = build_dqn(FREE, DQNConfig(hidden=(8,), target_every=3, target_rate=0.25), generator(0))
    rng, first = generator(1), deepcopy(list(learner._old.parameters()))
    for k in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, learner._old.parameters(), strict=True)), k
        learner.update(OneBatch(random_rows(FREE, 16, rng)), None)
    for old, now, source in zip(first, learner._old.parameters(), learner.policy.model.parameters(), strict=True):
        torch.testing.assert_close(now, 0.75 * old + 0.25 * source)


def test_exploration_is_uniform_over_what_is_legal() -> None:
    _, actor = build_dqn(CHOICE, DQNConfig(hidden=(8,), random_share=0.4), generator(0))
    legal = torch.tensor([[True, False, True, True]]).expand(20_000, -1)
    view = View.of(CHOICE, torch.ones(20_000, 3), legal=legal)
    greedy = actor.step(None, view, None)[1]
    act = actor.step(None, view, generator(1))[1]
    CHOICE.check_action(act)
    share = act.mean(0)
    best = int(greedy[0].argmax())
    assert float(share[1]) == 0.0
    assert float(share[best]) == pytest.approx(0.6 + 0.4 / 3, abs=0.02)
    silent = View.of(CHOICE, torch.ones(2, 3), acting=torch.tensor([[True], [False]]))
    assert actor.step(None, silent, None)[1].sum(1).tolist() == [1.0, 0.0]


def test_a_restored_learner_goes_on_exactly() -> None:
    config = DQNConfig(hidden=(8,), target_every=2)
    learner, _ = build_dqn(FREE, config, generator(0))
    rng = generator(1)
    rows = [random_rows(FREE, 16, rng) for _ in range(7)]
    for each in rows[:3]:
        learner.update(OneBatch(each), None)
    other, _ = build_dqn(FREE, config, generator(5))
    restore_learner(other, learner_state(learner))
    for each in rows[3:]:
        for side in (learner, other):
            side.update(OneBatch(each), None)
    for one, two in zip(learner.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("spec", [PLAIN, BOX], ids=["two agents", "box"])
def test_games_that_it_cannot_play_are_refused(spec: GameSpec) -> None:
    with pytest.raises(GameError, match="one agent that makes a single choice"):
        build_dqn(spec, DQNConfig(), generator(0))


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0.0}, {"target_every": 0}, {"discount": 1.5}, {"target_rate": 0.0}, {"random_share": -0.1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        DQNConfig(**wrong)
