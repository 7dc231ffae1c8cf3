"""The bounds against their fixed values, their limits, and exact returns of random tabular worlds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from presage.common import bounds
from presage.common.bounds import Array

PROPERTY = settings(max_examples=60)
RNG = np.random.default_rng
UNKNOWN: Any = "chernoff"


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        (bounds.simulation_lemma(0.02, 0.0, 0.99, 1.0), 99.0),
        (bounds.simulation_lemma(0.1, 0.01, 0.9, 1.0), 4.6),
        (bounds.simulation_lemma_kl(0.01, 0.01, 0.9, 1.0), 41.0122),
        (bounds.lipschitz_n_step(0.1, 0.9, 2.0, 1), 0.1),
        (bounds.lipschitz_n_step(0.1, 2.0, 0.9, 5), 0.40951),
        (bounds.lipschitz_n_step(0.1, 1.0, 1.5, 5), 0.5),
        (bounds.lipschitz_n_step(0.1, 1.1, 1.1, 5), 0.61051),
        (bounds.lipschitz_value_gap(1.0, 0.1, 0.9, 3.0, 0.9), 4.736842),
        (bounds.lipschitz_value_gap(1.0, 0.1, 3.0, 1.0, 0.9), 9.0),
        (bounds.simulation_lemma_js(0.01, 0.01, 0.9, 1.0), 31.1127),
        (bounds.value_expansion_mse(1.0, 1.0, 0.1, 0.99, 5, 1.0), 1.004820),
        (bounds.value_expansion_mse(3.0, 7.0, 0.0, 0.9, 5, 1.0), 0.348678),
        (bounds.branched_gap(69, 0.1, 0.05, 0.99), 1689.674),
        (bounds.branched_gap(0, 0.1, 0.05, 0.99), 2000.0),
        (bounds.branched_gap(22, 0.1, 0.01, 0.9), 6.3695),
        (bounds.best_branch_length(0.1, 0.05, 0.99), 69),
        (bounds.best_branch_length(0.1, 0.01, 0.9), 22),
        (bounds.best_branch_length(0.05, 0.06, 0.99), 0),
        (bounds.bidirectional_gap(5, 5, 0.1, 0.01, 0.99), 1818.7642),
        (bounds.branched_gap(10, 0.1, 0.01, 0.99), 1828.7642),
        (bounds.rmax_samples(3, 2, 0.5, math.exp(-2.0), 0.9), 9 * 2 / (0.125 * 0.01) * 2),
        (bounds.tesseract_gain(9, 3), 27.0),
        (bounds.mpe_samples(2, 9, 0.9, 0.5, "survey"), 7200.0),
        (bounds.mpe_samples(1, 1, 0.9, 0.5, "hoeffding"), 40000.0),
        (bounds.mpe_samples(1, 1, 0.9, 0.5, "bernstein"), 40.0),
    ],
)
def test_bounds_have_the_values_computed_by_hand(computed: float, expected: float) -> None:
    assert computed == pytest.approx(expected, rel=1e-5)


def aorpo_example(**changed: Any) -> float:
    """r_max 1, gamma 0.9, k 3, two opponents whose models are 0.05 and 0.10 wrong."""
    example: dict[str, Any] = {
        "k": 3, "model_steps": (3, 1), "eps_m": 0.02, "eps_pi": 0.01, "eps_pi_opponents": (0.0, 0.0),
        "eps_opponents": (0.05, 0.10), "gamma": 0.9, "r_max": 1.0,
    }  # fmt: skip
    return float(bounds.opponent_branched_gap(**(example | changed)))


@pytest.mark.parametrize(
    ("model_steps", "expected"), [((4, 4), 14.5122), ((3, 3), 11.5122), ((3, 1), 7.5122), ((0, 0), 2.5122)]
)
def test_asking_opponents_lowers_the_branched_gap(model_steps: tuple[int, int], expected: float) -> None:
    assert aorpo_example(model_steps=model_steps) == pytest.approx(expected, abs=5e-5)
    extra = 2 * 0.9**3 * 0.01 / 0.1  # the policy term that only MBPO's accounting keeps
    loose = aorpo_example(model_steps=model_steps, bookkeeping="mbpo")
    assert loose == pytest.approx(expected + extra, abs=5e-5)


def test_full_horizon_gap_with_two_opponents() -> None:
    errors: dict[str, Any] = {"eps_m": 0.02, "eps_pi": 0.01, "eps_pi_opponents": (0.03, 0.04), "gamma": 0.9}
    errors["eps_opponents"] = (0.05, 0.10)
    # S = 0.02 + 0.07 + 0.15 = 0.24, and 0.07 more where the models are measured against the current opponents
    against_data = bounds.opponent_full_horizon_gap(**errors)
    assert against_data == pytest.approx(2 * (0.9 * 0.26 / 0.01 + 0.24 / 0.1))
    assert against_data == pytest.approx(51.6)
    assert bounds.opponent_full_horizon_gap(**errors, measured_against="current") == pytest.approx(65.6)


def test_slopes_of_the_branched_gap() -> None:
    base, step = aorpo_example(), 1e-3
    assert (aorpo_example(eps_opponents=(0.05 + step, 0.10)) - base) / step == pytest.approx(2 * 3 / 0.1)
    assert (aorpo_example(eps_opponents=(0.05, 0.10 + step)) - base) / step == pytest.approx(2 * 1 / 0.1)
    assert (aorpo_example(eps_m=0.02 + step) - base) / step == pytest.approx(2 * 3 / 0.1)
    shift_slope = 2 * 0.9**4 / 0.01
    assert (aorpo_example(eps_pi=0.01 + step) - base) / step == pytest.approx(shift_slope)
    assert (aorpo_example(eps_pi_opponents=(0.0, step)) - base) / step == pytest.approx(shift_slope)
    assert aorpo_example(model_steps=(3, 0), eps_opponents=(0.05, 0.9)) == aorpo_example(model_steps=(3, 0))
    lengths = [aorpo_example(model_steps=(3, m)) for m in range(5)]
    assert np.diff(lengths) == pytest.approx(np.full(4, 2 * 0.10 / 0.1))


def test_branch_length_trades_policy_shift_against_model_error() -> None:
    only_shift = [aorpo_example(k=k, model_steps=(0, 0), eps_m=0.0) for k in range(12)]
    assert np.all(np.diff(only_shift) < 0)
    only_model = [aorpo_example(k=k, model_steps=(k, 0), eps_pi=0.0) for k in range(12)]
    assert np.diff(only_model) == pytest.approx(np.full(11, 2 * (0.02 + 0.05) / 0.1))


unit = st.integers(0, 1000).map(lambda i: i / 1000)
discounts = st.integers(0, 990).map(lambda i: i / 1000)


@PROPERTY
@given(k=st.integers(0, 30), shift=unit, model=unit, gamma=discounts, r_max=st.floats(0.0, 100.0))
def test_without_opponents_the_gaps_are_those_of_mbpo(
    k: int, shift: float, model: float, gamma: float, r_max: float
) -> None:
    nobody: dict[str, Any] = {"eps_pi": shift, "eps_m": model, "gamma": gamma, "r_max": r_max}
    nobody |= {"eps_pi_opponents": (), "eps_opponents": ()}
    branched = partial(bounds.opponent_branched_gap, k=k, model_steps=(), **nobody)
    assert branched(bookkeeping="mbpo") == pytest.approx(bounds.branched_gap(k, shift, model, gamma, r_max))
    tight = 2 * r_max * (gamma ** (k + 1) * shift / (1 - gamma) ** 2 + k * model / (1 - gamma))
    assert branched() == pytest.approx(tight)
    full = 2 * gamma * r_max * (model + 2 * shift) / (1 - gamma) ** 2 + 4 * r_max * shift / (1 - gamma)
    assert bounds.opponent_full_horizon_gap(**nobody) == pytest.approx(full)
    assert bounds.opponent_full_horizon_gap(**nobody, measured_against="current") == pytest.approx(full)


@PROPERTY
@given(
    back=st.integers(0, 20), forward=st.integers(0, 20), shift=unit, model=unit, gamma=discounts, r_max=st.floats(0, 9)
)
def test_two_arms_save_the_shorter_ones_model_error(
    back: int, forward: int, shift: float, model: float, gamma: float, r_max: float
) -> None:
    saved = 2 * r_max * min(back, forward) * model / (1 - gamma)
    both = bounds.bidirectional_gap(back, forward, shift, model, gamma, r_max)
    assert both + saved == pytest.approx(bounds.branched_gap(back + forward, shift, model, gamma, r_max))


@PROPERTY
@given(shift=unit, model=st.integers(1, 1000).map(lambda i: i / 1000), gamma=discounts, longest=st.integers(0, 40))
def test_best_branch_length_is_the_first_minimum(shift: float, model: float, gamma: float, longest: int) -> None:
    gaps = np.asarray(bounds.branched_gap(np.arange(1500), shift, model, gamma))  # k* <= ln(1000)/ln(1/.99) < 700
    best = bounds.best_branch_length(shift, model, gamma)
    assert gaps[best] == pytest.approx(gaps.min(), rel=1e-11)
    assert np.all(gaps[:best] > gaps[best])
    assert bounds.best_branch_length(shift, model, gamma, longest) == min(int(best), longest)


def test_best_branch_length_of_exact_models_and_short_sight() -> None:
    assert bounds.best_branch_length(0.1, 0.0, 0.9, longest=15) == 15
    assert bounds.best_branch_length(0.0, 0.0, 0.9) == 0
    assert bounds.best_branch_length(0.197, 0.197, 0.197) == 0  # k = 0 and k = 1 tie, in exact arithmetic
    assert bounds.best_branch_length(0.1, 0.05, 0.0) == 1  # the first step escapes the shift, the second gains nothing
    assert bounds.best_branch_length(0.05, 0.1, 0.0) == 0
    several = bounds.best_branch_length(np.array([0.1, 0.1, 0.05]), np.array([0.05, 0.01, 0.06]), [0.99, 0.9, 0.99])
    assert np.array_equal(several, [69, 22, 0])
    with pytest.raises(ValueError, match="give `longest`"):
        bounds.best_branch_length(0.1, 0.0, 0.9)


@PROPERTY
@given(k=st.floats(0.0, 3.0) | st.sampled_from([1.0, 1.0 - 1e-12, 1.0 + 1e-12]), n=st.integers(1, 40))
def test_lipschitz_growth_is_the_geometric_sum(k: float, n: int) -> None:
    total = sum(k**i for i in range(n))
    assert bounds.lipschitz_n_step(0.3, k, 5.0, n) == pytest.approx(0.3 * total, rel=1e-9)


@PROPERTY
@given(eps=unit, gamma=st.integers(1, 990).map(lambda i: i / 1000))
def test_matching_occupancies_saves_a_horizon(eps: float, gamma: float) -> None:
    divergence = eps * math.log(2)
    js = bounds.simulation_lemma_js(divergence, 0.0, gamma, 1.0)
    kl = bounds.simulation_lemma_kl(divergence, 0.0, gamma, 1.0)
    assert js == pytest.approx(2 * (1 - gamma) / gamma * float(kl))


GAPS: dict[str, tuple[Callable[..., Any], tuple[str, ...], dict[str, Any]]] = {
    "T1": (bounds.simulation_lemma, ("eps_m", "eps_r"), {"r_span": 2.0}),
    "T2": (bounds.simulation_lemma_kl, ("eps_m", "eps_pi"), {"r_max": 2.0}),
    "T5": (bounds.simulation_lemma_js, ("eps_js", "eps_pi"), {"r_max": 2.0}),
    "T3": (lambda gamma, **rest: bounds.lipschitz_n_step(**rest), ("eps_w",), {"k_true": 0.8, "k_model": 1.2, "n": 3}),
    "T4": (bounds.lipschitz_value_gap, ("eps_w",), {"k_reward": 2.0, "k_true": 0.8, "k_model": 1.2}),
    "T6": (bounds.value_expansion_mse, ("eps",), {"c1": 2.0, "c2": 3.0, "horizon": 4, "mse_tail": 1.0}),
    "T7": (bounds.branched_gap, ("eps_pi", "eps_m"), {"k": 4, "r_max": 2.0}),
    "B1": (bounds.bidirectional_gap, ("eps_pi", "eps_m"), {"k_back": 3, "k_fwd": 4, "r_max": 2.0}),
    "A": (
        lambda opponent, opponent_shift, **rest: bounds.opponent_full_horizon_gap(
            eps_opponents=[opponent, 0.0], eps_pi_opponents=[0.0, opponent_shift], measured_against="current", **rest
        ),
        ("eps_m", "eps_pi", "opponent", "opponent_shift"),
        {"r_max": 2.0},
    ),
    "B": (
        lambda opponent, opponent_shift, **rest: bounds.opponent_branched_gap(
            eps_opponents=[opponent, 0.0], eps_pi_opponents=[0.0, opponent_shift], **rest
        ),
        ("eps_m", "eps_pi", "opponent", "opponent_shift"),
        {"k": 4, "model_steps": (5, 2), "r_max": 2.0},
    ),
}


@PROPERTY
@pytest.mark.parametrize("name", GAPS)
@given(data=st.data(), gamma=discounts, more=discounts)
def test_gaps_vanish_without_errors_and_grow_with_each(
    name: str, data: st.DataObject, gamma: float, more: float
) -> None:
    gap, errors, fixed = GAPS[name]
    values = {error: 0.69 * data.draw(unit, label=error) for error in errors}  # 0.69 < ln 2, the largest JS
    base = gap(**values, **fixed, gamma=gamma)
    assert base >= 0
    without = gap(**dict.fromkeys(errors, 0.0), **fixed, gamma=gamma)
    assert without == pytest.approx(gamma**8 if name == "T6" else 0.0)
    slack = 1e-9 * (1 + base)
    for error in errors:
        grown = values | {error: values[error] + (0.69 - values[error]) * data.draw(unit, label=f"more {error}")}
        assert gap(**grown, **fixed, gamma=gamma) >= base - slack
    assert gap(**values, **fixed, gamma=max(gamma, more)) >= base - slack


def test_every_error_of_a_gap_counts() -> None:
    for name, (gap, errors, fixed) in GAPS.items():
        zeros = dict.fromkeys(errors, 0.0)
        none = gap(**zeros, **fixed, gamma=0.9)
        for error in errors:
            assert gap(**(zeros | {error: 0.1}), **fixed, gamma=0.9) > none, (name, error)


def test_arrays_broadcast_and_floats_stay_floats() -> None:
    k, gamma = np.arange(6)[:, None], np.array([0.5, 0.9])
    table = bounds.branched_gap(k, 0.1, 0.02, gamma)
    assert isinstance(table, np.ndarray)
    assert table.shape == (6, 2)
    for row in range(6):
        for column in range(2):
            assert table[row, column] == bounds.branched_gap(row, 0.1, 0.02, float(gamma[column]))
    assert type(bounds.branched_gap(3, 0.1, 0.02, 0.9)) is float
    assert type(bounds.best_branch_length(0.1, 0.05, 0.99)) is int
    errors = np.array([[0.05, 0.10], [0.2, 0.3], [0.0, 1.0]])
    rows = bounds.opponent_branched_gap(
        k=[3, 4, 5], model_steps=[[3, 1], [5, 0], [6, 6]], eps_m=0.02, eps_pi=0.01, eps_pi_opponents=errors / 2,
        eps_opponents=errors, gamma=0.9,
    )  # fmt: skip
    assert isinstance(rows, np.ndarray)
    for row, (k_row, steps) in enumerate([(3, (3, 1)), (4, (5, 0)), (5, (6, 6))]):
        shifts = tuple(errors[row] / 2)
        alone = aorpo_example(k=k_row, model_steps=steps, eps_opponents=tuple(errors[row]), eps_pi_opponents=shifts)
        assert rows[row] == pytest.approx(alone)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(bounds.simulation_lemma, 2.5, 0.0, 0.9, 1.0), r"eps_m=2\.5 .*\[0, 2\]"),
        (partial(bounds.simulation_lemma, 0.1, -0.5, 0.9, 1.0), r"eps_r=-0\.5"),
        (partial(bounds.simulation_lemma_kl, 0.1, 0.1, 1.0, 1.0), r"gamma=1 .*\[0, 1\)"),
        (partial(bounds.simulation_lemma_js, 0.7, 0.1, 0.9, 1.0), r"eps_js=0\.7"),
        (partial(bounds.lipschitz_n_step, 0.1, 1.0, 1.0, 0), r"n=0 must be an integer"),
        (partial(bounds.lipschitz_n_step, 0.1, 1.0, 1.0, 1.5), r"n=1\.5 must be an integer"),
        (partial(bounds.lipschitz_value_gap, 1.0, 0.1, 1.25, 2.0, 0.8), r"gamma \* min\(k_true, k_model\)=1 "),
        (partial(bounds.value_expansion_mse, 1.0, 1.0, 0.5, 0.9, 5, 0.2), r"mse_tail=0\.2 .*0\.25"),
        (partial(bounds.branched_gap, -1, 0.1, 0.1, 0.9), r"^k=-1"),
        (partial(bounds.branched_gap, 1, math.nan, 0.1, 0.9), r"eps_pi=nan"),
        (partial(bounds.branched_gap, 1, [0.1, 1.5], 0.1, 0.9), r"eps_pi=1\.5 .*\[0, 1\]"),
        (partial(bounds.branched_gap, 1, 0.1, 0.1, 0.9, math.inf), r"r_max=inf"),
        (partial(bounds.bidirectional_gap, 0.5, 1, 0.1, 0.1, 0.9), r"k_back=0\.5"),
        (partial(bounds.best_branch_length, 0.1, 0.1, 0.9, -3), r"longest=-3"),
        (partial(bounds.rmax_samples, 3, 2, 0.0, 0.1, 0.9), r"eps=0 .*\(0, inf\)"),
        (partial(bounds.rmax_samples, 3, 2, 0.1, 0.0, 0.9), r"delta=0 .*\(0, 1\]"),
        (partial(bounds.tesseract_gain, 0, 3), r"actions=0"),
        (partial(bounds.mpe_samples, 1, 1, 0.9, 0.0), r"alpha=0"),
        (partial(bounds.mpe_samples, 1, 1, 0.9, 0.1, UNKNOWN), r"form='chernoff'"),
        (partial(aorpo_example, model_steps=(5, 0)), r"model_steps=\[5\. 0\.\] must not exceed k \+ 1"),
        (partial(aorpo_example, eps_opponents=(0.1,)), r"one entry per opponent.*eps_opponents \(1,\)"),
        (partial(aorpo_example, eps_opponents=0.1), r"one entry per opponent.*eps_opponents \(\)"),
        (partial(aorpo_example, bookkeeping="loose"), r"bookkeeping='loose'"),
    ],
)
def test_broken_preconditions_are_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------- exact returns of random tabular worlds


def random_simplex(rng: np.random.Generator, *shape: int) -> Array:
    return rng.dirichlet(np.full(shape[-1], 0.5), size=shape[:-1])


def perturbed(rng: np.random.Generator, distribution: Array, amount: float) -> Array:
    """Another distribution, at most `amount` away in total variation."""
    return (1 - amount) * distribution + amount * random_simplex(rng, *distribution.shape)


def total_variation(p: Array, q: Array) -> float:
    return float(0.5 * np.abs(p - q).sum(-1).max())


def kl(p: Array, q: Array) -> Array:
    return np.asarray(scipy.special.rel_entr(p, q).sum(-1))


def joint(policies: list[Array]) -> Array:
    """Independent policies (S, A) of all agents as one over joint actions (S, J)."""
    together = policies[0]
    for policy in policies[1:]:
        together = (together[:, :, None] * policy[:, None, :]).reshape(len(policy), -1)
    return together


def chain(transition: Array, policy: Array) -> Array:
    """The state chain (S, S') of `transition (S, J, S')` under `policy (S, J)`."""
    return np.asarray(np.einsum("saz,sa->sz", transition, policy))


def exact_return(start: Array, transition: Array, reward: Array, policy: Array, gamma: float) -> float:
    values = np.linalg.solve(np.eye(len(start)) - gamma * chain(transition, policy), (policy * reward).sum(1))
    return float(start @ values)


@pytest.mark.parametrize("seed", range(30))
def test_simulation_lemmas_hold_in_random_worlds(seed: int) -> None:
    rng = RNG(seed)
    states, actions, gamma = int(rng.integers(2, 6)), int(rng.integers(2, 4)), float(rng.choice([0.5, 0.8, 0.9, 0.95]))
    start, transition = random_simplex(rng, states), random_simplex(rng, states, actions, states)
    model = perturbed(rng, transition, float(rng.choice([0.01, 0.1, 0.5])))
    reward = rng.uniform(-1.0, 1.0, (states, actions))
    learned = reward + rng.uniform(-0.05, 0.05, reward.shape)
    data = random_simplex(rng, states, actions)
    policy = perturbed(rng, data, float(rng.choice([0.0, 0.05, 0.5])))

    values = [
        np.linalg.solve(np.eye(states) - gamma * chain(p, policy), (policy * r).sum(1))
        for p, r in [(transition, reward), (model, learned), (model, reward)]
    ]
    eps_m, eps_r = float(np.abs(transition - model).sum(-1).max()), float(np.abs(reward - learned).max())
    span = float(max(reward.max(), learned.max()) - min(reward.min(), learned.min()))
    assert np.abs(values[0] - values[1]).max() <= bounds.simulation_lemma(eps_m, eps_r, gamma, span)

    gap = abs(float(start @ (values[0] - values[2])))
    occupancy = [
        (1 - gamma) * np.linalg.solve(np.eye(states) - gamma * chain(p, data).T, start)[:, None] * data
        for p in (transition, model)
    ]
    shift = float(kl(policy, data).max())
    model_kl = float((occupancy[0] * kl(transition, model)).sum())
    assert gap <= bounds.simulation_lemma_kl(model_kl, shift, gamma, 1.0)
    triples = [(d[..., None] * p).ravel() for d, p in zip(occupancy, (transition, model), strict=True)]
    middle = (triples[0] + triples[1]) / 2
    js = float(0.5 * kl(triples[0], middle) + 0.5 * kl(triples[1], middle))
    assert gap <= bounds.simulation_lemma_js(js, shift, gamma, 1.0)


def test_simulation_lemma_is_nearly_tight_on_a_leaking_state() -> None:
    gamma, eps = 0.9, 0.002
    value = 1 / (1 - gamma)  # reward 1 for ever in the good state
    leaky = 1 / (1 - gamma * (1 - eps / 2))  # the model loses eps/2 a step to a state without reward
    bound = bounds.simulation_lemma(eps, 0.0, gamma, 1.0)
    assert value - leaky == pytest.approx(0.089197, abs=1e-6)
    assert bound == pytest.approx(0.09)
    assert value - leaky <= bound


@dataclass(kw_only=True)
class TabularGame:
    """A game of one ego (agent 0) with data, current and modelled policies, and a wrong model of the dynamics."""

    start: Array
    transition: Array
    model: Array
    reward: Array
    data: list[Array]
    current: list[Array]
    modelled: list[Array]
    gamma: float
    k: int
    model_steps: list[int]

    def errors(self, measured_against: str) -> dict[str, Any]:
        reference = self.data if measured_against == "data" else self.current
        shifts = [total_variation(p, q) for p, q in zip(self.data, self.current, strict=True)]
        return {
            "eps_m": total_variation(self.transition, self.model),
            "eps_pi": shifts[0],
            "eps_pi_opponents": shifts[1:],
            "eps_opponents": [total_variation(p, q) for p, q in zip(reference[1:], self.modelled[1:], strict=True)],
            "gamma": self.gamma,
            "r_max": float(np.abs(self.reward).max()),
        }

    def true_return(self) -> float:
        return exact_return(self.start, self.transition, self.reward, joint(self.current), self.gamma)

    def modelled_return(self) -> float:
        policy = joint([self.current[0], *self.modelled[1:]])
        return exact_return(self.start, self.model, self.reward, policy, self.gamma)

    def branched_return(self) -> float:
        """The reward of time t comes after max(t-k, 0) real steps of the data policies and min(t, k) imagined ones."""
        real = chain(self.transition, joint(self.data))
        occupancy = np.linalg.solve(np.eye(len(self.start)) - self.gamma * real.T, self.start)  # sum_t gamma^t d_t
        early, late, total = self.start, occupancy, 0.0
        for index in range(self.k + 1):
            answers = [
                self.modelled[j] if index < self.model_steps[j - 1] else self.current[j]
                for j in range(1, len(self.current))
            ]
            policy = joint([self.current[0], *answers])
            reward = (policy * self.reward).sum(1)
            total += self.gamma**index * float((late if index == self.k else early) @ reward)
            imagined = chain(self.model, policy)
            early, late = early @ imagined, late @ imagined
        return total

    def branched_gap(self) -> float:
        errors = self.errors("current")
        return float(bounds.opponent_branched_gap(k=self.k, model_steps=self.model_steps, **errors))


def random_game(seed: int) -> TabularGame:
    rng = RNG(seed)
    states, actions, agents = int(rng.integers(2, 6)), int(rng.integers(2, 4)), int(rng.integers(2, 5))
    amounts = rng.choice([0.0, 0.01, 0.05, 0.2, 0.5], 1 + 2 * agents)
    transition = random_simplex(rng, states, actions**agents, states)
    data = [random_simplex(rng, states, actions) for _ in range(agents)]
    current = [perturbed(rng, policy, e) for policy, e in zip(data, amounts[1 : 1 + agents], strict=True)]
    k = int(rng.integers(0, 8))
    return TabularGame(
        start=random_simplex(rng, states),
        transition=transition,
        model=perturbed(rng, transition, amounts[0]),
        reward=rng.uniform(-1.0, 1.0, (states, actions**agents)),
        data=data,
        current=current,
        modelled=[perturbed(rng, policy, e) for policy, e in zip(current, amounts[1 + agents :], strict=True)],
        gamma=float(rng.choice([0.5, 0.8, 0.9, 0.95])),
        k=k,
        model_steps=[int(m) for m in rng.integers(0, k + 2, agents - 1)],
    )


@pytest.mark.parametrize("seed", range(100))
def test_no_random_game_exceeds_the_opponent_gaps(seed: int) -> None:
    game = random_game(seed)
    eta = game.true_return()
    full = abs(eta - game.modelled_return())
    assert full <= bounds.opponent_full_horizon_gap(**game.errors("data")) + 1e-12
    assert full <= bounds.opponent_full_horizon_gap(**game.errors("current"), measured_against="current") + 1e-12
    assert abs(eta - game.branched_return()) <= game.branched_gap() + 1e-12


def leaking_game(source: str) -> TabularGame:
    """Everybody plays action 0 and earns 1 for ever; one wrong action earns -1 now and for ever after.

    A millionth of one of the four errors is put in: of "dynamics", "opponent model", "ego shift" or "opponent shift".
    """
    leak = 1e-6
    good, bad = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    transition = np.array([[good, bad, bad, bad], [bad] * 4])
    leaky = np.array([[(1 - leak) * good + leak * bad, bad, bad, bad], [bad] * 4])
    faithful, careless = np.tile(good, (2, 1)), np.tile([1 - leak, leak], (2, 1))
    return TabularGame(
        start=good,
        transition=transition,
        model=leaky if source == "dynamics" else transition,
        reward=np.array([[1.0, -1.0, -1.0, -1.0], [-1.0] * 4]),
        data=[careless if source == who else faithful for who in ("ego shift", "opponent shift")],
        current=[faithful, faithful],
        modelled=[faithful, careless if source == "opponent model" else faithful],
        gamma=0.99,
        k=3,
        model_steps=[4],
    )


@pytest.mark.parametrize("source", ["dynamics", "opponent model", "ego shift", "opponent shift"])
def test_every_term_of_the_branched_gap_is_nearly_attained(source: str) -> None:
    game = leaking_game(source)
    ratio = (game.true_return() - game.branched_return()) / game.branched_gap()
    assert 0.97 < ratio <= 1


@pytest.mark.parametrize("source", ["dynamics", "opponent model"])
def test_both_model_terms_of_the_full_horizon_gap_are_nearly_attained(source: str) -> None:
    game = leaking_game(source)
    gap = bounds.opponent_full_horizon_gap(**game.errors("data"))
    assert 0.99 < (game.true_return() - game.modelled_return()) / float(gap) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_an_exact_model_of_unchanged_players_has_no_gap(seed: int) -> None:
    game = random_game(seed)
    game.model, game.data, game.modelled = game.transition, game.current, game.current
    eta = game.true_return()
    assert game.modelled_return() == pytest.approx(eta)
    assert game.branched_return() == pytest.approx(eta)
    assert game.branched_gap() == 0.0
    assert bounds.opponent_full_horizon_gap(**game.errors("data")) == 0.0
