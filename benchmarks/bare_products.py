"""What no code can leave out of an ensemble's work: its bare matrix products, and the kernels beside them.

Products are written into tensors that exist already: allocating is not multiplying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn


def products(stack: int, rows: int, widths: Sequence[int], *, backward: bool) -> Callable[[], None]:
    """Every product of one pass of `rows` rows through each of `stack` networks, into tensors that exist already.

    Args:
        widths: of the layers, input to output.
        backward: the gradients of all weights, and of the inputs of all layers but the first, as well.
    """
    calls: list[Callable[[], Tensor]] = []
    for k, (fan_in, fan_out) in enumerate(pairwise(widths)):
        x, w, g = (torch.randn(stack, *shape) for shape in ((rows, fan_in), (fan_in, fan_out), (rows, fan_out)))
        calls.append(partial(torch.bmm, x, w, out=torch.empty_like(g)))
        if backward:
            calls.append(partial(torch.bmm, x.transpose(1, 2), g, out=torch.empty_like(w)))
            if k > 0:
                calls.append(partial(torch.bmm, g, w.transpose(1, 2), out=torch.empty_like(x)))

    def run() -> None:
        for call in calls:
            call()

    return run


def floor_of_fit(stack: int, rows: int, widths: Sequence[int]) -> Callable[[], None]:
    """A gradient step's products, and what cannot be left out beside them: activations, their derivatives, Adam's step.

    Args:
        stack, rows, widths: as of `products`.
    """
    multiply = products(stack, rows, widths, backward=True)
    hidden = [torch.randn(stack, rows, width) for width in widths[1:-1]]
    weights = [nn.Parameter(torch.randn(stack, *shape)) for shape in pairwise(widths)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    adam = torch.optim.Adam(weights, fused=True)

    def run() -> None:
        multiply()
        for x in hidden:
            torch.ops.aten.silu_backward(nn.functional.silu(x), x)
        adam.step()

    return run


def floor_of_imagining(stack: int, rows: int, widths: Sequence[int]) -> Callable[[], None]:
    """An imagined step's products, and what cannot be left out beside them: activations, rows gathered for members and
    given back, noise.

    Args:
        stack, widths: as of `products`. rows: of all networks together.
    """
    multiply, order = products(stack, rows // stack, widths, backward=False), torch.randperm(rows)
    hidden = [torch.randn(stack, rows // stack, width) for width in widths[1:-1]]
    inputs, outputs = torch.randn(rows, widths[0]), torch.randn(rows, widths[-1])

    def run() -> None:
        inputs.index_select(0, order)
        multiply()
        for x in hidden:
            nn.functional.silu(x, inplace=True)
        torch.randn(rows, widths[-1] // 2).addcmul_(*outputs.index_select(0, order).chunk(2, 1))

    return run
