"""Gradients of stacked networks, each network's held on its own.

Shape suffixes: M networks of a stack.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def hold_gradients(parameters: Iterable[Tensor], most: float | None) -> None:
    """Scale gradients in place so that none has a norm above `most`, for every network and each of its weights and
    biases apart; smaller ones stay, and all of them where it is None.

    MADDPG's released code clips so, variable by variable; a norm over all of them would let agents slow one another.

    Args:
        parameters: `(M, ...)` each, of stacked networks; those without a gradient are passed over.
    """
    if most is None:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            norm = parameter.grad.flatten(1).norm(dim=1)
            scale = (most / norm).clamp_max(1.0)
            parameter.grad *= scale.view(-1, *[1] * (parameter.ndim - 1))
