"""Gaussians that are squashed into boxes by tanh, one number at a time.

Where samples, densities and divergences of several of them meet in one loss, the number before squashing is what is
passed on: it is never lost where tanh saturates, and the squashing cancels out of divergences.

Shape suffixes: d numbers of an action.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from presage.common.heads import LOG_SIGMA_RANGE

INSIDE = 1.0 - 1e-6
"""largest magnitude of an action that is unsquashed as it is"""


@dataclass(frozen=True)
class SquashedGaussian:
    """Independent numbers `tanh(u)`, `u` normal."""

    mean: Tensor
    """(..., d) of u"""
    sigma: Tensor
    """(..., d) standard deviations of u"""

    @classmethod
    def of(cls, parameters: Tensor, floor: float = 0.0) -> SquashedGaussian:
        """What numbers `(..., 2 d)` describe: means, and logarithms of sigmas, which `floor` is added to."""
        mean, log_sigma = parameters.chunk(2, -1)
        return cls(mean, log_sigma.clamp(*LOG_SIGMA_RANGE).exp() + floor)

    def sample(self, rng: torch.Generator) -> Tensor:
        """A reparametrised u `(..., d)`."""
        return self.mean + self.sigma * torch.empty_like(self.mean).normal_(generator=rng)

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density of every number of the action `tanh(u)`, `(..., d)`."""
        normal = -0.5 * ((u - self.mean) / self.sigma).square() - self.sigma.log() - 0.5 * math.log(2 * math.pi)
        return normal - log_slope(u)

    def divergence(self, other: SquashedGaussian) -> Tensor:
        """Kullback-Leibler divergence of every number from the other's, `(..., d)`: that of the normal numbers."""
        ratio = (self.sigma.square() + (self.mean - other.mean).square()) / (2 * other.sigma.square())
        return (other.sigma / self.sigma).log() + ratio - 0.5

    def size(self) -> Tensor:
        """Half the squared means and log sigmas `(..., d)`: what holding a distribution near N(0, 1) penalises."""
        return 0.5 * (self.mean.square() + self.sigma.log().square())


def log_slope(u: Tensor) -> Tensor:
    """`log(1 - tanh(u)^2)` without loss where tanh saturates."""
    return 2.0 * (math.log(2.0) - u - softplus(-2.0 * u))


def unsquash(act: Tensor) -> Tensor:
    """u of actions in [-1, 1], those at the bounds moved inside by 1e-6."""
    return act.clamp(-INSIDE, INSIDE).atanh()
