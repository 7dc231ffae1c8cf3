"""The ledger against counts made one branch, one step and one opponent at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from presage.common.ledger import Ledger, normalised_opponent_samples


def test_a_real_step_costs_one_env_step_and_shows_each_ego_all_others() -> None:
    ledger = Ledger(agents=3)
    ledger.add_real_steps(torch.ones(1, 3, dtype=torch.bool))
    assert ledger.env_steps == 1
    assert ledger.seen.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert ledger.seen.sum(1).tolist() == [2, 2, 2]  # N - 1 opponent samples for each ego
    assert ledger.opponent_queries == 0
    assert ledger.opponent_samples == 6


@given(data=st.data(), agents=st.integers(1, 4), rows=st.lists(st.integers(0, 5), max_size=4))
def test_seen_actions_are_counted_row_by_row(data: st.DataObject, agents: int, rows: list[int]) -> None:
    egos = data.draw(st.permutations(range(agents)))[: data.draw(st.integers(1, agents))]
    ledger = Ledger(agents, egos)
    expected = [[0] * agents for _ in egos]
    for size in rows:
        flags = data.draw(
            st.lists(st.lists(st.booleans(), min_size=agents, max_size=agents), min_size=size, max_size=size)
        )
        ledger.add_real_steps(torch.tensor(flags, dtype=torch.bool).reshape(size, agents))
        for acting in flags:
            for row, ego in enumerate(egos):
                for agent in range(agents):
                    expected[row][agent] += agent != ego and acting[agent]
    assert ledger.env_steps == sum(rows)
    assert ledger.seen.tolist() == expected


def test_queries_add_up_apart_from_seen_actions() -> None:
    ledger = Ledger(agents=3, egos=(2, 0))
    ledger.add_real_steps(torch.tensor([[True, False, True], [True, True, True]]))
    ledger.add_queries(torch.tensor([[7, 1, 0], [0, 2, 4]]))
    ledger.add_queries(torch.tensor([[1, 0, 0], [0, 0, 3]], dtype=torch.int32))
    assert ledger.queries.tolist() == [[8, 1, 0], [0, 2, 7]]
    assert ledger.seen.tolist() == [[2, 1, 0], [0, 1, 2]]
    assert ledger.opponent_queries == 18
    assert ledger.opponent_samples == 24


def test_counts_do_not_overflow_or_round() -> None:
    ledger = Ledger(agents=2)
    many = 2**31 - 1
    for _ in range(3):
        ledger.add_queries(torch.tensor([[0, many], [1, 0]], dtype=torch.int32))
    assert ledger.queries.tolist() == [[0, 3 * many], [3, 0]]


def test_a_lone_agent_asks_nobody() -> None:
    ledger = Ledger(agents=1)
    ledger.add_real_steps(torch.ones(25, 1, dtype=torch.bool))
    ledger.add_queries(torch.zeros(1, 1, dtype=torch.int64))
    assert (ledger.env_steps, ledger.opponent_samples) == (25, 0)


def test_state_survives_json_and_counting_goes_on() -> None:
    ledger = Ledger(agents=2)
    ledger.add_real_steps(torch.ones(4, 2, dtype=torch.bool))
    ledger.add_queries(torch.tensor([[0, 5], [2**40, 0]]))
    stored = json.loads(json.dumps(ledger.state()))
    resumed = Ledger(agents=2)
    resumed.restore(stored)
    for each in (ledger, resumed):
        each.add_real_steps(torch.tensor([[True, False]]))
        each.add_queries(torch.tensor([[0, 1], [1, 0]]))
    assert resumed.state() == ledger.state()
    assert resumed.env_steps == 5
    assert resumed.queries.tolist() == [[0, 6], [2**40 + 1, 0]]
    assert resumed.seen.tolist() == [[0, 4], [5, 0]]


def test_a_state_is_not_tied_to_the_ledger_it_came_from() -> None:
    ledger = Ledger(agents=2)
    before = ledger.state()
    ledger.add_queries(torch.tensor([[0, 1], [1, 0]]))
    assert before["queries"] == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(Ledger, 3, (0, 3)), r"egos=\[0, 3\] .*0\.\.2"),
        (partial(Ledger, 3, (1, 1)), r"egos=\[1, 1\]"),
        (lambda: Ledger(3).add_real_steps(torch.ones(4, 2, dtype=torch.bool)), r"\(B, 3\).*\(4, 2\)"),
        (lambda: Ledger(3).add_real_steps(torch.ones(4, 3)), r"bool.*float32"),
        (lambda: Ledger(2).add_queries(torch.zeros(2, 2)), r"integers.*float32"),
        (lambda: Ledger(2).add_queries(torch.zeros(2, 3, dtype=torch.int64)), r"\(2, 2\), got torch.int64 .*\(2, 3\)"),
        (lambda: Ledger(2).add_queries(torch.tensor([[0, -4], [0, 0]])), "ego 0 reports -4 queries to agent 1"),
        (lambda: Ledger(2, (1,)).add_queries(torch.tensor([[0, 6]])), "ego 1 reports 6 queries to agent 1"),
        (lambda: Ledger(2).restore(Ledger(3).state()), r"queries are \(3, 3\), this run's \(2, 2\)"),
    ],
)
def test_wrong_counts_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@given(data=st.data(), agents=st.integers(1, 4), episodes=st.integers(0, 30_000), length=st.integers(1, 100))
def test_normalised_samples_by_a_loop(data: st.DataObject, agents: int, episodes: int, length: int) -> None:
    sizes = st.lists(st.integers(1, 40), min_size=agents, max_size=agents)
    inputs, actions = data.draw(sizes, label="inputs"), data.draw(sizes, label="actions")
    counts = [[data.draw(st.integers(0, 10**7)) if i != j else 0 for j in range(agents)] for i in range(agents)]
    whole = sum(inputs) + sum(actions)
    spent = 0.0
    for i in range(agents):
        for j in range(agents):
            spent += counts[i][j] * (inputs[j] + actions[j]) / whole
    found = normalised_opponent_samples(torch.tensor(counts), inputs, actions, episodes, length)
    assert found == pytest.approx(episodes + spent / length)


def test_normalised_samples_of_cooperative_navigation() -> None:
    # Three alike agents: input 18 + 2 * 5 predicted actions, output 5; each query is a third of an env step's worth.
    queries = torch.tensor([[0, 1024, 3072], [1024, 0, 0], [0, 0, 0]])
    assert normalised_opponent_samples(queries, (28, 28, 28), (5, 5, 5), 1500, 25) == pytest.approx(1500 + 5120 / 75)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input_sizes": (18,)}, r"2 agents .*\(18,\)"),
        ({"action_sizes": (5, 0)}, r"\(5, 0\)"),
        ({"episodes": -1}, "episodes=-1"),
        ({"episode_length": 0}, "episode_length=0"),
    ],
)
def test_normalised_samples_refuse_other_sizes(changed: dict[str, Any], message: str) -> None:
    given_: dict[str, Any] = {"input_sizes": (18, 18), "action_sizes": (5, 5), "episodes": 1, "episode_length": 25}
    with pytest.raises(ValueError, match=message):
        normalised_opponent_samples(torch.zeros(2, 2, dtype=torch.int64), **(given_ | changed))
