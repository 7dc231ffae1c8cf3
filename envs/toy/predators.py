"""Predators and prey that stand still, after the task that Kim, Park and Sung 2021 use for intention sharing.

Their text leaves sizes and speeds open; those here are ours. Shape suffixes: B rows, N predators, M prey.
"""

from __future__ import annotations

import torch
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules

REACH = 0.15
"""distance at which a predator touches a prey"""
STEP = 0.2
"""largest advance along each axis in a step"""


class PredatorPrey(Rules):
    """All see all positions, and which prey are still there; a prey is caught when enough predators touch it at once.

    Each catch pays everybody the current prize, which begins at 1 and grows by 1 whenever all prey are caught; they are
    then placed anew. Splitting up pays where one predator suffices, going in pairs where two are needed.

    Args:
        predators: N, >= 1. prey: M, >= 1. needed: predators that must touch a prey at once; 1..N.
        episode_limit: env steps in an episode, >= 1.
    """

    def __init__(
        self, predators: int = 2, prey: int = 9, needed: int = 1, *, episode_limit: int = 50,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if predators < 1 or prey < 1 or not 1 <= needed <= predators:
            raise GameError(f"predators={predators} and prey={prey} must be >= 1, and needed={needed} in 1..predators")
        self.prey, self.needed = prey, needed
        self.device, self.dtype = torch.device(device), torch.float32
        self.chances = 2 * prey
        width = 2 * predators + 3 * prey + 1
        self.spec = GameSpec(
            name="predator_prey",
            agents=tuple(
                AgentSpec(
                    name=f"predator_{i}", obs=(2 * i, 2 * i + 1, *(k for k in range(width) if k // 2 != i)),
                    heads=(Head(kind="box", size=2),), low=(-1.0, -1.0), high=(1.0, 1.0), shape=(2,),
                )
                for i in range(predators)
            ),
            obs_dim=width, episode_limit=episode_limit,
        )  # fmt: skip

    # A state is (B, 2 N + 3 M + 2): predators, prey, which prey are there, the prize, catches of the last step.

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """Everybody uniform in [-1, 1]^2; all prey are there, the prize is 1."""
        number = torch.rand(copies, 2 * (self.spec.n + self.prey), generator=rng, device=self.device)
        there, prize = number.new_ones(copies, self.prey), number.new_ones(copies, 1)
        return torch.cat([number * 2.0 - 1.0, there, prize, torch.zeros_like(prize)], 1)

    def _parts(self, state: Tensor) -> tuple[Tensor, ...]:
        n, m = self.spec.n, self.prey
        predators, prey, there, prize, caught = torch.split(state, [2 * n, 2 * m, m, 1, 1], 1)
        return predators.reshape(-1, n, 2), prey.reshape(-1, m, 2), there, prize, caught

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """Predators go; what enough of them touch is caught; an empty field is filled again."""
        if chance is None:
            raise GameError("the field takes two uniform numbers of every prey for each step")
        predators, prey, there, prize, _ = self._parts(state)
        predators = (predators + STEP * act.reshape(predators.shape)).clamp(-1.0, 1.0)
        apart = torch.hypot(*(predators[:, :, None] - prey[:, None]).unbind(3))
        caught = ((apart < REACH).sum(1) >= self.needed) & (there > 0)
        there = there * ~caught
        paid = prize * caught.sum(1, keepdim=True)
        empty = ~(there > 0).any(1, keepdim=True)
        fresh = (chance.to(self.dtype) * 2.0 - 1.0).reshape(prey.shape)
        prey = torch.where(empty[:, :, None], fresh, prey)
        there = torch.where(empty, 1.0, there)
        return torch.cat([predators.flatten(1), prey.flatten(1), there, prize + empty, paid], 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """Predators, prey (zeros where caught), which prey are there, the prize."""
        predators, prey, there, prize, _ = self._parts(state)
        shown = prey * there[:, :, None]
        return {"obs": torch.cat([predators.flatten(1), shown.flatten(1), there, prize], 1)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """The prizes of the step, for everybody, `(B, N)`."""
        return after[:, -1:].expand(-1, self.spec.n)

    def reconstruct(self, window: Window) -> Tensor:
        """All but the catches of the last step is seen."""
        return torch.cat([window.now.obs, torch.zeros_like(window.now.obs[:, :1])], 1)
