"""`OneBatch` under tianshou's own algorithms, against tianshou's own buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm
from tianshou.algorithm.modelfree.ddpg import DDPG, ContinuousDeterministicPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, ReplayBuffer, VectorReplayBuffer
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorDeterministic, ContinuousCritic
from tianshou.utils.torch_utils import policy_within_training_step

from presage.common.game import ALL_AGENTS, GameError, GameSpec, Rows
from presage.common.learner_state import learner_state
from presage.common.one_batch import OneBatch, rows_of_batch
from presage.common.policy import joint_action_space
from presage.common.sac import SACConfig, build_sac
from tests.common.toy import PLAIN, VARIED, assert_same_rows, box_agent, generator, random_rows

ONE = GameSpec(name="one", agents=(box_agent("a", (0, 1, 2), 2),), obs_dim=3, terminates=True)
ENVS = 2
Learner = OffPolicyAlgorithm[Any]


def sac() -> Learner:
    return build_sac(ONE, SACConfig(hidden=(16,), learning_rate=1e-2, lean=False), generator(0))[0]


def ddpg() -> Learner:
    torch.manual_seed(0)
    actor = ContinuousActorDeterministic(
        preprocess_net=Net(state_shape=ONE.obs_dim, hidden_sizes=[16]), action_shape=(ONE.act_dim,)
    )
    critic = ContinuousCritic(
        preprocess_net=Net(state_shape=ONE.obs_dim, action_shape=ONE.act_dim, hidden_sizes=[16], concat=True)
    )
    adam = AdamOptimizerFactory(lr=1e-2)
    policy = ContinuousDeterministicPolicy(actor=actor, action_space=joint_action_space(ONE), action_scaling=False)
    return DDPG(policy=policy, policy_optim=adam, critic=critic, critic_optim=adam)


LEARNERS = pytest.mark.parametrize("build", [sac, ddpg])


def stock_buffer(rows: Rows) -> tuple[VectorReplayBuffer, np.ndarray]:
    """tianshou's buffer filled with `rows` in turns by its environments, and where each row stands."""
    size = len(rows) // ENVS
    buffer = VectorReplayBuffer(len(rows), ENVS)
    reward = rows.reward[:, 0] if rows.reward.shape[1] == 1 else rows.reward
    for k in range(0, len(rows), ENVS):
        now = slice(k, k + ENVS)
        terminated = rows.terminated[now].all(1).numpy()
        truncated = rows.truncated[now].numpy()
        step = Batch(
            obs=rows.obs[now].numpy(), act=rows.act[now].numpy(), rew=reward[now].numpy(), terminated=terminated,
            truncated=truncated, done=terminated | truncated, obs_next=rows.next_obs[now].numpy(),
        )  # fmt: skip
        buffer.add(step)
    place = np.arange(len(rows))
    return buffer, place % ENVS * size + place // ENVS


def update(learner: Learner, buffer: ReplayBuffer, size: int) -> None:
    with policy_within_training_step(learner.policy):
        learner.update(buffer, size)


def numbers(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.named_parameters()}


@LEARNERS
def test_an_update_is_the_one_from_tianshous_buffer_to_the_bit(
    build: Callable[[], Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = random_rows(ONE, 40, generator(1))
    stock, place = stock_buffer(rows)
    one, two = build(), build()
    before = numbers(one)
    for k in range(5):
        chosen = torch.randint(len(rows), (16,), generator=generator(k))
        drawn = place[chosen.numpy()]
        monkeypatch.setattr(stock, "sample_indices", lambda _, drawn=drawn: drawn)
        torch.manual_seed(k)
        update(one, stock, 16)
        torch.manual_seed(k)
        update(two, OneBatch(rows[chosen]), 16)
    after = numbers(one)
    for name, value in numbers(two).items():
        assert torch.equal(value, after[name]), name
        assert not torch.equal(value, before[name]), name
    optimisers = (learner_state(learner)["optimisers"].values() for learner in (one, two))
    for stocks, mine in zip(*optimisers, strict=True):
        for p, q in zip(mine[0]["state"], stocks[0]["state"], strict=True):
            assert p.keys() == q.keys() >= {"exp_avg"}
            assert all(torch.equal(p[name], q[name]) for name in p)


def targets(learner: Learner, batch: Batch, buffer: ReplayBuffer, index: np.ndarray) -> torch.Tensor:
    torch.manual_seed(3)
    found: torch.Tensor = learner._preprocess_batch(batch, buffer, index).returns
    return found.flatten()


def own_targets(learner: Learner, rows: Rows) -> torch.Tensor:
    buffer = OneBatch(rows)
    return targets(learner, *buffer.sample(7)[:1], buffer, buffer.sample(7)[1])


@LEARNERS
def test_a_changed_reward_moves_the_target_which_it_does_not_in_tianshous_buffer(build: Callable[[], Learner]) -> None:
    rows, learner = random_rows(ONE, 8, generator(2)), build()
    raised = rows.with_(reward=rows.reward + 100)
    assert torch.allclose(own_targets(learner, raised), own_targets(learner, rows) + 100)

    stock, place = stock_buffer(rows)
    plain, changed = Batch(stock[place]), Batch(stock[place])
    changed.rew = changed.rew + 100
    assert torch.equal(targets(learner, changed, stock, place), targets(learner, plain, stock, place))


@LEARNERS
def test_termination_stops_the_bootstrap_and_truncation_does_not(build: Callable[[], Learner]) -> None:
    rows, learner = random_rows(ONE, 8, generator(4)), build()
    never = rows.with_(terminated=torch.zeros(8, 1, dtype=torch.bool), truncated=torch.zeros(8, dtype=torch.bool))
    flags = torch.arange(8) % 2 == 0
    cut, over = never.with_(truncated=flags), never.with_(terminated=flags[:, None])
    bootstrapped = own_targets(learner, never)
    assert not bool(torch.isclose(bootstrapped, rows.reward[:, 0]).any())
    assert torch.equal(own_targets(learner, cut), bootstrapped)
    assert torch.equal(own_targets(learner, over), torch.where(flags, rows.reward[:, 0], bootstrapped))


def test_it_samples_all_rows_in_order_whatever_is_asked_for() -> None:
    rows = random_rows(PLAIN, 6, generator(5))
    buffer = OneBatch(rows)
    assert len(buffer) == 6
    for size in (0, 3, None):
        batch, index = buffer.sample(size)
        assert index.tolist() == list(range(6))
        assert torch.equal(batch.obs, rows.obs)
        assert torch.equal(batch.rew, rows.reward)
        assert torch.equal(batch.obs_next, rows.next_obs)
    batch.extra = 1
    assert "extra" not in buffer.sample(0)[0]
    assert torch.equal(buffer[np.array([4, 1])].act, rows.act[[4, 1]])
    assert buffer.next(np.array([0, 5])).tolist() == [0, 5]
    assert buffer.next(2).tolist() == [2]
    assert buffer.unfinished_index().tolist() == []


def test_an_end_is_one_of_all_agents() -> None:
    rows = random_rows(PLAIN, 4, generator(6)).with_(
        terminated=torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).bool(), truncated=torch.tensor([0, 1, 0, 0]).bool()
    )
    buffer = OneBatch(rows)
    assert buffer.terminated.tolist() == [False, False, False, True]
    assert buffer.done.tolist() == [False, True, False, True]
    assert buffer.rew.tolist() == rows.reward.tolist()


@pytest.mark.parametrize("spec", [ONE, PLAIN, VARIED], ids=lambda spec: spec.name)
def test_a_learner_gets_the_very_rows_back(spec: GameSpec) -> None:
    rows = random_rows(spec, 5, generator(7))
    assert_same_rows(rows_of_batch(spec, OneBatch(rows).sample(0)[0], "cpu"), rows)


@pytest.mark.parametrize("spec", [ONE, PLAIN], ids=lambda spec: spec.name)
def test_rows_of_tianshous_buffers_have_everybody_act_freely(spec: GameSpec) -> None:
    rows = random_rows(spec, 6, generator(8))
    stock, place = stock_buffer(rows)
    found = rows_of_batch(spec, Batch(stock[place]), "cpu")
    assert_same_rows(found, rows)
    assert found.acting.all()
    assert found.legal.all()
    assert found.ego.tolist() == [ALL_AGENTS] * 6


def test_one_reward_in_tianshous_buffer_is_everybodys() -> None:
    rows = random_rows(PLAIN, 4, generator(9))
    shared = rows.with_(reward=rows.reward[:, :1].expand(4, 2))
    stock, place = stock_buffer(rows.with_(reward=rows.reward[:, :1]))
    assert_same_rows(rows_of_batch(PLAIN, Batch(stock[place]), "cpu"), shared)


def test_rows_of_tianshous_buffers_are_refused_where_they_lack_something() -> None:
    stock, place = stock_buffer(random_rows(VARIED, 4, generator(10)))
    with pytest.raises(GameError, match="'varied' has turns, deaths, illegal actions or goals"):
        rows_of_batch(VARIED, Batch(stock[place]), "cpu")
