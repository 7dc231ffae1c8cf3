"""Samplers of how all others would react, for PR2's actor-critic.

Shape suffixes: B rows, g agents of a seat, K reactions, a own action, r the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from presage.common.game import GameSpec
from presage.common.networks import Activation, StackedMLP
from presage.marl.opponents.seats import seats_of


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
