"""A stack of probabilistic networks: mean and variance of some columns each, and the log-odds of some flags.

It knows inputs and targets only; what the columns mean is the business of `dynamics`, how they are fitted of `fit`.

Shape suffixes: M networks in the stack, laid out as (owner, member); B batch, C predicted columns, L flags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from presage.common.networks import Activation, Normaliser, StackedLinear, StackedMLP

STATISTICS = ("input_mean", "input_std", "target_mean", "target_scale", "spread")
"""buffers that belong to a network as its weights do: one entry per network of the stack"""


class Prediction(NamedTuple):
    """What every network of a stack says about its rows, in the targets' own units."""

    mean: Tensor
    """(M, B, C)"""
    std: Tensor
    """(M, B, C); 0 in columns that never varied in the training rows"""
    logits: Tensor
    """(M, B, L) log-odds of the flags"""


class GaussianStack(nn.Module):
    """`owners * members` networks `inputs -> (mean, log-variance) of C columns, log-odds of L flags`.

    Inputs and targets are standardised with statistics of the training rows. A column whose target never varied there
    is predicted as that constant with zero spread, and takes no part in the loss.
    The log-variance is held between two bounds by `bounded` (PETS, Chua et al. 2018, A.1).
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_scale: Tensor
    spread: Tensor
    """(M, 1, C) standard deviation of the targets in the training rows; 0 in columns that never varied"""
    elites: Tensor
    fitted: Tensor

    def __init__(
        self,
        *,
        owners: int,
        members: int,
        elites: int,
        inputs: int,
        columns: int,
        flags: int,
        hidden: Sequence[int],
        activation: Activation,
        linear_skip: bool,
        normalise_targets: bool,
        log_variance: tuple[float, float],
        learned_bounds: bool,
        unscaled: Sequence[int],
        rng: torch.Generator,
    ) -> None:
        """
        Args:
            owners, members: M is their product. elites: members per owner that imagine.
            inputs, columns, flags, hidden, activation: the widths of one network.
            linear_skip: add an affine map of the inputs to the means.
            normalise_targets: divide targets by their standard deviation, so that every column weighs alike.
            log_variance: first lower and upper bound. learned_bounds: whether training moves them.
            unscaled: inputs that are left as they are (their range is known beforehand).
            rng: draws the weights.
        """
        super().__init__()
        stack = owners * members
        self.owners, self.members, self.columns, self.flags = owners, members, columns, flags
        self.normalise_targets, self.unscaled = normalise_targets, tuple(unscaled)
        self.mlp = StackedMLP(stack, inputs, hidden, 2 * columns + flags, rng, activation, "truncated_normal")
        self.skip = StackedLinear(stack, inputs, columns, rng, "truncated_normal") if linear_skip and columns else None
        self.lower = nn.Parameter(torch.full((stack, 1, columns), log_variance[0]), requires_grad=learned_bounds)
        self.upper = nn.Parameter(torch.full((stack, 1, columns), log_variance[1]), requires_grad=learned_bounds)
        for name in STATISTICS:
            width, value = inputs if name.startswith("input") else columns, 0.0 if name.endswith("mean") else 1.0
            self.register_buffer(name, torch.full((stack, 1, width), value))
        self.register_buffer("elites", torch.arange(elites).repeat(owners, 1))
        self.register_buffer("fitted", torch.zeros(owners, dtype=torch.bool))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-variance `(M, B, C)` in standardised units, and log-odds `(M, B, L)`.

        Args:
            inputs: `(M, B, inputs)` raw; or `(B, inputs)` for a stack whose networks all have the same statistics.
        """
        shared = inputs.ndim == 2
        mean, std = (self.input_mean[0], self.input_std[0]) if shared else (self.input_mean, self.input_std)
        x = (inputs - mean) / std
        out = self.mlp(x)
        mean, raw, logits = torch.split(out, [self.columns, self.columns, self.flags], dim=-1)
        if self.skip is not None:
            mean = mean + self.skip(x)
        return mean, bounded(raw, self.lower, self.upper), logits

    def select(self, index: Tensor) -> dict[str, Tensor]:
        """Copies of the networks `index` of the stack, detached, for `predict`."""
        tensors = {**dict(self.named_parameters()), **{name: getattr(self, name) for name in STATISTICS}}
        return {name: tensor.detach()[index] for name, tensor in tensors.items()}

    def elite_index(self) -> Tensor:
        """`(owners * elites,)` positions in the stack of every owner's elites, owner by owner, best first."""
        start = torch.arange(self.owners, device=self.elites.device)[:, None] * self.members
        return (start + self.elites).flatten()

    def predict(self, inputs: Tensor, networks: Mapping[str, Tensor] | None = None) -> Prediction:
        """Predictions in the targets' units, by `networks` (from `select`) or by the whole stack.

        Args:
            inputs: as for `forward`, M being the number of networks asked.
        """
        if networks is None:
            scale, offset = self.target_scale, self.target_mean
            mean, log_variance, logits = self(inputs)
        else:
            scale, offset = networks["target_scale"], networks["target_mean"]
            mean, log_variance, logits = torch.func.functional_call(self, dict(networks), (inputs,))
        return Prediction(offset + scale * mean, scale * (0.5 * log_variance).exp(), logits)

    def standardise(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Targets `(M, B, C)` in standardised units, and `(M, 1, C)` 1.0 where the column varies, else 0.0."""
        live = (self.target_scale > 0).to(targets.dtype)
        return (targets - self.target_mean) / torch.where(live > 0, self.target_scale, 1.0), live

    @torch.no_grad()
    def take_statistics(self, owner: int, inputs: Tensor, targets: Tensor) -> None:
        """Standardise owner's inputs and targets by those of `inputs (B, inputs)` and `targets (B, C)` from now on.

        Networks that were fitted before keep predicting what they did: the change is absorbed by their outer layers.
        """
        x, y = Normaliser(inputs.shape[1]).to(inputs.device), Normaliser(targets.shape[1]).to(targets.device)
        x.fit(inputs)
        y.fit(targets)
        x.mean[list(self.unscaled)], x.std[list(self.unscaled)] = 0.0, 1.0
        live = targets.double().std(0, unbiased=False) >= 1e-6
        spread = torch.where(live, y.std, 0.0)
        scale = spread if self.normalise_targets else live.to(spread.dtype)
        offset = y.mean if self.normalise_targets else torch.where(live, 0.0, y.mean)
        own = slice(owner * self.members, (owner + 1) * self.members)
        if self.fitted[owner]:
            self._absorb(own, x.mean, x.std, offset, scale)
        for name, value in zip(STATISTICS, (x.mean, x.std, offset, scale, spread), strict=True):
            getattr(self, name)[own] = value
        self.fitted[owner] = True

    def _absorb(self, own: slice, input_mean: Tensor, input_std: Tensor, offset: Tensor, scale: Tensor) -> None:
        """Rewrite the outer layers of the networks `own` so that new statistics leave their predictions as they are."""
        stretch = (input_std / self.input_std[own]).transpose(1, 2)
        move = (input_mean - self.input_mean[own]) / self.input_std[own]
        first, last = self.mlp.layers[0], self.mlp.layers[-1]
        for layer in [first] if self.skip is None else [first, self.skip]:
            layer.bias[own] += move @ layer.weight[own]
            layer.weight[own] *= stretch
        both = (self.target_scale[own] > 0) & (scale > 0)  # a column that was or became constant starts anew
        ratio = torch.where(both, self.target_scale[own] / torch.where(scale > 0, scale, 1.0), 1.0)
        shift = torch.where(both, (self.target_mean[own] - offset) / torch.where(scale > 0, scale, 1.0), 0.0)
        columns = slice(0, self.columns)
        last.weight[own, :, columns] *= ratio
        last.bias[own, :, columns] = last.bias[own, :, columns] * ratio + shift
        if self.skip is not None:
            self.skip.weight[own] *= ratio
            self.skip.bias[own] *= ratio
        if self.lower.requires_grad:
            last.bias[own, :, self.columns : 2 * self.columns] += 2 * ratio.log()
            self.lower[own] += 2 * ratio.log()
            self.upper[own] += 2 * ratio.log()


def bounded(raw: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """`raw` held between `lower` and `upper` with a gradient everywhere: two softplus folds (PETS, Chua et al. 2018).

    The fold at `lower` comes last and lifts the top by `log(1 + exp(lower - upper))`.
    """
    below = upper - nn.functional.softplus(upper - raw)
    return lower + nn.functional.softplus(below - lower)


def gaussian_nll(mean: Tensor, log_variance: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """`(mean - target)^2 exp(-v) + v` averaged over rows and weighted columns, per network `(M,)`.

    Twice the negative log-likelihood up to a constant (MBPO, Janner et al. 2019; no 1/2, no log 2 pi).

    Args:
        mean, log_variance, target: `(M, B, C)`. weight: `(M, 1, C)`, 0 for columns left out.
    """
    each = ((mean - target).square() * (-log_variance).exp() + log_variance) * weight
    return each.mean(1).sum(-1) / weight.sum((1, 2)).clamp(min=1.0)
