"""The networks of PR2's actor-critic: deterministic policies, and samplers of how all others would react.

Shape suffixes: B rows, N agents, g agents of a seat, K reactions, A joint action, a own action, r = A - a the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tianshou.algorithm.algorithm_base import Policy
from tianshou.data import Batch
from torch import Tensor, nn

from presage.common.game import Carry, GameSpec, View, Window
from presage.common.heads import join
from presage.common.networks import Activation, StackedMLP
from presage.common.policy import joint_action_space
from presage.marl.opponents.seats import seats_of


class DeterministicPolicy(Policy):
    """One action of every agent for its own observation, noisy where it explores; a tianshou policy and an `Actor`."""

    noise: Tensor
    """() standard deviation of what is added to actions in [-1, 1] where they explore"""

    def __init__(
        self, spec: GameSpec, hidden: Sequence[int], init_rng: torch.Generator, rng: torch.Generator,
        activation: Activation = "relu", geometry: bool = True, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. hidden: widths of the hidden layers.
            init_rng: draws the initial weights, on the CPU. rng: draws noise when tianshou's collector asks.
            geometry: read the lengths and directions of the vectors that an agent sees as well.

        Raises:
            GameError: the game has one agent, or discrete actions.
        """
        super().__init__(joint_action_space(spec), action_scaling=False, action_bound_method=None)
        self.spec, self.rng = spec, rng
        self.seats = seats_of(spec, "PR2-AC", device)
        self.actors = nn.ModuleList(
            StackedMLP(
                len(seat.agents), seat.group.obs.shape[1], hidden, seat.own_width, init_rng, activation,
                vectors=seat.group.vectors if geometry else (),
            )
            for seat in self.seats
        ).to(device)  # fmt: skip
        self.register_buffer("noise", torch.zeros((), device=device))

    @staticmethod
    def _compile() -> None:
        """Nothing: tianshou compiles its return kernels here, for seconds; this learner calls none of them."""

    def unsquashed(self, obs: Tensor, actors: nn.ModuleList | None = None) -> list[Tensor]:
        """For every seat its agents' actions at `obs (B, O)` before squashing, `(g, B, a)`.

        Args:
            actors: networks to answer by instead of its own, such as their targets.
        """
        found = zip(self.seats, self.actors if actors is None else actors, strict=True)
        return [actor(seat.group.read(obs)) for seat, actor in found]

    def squashed(self, view: View, raw: Sequence[Tensor]) -> list[Tensor]:
        """The actions of `unsquashed`, zeros of those who do not act."""
        return [act.tanh() * seat.acts(view)[0] for seat, act in zip(self.seats, raw, strict=True)]

    def init(self, window: Window) -> Carry:
        """Nothing: the policy is memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`, without noise where rng is None."""
        acts = self.squashed(view, self.unsquashed(view.obs))
        if rng is not None:
            acts = [
                (act + self.noise * torch.empty_like(act).normal_(generator=rng)).clamp(-1, 1) * seat.acts(view)[0]
                for seat, act in zip(self.seats, acts, strict=True)
            ]
        return carry, join([seat.group for seat in self.seats], acts).contiguous()

    def forward(self, batch: Any, state: Any = None, **kwargs: Any) -> Batch:
        """tianshou's door: noise within a training step, none outside."""
        obs = torch.as_tensor(batch.obs, dtype=torch.float32, device=self.noise.device)
        rng = self.rng if self.is_within_training_step else None
        return Batch(act=self.step(None, View.of(self.spec, obs), rng)[1], state=state)


class Reactions(nn.Module):
    """Samplers of what all others would do in answer to each agent: `a- = tanh f(o_i, a, noise)`.

    They are made to suit the agent that asks, and give no probabilities.
    """

    def __init__(
        self, spec: GameSpec, hidden: Sequence[int], init_rng: torch.Generator, activation: Activation = "relu",
        geometry: bool = True, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. hidden: widths of the hidden layers. init_rng: draws the initial weights, on the CPU.

        Raises:
            GameError: the game has one agent, or discrete actions.
        """
        super().__init__()
        self.seats = seats_of(spec, "PR2-AC", device)
        self.networks = nn.ModuleList(
            StackedMLP(
                len(seat.agents), seat.group.obs.shape[1] + seat.own_width + seat.rest_width, hidden, seat.rest_width,
                init_rng, activation, vectors=seat.group.vectors if geometry else (),
            )
            for seat in self.seats
        ).to(device)  # fmt: skip

    def sample(self, obs: Tensor, own: Sequence[Tensor], count: int, rng: torch.Generator) -> list[Tensor]:
        """`count` reactions to own actions, before squashing: for every seat `(g, B, K, r)`.

        Args:
            obs: joint observations `(B, O)`. own: for every seat its agents' own actions `(g, B, a)`.
        """
        found = []
        for seat, network, act in zip(self.seats, self.networks, own, strict=True):
            agents, rows = act.shape[:2]
            noise = act.new_empty(agents, rows, count, seat.rest_width).normal_(generator=rng)
            read = torch.cat([seat.group.read(obs), act], -1)[:, :, None].expand(-1, -1, count, -1)
            out = network(torch.cat([read, noise], -1).flatten(1, 2))
            found.append(out.view(agents, rows, count, seat.rest_width))
        return found
