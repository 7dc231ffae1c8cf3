"""The terms of MBPO's bound (Janner et al. 2019, 1906.08253, Theorem 4.3) as they stand while a run goes on: how far
the policy has moved, how far the model may be off, and the branch length that they make best.

Both terms are total variations, bounded through Kullback-Leibler divergences by Pinsker's inequality. The model's is
not its distance from the world, which nobody knows, but the one between its members. Like all such bounds these numbers
rank choices; they do not predict returns.

Shape suffixes: B rows, E elites, C columns.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from presage.common.bounds import best_branch_length
from presage.common.dynamics import DynamicsEnsemble
from presage.common.game import View, Window
from presage.common.method import Metrics

Divergence = Callable[[nn.Module, View], Tensor]
"""(an earlier policy, view) -> KL of the present policy's joint actions from the earlier one's, nats `(B,)`"""

LONGEST = 100
"""branches that are considered"""


class LiveTerms(nn.Module):
    """Remembers the policy of the last measurement, and measures against it."""

    def __init__(self, policy: nn.Module, gamma: float) -> None:
        """
        Args:
            policy: what is improved. gamma: the learner's discount; below 1, or there is no best length.
        """
        super().__init__()
        self.earlier = deepcopy(policy).requires_grad_(False)
        self.gamma = gamma

    @torch.no_grad()
    def measure(self, policy: nn.Module, divergence: Divergence, view: View, doubt: Tensor | None) -> Metrics:
        """The terms by metric tag, and from now on `policy` is the earlier one.

        Args:
            divergence: the actor's. view: real situations `(B)`. doubt: `(B,)` total variation of the model, or None.
        """
        found = {"theory/policy_shift": float(total_variation(divergence(self.earlier, view)).mean())}
        self.earlier.load_state_dict(policy.state_dict())
        if doubt is not None:
            found["theory/model_error"] = float(doubt.mean())
            if self.gamma < 1:
                best = best_branch_length(
                    found["theory/policy_shift"], found["theory/model_error"], self.gamma, longest=LONGEST
                )
                found["theory/best_branch_length"] = float(best)
        return found


def total_variation(nats: Tensor) -> Tensor:
    """At most this, for a divergence of so many nats: `min(1, sqrt(KL / 2))` (Pinsker)."""
    return (nats.clamp_min(0) / 2).sqrt().clamp(max=1.0)


@torch.no_grad()
def members_apart(ensemble: DynamicsEnsemble, window: Window, act: Tensor) -> Tensor:
    """Total variation `(B,)` between what two elites of the first owner predict, by the mean over pairs of their KL.

    Args:
        window: ends at the situations. act: `(B, A)`.
    """
    found = ensemble.predict(window.now, act, window)
    elites = ensemble.state_network.elites[0]
    mean = torch.cat([found.mean, found.reward_mean], -1)[elites]
    std = torch.cat([found.std, found.reward_std], -1)[elites]
    live = (std > 0).all(0).all(0)
    return total_variation(pairwise_divergence(mean[..., live], std[..., live]))


def pairwise_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """Mean over ordered pairs of members of the KL between their Gaussians `(E, B, C)`: nats `(B,)`, 0 for one."""
    members = len(mean)
    if members == 1:
        return mean.new_zeros(mean.shape[1])
    one, other = (mean[:, None], std[:, None]), (mean[None], std[None])
    ratio = (one[1].square() + (one[0] - other[0]).square()) / (2 * other[1].square())
    nats = (other[1] / one[1]).log() + ratio - 0.5
    return nats.sum(-1).sum((0, 1)) / (members * (members - 1))
