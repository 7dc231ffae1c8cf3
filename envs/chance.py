"""Random numbers by place: what a step of a game leaves to chance depends on seed, copy, episode and step alone.

A generator's numbers depend on how many were drawn before, so that copies whose episodes end at different times, or a
different number of copies, would change each other's. Here every number is a hash of where it is used (splitmix64,
Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.uint64]

_STRIDE = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def numbers(seed: int, episode: NDArray[np.int64], step: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """`(C, count)` uniform numbers in [0, 1) for one step of C copies.

    Args:
        seed: of the game. episode, step: `(C,)` where each copy is.
    """
    copies = np.arange(len(episode), dtype=np.uint64)
    state = _mixed(np.full(len(episode), seed % 2**64, dtype=np.uint64))
    for part in (copies, episode.astype(np.uint64), step.astype(np.uint64)):
        state = _mixed(state ^ _mixed(part))
    each = _mixed(state[:, None] + _STRIDE * np.arange(1, count + 1, dtype=np.uint64))
    found: NDArray[np.float64] = (each >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return found


def _mixed(x: Integers) -> Integers:
    """splitmix64's step and output function: every bit of `x` reaches every bit of the result."""
    x = x + _STRIDE
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    mixed: Integers = x ^ (x >> np.uint64(31))
    return mixed
