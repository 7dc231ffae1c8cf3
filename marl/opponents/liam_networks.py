"""The networks of LIAM: an encoder that reads what the ego sees and does, and a decoder of what the others see and do.

Papoudakis, Christianos, Albrecht 2021, "Agent Modelling under Partial Observability for Deep Reinforcement Learning"
(NeurIPS 2021, 2006.09447); shapes are those of the released code, long short-term memory included.

Shape suffixes: B rows, T time, w numbers read, H width of what is remembered, Z of the embedding, D numbers observed by
the others, A numbers or entries that describe what they do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from presage.common import heads
from presage.common.game import Head
from presage.common.networks import StackedMLP

Units = tuple[Tensor, Tensor]
"""what the encoder remembers: output and cell of its units, `(B, H)` each"""


@dataclass(frozen=True, kw_only=True)
class EncodingConfig:
    """The numbers of encoder and decoder; the defaults are the authors'."""

    embedding: int = 20
    """Z; >= 1"""
    memory: int = 128
    """H, units of the encoder, and width of the layer behind them; >= 1"""
    hidden: tuple[int, ...] = (128, 128)
    """widths of the decoder's layers, twice: for what is observed, and for what is done"""
    learning_rate: float = 7e-4
    """Adam's step size; > 0"""
    gradient_clip: float = 0.5
    """largest norm of the gradient of encoder and decoder, each; > 0"""

    def __post_init__(self) -> None:
        if min(self.embedding, self.memory) < 1:
            raise ValueError(f"embedding={self.embedding} and memory={self.memory} must be >= 1")
        if min(self.learning_rate, self.gradient_clip) <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} and gradient_clip={self.gradient_clip} must be > 0")


class Encoder(nn.Module):
    """Long short-term memory (Hochreiter, Schmidhuber 1997), a layer with ReLU, and an affine map to the embedding."""

    def __init__(self, inputs: int, config: EncodingConfig, rng: torch.Generator) -> None:
        """
        Args:
            inputs: w. rng: draws the weights as torch does, on the CPU.
        """
        super().__init__()
        self.units = nn.LSTMCell(inputs, config.memory, device="meta").to_empty(device="cpu")  # drawn below
        bound = 1.0 / math.sqrt(config.memory)
        with torch.no_grad():
            for parameter in self.units.parameters():
                parameter.uniform_(-bound, bound, generator=rng)
        self.head = StackedMLP(1, config.memory, (config.memory,), config.embedding, rng)
        self.memory = config.memory

    def begin(self, rows: int) -> Units:
        """What is remembered at an episode's start: zeros."""
        blank = next(self.units.parameters()).new_zeros(rows, self.memory)
        return blank, blank.clone()

    def look(self, read: Tensor, units: Units) -> Units:
        """What is remembered after reading `(B, w)`."""
        found: Units = self.units(read, units)
        return found

    def embed(self, output: Tensor) -> Tensor:
        """The embedding `(..., Z)` of units that put out `(..., H)`."""
        found: Tensor = self.head(output.reshape(1, -1, self.memory))
        return found[0].view(*output.shape[:-1], -1)

    def along(self, read: Tensor, units: Units, first: Tensor) -> Units:
        """What is remembered after each of T steps, `(T, B, H)` twice.

        Args:
            read: `(T, B, w)`. units: before the first of them. first: `(T, B)` bool: everything is forgotten before it.
        """
        found = []
        for own, begins in zip(read, first, strict=True):
            output, cell = (part.masked_fill(begins[:, None], 0.0) for part in units)
            units = self.look(own, (output, cell))
            found.append(units)
        return torch.stack([output for output, _ in found]), torch.stack([cell for _, cell in found])


class Decoder(nn.Module):
    """From an embedding: what the others observe, and logits or means and deviations of what they do."""

    def __init__(self, observed: int, described: int, config: EncodingConfig, rng: torch.Generator) -> None:
        """
        Args:
            observed: D. described: A. rng: draws the weights, on the CPU.
        """
        super().__init__()
        self.sees = StackedMLP(1, config.embedding, config.hidden, observed, rng)
        self.does = StackedMLP(1, config.embedding, config.hidden, described, rng)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Of `(..., Z)`: `(..., D)` and `(..., A)`."""
        flat, shape = embedding.reshape(1, -1, embedding.shape[-1]), embedding.shape[:-1]
        return self.sees(flat)[0].view(*shape, -1), self.does(flat)[0].view(*shape, -1)


class Classifier(nn.Module):
    """From an embedding: logits of who the others are."""

    def __init__(self, opponents: int, config: EncodingConfig, rng: torch.Generator) -> None:
        super().__init__()
        self.network = StackedMLP(1, config.embedding, config.hidden, opponents, rng)

    def forward(self, embedding: Tensor) -> Tensor:
        """Of `(..., Z)`: `(..., J)`."""
        found: Tensor = self.network(embedding.reshape(1, -1, embedding.shape[-1]))
        return found[0].view(*embedding.shape[:-1], -1)


def heads_of(choices: Sequence[int], width: int) -> tuple[Head, ...]:
    """The others' actions, all of them as one: one-hot choices of these sizes, or without any a box of `width`."""
    if choices:
        return tuple(Head(kind="discrete", size=size) for size in choices)
    return (Head(kind="box", size=width),)


def described(own: Sequence[Head]) -> int:
    """Numbers that describe such an action."""
    return sum(head.size for head in own) * (1 if own[0].kind == "discrete" else 2)


def reconstruction_errors(
    own: Sequence[Head], decoded: tuple[Tensor, Tensor], observed: Tensor, act: Tensor
) -> tuple[Tensor, Tensor]:
    """The two terms of the loss, `(...)` each: `0.5 ||o_hat - o||^2` and `-sum_j log pi_hat_j(a_j | z)`.

    Args:
        own: as `heads_of` has it. decoded: what `Decoder` says. observed: `(..., D)`. act: `(..., a)`; of a one-hot
            choice that nobody made, zeros count nothing.
    """
    sees, does = decoded
    return 0.5 * (sees - observed).square().sum(-1), -heads.log_prob(own, does, act)
