"""Stacked networks: many equal networks (ensemble members, agents, twin critics) evaluated as one batched product.

Shape suffixes: M networks in the stack, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from presage.common.geometry import Geometry

Activation = Literal["relu", "silu", "tanh"]
Initialisation = Literal["uniform", "truncated_normal", "preserving"]


def _graded(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _silu(x: Tensor) -> Tensor:
    return nn.functional.silu(x, inplace=not _graded(x))


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {  # in place, as far as gradients allow
    "relu": torch.relu_,
    "silu": _silu,
    "tanh": torch.tanh_,
}


LIPSCHITZ: dict[Activation, float] = {"relu": 1.0, "silu": 1.09984, "tanh": 1.0}
"""largest slope of every activation; that of silu, 1.0998394 at 2.3994, rounded up"""


class StackedLinear(nn.Module):
    """`M` affine maps in one batched product.

    Inputs are `(M, B, in)`, one for each map; `(B, in)`, read by all; or `(m, B, in)` with `M = k m`, where map
    `j m + i` reads input `i` (twin critics of m agents: k = 2). The output is `(M, B, out)`.
    """

    def __init__(
        self, stack: int, inputs: int, outputs: int, rng: torch.Generator, init: Initialisation = "uniform"
    ) -> None:
        """
        Args:
            stack: M, the number of maps. inputs, outputs: their widths.
            rng: draws the weights (on the CPU, so that every device starts alike).
            init: "uniform" is torch's own for `nn.Linear`, bound 1/sqrt(in) for weights and biases;
                "truncated_normal" is the model ensembles' (PETS, MBPO): std 1/(2 sqrt(in)) cut at two std, zero bias;
                "preserving" is the same at twice the width, so that signals keep their size through many layers.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.empty(stack, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(stack, 1, outputs))
        with torch.no_grad():
            if init != "uniform":
                std = (0.5 if init == "truncated_normal" else 1.0) / math.sqrt(inputs)
                nn.init.trunc_normal_(self.weight, 0.0, std, -2 * std, 2 * std, generator=rng)
            else:
                bound = 1.0 / math.sqrt(inputs)
                self.weight.uniform_(-bound, bound, generator=rng)
                self.bias.uniform_(-bound, bound, generator=rng)

    def forward(self, x: Tensor, *, frozen: bool = False) -> Tensor:
        """The maps of `x`; `frozen` lets gradients through to `x` only and saves the weights' share of the work."""
        weight, bias = (self.weight.detach(), self.bias.detach()) if frozen else (self.weight, self.bias)
        return affine(x, weight, bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The maps `weight (M, in, out)`, `bias (M, 1, out)` of inputs as in `StackedLinear`: `(M, B, out)`."""
    if x.ndim == 2:
        x = x.expand(len(weight), -1, -1)
    elif len(x) < len(weight):  # copying narrow inputs is cheaper than rearranging wide outputs
        x = x.repeat(len(weight) // len(x), 1, 1)
    if weight.shape[2] == 1:  # values: batched products with one column are several times slower
        return (x * weight.transpose(1, 2)).sum(2, keepdim=True) + bias
    return torch.baddbmm(bias, x, weight)


def stacked_linear(layer: nn.Module) -> StackedLinear:
    """`layer`, which has to be a `StackedLinear`.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(layer, StackedLinear):
        raise TypeError(f"expected a stacked layer, got {type(layer).__name__}")
    return layer


class StackedMLP(nn.Module):
    """`M` multilayer perceptrons of one shape; inputs as in `StackedLinear`, outputs `(M, B, out)`."""

    def __init__(
        self,
        stack: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        rng: torch.Generator,
        activation: Activation = "relu",
        init: Initialisation = "uniform",
        vectors: Sequence[Sequence[int]] = (),
    ) -> None:
        """
        Args:
            stack: M. inputs, hidden, outputs: the layers' widths; `hidden` may be empty (an affine map).
            rng: draws the weights, layer by layer. activation: after every hidden layer. init: see `StackedLinear`.
            vectors: groups of input columns that form vectors, whose lengths and directions the first layer reads too.

        Raises:
            ValueError: a width or the stack is below 1, or the activation is unknown.
        """
        super().__init__()
        widths = [inputs, *hidden, outputs]
        if stack < 1 or min(widths) < 1:
            raise ValueError(f"a stacked network needs stack >= 1 and widths >= 1, got stack={stack}, widths={widths}")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is unknown; choose one of {', '.join(_ACTIVATIONS)}")
        self.stack, self.inputs, self.outputs = stack, inputs, outputs
        self.activation: Activation = activation
        self.geometry = Geometry(vectors)
        widths[0] += self.geometry.width
        self.layers = nn.ModuleList(
            StackedLinear(stack, fan_in, fan_out, rng, init) for fan_in, fan_out in pairwise(widths)
        )

    def forward(self, x: Tensor, *, frozen: bool = False) -> Tensor:
        """The networks' outputs `(M, B, out)`; `frozen` as in `StackedLinear.forward`."""
        layers = self.weights()
        return self.run(x, [(weight.detach(), bias.detach()) for weight, bias in layers] if frozen else layers)

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Weights `(M, in, out)` and biases `(M, 1, out)`, layer by layer."""
        return [(layer.weight, layer.bias) for layer in map(stacked_linear, self.layers)]

    def run(self, x: Tensor, layers: Sequence[tuple[Tensor, Tensor]], chunk: int | None = None) -> Tensor:
        """The outputs of networks of this shape that have the weights and biases `layers`.

        Args:
            chunk: rows that go through all layers before the next ones do, where gradients are not asked for; None: all
                at once.
        """
        rows = x.shape[-2]
        if chunk is None or rows <= chunk or _graded(x, *chain.from_iterable(layers)):
            return self._run(x, layers)
        out = x.new_empty(len(layers[0][0]), rows, self.outputs)
        for some, answer in zip(torch.split(x, chunk, -2), torch.split(out, chunk, -2), strict=True):
            answer.copy_(self._run(some, layers))
        return out

    def _run(self, x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        activate = _ACTIVATIONS[self.activation]
        x = self.geometry(x)
        for weight, bias in layers[:-1]:
            x = activate(affine(x, weight, bias))
        return affine(x, *layers[-1])

    def member(self, index: int) -> nn.Sequential:
        """Network `index` alone as ordinary torch layers that hold copies of its weights."""
        plain: list[nn.Module] = [self.geometry] if self.geometry.width else []
        for layer in map(stacked_linear, self.layers):
            fan_in, fan_out = layer.weight.shape[1:]
            linear = nn.Linear(fan_in, fan_out).to(layer.weight)
            with torch.no_grad():
                linear.weight.copy_(layer.weight[index].T)
                linear.bias.copy_(layer.bias[index, 0])
            plain += [linear, {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}[self.activation]()]
        return nn.Sequential(*plain[:-1])


@torch.no_grad()
def hold_norm(weight: Tensor, most: float, direction: Tensor, *, exact: bool) -> None:
    """Scale the maps `weight (M, in, out)` in place so that none has a spectral norm above `most`; smaller ones stay.

    The projection of Gouk, Frank, Pfahringer, Cree 2018 (1804.04368, section 3), with norms by power iteration as in
    Miyato, Kataoka, Koyama, Yoshida 2018 (1802.05957, algorithm 1).

    Args:
        direction: `(M, out)` estimates of the leading right singular vectors, improved in place.
        exact: take the norm from a singular value decomposition, instead of one step of power iteration, whose estimate
            is never too large, and so holds the norm a little less than asked.
    """
    if exact:
        finite = weight.isfinite().all(2, keepdim=True).all(1, keepdim=True)  # what diverged stays as it is
        _, values, right = torch.linalg.svd(torch.where(finite, weight, 0.0), full_matrices=False)
        norm = values[:, 0]
        direction.copy_(right[:, 0])
    else:
        left = nn.functional.normalize(weight @ direction[..., None], dim=1)
        image = (weight.transpose(1, 2) @ left)[..., 0]
        norm = image.norm(dim=1)
        direction.copy_(nn.functional.normalize(image, dim=1))
    weight *= (most / norm.clamp_min(1e-12)).clamp_max(1.0)[:, None, None]


class Normaliser(nn.Module):
    """Running mean and standard deviation per column, saved with the network that uses them; accumulated in float64.

    Columns with a standard deviation under 1e-6 are left unscaled.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, rows: Tensor) -> None:
        """Take the statistics of `rows (B, width)`, replacing earlier ones."""
        exact = rows.double()
        std = exact.std(0, unbiased=False)
        self.mean.copy_(exact.mean(0))
        self.std.copy_(torch.where(std < 1e-6, torch.ones_like(std), std))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def invert(self, x: Tensor) -> Tensor:
        """The raw units of normalised rows."""
        return x * self.std + self.mean
