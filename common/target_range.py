"""What a bootstrapped target can be: returns of bounded rewards are bounded themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TargetRange:
    """Targets are held to `[low, high]`; with rewards in [a, b] returns lie in [a, b] / (1 - gamma).

    Rewards of -1 and 0 give [-1 / (1 - gamma), 0], as in the papers on hindsight; of 0 and 1, [0, 1 / (1 - gamma)].
    """

    low: float = -float("inf")
    high: float = float("inf")
    held: Literal["target", "value"] = "target"
    """what is held: the whole target, as in Andrychowicz et al. 2017, or the value in it before the reward is added, as
    in the released code of Zhu et al. 2021"""

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low={self.low} must be <= high={self.high}")
        if self.held not in ("target", "value"):
            raise ValueError(f"held={self.held!r} must be 'target' or 'value'")

    @classmethod
    def of_rewards(cls, low: float, high: float, discount: float) -> TargetRange:
        """The range of the returns of endless episodes whose rewards lie in `[low, high]`.

        Raises:
            ValueError: the discount is not in [0, 1).
        """
        if not 0 <= discount < 1:
            raise ValueError(f"discount={discount} must lie in [0, 1): other returns have no bound")
        return cls(low=min(low, low / (1 - discount)), high=max(high, high / (1 - discount)))

    def of(self, reward: Tensor, share: Tensor, value: Tensor) -> Tensor:
        """`reward + share * value`, held.

        Args:
            share: the discount, 0 where nothing follows.
        """
        if self.held == "value":
            return reward + share * value.clamp(self.low, self.high)
        return (reward + share * value).clamp(self.low, self.high)
