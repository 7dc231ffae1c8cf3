"""Which rows are held out and resampled: persistent, whole stretches, and right in their frequencies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.game import ALL_AGENTS
from presage.common.holdout import Numbered, Split, uniform_by_number
from tests.common.toy import generator


def alone(size: int) -> Numbered:
    """Rows of one long episode that all agents share, each a stretch of its own."""
    ego = torch.full((size,), ALL_AGENTS)
    return Numbered.of(ego, torch.arange(size), lanes=1, first=0, length=1)


def played(lanes: int, times: int, seed: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Steps `(times * lanes)` of episodes that end at random, ordered by time, then lane; and each row's episode."""
    rng = generator(seed)
    clock, episode = [0] * lanes, [0] * lanes
    step: list[int] = []
    which: list[tuple[int, int]] = []
    for _ in range(times):
        for lane in range(lanes):
            step.append(clock[lane])
            which.append((lane, episode[lane]))
            over = float(torch.rand(1, generator=rng)) < 0.2
            clock[lane] = 0 if over else clock[lane] + 1
            episode[lane] += over
    return torch.tensor(step, dtype=torch.int32), which


def test_numbers_are_hashed_evenly_and_independently() -> None:
    number = torch.arange(20_000)
    chance = uniform_by_number(number, 7)
    counts = torch.histc(chance, 20, 0.0, 1.0)
    assert (counts - 1000).abs().max() < 5 * 1000**0.5
    for other in (uniform_by_number(number, 8), uniform_by_number(number + 1, 7)):
        assert abs(torch.corrcoef(torch.stack([chance, other]))[0, 1].item()) < 0.03
    assert torch.equal(uniform_by_number(number[5000:], 7), chance[5000:])


@settings(max_examples=25, deadline=None)
@given(lanes=st.integers(1, 4), times=st.integers(5, 40), length=st.integers(1, 9), seed=st.integers(0, 50))
def test_stretches_are_those_of_every_lanes_episodes(lanes: int, times: int, length: int, seed: int) -> None:
    step, which = played(lanes, times, seed)
    rows = Numbered.of(torch.full_like(step, ALL_AGENTS), step, lanes, first=3, length=length)
    wanted: dict[tuple[int, int, int], int] = {}
    for row, (lane, episode) in enumerate(which):
        key = (lane, episode, int(step[row]) // length)
        wanted.setdefault(key, int(rows.stretch[row]))
        assert wanted[key] == rows.stretch[row]
    assert len(set(wanted.values())) == len(wanted), "different stretches have different numbers"
    later = Numbered.of(rows.ego[4 * lanes :], step[4 * lanes :], lanes, first=7, length=length)
    assert torch.equal(later.number, rows.number[4 * lanes :]), "rows keep their number when older ones are forgotten"
    assert torch.equal(later.stretch, rows.stretch[4 * lanes :])


@settings(max_examples=25, deadline=None)
@given(lanes=st.integers(1, 3), times=st.integers(10, 60), share=st.floats(0.1, 0.5), seed=st.integers(0, 50))
def test_the_share_is_held_out_stretch_by_stretch(lanes: int, times: int, share: float, seed: int) -> None:
    step, _ = played(lanes, times, seed)
    rows = Numbered.of(torch.full_like(step, ALL_AGENTS), step, lanes, first=0, length=100)
    split = Split.of(rows, owners=1, share=share, most=1000, salt=seed)
    (train,), (held_out,) = split.train, split.held_out
    assert len(held_out) == int(share * len(step))
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(len(step)))
    assert len(set(rows.stretch[train].tolist()) & set(rows.stretch[held_out].tolist())) <= 1, "one is cut to size"


def test_few_rows_change_sides_as_data_grow_and_the_cap_holds() -> None:
    before = Split.of(alone(4000), 1, 0.2, 5000, 3)
    after = Split.of(alone(5000), 1, 0.2, 5000, 3)
    trained, held = set(before.train[0].tolist()), set(after.held_out[0].tolist())
    assert len(trained & held) < 50, "a fresh split would hold out 640 of them"
    assert len(Split.of(alone(5000), 1, 0.2, 300, 3).held_out[0]) == 300
    assert set(Split.of(alone(4000), 1, 0.2, 5000, 4).held_out[0].tolist()) != set(before.held_out[0].tolist())


def test_owners_have_their_own_rows_and_those_of_all() -> None:
    ego = torch.tensor([0, 1, ALL_AGENTS] * 50)
    rows = Numbered.of(ego, torch.arange(150), 1, 0, 1)
    split = Split.of(rows, owners=2, share=0.25, most=1000, salt=0)
    for owner in range(2):
        own = torch.cat([split.train[owner], split.held_out[owner]]).sort().values
        assert torch.equal(own, ((ego == owner) | (ego == ALL_AGENTS)).nonzero().flatten())
    index, weights = split.scored(members=3)
    assert index.shape == weights.shape == (6, 25)
    assert set(index[0].tolist()) == set(split.held_out[0].tolist())
    assert torch.equal(index[0], index[2])


def test_owners_with_fewer_held_out_rows_do_not_count_some_twice() -> None:
    ego = torch.tensor([0] * 100 + [1] * 40)
    split = Split.of(Numbered.of(ego, torch.arange(140), 1, 0, 1), 2, 0.25, 1000, 0)
    index, weights = split.scored(members=1)
    assert weights.sum(1).tolist() == [25, 10]
    assert sorted(index[1][weights[1] > 0].tolist()) == sorted(split.held_out[1].tolist())


def test_a_bootstrap_counts_rows_as_poisson_does_and_stays_as_it_is() -> None:
    rows = alone(6000)
    split = Split.of(rows, 1, 0.2, 5000, 1)
    drawn = split.resamples(rows, members=3, salt=1, bootstrap=True)
    train = split.train[0]
    for m in range(3):
        length = int(torch.unique(drawn[m], return_counts=True)[1].sum())
        assert length == drawn.shape[1]
        times = torch.bincount(drawn[m], minlength=6000)[train].float()
        assert times.mean().item() == pytest.approx(1.0, abs=0.05)
        assert times.var().item() == pytest.approx(1.0, abs=0.1)
        assert (times == 0).float().mean().item() == pytest.approx(0.368, abs=0.03)
        assert set(drawn[m].tolist()) <= set(train.tolist())
    assert not torch.equal(drawn[0], drawn[1])
    fewer = alone(3000)
    half = Split.of(fewer, 1, 0.2, 5000, 1)
    both = torch.tensor(sorted(set(half.train[0].tolist()) & set(train.tolist())))
    early = half.resamples(fewer, members=3, salt=1, bootstrap=True)
    for m in range(3):
        one, two = (torch.bincount(part[m], minlength=6000)[both] > 0 for part in (early, drawn))
        assert torch.equal(one, two), "a member keeps the rows that it has once drawn"


def test_without_bootstrap_every_member_has_all_training_rows() -> None:
    rows = alone(50)
    split = Split.of(rows, 1, 0.2, 5000, 1)
    drawn = split.resamples(rows, members=2, salt=1, bootstrap=False)
    assert all(torch.equal(own, split.train[0]) for own in drawn)


def test_too_few_rows_are_refused_with_what_is_needed() -> None:
    with pytest.raises(ValueError, match=r"4 rows are too few.*holdout=0.2.*at least 6"):
        Split.of(alone(4), 1, 0.2, 5000, 0)
    ego = torch.tensor([0] * 20 + [1])
    with pytest.raises(ValueError, match="1 rows of owner 1 are too few"):
        Split.of(Numbered.of(ego, torch.arange(21), 1, 0, 1), 2, 0.2, 5000, 0)
