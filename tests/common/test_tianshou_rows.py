"""Rows read out of tianshou's buffers, against lists of what was put in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tianshou.data import Batch, ReplayBuffer, VectorReplayBuffer

from presage.common.game import GameError, Rows, concatenate
from presage.common.tianshou_rows import BufferReader
from tests.common.toy import PLAIN, assert_same_rows, generator, random_rows


class Feeder:
    """Puts random transitions into a tianshou buffer and remembers them, lane by lane."""

    def __init__(self, buffer: ReplayBuffer, lanes: int) -> None:
        self.buffer, self.rng = buffer, generator(0)
        self.steps = [0] * lanes
        self.added: list[list[Rows]] = [[] for _ in range(lanes)]

    def add(self, lanes: list[int], done: bool) -> None:
        rows = random_rows(PLAIN, len(lanes), self.rng)
        ends = torch.full((len(lanes),), done)
        steps = torch.tensor([self.steps[lane] for lane in lanes], dtype=torch.int32)
        rows = rows.with_(truncated=ends, step=steps)
        terminated = np.zeros(len(lanes), dtype=bool)
        batch = Batch(
            obs=rows.obs.numpy(), act=rows.act.numpy(), rew=rows.reward.numpy(), terminated=terminated,
            truncated=ends.numpy(), done=ends.numpy(), obs_next=rows.next_obs.numpy(),
        )  # fmt: skip
        if isinstance(self.buffer, VectorReplayBuffer):
            self.buffer.add(batch, buffer_ids=lanes)
        else:
            self.buffer.add(batch[0])
        for k, lane in enumerate(lanes):
            self.added[lane].append(rows[k : k + 1])
            self.steps[lane] = 0 if done else self.steps[lane] + 1


def check(found: list[Rows], feeder: Feeder, since: list[int]) -> None:
    """`found` is what every lane got since it had that many rows."""
    wanted = [concatenate(rows[past:]) for rows, past in zip(feeder.added, since, strict=True) if rows[past:]]
    assert len(found) == len(wanted)
    for one, two in zip(found, wanted, strict=True):
        assert_same_rows(one, two)


@settings(max_examples=40)
@given(
    st.integers(1, 3),
    st.lists(st.lists(st.tuples(st.booleans(), st.integers(1, 7)), max_size=5), min_size=1, max_size=8),
)
def test_every_transition_is_read_once_and_in_order(lanes: int, rounds: list[list[tuple[bool, int]]]) -> None:
    buffer = VectorReplayBuffer(6 * lanes, lanes)
    reader, feeder = BufferReader(PLAIN, buffer, 100 * lanes, "cpu"), Feeder(buffer, lanes)
    for added in rounds:  # at most 5 of each lane, which holds 6
        since = [len(rows) for rows in feeder.added]
        for done, who in added:
            feeder.add([lane for lane in range(lanes) if who >> lane & 1] or [0], done)
        check(reader.new_rows(buffer), feeder, since)
    assert reader.new_rows(buffer) == []
    assert reader.replay.totals == [len(rows) for rows in feeder.added]
    if all(feeder.added):
        index, first = reader.replay.complete()
        times = range(min(reader.replay.totals))
        assert first == 0
        assert_same_rows(
            reader.replay.rows(index), concatenate([feeder.added[lane][t] for t in times for lane in range(lanes)])
        )


def test_a_plain_buffer_is_one_lane() -> None:
    buffer = ReplayBuffer(5)
    reader, feeder = BufferReader(PLAIN, buffer, 10, "cpu"), Feeder(buffer, 1)
    assert reader.new_rows(buffer) == []
    for _ in range(5):
        feeder.add([0], False)
    check(reader.new_rows(buffer), feeder, [0])  # full to the brim


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("added", [5, 6, 12])
def test_rows_that_were_overwritten_before_they_were_read_are_an_error(before: int, added: int) -> None:
    buffer = ReplayBuffer(5)
    reader, feeder = BufferReader(PLAIN, buffer, 10, "cpu"), Feeder(buffer, 1)
    for _ in range(before):
        feeder.add([0], False)
    reader.new_rows(buffer)
    for _ in range(added + (before == 0)):
        feeder.add([0], False)
    with pytest.raises(GameError, match="overwritten before it was read"):
        reader.new_rows(buffer)


def test_as_many_new_rows_as_fit_beside_the_last_one_are_read() -> None:
    buffer = ReplayBuffer(5)
    reader, feeder = BufferReader(PLAIN, buffer, 20, "cpu"), Feeder(buffer, 1)
    for _ in range(3):
        feeder.add([0], True)
    reader.new_rows(buffer)
    for _ in range(4):
        feeder.add([0], False)
    check(reader.new_rows(buffer), feeder, [3])


def test_a_buffer_that_was_emptied_is_an_error() -> None:
    buffer = ReplayBuffer(5)
    reader, feeder = BufferReader(PLAIN, buffer, 10, "cpu"), Feeder(buffer, 1)
    for _ in range(3):
        feeder.add([0], False)
    reader.new_rows(buffer)
    buffer.reset()
    with pytest.raises(GameError, match="emptied"):
        reader.new_rows(buffer)


def test_a_buffer_without_next_observations_is_refused() -> None:
    with pytest.raises(GameError, match="ignore_obs_next=False"):
        BufferReader(PLAIN, ReplayBuffer(5, ignore_obs_next=True), 10, "cpu")
