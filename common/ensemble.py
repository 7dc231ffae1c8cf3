"""A stack of probabilistic networks: mean and variance of some columns each, and the log-odds of some flags.

It knows inputs and targets only; what the columns mean is the business of `dynamics`, how they are fitted of `fit`.

Shape suffixes: M networks in the stack, laid out as (owner, member); B batch, C predicted columns, L flags.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from presage.common.networks import (
    LIPSCHITZ,
    Activation,
    Initialisation,
    Normaliser,
    StackedLinear,
    StackedMLP,
    affine,
    hold_norm,
    stacked_linear,
)

STATISTICS = ("input_mean", "input_std", "target_mean", "target_scale", "spread", "noise")
"""buffers that belong to a network as its weights do: one entry per network of the stack"""
CHUNK = 250
"""rows of a network that a processor takes through all layers before the next ones: what they become stays in its
cache, and many rows cost half as much"""
WHOLE, WHOLE_PLANS = 2 * CHUNK, 8 * CHUNK
"""rows up to which that is not worth while, and up to which it is not for plans, which ask some thousand rows again and
again (measured in `benchmarks/ensemble_speed.py`)"""


class Prediction(NamedTuple):
    """What every network of a stack says about its rows, in the targets' own units."""

    mean: Tensor
    """(M, B, C)"""
    std: Tensor
    """(M, B, C); 0 in columns that never varied in the training rows, and everywhere where no noise is learned"""
    logits: Tensor
    """(M, B, L) log-odds of the flags"""


class Networks(NamedTuple):
    """Some networks of a stack: all that their predictions depend on."""

    layers: list[tuple[Tensor, Tensor]]
    """weights `(M, in, out)` and biases `(M, 1, out)` of the perceptrons"""
    skip: tuple[Tensor, Tensor] | None
    """of the linear path"""
    lower: Tensor
    upper: Tensor
    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_scale: Tensor
    noise: Tensor

    def at(self, index: Tensor | slice) -> Networks:
        """Those at `index`, detached; copies where it is a tensor."""
        layers = [(weight.detach()[index], bias.detach()[index]) for weight, bias in self.layers]
        skip = None if self.skip is None else (self.skip[0].detach()[index], self.skip[1].detach()[index])
        return Networks(layers, skip, *(tensor.detach()[index] for tensor in self[2:]))


class GaussianStack(nn.Module):
    """`owners * members` networks `inputs -> (mean, log-variance) of C columns, log-odds of L flags`.

    Inputs and targets are standardised with statistics of the training rows. A column whose target never varied there
    (standard deviation under 1e-6) is predicted as that constant with zero spread, and takes no part in the loss.
    The log-variance is held between two bounds by `bounded`. Beside the multilayer perceptron there can be a linear
    path from the inputs to the means; it is solved in closed form (`linear_path`), and never trained by gradients.
    Without noise (`noisy=False`) a network predicts means and log-odds alone: its log-variance counts as 0.
    With `lipschitz` the means' slope is bounded: weights are held to norms whose product, with the activations' own
    slopes, is at most that.
    """

    checkpoint_skip = ("_settled", "_kept")
    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_scale: Tensor
    """(M, 1, C) one standardised unit; 0 in columns that never varied"""
    spread: Tensor
    """(M, 1, C) standard deviation of the targets in the training rows; 0 in columns that never varied"""
    noise: Tensor
    """(M, 1, C) factor on the predicted standard deviations that makes them right on held-out rows"""
    elites: Tensor
    """(owners, elites) members, best held-out score first"""
    fitted: Tensor
    """(owners,) bool: whose networks have been through a fit"""

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
        noisy: bool = True,
        lipschitz: float | None = None,
    ) -> None:
        """
        Args:
            owners, members: M is their product. elites: members per owner that imagine.
            inputs, columns, flags, hidden, activation: the widths of one network.
            linear_skip: add a linear path from the inputs to the means; the perceptron's own means then start at zero.
            normalise_targets: count targets in units of their standard deviation, or of what the linear path leaves.
            log_variance: first lower and upper bound. learned_bounds: whether training moves them.
            unscaled: inputs that are left as they are (their range is known beforehand).
            rng: draws the weights.
            noisy: whether variances are predicted beside the means.
            lipschitz: bound on how fast the perceptrons' means change, in standardised units; None for no bound.
        """
        super().__init__()
        stack = owners * members
        self.owners, self.members, self.columns, self.flags = owners, members, columns, flags
        self.noisy, self.variances = noisy, columns if noisy else 0
        self.normalise_targets, self.unscaled = normalise_targets, list(unscaled)
        # gradients that have to come through a head of zeros and many shrinking layers would lose against weight decay
        init: Initialisation = "preserving" if linear_skip and columns and len(hidden) > 2 else "truncated_normal"
        self.mlp = StackedMLP(stack, inputs, hidden, columns + self.variances + flags, rng, activation, init)
        self.skip: StackedLinear | None = None
        if linear_skip and columns:
            self.skip = StackedLinear(stack, inputs, columns, rng, "truncated_normal").requires_grad_(False)
            nn.init.zeros_(self.head.weight[..., :columns].data)
        if normalise_targets and log_variance[1] > 0:  # start at a log-variance of 0: the noise of one unit
            raw = log_variance[1] - math.log(math.expm1(log_variance[1]))
            nn.init.constant_(self.head.bias[..., columns : columns + self.variances].data, raw)
        self.layer_norm: float | None = None
        if lipschitz is not None:  # every layer has the same share of the bound
            self.layer_norm = (lipschitz / LIPSCHITZ[activation] ** len(hidden)) ** (1 / (len(hidden) + 1))
            for k, width in enumerate([*hidden, columns]):
                self.register_buffer(f"direction_{k}", torch.randn(stack, width, generator=rng))
            self.hold_norms(exact=True)
        self.lower = nn.Parameter(torch.full((stack, 1, self.variances), log_variance[0]), requires_grad=learned_bounds)
        self.upper = nn.Parameter(torch.full((stack, 1, self.variances), log_variance[1]), requires_grad=learned_bounds)
        for name in STATISTICS:
            width, value = inputs if name.startswith("input") else columns, 0.0 if name.endswith("mean") else 1.0
            self.register_buffer(name, torch.full((stack, 1, width), value))
        self.register_buffer("elites", torch.arange(elites).repeat(owners, 1))
        self.register_buffer("fitted", torch.zeros(owners, dtype=torch.bool))
        self._settled = True
        self._kept: tuple[list[tuple[int, int]], Networks] | None = None

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-variance `(M, B, C)` in standardised units, and log-odds `(M, B, L)`.

        Args:
            inputs: `(M, B, inputs)` raw; or `(B, inputs)` for a stack whose networks all have the same statistics.
        """
        self._settled = self._settled and not torch.is_grad_enabled()
        return self.evaluate(inputs, self.networks())

    def evaluate(self, inputs: Tensor, networks: Networks, chunk: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What `forward` returns, of `networks`, M being their number; `chunk` as in `StackedMLP.run`."""
        center, scale = networks.input_mean, networks.input_std
        x = (inputs - center[0]) / scale[0] if inputs.ndim == 2 else (inputs - center) / scale
        said = self.mlp.run(x, networks.layers, chunk)
        mean, raw, logits = torch.split(said, [self.columns, self.variances, self.flags], dim=-1)
        if networks.skip is not None:
            mean = mean + affine(x, *networks.skip)
        return mean, bounded(raw, networks.lower, networks.upper) if self.noisy else torch.zeros_like(mean), logits

    def networks(self) -> Networks:
        """All networks of the stack."""
        skip = None if self.skip is None else (self.skip.weight, self.skip.bias)
        return Networks(
            self.mlp.weights(), skip, self.lower, self.upper, self.input_mean, self.input_std, self.target_mean,
            self.target_scale, self.noise,
        )  # fmt: skip

    @property
    def first(self) -> StackedLinear:
        """The perceptrons' input layer."""
        return stacked_linear(self.mlp.layers[0])

    @property
    def head(self) -> StackedLinear:
        """The perceptrons' last layer."""
        return stacked_linear(self.mlp.layers[-1])

    def own(self, owner: int) -> slice:
        """Where in the stack the networks of `owner` are."""
        return slice(owner * self.members, (owner + 1) * self.members)

    def select(self, index: Tensor | slice) -> Networks:
        """The networks at `index` of the stack, detached, for `predict`; copies where `index` is a tensor."""
        return self.networks().at(index)

    def elite_index(self) -> Tensor:
        """`(owners * elites,)` positions in the stack of every owner's elites, owner by owner, best first."""
        start = torch.arange(self.owners, device=self.elites.device)[:, None] * self.members
        return (start + self.elites).flatten()

    def elite_networks(self) -> Networks:
        """Copies of every owner's elites, in the order of `elite_index`.

        They are kept and handed out again until a tensor of the stack is written to. Fused optimisers write without
        leaving a trace: from a training pass (`forward` with gradients) on until `settle`, copies are made every time.
        """
        held = [self.elites, *self.parameters(), *(getattr(self, name) for name in STATISTICS)]
        state = [(tensor.data_ptr(), tensor._version) for tensor in held]
        if self._kept is None or not self._settled or self._kept[0] != state:
            self._kept = state, self.select(self.elite_index())
        return self._kept[1]

    def settle(self) -> None:
        """Tell that training has ended, and that nothing is written by a fused optimiser before the next pass."""
        self._settled, self._kept = True, None

    def predict(self, inputs: Tensor, networks: Networks, whole: int = WHOLE) -> Prediction:
        """Predictions of `networks` (from `select`) in the targets' units.

        Args:
            inputs: as for `forward`, M being the number of networks asked.
            whole: most rows of a network that a CPU takes through all layers at once, and not in parts.
        """
        many = inputs.device.type == "cpu" and inputs.shape[-2] > whole
        mean, log_variance, logits = self.evaluate(inputs, networks, CHUNK if many else None)
        scale = networks.target_scale
        std = scale * networks.noise * (0.5 * log_variance).exp() if self.noisy else torch.zeros_like(mean)
        return Prediction(networks.target_mean + scale * mean, std, logits)

    def standardise(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Targets `(M, B, C)` in standardised units, and `(M, 1, C)` 1.0 where the column varies, else 0.0."""
        live = (self.target_scale > 0).to(targets.dtype)
        return (targets - self.target_mean) / torch.where(live > 0, self.target_scale, 1.0), live

    @torch.no_grad()
    def hold_norms(self, *, exact: bool = False) -> None:
        """Scale weights down to the spectral norms that a Lipschitz bound allows; nothing where there is none.

        Of the last layer only what leads to the means is held: variances and log-odds may change faster.

        Args:
            exact: so that the bound holds to rounding; otherwise by an estimate that is better with every call.
        """
        if self.layer_norm is None:
            return
        for k, layer in enumerate(self.mlp.layers):
            whole = stacked_linear(layer).weight
            weight = whole[..., : self.columns] if layer is self.head else whole
            if weight.numel():
                hold_norm(weight, self.layer_norm, self.get_buffer(f"direction_{k}"), exact=exact)

    @torch.no_grad()
    def take_statistics(self, owner: int, inputs: Tensor, targets: Tensor) -> None:
        """Standardise owner's inputs and targets by those of `inputs (B, inputs)` and `targets (B, C)` from now on.

        Networks that were fitted before keep predicting what they did: their outer layers absorb the change.
        """
        x, y = Normaliser(inputs.shape[1]).to(inputs.device), Normaliser(targets.shape[1]).to(targets.device)
        x.fit(inputs)
        y.fit(targets)
        x.mean[self.unscaled], x.std[self.unscaled] = 0.0, 1.0
        live = targets.double().std(0, unbiased=False) >= 1e-6
        offset = y.mean if self.normalise_targets else torch.where(live, 0.0, y.mean)
        own = self.own(owner)
        before = self.target_scale[own].clone()
        was_live = (before > 0) & self.fitted[owner]
        if self.fitted[owner]:
            move = (x.mean - self.input_mean[own]) / self.input_std[own]
            stretch = (x.std / self.input_std[own]).transpose(1, 2)
            for layer in [self.first] if self.skip is None else [self.first, self.skip]:
                layer.bias[own] += move @ layer.weight[own]
                layer.weight[own] *= stretch
            shift = torch.where(was_live & live, (self.target_mean[own] - offset) / before.clamp(min=1e-30), 0.0)
            self.head.bias[own, :, : self.columns] += shift
        self.input_mean[own], self.input_std[own], self.target_mean[own] = x.mean, x.std, offset
        self.spread[own] = torch.where(live, y.std, 0.0)
        fresh = self.spread[own] if self.normalise_targets else torch.ones_like(before)
        self.target_scale[own] = torch.where(live, torch.where(was_live, before, fresh), 0.0)

    @torch.no_grad()
    def rescale(self, owner: int, scale: Tensor) -> None:
        """Count owner's targets in units of `scale (members, 1, C)` from now on; the means stay as they are.

        So does the noise of networks that were fitted before, where the variance bounds are learned. Columns that do
        not vary are left alone.
        """
        own = self.own(owner)
        live = self.target_scale[own] > 0
        ratio = torch.where(live, self.target_scale[own] / torch.where(live, scale, 1.0), 1.0)
        self.target_scale[own] = torch.where(live, scale, 0.0)
        for layer in [self.head] if self.skip is None else [self.head, self.skip]:
            layer.weight[own, :, : self.columns] *= ratio
            layer.bias[own, :, : self.columns] *= ratio
        if self.noisy and self.lower.requires_grad and self.fitted[owner]:
            for bound in (self.lower[own], self.upper[own], self.head.bias[own, :, self.columns : 2 * self.columns]):
                bound += 2 * ratio.log()


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
    each = (mean - target).square() * (-log_variance).exp() + log_variance
    return _mean(each, weight)


def least_squares(mean: Tensor, log_variance: Tensor, target: Tensor, weight: Tensor, variance_weight: float) -> Tensor:
    """Squared error of the means plus, with a small weight, the likelihood of the variances given the means.

    The likelihood alone gives up on rows that are hard to predict: it calls them noise, and then they hardly count
    (Seitzer et al. 2022; Stirn et al. 2023). Arguments and result as for `gaussian_nll`.
    """
    error = (mean - target).square()
    doubt = error.detach() * (-log_variance).exp() + log_variance
    return _mean(error + variance_weight * doubt, weight)


def squared_error(mean: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """`(mean - target)^2` averaged over rows and weighted columns, per network `(M,)`; see `gaussian_nll`."""
    return _mean((mean - target).square(), weight)


def _mean(each: Tensor, weight: Tensor) -> Tensor:
    """Mean over rows and weighted columns of `(M, B, C)`."""
    return (each.mean(1) * weight[:, 0]).sum(-1) / weight.sum((1, 2)).clamp(min=1.0)
