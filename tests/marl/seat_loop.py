"""What the agent-by-agent oracles of learners that model all others have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from presage.common.game import View
from tests.marl.sample_games import stack


class SeatLoop:
    """A learner's networks one by one, as ordinary layers, by kind and agent."""

    def __init__(self, learner: Any, stacks: Mapping[str, nn.ModuleList]) -> None:
        self.spec, self.seats = learner.spec, learner.seats
        self.place = {agent: (k, p) for k, seat in enumerate(self.seats) for p, agent in enumerate(seat.agents)}
        self.networks: dict[tuple[str, int], nn.Sequential] = {
            (name, agent): stack(networks, k).member(p)
            for name, networks in stacks.items() for agent, (k, p) in self.place.items()
        }  # fmt: skip

    def own(self, agent: int, obs: Tensor) -> Tensor:
        """What the agent observes."""
        return obs[:, list(self.spec.obs[agent])]

    def others(self, agent: int) -> list[int]:
        """Everybody else."""
        return [j for j in range(self.spec.n) if j != agent]

    def rest(self, agent: int, act: Tensor) -> Tensor:
        """What all others do."""
        return torch.cat([act[:, self.spec.act[j]] for j in self.others(agent)], 1)

    def mask(self, agent: int, view: View) -> Tensor:
        """Whether who writes each column of the rest acts."""
        return torch.cat([view.acting[:, [j]].expand(-1, self.spec.agents[j].width) for j in self.others(agent)], 1)

    def assert_gradients(self, name: str, agent: int, stacked: nn.ModuleList) -> None:
        """The gradients in a stack are those of the agent's network of that kind."""
        k, p = self.place[agent]
        plain = [layer for layer in self.networks[name, agent] if isinstance(layer, nn.Linear)]
        for layer, linear in zip(stack(stacked, k).layers, plain, strict=True):
            assert isinstance(layer.weight, Tensor)
            assert layer.weight.grad is not None
            assert linear.weight.grad is not None
            torch.testing.assert_close(layer.weight.grad[p], linear.weight.grad.T)
