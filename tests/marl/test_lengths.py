"""The length rules and the table of who answers, against fixed values, properties and step-by-step loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from presage.common.answers import Answer
from presage.common.ledger import Ledger
from presage.marl.lengths import (
    LengthRule,
    Switch,
    error_from_nll,
    other_agents,
    rollout_lengths,
    uses_model,
    weighted_accuracy,
    who_answers,
)

UNKNOWN: Any = "unknown"


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("rule", "horizon", "scores", "expected"),
    [
        ("error_ratio", 10, (0.1, 0.2), (10, 5)),
        ("error_ratio", 7, (0.1, 0.1, 0.1), (7, 7, 7)),
        ("error_ratio", 10, (0.05, 0.5, 0.051), (10, 1, 9)),
        ("error_ratio", 6, (0.2, 0.3, 0.6), (6, 4, 2)),
        ("error_ratio", 15, (0.3,), (15,)),
        ("error_ratio", 10, (), ()),
        ("error_ratio", 0, (0.1, 0.2), (0, 0)),
        ("error_ratio", 5, (0.06, 0.1), (5, 3)),
        ("error_ratio", 15, (0.05, 0.10), (15, 7)),
        ("error_ratio", 10, (0.0, 0.1, 0.0), (10, 0, 10)),
        ("error_ratio", 10, (0.0, 1e-6, 2e-6), (10, 10, 5)),
        ("accuracy_ratio", 10, (0.9, 0.8), (10, 8)),
        ("accuracy_ratio_squared", 10, (0.9, 0.8), (10, 7)),
        ("accuracy_ratio", 6, (0.9, 0.45), (6, 3)),
        ("accuracy_ratio_squared", 6, (0.9, 0.45), (6, 1)),
        ("accuracy_ratio", 15, (0.9, 0.45), (15, 7)),
        ("accuracy_ratio", 15, (0.95, 0.90), (15, 14)),
        ("accuracy_ratio_squared", 15, (0.95, 0.90), (15, 13)),
        ("accuracy_ratio", 10, (0.0, 0.5), (0, 10)),
        ("accuracy_ratio", 10, (0.0, 0.0), (10, 10)),
        ("accuracy_ratio", 10, (), ()),
        ("uniform", 10, (0.1, 0.9), (10, 10)),
        ("uniform", 10, (), ()),
        ("ask_always", 10, (0.1, 0.9), (0, 0)),
    ],
)
def test_lengths_have_the_values_computed_by_hand(
    rule: LengthRule, horizon: int, scores: tuple[float, ...], expected: tuple[int, ...], dtype: torch.dtype
) -> None:
    lengths = rollout_lengths(rule, horizon, torch.tensor(scores, dtype=dtype))
    assert lengths.dtype == torch.int64
    assert lengths.tolist() == list(expected)


def test_the_guard_is_what_saves_exact_ratios() -> None:
    assert math.floor(5 * 0.06 / 0.1) == 2
    assert rollout_lengths("error_ratio", 5, double(0.06, 0.1)).tolist() == [5, 3]
    assert rollout_lengths("error_ratio", 5, double(0.06 * (1 - 1e-10), 0.1)).tolist() == [5, 3]
    assert rollout_lengths("error_ratio", 5, double(0.06 * (1 - 1e-9), 0.1)).tolist() == [5, 2]


def test_each_ego_measures_against_its_own_best_opponent() -> None:
    nan = math.nan
    errors = torch.tensor([[nan, 0.1, 0.2], [0.3, nan, 0.1], [0.5, 0.5, nan]], dtype=torch.float64)
    expected = [[0, 10, 5], [3, 0, 10], [10, 10, 0]]
    assert rollout_lengths("error_ratio", 10, errors, other_agents(3)).tolist() == expected
    errors.fill_diagonal_(0.0)  # whatever stands for the ego itself is not read
    assert rollout_lengths("error_ratio", 10, errors, other_agents(3)).tolist() == expected
    accuracies = torch.tensor([[1.0, 0.4, 0.2], [0.9, 1.0, 0.3]], dtype=torch.float64)
    some = other_agents(3, torch.tensor([0, 1]))
    assert rollout_lengths("accuracy_ratio", 10, accuracies, some).tolist() == [[0, 10, 5], [10, 0, 3]]
    assert rollout_lengths("uniform", 10, accuracies, some).tolist() == [[0, 10, 10], [10, 0, 10]]


@pytest.mark.parametrize("rule", ["error_ratio", "accuracy_ratio", "accuracy_ratio_squared", "uniform", "ask_always"])
def test_a_lone_agent_has_no_lengths(rule: LengthRule) -> None:
    assert rollout_lengths(rule, 10, torch.full((1, 1), math.nan), other_agents(1)).tolist() == [[0]]
    assert rollout_lengths(rule, 10, torch.empty(3, 0)).shape == (3, 0)


def test_at_least_one_step_is_an_option() -> None:
    errors = torch.tensor([[math.nan, 0.01, 0.9]])
    opponents = torch.tensor([[False, True, True]])
    assert rollout_lengths("error_ratio", 10, errors, opponents).tolist() == [[0, 10, 0]]
    assert rollout_lengths("error_ratio", 10, errors, opponents, at_least_one=True).tolist() == [[0, 10, 1]]
    assert rollout_lengths("error_ratio", 0, errors, opponents, at_least_one=True).tolist() == [[0, 0, 0]]


thousandths = st.integers(1, 1000).map(lambda i: i / 1000)
errors_of_several = st.lists(thousandths, min_size=1, max_size=6)


@given(errors=errors_of_several, horizon=st.integers(0, 40), scale=st.sampled_from([1e-2, 0.3, 1 / 3, 7.0, 1e3]))
def test_only_relative_errors_matter(errors: list[float], horizon: int, scale: float) -> None:
    lengths = rollout_lengths("error_ratio", horizon, double(*errors))
    assert torch.equal(rollout_lengths("error_ratio", horizon, double(*errors) * scale), lengths)


@given(data=st.data(), errors=errors_of_several, horizon=st.integers(0, 40))
def test_opponents_may_come_in_any_order(data: st.DataObject, errors: list[float], horizon: int) -> None:
    order = torch.tensor(data.draw(st.permutations(range(len(errors)))))
    for rule in ("error_ratio", "accuracy_ratio", "accuracy_ratio_squared"):
        lengths = rollout_lengths(rule, horizon, double(*errors))
        assert torch.equal(rollout_lengths(rule, horizon, double(*errors)[order]), lengths[order])


@given(errors=errors_of_several, horizon=st.integers(0, 40))
def test_no_opponent_costs_more_than_the_best_modelled(errors: list[float], horizon: int) -> None:
    scores = double(*errors)
    lengths = rollout_lengths("error_ratio", horizon, scores)
    assert int(lengths.max()) == horizon
    budget, guard = horizon * min(errors), 1e-9
    assert bool((lengths * scores <= budget + guard).all())
    assert bool(((lengths + 1) * scores > budget - guard).all())  # and none could run longer
    assert float((lengths * scores).sum()) <= len(errors) * budget + len(errors) * guard


@given(errors=errors_of_several, horizon=st.integers(0, 40), which=st.integers(0, 5), worse=thousandths)
def test_a_worse_model_never_runs_longer(errors: list[float], horizon: int, which: int, worse: float) -> None:
    which %= len(errors)
    assume(errors.index(min(errors)) != which)  # the best opponent stays as it is
    raised = [error + worse if i == which else error for i, error in enumerate(errors)]
    before = rollout_lengths("error_ratio", horizon, double(*errors))
    after = rollout_lengths("error_ratio", horizon, double(*raised))
    assert int(after[which]) <= int(before[which])
    kept = torch.arange(len(errors)) != which
    assert torch.equal(after[kept], before[kept])


@given(accuracies=errors_of_several, horizon=st.integers(0, 40))
def test_accuracy_rules_are_error_ratios_of_inverse_accuracies(accuracies: list[float], horizon: int) -> None:
    scores = double(*accuracies)
    plain = rollout_lengths("accuracy_ratio", horizon, scores)
    assert torch.equal(plain, rollout_lengths("error_ratio", horizon, 1 / scores))
    squared = rollout_lengths("accuracy_ratio_squared", horizon, scores)
    assert torch.equal(squared, rollout_lengths("error_ratio", horizon, 1 / scores**2))
    assert int(plain.max()) == int(squared.max()) == horizon
    assert bool((squared <= plain).all())


@given(data=st.data(), agents=st.integers(1, 4), horizon=st.integers(0, 12))
def test_egos_are_independent_rows(data: st.DataObject, agents: int, horizon: int) -> None:
    errors = double(*data.draw(st.lists(thousandths, min_size=agents**2, max_size=agents**2))).reshape(agents, agents)
    table = rollout_lengths("error_ratio", horizon, errors, other_agents(agents))
    for ego in range(agents):
        others = [agent for agent in range(agents) if agent != ego]
        assert torch.equal(table[ego, others], rollout_lengths("error_ratio", horizon, errors[ego, others]))
        assert int(table[ego, ego]) == 0


# ---------------------------------------------------------------- who answers


def played(lengths: tuple[int, ...], horizon: int, switch: Switch) -> list[list[int]]:
    """Stub opponents seen by an ego that comes last: 0 where the model answers, 1 where the real one does."""
    table = who_answers(torch.tensor([[*lengths, 0]]), horizon, switch, egos=torch.tensor([len(lengths)]))
    assert table.shape == (1, len(lengths) + 1, horizon)
    assert table.dtype == torch.int8
    assert bool((table[0, -1] == Answer.POLICY).all())
    return (table[0, :-1] - Answer.MODEL).tolist()


def test_models_answer_first_and_real_opponents_afterwards() -> None:
    assert played((5, 2), 5, "paper") == [[0, 0, 0, 0, 0], [0, 0, 1, 1, 1]]
    assert played((5, 2), 5, "official") == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1]]
    assert [row.count(0) for row in played((6, 3), 6, "official")] == [5, 2]


def test_the_released_switch_asks_once_more() -> None:
    asked = [sum(played((n,), 10, "official")[0]) for n in range(11)]
    assert asked == [10, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert [sum(played((n,), 10, "paper")[0]) for n in range(11)] == list(range(10, -1, -1))


@given(step=st.integers(0, 20), length=st.integers(0, 20))
def test_switch_conditions(step: int, length: int) -> None:
    u, n = torch.tensor(step), torch.tensor(length)
    assert bool(uses_model(u, n)) == bool(uses_model(u, n, "paper")) == (step < length)
    assert bool(uses_model(u, n, "official")) == (step + 1 < length)


@given(
    data=st.data(), agents=st.integers(1, 4), horizon=st.integers(0, 8), switch=st.sampled_from(["paper", "official"])
)
def test_the_table_says_what_the_loop_does(data: st.DataObject, agents: int, horizon: int, switch: Switch) -> None:
    egos = data.draw(st.permutations(range(agents)))[: data.draw(st.integers(1, agents))]
    lengths = [[data.draw(st.integers(0, horizon)) for _ in range(agents)] for _ in egos]
    table = who_answers(torch.tensor(lengths), horizon, switch, torch.tensor(egos))
    assert table.shape == (len(egos), agents, horizon)
    for row, ego in enumerate(egos):
        for agent in range(agents):
            for step in range(horizon):
                modelled = lengths[row][agent] if switch == "paper" else max(lengths[row][agent] - 1, 0)
                expected = Answer.POLICY if agent == ego else Answer.MODEL if step < modelled else Answer.REAL
                assert int(table[row, agent, step]) == expected


@pytest.mark.parametrize("switch", ["paper", "official"])
def test_a_ledger_of_branches_counts_starts_times_the_steps_asked(switch: Switch) -> None:
    horizon, starts = 15, 4
    lengths = torch.tensor([[0, 15, 13], [0, 0, 1], [15, 7, 0]])
    table = who_answers(lengths, horizon, switch)
    ledger = Ledger(agents=3)
    for ego in range(3):
        for step in range(horizon):
            for _ in range(starts):
                asked = torch.zeros(3, 3, dtype=torch.int64)
                for agent in range(3):
                    asked[ego, agent] += int(table[ego, agent, step] == Answer.REAL)
                ledger.add_queries(asked)
    modelled = lengths if switch == "paper" else (lengths - 1).clamp(min=0)
    assert torch.equal(ledger.queries, starts * (horizon - modelled) * other_agents(3))


def test_true_queries_of_the_released_example() -> None:
    # K = 15, n = (15, 13), 1024 starts: the released counter adds 6, the truth is (1 + 3) * 1024.
    assert 1024 * sum(sum(row) for row in played((15, 13), 15, "official")) == 4096


def test_uniform_lengths_under_the_paper_switch_never_ask() -> None:
    lengths = rollout_lengths("uniform", 6, torch.zeros(4, 4), other_agents(4))
    table = who_answers(lengths, 6)
    assert not bool((table == Answer.REAL).any())
    assert int((table == Answer.POLICY).sum()) == 4 * 6


def test_without_opponents_the_policy_answers_throughout() -> None:
    assert who_answers(torch.zeros(1, 1, dtype=torch.int64), 5).tolist() == [[[Answer.POLICY] * 5]]


# ---------------------------------------------------------------- errors of opponent models


def test_error_from_likelihood_alone() -> None:
    found = error_from_nll(double(0.0, 0.5, math.log(5)))
    assert found.tolist() == pytest.approx([0.0, 0.5, math.sqrt(math.log(5) / 2)])


def test_a_perfect_model_of_a_random_opponent_has_no_error_once_its_entropy_is_known() -> None:
    entropy = double(math.log(5))
    assert float(error_from_nll(entropy)) > 0.8
    assert float(error_from_nll(entropy, entropy)) == 0.0
    assert float(error_from_nll(entropy - 1e-3, entropy)) == 0.0  # a held-out sample falls below the mean by chance
    assert float(error_from_nll(double(-1.3), double(-1.8))) == pytest.approx(0.5)  # densities may be negative


@given(seed=st.integers(0, 2**31), actions=st.integers(2, 6), states=st.integers(1, 5))
def test_both_errors_bound_the_mean_total_variation(seed: int, actions: int, states: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    policy, model = (2 * torch.randn(2, states, actions, generator=rng, dtype=torch.float64)).softmax(-1)
    nll = -(policy * model.log()).sum(-1).mean()
    entropy = -(policy * policy.log()).sum(-1).mean()
    distance = float(0.5 * (policy - model).abs().sum(-1).mean())
    assert distance <= float(error_from_nll(nll, entropy)) + 1e-12
    assert float(error_from_nll(nll, entropy)) <= float(error_from_nll(nll)) + 1e-12


def test_accuracy_weighs_heads_by_their_squared_size() -> None:
    sizes = torch.tensor([5, 3, 3])
    weights = weighted_accuracy(torch.eye(3, dtype=torch.float64), sizes)
    assert weights.tolist() == pytest.approx([25 / 43, 9 / 43, 9 / 43])
    assert weights.tolist() == pytest.approx([0.581, 0.209, 0.209], abs=5e-4)
    assert float(weighted_accuracy(double(0.8, 0.5, 1.0), sizes)) == pytest.approx((25 * 0.8 + 9 * 0.5 + 9) / 43)
    assert float(weighted_accuracy(double(0.7), torch.tensor([5]))) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(rollout_lengths, UNKNOWN, 5, double(0.1)), "rule='unknown' must be one of error_ratio"),
        (partial(rollout_lengths, "error_ratio", -1, double(0.1)), "horizon=-1"),
        (partial(rollout_lengths, "error_ratio", 5, double(0.1, -0.2)), r"scores\[1\]=-0\.2 .*error >= 0"),
        (partial(rollout_lengths, "error_ratio", 5, double(math.nan, 0.2)), r"scores\[0\]=nan"),
        (partial(rollout_lengths, "error_ratio", 5, double(0.1, math.inf)), r"scores\[1\]=inf"),
        (partial(rollout_lengths, "accuracy_ratio", 5, double(0.1, 1.2)), r"scores\[1\]=1\.2 .*\[0, 1\]"),
        (
            partial(rollout_lengths, "error_ratio", 5, torch.full((2, 2), math.nan), other_agents(2)),
            r"scores\[0, 1\]=nan",
        ),
        (partial(rollout_lengths, "ask_always", 5, double(0.1), at_least_one=True), "at_least_one"),
        (partial(rollout_lengths, "uniform", 5, double(0.1), torch.ones(1)), "bool mask, got torch.float32"),
        (partial(uses_model, torch.tensor(1), torch.tensor(2), UNKNOWN), "switch='unknown'"),
        (partial(who_answers, torch.zeros(2, 2), 5), r"integers of shape \(I, N\), got torch.float32"),
        (partial(who_answers, torch.tensor([[0, 6], [0, 0]]), 5), r"lengths\[0, 1\]=6 .*horizon=5"),
        (partial(who_answers, torch.tensor([[0, 1]]), 5), "1 rows for 2 egos"),
        (partial(who_answers, torch.tensor([[0, 1]]), 5, "paper", torch.tensor([2])), r"egos=\[2\] .*0\.\.1"),
        (partial(error_from_nll, double(0.2, -0.3)), r"nll=-0\.3 .*`entropy`"),
        (partial(error_from_nll, double(math.nan)), "NaN"),
        (partial(weighted_accuracy, double(0.5, 0.5), torch.tensor([5])), r"sizes=\[5\]"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
