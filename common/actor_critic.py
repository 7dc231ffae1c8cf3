"""What advantage actor-critic learners share: advantages, the scale of returns, the loss, and a network with two heads.

A2C is the synchronous form of Mnih et al. 2016 (1602.01783); advantages are generalised as in Schulman, Moritz, Levine,
Jordan, Abbeel 2016 (1506.02438).

Shape suffixes: T time, C game copies, N agents, B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from presage.common import heads
from presage.common.game import Head
from presage.common.networks import StackedMLP


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig:
    """The numbers of A2C; the defaults are those of LIAM's authors (Papoudakis et al. 2021, released code)."""

    learning_rate: float = 3e-4
    """Adam's step size; > 0"""
    discount: float = 0.99
    """gamma, in [0, 1]"""
    trace: float = 0.95
    """lambda of generalised advantages, in [0, 1]: 0 looks one step ahead, 1 as far as the chunk goes"""
    entropy_weight: float = 0.01
    """of the policy's entropy in the loss; >= 0"""
    value_weight: float = 1.0
    """of the squared error of values in the loss; > 0"""
    gradient_clip: float = 0.5
    """largest norm of each network's gradient; > 0"""
    standardised: bool = True
    """values are learned of returns less their running mean, over their running standard deviation"""

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1 or not 0 <= self.trace <= 1:
            raise ValueError(f"discount={self.discount} and trace={self.trace} must lie in [0, 1]")
        if min(self.learning_rate, self.value_weight, self.gradient_clip) <= 0 or self.entropy_weight < 0:
            raise ValueError(
                f"learning_rate={self.learning_rate}, value_weight={self.value_weight} and "
                f"gradient_clip={self.gradient_clip} must be > 0, entropy_weight={self.entropy_weight} >= 0"
            )


def generalised_advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, over: Tensor, discount: float, trace: float
) -> Tensor:
    """How much better each step went than expected, `(T, C, N)` (Schulman et al. 2016, equation 16, cut at T):

        delta_t = r_t + gamma (1 - terminated_t) V(o'_t) - V(o_t)
        A_t     = delta_t + gamma lambda (1 - over_t) A_{t+1}

    A step that was truncated, like the last one of the T, looks ahead by the value of the observation it ended in.

    Args:
        reward, value, next_value: `(T, C, N)`; the last one of the observation that the step itself ended in, never of
            the first one of the next episode.
        terminated: `(T, C, N)` bool. over: `(T, C)` bool: the episode ended with the step, in either way.
        discount, trace: gamma and lambda.
    """
    error = reward + discount * torch.where(terminated, 0.0, next_value) - value
    goes_on = discount * trace * ~(over[..., None] | terminated)
    found, ahead = torch.empty_like(error), torch.zeros_like(error[0])
    for t in range(len(error) - 1, -1, -1):  # each needs the one after it
        ahead = error[t] + goes_on[t] * ahead
        found[t] = ahead
    return found


class ReturnScale(nn.Module):
    """Running mean and variance of all returns so far, saved with the learner; accumulated in float64.

    Before the first returns, and where their standard deviation is below 1e-6, numbers are left as they are but for the
    mean.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, start in (("mean", 0.0), ("variance", 1.0), ("count", 0.0)):
            self.register_buffer(name, torch.tensor(start, dtype=torch.float64))

    def update(self, returns: Tensor) -> None:
        """Take `returns`, of any shape, into account (Chan, Golub, LeVeque 1983)."""
        new = returns.detach().double()
        known, seen = self.count.clone(), new.numel()
        total, shift = known + seen, new.mean() - self.mean
        spread = known * self.variance + seen * new.var(unbiased=False) + shift.square() * known * seen / total
        self.variance.copy_(spread / total)
        self.mean.add_(shift * seen / total)
        self.count.copy_(total)

    @property
    def deviation(self) -> Tensor:
        """What standardised numbers are multiplied by."""
        found = self.variance.sqrt()
        return torch.where(found < 1e-6, torch.ones_like(found), found)

    def standardise(self, returns: Tensor) -> Tensor:
        """Raw returns as what values are learned of, in their dtype."""
        return ((returns - self.mean) / self.deviation).to(returns.dtype)

    def raw(self, values: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return (values * self.deviation + self.mean).to(values.dtype)


@torch.no_grad()
def value_targets(
    numbers: ActorCriticConfig, scale: ReturnScale, reward: Tensor, value: Tensor, next_value: Tensor,
    terminated: Tensor, over: Tensor,
) -> Tensor:  # fmt: skip
    """What the values `(T, C, N)` are to become, in the scale in which they are learned.

    Values are brought to the rewards' own units first; the returns are taken into the scale, and brought to it last.

    Args:
        scale: is updated where `numbers.standardised`. Others as for `generalised_advantages`, values in the scale.
    """
    value, next_value = scale.raw(value), scale.raw(next_value)
    returns = value + generalised_advantages(
        reward, value, next_value, terminated, over, numbers.discount, numbers.trace
    )
    if numbers.standardised:
        scale.update(returns)
    return scale.standardise(returns)


def actor_critic_loss(
    numbers: ActorCriticConfig, log_prob: Tensor, entropy: Tensor, value: Tensor, target: Tensor, acting: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """`c_V (R - V)^2 - (R - V) log pi(a|o) - c_H H`, averaged; no gradient reaches V through the middle one.

    Args:
        log_prob, entropy, value, target: of any one shape. acting: likewise, bool: whoever did not act learns values
            alone.

    Returns:
        the loss, and its parts without gradient: "actor_loss", "critic_loss", "entropy".
    """
    share = acting.to(value.dtype) / acting.sum().clamp_min(1)
    advantage = target - value
    actor = -(advantage.detach() * log_prob * share).sum()
    critic = advantage.square().mean()
    spread = (entropy * share).sum()
    parts = {"actor_loss": actor.detach(), "critic_loss": critic.detach(), "entropy": spread.detach()}
    return actor + numbers.value_weight * critic - numbers.entropy_weight * spread, parts


class ActorCriticNetwork(nn.Module):
    """A policy and a value on one trunk."""

    def __init__(self, inputs: int, hidden: Sequence[int], own: Sequence[Head], rng: torch.Generator) -> None:
        """
        Args:
            inputs: numbers read; >= 1. hidden: widths of the trunk's layers. own: the action that is described.
            rng: draws the weights, on the CPU.
        """
        super().__init__()
        width = sum(head.size for head in own) * (1 if own[0].kind == "discrete" else 2)
        self.trunk = StackedMLP(1, inputs, hidden, width + 1, rng)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What describes the action, as `presage.common.heads` has it, `(..., p)`, and values `(...)`."""
        found = self.trunk(x.reshape(1, -1, x.shape[-1]))[0].view(*x.shape[:-1], -1)
        return found[..., :-1], found[..., -1]


def entropy(own: Sequence[Head], parameters: Tensor, legal: Tensor | None, rng: torch.Generator) -> Tensor:
    """Entropy `(...)` in nats, differentiable: exact of one-hot heads, of box heads by one draw.

    Args:
        parameters: `(..., p)`. legal: `(..., a)` bool, or None. rng: draws, where that is needed.
    """
    if own[0].kind == "discrete":
        return heads.entropy(own, parameters, legal)
    return -heads.answer(own, parameters, None, rng)[1]
