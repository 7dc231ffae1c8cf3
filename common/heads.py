"""Action distributions over an agent's slice: one-hot heads (categorical) and box heads (tanh-Gaussian).

Agents whose observation width and heads agree form a group, and a group's networks are one stacked module.
Shape suffixes: g agents of a group, B batch, w width of one observation, a width of one action, K joint choices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from presage.common.game import GameError, GameSpec, Head

LOG_SIGMA_RANGE = (-20.0, 2.0)
"""bounds of the Gaussian's log standard deviation before squashing, as in tianshou and the SAC authors' code"""
SQUASH_GUARD = float(torch.finfo(torch.float32).eps)
"""added to 1 - tanh(u)^2 inside the logarithm; tianshou's value"""
ILLEGAL = -1e9
"""logit of an illegal entry: its probability is exactly 0, and sums over heads and their squares stay finite"""


@dataclass(frozen=True)
class Group:
    """Agents of equal observation width, vectors and heads, whose networks are stacked."""

    agents: tuple[int, ...]
    obs: Tensor
    """(g, w) int64: what each agent reads of the joint observation"""
    act: Tensor
    """(g, a) int64: what each agent writes of the joint action"""
    heads: tuple[Head, ...]
    vectors: tuple[tuple[int, ...], ...] = ()
    """vectors in an agent's own observation, as indices into it"""

    @property
    def discrete(self) -> bool:
        """Whether the group's actions are one-hot."""
        return self.heads[0].kind == "discrete"

    @property
    def parameters(self) -> int:
        """Numbers that describe one action distribution: logits, or mean and log standard deviation."""
        width = sum(head.size for head in self.heads)
        return width if self.discrete else 2 * width

    def read(self, obs: Tensor) -> Tensor:
        """What every agent of the group sees: `(B, O) -> (g, B, w)`."""
        return obs[:, self.obs].transpose(0, 1)

    def of_actions(self, act: Tensor) -> Tensor:
        """The group's slices of a joint action (or of legality): `(B, A) -> (g, B, a)`."""
        return act[:, self.act].transpose(0, 1)

    def of_agents(self, flags: Tensor) -> Tensor:
        """The group's columns of a per-agent quantity: `(B, N) -> (g, B)`."""
        return flags[:, list(self.agents)].T


def groups_of(spec: GameSpec, device: torch.device | str = "cpu") -> tuple[Group, ...]:
    """The game's agents grouped by observation width, vectors and heads, in order of first appearance."""
    found: dict[tuple[int, tuple[tuple[int, ...], ...], tuple[Head, ...]], list[int]] = {}
    for i, agent in enumerate(spec.agents):
        found.setdefault((len(agent.obs), spec.vectors_of(i), agent.heads), []).append(i)
    return tuple(
        Group(
            agents=tuple(agents),
            obs=torch.tensor([spec.agents[i].obs for i in agents], dtype=torch.int64, device=device),
            act=torch.tensor([list(range(spec.act_dim))[spec.act[i]] for i in agents], device=device),
            heads=heads,
            vectors=vectors,
        )
        for (_, vectors, heads), agents in found.items()
    )


def join(groups: Sequence[Group], parts: Sequence[Tensor]) -> Tensor:
    """The joint action `(B, A)` whose slices are `parts`, one `(g, B, a)` for each group."""
    size = parts[0].shape[1]
    joint = torch.cat([part.transpose(0, 1).reshape(size, -1) for part in parts], 1)
    order = torch.cat([group.act.reshape(-1) for group in groups])
    if len(groups) == 1 and torch.equal(order, torch.arange(len(order), device=order.device)):
        return joint
    return joint[:, torch.argsort(order)]


def join_agents(groups: Sequence[Group], parts: Sequence[Tensor]) -> Tensor:
    """A per-agent quantity `(N, B)` from one `(g, B)` for each group."""
    order = [agent for group in groups for agent in group.agents]
    stacked = torch.cat(list(parts))
    return stacked if order == sorted(order) else stacked[torch.tensor(order, device=stacked.device).argsort()]


def _log_probabilities(heads: Sequence[Head], logits: Tensor, legal: Tensor | None) -> list[Tensor]:
    """Per discrete head, log-probabilities `(..., size)`; about `ILLEGAL` for illegal entries."""
    if legal is not None:
        logits = logits.masked_fill(~legal, ILLEGAL)
    return [part.log_softmax(-1) for part in torch.split(logits, [head.size for head in heads], -1)]


def _gaussian(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation before squashing."""
    mean, log_sigma = parameters.chunk(2, -1)
    return mean, log_sigma.clamp(*LOG_SIGMA_RANGE)


def _gaussian_log_prob(unsquashed: Tensor, mean: Tensor, log_sigma: Tensor, act: Tensor) -> Tensor:
    """log density of `act = tanh(unsquashed)`, summed over components (SAC, appendix C)."""
    sigma = log_sigma.exp()
    normal = -((unsquashed - mean) ** 2) / (2 * sigma**2) - log_sigma - 0.5 * math.log(2 * math.pi)
    return normal.sum(-1) - torch.log(1 - act**2 + SQUASH_GUARD).sum(-1)


def answer(
    heads: Sequence[Head],
    parameters: Tensor,
    legal: Tensor | None,
    rng: torch.Generator | None,
    *,
    averaged: bool = False,
) -> tuple[Tensor, Tensor]:
    """An action and its log-probability, differentiable in the parameters.

    Args:
        parameters: (..., p) logits, or means and log standard deviations side by side.
        legal: (..., a) bool or None for all; discrete heads only.
        rng: draws the noise; None gives the mode.
        averaged: whether discrete heads give the mean of the log-probability over their actions, minus the entropy.

    Returns:
        act (..., a): one-hot with the straight-through gradient of a Gumbel-softmax of temperature 1 (Jang et al.
        2017), or tanh of a reparametrised Gaussian; log_prob (...): summed over heads.
    """
    if heads[0].kind == "discrete":
        acts, total = [], torch.zeros((), device=parameters.device)
        for log_p in _log_probabilities(heads, parameters, legal):
            noisy = log_p
            if rng is not None:
                exponential = torch.empty_like(log_p).exponential_(generator=rng).clamp_min(1e-30)
                noisy = log_p - exponential.log()  # minus its logarithm is Gumbel-distributed
            hard = torch.zeros_like(log_p).scatter_(-1, noisy.detach().argmax(-1, keepdim=True), 1.0)
            if noisy.requires_grad:
                soft = noisy.softmax(-1)
                acts.append(hard + (soft - soft.detach()))  # in this order the value stays exactly one-hot
            else:
                acts.append(hard)
            total = total + ((log_p.exp() if averaged else hard) * log_p).sum(-1)
        return torch.cat(acts, -1), total
    mean, log_sigma = _gaussian(parameters)
    unsquashed = mean
    if rng is not None:
        unsquashed = mean + log_sigma.exp() * torch.empty_like(mean).normal_(generator=rng)
    act = unsquashed.tanh()
    return act, _gaussian_log_prob(unsquashed, mean, log_sigma, act)


def log_prob(heads: Sequence[Head], parameters: Tensor, act: Tensor, legal: Tensor | None = None) -> Tensor:
    """Log-probability (...) of the given actions `(..., a)`, summed over heads.

    Box actions are clipped to +-(1 - 1e-6) before they are unsquashed.
    """
    if heads[0].kind == "discrete":
        return (torch.cat(_log_probabilities(heads, parameters, legal), -1) * act).sum(-1)
    mean, log_sigma = _gaussian(parameters)
    inside = act.clamp(-1 + 1e-6, 1 - 1e-6)
    return _gaussian_log_prob(inside.atanh(), mean, log_sigma, inside)


def choices(heads: Sequence[Head], limit: int = 256) -> Tensor:
    """Every joint choice of discrete heads as one-hot slices `(K, a)`, K the product of the heads' sizes.

    Raises:
        GameError: the heads are not discrete, or K exceeds `limit`.
    """
    count = math.prod(head.size for head in heads)
    if heads[0].kind != "discrete" or count > limit:
        raise GameError(
            f"an exact expectation over {[(head.kind, head.size) for head in heads]} needs at most {limit} discrete "
            f"choices; use discrete_gradient='gumbel'"
        )
    eyes = [torch.eye(head.size) for head in heads]
    return torch.stack([torch.cat(combination) for combination in itertools.product(*eyes)])


def choice_log_probabilities(heads: Sequence[Head], parameters: Tensor, legal: Tensor | None, table: Tensor) -> Tensor:
    """Log-probabilities `(..., K)` of the rows of `table`, which `choices` made."""
    return torch.cat(_log_probabilities(heads, parameters, legal), -1) @ table.T


def entropy(heads: Sequence[Head], parameters: Tensor, legal: Tensor | None = None) -> Tensor:
    """Entropy (...) of discrete heads in nats, summed over heads.

    Raises:
        GameError: for box heads, whose squashed entropy has no closed form; average `-log_prob` instead.
    """
    if heads[0].kind != "discrete":
        raise GameError("a tanh-Gaussian has no closed-form entropy; average -log_prob over samples")
    log_ps = _log_probabilities(heads, parameters, legal)
    return torch.stack([-(log_p.exp() * log_p).sum(-1) for log_p in log_ps]).sum(0)


def divergence(heads: Sequence[Head], one: Tensor, other: Tensor, legal: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence (...) in nats of the actions that `one (..., p)` describes from those of `other`.

    Squashing loses nothing, so that of box actions is the Gaussians'.
    """
    if heads[0].kind == "discrete":
        pairs = zip(_log_probabilities(heads, one, legal), _log_probabilities(heads, other, legal), strict=True)
        return torch.stack([(p.exp() * (p - q)).sum(-1) for p, q in pairs]).sum(0)
    (mean, log_sigma), (mean_q, log_sigma_q) = _gaussian(one), _gaussian(other)
    ratio = ((2 * log_sigma).exp() + (mean - mean_q).square()) / (2 * (2 * log_sigma_q).exp())
    return (log_sigma_q - log_sigma + ratio - 0.5).sum(-1)


def target_entropy(heads: Sequence[Head], discrete_share: float) -> float:
    """SAC's entropy target: `discrete_share` of the maximum log K for one-hot heads, minus the width for box heads."""
    if heads[0].kind == "discrete":
        return discrete_share * sum(math.log(head.size) for head in heads)
    return -float(sum(head.size for head in heads))
