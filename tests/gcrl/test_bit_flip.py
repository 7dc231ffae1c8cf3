"""Hindsight learns a bit-flip that its absence does not, by the parts that a method is put together from."""

from __future__ import annotations

import torch
from tianshou.utils.torch_utils import policy_within_training_step

from presage.common.dqn import DQNConfig, build_dqn
from presage.common.episodic_replay import EpisodicReplay
from presage.common.goal_view import GoalActor, GoalConditioned, GoalView
from presage.common.one_batch import OneBatch
from presage.common.target_range import TargetRange
from presage.envs.batched import BatchedGame
from presage.envs.toy.bit_flip import BitFlip, EqualRule
from presage.gcrl.hindsight import Hindsight, Shares
from tests.common.toy import generator

BITS, COPIES, CYCLES = 10, 16, 20


def success(actor: GoalActor, seed: int) -> float:
    """Share of 200 goals that are reached in an episode."""
    game = BatchedGame(BitFlip(BITS), 200)
    view = game.reset(seed)
    reached, over = torch.zeros(200, dtype=torch.bool), torch.zeros(200, dtype=torch.bool)
    for _ in range(BITS):
        rows, view = game.step(actor.step(None, view, None)[1])
        reached |= rows.terminated[:, 0] & ~over
        over |= rows.terminated[:, 0] | rows.truncated
    return float(reached.double().mean())


def trained(shares: Shares) -> GoalActor:
    """The paper's recipe: cycles of 16 episodes and 40 updates of 128 rows; episodes go on at their goals."""
    rules = BitFlip(BITS, terminates=False)
    game, seen = BatchedGame(rules, COPIES), GoalView(rules.spec)
    config = DQNConfig(targets=TargetRange.of_rewards(-1.0, 0.0, 0.98))
    inner, greedy = build_dqn(seen.spec, config, generator(0))
    learner, actor = GoalConditioned(inner, seen), GoalActor(greedy, seen)
    replay, relabel = EpisodicReplay(game.spec, 160_000, COPIES), Hindsight(game.spec, EqualRule(False), shares)
    act_rng, sample_rng, view = generator(1), generator(2), game.reset(0)
    for _ in range(CYCLES):
        for _ in range(BITS):
            rows, view = game.step(actor.step(None, view, act_rng)[1])
            replay.extend(rows)
        for _ in range(40):
            index = replay.sample(128, sample_rng)
            batch = relabel(replay, index, replay.rows(index), sample_rng)
            with policy_within_training_step(learner.policy):
                learner.update(OneBatch(batch), None)
    return actor


def test_hindsight_learns_what_its_absence_does_not() -> None:
    assert success(trained(Shares.of(4)), seed=7) > 0.7
    assert success(trained(Shares.of(0)), seed=7) < 0.1
