"""tianshou's soft actor-critic for one agent with box actions, by the shortest way, and its policy as an `Actor`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.algorithm.modelfree.sac import SAC, AutoAlpha, SACPolicy, SACTrainingStats
from tianshou.algorithm.optim import TorchOptimizerFactory
from tianshou.data import ReplayBuffer
from torch import Tensor, nn

from presage.common.game import Carry, GameError, GameSpec, Head, Rows, View, Window
from presage.common.heads import LOG_SIGMA_RANGE, SQUASH_GUARD, divergence
from presage.common.networks import StackedMLP
from presage.common.one_batch import OneBatch
from presage.common.policy import joint_action_space

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class SACConfig:
    """The numbers of soft actor-critic (Haarnoja et al. 2018, 1812.05905)."""

    hidden: tuple[int, ...] = (256, 256)
    """widths of the hidden layers of policy and critics"""
    learning_rate: float = 3e-4
    """Adam's step size for policy, critics and temperature; > 0"""
    discount: float = 0.99
    """gamma, in [0, 1]"""
    target_rate: float = 0.005
    """tau: share of the critics that moves into their targets at each update, in (0, 1]"""
    temperature: float | None = None
    """alpha; None learns it"""
    target_entropy: float | None = None
    """where alpha is learned; None means minus the width of the action"""
    lean: bool = True
    """updates go the shortest way (`LeanSAC`), which is tianshou's to rounding; False: tianshou's own"""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or not 0 <= self.discount <= 1 or not 0 < self.target_rate <= 1:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be > 0, discount={self.discount} in [0, 1] and "
                f"target_rate={self.target_rate} in (0, 1]"
            )
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be > 0, or None to learn it")


class GaussianNetwork(nn.Module):
    """Mean and standard deviation of a Gaussian before squashing, as tianshou's policies ask for them."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, rng: torch.Generator) -> None:
        super().__init__()
        self.network = StackedMLP(1, inputs, hidden, 2 * outputs, rng)

    def forward(
        self, obs: Tensor | np.ndarray, state: Any = None, info: Any = None
    ) -> tuple[tuple[Tensor, Tensor], Any]:
        """`(B, O)` to two times `(B, A)`."""
        mean, log_sigma = self.network(_tensor(obs, self.network))[0].chunk(2, 1)
        return (mean, log_sigma.clamp(*LOG_SIGMA_RANGE).exp()), state


class ValueNetwork(nn.Module):
    """A critic over observation and action side by side, as tianshou's algorithms ask for it."""

    def __init__(self, inputs: int, hidden: Sequence[int], rng: torch.Generator) -> None:
        super().__init__()
        self.network = StackedMLP(1, inputs, hidden, 1, rng)

    def forward(self, obs: Tensor | np.ndarray, act: Tensor | np.ndarray) -> Tensor:
        """`(B, O)` and `(B, A)` to `(B, 1)`."""
        value: Tensor = self.network(torch.cat([_tensor(obs, self.network), _tensor(act, self.network)], 1))[0]
        return value


def _tensor(x: Tensor | np.ndarray, network: StackedMLP) -> Tensor:
    """What tianshou's buffers hold, as the network reads it."""
    weight: Tensor = network.layers[0].weight  # type: ignore[assignment]  # layers are modules to torch
    return torch.as_tensor(x, dtype=weight.dtype, device=weight.device)


class GaussianActor:
    """A tianshou SAC policy as an `Actor` whose noise comes from the generator it is given."""

    def __init__(self, policy: SACPolicy) -> None:
        self.policy = policy

    def init(self, window: Window) -> Carry:
        """Nothing: the policy is memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The action `(B, A)` in [-1, 1]: the squashed mean where rng is None, else a squashed Gaussian sample."""
        (mean, sigma), _ = self.policy.actor(view.obs)
        if rng is not None:
            mean = mean + sigma * torch.empty_like(mean).normal_(generator=rng)
        return carry, mean.tanh()

    def divergence(self, earlier: nn.Module, view: View) -> Tensor:
        """KL `(B,)` in nats of the actions from those of an earlier policy of this kind.

        Raises:
            TypeError: `earlier` is no such policy.
        """
        if not isinstance(earlier, SACPolicy):
            raise TypeError(f"expected tianshou's SACPolicy, got {type(earlier).__name__}")
        described = [torch.cat([mean, sigma.log()], 1) for (mean, sigma), _ in
                     (policy.actor(view.obs) for policy in (self.policy, earlier))]  # fmt: skip
        return divergence((Head(kind="box", size=described[0].shape[1] // 2),), *described)


class LeanSAC(SAC[SACTrainingStats]):
    """tianshou's SAC whose update with a `OneBatch` goes the shortest way: same parts, same draws, same numbers but for
    rounding.

    Targets stay on the device instead of passing through NumPy, both critics share one backward pass, no gradient is
    taken for critics in the policy's step, optimisers and targets move by fused kernels, and no module is switched
    between training and evaluation, which for networks without dropout says nothing. Other buffers take tianshou's way.
    """

    checkpoint_skip = ("_improved", "_lagging")
    """parameters that are saved with their networks"""

    def __init__(self, **parts: Any) -> None:
        """
        Args:
            parts: as of tianshou's `SAC`.
        """
        super().__init__(**parts)
        self._optimizers.remove(self.critic_optim)
        self._optimizers.remove(self.critic2_optim)
        self.critic_optim = self.critic2_optim = self._create_optimizer(
            nn.ModuleList([self.critic, self.critic2]), parts["critic_optim"]
        )
        pairs = self._lagged_networks._lagged_network_pairs
        self._improved = tuple(self.policy.actor.parameters())
        self._lagging = tuple(
            tuple(parameter for network in networks for parameter in network.parameters())
            for networks in ([pair.target for pair in pairs], [pair.source for pair in pairs])
        )

    def update(self, buffer: ReplayBuffer, sample_size: int | None) -> TrainingStats:
        """One update; `sample_size` is not read with a `OneBatch`, all of whose rows are used."""
        ready = self.policy.is_within_training_step and self.n_step_return_horizon == 1
        if not isinstance(buffer, OneBatch) or not ready:
            return super().update(buffer, sample_size)
        stats = self._update_with_rows(buffer.rows)
        for scheduler in self.lr_schedulers:
            scheduler.step()
        return stats

    def _update_with_rows(self, rows: Rows) -> SACTrainingStats:
        alpha, wanted = self.alpha.value, self.targets(rows)
        losses = [(values - wanted).square().mean() for values in self._values(rows.obs, rows.act)]
        self.critic_optim.step(losses[0] + losses[1])

        act, log_prob = self._answer(rows.obs)
        policy_loss = (alpha * log_prob - torch.minimum(*self._values(rows.obs, act))).mean()
        self.policy_optim._optim.zero_grad()
        torch.autograd.backward(policy_loss, inputs=self._improved)
        self.policy_optim._optim.step()
        alpha_loss = self.alpha.update(-log_prob.detach())
        with torch.no_grad():
            targets, sources = self._lagging
            torch._foreach_lerp_(targets, sources, self.tau)
        return SACTrainingStats(
            actor_loss=policy_loss.item(), critic1_loss=losses[0].item(), critic2_loss=losses[1].item(),
            alpha=self.alpha.value, alpha_loss=alpha_loss,
        )  # fmt: skip

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """`y = r + gamma (1 - terminated) (min_m Q'_m(s', a') - alpha log pi(a' | s'))`, `(B,)`."""
        act, log_prob = self._answer(rows.next_obs)
        values = [critic.module(rows.next_obs, act)[:, 0] for critic in (self.critic_old, self.critic2_old)]
        value = torch.minimum(*values) - self.alpha.value * log_prob
        wanted: Tensor = rows.reward[:, 0] + self.gamma * value.masked_fill(rows.terminated[:, 0], 0)
        return wanted

    def _answer(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's action `(B, A)` and its log-probability `(B,)`; as in tianshou, noise comes from torch's global
        generator.
        """
        (mean, sigma), _ = self.policy.actor(obs)
        noise = torch.randn_like(mean)
        act = (mean + sigma * noise).tanh()
        normal = noise.square().sum(1) / 2 + sigma.log().sum(1) + mean.shape[1] * HALF_LOG_TWO_PI
        return act, -normal - torch.log(1 - act.square() + SQUASH_GUARD).sum(1)

    def _values(self, obs: Tensor, act: Tensor) -> list[Tensor]:
        """Both critics' values, `(B,)` each."""
        return [critic(obs, act)[:, 0] for critic in (self.critic, self.critic2)]


def build_sac(
    spec: GameSpec, config: SACConfig, rng: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[SAC[Any], GaussianActor]:
    """tianshou's SAC on the joint vectors of a game of one agent with box actions, and its policy as an actor.

    Args:
        rng: draws the first weights, on the CPU.

    Raises:
        GameError: the game has several agents, or discrete actions.
    """
    if spec.n != 1 or spec.agents[0].discrete:
        raise GameError(
            f"soft actor-critic here takes one agent with box actions; {spec.name!r} has {spec.n} agent(s) with "
            f"{'discrete' if spec.agents[0].discrete else 'box'} actions. presage.marl.masac.MASAC takes any game"
        )
    actor = GaussianNetwork(spec.obs_dim, config.hidden, spec.act_dim, rng).to(device)
    critics = [ValueNetwork(spec.obs_dim + spec.act_dim, config.hidden, rng).to(device) for _ in range(2)]
    adam = TorchOptimizerFactory(torch.optim.Adam, lr=config.learning_rate, fused=config.lean)
    target = -float(spec.act_dim) if config.target_entropy is None else config.target_entropy
    alpha = AutoAlpha(target, 0.0, adam).to(device) if config.temperature is None else float(config.temperature)
    policy = SACPolicy(actor=actor, action_space=joint_action_space(spec), action_scaling=False)
    learner: SAC[Any] = (LeanSAC if config.lean else SAC)(
        policy=policy, policy_optim=adam, critic=critics[0], critic_optim=adam, critic2=critics[1], critic2_optim=adam,
        tau=config.target_rate, gamma=config.discount, alpha=alpha,
    )  # fmt: skip
    return learner, GaussianActor(policy)
