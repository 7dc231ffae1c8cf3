"""The joint policy of a game: one network per agent over its own observation, agents of equal shape stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.algorithm.algorithm_base import Policy
from tianshou.data import Batch
from torch import Tensor, nn

from presage.common.game import Carry, GameSpec, View, Window
from presage.common.heads import Group, answer, divergence, groups_of, join, join_agents
from presage.common.networks import Activation, StackedMLP


class JointActionSpace(gym.spaces.Box):
    """The flat joint action as tianshou sees it: one-hot slices lie in [0, 1], box slices in [-1, 1].

    Samples are one-hot where they have to be, unlike those of a plain box.
    """

    def __init__(self, spec: GameSpec) -> None:
        self.choices = [(where, head.size) for _, head, where in spec.heads if head.kind == "discrete"]
        low = np.full(spec.act_dim, -1.0, dtype=np.float32)
        for where, _ in self.choices:
            low[where] = 0.0
        super().__init__(low, np.ones(spec.act_dim, dtype=np.float32), dtype=np.float32)

    def sample(self, mask: None = None, probability: None = None) -> np.ndarray:
        """A joint action, uniform over choices and boxes; nothing can be masked."""
        act = super().sample(mask, probability)
        for where, size in self.choices:
            act[where] = np.eye(size, dtype=act.dtype)[self.np_random.integers(size)]
        return act


def joint_action_space(spec: GameSpec) -> JointActionSpace:
    """The space of a game's flat joint actions."""
    return JointActionSpace(spec)


class JointPolicy(Policy):
    """Stochastic policies of all agents, each over its own observation alone; a tianshou policy and an `Actor`."""

    groups: tuple[Group, ...]

    def __init__(
        self,
        spec: GameSpec,
        hidden: Sequence[int],
        init_rng: torch.Generator,
        rng: torch.Generator,
        activation: Activation = "relu",
        device: torch.device | str = "cpu",
        geometry: bool = True,
    ) -> None:
        """
        Args:
            spec: the game. hidden: widths of the hidden layers.
            init_rng: draws the initial weights, on the CPU. rng: draws actions when tianshou's collector asks.
            geometry: read the lengths and directions of the vectors that an agent sees as well.
        """
        super().__init__(joint_action_space(spec), action_scaling=False, action_bound_method=None)
        self.spec, self.rng = spec, rng
        self.groups = groups_of(spec, device)
        self.actors = nn.ModuleList(
            StackedMLP(
                len(g.agents), self.width(g), hidden, g.parameters, init_rng, activation,
                vectors=g.vectors if geometry else (),
            )
            for g in self.groups
        ).to(device)  # fmt: skip
        self.device = torch.device(device)

    @staticmethod
    def _compile() -> None:
        """Nothing: tianshou compiles its return kernels here, for seconds; joint learners call none of them."""

    def width(self, group: Group) -> int:
        """Numbers that a network of the group reads."""
        return group.obs.shape[1]

    def inputs(self, view: View, rows: Tensor | None = None) -> list[Tensor]:
        """For each group what its agents' networks read: `(g, B, w)`.

        Args:
            view: R rows. rows: `(N, B)`, those of them that each agent looks at; None: all, in order.
        """
        if rows is None:
            return [group.read(view.obs) for group in self.groups]
        return [view.obs[rows[list(group.agents)][:, :, None], group.obs[:, None]] for group in self.groups]

    def parameters_of(self, view: View, rows: Tensor | None = None) -> list[Tensor]:
        """For each group the numbers `(g, B, p)` that describe its agents' action distributions; `rows` as above."""
        return [actor(inputs) for actor, inputs in zip(self.actors, self.inputs(view, rows), strict=True)]

    def answers(self, view: View, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """All agents' actions, differentiable: act `(B, A)` and log-probabilities `(N, B)`; greedy where rng is None.

        Agents that are not acting answer with zeros.
        """
        acts, log_probs = [], []
        for group, parameters in zip(self.groups, self.parameters_of(view), strict=True):
            legal = group.of_actions(view.legal) if self.spec.legal_varies and group.discrete else None
            act, log_prob = answer(group.heads, parameters, legal, rng)
            acts.append(act)
            log_probs.append(log_prob)
        return self.silence(join(self.groups, acts), view), join_agents(self.groups, log_probs)

    def divergence(self, earlier: nn.Module, view: View) -> Tensor:
        """KL `(B,)` in nats of the team's actions from those of an earlier policy of this kind; the silent count 0.

        Raises:
            TypeError: `earlier` is no such policy.
        """
        if not isinstance(earlier, JointPolicy):
            raise TypeError(f"expected a JointPolicy, got {type(earlier).__name__}")
        total = view.obs.new_zeros(len(view))
        for group, one, other in zip(self.groups, self.parameters_of(view), earlier.parameters_of(view), strict=True):
            legal = group.of_actions(view.legal) if self.spec.legal_varies and group.discrete else None
            total = total + (divergence(group.heads, one, other, legal) * group.of_agents(view.acting)).sum(0)
        return total

    def silence(self, act: Tensor, view: View) -> Tensor:
        """`act (B, A)` with zeros in the slices of agents that are not acting."""
        if not self.spec.acting_varies:
            return act
        widths = torch.tensor([agent.width for agent in self.spec.agents], device=act.device)
        return act * view.acting.repeat_interleave(widths, 1)

    def init(self, window: Window) -> Carry:
        """Nothing: the policy is memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`, greedy where rng is None."""
        return carry, self.answers(view, rng)[0].contiguous()

    def forward(self, batch: Any, state: Any = None, **kwargs: Any) -> Batch:
        """tianshou's door: samples within a training step, greedy outside."""
        obs = torch.as_tensor(batch.obs, dtype=torch.float32, device=self.device)
        rng = self.rng if self.is_within_training_step else None
        return Batch(act=self.step(None, View.of(self.spec, obs), rng)[1], state=state)
