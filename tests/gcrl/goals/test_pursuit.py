"""Episodes under proposed goals: what is stored, what the source is told, and when it is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import Rows, View
from presage.envs.batched import BatchedGame
from presage.envs.toy.plane import World2D
from presage.gcrl.goals.pursuit import Pursuit
from presage.gcrl.goals.source import Pursuits
from tests.common.toy import generator


class Told:
    """A source that proposes goals a step or two from the start, and writes down all that it is told."""

    def __init__(self) -> None:
        self.proposed: list[Tensor] = []
        self.over: list[Pursuits] = []
        self.learned: list[int] = []
        self.metrics: dict[str, float] = {}

    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        self.proposed.append(torch.rand(len(start), 2, generator=rng) * 2)
        return self.proposed[-1]

    def ended(self, pursuits: Pursuits) -> None:
        self.over.append(pursuits)

    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        self.learned.append(len(replay))
        self.metrics = {"goal/told": float(len(self.over))}


def pursuing(rules: World2D, source: Told, **numbers: Any) -> Pursuit:
    assert rules.goal_rule is not None
    return Pursuit(rules.spec, rules.goal_rule, source, generator(0), **numbers)


def played(rules: World2D, pursuit: Pursuit, copies: int, steps: int) -> tuple[EpisodicReplay, list[Rows]]:
    """What is stored, and what the game itself said."""
    game, rng = BatchedGame(rules, copies), generator(5)
    replay, view, own = EpisodicReplay(rules.spec, 1_000, copies), game.reset(3), []
    for _ in range(steps):
        aimed = pursuit.aim(view, replay)
        rows, view = game.step(torch.rand(copies, 2, generator=rng) * 2 - 1)
        own.append(rows)
        found = pursuit.rows(rows)
        assert torch.equal(found.desired, aimed.desired)
        replay.extend(found)
    return replay, own


@settings(deadline=None, max_examples=25)
@given(copies=st.integers(1, 4), limit=st.integers(1, 5), steps=st.integers(1, 14), terminates=st.booleans())
def test_rows_are_those_of_the_goals_that_were_pursued(copies: int, limit: int, steps: int, terminates: bool) -> None:
    rules = World2D(epsilon=0.8, spread=True, terminates=terminates, episode_limit=limit)
    source = Told()
    pursuit = pursuing(rules, source)
    replay, own = played(rules, pursuit, copies, steps)
    rule = rules.goal_rule
    assert rule is not None
    goals, told = torch.zeros(copies, 2), iter(source.proposed)
    begins, reached = torch.ones(copies, dtype=torch.bool), torch.zeros(copies, dtype=torch.bool)
    first, over = torch.zeros(copies, 2), iter(source.over)
    stored = replay.rows(replay.all())
    for k, game in enumerate(own):
        if begins.any():
            goals[begins] = next(told)
            first[begins], reached[begins] = game.desired[begins], False
        rows = stored[k * copies : (k + 1) * copies]
        assert torch.equal(rows.desired, goals)
        assert torch.equal(rows.reward, rule.reward(game.next_achieved, goals))
        reached |= rule.success(game.next_achieved, goals)[:, 0]
        wanted = rule.terminated(game.next_achieved, goals)
        assert torch.equal(rows.terminated, wanted)
        begins = game.truncated | game.terminated[:, 0]
        assert torch.equal(rows.truncated | rows.terminated[:, 0], begins | wanted[:, 0])
        for name in ("obs", "act", "next_obs", "achieved", "next_achieved", "step"):
            assert torch.equal(getattr(rows, name), getattr(game, name))
        if begins.any():
            said = next(over)
            assert torch.equal(said.goals, goals[begins])
            assert torch.equal(said.reached, reached[begins])
            assert torch.equal(said.start.desired, first[begins])
            assert torch.equal(said.start.obs, torch.zeros(int(begins.sum()), 2))
    assert next(told, None) is None
    assert next(over, None) is None


def test_the_source_is_fitted_before_it_is_asked_and_not_too_often() -> None:
    rules, source = World2D(episode_limit=3), Told()
    pursuit = pursuing(rules, source, learn_every=8)
    played(rules, pursuit, 2, 19)
    assert source.learned == [6, 18, 30]
    assert len(source.proposed) == 7


def test_after_the_goal_actions_are_more_and_more_at_random() -> None:
    rules, source = World2D(epsilon=30.0, episode_limit=9), Told()
    pursuit = pursuing(rules, source, wander=0.25)
    game, replay = BatchedGame(rules, 400), EpisodicReplay(rules.spec, 4_000, 400)
    view, nothing, shares = game.reset(0), torch.zeros(400, 2), []
    for _ in range(6):
        view = pursuit.aim(view, replay)
        act = pursuit.explore(view, nothing)
        shares.append(float((act != 0).any(1).double().mean()))
        rows, view = game.step(act)
        pursuit.rows(rows)
    assert shares == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 1.0], abs=0.07)
    assert pursuit.explore(view, nothing) is not nothing
    assert pursuing(rules, source).explore(view, nothing) is nothing


def test_an_episode_that_is_given_up_is_no_pursuit() -> None:
    rules, source = World2D(episode_limit=30), Told()
    pursuit = pursuing(rules, source)
    played(rules, pursuit, 3, 2)
    pursuit.drop([1])
    before, start = pursuit.open["goal"].clone(), BatchedGame(rules, 3).reset(1)
    after = pursuit.aim(start, EpisodicReplay(rules.spec, 30, 3)).desired
    assert (before != after).any(1).tolist() == [False, True, False]
    assert not source.over


def test_numbers_out_of_range_are_refused() -> None:
    rules = World2D()
    with pytest.raises(ValueError, match="learn_every=0 must be >= 1"):
        pursuing(rules, Told(), learn_every=0)
    with pytest.raises(ValueError, match=r"wander=1\.5 lie in"):
        pursuing(rules, Told(), wander=1.5)
