"""The one network of SOM (Raileanu, Denton, Szlam, Fergus 2018, 1802.09640): a policy and a value that read a state and
two goals, one's own and the other's.

It is used twice. As oneself it reads what one sees, one's own goal and what is believed of the other's; in the other's
place it reads what the other sees, the other's goal as it is believed to be, and one's own goal as the other's other.
Weights are the same; what is remembered is not.

The paper's sizes could not be checked: those here are the suite's own numbers. The memory is a gated recurrent unit.

Shape suffixes: B rows (any leading dimensions), w numbers of a state, K goals, H width of what is remembered, p numbers
that describe an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from presage.common.game import Head
from presage.common.networks import StackedLinear
from presage.common.recurrent import StackedGRU


class RoleNetwork(nn.Module):
    """Layers that read the state and both goals, a memory behind them where there is one, a policy and a value on top.

    Goals have weights of their own in the first layer, so that a few numbers count beside many of a board; and what it
    makes of a state is computed apart (`read`), once for all goals that are tried on it.
    """

    def __init__(
        self, states: int, goals: int, own: Sequence[Head], rng: torch.Generator, *, hidden: Sequence[int] = (64, 64),
        memory: int = 64, predicts: int = 0,
    ) -> None:  # fmt: skip
        """
        Args:
            states: w, >= 1. goals: K, >= 1. own: the action that is described. rng: draws the weights, on the CPU.
            hidden: widths of the layers, one or more. memory: H; 0 for none.
            predicts: numbers that a further head says of what the other does; 0 for no such head.

        Raises:
            ValueError: there is no layer, or a width is out of range.
        """
        super().__init__()
        if not hidden or min(*hidden, states, goals) < 1 or min(memory, predicts) < 0:
            raise ValueError(
                f"hidden={tuple(hidden)} must have a layer, its widths, states={states} and goals={goals} be >= 1, and "
                f"memory={memory} and predicts={predicts} >= 0"
            )
        self.memory = memory
        self.parameters_width = sum(head.size for head in own) * (1 if own[0].kind == "discrete" else 2)
        self.state = StackedLinear(1, states, hidden[0], rng)
        self.goals = StackedLinear(1, 2 * goals, hidden[0], rng)
        self.layers = nn.ModuleList(StackedLinear(1, fan_in, fan_out, rng) for fan_in, fan_out in pairwise(hidden))
        self.unit = StackedGRU(1, hidden[-1], memory, rng) if memory else None
        top = memory or hidden[-1]
        self.heads = StackedLinear(1, top, self.parameters_width + 1, rng)
        self.predictor = StackedLinear(1, top, predicts, rng) if predicts else None

    def begin(self, *rows: int) -> Tensor:
        """What is remembered before the first step: zeros `(*rows, H)`."""
        return self.state.weight.new_zeros(*rows, self.memory)

    def read(self, state: Tensor) -> Tensor:
        """What the first layer makes of states `(B, w)` alone."""
        return _apply(self.state, state)

    def embed(self, read: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """What the layers say, `(B, h)`.

        Args:
            read: what `read` returned. own, other: `(B, K)` the goals, or how much each one is believed in.
        """
        x = nn.functional.elu(read + _apply(self.goals, torch.cat([own, other], -1)))
        for layer in self.layers:
            x = nn.functional.elu(_apply(layer, x))
        return x

    def remember(self, x: Tensor, memory: Tensor) -> Tensor:
        """What is remembered `(B, H)` after `x (B, h)`; nothing without a memory."""
        if self.unit is None:
            return memory
        rows = x.shape[:-1]
        return self.unit.step(x.reshape(1, -1, x.shape[-1]), memory.reshape(1, -1, self.memory)).view(*rows, -1)

    def answer(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What describes the action, as `presage.common.heads` has it, `(B, p)`, and the value `(B,)`."""
        found = _apply(self.heads, self.top(x, memory))
        return found[..., :-1], found[..., -1]

    def top(self, x: Tensor, memory: Tensor) -> Tensor:
        """What the heads read."""
        return x if self.unit is None else memory

    def predict(self, x: Tensor, memory: Tensor) -> Tensor:
        """What the further head says, `(B, predicts)`.

        Raises:
            ValueError: there is none.
        """
        if self.predictor is None:
            raise ValueError("this network has no head for what the other does; make it with predicts=...")
        return _apply(self.predictor, self.top(x, memory))

    def forward(self, read: Tensor, own: Tensor, other: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Action `(B, p)`, value `(B,)` and what is remembered then `(B, H)`; arguments as above."""
        x = self.embed(read, own, other)
        memory = self.remember(x, memory)
        return *self.answer(x, memory), memory


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    """One map of rows with any leading dimensions."""
    found: Tensor = layer(x.reshape(1, -1, x.shape[-1]))
    return found.view(*x.shape[:-1], -1)
