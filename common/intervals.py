"""How sure a score is: interquartile mean, bootstrap intervals, performance profile, probability of improvement.

Scores are matrices `(S, K)`: S seeds (independent runs) of each of K tasks. Resampling is stratified: the seeds of each
task are drawn on their own, with replacement, so that no resample lacks a task. Intervals are percentiles of the
resampled statistic. Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
section 4.

Shape suffixes: S seeds, K tasks, T thresholds, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array, tuple[int, ...]], Array]
"""reduces the given axes of an array, as `interquartile_mean` does"""

RESAMPLES = 2000
"""resamples drawn unless told otherwise; the 2.5 % percentile is then uncertain by about 0.35 percentage points"""
COVERAGE = 0.95
"""probability that an interval aims to cover"""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A point estimate and the ends of its confidence interval, in the statistic's own units."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve of point estimates with an interval at each of its points; every array is `(T,)`."""

    x: Array
    """env steps of a learning curve, or thresholds of a performance profile; ascending"""
    value: Array
    low: Array
    high: Array


def interquartile_mean(scores: ArrayLike, axis: int | tuple[int, ...] | None = None) -> Array:
    """Mean of what is left when the lowest and the highest quarter are cut off, `count // 4` scores at either end.

    Args:
        scores: any shape.
        axis: the axes whose scores are pooled; all of them when None.

    Returns:
        `scores` without those axes.

    Raises:
        ValueError: for no scores at all, or for NaN or infinite ones, which the cut would hide.
    """
    values = _finite(scores, "scores")
    pooled = tuple(range(values.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    if not pooled:
        return values
    moved = np.moveaxis(values, pooled, range(-len(pooled), 0))
    flat = np.sort(moved.reshape(*moved.shape[: -len(pooled)], -1), axis=-1)
    count = flat.shape[-1]
    return np.asarray(flat[..., count // 4 : count - count // 4].mean(axis=-1))


def mean(scores: Array, axis: tuple[int, ...]) -> Array:
    """The plain mean, for episodes of one policy rather than seeds of one method."""
    return np.asarray(scores.mean(axis=axis))


def score_interval(
    scores: ArrayLike, rng: np.random.Generator, *, statistic: Statistic = interquartile_mean,
    resamples: int = RESAMPLES, coverage: float = COVERAGE,
) -> Interval:  # fmt: skip
    """The statistic of all scores with its stratified bootstrap interval.

    Args:
        scores: `(S, K)`, or `(S,)` for one task.
        rng: draws the resamples.
        statistic: pools the axes of seeds and tasks.
        resamples: R, resampled score matrices.
        coverage: probability that the interval aims to cover, in (0, 1).
    """
    matrix_SK = _matrix(scores, "scores")
    seeds, tasks = matrix_SK.shape
    draw_RSK = rng.integers(seeds, size=(resamples, seeds, tasks))
    low, high = percentiles(statistic(matrix_SK[draw_RSK, np.arange(tasks)], (1, 2)), coverage)
    return Interval(value=float(statistic(matrix_SK, (0, 1))), low=float(low), high=float(high))


def performance_profile(
    scores: ArrayLike, thresholds: ArrayLike, rng: np.random.Generator, *,
    resamples: int = RESAMPLES, coverage: float = COVERAGE,
) -> Band:  # fmt: skip
    """For every threshold, the share of runs whose score lies above it (score distribution, section 4.2).

    Args:
        scores: `(S, K)` or `(S,)`.
        thresholds: `(T,)`, ascending.
    """
    matrix_SK = _matrix(scores, "scores")
    grid_T = _finite(thresholds, "thresholds")
    if grid_T.ndim != 1 or (np.diff(grid_T) <= 0).any():
        raise ValueError(f"thresholds must be one ascending row of numbers, got {grid_T.tolist()}")
    seeds, tasks = matrix_SK.shape
    above_SKT = (matrix_SK[:, :, None] > grid_T).astype(np.float64)
    count_RKS = _counts(seeds, tasks, resamples, rng)
    share_RT = np.einsum("rks,skt->rt", count_RKS, above_SKT, optimize=True) / (seeds * tasks)
    low, high = percentiles(share_RT, coverage)
    return Band(x=grid_T, value=above_SKT.mean(axis=(0, 1)), low=low, high=high)


def probability_of_improvement(
    scores: ArrayLike, baseline: ArrayLike, rng: np.random.Generator, *,
    resamples: int = RESAMPLES, coverage: float = COVERAGE,
) -> Interval:  # fmt: skip
    """How probable it is that a run of the method beats a run of the baseline on a task drawn at random.

    Ties count one half (Mann-Whitney); tasks weigh the same (section 4.3).

    Args:
        scores: `(S, K)` or `(S,)`, the method's.
        baseline: `(S', K)` or `(S',)`; the numbers of seeds may differ, the tasks must be the same.
    """
    ours_SK, theirs_SK = _matrix(scores, "scores"), _matrix(baseline, "baseline")
    if ours_SK.shape[1] != theirs_SK.shape[1]:
        raise ValueError(
            f"scores cover {ours_SK.shape[1]} tasks and the baseline {theirs_SK.shape[1]}; give the same tasks"
        )
    above = ours_SK[:, None] > theirs_SK[None]
    equal = ours_SK[:, None] == theirs_SK[None]
    win_SVK = above + 0.5 * equal
    ours, theirs, tasks = win_SVK.shape
    count_RKS = _counts(ours, tasks, resamples, rng)
    count_RKV = _counts(theirs, tasks, resamples, rng)
    win_RKV = np.einsum("rks,svk->rkv", count_RKS, win_SVK, optimize=True)
    drawn_R = (win_RKV * count_RKV).sum(axis=(1, 2)) / (ours * theirs * tasks)
    low, high = percentiles(drawn_R, coverage)
    return Interval(value=float(win_SVK.mean()), low=float(low), high=float(high))


def percentiles(drawn: Array, coverage: float = COVERAGE) -> tuple[Array, Array]:
    """The two ends between which the middle `coverage` of resampled values lies, along the first axis of `drawn`."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage={coverage} must lie strictly between 0 and 1 (0.95 for a 95 % interval)")
    tail = (1 - coverage) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail), axis=0)
    return np.asarray(low), np.asarray(high)


def _counts(seeds: int, tasks: int, resamples: int, rng: np.random.Generator) -> Array:
    """How often each seed is drawn, `(R, K, S)`: the resample itself where only sums over seeds are wanted."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=(resamples, tasks)).astype(np.float64)


def _matrix(scores: ArrayLike, name: str) -> Array:
    values = _finite(scores, name)
    if values.ndim not in (1, 2):
        raise ValueError(f"{name} must be (seeds, tasks) or (seeds,), got shape {values.shape}")
    return values[:, None] if values.ndim == 1 else values


def _finite(scores: ArrayLike, name: str) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    if values.size == 0:
        raise ValueError(f"{name} has shape {values.shape}: there is nothing to aggregate")
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} holds {int((~np.isfinite(values)).sum())} values that are NaN or infinite; give a diverged "
            "run the score it had when it diverged, or leave it out and say so"
        )
    return values
