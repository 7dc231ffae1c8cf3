"""AORPO with goals: what reads them, what is paid for them, and runs that stop at any instant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from presage.common.agent import load
from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameError
from presage.common.rollout import Answerers
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from presage.envs.batched import BatchedGame
from presage.envs.particle import GoalNavigation
from presage.envs.particle.rules import ParticleRules
from presage.envs.toy.plane import World2D
from presage.gcrl.foresight import Foresight
from presage.gcrl.hindsight import Hindsight, Shares
from presage.gcrl.relabelling import RelabellingConfig
from presage.scenarios.goal_aorpo import GoalAORPOConfig
from tests.common.tiny_runs import AORPO, assert_resumes, played, scenario

CPU = torch.device("cpu")
METHOD = GoalAORPOConfig(aorpo=AORPO)
GAME = GameConfig(name="particle/goal_navigation", copies=4, options={"agents": 2, "episode_limit": 5})


def trained(method: GoalAORPOConfig, steps: int = 60) -> tuple[Any, EpisodicReplay, ParticleRules]:
    rules = ParticleRules(GoalNavigation(agents=2), episode_limit=5)
    dyna = method.build(rules.spec, streams(0), CPU, None, rules.goal_rule)
    return dyna, played(dyna, BatchedGame(rules, 4), steps), rules


@pytest.mark.parametrize(("source", "kind"), [("foresight", Foresight), ("hindsight", Hindsight), ("none", type(None))])
def test_rows_of_every_kind_are_paid_for_the_goals_they_pursue(source: Any, kind: type) -> None:
    dyna, replay, rules = trained(replace(METHOD, relabelling=RelabellingConfig(source=source)))
    assert isinstance(dyna.relabel, kind)
    rule = rules.goal_rule
    assert rule is not None
    assert set(dyna.imagined.rows(dyna.imagined.all()).ego.tolist()) == {0, 1}
    for rows in (dyna.mix(replay), dyna.imagined.rows(dyna.imagined.all())):
        assert torch.equal(rows.reward, rule.reward(rows.next_achieved, rows.desired))


def test_without_relabelling_only_the_games_goals_are_pursued() -> None:
    dyna, replay, _ = trained(replace(METHOD, relabelling=RelabellingConfig(source="none", aims=Shares.of(0))))
    own = replay.rows(replay.all()).desired
    for rows in (dyna.mix(replay), dyna.imagined.rows(dyna.imagined.all())):
        goals = {tuple(sorted(goal)) for goal in rows.desired.view(len(rows), -1).tolist()}
        assert goals <= {tuple(sorted(goal)) for goal in own.tolist()}  # under a renaming of the agents


def test_policies_and_opponent_models_read_the_goals() -> None:
    dyna, replay, rules = trained(METHOD)
    window = replay.window(replay.latest(6), 1)
    moved = replace(window.now, desired=window.now.desired + 1.0)
    answerers: Answerers = dyna.answerers
    assert answerers.models is not None
    for part in (answerers.policy, answerers.models):
        assert part.step(part.init(window), window.now, None)[1].shape == (6, rules.spec.act_dim)
    seen, models = dyna.opponents.seen, dyna.opponents.opponents.models
    act = answerers.policy.step(None, window.now, None)[1]
    before, after = (models.log_prob(seen.view(view), act) for view in (window.now, moved))
    assert bool((before != after).all())
    told = [dyna.learner.learner.policy.parameters_of(seen.view(view))[0] for view in (window.now, moved)]
    assert bool((told[0] != told[1]).any(2).all())


@pytest.mark.parametrize("source", ["foresight", "hindsight"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, source: Any) -> None:
    whole = assert_resumes(scenario(replace(METHOD, relabelling=RelabellingConfig(source=source)), GAME), tmp_path)
    assert load(whole).spec.n == 2


def test_what_does_not_suit_is_refused() -> None:
    with pytest.raises(GameError, match="take 'mapgo' for one agent"):
        METHOD.build(World2D().spec, streams(0), CPU)
    with pytest.raises(ValueError, match="real_share=1 imagines nothing"):
        GoalAORPOConfig(aorpo=replace(AORPO, loop=replace(AORPO.loop, real_share=1.0)))
