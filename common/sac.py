"""tianshou's own soft actor-critic for one agent with box actions, and its policy as an `Actor`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from tianshou.algorithm.modelfree.sac import SAC, AutoAlpha, SACPolicy
from tianshou.algorithm.optim import TorchOptimizerFactory
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from torch import Tensor

from presage.common.game import Carry, GameError, GameSpec, View, Window
from presage.common.policy import joint_action_space


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

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or not 0 <= self.discount <= 1 or not 0 < self.target_rate <= 1:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be > 0, discount={self.discount} in [0, 1] and "
                f"target_rate={self.target_rate} in (0, 1]"
            )
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be > 0, or None to learn it")


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


def build_sac(
    spec: GameSpec, config: SACConfig, rng: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[SAC[Any], GaussianActor]:
    """tianshou's SAC on the joint vectors of a game of one agent with box actions, and its policy as an actor.

    tianshou's networks draw their first weights from torch's global generator: it is seeded from `rng` for that and
    put back.

    Raises:
        GameError: the game has several agents, or discrete actions.
    """
    if spec.n != 1 or spec.agents[0].discrete:
        raise GameError(
            f"soft actor-critic here takes one agent with box actions; {spec.name!r} has {spec.n} agent(s) with "
            f"{'discrete' if spec.agents[0].discrete else 'box'} actions. presage.marl.masac.MASAC takes any game"
        )
    observation, action = (spec.obs_dim,), (spec.act_dim,)
    seed = int(torch.randint(2**62, (1,), generator=rng, device=rng.device))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = Net(state_shape=observation, hidden_sizes=config.hidden)
        actor = ContinuousActorProbabilistic(
            preprocess_net=body, action_shape=action, unbounded=True, conditioned_sigma=True
        ).to(device)
        critics = [
            ContinuousCritic(
                preprocess_net=Net(
                    state_shape=observation, action_shape=action, hidden_sizes=config.hidden, concat=True
                )
            ).to(device)
            for _ in range(2)
        ]
    adam = TorchOptimizerFactory(torch.optim.Adam, lr=config.learning_rate)
    target = -float(math.prod(action)) if config.target_entropy is None else config.target_entropy
    alpha = AutoAlpha(target, 0.0, adam).to(device) if config.temperature is None else float(config.temperature)
    policy = SACPolicy(actor=actor, action_space=joint_action_space(spec), action_scaling=False)
    learner: SAC[Any] = SAC(
        policy=policy, policy_optim=adam, critic=critics[0], critic_optim=adam, critic2=critics[1], critic2_optim=adam,
        tau=config.target_rate, gamma=config.discount, alpha=alpha,
    )  # fmt: skip
    return learner, GaussianActor(policy)
