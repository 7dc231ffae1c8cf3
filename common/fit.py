"""Fitting a dynamics ensemble: held-out rows, bootstrapped members, early stopping and restoring member by member.

Shape suffixes: M networks in a stack (owner, member), B batch, C columns, L flags, W rows in a member's bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble, Regression, runs
from presage.common.ensemble import GaussianStack, gaussian_nll, least_squares, squared_error
from presage.common.game import Rows, Window
from presage.common.held_out_scores import HeldOut, by_group, held_out, mean_over_live
from presage.common.holdout import Numbered, Split, repeated, side_by_side
from presage.common.linear_path import solve_linear_path
from presage.common.symmetry import Renamings

_PERFECT = 1e-6
"""share of the variance below which a smaller error is no improvement"""

_MOST_RENAMED = 250_000
"""rows of a fit, renamed copies included"""

_LEAST_NOISE = 1e-3
"""smallest factor on a predicted standard deviation"""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How the networks of an ensemble are fitted."""

    learning_rate: float = 2e-3
    """Adam's step; > 0"""
    batch_size: int = 256
    """rows per member and update; >= 1"""
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
    """L2 in the loss (0.5 * decay * sum of squares) on weights, from the input layer to the head; stretched over
    networks of another depth, so that one entry serves every layer"""
    input_penalty: float = 0.0
    """weight of the group lasso (Yuan and Lin 2006) on the input layer: the sum over inputs of the norm of an input's
    weights, beside standardised errors. It silences inputs that do not pay, where rows are few and inputs many; >= 0"""
    loss: Literal["least_squares", "likelihood"] = "least_squares"
    """what fits the means: squared errors, or, as in the papers, the likelihood"""
    variance_weight: float = 0.01
    """with loss="least_squares", weight of the likelihood that fits the variances; > 0"""
    bound_penalty: float = 0.01
    """weight of sum(upper - lower) of learned variance bounds, relative to the likelihood of the variances"""
    gradient_clip: float | None = None
    """largest gradient norm of one member; None leaves gradients alone"""
    holdout: float = 0.2
    """share of the rows held out; in (0, 1)"""
    max_holdout: int = 5000
    """rows held out at most"""
    holdout_stretch: int = 100
    """consecutive steps of an episode that are held out together, so that held-out rows have no neighbours among the
    training rows; >= 1"""
    renamings: int = 8
    """copies of every training row, each under a random one of the renamings that the game declares to change nothing;
    fewer where rows are many (250,000 in all), none where every ego has an ensemble of its own, or where the ensemble
    reads every order alike (`canonical_order`); >= 0"""
    bootstrap: bool = False
    """every member trains on its own resample of the training rows (PETS, MBPO); otherwise on all of them, in an order
    of its own"""
    evaluate_every: int = 100
    """updates between two looks at the held-out rows; >= 1"""
    average: float = 0.0
    """share of itself that a running average of the weights keeps at every update, in [0, 1). With more than 0,
    averages are looked at and kept in place of the weights, which the last rows have pulled about (Polyak and Juditsky
    1992): worth it for fits that run to their end by large steps, as of likelihoods; it lags behind weights that still
    travel"""
    patience: int = 5
    """looks in a row without an improved member after which the fit ends; >= 1"""
    min_improvement: float = 0.01
    """what counts as improved: relative for score="error", nats per column for score="likelihood\""""
    score: Literal["error", "likelihood"] = "error"
    """what is compared on held-out rows: mean squared errors over the variances of the targets, or, where the noise
    itself matters, the NLL; plus the flags' cross-entropy in both"""
    calibrate: bool = False
    """multiply the predicted standard deviation of every column by the factor that makes it right on held-out rows: for
    penalties on uncertainty; where a few rows carry most of the error, the others get more noise than they need"""
    max_updates: int = 5000
    """updates of each network per fit at most; >= 1"""
    keep_optimiser: bool = True
    """carry Adam's moments from one fit to the next"""

    def __post_init__(self) -> None:
        names = ("batch_size", "evaluate_every", "patience", "max_updates", "max_holdout", "holdout_stretch")
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 1")
        if not 0 < self.holdout < 1:
            raise ValueError(f"holdout={self.holdout} must be a share in (0, 1)")
        if not self.variance_weight > 0:
            raise ValueError(f"variance_weight={self.variance_weight} must be > 0")
        if self.renamings < 0:
            raise ValueError(f"renamings={self.renamings} must be >= 0")
        if self.input_penalty < 0:
            raise ValueError(f"input_penalty={self.input_penalty} must be >= 0")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be > 0")
        if not self.weight_decay or min(self.weight_decay) < 0:
            raise ValueError(f"weight_decay={self.weight_decay} must hold at least one entry, all >= 0")
        if not 0 <= self.average < 1:
            raise ValueError(f"average={self.average} must lie in [0, 1)")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(f"gradient_clip={self.gradient_clip} must be > 0, or None")


@dataclass(frozen=True, kw_only=True)
class NetworkReport:
    """What one fit did to one network of the ensemble; scores are on held-out rows, after restoring."""

    updates: int
    epochs: float
    """updates in passes over the training rows"""
    train_loss: float
    """mean over members at the last update"""
    scores: list[float]
    """(M) the held-out score of every member"""
    elites: list[list[int]]
    """per owner, members by score, best first"""
    rmse: dict[str, float] = field(default_factory=dict)
    """per group of columns, in raw units: root mean square over its columns and the elites"""
    nll: dict[str, float] = field(default_factory=dict)
    """per group: nats per column that varies, in units of its standard deviation, left out where no noise is
    predicted; cross-entropy for flags; mean over the elites"""
    explained: dict[str, float] = field(default_factory=dict)
    """per group: 1 - error / variance, mean over the columns that vary and the elites"""


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What one fit did."""

    train_rows: int
    """of the owner with most rows"""
    held_out_rows: int
    networks: dict[str, NetworkReport]

    def metrics(self) -> dict[str, float]:
        """Plain numbers by name, for a logger."""
        found: dict[str, float] = {"train_rows": self.train_rows, "held_out_rows": self.held_out_rows}
        for name, report in self.networks.items():
            found |= {f"{name}_updates": report.updates, f"{name}_train_loss": report.train_loss}
            for kind in ("rmse", "nll", "explained"):
                found |= {f"{group}_{kind}": value for group, value in getattr(report, kind).items()}
        return found


class EnsembleFitter:
    """Fits a `DynamicsEnsemble` again and again on growing data (MBPO, Janner et al. 2019).

    Weights carry over from fit to fit. Every member of every network returns to its own best held-out score, the
    weights it came with included. Which rows are held out, and which of the others a member trains on, follows from a
    row's place in the history alone, so that both stay what they are as the data grow (see `holdout`).
    """

    def __init__(self, ensemble: DynamicsEnsemble, config: FitConfig, rng: torch.Generator) -> None:
        """
        Raises:
            ValueError: a likelihood, or a calibration of noise, is asked of members that predict means alone.
        """
        if ensemble.config.noise == "none" and ("likelihood" in (config.loss, config.score) or config.calibrate):
            raise ValueError(
                f"loss={config.loss!r}, score={config.score!r}, calibrate={config.calibrate} need a noise that members "
                "predict, and noise='none' predicts none; take loss='least_squares', score='error', calibrate=False, "
                "or noise='learned'"
            )
        self.ensemble, self.config = ensemble, config
        self.renamings = Renamings(ensemble.spec, next(ensemble.parameters()).device)
        self.salt = int(torch.randint(2**31 - 1, (1,), generator=rng, device=rng.device))
        self.fits = 0
        self.updates = 0
        names = ["state"] if ensemble.outcome_network is None else ["state", "outcome"]
        self.optimisers = {
            name: self._optimiser(network) for name, network in zip(names, ensemble.networks, strict=True)
        }

    def _optimiser(self, network: GaussianStack) -> torch.optim.Optimizer:
        """Adam with each layer's own decay; L2 in the loss is what Adam's coupled decay computes."""
        decays, layers = self.config.weight_decay, list(network.mlp.layers)
        groups: list[dict[str, Any]] = []
        for k, layer in enumerate(layers):
            decay = decays[round(k * (len(decays) - 1) / max(len(layers) - 1, 1))]
            groups.append({"params": [layer.weight], "weight_decay": decay})
        held = {id(p) for group in groups for p in group["params"]}
        rest = [p for p in network.parameters() if id(p) not in held and p.requires_grad]
        groups.append({"params": rest, "weight_decay": 0.0})
        return torch.optim.Adam(groups, lr=self.config.learning_rate, fused=True)

    def fit(
        self, rows: Rows, rng: torch.Generator, *, window: Window | None = None, lanes: int = 1, first: int = 0
    ) -> FitReport:
        """Fit every network on `rows (B)`; where owners differ, each on the rows of its ego and of all agents.

        An ensemble of several steps is fitted on all runs of as many rows inside one episode; a run is held out or
        trained on as its first row would be.

        Args:
            rng: orders the mini-batches, on the rows' device.
            window: the windows that end at the rows, where the game declares several frames.
            lanes: copies of the game; rows are ordered by time, then copy, as a replay serves them.
            first: env steps of each copy before `rows`, those that a full replay has forgotten.

        Raises:
            ValueError: too few rows to hold one out, or a number that is not finite.
        """
        config, owners = self.config, self.ensemble.config.owners
        numbered = Numbered.of(rows.ego, rows.step, lanes, first, config.holdout_stretch)
        following: list[Rows] = []
        if self.ensemble.steps > 1:
            start, *later = runs(rows, self.ensemble.steps, lanes)
            if not len(start):
                raise ValueError(f"no episode shows {self.ensemble.steps} steps in a row: nothing to fit on")
            numbered = Numbered(ego=numbered.ego[start], number=numbered.number[start], stretch=numbered.stretch[start])
            following = [rows[at] for at in later]
            rows, window = rows[start], None if window is None else window[start]
        split = Split.of(numbered, owners, config.holdout, config.max_holdout, self.salt)
        members = self.ensemble.config.members
        resamples = split.resamples(numbered, members, self.salt, config.bootstrap)
        images = self._images(len(rows))
        if images:
            split, resamples = split.repeated(images, len(rows)), repeated(resamples, images, len(rows))
            chosen = self.renamings.draw((images + 1) * len(rows), rng)
            chosen[: len(rows)] = 0  # as they are
            index = torch.arange(len(rows), device=rows.obs.device).repeat(images + 1)
            following = [self.renamings.rows(more[index], chosen) for more in following]
            rows = self.renamings.rows(rows[index], chosen)
            if window is not None:
                window = self.renamings.window(window[index], chosen)
        naming = self.ensemble.naming
        if naming is not None and naming.heads > 1:
            split, resamples = split.with_heads(naming.heads), side_by_side(resamples, naming.heads)
        regressions = self.ensemble.regressions(rows, window, following)
        for regression in regressions.values():
            _check_finite(regression)
        reports: dict[str, NetworkReport] = {}
        for name, regression in regressions.items():
            if not config.keep_optimiser:
                self.optimisers[name] = self._optimiser(regression.network)
            self._prepare(regression, split)
            reports[name] = self._train(regression, self.optimisers[name], split, resamples, rng)
            _forget_divergence(self.optimisers[name])
            self.updates += reports[name].updates
        self.fits += 1
        rows_trained, rows_held = (max(map(len, part)) for part in (split.train, split.held_out))
        return FitReport(train_rows=rows_trained, held_out_rows=rows_held, networks=reports)

    def _images(self, rows: int) -> int:
        """Renamed copies of every row; none where the ensemble reads them all alike."""
        config, naming = self.ensemble.config, self.ensemble.naming
        if self.renamings.count == 1 or config.owners > 1 or config.canonical_order:
            return 0
        heads = 1 if naming is None else naming.heads
        return min(self.config.renamings, max(0, _MOST_RENAMED // (rows * heads) - 1))

    def _prepare(self, regression: Regression, split: Split) -> None:
        """Take statistics, and solve linear paths, on every owner's training rows."""
        network, inputs = regression.network, regression.inputs
        columns = regression.targets[:, : network.columns]
        for owner, (train, kept) in enumerate(zip(split.train, split.held_out, strict=True)):
            network.take_statistics(owner, inputs[train], columns[train])
            if network.skip is not None:
                solve_linear_path(network, owner, inputs, columns, train, kept)
            elif network.normalise_targets:
                network.rescale(owner, network.spread[network.own(owner)])

    def _train(
        self,
        regression: Regression,
        optimiser: torch.optim.Optimizer,
        split: Split,
        resamples: Tensor,
        rng: torch.Generator,
    ) -> NetworkReport:
        """Gradient steps until no member improves any more, then every member's best weights."""
        config, (network, inputs, targets, groups) = self.config, regression
        table, widths = torch.cat([inputs, targets], 1), [inputs.shape[1], targets.shape[1]]
        rows, weights = split.scored(network.members)

        def look() -> HeldOut:
            return held_out(network, table, inputs.shape[1], rows, weights)

        network.noise.fill_(1.0)
        network.hold_norms(exact=True)
        best = _Best(network, self._score(look()))
        averages = _Averages(network, config.average) if config.average else None
        batches = _batches(resamples, config.batch_size, rng)
        updates, stale, loss = 0, 0, best.score
        while stale < config.patience and updates < config.max_updates:
            for _ in range(min(config.evaluate_every, config.max_updates - updates)):
                at = next(batches)
                drawn = table.index_select(0, at.flatten()).view(*at.shape, -1)
                x, y = torch.split(drawn, widths, -1)
                loss = network_loss(network, x, y, config)
                optimiser.zero_grad()
                torch.autograd.backward(loss.sum())
                if config.gradient_clip is not None:
                    clip_by_member(network, config.gradient_clip)
                optimiser.step()
                network.hold_norms()
                if averages is not None:
                    averages.follow()
                updates += 1
            with averages or nullcontext():
                network.hold_norms(exact=True)
                stale = 0 if best.improves(self._score(look()), config) else stale + 1
        best.restore()
        order = best.score.view(network.owners, -1).argsort(dim=1, stable=True)
        network.elites.copy_(order[:, : network.elites.shape[1]])
        network.fitted.fill_(True)
        network.settle()
        final = look()
        if config.calibrate:
            final = self._calibrate(network, final)
        return NetworkReport(
            updates=updates,
            epochs=updates * min(config.batch_size, resamples.shape[1]) / resamples.shape[1],
            train_loss=float(loss.detach().mean()),
            scores=best.score.tolist(),
            elites=order.tolist(),
            **by_group(network, final, groups),
        )

    def _calibrate(self, network: GaussianStack, found: HeldOut) -> HeldOut:
        """Scale every column's standard deviation to its held-out errors; returns the scores that follow."""
        network.noise.copy_(found.surprise.sqrt().clamp(min=_LEAST_NOISE)[:, None])
        square = network.noise[:, 0].square()
        nll = found.nll + 0.5 * (found.surprise / square - found.surprise + square.log())
        return found._replace(nll=nll, surprise=found.surprise / square)

    def _score(self, found: HeldOut) -> Tensor:
        """What members are compared by, `(M,)`."""
        columns = found.error if self.config.score == "error" else found.nll
        return mean_over_live(columns, found.live) + (found.flags.mean(-1) if found.flags.shape[1] else 0.0)

    def state(self) -> dict[str, Any]:
        """Plain data and tensors from which `restore` continues exactly; the ensemble's own state is apart."""
        optimisers = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        return {"salt": self.salt, "fits": self.fits, "updates": self.updates, "optimisers": optimisers}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.salt, self.fits, self.updates = int(state["salt"]), int(state["fits"]), int(state["updates"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])


class _Best:
    """The weights of every network of a stack at its own best score so far."""

    def __init__(self, network: GaussianStack, score: Tensor) -> None:
        self._network = network
        self._weights = {name: p.detach().clone() for name, p in network.named_parameters()}
        self._reference = score
        self.score = score

    def improves(self, score: Tensor, config: FitConfig) -> bool:
        """Keep the weights of networks whose `score (M,)` is their best; whether one of them counts as improved."""
        better = score < self.score
        self.score = torch.where(better, score, self.score)
        for name, p in self._network.named_parameters():
            self._weights[name] = torch.where(better[:, None, None], p.detach(), self._weights[name])
        scale = self._reference.clamp(min=_PERFECT) if config.score == "error" else 1.0
        improved = score < self._reference - config.min_improvement * scale
        self._reference = torch.where(improved, score, self._reference)
        return bool(improved.any())

    @torch.no_grad()
    def restore(self) -> None:
        """Give every network its best weights back."""
        for name, p in self._network.named_parameters():
            p.copy_(self._weights[name])


class _Averages:
    """Running averages of the weights of a stack; inside `with`, the stack has them in place of its own."""

    def __init__(self, network: GaussianStack, keep: float) -> None:
        self._keep, self._updates = keep, 0
        self._weights: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
        self._averages = [p.detach().clone() for p in self._weights]

    @torch.no_grad()
    def follow(self) -> None:
        """Move a little towards the weights; at first further, so that the beginning is soon forgotten."""
        self._updates += 1
        torch._foreach_lerp_(self._averages, self._weights, 1 - min(self._keep, self._updates / (self._updates + 9)))

    def __enter__(self) -> None:
        self._change_places()

    def __exit__(self, *_: object) -> None:
        self._change_places()

    @torch.no_grad()
    def _change_places(self) -> None:
        for weight, average in zip(self._weights, self._averages, strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)


def _check_finite(regression: Regression) -> None:
    for part in (regression.inputs, regression.targets):
        finite = part.isfinite().all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise ValueError(f"row {row} holds a number that is not finite; a model cannot be fitted on it")


def _forget_divergence(optimiser: torch.optim.Optimizer) -> None:
    """Zero the moments of members whose gradients were not finite: they would keep them from ever learning again."""
    for state in optimiser.state.values():
        broken = ~(state["exp_avg"].isfinite() & state["exp_avg_sq"].isfinite()).flatten(1).all(1)
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = torch.where(broken[:, None, None], 0.0, state[name])


def network_loss(network: GaussianStack, inputs: Tensor, targets: Tensor, config: FitConfig) -> Tensor:
    """Loss of every network `(M,)` on its own rows: columns, flags by their cross-entropy, variance bounds.

    Args:
        inputs: `(M, B, inputs)` raw. targets: `(M, B, C + L)` raw, flags last.
    """
    y, flags = torch.split(targets, [network.columns, network.flags], -1)
    mean, log_variance, logits = network(inputs)
    y, live = network.standardise(y)
    likelihood = config.loss == "likelihood"
    if not network.noisy:
        loss = squared_error(mean, y, live)
    elif likelihood:
        loss = gaussian_nll(mean, log_variance, y, live)
    else:
        loss = least_squares(mean, log_variance, y, live, config.variance_weight)
    if network.flags:
        cross = torch.nn.functional.binary_cross_entropy_with_logits(logits, flags, reduction="none")
        loss = loss + cross.mean((1, 2))
    if network.noisy and network.lower.requires_grad:
        penalty = config.bound_penalty * (1.0 if likelihood else config.variance_weight)
        loss = loss + penalty * (network.upper - network.lower).sum((1, 2))
    if config.input_penalty:
        loss = loss + config.input_penalty * network.first.weight.square().sum(2).add(1e-12).sqrt().sum(1)
    return loss


@torch.no_grad()
def clip_by_member(network: GaussianStack, most: float) -> None:
    """Scale every network's own gradient to a norm of at most `most`, without looking at the others'."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = torch.stack([g.square().sum((1, 2)) for g in gradients]).sum(0).sqrt()
    factor = (most / norm.clamp(min=1e-12)).clamp(max=1.0)[:, None, None]
    for g in gradients:
        g *= factor


def _batches(resamples: Tensor, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Endless `(M, size)` batches: each network's rows `(M, W)` in an order of its own, shuffled after every pass."""
    width = resamples.shape[1]
    size = min(size, width)
    while True:
        order = torch.rand(resamples.shape, generator=rng, device=resamples.device).argsort(1)
        shuffled = resamples.gather(1, order)
        for start in range(0, width - size + 1, size):
            yield shuffled[:, start : start + size]
