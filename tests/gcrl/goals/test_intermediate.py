"""The classifier of successes: what it learns, and which goal is then proposed."""

from __future__ import annotations

import pytest
import torch

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import View
from presage.common.learner_state import learner_state, restore_learner
from presage.gcrl.goals.intermediate import IntermediateConfig, IntermediateGoals
from presage.gcrl.goals.source import Pursuits
from tests.common.toy import generator
from tests.gcrl.goals.test_maximum_entropy import LINE, filled, starts

CONFIG = IntermediateConfig(steps=400, remembered=300, hidden=(32,))


def learned(seed: int) -> IntermediateGoals:
    """A source that has seen goals reached with a chance of 1 / (1 + exp(4 (g - 2)))."""
    source, rng = IntermediateGoals(LINE, CONFIG, generator(seed)), generator(seed + 1)
    goals = torch.rand(300, 1, generator=rng) * 4
    reached = torch.rand(300, generator=rng) < torch.sigmoid(-4 * (goals[:, 0] - 2))
    source.ended(Pursuits(start=starts(LINE, 300), goals=goals, reached=reached))
    source.learn(EpisodicReplay(LINE, 10, 1), rng)
    return source


@pytest.mark.parametrize("seed", range(3))
def test_the_goal_is_taken_that_is_reached_every_other_time(seed: int) -> None:
    source = learned(seed)
    achieved = torch.linspace(0, 4, 41)[:, None]
    goals = source.propose(starts(LINE, 30), filled(LINE, achieved), generator(0))
    torch.testing.assert_close(goals, torch.full((30, 1), 2.0), atol=0.35, rtol=0)


def test_before_anything_is_known_goals_are_achieved_ones_or_the_games_own() -> None:
    source = IntermediateGoals(LINE, None, generator(0))
    start: View = starts(LINE, 4, 7.0)
    assert torch.equal(source.propose(start, EpisodicReplay(LINE, 10, 1), generator(0)), start.desired)
    replay = filled(LINE, torch.tensor([[1.0], [2.0]]))
    source.learn(replay, generator(0))
    assert not source.fitted
    assert set(source.propose(start, replay, generator(0))[:, 0].tolist()) <= {1.0, 2.0}


def test_the_newest_pursuits_are_remembered() -> None:
    source = IntermediateGoals(LINE, IntermediateConfig(remembered=3), generator(0))
    for goal in range(5):
        source.ended(
            Pursuits(start=starts(LINE, 1), goals=torch.full((1, 1), float(goal)), reached=torch.tensor([goal > 3]))
        )
    assert source.get_buffer("tried")[:, 1].tolist() == [3.0, 4.0, 2.0]
    assert source.get_buffer("reached").tolist() == [0.0, 1.0, 0.0]


def test_it_goes_on_exactly_from_its_state() -> None:
    source, other = learned(0), IntermediateGoals(LINE, CONFIG, generator(9))
    restore_learner(other, learner_state(source))
    for each in (source, other):
        each.learn(EpisodicReplay(LINE, 10, 1), generator(4))
    at = torch.linspace(0, 4, 9)[:, None]
    assert torch.equal(source.logit(at * 0, at), other.logit(at * 0, at))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="remembered=1 must be >= 2"):
        IntermediateConfig(remembered=1)
    with pytest.raises(ValueError, match="learning_rate=0 must be > 0"):
        IntermediateConfig(learning_rate=0)
