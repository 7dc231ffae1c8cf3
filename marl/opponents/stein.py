"""Stein variational gradient descent (Liu and Wang 2016, 1608.04471): particles that move until they are a sample of a
density known up to a factor.

Shape suffixes: n particles that stay, m particles that move, d numbers of a particle; ... any dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NARROWEST = 1e-3
"""least bandwidth of the kernel, for particles that have all come together"""


def stein_direction(fixed: Tensor, score: Tensor, moved: Tensor) -> Tensor:
    """Where every moved particle `y` should go: `mean_x [k(x, y) d log p(x)/dx + d k(x, y)/dx]` over the fixed ones.

    The first term brings particles to where p is large, the second one keeps them apart. The kernel is
    `exp(-|x - y|^2 / h)`, its bandwidth h the median of the squared distances over log n.

    Args:
        fixed: x `(..., n, d)`, n >= 2. score: the gradient of log p at each of them. moved: y `(..., m, d)`.

    Returns:
        (..., m, d), without gradient.

    Raises:
        ValueError: fewer than two fixed particles, or a score of another shape.
    """
    if fixed.shape[-2] < 2 or score.shape != fixed.shape:
        raise ValueError(
            f"fixed particles of shape {tuple(fixed.shape)} must be (..., n, d) with n >= 2, and the score, of shape "
            f"{tuple(score.shape)}, as large"
        )
    fixed, score, moved = fixed.detach(), score.detach(), moved.detach()
    apart = fixed[..., :, None, :] - moved[..., None, :, :]
    squares = apart.square().sum(-1)
    bandwidth = squares.flatten(-2).median(-1).values / math.log(fixed.shape[-2])
    bandwidth = bandwidth.clamp_min(NARROWEST)[..., None, None]
    kernel = torch.exp(-squares / bandwidth)[..., None]
    pulls = kernel * score[..., :, None, :] - 2.0 * apart / bandwidth[..., None] * kernel
    return pulls.mean(-3)
