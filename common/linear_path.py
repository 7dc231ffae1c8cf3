"""The linear path of a dynamics network, solved in closed form beside what its perceptron predicts already.

Away from contacts point masses move exactly linearly; gradient steps reach that only slowly and never settle.

Shape suffixes: E members of one owner, B rows, C columns, D inputs and a constant, R ridges.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from presage.common.ensemble import GaussianStack

RIDGES = (1e-9, 1e-6, 1e-4, 1e-2, 1.0)
"""candidates for the ridge, per row, on standardised inputs"""

_FLOOR = 1e-3
"""smallest unit of a column, in standard deviations of its target: below it the perceptron would fit rounding"""

_CHUNK = 1024
"""rows whose residuals are held at once"""


@torch.no_grad()
def solve_linear_path(
    network: GaussianStack, owner: int, inputs: Tensor, targets: Tensor, train: Tensor, held_out: Tensor
) -> None:
    """Add to each member's linear path the ridge regression of what the member leaves unexplained.

    The ridge is chosen per member and column on the held-out rows, a path left as it is being one of the candidates, so
    that held-out errors never grow. Standardised targets are then counted in units of what the linear path leaves over.

    Args:
        inputs: `(B, inputs)` raw. targets: `(B, C)` raw. train, held_out: indices of owner's rows.
    """
    skip, own = network.skip, network.own(owner)
    if skip is None:
        raise ValueError("the network has no linear path; build it with linear_skip=True")
    gram = moment = torch.zeros((), dtype=torch.float64, device=inputs.device)
    for x, residual in _residuals(network, owner, inputs, targets, train):
        gram, moment = gram + x.T @ x / len(train), moment + x.T @ residual / len(train)
    eigenvalue, basis = torch.linalg.eigh(gram)
    shrunk = 1.0 / (eigenvalue.clamp(min=0.0) + eigenvalue.new_tensor(RIDGES)[:, None])  # (R, D)
    solved = basis @ (shrunk[:, None, :, None] * (basis.T @ moment))  # (R, E, D, C)
    candidates = torch.cat([solved, torch.zeros_like(solved[:1])])
    error = torch.zeros((), dtype=torch.float64, device=inputs.device)
    for x, residual in _residuals(network, owner, inputs, targets, held_out):
        error = error + (residual - x @ candidates).square().sum(2)  # (R + 1, E, C)
    best = error.argmin(0)[None, :, None, :].expand(1, *moment.shape)
    chosen = candidates.gather(0, best)[0].to(skip.weight.dtype)
    skip.weight[own] += chosen[:, :-1]
    skip.bias[own] += chosen[:, -1:]
    if network.normalise_targets:
        left = torch.zeros((), dtype=torch.float64, device=inputs.device)
        for _, residual in _residuals(network, owner, inputs, targets, train, perceptron=False):
            left = left + residual.square().sum(1, keepdim=True) / len(train)
        unit = network.target_scale[own] * left.sqrt().to(network.spread.dtype)
        network.rescale(owner, torch.maximum(unit, _FLOOR * network.spread[own]))


def _residuals(
    network: GaussianStack, owner: int, inputs: Tensor, targets: Tensor, rows: Tensor, perceptron: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunk by chunk, standardised inputs with a constant `(B, D)`, and `(E, B, C)` what the means leave of targets.

    Everything is float64; `perceptron` says whether its means count, beside those of the linear path.
    """
    own = network.own(owner)
    weights = network.select(own)
    mean, scale = network.target_mean[own], network.target_scale[own]
    for at in torch.split(rows, _CHUNK):
        x = (inputs[at] - network.input_mean[own][0]) / network.input_std[own][0]
        ones = torch.cat([x, torch.ones_like(x[:, :1])], 1).double()
        if perceptron or weights.skip is None:
            predicted, _, _ = network.evaluate(inputs[at], weights)
        else:
            predicted = x @ weights.skip[0] + weights.skip[1]
        residual = (targets[at] - mean) / torch.where(scale > 0, scale, 1.0) - predicted
        yield ones, (residual * (scale > 0)).double()
