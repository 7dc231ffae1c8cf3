"""ROMMEO: a regularised opponent model with a maximum entropy objective (Tian, Wen, Gong, Punakkath, Zou, Wang, IJCAI
2019, 1905.08087).

An agent that models bad partners faithfully learns to play along with them. This one chooses the policy pi(a | s, a-)
and the model rho(a- | s) of all others together, so that both serve its own reward, and ties the model to what the
others were seen to do, the prior P(a- | s):

    J = sum_t E[ r + alpha H(pi(. | s, a-)) - beta KL(rho(. | s) || P(. | s)) ].

The paper's beta is 1. Weighed against rewards of 10 and more, one nat is next to nothing: rho then follows the hope
alone, and beta is what to raise. rho is no prediction and has no log-probability here; to imagine with, take P.

The functions below are the paper's solution for finitely many actions; `presage.marl.opponents.rommeo_q` learns by it.
`ROMMEO` is the actor-critic for box actions.

Shape suffixes: B rows, N agents, g agents of a seat, K own choices, J joint choices of all others; ... any dimensions.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm, TrainingStats
from tianshou.algorithm.optim import TorchOptimizerFactory
from torch import Tensor, nn

from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import GameSpec, GoalRule, Kernel, Rows, View
from presage.common.heads import join_agents
from presage.common.one_batch import rows_of_batch
from presage.common.streams import Streams
from presage.marl.fresh_rows import FreshRows
from presage.marl.off_policy import OffPolicyConfig
from presage.marl.opponents.annealing import Annealing
from presage.marl.opponents.rommeo_networks import Prior, ROMMEOPolicy
from presage.marl.opponents.seats import check_rows, judged, seats_of
from presage.marl.opponents.squashed import unsquash

# ---------------------------------------------------------------- finitely many actions


def best_answer_values(values: Tensor, temperature: float) -> Tensor:
    """`alpha log sum_a exp(Q(s, a, a-) / alpha)` of values `(..., K, J)`: what each a- is worth, `(..., J)`."""
    _check_positive("temperature", temperature)
    return temperature * torch.logsumexp(values / temperature, -2)


def conditional_policy(values: Tensor, temperature: float) -> Tensor:
    """`pi*(a | s, a-)`, proportional to `exp(Q(s, a, a-) / alpha)`: chances `(..., K, J)` that add up over K."""
    _check_positive("temperature", temperature)
    return (values / temperature).softmax(-2)


def soft_value(values: Tensor, prior: Tensor, temperature: float, weight: float = 1.0) -> Tensor:
    """`V(s) = beta log sum_a- P(a- | s) (sum_a exp(Q(s, a, a-) / alpha))^(alpha / beta)`: `(...)`.

    Args:
        values: Q `(..., K, J)`. prior: P `(..., J)`. temperature: alpha, > 0. weight: beta, > 0.

    Raises:
        ValueError: a number is not above 0, or the prior does not fit the values or is none.
    """
    return weight * torch.logsumexp(_hopes(values, prior, temperature, weight), -1)


def opponent_model(values: Tensor, prior: Tensor, temperature: float, weight: float = 1.0) -> Tensor:
    """`rho*(a- | s)`, proportional to `P(a- | s) (sum_a exp(Q(s, a, a-) / alpha))^(alpha / beta)`: chances `(..., J)`.

    Arguments and errors as of `soft_value`. The larger beta, the nearer to the prior.
    """
    return _hopes(values, prior, temperature, weight).softmax(-1)


def marginal_policy(values: Tensor, model: Tensor, temperature: float) -> Tensor:
    """`sum_a- pi*(a | s, a-) rho(a- | s)`: the chances `(..., K)` to act by, with the model's `(..., J)`."""
    return (conditional_policy(values, temperature) * model[..., None, :]).sum(-1)


def objective(
    values: Tensor, prior: Tensor, policy: Tensor, model: Tensor, temperature: float, weight: float = 1.0
) -> Tensor:
    """`E[Q + alpha H(pi)] - beta KL(rho || P)` of any policy `(..., K, J)` and model `(..., J)`: `(...)`.

    pi* and rho* reach `soft_value`, and nothing reaches more.
    """
    chances = policy * model[..., None, :]
    entropy = -torch.xlogy(policy, policy).sum(-2)
    apart = (torch.xlogy(model, model) - torch.xlogy(model, prior)).sum(-1)
    return (chances * values).sum((-2, -1)) + temperature * (model * entropy).sum(-1) - weight * apart


def _hopes(values: Tensor, prior: Tensor, temperature: float, weight: float) -> Tensor:
    """Logarithms of what rho* is proportional to, `(..., J)`; minus infinity where the prior is 0."""
    _check_positive("weight", weight)
    if prior.shape[-1:] != values.shape[-1:] or bool((prior < 0).any()) or bool((prior.sum(-1) <= 0).any()):
        raise ValueError(
            f"prior of shape {tuple(prior.shape)} must hold chances >= 0, not all 0, of the {values.shape[-1]} joint "
            "choices of the others, the last dimension of values"
        )
    seen = prior > 0
    log_prior = torch.where(seen, torch.where(seen, prior, 1.0).log(), -torch.inf)
    return log_prior + best_answer_values(values, temperature) / weight


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name}={value} must be > 0")


# ---------------------------------------------------------------- actor-critic


def _real_rows() -> DynaConfig:
    return DynaConfig(real_share=1.0, batch_size=512, warmup_steps=10, updates_per_step=1.0)


@dataclass(frozen=True, kw_only=True)
class ROMMEOConfig(OffPolicyConfig):
    """ROMMEO-AC for all agents of a game with box actions; `shrinkage` is of policies' and of models' means and log
    sigmas.
    """

    temperature: Annealing = Annealing(end=0.1)  # noqa: RUF009 - it is frozen
    """alpha, the weight of the policy's entropy, in units of reward; its end > 0"""
    prior_weight: float = 1.0
    """beta, the weight of the model's divergence from the prior, in units of reward; >= 0"""
    prior_shrinkage: float = 1e-3
    """weight that holds the priors' means and log sigmas near 0; >= 0"""
    sigma_floor: float = 0.01
    """added to every standard deviation before squashing; >= 0"""
    loop: DynaConfig = field(default_factory=_real_rows)
    """how much is collected and updated; what it says of fitting and imagining is not read. The prior learns from as
    many of the newest rows as a batch has"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature.end <= 0:
            raise ValueError(f"temperature.end={self.temperature.end} must be > 0")
        low = {"prior_weight": self.prior_weight, "sigma_floor": self.sigma_floor,
               "prior_shrinkage": self.prior_shrinkage}  # fmt: skip
        for name, value in low.items():
            if value < 0:
                raise ValueError(f"{name}={value} must be >= 0")

    @classmethod
    def official(cls) -> ROMMEOConfig:
        """The released code's numbers: an alpha that falls from 500 to 0.16 within a hundred updates, and a prior that
        is pulled to N(0, 1) with weight 1.

        Left out on purpose, being a fault: an opponent model as wide as the own action, whatever the others' are.
        """
        return cls(temperature=Annealing(end=0.1, extra=500.0, rate=0.1), prior_shrinkage=1.0)

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """ROMMEO-AC on a game; see `presage.common.method.Method`.

        Raises:
            GameError: the game has one agent, or discrete actions.
        """
        learner = ROMMEO(spec, self, streams("learner", "cpu"), streams("update"), device=device)
        return FreshRows(spec, self.loop, learner, learner.policy, streams, device=device)


class _Expected(NamedTuple):
    """What all agents expect to come of acting in B rows, differentiable in policies and models."""

    value: Tensor
    """(N, B) `Q - alpha log pi - beta KL(rho || P)`"""
    entropy: Tensor
    """(N, B) `-log pi`"""
    apart: Tensor
    """(N, B) `KL(rho || P)`"""
    shrunk: Tensor
    """(N, B) what shrinkage weighs"""


class ROMMEO(OffPolicyAlgorithm[ROMMEOPolicy]):
    """Policies, biased models, priors and critics of all agents at once; a tianshou off-policy algorithm.

    An agent's critic reads the joint observation; its policy, model and prior read what the agent sees. Every agent
    learns, with a model of all others together, of whatever number and width.
    """

    checkpoint_skip = ("metrics",)
    """made again by every update"""

    def __init__(
        self, spec: GameSpec, config: ROMMEOConfig, init_rng: torch.Generator, rng: torch.Generator, *,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. config: the numbers.
            init_rng: draws initial weights, on the CPU. rng: draws the actions inside updates, on `device`.
        """
        seats = seats_of(spec, "ROMMEO-AC", device)
        shape = (config.activation, device, config.geometry, config.sigma_floor)
        super().__init__(policy=ROMMEOPolicy(spec, config.hidden, init_rng, rng, *shape))
        self.spec, self.config, self.rng, self.seats = spec, config, rng, seats
        self.prior = Prior(spec, config.hidden, init_rng, *shape)
        self.critic = nn.ModuleList(
            seat.critics(spec, True, config.hidden, init_rng, config.activation, config.geometry) for seat in seats
        ).to(device)
        self.critic_old = deepcopy(self.critic).requires_grad_(False)
        adam = TorchOptimizerFactory(torch.optim.Adam, lr=config.learning_rate, fused=True)
        self.policy_optim = self._create_optimizer(self.policy, adam)
        self.prior_optim = self._create_optimizer(self.prior, adam)
        self.critic_optim = self._create_optimizer(self.critic, adam)
        self.updates = 0
        self.metrics: dict[str, Tensor] = {}
        """the last update's losses, per agent, on the device"""

    @property
    def gamma(self) -> float:
        """The discount, by the name that tianshou's algorithms give it."""
        return self.config.discount

    @property
    def alpha(self) -> float:
        """The present temperature."""
        return self.config.temperature.at(self.updates)

    # ------------------------------------------------------------ values

    def expect(self, critics: nn.ModuleList, view: View) -> _Expected:
        """`V(s)` of one a- from every model and one a from every policy given it, both reparametrised.

        `log rho - log P` is taken in expectation, a divergence of Gaussians, where the paper has the sample's. The own
        action is drawn anew, as in the released code; in the paper's Eq. 19 it is the replay's.
        """
        models = self.policy.expected(view.obs)
        priors = self.prior.expected(view.obs, frozen=True)
        acting = [seat.acts(view) for seat in self.seats]
        rest = [model.sample(self.rng).tanh() * others for model, (_, others) in zip(models, acting, strict=True)]
        policies = self.policy.conditional(view.obs, rest)
        values, log_probs, aparts, sizes = [], [], [], []
        found = zip(critics, models, priors, policies, rest, acting, strict=True)
        for critic, model, prior, policy, others, (own_acts, others_act) in found:
            u = policy.sample(self.rng)
            log_prob = (policy.log_prob(u) * own_acts).sum(-1)
            apart = (model.divergence(prior) * others_act).sum(-1)
            value = judged(critic, view.obs, u.tanh() * own_acts, others, frozen=True)
            values.append(value - self.alpha * log_prob - self.config.prior_weight * apart)
            log_probs.append(log_prob)
            aparts.append(apart)
            sizes.append(policy.size().mean(-1) + model.size().mean(-1))
        value, log_prob, apart, shrunk = (self._joined(x) for x in (values, log_probs, aparts, sizes))
        return _Expected(value, -log_prob, apart, shrunk)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return join_agents(self.policy.groups, parts)

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """`y_i = r_i + gamma (1 - terminated_i) V'_i(s')` with the target critics, (N, B)."""
        value = self.expect(self.critic_old, rows.next_view).value.masked_fill(rows.terminated.T, 0)
        return rows.reward.T + self.config.discount * value

    # ------------------------------------------------------------ losses

    def critic_loss(self, rows: Rows, targets: Tensor) -> Tensor:
        """`J_Q`: half the squared error at what everybody did, mean over rows: (N,)."""
        values = [
            judged(critic, rows.obs, seat.group.of_actions(rows.act), seat.rest(rows.act))
            for seat, critic in zip(self.seats, self.critic, strict=True)
        ]
        return 0.5 * (self._joined(values) - targets).square().mean(1)

    def policy_loss(self, rows: Rows) -> tuple[Tensor, _Expected]:
        """`-V(s)`, mean over rows: (N,).

        Its gradient in the policy is that of the paper's `J_pi`, its gradient in the model that of `J_rho`: the model
        learns through what it makes the policy do as well.
        """
        expected = self.expect(self.critic, rows.view)
        return (self.config.shrinkage * expected.shrunk - expected.value).mean(1), expected

    def prior_loss(self, rows: Rows) -> Tensor:
        """`L_P = -log P(a- | o)` of what those who acted did, mean over rows: (N,)."""
        losses = []
        for seat, prior in zip(self.seats, self.prior.expected(rows.obs), strict=True):
            log_prob = (prior.log_prob(unsquash(seat.rest(rows.act))) * seat.acts(rows.view)[1]).sum(-1)
            losses.append(self.config.prior_shrinkage * prior.size().mean(-1) - log_prob)
        return self._joined(losses).mean(1)

    # ------------------------------------------------------------ update

    @property
    def newest(self) -> int:
        """Rows that the priors learn from at a time."""
        return self.config.loop.batch_size

    def follow(self, rows: Rows) -> None:
        """One step of the priors on the newest rows."""
        loss = self.prior_loss(rows)
        self.prior_optim.step(loss.sum())
        self.metrics["prior_loss"] = loss.detach()

    def _update_with_batch(self, batch: Any) -> TrainingStats:
        rows = rows_of_batch(self.spec, batch, self.policy.device)
        check_rows(rows, "ROMMEO-AC")
        targets = self.targets(rows)
        critic_loss = self.critic_loss(rows, targets)
        self.critic_optim.step(critic_loss.sum())
        policy_loss, expected = self.policy_loss(rows)
        self.policy_optim.step(policy_loss.sum())
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.critic_old.parameters()), list(self.critic.parameters()), self.config.target_rate
            )
        self.metrics |= {
            "critic_loss": critic_loss.detach(), "policy_loss": policy_loss.detach(), "target": targets.mean(1),
            "entropy": expected.entropy.detach().mean(1), "model_divergence": expected.apart.detach().mean(1),
            "temperature": torch.tensor([self.alpha]),
        }  # fmt: skip
        self.updates += 1
        return TrainingStats()
