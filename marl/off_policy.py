"""What off-policy actor-critic methods on real rows are configured by, whatever they make of the other agents."""

from __future__ import annotations

from dataclasses import dataclass, field

from presage.common.dyna import DynaConfig
from presage.common.networks import Activation


def _real_rows() -> DynaConfig:
    return DynaConfig(real_share=1.0)


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig:
    """The numbers that they share."""

    hidden: tuple[int, ...] = (100, 100)
    """widths of the hidden layers of all networks"""
    activation: Activation = "relu"
    """after every hidden layer"""
    learning_rate: float = 1e-2
    """Adam's step size for all networks; > 0"""
    discount: float = 0.95
    """gamma, in [0, 1]"""
    target_rate: float = 0.01
    """tau: share of the networks that moves into their targets at each update, in (0, 1]"""
    shrinkage: float = 1e-3
    """weight that holds what policies say near 0, logits or numbers before squashing, without which one that is at a
    bound never comes back; >= 0"""
    geometry: bool = True
    """whether networks read the lengths and directions of the vectors that the game declares as well"""
    loop: DynaConfig = field(default_factory=_real_rows)
    """how much is collected and updated; what it says of fitting and imagining is not read"""

    def __post_init__(self) -> None:
        if self.loop.real_share != 1:
            raise ValueError(f"loop.real_share={self.loop.real_share} must be 1: this method imagines nothing")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be > 0")
        if not 0 <= self.discount <= 1 or not 0 < self.target_rate <= 1:
            raise ValueError(
                f"discount={self.discount} must lie in [0, 1] and target_rate={self.target_rate} in (0, 1]"
            )
        if self.shrinkage < 0:
            raise ValueError(f"shrinkage={self.shrinkage} must be >= 0")
