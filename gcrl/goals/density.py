"""How often goals have been achieved, as a density.

Shape suffixes: M points, B goals, G goal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class KernelDensity(nn.Module):
    """A mean of Gaussians around points, each entry counted in units of its own deviation (as in the code of Pitis et
    al. 2020, 2007.02832).
    """

    points: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, width: int, most: int, bandwidth: float = 0.1, *, least: float = 1e-4) -> None:
        """
        Args:
            width: G, entries of a goal. most: points that it can take; >= 2.
            bandwidth: standard deviation of a Gaussian, in units of the points' own; > 0.
            least: added to deviations, so that entries that do not vary can be divided by them; > 0.

        Raises:
            ValueError: a number is out of range.
        """
        super().__init__()
        if not (bandwidth > 0 and least > 0 and most > 1):
            raise ValueError(f"bandwidth={bandwidth} and least={least} must be > 0, most={most} >= 2")
        self.bandwidth, self.least = bandwidth, least
        self.count = 0
        """points that it has"""
        self.register_buffer("points", torch.zeros(most, width))
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    @torch.no_grad()
    def fit(self, points: Tensor, like: KernelDensity | None = None) -> None:
        """Take `points (M, G)`, at most as many as there is room for.

        Args:
            like: a density whose units are taken, so that both can be compared; None for the points' own.

        Raises:
            ValueError: there are more points than room.
        """
        if len(points) > len(self.points):
            raise ValueError(f"{len(points)} points were given to a density with room for {len(self.points)}")
        self.center.copy_(points.mean(0) if like is None else like.center)
        self.scale.copy_(points.std(0, unbiased=False) + self.least if like is None else like.scale)
        self.count = len(points)
        self.points[: self.count] = (points - self.center) / self.scale

    def log_density(self, goals: Tensor, *, part: int = 4_096) -> Tensor:
        """Nats `(B,)` at `goals (B, G)`, in raw units.

        Args:
            part: goals that are compared with all points at a time; bounds the memory.

        Raises:
            RuntimeError: there are no points yet.
        """
        if not self.count:
            raise RuntimeError("a density has no points before `fit`")
        width = goals.shape[1]
        units = math.log(self.count) + width * math.log(self.bandwidth * math.sqrt(2 * math.pi))
        shift = units + float(self.scale.log().sum())
        scaled, points = (goals - self.center) / self.scale, self.points[: self.count]
        found = [
            torch.logsumexp(-0.5 * (torch.cdist(some, points) / self.bandwidth).square(), 1)
            for some in torch.split(scaled, part)
        ]
        return torch.cat(found) - shift
