import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import stats

from presage.common.intervals import (
    interquartile_mean,
    mean,
    performance_profile,
    probability_of_improvement,
    score_interval,
)

Array = NDArray[np.float64]

# Seven seeds of three tasks, and five seeds of a baseline. The figures below are those of rliable 1.2.0 with 50 000
# resamples for the interquartile mean and 20 000 for the others.
SCORES = np.array(
    [
        [0.12, 0.55, 0.91],
        [0.31, 0.48, 0.77],
        [0.05, 0.62, 0.83],
        [0.44, 0.39, 0.95],
        [0.27, 0.70, 0.60],
        [0.38, 0.51, 0.88],
        [0.19, 0.44, 0.72],
    ]
)
BASELINE = np.array(
    [[0.10, 0.50, 0.70], [0.25, 0.41, 0.77], [0.21, 0.33, 0.64], [0.02, 0.58, 0.81], [0.31, 0.29, 0.55]]
)

scores = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(-1e3, 1e3, allow_subnormal=False)
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_interquartile_mean_of_rliable() -> None:
    assert interquartile_mean(SCORES) == pytest.approx(0.53)
    assert interquartile_mean(BASELINE) == pytest.approx(0.42888888888888893)


@given(scores)
def test_interquartile_mean_is_the_trimmed_mean(values: Array) -> None:
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=None), abs=1e-9)
    by_task = [stats.trim_mean(column, 0.25) for column in values.T]
    np.testing.assert_allclose(interquartile_mean(values, axis=0), by_task, atol=1e-9)


@given(scores, st.randoms(use_true_random=False))
def test_interquartile_mean_does_not_depend_on_the_order(values: Array, random: object) -> None:
    shuffled = values.reshape(-1).tolist()
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hides the type of its random.Random
    assert interquartile_mean(shuffled) == pytest.approx(interquartile_mean(values), abs=1e-9)


def test_interquartile_mean_pools_the_axes_it_is_given() -> None:
    values = generator().normal(size=(4, 5, 6))
    pooled = interquartile_mean(values, axis=(0, 2))
    assert pooled.shape == (5,)
    for k in range(5):
        assert pooled[k] == pytest.approx(stats.trim_mean(values[:, k].reshape(-1), 0.25))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="1 values that are NaN or infinite"):
        interquartile_mean([1.0, 2.0, 3.0, bad, 5.0])


def test_nothing_to_aggregate_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to aggregate"):
        interquartile_mean([])


@pytest.mark.parametrize(
    ("values", "low", "high"), [(SCORES, 0.47545455, 0.58636364), (BASELINE, 0.37111111, 0.49)], ids=["ours", "theirs"]
)
def test_score_interval_of_rliable(values: Array, low: float, high: float) -> None:
    found = score_interval(values, generator(), resamples=20_000)
    assert found.value == pytest.approx(stats.trim_mean(values, 0.25, axis=None))
    assert found.low == pytest.approx(low, abs=0.004)
    assert found.high == pytest.approx(high, abs=0.004)


def test_score_interval_of_one_task_is_that_of_scipy() -> None:
    values = generator(3).gamma(2.0, size=10)
    theirs = stats.bootstrap(
        (values,), lambda drawn, axis: stats.trim_mean(drawn, 0.25, axis=axis), n_resamples=20_000, rng=generator(1),
        method="percentile", confidence_level=0.9,
    ).confidence_interval  # fmt: skip
    ours = score_interval(values, generator(2), resamples=20_000, coverage=0.9)
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)


def test_seeds_are_resampled_within_each_task() -> None:
    apart = np.tile([0.0, 100.0], (5, 1))  # tasks differ, seeds do not: nothing is uncertain
    found = score_interval(apart, generator(), statistic=mean)
    assert (found.low, found.value, found.high) == (50.0, 50.0, 50.0)


@given(scores)
def test_score_interval_contains_its_point_and_stays_within_the_scores(values: Array) -> None:
    found = score_interval(values, generator(), resamples=200)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert values.min() - slack <= found.low <= found.value + slack
    assert found.value - slack <= found.high <= values.max() + slack


def test_wider_coverage_gives_a_wider_interval() -> None:
    narrow = score_interval(SCORES, generator(), coverage=0.5)
    wide = score_interval(SCORES, generator(), coverage=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_same_generator_gives_the_same_interval() -> None:
    assert score_interval(SCORES, generator(5)) == score_interval(SCORES, generator(5))
    assert score_interval(SCORES, generator(5)) != score_interval(SCORES, generator(6))


@pytest.mark.parametrize("coverage", [0.0, 1.0, 95.0])
def test_a_coverage_that_is_no_probability_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match=f"coverage={coverage}"):
        score_interval(SCORES, generator(), coverage=coverage)


def test_performance_profile_of_rliable() -> None:
    found = performance_profile(SCORES, [0.1, 0.3, 0.5, 0.7, 0.9], generator(), resamples=20_000)
    np.testing.assert_allclose(found.value, [0.95238095, 0.80952381, 0.52380952, 0.28571429, 0.0952381])
    # The shares are multiples of 1/21, and a percentile may fall on either of two neighbours.
    np.testing.assert_allclose(found.low, [0.85714286, 0.71428571, 0.38095238, 0.19047619, 0.0], atol=1 / 21 + 1e-9)
    np.testing.assert_allclose(found.high, [1.0, 0.95238095, 0.61904762, 0.33333333, 0.23809524], atol=1 / 21 + 1e-9)


@given(scores)
def test_performance_profiles_fall(values: Array) -> None:
    found = performance_profile(values, np.linspace(-1001, 1001, 23), generator(), resamples=50)
    assert found.value[0] == 1
    assert found.value[-1] == 0
    for line in (found.value, found.low, found.high):
        assert (np.diff(line) <= 1e-12).all()


def test_thresholds_must_ascend() -> None:
    with pytest.raises(ValueError, match=r"ascending.*0\.5, 0\.5"):
        performance_profile(SCORES, [0.5, 0.5], generator())


def test_probability_of_improvement_of_rliable() -> None:
    found = probability_of_improvement(SCORES, BASELINE, generator(), resamples=20_000)
    assert found.value == pytest.approx(0.7333333333333333)
    assert found.low == pytest.approx(0.55238095, abs=0.02)
    assert found.high == pytest.approx(0.88571429, abs=0.02)


def test_probability_of_improvement_counts_every_pair_and_halves_ties() -> None:
    rng = generator(4)
    ours, theirs = rng.integers(4, size=(6, 3)).astype(float), rng.integers(4, size=(5, 3)).astype(float)
    wins = sum(
        1.0 if ours[i, k] > theirs[j, k] else 0.5 if ours[i, k] == theirs[j, k] else 0.0
        for i, j, k in product(range(6), range(5), range(3))
    )
    assert probability_of_improvement(ours, theirs, rng).value == pytest.approx(wins / (6 * 5 * 3))


@given(scores)
def test_nothing_improves_on_itself(values: Array) -> None:
    found = probability_of_improvement(values, values, generator(), resamples=100)
    assert found.value == pytest.approx(0.5)
    assert found.low <= 0.5 + 1e-9
    assert found.high >= 0.5 - 1e-9


def test_improvement_over_other_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="cover 3 tasks and the baseline 2"):
        probability_of_improvement(SCORES, BASELINE[:, :2], generator())
