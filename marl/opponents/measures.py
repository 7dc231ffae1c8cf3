"""How good predictions of actions are: functions of what was predicted, what was done, and what is true where that is
known. Models that are biased on purpose, by their ego's interest, are not to be judged by any of them.

Shape suffixes: B moments, N agents, T time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from presage.common.game import GameError
from presage.marl.opponents.predicted import Predicted

BINS = 15
"""of equal mass, in which confidence is compared with success"""


def skill(nll: float, floor: float, context_free: float) -> float:
    """How far a model has come from knowing nothing but how often each action is taken (0) to knowing all (1).

    Args:
        nll: mean negative log-likelihood. floor: the true policy's entropy. context_free: NLL of the frequencies.

    Raises:
        ValueError: there is nothing to know beyond the frequencies.
    """
    if not context_free > floor:
        raise ValueError(f"context_free={context_free} must lie above floor={floor}; else there is no skill to be had")
    return 1.0 - (nll - floor) / (context_free - floor)


def likeliest_is_right(predicted: Predicted, act: Tensor) -> Tensor:
    """`(B, N)`: the share of an agent's one-hot heads whose likeliest entry is in `act (B, A)`; NaN for box actions."""
    found = torch.full((len(predicted), predicted.spec.n), torch.nan, device=act.device)
    right = predicted.mode() * act
    for i, agent in enumerate(predicted.spec.agents):
        if agent.discrete:
            found[:, i] = right[:, predicted.spec.act[i]].sum(1) / len(agent.heads)
    return found


def confidence(predicted: Predicted) -> Tensor:
    """`(B, N)`: the probability of the likeliest entry, mean over one-hot heads; NaN for box actions. Of the true
    distributions it is the best accuracy that anybody can have.
    """
    device = predicted.parts[0].parameters.device
    found = torch.full((len(predicted), predicted.spec.n), torch.nan, device=device)
    for part in predicted.parts:
        if part.group.discrete:
            surest = torch.stack([marginal.amax(-1) for marginal in part.marginals()]).mean(0)
            found[:, list(part.group.agents)] = surest.T
    return found


def brier(predicted: Predicted, agent: str | int, act: Tensor) -> Tensor:
    """`(B,)`: squared distance of the probabilities from what was done, summed over heads; in [0, 2] a head.

    Raises:
        GameError: the agent's actions are numbers.
    """
    chances = torch.cat(predicted.probabilities(agent), 1)
    return (chances - act[:, predicted.spec.act[predicted.spec.index(agent)]]).square().sum(1)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether what is predicted with a confidence of p comes true with a share of p."""

    confidence: NDArray[np.float64]
    """mean confidence in every bin"""
    success: NDArray[np.float64]
    """share of its predictions that came true"""
    count: NDArray[np.int64]
    """predictions in it"""

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance between the two, weighted by predictions."""
        return float(np.average(np.abs(self.success - self.confidence), weights=self.count))


def calibration(confidences: Tensor, right: Tensor, bins: int = BINS) -> Calibration:
    """Confidence beside success, in bins of equal mass; equal confidences are never divided between bins.

    Args:
        confidences: `(B,)` probabilities that were predicted. right: `(B,)` whether, or to what share, they came true.

    Raises:
        ValueError: no predictions, or unequally many of both.
    """
    p, hit = (x.detach().double().cpu().numpy() for x in (confidences, right))
    if p.shape != hit.shape or p.ndim != 1 or not len(p):
        raise ValueError(f"confidences {p.shape} and right {hit.shape} must be two vectors of one length, >= 1")
    order = np.argsort(p, kind="stable")
    p, hit = p[order], hit[order]
    edges = np.unique(np.searchsorted(p, p[np.arange(bins) * len(p) // bins], side="left"))
    parts = [np.split(x, edges[1:]) for x in (p, hit)]
    return Calibration(
        confidence=np.array([part.mean() for part in parts[0]]), success=np.array([part.mean() for part in parts[1]]),
        count=np.array([len(part) for part in parts[0]]),
    )  # fmt: skip


def place(predicted: Predicted, agent: str | int, act: Tensor) -> Tensor:
    """Where box actions lie in their predicted distributions: `(B, a)` in [0, 1], component by component of the action;
    uniform where the prediction is right (probability integral transform).

    Raises:
        GameError: the agent's actions are one-hot.
    """
    index = predicted.spec.index(agent)
    part = next(part for part in predicted.parts if index in part.group.agents)
    if part.group.discrete:
        raise GameError(f"agent {agent!r} acts one-hot, which has no order; ask for calibration")
    parameters = part.parameters[part.group.agents.index(index)]
    mean, log_sigma = parameters.chunk(2, -1)
    own = act[:, predicted.spec.act[index]].clamp(-1 + 1e-6, 1 - 1e-6).atanh()[:, None]
    below = torch.special.ndtr((own - mean) / log_sigma.exp())
    weights = part.log_weights[part.group.agents.index(index)].exp()[..., None]
    return torch.sum(weights * below, 1)


def coverage(places: Tensor, levels: tuple[float, ...] = (0.5, 0.8, 0.95)) -> dict[float, float]:
    """The share of actions in the central interval of every level, which should be the level itself."""
    return {level: float(((places - 0.5).abs() <= level / 2).double().mean()) for level in levels}


def steps_to_adapt(
    nll: Tensor, oracle: Tensor, *, tolerance: float = 0.1, smoothing: int = 20, hold: int = 50
) -> int | None:
    """Steps after a switch until a model is as good as one that knows the new policy, and stays so; None: never.

    Args:
        nll, oracle: `(T,)` from the switch on, each step's negative log-likelihood under the model and under the policy
            that is played. tolerance: nats by which their exponential moving average, over `smoothing` steps, may
            differ. hold: steps for which it has to.
    """
    excess = (nll - oracle).double().cpu().numpy()
    average, keep = np.empty_like(excess), 1.0 - 1.0 / smoothing
    total = weight = 0.0
    for t, value in enumerate(excess):
        total, weight = keep * total + value, keep * weight + 1.0
        average[t] = total / weight
    good = average <= tolerance
    for t in range(len(good) - hold + 1):
        if good[t : t + hold].all():
            return t
    return None


def regret(nll: Tensor, oracle: Tensor) -> float:
    """Nats lost since a switch by not having known the new policy: the sum of the differences, `(T,)` each."""
    return float((nll - oracle).sum())


def gain(with_model: float, without: float, oracle: float) -> float:
    """How much of what knowing the others is worth a model brings: 0 without a model, 1 with the true policies.

    Args:
        with_model, without, oracle: returns of the same learner.

    Raises:
        ValueError: knowing the others is worth nothing here.
    """
    if not oracle > without:
        raise ValueError(f"oracle={oracle} must exceed without={without}; else a model has nothing to bring")
    return (with_model - without) / (oracle - without)
