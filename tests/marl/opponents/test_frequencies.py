"""Counts against counting one by one, and how soon they follow a switch."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from presage.common.game import GameSpec, View
from presage.marl.opponents.frequencies import Frequencies, FrequenciesConfig
from presage.marl.opponents.moments import Moments
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.sample_games import motley, random_rows

CELLS = GameSpec(
    name="cells", obs_dim=2, agents=(discrete_agent("me", (0,), 2), discrete_agent("other", (1,), 3))
)  # fmt: skip


def seen(cells: Tensor, choices: Tensor) -> Moments:
    act = torch.cat([torch.eye(2)[torch.zeros(len(cells), dtype=torch.int64)], torch.eye(3)[choices]], 1)
    return Moments(view=View.of(CELLS, torch.stack([torch.zeros(len(cells)), cells.float()], 1)), act=act)


def chances(model: Frequencies, cell: float) -> list[float]:
    view = View.of(CELLS, torch.tensor([[0.0, cell]]))
    found: list[float] = model.predicted(view).probabilities("other")[0][0].tolist()
    return found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40), st.floats(0, 3))
def test_it_counts_as_one_would(pairs: list[tuple[int, int]], prior: float) -> None:
    model = Frequencies(CELLS, FrequenciesConfig(prior=prior))
    model.fit(seen(torch.tensor([c for c, _ in pairs]), torch.tensor([a for _, a in pairs])))
    together, often = Counter(pairs), Counter(action for _, action in pairs)
    for cell in {c for c, _ in pairs}:
        counts = [together[cell, action] + prior * often[action] / len(pairs) for action in range(3)]
        assert chances(model, cell) == pytest.approx([count / sum(counts) for count in counts], abs=1e-5)
    assert chances(model, 99.0) == pytest.approx([often[action] / len(pairs) for action in range(3)], abs=1e-5)


@pytest.mark.parametrize(("config", "steps"), [({"window": 100}, 90), ({"memory": 20.0}, 45)], ids=["window", "memory"])
def test_a_switch_is_followed_as_fast_as_the_formula_says(config: Any, steps: int) -> None:
    choices = torch.cat([torch.zeros(300, dtype=torch.int64), torch.ones(120, dtype=torch.int64)])
    model = Frequencies(CELLS, FrequenciesConfig(prior=0.0, **config))
    found = []
    for k in range(120):
        model.fit(seen(torch.zeros(300 + k), choices[: 300 + k]))
        found.append(chances(model, 0.0)[1])
    first = next(k for k, chance in enumerate(found) if chance >= 0.9 - 1e-3)
    assert first == pytest.approx(steps, abs=2)


def test_contexts_are_what_is_seen() -> None:
    cells = torch.arange(40) % 4
    moments = seen(cells, cells % 3)
    blind, sighted = (Frequencies(CELLS, FrequenciesConfig(prior=0.0, sees=sees)) for sees in ("nothing", "state"))
    blind.fit(moments)
    sighted.fit(moments)
    assert chances(blind, 1.0) == pytest.approx([0.5, 0.25, 0.25])
    assert chances(sighted, 1.0) == pytest.approx([0.0, 1.0, 0.0])
    assert chances(sighted, 1.0004) == pytest.approx([0.0, 1.0, 0.0])  # within the resolution


def test_numbers_get_the_normal_of_what_was_done() -> None:
    spec = GameSpec(name="dial", agents=(box_agent("a", (0,), 2),), obs_dim=1)
    before = torch.tensor([0.3, -0.2]) + torch.tensor([0.5, 0.1]) * torch.randn(20_000, 2, generator=generator(0))
    model = Frequencies(spec, FrequenciesConfig(sees="nothing"))
    model.fit(Moments(view=View.of(spec, torch.zeros(20_000, 1)), act=before.tanh()))
    found = model.predicted(View.of(spec, torch.ones(1, 1))).parts[0].parameters[0, 0, 0]
    wanted = torch.tensor([0.3, -0.2, math.log(0.5), math.log(0.1)])
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)


def test_any_game_can_be_counted() -> None:
    spec = motley()
    rows = random_rows(spec, 60, seed=0)
    for config in (FrequenciesConfig(), FrequenciesConfig(sees="nothing"), FrequenciesConfig(sees="state", prior=0.0)):
        model = Frequencies(spec, config)
        fresh = model.step(None, rows.view, generator(0))[1]
        spec.check_action(fresh, rows.acting)
        model.fit(rows)
        spec.check_action(model.step(None, rows.view, generator(0))[1], rows.acting)
        assert bool(model.log_prob(rows.view, rows.act)[rows.acting].isfinite().all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sees": "own"}, "sees='own' must be 'nothing', 'opponent' or 'state'"),
        ({"resolution": 0.0}, "resolution=0.0 must be > 0 and prior=1.0 >= 0"),
        ({"window": 0}, "window=0 must be >= 1 and memory=None > 0, or None"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrequenciesConfig(**change)


@pytest.mark.parametrize("sees", ["nothing", "opponent", "state"])
def test_counts_come_back_to_the_bit(sees: Any) -> None:
    spec = motley()
    model, again = (Frequencies(spec, FrequenciesConfig(sees=sees, resolution=0.5)) for _ in range(2))
    again.restore(model.state())
    seen = Moments.of(random_rows(spec, 60, seed=0))
    assert torch.equal(again.log_prob(seen.view, seen.act), model.log_prob(seen.view, seen.act))
    model.fit(seen)
    assert not torch.equal(again.log_prob(seen.view, seen.act), model.log_prob(seen.view, seen.act))
    again.restore(model.state())
    other = Moments.of(random_rows(spec, 60, seed=1))
    for moments in (seen, other):
        assert torch.equal(again.log_prob(moments.view, moments.act), model.log_prob(moments.view, moments.act))
