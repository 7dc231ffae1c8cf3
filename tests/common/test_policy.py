"""`JointPolicy` against its networks one by one, and under tianshou's collector and trainer."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from tianshou.data import Batch, Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor

from presage.common.game import GameSpec, View
from presage.common.heads import answer
from presage.common.joint_env import JointEnv
from presage.common.networks import StackedMLP
from presage.common.policy import JointPolicy, joint_action_space
from presage.marl.masac import MASAC, MASACConfig
from tests.common.toy import LinearGame, box_agent, discrete_agent, generator, window_at

MIXED = GameSpec(
    name="mixed",
    agents=(
        box_agent("a", (0, 1), 2),
        discrete_agent("b", (2, 3), 3),
        box_agent("c", (3, 4), 2),
        discrete_agent("d", (0, 4), 3),
    ),
    obs_dim=5,
)
VARYING = GameSpec(name="varying", agents=MIXED.agents, obs_dim=5, acting_varies=True, legal_varies=True)


def policy_of(spec: GameSpec, seed: int = 0) -> JointPolicy:
    return JointPolicy(spec, (8, 8), generator(seed), generator(seed + 1))


def one_by_one(policy: JointPolicy, obs: Tensor) -> list[Tensor]:
    """Every agent's distribution `(B, p)` from its own network as ordinary torch layers over its own observation."""
    found: dict[int, Tensor] = {}
    for group, stack in zip(policy.groups, policy.actors, strict=True):
        assert isinstance(stack, StackedMLP)
        for k, agent in enumerate(group.agents):
            found[agent] = stack.member(k)(obs[:, list(policy.spec.obs[agent])])
    return [found[agent] for agent in range(policy.spec.n)]


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_greedy_answers_are_those_of_every_agents_own_network(seed: int, size: int) -> None:
    policy = policy_of(MIXED, seed % 100)
    obs = torch.randn(size, 5, generator=generator(seed))
    act, log_probs = policy.answers(View.of(MIXED, obs), None)
    for i, parameters in enumerate(one_by_one(policy, obs)):
        agent = MIXED.agents[i]
        wanted, value = answer(agent.heads, parameters, None, None)
        torch.testing.assert_close(act[:, MIXED.act[i]], wanted)
        torch.testing.assert_close(log_probs[i], value)
    carry, stepped = policy.step(policy.init(window_at(View.of(MIXED, obs), MIXED.act_dim)), View.of(MIXED, obs), None)
    assert carry is None
    assert torch.equal(stepped, act)
    assert stepped.is_contiguous()


def test_samples_come_from_every_agents_own_network() -> None:
    policy, count = policy_of(MIXED), 20_000
    obs = torch.tensor([[0.5, -1.0, 2.0, 0.3, -0.7]])
    view = View.of(MIXED, obs.expand(count, -1))
    act, _ = policy.answers(view, generator(1))
    for i, parameters in enumerate(one_by_one(policy, obs)):
        part = act[:, MIXED.act[i]].detach()
        if MIXED.agents[i].discrete:
            torch.testing.assert_close(part.mean(0), parameters[0].softmax(-1), rtol=0, atol=0.02)
        else:
            mean, log_sigma = parameters[0].chunk(2)
            unsquashed = part.clamp(-1 + 1e-6, 1 - 1e-6).atanh()
            torch.testing.assert_close(unsquashed.mean(0), mean, rtol=0, atol=0.05)
            torch.testing.assert_close(unsquashed.std(0), log_sigma.exp(), rtol=0.05, atol=0)
    MIXED.check_action(act[:100].detach())


@given(st.integers(0, 2**31))
def test_agents_that_do_not_act_answer_with_zeros_and_illegal_choices_are_left_out(seed: int) -> None:
    rng = generator(seed)
    acting, legal = torch.rand(30, 4, generator=rng) < 0.5, torch.rand(30, 10, generator=rng) < 0.5
    legal[:, [2, 7]] = True
    view = View.of(VARYING, torch.randn(30, 5, generator=rng), acting=acting, legal=legal)
    for draw in (rng, None):
        _, act = policy_of(VARYING).step(None, view, draw)
        VARYING.check_action(act, acting)
        for _, head, where in VARYING.heads:
            if head.kind == "discrete":
                assert bool((act[:, where].bool() <= legal[:, where]).all())


def test_each_agent_sees_its_own_observation_alone() -> None:
    policy = policy_of(MIXED)
    obs = torch.randn(1, 5, generator=generator(2)).requires_grad_()
    for i in range(4):
        act, _ = policy.answers(View.of(MIXED, obs), None if not MIXED.agents[i].discrete else generator(3))
        weight = torch.arange(1.0, act[:, MIXED.act[i]].shape[1] + 1)
        (slope,) = torch.autograd.grad((act[0, MIXED.act[i]] * weight).sum(), obs)
        assert {k for k in range(5) if slope[0, k] != 0} == set(MIXED.obs[i])


def test_the_same_generator_gives_the_same_policy_and_the_same_answers() -> None:
    view = View.of(MIXED, torch.randn(7, 5, generator=generator(4)))
    one, two, other = policy_of(MIXED), policy_of(MIXED), policy_of(MIXED, 5)
    assert torch.equal(one.step(None, view, generator(6))[1], two.step(None, view, generator(6))[1])
    assert not torch.equal(one.step(None, view, None)[1], other.step(None, view, None)[1])


def test_under_tianshou_it_samples_while_training_and_is_greedy_otherwise() -> None:
    policy = policy_of(MIXED)
    obs = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    view = View.of(MIXED, torch.from_numpy(obs))
    outside = policy(Batch(obs=obs, info=Batch())).act
    assert torch.equal(outside, policy.step(None, view, None)[1])
    with policy_within_training_step(policy):
        inside = policy(Batch(obs=obs, info=Batch())).act
    assert torch.equal(inside, policy.step(None, view, generator(1))[1])
    assert not torch.equal(inside, outside)


def test_samples_of_the_action_space_are_joint_actions() -> None:
    space = joint_action_space(MIXED)
    assert isinstance(space, gym.spaces.Box)
    space.seed(0)
    drawn = torch.from_numpy(np.stack([space.sample() for _ in range(600)]))
    MIXED.check_action(drawn)
    assert all(space.contains(act) for act in drawn.numpy())
    for _, head, where in MIXED.heads:
        if head.kind == "discrete":
            torch.testing.assert_close(drawn[:, where].mean(0), torch.full((3,), 1 / 3), rtol=0, atol=0.1)
        else:
            assert float(drawn[:, where].min()) < -0.9
            assert float(drawn[:, where].max()) > 0.9
    low = np.array([-1, -1, 0, 0, 0, -1, -1, 0, 0, 0], dtype=np.float32)
    assert np.array_equal(space.low, low)
    assert np.array_equal(space.high, np.ones(10, dtype=np.float32))


def joint_envs(copies: int, limit: int = 8) -> DummyVectorEnv:
    return DummyVectorEnv([lambda: JointEnv(LinearGame(MIXED, limit=limit)) for _ in range(copies)])


def test_tianshous_collector_plays_legal_actions_and_stores_every_agents_reward() -> None:
    policy, envs = policy_of(MIXED), joint_envs(2)
    envs.seed(1)
    buffer = VectorReplayBuffer(100, 2)
    collector: Collector[CollectStats] = Collector(policy, envs, buffer)
    collector.reset()
    with policy_within_training_step(policy):
        collector.collect(n_step=20, random=True)
        collector.collect(n_step=20)
    assert len(buffer) == 40
    batch = buffer[np.r_[0:20, 50:70]]
    acts = torch.from_numpy(batch.act)
    MIXED.check_action(acts)
    assert batch.rew.shape == (40, 4)
    after, reward, _ = LinearGame(MIXED).predict(torch.from_numpy(batch.obs), acts)
    torch.testing.assert_close(torch.from_numpy(batch.obs_next), after)
    torch.testing.assert_close(torch.from_numpy(batch.rew).float(), reward)
    assert batch.truncated[[7, 15]].all()
    assert batch.truncated.sum() == 4


def test_tianshous_trainer_updates_it_and_reports_the_mean_over_agents() -> None:
    learner = MASAC(MIXED, MASACConfig(hidden=(8,)), generator(0), generator(1))
    before = {name: value.detach().clone() for name, value in learner.named_parameters()}
    envs, tests = joint_envs(2), joint_envs(1)
    for seed, env in enumerate((envs, tests)):
        env.seed(seed)
    collector: Collector[CollectStats] = Collector(learner, envs, VectorReplayBuffer(100, 2))
    judge: Collector[CollectStats] = Collector(learner, tests)

    reported: list[float] = []

    def mean_over_agents(returns: np.ndarray) -> np.ndarray:
        assert returns.shape[-1] == MIXED.n
        reported.extend(returns.mean(-1).tolist())
        return np.asarray(returns.mean(-1))

    found: Any = learner.run_training(
        OffPolicyTrainerParams(
            training_collector=collector, test_collector=judge, max_epochs=2, epoch_num_steps=16,
            collection_step_num_env_steps=8, update_step_num_gradient_steps_per_sample=0.25, batch_size=16,
            multi_agent_return_reduction=mean_over_agents, verbose=False, show_progress=False,
        )
    )  # fmt: skip
    assert (found.train_step, found.update_step) == (32, 4)
    assert found.best_score in reported
    for name, value in learner.named_parameters():
        assert not torch.equal(value, before[name]), name
