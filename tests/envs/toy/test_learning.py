"""Learned policies on toy worlds, against what is known to be best. Seconds each; seeds are fixed."""

from __future__ import annotations

import torch
from torch import Tensor

from presage.common.dyna import DynaConfig
from presage.common.game import Actor
from presage.common.replay import Replay
from presage.common.streams import streams
from presage.envs.batched import BatchedGame, Rules
from presage.envs.toy import LinearQuadratic, MatrixGame, PointMass, central, climb
from presage.marl.masac import MASACConfig
from presage.marl.model_free import ModelFreeConfig

CPU = torch.device("cpu")


def learned(rules: Rules, learner: MASACConfig, *, copies: int, updates: int, every: int, seed: int = 0) -> Actor:
    """The policies after `updates` updates, one after every `every` steps of all copies."""
    game = BatchedGame(rules, copies)
    loop = DynaConfig(
        real_share=1.0, warmup_steps=10 * copies, updates_per_step=1.0 / (every * copies), replay_capacity=50_000
    )
    dyna = ModelFreeConfig(learner=learner, loop=loop).build(rules.spec, streams(seed), CPU)
    replay, view = Replay(rules.spec, 50_000, copies), game.reset(seed)
    while dyna.updates < updates:
        rows, view = game.step(dyna.explore(view))
        replay.extend(rows)
        dyna.learn(replay, rows)
    return dyna.actor


def returns(rules: Rules, actor: Actor, copies: int) -> tuple[Tensor, Tensor]:
    """First observations and returns `(C,)` of one episode in each copy, greedy."""
    game = BatchedGame(rules, copies)
    view, total = game.reset(10_000), torch.zeros(copies)
    start = view.obs
    for _ in range(rules.spec.episode_limit or 0):
        rows, view = game.step(actor.step(None, view, None)[1])
        total += rows.reward.mean(1)
    return start, total


def test_a_point_mass_is_brought_to_the_middle_as_fast_as_can_be() -> None:
    rules = PointMass()
    learner = MASACConfig(hidden=(64, 64), learning_rate=2e-3, target_rate=0.02, discount=0.9, initial_temperature=0.05)
    actor = learned(rules, learner, copies=32, updates=1_500, every=1)
    start, total = returns(rules, actor, 500)
    best = rules.optimum(start)
    assert float(total.mean()) > float(best.mean()) - 0.35  # of about -2.7; a random policy stays below -15


def test_a_linear_system_is_controlled_within_five_percent_of_the_formula() -> None:
    rules = LinearQuadratic()
    learner = MASACConfig(
        hidden=(64, 64), learning_rate=2e-3, target_rate=0.02, discount=0.95, initial_temperature=0.05
    )
    actor = learned(rules, learner, copies=32, updates=2_000, every=1)
    start, total = returns(rules, actor, 2_000)
    best, spread = float(rules.optimum(start).mean()), float(total.std()) / 2_000**0.5
    assert 1.05 * best < float(total.mean()) < best + 4 * spread  # best is about -0.21; doing nothing gets -0.74


CLIMBER = MASACConfig(hidden=(32,), learning_rate=1e-2, target_rate=0.02)


def test_one_agent_that_chooses_for_both_climbs() -> None:
    actor = learned(MatrixGame("climb", central(climb())), CLIMBER, copies=32, updates=300, every=1)
    assert float(returns(MatrixGame("climb", central(climb())), actor, 1)[1]) == 11.0


def test_two_agents_who_improve_against_each_other_settle_for_what_is_safe_on_climb() -> None:
    """How often they fail is measured in `benchmarks/toy_learning.py`; the random policy's mean is -2.6."""
    rules = MatrixGame("climb", climb())
    for seed in range(2):
        actor = learned(rules, CLIMBER, copies=32, updates=300, every=1, seed=seed)
        assert float(returns(rules, actor, 1)[1]) in {5.0, 6.0, 7.0, 11.0}
