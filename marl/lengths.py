"""How long each ego trusts its model of each opponent within an imagined branch, and who answers there (AORPO).

Zhang, Wang, Shen, Zhou 2021, "Model-based Multi-agent Policy Optimization with Adaptive Opponent-wise Rollouts"
(arXiv 2105.03363). Opponent j is played by its model for the first `n^j` steps of a branch of `k`, and asked itself for
the rest: `n^j = floor(k min_l error^l / error^j)`, so that no opponent costs the bound more than the best modelled one
(`presage.common.bounds.opponent_branched_gap`). Only relative errors matter: the best modelled opponent gets all k.

Shape suffixes: I egos, N agents, H horizon. Leading dimensions written `...` are free.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from presage.common.answers import Answer

LengthRule: TypeAlias = Literal["error_ratio", "accuracy_ratio", "accuracy_ratio_squared", "uniform", "ask_always"]
"""error_ratio: the paper's, from model errors. accuracy_ratio: the released code's, `floor(k acc^j / max_l acc^l)`;
accuracy_ratio_squared: its variant for the scheduling task, the ratio squared. uniform: k for all, so that real
opponents are never asked under the "paper" switch. ask_always: 0 for all, a dynamics model only."""

Switch: TypeAlias = Literal["paper", "official"]
"""when the model stops answering at step u, counted from 0: "paper" uses it while u < n, "official" while u + 1 < n, as
the released code does, which asks even the best modelled opponent at the last step"""

SCORE_FLOOR = 1e-6
"""errors and accuracies below it count as this, so that a perfect model, or one never right, has a ratio"""

FLOOR_GUARD = 1e-9
"""added before rounding down: 5 * 0.06 / 0.1 is below 3 in floating point"""


def other_agents(agents: int, egos: Tensor | None = None) -> Tensor:
    """The mask `(I, N)` that is false where the agent is the ego itself; `egos (I,)` are all agents when None."""
    own = torch.arange(agents) if egos is None else egos
    if own.ndim != 1 or bool(((own < 0) | (own >= agents)).any()):
        raise ValueError(f"egos={own.tolist()} must be a vector of agents out of 0..{agents - 1}")
    return own[:, None] != torch.arange(agents, device=own.device)


def rollout_lengths(
    rule: LengthRule,
    horizon: int,
    scores: Tensor,
    opponents: Tensor | None = None,
    at_least_one: bool = False,
) -> Tensor:
    """Steps for which each ego's model of each opponent answers in a branch of `horizon` steps.

    Args:
        rule: see `LengthRule`.
        horizon: k, >= 0.
        scores: `(..., N)` errors >= 0 for "error_ratio", accuracies in [0, 1] for the accuracy rules; the other rules
            read their shape alone. N may be 0.
        opponents: `(..., N)` bool, false where the agent is the ego itself (`other_agents`) or not modelled: that
            score is not read and its length is 0. None: all are opponents.
        at_least_one: give every opponent at least one step, as a third-party port does; never with "ask_always".

    Returns:
        `(..., N)` int64 in 0..horizon.

    Raises:
        ValueError: for a score that the rule reads and that is out of range or NaN.
    """
    if rule not in get_args(LengthRule):
        raise ValueError(f"rule={rule!r} must be one of {', '.join(get_args(LengthRule))}")
    if horizon < 0:
        raise ValueError(f"horizon={horizon} must be >= 0")
    if rule == "ask_always" and at_least_one:
        raise ValueError('rule="ask_always" gives no opponent a step; drop at_least_one=True or take another rule')
    if opponents is not None and opponents.dtype != torch.bool:
        raise ValueError(f"opponents must be a bool mask, got {opponents.dtype}")
    modelled = torch.ones_like(scores, dtype=torch.bool) if opponents is None else opponents.expand_as(scores)
    if scores.numel() == 0 or rule == "ask_always":
        return torch.zeros_like(scores, dtype=torch.int64)
    if rule == "uniform":
        return modelled * horizon
    ratio = _ratios(rule, scores.double(), modelled)
    # Single-precision scores carry their own rounding error into the product, far above the guard.
    guard = max(FLOOR_GUARD, 4 * horizon * torch.finfo(scores.dtype).eps) if scores.is_floating_point() else FLOOR_GUARD
    lengths = (horizon * ratio + guard).floor().long()
    if at_least_one:
        lengths = lengths.clamp(min=min(1, horizon))
    return lengths * modelled


def _ratios(rule: LengthRule, scores: Tensor, modelled: Tensor) -> Tensor:
    """Each opponent's share of the full length, in (0, 1]; anything in that range where not modelled."""
    highest = torch.inf if rule == "error_ratio" else 1.0
    bad = modelled & ~((scores >= 0) & (scores <= highest) & scores.isfinite())
    if bool(bad.any()):
        index = tuple(int(i) for i in bad.nonzero()[0])
        wanted = "a finite error >= 0" if rule == "error_ratio" else "an accuracy in [0, 1]"
        raise ValueError(f"scores{list(index)}={scores[index].item():g} must be {wanted} for rule={rule!r}")
    floored = scores.clamp(min=SCORE_FLOOR)
    if rule == "error_ratio":
        best = floored.masked_fill(~modelled, torch.inf).amin(-1, keepdim=True)
        return torch.where(modelled, best / floored, 1.0)
    best = floored.masked_fill(~modelled, SCORE_FLOOR).amax(-1, keepdim=True)
    share = torch.where(modelled, floored / best, 1.0)
    return share if rule == "accuracy_ratio" else share**2


def uses_model(step: Tensor, lengths: Tensor, switch: Switch = "paper") -> Tensor:
    """Whether the model still answers at `step` (from 0) of a branch, given `lengths`; both broadcast."""
    if switch not in get_args(Switch):
        raise ValueError(f"switch={switch!r} must be one of {', '.join(get_args(Switch))}")
    return step < lengths if switch == "paper" else step + 1 < lengths


def who_answers(lengths: Tensor, horizon: int, switch: Switch = "paper", egos: Tensor | None = None) -> Tensor:
    """The table that the rollout generator reads: who answers for each agent at each step of each ego's branches.

    Args:
        lengths: `(I, N)` integers in 0..horizon, from `rollout_lengths`; the ego's own entry is not read.
        horizon: H, steps of a branch, >= 0. switch: see `Switch`.
        egos: `(I,)` the agent that each row belongs to; None for all agents in order, which needs I = N.

    Returns:
        `(I, N, H)` int8 of `Answer` codes.
    """
    if lengths.ndim != 2 or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"lengths must be integers of shape (I, N), got {lengths.dtype} {tuple(lengths.shape)}")
    rows, agents = lengths.shape
    opponent = other_agents(agents, egos).to(lengths.device)
    if len(opponent) != rows:
        raise ValueError(f"lengths have {rows} rows for {len(opponent)} egos; name the agent of each row in `egos`")
    bad = opponent & ((lengths < 0) | (lengths > horizon))
    if bool(bad.any()):
        row, agent = (int(i) for i in bad.nonzero()[0])
        raise ValueError(f"lengths[{row}, {agent}]={int(lengths[row, agent])} must lie in 0..horizon={horizon}")
    steps = torch.arange(horizon, device=lengths.device)
    model = uses_model(steps, lengths[..., None], switch)
    answers = torch.where(model, Answer.MODEL.value, Answer.REAL.value)
    return answers.masked_fill(~opponent[..., None], Answer.POLICY.value).to(torch.int8)


def error_from_nll(nll: Tensor, entropy: Tensor | None = None) -> Tensor:
    """An error of an opponent model from its held-out negative log-likelihood, in TV units.

    `sqrt((nll - entropy) / 2)`. With the opponent's true entropy the difference is the model's KL, and the value bounds
    its mean TV error (Pinsker, Jensen). Without it the entropy counts as error, as in AORPO: a perfect model of a
    random opponent then looks bad. A difference below 0, which only sampling noise can bring about, counts as 0.

    Args:
        nll: `(...)` mean negative log-likelihood of each opponent's actions, summed over its heads, in nats.
        entropy: `(...)` mean entropy of that opponent's policy at the same observations, in nats, where known.

    Raises:
        ValueError: for NaN, or without `entropy` for an nll < 0, which only densities of continuous actions reach.
    """
    if entropy is None and bool((nll < 0).any()):
        raise ValueError(f"nll={nll.min().item():g} < 0 is a density's; its error needs the opponent's `entropy`")
    excess = nll if entropy is None else nll - entropy
    if bool(excess.isnan().any()):
        raise ValueError(f"the error of an opponent model is NaN: nll={nll.tolist()}")
    return (excess.clamp(min=0) / 2).sqrt()


def weighted_accuracy(accuracies: Tensor, sizes: Tensor) -> Tensor:
    """One accuracy of several action heads, weighted by squared head size, as in AORPO's released code.

    Args:
        accuracies: `(..., K)` share of held-out actions that the model's most likely entry gets right, per head.
        sizes: `(K,)` entries of each head, >= 1.

    Returns:
        `(...)` = `sum_h sizes[h]^2 accuracies[..., h] / sum_h sizes[h]^2`.
    """
    if sizes.ndim != 1 or accuracies.shape[-1:] != sizes.shape or sizes.numel() == 0 or bool((sizes < 1).any()):
        raise ValueError(f"sizes={sizes.tolist()} must be >= 1, one for each of {accuracies.shape[-1:]} heads")
    weights = sizes.to(accuracies.dtype) ** 2
    return (accuracies * weights).sum(-1) / weights.sum()
