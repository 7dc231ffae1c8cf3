"""Goals behind observations: what learners without goals see, standardised inputs, updates and answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tianshou.utils.torch_utils import policy_within_training_step

from presage.common.ddpg import DDPGConfig, build_ddpg
from presage.common.evaluate import first_window
from presage.common.game import GameSpec, Symmetry, View
from presage.common.goal_view import GoalActor, GoalConditioned, GoalView, RunningNormaliser
from presage.common.learner_state import learner_state, restore_learner
from presage.common.one_batch import OneBatch
from presage.marl.masac import MASAC, MASACConfig
from tests.common.toy import REACHING, box_agent, generator, random_rows, window_at

PAIR = GameSpec(
    name="pair", agents=(box_agent("a", (0, 1), 2, (0,)), box_agent("b", (1, 2), 2, (1,))), obs_dim=3, goal_dim=2,
    symmetries=(Symmetry(obs=(2, 1, 0), act=(2, 3, 0, 1), agents=(1, 0), goal=(1, 0)),),
)  # fmt: skip


def test_every_agent_sees_its_own_goal_behind_what_it_observes() -> None:
    seen = GoalView(PAIR)
    assert [agent.obs for agent in seen.spec.agents] == [(0, 1, 3), (1, 2, 4)]
    assert (seen.spec.obs_dim, seen.spec.goal_dim) == (5, 0)
    assert seen.spec.symmetries[0].obs == (2, 1, 0, 4, 3)
    rows = random_rows(PAIR, 6, generator(0))
    flat = seen.rows(rows)
    assert torch.equal(flat.obs, torch.cat([rows.obs, rows.desired], 1))
    assert torch.equal(flat.next_obs, torch.cat([rows.next_obs, rows.desired], 1))
    assert flat.desired.shape == flat.achieved.shape == (6, 0)
    assert torch.equal(flat.reward, rows.reward)


def test_a_window_has_the_present_goal_all_along() -> None:
    rows = random_rows(PAIR, 4, generator(0))
    now, many = rows.view, rows.obs[:, None].expand(-1, 3, -1)
    window = replace(window_at(now, 4), obs=many, act=torch.zeros(4, 3, 4), valid=torch.ones(4, 3, dtype=torch.bool))
    seen = GoalView(PAIR).window(window)
    assert seen.obs.shape == (4, 3, 5)
    assert torch.equal(seen.obs[:, -1], seen.now.obs)
    assert torch.equal(seen.obs[:, :, 3:], rows.desired[:, None].expand(-1, 3, -1))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1_000))
def test_statistics_are_those_of_all_rows_however_they_come(sizes: list[int], seed: int) -> None:
    normaliser, rng = RunningNormaliser(3), generator(seed)
    parts = [3.0 + 2.0 * torch.randn(size, 3, generator=rng) for size in sizes]
    for part in parts:
        normaliser.add(part)
    everything = torch.cat(parts).double()
    torch.testing.assert_close(normaliser.mean, everything.mean(0).float())
    std = everything.std(0, unbiased=False).clamp_min(0.01).float()
    torch.testing.assert_close(normaliser.std, std, rtol=1e-4, atol=1e-5)
    x = torch.randn(5, 3, generator=rng)
    torch.testing.assert_close(normaliser(x), ((x - normaliser.mean) / normaliser.std).clamp(-5, 5))


def test_constant_inputs_become_zero_and_huge_ones_are_held() -> None:
    normaliser = RunningNormaliser(2)
    normaliser.add(torch.tensor([[4.0, 1e6]]).expand(10, -1))
    assert normaliser.std.tolist() == pytest.approx([0.01, 0.01])
    assert normaliser.mean.tolist() == [4.0, 200.0]
    assert normaliser(torch.tensor([[4.0, 1e9], [9.0, 0.0]])).tolist() == [[0.0, 0.0], [5.0, -5.0]]


def test_a_learner_is_updated_with_goals_and_statistics_of_the_rows_it_gets() -> None:
    normaliser = RunningNormaliser(5)
    seen = GoalView(REACHING, normaliser)
    inner, actor = build_ddpg(seen.spec, DDPGConfig(hidden=(8,)), generator(0))
    learner = GoalConditioned(inner, seen, watched=2)
    rng, rows = generator(1), []
    for _ in range(3):
        rows.append(random_rows(REACHING, 20, rng))
        with policy_within_training_step(learner.policy):
            learner.update(OneBatch(rows[-1]), None)
    watched = torch.cat([torch.cat([each.obs, each.desired], 1) for each in rows[:2]])
    torch.testing.assert_close(normaliser.mean, watched.mean(0))
    assert learner.gamma == 0.98

    plays, view = GoalActor(actor, seen), rows[0].view
    act = plays.step(plays.init(first_window(REACHING, view)), view, None)[1]
    flat = normaliser(torch.cat([view.obs, view.desired], 1))
    assert torch.equal(act, actor.step(None, View.of(seen.spec, flat), None)[1])

    saved = learner_state(learner)
    second = RunningNormaliser(5)
    again = GoalView(REACHING, second)
    other = GoalConditioned(build_ddpg(again.spec, DDPGConfig(hidden=(8,)), generator(9))[0], again, watched=2)
    restore_learner(other, saved)
    assert torch.equal(second.mean, normaliser.mean)
    for side in (learner, other):
        with policy_within_training_step(side.policy):
            side.update(OneBatch(rows[0]), None)
    for one, two in zip(learner.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_several_agents_learn_of_goals_through_the_same_door() -> None:
    seen = GoalView(PAIR)
    inner = MASAC(seen.spec, MASACConfig(hidden=(8,)), generator(0), generator(1))
    learner, rows = GoalConditioned(inner, seen), random_rows(PAIR, 16, generator(2))
    with policy_within_training_step(learner.policy):
        learner.update(OneBatch(rows), None)
    assert set(learner.metrics) == set(inner.metrics)
    plays = GoalActor(inner.policy, seen)
    one, other = (plays.step(None, view, None)[1] for view in (rows.view, rows.with_(desired=rows.desired + 1).view))
    assert not torch.equal(one, other)
    assert plays.divergence is not None
    assert plays.divergence(inner.policy, rows.view).abs().max() < 1e-6


def test_bad_input_is_refused() -> None:
    seen = GoalView(REACHING)
    inner, _ = build_ddpg(seen.spec, DDPGConfig(hidden=(8,)), generator(0))
    with pytest.raises(ValueError, match="watched=0 must be >= 1"):
        GoalConditioned(inner, seen, watched=0)
    with pytest.raises(TypeError, match="updates take a OneBatch of rows, got object"):
        GoalConditioned(inner, seen).update(object(), None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"least=0\.0"):
        RunningNormaliser(2, least=0.0)
