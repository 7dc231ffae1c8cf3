"""Scores of a network on held-out rows: errors, likelihoods, and how well it knows its own errors.

Shape suffixes: M networks in a stack (owner, member), B rows, H held-out rows, C columns, L flags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from presage.common.ensemble import GaussianStack

_CHUNK = 1024
"""held-out rows scored at once"""


class HeldOut(NamedTuple):
    """Means over held-out rows of every network."""

    error: Tensor
    """(M, C) squared error over the variance of the target"""
    nll: Tensor
    """(M, C) nats by the networks' own variances, in units of the target's standard deviation; networks without noise
    count as sure to one standardised unit"""
    surprise: Tensor
    """(M, C) squared error over the networks' own variances; 1 where these are right"""
    flags: Tensor
    """(M, L) cross-entropy in nats"""
    live: Tensor
    """(M, C) 1.0 where the column varies in the training rows"""


@torch.no_grad()
def held_out(network: GaussianStack, table: Tensor, inputs: int, rows: Tensor, weights: Tensor) -> HeldOut:
    """Score every network on its own rows.

    Args:
        table: `(B, inputs + C + L)`. rows: `(M, H)` indices into it. weights: `(M, H)`, 0 for rows that do not count.
    """
    sums: list[Tensor] = []
    live = torch.empty(0)
    for at, weight in zip(torch.split(rows, _CHUNK, 1), torch.split(weights, _CHUNK, 1), strict=True):
        x, y, flags = torch.split(table[at], [inputs, network.columns, network.flags], -1)
        mean, log_variance, logits = network(x)
        y, live = network.standardise(y)
        error = (mean - y).square()
        surprise = error * (-log_variance).exp()
        nll = 0.5 * (surprise + log_variance + math.log(2 * math.pi))
        cross = torch.nn.functional.binary_cross_entropy_with_logits(logits, flags, reduction="none")
        parts = [torch.einsum("mbc,mb->mc", part, weight) for part in (error, nll, surprise, cross)]
        sums = parts if not sums else [total + part for total, part in zip(sums, parts, strict=True)]
    count = weights.sum(1, keepdim=True)
    error, nll, surprise, cross = (total / count for total in sums)
    spread = torch.where(live[:, 0] > 0, network.spread[:, 0], 1.0)
    unit = torch.where(live[:, 0] > 0, network.target_scale[:, 0], 1.0) / spread
    return HeldOut(error * unit.square(), nll + unit.log(), surprise, cross, live[:, 0])


def mean_over_live(columns: Tensor, live: Tensor) -> Tensor:
    """Mean over the columns that vary, `(M, C)` to `(M,)`."""
    return (columns * live).sum(-1) / live.sum(-1).clamp(min=1.0)


def by_group(network: GaussianStack, found: HeldOut, groups: Mapping[str, slice]) -> dict[str, dict[str, float]]:
    """The fields rmse, nll and explained of a report, over every owner's elites."""
    elites = network.elite_index()
    error, nll, _, cross, live = (part[elites] for part in found)
    spread = network.spread[elites, 0]
    rmse, likelihood, explained = {}, {}, {}
    for name, where in groups.items():
        if where.start >= network.columns:
            flags = slice(where.start - network.columns, where.stop - network.columns)
            likelihood[name] = float(cross[:, flags].mean())
            continue
        on = live[:, where]
        rmse[name] = float((error * spread.square())[:, where].mean().sqrt())
        if network.noisy:
            likelihood[name] = float(mean_over_live(nll[:, where], on).mean())
        explained[name] = 1.0 - float(mean_over_live(error[:, where], on).mean())
    return {"rmse": rmse, "nll": likelihood, "explained": explained}
