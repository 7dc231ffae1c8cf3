"""Numbers that fall while a learner improves: temperatures, and the noise of exploration."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Annealing:
    """`end + extra exp(-rate max(updates - wait, 0))`; constant where nothing extra is added."""

    end: float
    """what is left in the end; >= 0"""
    extra: float = 0.0
    """added before the first update; >= 0"""
    rate: float = 0.1
    """how fast that goes, per update; > 0"""
    wait: int = 0
    """updates before it begins to go; >= 0"""

    def __post_init__(self) -> None:
        if min(self.end, self.extra, self.wait) < 0 or self.rate <= 0:
            raise ValueError(
                f"end={self.end}, extra={self.extra} and wait={self.wait} must be >= 0 and rate={self.rate} > 0"
            )

    def at(self, updates: int) -> float:
        """The number after so many updates."""
        return self.end + self.extra * math.exp(-self.rate * max(updates - self.wait, 0))
