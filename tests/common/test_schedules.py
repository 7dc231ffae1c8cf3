"""The length ramp against MBPO's and AORPO's released schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from math import floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presage.common.schedules import LengthRamp

# (longest, first epoch, last epoch, epochs in all) of the launch script
NAVIGATION, SPEAKER_LISTENER, SCHEDULING = (15, 5, 25, 100), (10, 3, 25, 40), (10, 5, 25, 50)
Task = tuple[int, int, int, int]


def expand(spans: str, epochs: int) -> dict[int, int]:
    """ "0-6:1 7:6 25-:15" as {epoch: length}."""
    lengths: dict[int, int] = {}
    for span in spans.split():
        where, _, length = span.partition(":")
        first, dash, last = where.partition("-")
        until = int(last) if last else (epochs - 1 if dash else int(first))
        lengths |= dict.fromkeys(range(int(first), until + 1), int(length))
    return lengths


def model_events(epochs: int) -> Iterator[int]:
    """The epoch of every event at which AORPO's released code imagines, replayed from its counters.

    15 copies step together, 25 steps make 15 episodes, 20 of these an epoch; an event falls due whenever 100 more env
    steps are done, and imagines from episode 1500 on.
    """
    env_steps = 0
    for batch in range(epochs * 20):
        for _ in range(25):
            before, env_steps = env_steps, env_steps + 15
            if before // 100 < env_steps // 100 and 15 * (batch + 1) >= 1500:
                yield batch // 20


def test_mbpo_hopper_ramp() -> None:
    ramp = LengthRamp(start_epoch=20, end_epoch=150, start=1, end=15)
    assert [ramp.at(epoch) for epoch in (0, 20, 85, 149, 150, 300)] == [1, 1, 8, 14, 15, 15]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (NAVIGATION, {5: 1, 7: 2, 10: 4, 15: 8, 20: 11, 25: 15}),
        (SPEAKER_LISTENER, {3: 1, 6: 2, 10: 3, 15: 5, 20: 7, 25: 10}),
        (SCHEDULING, {5: 1, 10: 3, 15: 5, 20: 7, 25: 10}),
    ],
)
def test_aorpo_ramps_as_intended(task: Task, expected: dict[int, int]) -> None:
    longest, first, last, _ = task
    ramp = LengthRamp(start_epoch=first, end_epoch=last, start=1, end=longest)
    assert {epoch: ramp.at(epoch) for epoch in expected} == expected


@pytest.mark.parametrize(
    ("task", "events", "spans"),
    [
        (NAVIGATION, 7129, "0-6:1 7:6 8:9 9:11 10-11:12 12-14:13 15-24:14 25-:15"),
        (SPEAKER_LISTENER, 2629, "0-5:1 6:3 7:5 8:6 9-10:7 11-13:8 14-24:9 25-:10"),
        (SCHEDULING, 3379, "0-7:1 8:4 9:6 10-11:7 12-14:8 15-24:9 25-:10"),
    ],
)
def test_aorpo_ramps_with_feedback_as_released(task: Task, events: int, spans: str) -> None:
    longest, first, last, epochs = task
    ramp = LengthRamp(start_epoch=first, end_epoch=last, start=1, end=longest, feedback=True)
    length, count, at_end = 1, 0, dict.fromkeys(range(epochs), 1)
    for epoch in model_events(epochs):
        length, count = ramp.at(epoch, length), count + 1
        at_end[epoch] = length
    assert count == events
    assert at_end == expand(spans, epochs)


@given(
    epoch=st.integers(0, 60), first=st.integers(0, 30), more=st.integers(1, 30), start=st.integers(0, 30),
    end=st.integers(0, 30),
)  # fmt: skip
def test_ramp_is_the_line_rounded_down(epoch: int, first: int, more: int, start: int, end: int) -> None:
    ramp = LengthRamp(start_epoch=first, end_epoch=first + more, start=start, end=end)
    share = min(max(Fraction(epoch - first, more), Fraction(0)), Fraction(1))
    assert ramp.at(epoch) == floor(start + share * (end - start))


@given(
    epoch=st.integers(0, 60), first=st.integers(0, 30), more=st.integers(1, 30), start=st.integers(0, 15),
    rest=st.integers(0, 15), climbed=st.integers(0, 15),
)  # fmt: skip
def test_feedback_is_the_released_formula(
    epoch: int, first: int, more: int, start: int, rest: int, climbed: int
) -> None:
    end, current = start + rest, start + min(climbed, rest)
    ramp = LengthRamp(start_epoch=first, end_epoch=first + more, start=start, end=end, feedback=True)
    raised = current + Fraction(epoch - first, more) * (end - current)
    assert ramp.at(epoch, current) == int(min(Fraction(end), max(Fraction(current), raised)))


def test_a_ramp_without_width_jumps() -> None:
    ramp = LengthRamp(start_epoch=4, end_epoch=4, start=1, end=5)
    assert [ramp.at(epoch) for epoch in (3, 4, 5)] == [1, 5, 5]


def test_without_feedback_the_current_number_plays_no_part() -> None:
    ramp = LengthRamp(start_epoch=20, end_epoch=150, start=1, end=15)
    assert ramp.at(85, current=14) == ramp.at(85)


def ramp(**changed: Any) -> LengthRamp:
    return LengthRamp(**({"start_epoch": 20, "end_epoch": 150, "start": 1, "end": 15} | changed))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(ramp, start_epoch=-1), "start_epoch=-1"),
        (partial(ramp, end_epoch=19), "start_epoch=20 <= end_epoch=19"),
        (partial(ramp, start=-2), "start=-2"),
        (partial(ramp, end=0, feedback=True), "start=1 above end=0"),
        (lambda: ramp().at(-1), "epoch=-1"),
        (lambda: ramp(feedback=True).at(30), "current=None"),
        (lambda: ramp(feedback=True).at(30, 16), "current=16"),
    ],
)
def test_contradictions_are_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
