"""Bit-flip (Andrychowicz et al. 2017, section 3.1): n bits, each action flips one, until they are those of the goal.

Shape suffixes: B rows, G bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules


@dataclass(frozen=True)
class EqualRule:
    """-1 until achieved and desired goal are equal, bit by bit."""

    terminates: bool

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)`: 0 where all bits are equal, else -1."""
        return self.success(achieved, desired).to(achieved.dtype) - 1.0

    def terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` bool: all bits are equal, where episodes end there."""
        return self.success(achieved, desired) & self.terminates

    def success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """`(..., 1)` bool: all bits are equal."""
        return (achieved == desired).all(-1, keepdim=True)


class BitFlip(Rules):
    """Start and goal are uniform; without hindsight nothing is learned from about 13 bits on.

    Args:
        bits: n, >= 1. terminates: whether an episode ends at its goal, or goes on for n steps all the same.
    """

    def __init__(self, bits: int = 8, *, terminates: bool = True, device: torch.device | str = "cpu") -> None:
        if bits < 1:
            raise GameError(f"bits={bits} must be >= 1")
        self.bits = bits
        self.device, self.dtype = torch.device(device), torch.float32
        self.goal_rule = EqualRule(terminates)
        every = tuple(range(bits))
        self.spec = GameSpec(
            name="bit_flip",
            agents=(AgentSpec(name="agent", obs=every, heads=(Head(kind="discrete", size=bits),), goal=every),),
            obs_dim=bits, goal_dim=bits, achieved=every, episode_limit=bits, terminates=terminates,
        )  # fmt: skip

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, 2 n)` bits, then goal."""
        number = torch.rand(copies, 2 * self.bits, generator=rng, device=self.device)
        return (number < 0.5).to(self.dtype)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """The chosen bit is flipped."""
        bits, goal = state[:, : self.bits], state[:, self.bits :]
        return torch.cat([(bits - act).abs(), goal], 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """The bits; they are what is achieved."""
        bits, goal = state[:, : self.bits], state[:, self.bits :]
        return {"obs": bits, "achieved": bits, "desired": goal}

    def reconstruct(self, window: Window) -> Tensor:
        """Bits and goal are what is seen."""
        return torch.cat([window.now.obs, window.now.desired], 1)

    def optimum(self, obs: Tensor, desired: Tensor) -> Tensor:
        """The best return `(B,)` of an episode that ends at its goal: -1 for every wrong bit but the last.

        From the goal itself a bit has to be flipped and flipped back.
        """
        wrong = (obs != desired).sum(1)
        needed = torch.where(wrong == 0, 2, wrong).clamp(max=self.bits + 1)
        return torch.where(needed > self.bits, -float(self.bits), 1.0 - needed.to(self.dtype))
