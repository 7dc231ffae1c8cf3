"""Streams are independent of each other, of the order in which they are asked for, and of nothing but seed and name."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from presage.common.streams import streams

NAMES = ("learner", "update", "ensemble", "holdout", "opponents", "teammates", "act", "fit", "imagine", "sample")


@given(st.integers(0, 2**63), st.text(max_size=12))
def test_seed_and_name_decide(seed: int, name: str) -> None:
    one, two = streams(seed)(name), streams(seed)(name)
    assert torch.equal(torch.randn(8, generator=one), torch.randn(8, generator=two))


def test_every_call_begins_the_stream_anew_and_leaves_the_others_alone() -> None:
    make = streams(3)
    first = make("act")
    start = torch.rand(4, generator=first)
    torch.rand(1_000, generator=make("fit"))
    assert torch.equal(torch.rand(4, generator=make("act")), start)
    assert not torch.equal(torch.rand(4, generator=first), start)


def test_streams_of_different_names_or_seeds_differ_and_do_not_correlate() -> None:
    drawn = {
        (seed, name): torch.rand(2_000, generator=streams(seed)(name)).numpy() for seed in (0, 1, 2) for name in NAMES
    }
    for one, two in combinations(drawn.values(), 2):
        assert abs(np.corrcoef(one, two)[0, 1]) < 5 / 2_000**0.5


def test_names_with_the_same_letters_are_different_streams() -> None:
    starts = {tuple(torch.rand(3, generator=streams(0)(name)).tolist()) for name in ("ab", "ba", "a", "b", "aab", "")}
    assert len(starts) == 6


def test_a_stream_is_made_where_all_are_unless_another_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[torch.device | str] = []
    real = torch.Generator

    def note(device: torch.device | str) -> torch.Generator:
        places.append(device)
        return real()

    monkeypatch.setattr(torch, "Generator", note)
    make = streams(0, "cuda")
    one, two = make("learner"), make("learner", "cpu")
    assert places == ["cuda", "cpu"]
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=two))


def test_the_global_generators_stay_where_they_are() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index] # numpy's two return types
    torch.rand(3, generator=streams(0)("act"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index] # as above
