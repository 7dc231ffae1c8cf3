"""Stacked recurrent networks: many equal ones evaluated as one batched product a step.

Shape suffixes: S networks in the stack, B batch, T time, H width of what is remembered.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class StackedGRU(nn.Module):
    """`S` gated recurrent units of one shape (Cho et al. 2014, with torch's placement of the reset gate)."""

    def __init__(self, stack: int, inputs: int, hidden: int, rng: torch.Generator) -> None:
        """
        Args:
            stack: S. inputs, hidden: widths; >= 1. rng: draws the weights as torch does, on the CPU.

        Raises:
            ValueError: a width or the stack is below 1.
        """
        super().__init__()
        if min(stack, inputs, hidden) < 1:
            raise ValueError(f"stack={stack}, inputs={inputs} and hidden={hidden} must be >= 1")
        self.stack, self.hidden = stack, hidden
        bound = 1.0 / math.sqrt(hidden)
        shapes = {"read": (stack, inputs, 3 * hidden), "kept": (stack, hidden, 3 * hidden),
                  "read_bias": (stack, 1, 3 * hidden), "kept_bias": (stack, 1, 3 * hidden)}  # fmt: skip
        for name, shape in shapes.items():
            weight = nn.Parameter(torch.empty(shape))
            with torch.no_grad():
                weight.uniform_(-bound, bound, generator=rng)
            self.register_parameter(name, weight)

    def begin(self, rows: int) -> Tensor:
        """What is remembered before the first step: zeros `(S, B, H)`."""
        return self.get_parameter("kept").new_zeros(self.stack, rows, self.hidden)

    def step(self, x: Tensor, memory: Tensor) -> Tensor:
        """What is remembered `(S, B, H)` after reading `x (S, B, in)`, or `(B, in)` by all alike."""
        x = x.expand(self.stack, -1, -1) if x.ndim == 2 else x
        return self._advance(torch.baddbmm(self.get_parameter("read_bias"), x, self.get_parameter("read")), memory)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """What is remembered after every step: `(S, B, T, H)`.

        Args:
            x: `(S, B, T, in)`. valid: `(B, T)` bool: steps that count; through others nothing is remembered, as before
                an episode's start.
        """
        read = torch.baddbmm(self.get_parameter("read_bias"), x.flatten(1, 2), self.get_parameter("read"))
        steps, memory = read.view(*x.shape[:3], -1).unbind(2), self.begin(x.shape[1])
        found = []
        for t, step in enumerate(steps):
            memory = self._advance(step, memory)
            if valid is not None:
                memory = memory * valid[:, t, None]
            found.append(memory)
        return torch.stack(found, 2)

    def _advance(self, read: Tensor, memory: Tensor) -> Tensor:
        kept = torch.baddbmm(self.get_parameter("kept_bias"), memory, self.get_parameter("kept"))
        (reset, update, new), (reset_kept, update_kept, new_kept) = read.chunk(3, -1), kept.chunk(3, -1)
        share = torch.sigmoid(update + update_kept)
        fresh = torch.tanh(new + torch.sigmoid(reset + reset_kept) * new_kept)
        return fresh + share * (memory - fresh)
