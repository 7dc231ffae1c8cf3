"""How a length grows over the epochs of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LengthRamp:
    """A whole number that moves linearly between two epochs and is constant outside them, rounded down."""

    start_epoch: int
    """last epoch at `start`; >= 0"""
    end_epoch: int
    """first epoch at `end`; >= start_epoch, and the number jumps where they are equal"""
    start: int
    """the number before the ramp, in steps; >= 0"""
    end: int
    """the number after the ramp, in steps; >= 0"""
    feedback: bool = False
    """start every evaluation from the current number instead of from `start`, as AORPO's released code does by
    mistake: several evaluations an epoch then climb much faster. For reproducing it, with `end >= start`"""

    def __post_init__(self) -> None:
        if not 0 <= self.start_epoch <= self.end_epoch:
            raise ValueError(f"epochs must satisfy 0 <= start_epoch={self.start_epoch} <= end_epoch={self.end_epoch}")
        if min(self.start, self.end) < 0:
            raise ValueError(f"lengths must be >= 0, got start={self.start} and end={self.end}")
        if self.feedback and self.end < self.start:
            raise ValueError(f"a ramp with feedback only climbs; got start={self.start} above end={self.end}")

    def at(self, epoch: int, current: int | None = None) -> int:
        """The number in `epoch` (counted from 0).

        MBPO's branch length (Janner et al. 2019, released configurations), computed in integers, so that a ramp meets
        its whole numbers exactly.

        Args:
            epoch: >= 0.
            current: the number that the previous evaluation returned, `start` at first; read with `feedback` alone.
        """
        if epoch < 0:
            raise ValueError(f"epoch={epoch} must be >= 0")
        base = self.start
        if self.feedback:
            if current is None or not self.start <= current <= self.end:
                raise ValueError(
                    f"a ramp with feedback=True goes on from the number it returned last (start={self.start} at first, "
                    f"at most end={self.end}); got current={current}"
                )
            base = current
        if epoch >= self.end_epoch:
            return self.end
        if epoch <= self.start_epoch:
            return base
        return base + (self.end - base) * (epoch - self.start_epoch) // (self.end_epoch - self.start_epoch)
