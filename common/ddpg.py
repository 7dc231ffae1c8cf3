"""tianshou's DDPG and TD3 for one agent with box actions, by the shortest way, with what learning of goals adds: a
price on large actions, targets held to what returns can be, targets that move once per cycle, uniform actions.

Deterministic policy gradients: Lillicrap et al. 2016 (1509.02971); twin critics, smoothed targets and a late policy:
Fujimoto, van Hoof, Meger 2018 (1802.09477); the additions: Plappert et al. 2018 (1802.09464) and its released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.algorithm.modelfree.ddpg import DDPG, ContinuousDeterministicPolicy, DDPGTrainingStats
from tianshou.algorithm.modelfree.td3 import TD3, TD3TrainingStats
from tianshou.algorithm.optim import TorchOptimizerFactory
from tianshou.data import ReplayBuffer
from torch import Tensor, nn

from presage.common.game import Carry, GameError, GameSpec, Rows, View, Window
from presage.common.networks import StackedMLP, stacked_linear
from presage.common.one_batch import OneBatch
from presage.common.policy import joint_action_space
from presage.common.sac import ValueNetwork
from presage.common.target_range import TargetRange


@dataclass(frozen=True, kw_only=True)
class DDPGConfig:
    """The numbers of deterministic policy gradients; the defaults are those of Plappert et al. 2018 for Fetch, but for
    the batches of its nineteen workers, and for `targets`, which the paper holds to what its rewards of -1 and 0 allow:
    `TargetRange.of_rewards(-1.0, 0.0, discount)`.
    """

    hidden: tuple[int, ...] = (256, 256, 256)
    """widths of the hidden layers of policy and critics"""
    learning_rate: float = 1e-3
    """Adam's step size for the policy; > 0"""
    critic_rate: float = 1e-3
    """likewise for the critics; > 0"""
    discount: float = 0.98
    """gamma, in [0, 1]"""
    target_rate: float = 0.05
    """tau: share of the networks that moves into their targets, in (0, 1]"""
    target_every: int = 40
    """policy steps between two moves of the targets, one cycle in the paper; >= 1"""
    targets: TargetRange = field(default_factory=TargetRange)
    """what a target can be"""
    action_penalty: float = 1.0
    """weight of the mean square of the policy's actions in its loss; >= 0"""
    noise: float = 0.2
    """standard deviation of what is added to actions for exploration; >= 0"""
    random_share: float = 0.3
    """share of the actions that are uniform instead, every row's drawn for itself; in [0, 1]"""
    twin: bool = False
    """TD3: the lower of two critics, noise on the targets' actions, and a policy that learns more slowly"""
    smoothing: float = 0.2
    """TD3: standard deviation of the noise on the targets' actions; >= 0"""
    smoothing_limit: float = 0.5
    """TD3: the most that this noise can be; > 0"""
    delay: int = 2
    """TD3: updates of the critics for every one of the policy; >= 1"""

    def __post_init__(self) -> None:
        positive = {"learning_rate": self.learning_rate, "critic_rate": self.critic_rate,
                    "smoothing_limit": self.smoothing_limit}  # fmt: skip
        for name, number in positive.items():
            if number <= 0:
                raise ValueError(f"{name}={number} must be > 0")
        for name, number in {
            "action_penalty": self.action_penalty,
            "noise": self.noise,
            "smoothing": self.smoothing,
        }.items():
            if number < 0:
                raise ValueError(f"{name}={number} must be >= 0")
        for name, count in {"target_every": self.target_every, "delay": self.delay}.items():
            if count < 1:
                raise ValueError(f"{name}={count} must be >= 1")
        if not 0 <= self.discount <= 1 or not 0 < self.target_rate <= 1 or not 0 <= self.random_share <= 1:
            raise ValueError(
                f"discount={self.discount} and random_share={self.random_share} must lie in [0, 1], "
                f"target_rate={self.target_rate} in (0, 1]"
            )


class DeterministicNetwork(nn.Module):
    """An action in [-1, 1], as tianshou's policies ask for it."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, rng: torch.Generator) -> None:
        super().__init__()
        self.network = StackedMLP(1, inputs, hidden, outputs, rng)

    def forward(self, obs: Tensor | np.ndarray, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """`(B, O)` to `(B, A)`."""
        weight = stacked_linear(self.network.layers[0]).weight
        read = torch.as_tensor(obs, dtype=weight.dtype, device=weight.device)
        return self.network(read)[0].tanh(), state


class DeterministicActor:
    """A deterministic policy as an `Actor`; with a generator noise is added, and some actions are uniform."""

    def __init__(self, policy: ContinuousDeterministicPolicy, noise: float, random_share: float) -> None:
        self.policy, self.noise, self.random_share = policy, noise, random_share

    def init(self, window: Window) -> Carry:
        """Nothing: the policy is memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The action `(B, A)` in [-1, 1]; the policy's own where rng is None."""
        act: Tensor = self.policy.actor(view.obs)[0]
        if rng is None:
            return carry, act
        noise = torch.empty_like(act).normal_(generator=rng)
        other = torch.rand(act.shape, generator=rng, device=act.device) * 2 - 1
        uniform = torch.rand(len(act), 1, generator=rng, device=act.device) < self.random_share
        return carry, torch.where(uniform, other, (act + self.noise * noise).clamp(-1.0, 1.0))


class _Lean:
    """What `LeanDDPG` and `LeanTD3` do alike: an update with a `OneBatch` without tianshou's way through NumPy."""

    checkpoint_skip = ("_improved", "_lagging", "_critics", "_old_critics", "numbers")
    """parameters that are saved with their networks, and configuration"""

    # of tianshou's classes
    policy: Any
    policy_optim: Any
    critic: Any
    critic2: Any
    critic_optim: Any
    actor_old: Any
    critic_old: Any
    critic2_old: Any
    gamma: float
    tau: float
    _lagged_networks: Any

    def prepare(self, numbers: DDPGConfig) -> None:
        """Take the numbers that tianshou's own class does not have."""
        self.numbers, self.updates, self.policy_steps, self._policy_loss = numbers, 0, 0, 0.0
        self._critics = [self.critic] if not numbers.twin else [self.critic, self.critic2]
        self._old_critics = [self.critic_old] if not numbers.twin else [self.critic_old, self.critic2_old]
        pairs = self._lagged_networks._lagged_network_pairs
        self._improved = tuple(self.policy.actor.parameters())
        self._lagging: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] = (
            tuple(parameter for pair in pairs for parameter in pair.target.parameters()),
            tuple(parameter for pair in pairs for parameter in pair.source.parameters()),
        )

    def update(self, buffer: ReplayBuffer, sample_size: int | None) -> TrainingStats:
        """One update with all rows of a `OneBatch`.

        Raises:
            TypeError: another buffer; tianshou's own classes take those.
        """
        if not isinstance(buffer, OneBatch):
            raise TypeError(f"updates take a OneBatch of rows, got {type(buffer).__name__}")
        return self._update_with_rows(buffer.rows)

    def _update_with_rows(self, rows: Rows) -> TrainingStats:
        numbers, wanted = self.numbers, self.targets(rows)
        losses = [(critic(rows.obs, rows.act)[:, 0] - wanted).square().mean() for critic in self._critics]
        self.critic_optim.step(sum(losses[1:], losses[0]))
        if self.updates % (numbers.delay if numbers.twin else 1) == 0:
            act = self.policy.actor(rows.obs)[0]
            loss = -self.critic(rows.obs, act).mean() + numbers.action_penalty * act.square().mean()
            self.policy_optim._optim.zero_grad()
            torch.autograd.backward(loss, inputs=self._improved)
            self.policy_optim._optim.step()
            self._policy_loss = loss.item()
            self.policy_steps += 1
            if self.policy_steps % numbers.target_every == 0:
                with torch.no_grad():
                    targets, sources = self._lagging
                    torch._foreach_lerp_(targets, sources, self.tau)
        self.updates += 1
        found = [loss.item() for loss in losses]
        if numbers.twin:
            return TD3TrainingStats(actor_loss=self._policy_loss, critic1_loss=found[0], critic2_loss=found[1])
        return DDPGTrainingStats(actor_loss=self._policy_loss, critic_loss=found[0])

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """`y = r + gamma (1 - terminated) min_m Q'_m(s', mu'(s'))`, `(B,)`, held to what it can be; with TD3, noise is
        added to the target's action, which stays in [-1, 1].
        """
        numbers = self.numbers
        act = self.actor_old.module(rows.next_obs)[0]
        if numbers.twin:
            noise = torch.randn_like(act) * numbers.smoothing  # torch's global generator, as in tianshou
            act = (act + noise.clamp(-numbers.smoothing_limit, numbers.smoothing_limit)).clamp(-1.0, 1.0)
        values = [critic.module(rows.next_obs, act)[:, 0] for critic in self._old_critics]
        value = torch.minimum(*values) if numbers.twin else values[0]
        going_on = ~rows.terminated[:, 0]
        return numbers.targets.of(rows.reward[:, 0], self.gamma * going_on, value)


class LeanDDPG(_Lean, DDPG):
    """tianshou's DDPG whose updates with a `OneBatch` go the shortest way."""


class LeanTD3(_Lean, TD3):
    """tianshou's TD3, likewise; targets' actions stay in [-1, 1], which tianshou leaves out."""

    def __init__(self, **parts: Any) -> None:
        """
        Args:
            parts: as of tianshou's `TD3`.
        """
        super().__init__(**parts)
        self._optimizers.remove(self.critic_optim)
        self._optimizers.remove(self.critic2_optim)
        self.critic_optim = self.critic2_optim = self._create_optimizer(
            nn.ModuleList([self.critic, self.critic2]), parts["critic_optim"]
        )


def build_ddpg(
    spec: GameSpec, config: DDPGConfig, rng: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[LeanDDPG | LeanTD3, DeterministicActor]:
    """DDPG, or TD3 with `config.twin`, on the joint vectors of a game of one agent with box actions; and its policy.

    Args:
        rng: draws the first weights, on the CPU.

    Raises:
        GameError: the game has several agents, or discrete actions.
    """
    if spec.n != 1 or spec.agents[0].discrete:
        raise GameError(
            f"deterministic policy gradients here take one agent with box actions; {spec.name!r} has {spec.n} agent(s) "
            f"with {'discrete' if spec.agents[0].discrete else 'box'} actions"
        )
    actor = DeterministicNetwork(spec.obs_dim, config.hidden, spec.act_dim, rng).to(device)
    critics = [ValueNetwork(spec.obs_dim + spec.act_dim, config.hidden, rng).to(device) for _ in range(1 + config.twin)]
    policy = ContinuousDeterministicPolicy(
        actor=actor,  # type: ignore[arg-type]  # tianshou asks for its own class, and uses what this one has
        action_space=joint_action_space(spec), action_scaling=False, action_bound_method=None,
    )  # fmt: skip
    factories = [TorchOptimizerFactory(torch.optim.Adam, lr=rate, fused=True)
                 for rate in (config.learning_rate, config.critic_rate)]  # fmt: skip
    parts: dict[str, Any] = {
        "policy": policy, "policy_optim": factories[0], "critic": critics[0], "critic_optim": factories[1],
        "tau": config.target_rate, "gamma": config.discount,
    }  # fmt: skip
    learner: LeanDDPG | LeanTD3
    if config.twin:
        learner = LeanTD3(
            **parts, critic2=critics[1], critic2_optim=factories[1], policy_noise=config.smoothing,
            noise_clip=config.smoothing_limit, update_actor_freq=config.delay,
        )  # fmt: skip
    else:
        learner = LeanDDPG(**parts)
    learner.prepare(config)
    return learner, DeterministicActor(policy, config.noise, config.random_share)
