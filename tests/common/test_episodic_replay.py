"""The replay that knows its episodes, against lists of what was played."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from hypothesis import given

from presage.common.episodic_replay import EpisodicReplay
from presage.common.replay import Replay
from tests.common.told import Told, told_games, told_spec
from tests.common.toy import assert_same_rows


@given(told_games())
def test_spans_are_those_of_the_rows_that_are_held(told: Told) -> None:
    index = told.replay.all()
    before, after = (part.tolist() for part in told.replay.span(index))
    for place, back, ahead in zip(index.tolist(), before, after, strict=True):
        lane, episode, step = told.at(place)
        steps = told.steps(lane, episode)
        assert (back, ahead) == (step - steps[0], steps[-1] - step)


@given(told_games())
def test_shifted_rows_follow_each_other(told: Told) -> None:
    index = told.replay.all()
    span = told.replay.span(index)
    first, last = (told.replay.rows(told.replay.shifted(index, by)) for by in (-span.before, span.after))
    own = told.replay.rows(index)
    assert torch.equal(own.step - first.step, span.before.int())
    assert torch.equal(last.step - own.step, span.after.int())
    assert torch.equal(own.obs - own.step[:, None], last.obs - last.step[:, None])


@given(told_games())
def test_what_was_achieved_and_pursued_is_read_row_by_row_and_entry_by_entry(told: Told) -> None:
    index = told.replay.all()
    rows = told.replay.rows(index)
    assert torch.equal(told.replay.achieved_after(index[:, None]), rows.next_achieved)
    assert torch.equal(told.replay.pursued(index[:, None]), rows.desired)
    many = index[:, None].expand(-1, told.spec.goal_dim)
    assert torch.equal(told.replay.achieved_after(many), rows.next_achieved)


@given(told_games())
def test_a_loaded_replay_knows_the_same_episodes_and_goes_on_with_them(told: Told) -> None:
    old = told.replay
    with tempfile.TemporaryDirectory() as folder:
        saved = json.loads(json.dumps(old.save(Path(folder))))
        new = EpisodicReplay(told.spec, old.slots * old.lanes, old.lanes)
        new.load(Path(folder), saved)
    rest = Told(told.spec, new, told.lengths)
    rest.played = [list(lane) for lane in told.played]
    for side in (told, rest):
        side.play([5] * old.lanes)
    index = old.all()
    assert_same_rows(new.rows(index), old.rows(index))
    for mine, theirs in zip(new.span(index), old.span(index), strict=True):
        assert torch.equal(mine, theirs)


def test_an_episode_whose_beginning_is_overwritten_is_known_to_its_end() -> None:
    spec = told_spec(1, True)
    told = Told(spec, EpisodicReplay(spec, 6, 1), [[4, 3]])
    told.play([7])
    span = told.replay.span(told.replay.all())
    assert span.before.tolist() == [0, 1, 2, 0, 1, 2]
    assert span.after.tolist() == [2, 1, 0, 2, 1, 0]


def test_it_keeps_one_number_more_for_every_row_than_a_plain_replay() -> None:
    spec = told_spec(2, False)
    assert EpisodicReplay(spec, 40, 2).nbytes == Replay(spec, 40, 2).nbytes + 40 * 4
