"""PR2: probabilistic recursive reasoning (Wen, Yang, Luo, Wang, Pan, ICLR 2019, 1901.09207).

An agent asks how all others would react to what it does, as if they had its own interest at heart:

    pi(a, a- | s) = pi(a | s) rho(a- | s, a),     rho*(a- | s, a) = exp(Q(s, a, a-) - Q_i(s, a)),
    Q_i(s, a) = log int exp Q(s, a, a-) da-,

with values over a temperature alpha, in units of reward. The reaction is counterfactual, moves being simultaneous, and
is never fitted to what others did: it predicts nothing, has no log-probability here, and where interests differ is
wishful thinking.

The functions below are the closed forms for finitely many actions, and their estimates by samples. `PR2` is the
actor-critic for box actions: a joint critic Q and a marginal critic Q_i, both taught the same target; a deterministic
policy; and a sampler of reactions, trained by amortised Stein variational gradient.

Where it departs from the released code, on purpose: alpha multiplies the whole logarithm of the importance-sampled
value, whose constant is otherwise off; one state is looked at in the policy's loss, not the next one's critic with the
present one's reactions; these answer what the policy does now, not what was done; and particles live before squashing,
where `log |d tanh|` belongs to the density. The marginal critic is a baseline of that density and moves no particle.

Shape suffixes: B rows, N agents, g agents of a seat, K alternatives, a own action, r the rest; ... any dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm, TrainingStats
from tianshou.algorithm.optim import TorchOptimizerFactory
from torch import Tensor, nn

from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import GameSpec, GoalRule, Kernel, Rows, View
from presage.common.heads import join_agents
from presage.common.one_batch import rows_of_batch
from presage.common.streams import Streams
from presage.marl.deterministic_policy import DeterministicPolicy
from presage.marl.off_policy import OffPolicyConfig
from presage.marl.opponents.annealing import Annealing
from presage.marl.opponents.pr2_networks import Reactions
from presage.marl.opponents.seats import Seat, check_rows, judged, seats_of
from presage.marl.opponents.squashed import log_slope
from presage.marl.opponents.stein import stein_direction

# ---------------------------------------------------------------- closed forms


def reaction_model(values: Tensor, temperature: float = 1.0) -> Tensor:
    """`rho*(a- | s, a) = exp((Q(s, a, a-) - Q_i(s, a)) / alpha)`: chances `(..., J)` of J joint choices of all others.

    Args:
        values: Q `(..., J)`, a dimension of the own choices before the last. temperature: alpha, > 0.
    """
    _check_positive(temperature)
    return (values / temperature).softmax(-1)


def marginal_value(values: Tensor, temperature: float = 1.0) -> Tensor:
    """`Q_i(s, a) = alpha log sum_a- exp(Q(s, a, a-) / alpha)` of values `(..., J)`: `(...)`."""
    _check_positive(temperature)
    return temperature * torch.logsumexp(values / temperature, -1)


def sampled_marginal_value(values: Tensor, width: Tensor | float, temperature: float = 1.0) -> Tensor:
    """`Q_i(s, a)` by importance sampling: `alpha (log mean_k exp(Q(s, a, a_k) / alpha) + d log 2)`, a_k uniform.

    Args:
        values: Q `(..., K)` of K samples in [-1, 1]^d. width: d, `(...)` or a number. temperature: alpha, > 0.

    Returns:
        `(...)`, never more than the truth on average, and the nearer the more samples.
    """
    _check_positive(temperature)
    mean = torch.logsumexp(values / temperature, -1) - math.log(values.shape[-1])
    return temperature * (mean + width * math.log(2.0))


def soft_target(reward: Tensor, terminated: Tensor, next_value: Tensor, discount: float) -> Tensor:
    """`y = r + gamma (1 - terminated) Q_i(s', a')`, all `(...)`: what both critics learn."""
    return reward + discount * next_value.masked_fill(terminated, 0)


def _check_positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be > 0")


# ---------------------------------------------------------------- numbers


def _real_rows() -> DynaConfig:
    return DynaConfig(real_share=1.0, batch_size=512, warmup_steps=1_000, updates_per_step=1.0)


@dataclass(frozen=True, kw_only=True)
class PR2Config(OffPolicyConfig):
    """PR2-AC for all agents of a game with box actions."""

    temperature: Annealing = Annealing(end=0.1)  # noqa: RUF009 - it is frozen
    """alpha, in units of reward; its end > 0"""
    noise: Annealing = Annealing(end=0.01, extra=0.49, rate=1e-3)  # noqa: RUF009 - it is frozen
    """standard deviation that is added to actions in [-1, 1] where they explore"""
    value_samples: int = 16
    """others' actions that a value is estimated from; >= 1"""
    particles: int = 32
    """reactions that a step of the sampler draws in every row; >= 3"""
    moved_share: float = 0.5
    """share of them that is moved, in (0, 1); the others stay and say where to, at least two of them"""
    average: Literal["soft", "plain"] = "soft"
    """what the policy maximises over reactions: `alpha log mean exp(Q / alpha)`, as the released code does, or the mean
    of Q, whose gradient is that of Q_i where the sampler is exact"""
    smoothed: bool = False
    """improve the policy as it is played while it explores, noise included, in place of the noiseless action that the
    released code improves: a noise that shrinks then leads to a hill that is too far off for the slope to tell of it"""
    loop: DynaConfig = field(default_factory=_real_rows)
    """how much is collected and updated; what it says of fitting and imagining is not read"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature.end <= 0:
            raise ValueError(f"temperature.end={self.temperature.end} must be > 0")
        if self.average not in ("soft", "plain"):
            raise ValueError(f"average={self.average!r} must be 'soft' or 'plain'")
        if self.value_samples < 1 or not 1 <= self.moved <= self.particles - 2:
            raise ValueError(
                f"value_samples={self.value_samples} must be >= 1, and of particles={self.particles} "
                f"moved_share={self.moved_share} must move at least one and leave at least two"
            )

    @property
    def moved(self) -> int:
        """How many particles are moved."""
        return int(self.particles * self.moved_share)

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """PR2-AC on a game; see `presage.common.method.Method`.

        Raises:
            GameError: the game has one agent, or discrete actions.
        """
        learner = PR2(spec, self, streams("learner", "cpu"), streams("update"), device=device)
        return Dyna(spec, self.loop, learner, learner.policy, streams, device=device)


# ---------------------------------------------------------------- actor-critic


class PR2(OffPolicyAlgorithm[DeterministicPolicy]):
    """Policies, samplers of reactions and both critics of all agents at once; a tianshou off-policy algorithm.

    An agent's critics read the joint observation; its policy and its sampler read what the agent sees.
    """

    checkpoint_skip = ("metrics",)
    """made again by every update"""

    def __init__(
        self, spec: GameSpec, config: PR2Config, init_rng: torch.Generator, rng: torch.Generator, *,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. config: the numbers.
            init_rng: draws initial weights, on the CPU. rng: draws the actions inside updates, on `device`.
        """
        seats, shape = seats_of(spec, "PR2-AC", device), (config.activation, config.geometry)
        super().__init__(policy=DeterministicPolicy(spec, config.hidden, init_rng, rng, *shape, device))
        self.spec, self.config, self.rng, self.seats = spec, config, rng, seats
        self.policy.noise.fill_(config.noise.at(0))
        self.critic, self.marginal = (
            nn.ModuleList(seat.critics(spec, rest, config.hidden, init_rng, *shape) for seat in self.seats).to(device)
            for rest in (True, False)
        )
        self.reactions = Reactions(spec, config.hidden, init_rng, *shape, device)
        self.critic_old = deepcopy(self.critic).requires_grad_(False)
        self.actors_old = deepcopy(self.policy.actors).requires_grad_(False)
        adam = TorchOptimizerFactory(torch.optim.Adam, lr=config.learning_rate, fused=True)
        self.policy_optim = self._create_optimizer(self.policy.actors, adam)
        self.critic_optim = self._create_optimizer(nn.ModuleList([self.critic, self.marginal]), adam)
        self.reaction_optim = self._create_optimizer(self.reactions, adam)
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

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        return join_agents([seat.group for seat in self.seats], parts)

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """`y` of the target policy's action at the next state, by the target critic: (N, B)."""
        view, values = rows.next_view, []
        own = self.policy.actions(view, self.policy.numbers(view, self.actors_old), None)
        for seat, critic, act in zip(self.seats, self.critic_old, own, strict=True):
            others = seat.acts(view)[1]
            uniform = act.new_empty(*act.shape[:2], self.config.value_samples, seat.rest_width)
            uniform.uniform_(-1, 1, generator=self.rng)
            each = judged(critic, view.obs, act[:, :, None], uniform * others[:, :, None])
            values.append(sampled_marginal_value(each, others.sum(-1), self.alpha))
        return soft_target(rows.reward.T, rows.terminated.T, self._joined(values), self.config.discount)

    # ------------------------------------------------------------ losses

    def critic_losses(self, rows: Rows, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Half the squared errors of both critics at what was done, means over rows: (N,) each."""
        joint, marginal = [], []
        for seat, critic, alone in zip(self.seats, self.critic, self.marginal, strict=True):
            own = seat.group.of_actions(rows.act)
            joint.append(judged(critic, rows.obs, own, seat.rest(rows.act)))
            marginal.append(judged(alone, rows.obs, own))
        joint_loss, marginal_loss = (0.5 * (self._joined(x) - targets).square().mean(1) for x in (joint, marginal))
        return joint_loss, marginal_loss

    def reaction_loss(self, rows: Rows) -> Tensor:
        """Minus the inner products of the moved particles and their Stein directions: (N,).

        Particles u, with `a- = tanh u`, are to follow `(Q(s, a, a-) - Q_i(s, a)) / alpha + log |d a- / du|` at what
        each agent did; gradients reach the sampler through the moved ones.
        """
        own = [seat.group.of_actions(rows.act) for seat in self.seats]
        losses = []
        drawn = self.reactions.sample(rows.obs, own, self.config.particles, self.rng)
        for seat, critic, alone, act, u in zip(self.seats, self.critic, self.marginal, own, drawn, strict=True):
            moved = u[:, :, : self.config.moved]
            fixed = u[:, :, self.config.moved :].detach().requires_grad_()
            others = seat.acts(rows.view)[1][:, :, None]
            values = judged(critic, rows.obs, act[:, :, None], fixed.tanh() * others, frozen=True)
            baseline = judged(alone, rows.obs, act, frozen=True)[:, :, None]
            log_density = (values - baseline) / self.alpha + log_slope(fixed).sum(-1)
            (score,) = torch.autograd.grad(log_density.sum(), fixed)
            losses.append(-(stein_direction(fixed, score, moved) * moved).sum(-1).mean(2))
        return self._joined(losses).mean(1)

    def policy_loss(self, rows: Rows) -> Tensor:
        """Minus the average of Q over reactions to what the policy does, mean over rows, with shrinkage: (N,).

        Reactions are held fixed: the gradient of Q_i is the mean of that of Q over rho*.
        """
        raw, losses = self.policy.numbers(rows.view), []
        own = self.policy.actions(rows.view, raw, None)
        if self.config.smoothed:
            own = [self._played(seat, act, rows.view) for seat, act in zip(self.seats, own, strict=True)]
        with torch.no_grad():
            drawn = self.reactions.sample(rows.obs, own, self.config.value_samples, self.rng)
        for seat, critic, act, before, u in zip(self.seats, self.critic, own, raw, drawn, strict=True):
            others = seat.acts(rows.view)[1][:, :, None]
            values = judged(critic, rows.obs, act[:, :, None], u.tanh() * others, frozen=True)
            soft = self.config.average == "soft"
            worth = sampled_marginal_value(values, 0.0, self.alpha) if soft else values.mean(2)
            losses.append(0.5 * self.config.shrinkage * before.square().mean(2) - worth)
        return self._joined(losses).mean(1)

    def _played(self, seat: Seat, act: Tensor, view: View) -> Tensor:
        """Actions `(g, B, a)` with the noise that they are explored with, within their bounds."""
        noise = torch.empty_like(act).normal_(generator=self.rng)
        return (act + self.policy.noise * noise).clamp(-1, 1) * seat.acts(view)[0]

    # ------------------------------------------------------------ update

    def _update_with_batch(self, batch: Any) -> TrainingStats:
        rows = rows_of_batch(self.spec, batch, self.policy.noise.device)
        check_rows(rows, "PR2-AC")
        targets = self.targets(rows)
        critic_loss, marginal_loss = self.critic_losses(rows, targets)
        self.critic_optim.step((critic_loss + marginal_loss).sum())
        reaction_loss = self.reaction_loss(rows)
        self.reaction_optim.step(reaction_loss.sum())
        policy_loss = self.policy_loss(rows)
        self.policy_optim.step(policy_loss.sum())
        with torch.no_grad():
            for old, new in ((self.critic_old, self.critic), (self.actors_old, self.policy.actors)):
                torch._foreach_lerp_(list(old.parameters()), list(new.parameters()), self.config.target_rate)
        self.metrics = {
            "critic_loss": critic_loss.detach(), "marginal_loss": marginal_loss.detach(),
            "policy_loss": policy_loss.detach(), "reaction_loss": reaction_loss.detach(), "target": targets.mean(1),
            "temperature": torch.tensor([self.alpha]), "noise": self.policy.noise.clone(),
        }  # fmt: skip
        self.updates += 1
        self.policy.noise.fill_(self.config.noise.at(self.updates))
        return TrainingStats()
