import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from presage.common.curves import SeedCurves, gap_closed, steps_ratio, steps_to


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def curves(*returns: list[float], steps: list[float] | None = None) -> SeedCurves:
    grid = [100.0 * (k + 1) for k in range(len(returns[0]))] if steps is None else steps
    return SeedCurves(steps=np.array(grid), returns=np.array(returns))


def test_align_keeps_the_last_known_return() -> None:
    found = SeedCurves.align([([0, 10, 20, 30], [1, 2, 3, 4]), ([5, 12, 25], [10, 20, 30])], grid=[5, 10, 12, 19, 25])
    np.testing.assert_array_equal(found.returns, [[1, 2, 2, 2, 3], [10, 10, 20, 20, 30]])


def test_align_without_a_grid_takes_the_sparsest_run_within_the_common_span() -> None:
    found = SeedCurves.align([([0, 10, 20, 30], [1, 2, 3, 4]), ([5, 25], [10, 30])])
    np.testing.assert_array_equal(found.steps, [5, 25])
    np.testing.assert_array_equal(found.returns, [[1, 3], [10, 30]])


def test_align_leaves_a_common_grid_as_it_is() -> None:
    found = SeedCurves.align([([10, 20], [1, 2]), ([10, 20], [3, 4])])
    np.testing.assert_array_equal(found.steps, [10, 20])
    np.testing.assert_array_equal(found.returns, [[1, 2], [3, 4]])


@pytest.mark.parametrize("grid", [[4.0, 10.0], [10.0, 26.0]])
def test_align_refuses_env_steps_that_some_run_does_not_cover(grid: list[float]) -> None:
    with pytest.raises(ValueError, match=r"leaves 5\.\.25"):
        SeedCurves.align([([0, 10, 20, 30], [1, 2, 3, 4]), ([5, 25], [10, 30])], grid=grid)


def test_align_refuses_runs_that_do_not_overlap() -> None:
    with pytest.raises(ValueError, match="starts at 40, another has ended at 20"):
        SeedCurves.align([([10, 20], [1, 2]), ([40, 50], [1, 2])])


def test_curves_with_holes_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        curves([1.0, float("nan")])
    with pytest.raises(ValueError, match="must ascend"):
        curves([1.0, 2.0], steps=[10.0, 10.0])
    with pytest.raises(ValueError, match=r"2 evaluations need returns \(seeds, 2\), got \(1, 3\)"):
        curves([1.0, 2.0, 3.0], steps=[10.0, 20.0])


def test_band_is_the_interquartile_mean_with_a_bootstrap_interval_at_each_point() -> None:
    returns = generator(1).normal(size=(8, 5)) + np.arange(5)
    band = curves(*returns.tolist()).band(generator(2), resamples=20_000)
    np.testing.assert_allclose(band.value, stats.trim_mean(returns, 0.25, axis=0))
    for t in range(5):
        theirs = stats.bootstrap(
            (returns[:, t],), lambda drawn, axis: stats.trim_mean(drawn, 0.25, axis=axis), n_resamples=20_000,
            method="percentile", rng=generator(3),
        ).confidence_interval  # fmt: skip
        assert band.low[t] == pytest.approx(theirs.low, abs=0.03)
        assert band.high[t] == pytest.approx(theirs.high, abs=0.03)


def test_a_drawn_seed_brings_its_whole_curve() -> None:
    drawn = curves([0.0, 0.0], [1.0, 1.0]).resample(200, generator())
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    assert set(np.unique(drawn)) == {0.0, 0.5, 1.0}


def test_steps_to_takes_the_first_evaluation_that_the_next_confirms() -> None:
    found = steps_to(curves([0.0, 2.0, 5.0, 5.0, 6.0]), 4.0)
    assert (found.steps, found.reached) == (300.0, True)
    assert str(found) == "300"


def test_steps_to_counts_a_return_exactly_at_the_threshold() -> None:
    assert steps_to(curves([0.0, 4.0, 4.0]), 4.0).steps == 200.0


def test_steps_to_passes_over_a_peak_that_dips_at_once() -> None:
    assert steps_to(curves([0.0, 5.0, 3.0, 5.0, 5.0]), 4.0).steps == 400.0


def test_steps_to_forgives_a_dip_after_two_evaluations() -> None:
    assert steps_to(curves([5.0, 5.0, 0.0, 5.0]), 4.0).steps == 100.0


def test_steps_to_never_reached_is_the_budget_and_a_bound() -> None:
    found = steps_to(curves([0.0, 1.0, 2.0]), 4.0)
    assert (found.steps, found.reached, str(found)) == (300.0, False, "> 300")
    assert steps_to(curves([0.0, 1.0, 2.0]), 4.0, budget=1000).steps == 1000.0


def test_steps_to_does_not_trust_the_last_evaluation_alone() -> None:
    assert not steps_to(curves([0.0, 0.0, 5.0]), 4.0).reached
    assert not steps_to(curves([5.0]), 4.0).reached


def test_steps_to_reads_the_interquartile_mean_over_seeds() -> None:
    four = curves([9.0, 9.0], [4.0, 4.0], [4.0, 4.0], [-99.0, -99.0])  # the mean is far below, the middle half is at 4
    assert steps_to(four, 4.0).reached


def test_a_budget_below_the_last_evaluation_is_refused() -> None:
    with pytest.raises(ValueError, match="budget=200 is smaller than the 300"):
        steps_to(curves([0.0, 1.0, 2.0]), 4.0, budget=200)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.floats(-10, 10))
def test_steps_to_agrees_with_a_loop(returns: list[float], threshold: float) -> None:
    found = steps_to(curves(returns), threshold)
    hits = [k for k in range(len(returns) - 1) if returns[k] >= threshold and returns[k + 1] >= threshold]
    assert found.reached == bool(hits)
    assert found.steps == 100.0 * ((hits[0] if hits else len(returns) - 1) + 1)


def test_steps_ratio_of_certain_curves_is_exact() -> None:
    fast, slow = curves([5.0] * 9, [5.0] * 9), curves([0.0] * 5 + [5.0] * 4, [0.0] * 5 + [5.0] * 4)
    found = steps_ratio(fast, slow, 4.0, generator())
    assert (found.value, found.low, found.high, found.bound, found.censored) == (6.0, 6.0, 6.0, "exact", 0.0)


def test_steps_ratio_interval_agrees_with_a_loop() -> None:
    rng = generator(7)
    ours, theirs = (np.sort(rng.normal(size=(5, 12)) + lead, axis=1) for lead in (0.8, 0.0))
    found = steps_ratio(curves(*ours.tolist()), curves(*theirs.tolist()), 0.5, generator(1), resamples=4000)

    def first(returns: np.ndarray) -> float:
        curve = stats.trim_mean(returns, 0.25, axis=0)
        hits = [k for k in range(11) if curve[k] >= 0.5 and curve[k + 1] >= 0.5]
        return 100.0 * ((hits[0] if hits else 11) + 1)

    drawn = [first(theirs[rng.integers(5, size=5)]) / first(ours[rng.integers(5, size=5)]) for _ in range(600)]
    assert found.value == first(theirs) / first(ours)
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), rel=0.15)
    assert found.high == pytest.approx(np.quantile(drawn, 0.975), rel=0.15)


def test_steps_ratio_marks_what_never_arrived() -> None:
    arrives, never = curves([0.0, 5.0, 5.0, 5.0]), curves([0.0, 0.0, 0.0, 0.0])
    at_least = steps_ratio(arrives, never, 4.0, generator())
    assert (at_least.value, at_least.bound, at_least.censored) == (2.0, "at least", 1.0)
    assert steps_ratio(never, arrives, 4.0, generator()).bound == "at most"
    assert steps_ratio(never, never, 4.0, generator()).bound == "unknown"


def test_censored_is_the_share_of_resamples_that_never_arrive() -> None:
    half = curves([5.0, 5.0], [0.0, 0.0])  # arrives unless the second seed is drawn: the mean of two must be >= 4
    found = steps_ratio(half, curves([5.0, 5.0]), 4.0, generator(), resamples=4000)
    assert found.censored == pytest.approx(0.75, abs=0.03)


def test_a_ratio_from_the_first_step_on_is_refused() -> None:
    with pytest.raises(ValueError, match="reached before the first env step"):
        steps_ratio(curves([5.0, 5.0], steps=[0.0, 10.0]), curves([0.0, 5.0]), 4.0, generator())


def test_gap_closed() -> None:
    np.testing.assert_allclose(gap_closed([-30.0, -20.0, -10.0, -5.0], -30.0, -10.0), [0.0, 0.5, 1.0, 1.25])
    with pytest.raises(ValueError, match=r"reference's return -30\.0 must lie above the random policy's -30\.0"):
        gap_closed(-20.0, -30.0, -30.0)
