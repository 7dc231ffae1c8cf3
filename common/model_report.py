"""How far a learned model can be trusted, on rows that it was not fitted to: errors and likelihoods, whether its stated
uncertainty is right, whether its members disagree where it is wrong, and how errors grow over a branch.

Shape suffixes: B rows, E elites, C columns, L levels, H steps of a branch, N agents, O observation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble, runs
from presage.common.game import ALL_AGENTS, Rows, Window
from presage.common.propagation import EnsembleKernel
from presage.common.replay import Replay

LEVELS = tuple(k / 20 for k in range(1, 20))
"""central intervals whose coverage is counted"""

MODEL_FILE = "model.json"
"""the numbers, in a run folder's `report/`"""


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """What a model knows and does not know. Errors are in standard deviations of what is predicted."""

    rows: int
    """held-out rows"""
    error: dict[str, float]
    """by group ("obs", "reward"): root mean square error of the elites' mean over columns that vary"""
    nll: dict[str, float]
    """by group: nats per column of the mixture of the elites; {} where they predict no noise"""
    coverage: dict[str, list[float]]
    """by group: the share of what happened inside the mixture's central interval of each of `LEVELS`; {} as above"""
    calibration_error: dict[str, float]
    """by group: mean over `LEVELS` of |coverage - level|; 0 where the stated uncertainty is right"""
    disagreement_correlation: float
    """Spearman's rank correlation over rows of the members' disagreement with the error that was made; NaN where either
    is constant"""
    open_loop: list[float]
    """after 1, 2, ... steps of the real actions, the error of the observation predicted from the start alone; [] where
    there is no branch of held-out rows"""
    standing_still: list[float]
    """likewise, of predicting that nothing changes"""

    def to_plain(self) -> dict[str, object]:
        """As JSON has it; what is not a finite number is null."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(item) for name, item in value.items()}
            if isinstance(value, list):
                return [plain(item) for item in value]
            return value if math.isfinite(value) else None

        return {name: plain(value) for name, value in vars(self).items()} | {"levels": list(LEVELS)}


class Answers(NamedTuple):
    """What the elites say of B rows, and what happened."""

    mean: Tensor
    """(E, B, C)"""
    std: Tensor
    """(E, B, C)"""
    truth: Tensor
    """(B, C)"""


@torch.no_grad()
def one_step(
    ensemble: DynamicsEnsemble, rows: Rows, window: Window | None = None, owner: int = 0
) -> dict[str, Answers]:
    """The elites' predictions for `rows (B)` by group: "obs" is the next state; "reward" where rewards are learned."""
    found = ensemble.predict(rows.view, rows.act, window, owner)
    state, outcome = ensemble.state_network, ensemble.outcome_network or ensemble.state_network
    elites = state.elites[owner]
    groups = {"obs": Answers(found.mean[elites], found.std[elites], ensemble.state(rows.next_view))}
    if ensemble.rewards:
        best = outcome.elites[owner]
        groups["reward"] = Answers(found.reward_mean[best], found.reward_std[best], rows.reward)
    return groups


def varying(answers: Answers, noisy: bool = True) -> Tensor:
    """(C,) bool: columns that are not constant, and, where noise is predicted, that every elite is unsure of."""
    live = answers.truth.std(0) > 1e-6
    return live & (answers.std > 0).all(0).all(0) if noisy else live


def mixture_nll(answers: Answers) -> Tensor:
    """Nats `(B, C)` of what happened under the equal mixture of the elites' Gaussians, in raw units."""
    surprise = (answers.truth - answers.mean) / answers.std
    each = -0.5 * surprise.square() - answers.std.log() - 0.5 * math.log(2 * math.pi)
    return math.log(len(each)) - each.logsumexp(0)


def coverage(answers: Answers) -> Tensor:
    """(L,) the share of entries inside the mixture's central interval of each of `LEVELS`.

    By the probability integral transform (Dawid 1984): what happened lies in the central interval of level p where the
    mixture's distribution function there is within p / 2 of a half.
    """
    place = torch.special.ndtr((answers.truth - answers.mean) / answers.std).mean(0)
    away = 2 * (place - 0.5).abs()
    return torch.stack([(away <= level).float().mean() for level in LEVELS])


def calibration_error(covered: Tensor) -> float:
    """Mean over `LEVELS` of |coverage - level| (Kuleshov, Fenner, Ermon 2018, with absolute errors)."""
    return float((covered - covered.new_tensor(LEVELS)).abs().mean())


def rank_correlation(one: Tensor, two: Tensor) -> float:
    """Spearman's; NaN where one of them is constant."""
    if len(one) < 3 or any(bool(part.min() == part.max()) for part in (one, two)):
        return math.nan
    return float(stats.spearmanr(one.cpu(), two.cpu()).statistic)


@torch.no_grad()
def open_loop(
    ensemble: DynamicsEnsemble, replay: Replay, index: Tensor, starts: Tensor, horizon: int
) -> tuple[list[float], list[float]]:
    """Errors of the observation after 1..`horizon` real actions, predicted from the start by the elites' mean, and of
    standing still; root mean squares over rows and columns that vary, in standard deviations of the observations.

    Args:
        index: rows of the replay by time, then lane. starts: positions in `index` where runs of `horizon` rows begin.
    """
    rows, spec = replay.rows(index), ensemble.spec
    scale = rows.obs.std(0)
    live = scale > 1e-6
    window = replay.window(index[starts], spec.frames)
    kernel, rng = EnsembleKernel(ensemble, "mean"), torch.Generator(rows.obs.device)
    ego = torch.full((len(starts),), ALL_AGENTS if ensemble.config.owners == 1 else 0, device=rows.obs.device)
    carry, view = kernel.init(window, ego, rng), window.now
    errors: tuple[list[float], list[float]] = ([], [])
    for h in range(horizon):
        at = starts + h * replay.lanes
        carry, outcome = kernel.step(carry, view, rows.act[at], rng)
        view = outcome.after
        for found, obs in zip(errors, (view.obs, window.now.obs), strict=True):
            apart = (obs - rows.next_obs[at])[:, live] / scale[live]
            found.append(float(apart.square().mean().sqrt()))
    return errors


@torch.no_grad()
def model_report(
    ensemble: DynamicsEnsemble, replay: Replay, held_out: Tensor, *, horizon: int = 20, most: int = 2_000
) -> tuple[ModelReport, tuple[Tensor, Tensor]]:
    """The report, and disagreement and error of every row `(B,)` each.

    Args:
        held_out: positions among the rows that `replay.complete` gives, of those that the model was not fitted to.
        horizon: H, longest open-loop prediction; shortened to what episodes allow. most: rows that are looked at.

    Raises:
        ValueError: there is no held-out row.
    """
    if not len(held_out):
        raise ValueError("no row is held out; a report needs rows that the model was not fitted to")
    index, _ = replay.complete()
    places = held_out[:: max(1, len(held_out) // most)][:most]
    rows = replay.rows(index[places])
    window = replay.window(index[places], ensemble.spec.frames) if ensemble.spec.frames > 1 else None
    groups, noisy = one_step(ensemble, rows, window), ensemble.config.noise != "none"
    errors, likelihoods, covered = {}, {}, {}
    made = torch.zeros(len(rows), device=rows.obs.device)
    for name, answers in groups.items():
        live = varying(answers, noisy)
        if not bool(live.any()):
            continue
        answers = Answers(*(part[..., live] for part in answers))
        apart = (answers.mean.mean(0) - answers.truth) / answers.truth.std(0)
        errors[name] = float(apart.square().mean().sqrt())
        if noisy:
            likelihoods[name], covered[name] = float(mixture_nll(answers).mean()), coverage(answers)
        if name == "obs":
            made = apart.square().mean(1).sqrt()
    doubt = ensemble.disagreement(rows.view, rows.act, window)
    curves: tuple[list[float], list[float]] = ([], [])
    every = replay.rows(index)
    for steps in range(horizon, 0, -1):  # the longest that some held-out branch lasts
        starts = runs(every, steps, replay.lanes)[0]
        starts = starts[torch.isin(starts, places)]
        if len(starts):
            curves = open_loop(ensemble, replay, index, starts, steps)
            break
    report = ModelReport(
        rows=len(rows), error=errors, nll=likelihoods,
        coverage={name: part.tolist() for name, part in covered.items()},
        calibration_error={name: calibration_error(part) for name, part in covered.items()},
        disagreement_correlation=rank_correlation(doubt, made),
        open_loop=curves[0], standing_still=curves[1],
    )  # fmt: skip
    return report, (doubt, made)


def plot_model(report: ModelReport, points: tuple[Tensor, Tensor], path: Path) -> None:
    """Three panels as a PNG: coverage against level, error against disagreement, error over a branch."""
    figure = Figure(figsize=(11.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    calibration, disagreement, branch = figure.subplots(1, 3)
    calibration.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for colour, (name, covered) in zip(("#0072B2", "#D55E00"), report.coverage.items(), strict=False):
        label = f"{name}: off by {report.calibration_error[name]:.3f}"
        calibration.plot(LEVELS, covered, color=colour, marker=".", label=label)
    if report.coverage:
        calibration.legend(frameon=False)
    calibration.set(xlabel="level of the interval", ylabel="share of rows inside", title="calibration")
    doubt, made = (np.asarray(part.cpu()) for part in points)
    disagreement.loglog(doubt.clip(1e-6), made.clip(1e-6), ".", markersize=3, color="#0072B2", alpha=0.4)
    rank = report.disagreement_correlation
    disagreement.set(
        xlabel="disagreement of members", ylabel="error of the observation", title=f"rank correlation {rank:.2f}"
    )
    steps = range(1, len(report.open_loop) + 1)
    branch.plot(steps, report.open_loop, color="#0072B2", marker=".", label="model")
    branch.plot(steps, report.standing_still, color="0.5", linestyle="--", label="nothing changes")
    branch.legend(frameon=False)
    branch.set(xlabel="steps from the start", ylabel="error, standard deviations", title="open loop", ylim=(0, None))
    for axes in (calibration, disagreement, branch):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
