"""Learning curves over seeds: bands on one grid, env steps to reach a return, and how much of the gap is closed.

Shape suffixes: S seeds, T evaluations, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from presage.common.intervals import COVERAGE, RESAMPLES, Array, Band, interquartile_mean, percentiles


@dataclass(frozen=True, kw_only=True)
class SeedCurves:
    """The evaluations of several seeds of one method at the same env steps."""

    steps: Array
    """(T,) env steps at each evaluation; ascending"""
    returns: Array
    """(S, T) mean return of each seed at each evaluation"""

    def __post_init__(self) -> None:
        if self.steps.ndim != 1 or not self.steps.size or (np.diff(self.steps) <= 0).any():
            raise ValueError(f"the env steps of a curve must ascend, got {self.steps.tolist()}")
        if self.returns.ndim != 2 or not len(self.returns) or self.returns.shape[1] != len(self.steps):
            raise ValueError(
                f"{len(self.steps)} evaluations need returns (seeds, {len(self.steps)}), got {self.returns.shape}"
            )
        if not np.isfinite(self.returns).all():
            raise ValueError("a curve holds returns that are NaN or infinite; an evaluation must give finite returns")

    @classmethod
    def align(cls, runs: Sequence[tuple[ArrayLike, ArrayLike]], grid: ArrayLike | None = None) -> SeedCurves:
        """Bring runs that were evaluated at different env steps onto one grid; each keeps its last known return.

        Args:
            runs: (env steps, returns) of each seed, both `(its own T,)`, steps ascending.
            grid: the env steps wanted; None for those of the run with the fewest evaluations within the span that every
                run covers (of several, the one that gets furthest), so that no run is shown more often than it was
                evaluated.

        Raises:
            ValueError: for a grid that starts before some run's first evaluation or ends after some run's last one,
                where no return is known.
        """
        if not runs:
            raise ValueError("there are no runs to align")
        alone = [
            cls(steps=np.asarray(steps, dtype=np.float64), returns=np.asarray(values, dtype=np.float64)[None])
            for steps, values in runs
        ]
        first = max(run.steps[0] for run in alone)
        last = min(run.steps[-1] for run in alone)
        if first > last:
            raise ValueError(f"the runs share no env steps: one starts at {first:g}, another has ended at {last:g}")
        if grid is None:
            inside = [run.steps[(run.steps >= first) & (run.steps <= last)] for run in alone]
            points = min((steps for steps in inside if steps.size), key=lambda steps: (len(steps), -steps[-1]))
        else:
            points = np.asarray(grid, dtype=np.float64)
            if points.size and (points[0] < first or points[-1] > last):
                raise ValueError(
                    f"the grid {points[0]:g}..{points[-1]:g} leaves {first:g}..{last:g}, common to all runs"
                )
        rows = [run.returns[0, np.searchsorted(run.steps, points, side="right") - 1] for run in alone]
        return cls(steps=points, returns=np.stack(rows))

    @property
    def seeds(self) -> int:
        """S, the number of runs."""
        return len(self.returns)

    def resample(self, resamples: int, rng: np.random.Generator) -> Array:
        """Interquartile mean curves `(R, T)` of seeds drawn with replacement; a drawn seed brings its whole curve."""
        draw_RS = rng.integers(self.seeds, size=(resamples, self.seeds))
        return interquartile_mean(self.returns[draw_RS], axis=1)

    def band(self, rng: np.random.Generator, *, resamples: int = RESAMPLES, coverage: float = COVERAGE) -> Band:
        """The interquartile mean over seeds at each evaluation, with its bootstrap interval point by point."""
        low, high = percentiles(self.resample(resamples, rng), coverage)
        return Band(x=self.steps, value=interquartile_mean(self.returns, axis=0), low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class StepsTo:
    """Env steps to a return; where it was never reached, the budget, which is then a lower bound."""

    steps: float
    reached: bool

    def __str__(self) -> str:
        return f"{self.steps:,.0f}" if self.reached else f"> {self.steps:,.0f}"


@dataclass(frozen=True, kw_only=True)
class StepsRatio:
    """How many times fewer env steps a method needs than its baseline to reach the same return."""

    value: float
    """baseline's env steps over the method's"""
    low: float
    high: float
    bound: Literal["exact", "at least", "at most", "unknown"]
    """`at least`: the baseline never got there; `at most`: the method never did; `unknown`: neither did"""
    censored: float
    """share of resamples in which the baseline or the method never got there; they count with the budget"""


def steps_to(curves: SeedCurves, threshold: float, *, budget: float | None = None) -> StepsTo:
    """Env steps at the first evaluation from which the interquartile mean stays at or above `threshold` for two.

    The last evaluation alone never counts, since nothing confirms it.

    Args:
        curves: the seeds' evaluations.
        threshold: the return to reach.
        budget: env steps that the runs were given, reported when they never got there; None for the last evaluation.
    """
    curve_1T = interquartile_mean(curves.returns, axis=0)[None]
    steps, reached = _first_stay(curves.steps, curve_1T, threshold, _budget(curves, budget))
    return StepsTo(steps=float(steps[0]), reached=bool(reached[0]))


def steps_ratio(
    method: SeedCurves, baseline: SeedCurves, threshold: float, rng: np.random.Generator, *,
    budget: float | None = None, resamples: int = RESAMPLES, coverage: float = COVERAGE,
) -> StepsRatio:  # fmt: skip
    """Env steps to `threshold` of the baseline over those of the method, with a bootstrap interval over both's seeds.

    Args:
        method, baseline: their seeds' evaluations; seeds are drawn in each on its own.
        threshold: the return to reach.
        budget: env steps that both were given; None for each one's last evaluation.

    Raises:
        ValueError: when a curve is above the threshold before the first env step, so that a ratio means nothing.
    """
    ours, theirs = steps_to(method, threshold, budget=budget), steps_to(baseline, threshold, budget=budget)
    drawn = method.resample(resamples, rng)
    ours_R, ours_reached = _first_stay(method.steps, drawn, threshold, _budget(method, budget))
    drawn = baseline.resample(resamples, rng)
    theirs_R, theirs_reached = _first_stay(baseline.steps, drawn, threshold, _budget(baseline, budget))
    if min(ours.steps, theirs.steps, ours_R.min(), theirs_R.min()) <= 0:
        raise ValueError(f"the return {threshold} is reached before the first env step; compare at a higher return")
    bounds: dict[tuple[bool, bool], Literal["exact", "at least", "at most", "unknown"]] = {
        (True, True): "exact", (True, False): "at least", (False, True): "at most", (False, False): "unknown",
    }  # fmt: skip
    low, high = percentiles(theirs_R / ours_R, coverage)
    return StepsRatio(
        value=theirs.steps / ours.steps, low=float(low), high=float(high), bound=bounds[ours.reached, theirs.reached],
        censored=float(1 - (ours_reached & theirs_reached).mean()),
    )  # fmt: skip


def gap_closed(returns: ArrayLike, random: float, reference: float) -> Array:
    """How far `returns`, of any shape, lie on the way from the random policy's return (0) to the reference's (1).

    Raises:
        ValueError: when the reference is no better than random, so that there is no gap to close.
    """
    if not reference > random:
        raise ValueError(f"the reference's return {reference} must lie above the random policy's {random}")
    return np.asarray((np.asarray(returns, dtype=np.float64) - random) / (reference - random))


def _budget(curves: SeedCurves, budget: float | None) -> float:
    last = float(curves.steps[-1])
    if budget is not None and budget < last:
        raise ValueError(
            f"budget={budget:g} is smaller than the {last:g} env steps of the last evaluation; cut the curves"
        )
    return last if budget is None else budget


def _first_stay(steps_T: Array, curves_RT: Array, threshold: float, budget: float) -> tuple[Array, NDArray[np.bool_]]:
    """Per curve, the env steps at which it first holds the threshold twice running, and whether it ever does."""
    at_RT = curves_RT >= threshold
    stays_RT = np.zeros_like(at_RT)  # the last evaluation stays false: nothing confirms it
    stays_RT[:, :-1] = at_RT[:, :-1] & at_RT[:, 1:]
    reached_R = np.asarray(stays_RT.any(axis=1))
    return np.where(reached_R, steps_T[stays_RT.argmax(axis=1)], budget), reached_R
