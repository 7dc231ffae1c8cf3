"""tianshou's DQN for one agent with a single choice, by the shortest way, with targets that follow at a rate.

Deep Q-networks: Mnih et al. 2015; double Q-learning: van Hasselt, Guez, Silver 2016 (1509.06461). Targets that move a
part of the way once per cycle, and are held to what returns can be: Andrychowicz et al. 2017 (1707.01495).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tianshou.algorithm.algorithm_base import TrainingStats
from tianshou.algorithm.modelfree.dqn import DQN, DiscreteQLearningPolicy
from tianshou.algorithm.modelfree.reinforce import SimpleLossTrainingStats
from tianshou.algorithm.optim import TorchOptimizerFactory
from tianshou.data import ReplayBuffer
from torch import Tensor, nn

from presage.common.game import Carry, GameError, GameSpec, Rows, View, Window
from presage.common.networks import StackedMLP, stacked_linear
from presage.common.one_batch import OneBatch
from presage.common.target_range import TargetRange


@dataclass(frozen=True, kw_only=True)
class DQNConfig:
    """The numbers of Q-learning; the defaults are those of the bit-flip study of Andrychowicz et al. 2017, but for
    `targets`, which the paper holds to what its rewards of -1 and 0 allow.
    """

    hidden: tuple[int, ...] = (256,)
    """widths of the hidden layers"""
    learning_rate: float = 1e-3
    """Adam's step size; > 0"""
    discount: float = 0.98
    """gamma, in [0, 1]"""
    target_rate: float = 0.05
    """tau: share of the network that moves into its target, in (0, 1]"""
    target_every: int = 40
    """updates between two moves of the target, one cycle in the paper; >= 1"""
    targets: TargetRange = field(default_factory=TargetRange)
    """what a target can be"""
    double: bool = False
    """the network itself chooses the action that its target values"""
    random_share: float = 0.2
    """epsilon: share of the actions that are uniform over what is legal, in [0, 1]"""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.target_every < 1:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be > 0 and target_every={self.target_every} >= 1"
            )
        if not 0 <= self.discount <= 1 or not 0 < self.target_rate <= 1 or not 0 <= self.random_share <= 1:
            raise ValueError(
                f"discount={self.discount} and random_share={self.random_share} must lie in [0, 1], "
                f"target_rate={self.target_rate} in (0, 1]"
            )


class ActionValues(nn.Module):
    """A value for every action, as tianshou's policies ask for it."""

    def __init__(self, inputs: int, hidden: Sequence[int], actions: int, rng: torch.Generator) -> None:
        super().__init__()
        self.network = StackedMLP(1, inputs, hidden, actions, rng)

    def forward(self, obs: Tensor | np.ndarray, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """`(B, O)` to `(B, A)`."""
        weight = stacked_linear(self.network.layers[0]).weight
        return self.network(torch.as_tensor(obs, dtype=weight.dtype, device=weight.device))[0], state


class GreedyActor:
    """The best action by its value as an `Actor`; with a generator some are uniform over what is legal."""

    def __init__(self, policy: DiscreteQLearningPolicy[Any], random_share: float) -> None:
        self.policy, self.random_share = policy, random_share

    def init(self, window: Window) -> Carry:
        """Nothing: the policy is memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The action `(B, A)`, one-hot; zeros where the agent is not acting."""
        values: Tensor = self.policy.model(view.obs)[0]
        if rng is not None:
            noise = torch.rand(values.shape, generator=rng, device=values.device)
            uniform = torch.rand(len(values), 1, generator=rng, device=values.device) < self.random_share
            values = torch.where(uniform, noise, values)
        best = values.masked_fill(~view.legal, -torch.inf).argmax(1)
        return carry, nn.functional.one_hot(best, values.shape[1]).to(values.dtype) * view.acting


class LeanDQN(DQN[Any]):
    """tianshou's DQN whose updates with a `OneBatch` go the shortest way."""

    checkpoint_skip = ("_lagging", "numbers")
    """parameters that are saved with their networks, and configuration"""

    def __init__(self, numbers: DQNConfig, **parts: Any) -> None:
        """
        Args:
            parts: as of tianshou's `DQN`.
        """
        super().__init__(**parts, gamma=numbers.discount, is_double=numbers.double, target_update_freq=1)
        self.numbers, self.updates = numbers, 0
        self._lagging = tuple(self._old.parameters()), tuple(self.policy.model.parameters())

    @property
    def _old(self) -> nn.Module:
        """The target network."""
        assert self.model_old is not None
        return self.model_old.module

    def update(self, buffer: ReplayBuffer, sample_size: int | None) -> TrainingStats:
        """One update with all rows of a `OneBatch`.

        Raises:
            TypeError: another buffer; tianshou's own class takes those.
        """
        if not isinstance(buffer, OneBatch):
            raise TypeError(f"updates take a OneBatch of rows, got {type(buffer).__name__}")
        loss = self.loss(buffer.rows)
        self.optim.step(loss)
        self.updates += 1
        if self.updates % self.numbers.target_every == 0:
            with torch.no_grad():
                targets, sources = self._lagging
                torch._foreach_lerp_(targets, sources, self.numbers.target_rate)
        return SimpleLossTrainingStats(loss=loss.item())

    def loss(self, rows: Rows) -> Tensor:
        """What an update descends: the mean square of `Q(s, a) - y`."""
        values: Tensor = (self.policy.model(rows.obs)[0] * rows.act).sum(1)
        return (values - self.targets(rows)).square().mean()

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """`y = r + gamma (1 - terminated) max_a Q'(s', a)` over what is legal, `(B,)`, held to what it can be."""
        values: Tensor = self._old(rows.next_obs)[0]
        chosen = self.policy.model(rows.next_obs)[0] if self.numbers.double else values
        best = chosen.masked_fill(~rows.next_legal, -torch.inf).argmax(1, keepdim=True)
        share = self.gamma * ~rows.terminated[:, 0]
        return self.numbers.targets.of(rows.reward[:, 0], share, values.gather(1, best)[:, 0])


def check_single_choice(spec: GameSpec) -> None:
    """Raise GameError unless a game has one agent with a single discrete head."""
    if spec.n != 1 or not spec.agents[0].discrete or len(spec.agents[0].heads) != 1:
        raise GameError(
            f"Q-learning here takes one agent that makes a single choice; {spec.name!r} has {spec.n} agent(s), the "
            f"first with heads {spec.agents[0].heads}"
        )


def build_dqn(
    spec: GameSpec, config: DQNConfig, rng: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[LeanDQN, GreedyActor]:
    """DQN on the joint vectors of a game of one agent with a single discrete head; and its policy.

    Args:
        rng: draws the first weights, on the CPU.

    Raises:
        GameError: the game has several agents, or other actions.
    """
    check_single_choice(spec)
    model = ActionValues(spec.obs_dim, config.hidden, spec.act_dim, rng).to(device)
    policy = DiscreteQLearningPolicy(model=model, action_space=spaces.Discrete(spec.act_dim))
    adam = TorchOptimizerFactory(torch.optim.Adam, lr=config.learning_rate, fused=True)
    return LeanDQN(config, policy=policy, optim=adam), GreedyActor(policy, config.random_share)
