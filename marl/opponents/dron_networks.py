"""The networks of DRON, and those without a model of the opponent that they are held against: plain torch modules.

He, Boyd-Graber, Kwok, Daumé 2016, "Opponent Modeling in Deep Reinforcement Learning" (1609.05559).
All of them take features of the state phi_s `(B, S)` and of the opponent phi_o `(B, P)`; layers have biases, which the
formulas leave out.

Shape suffixes: B rows, S and P features, A actions, K experts, C classes of a label.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from presage.common.networks import StackedLinear, StackedMLP

HIDDEN = (50, 50)
"""widths in the authors' soccer; quiz bowl has 128 for states and 10 for opponents"""


class Judgement(NamedTuple):
    """What a network says of B situations."""

    values: Tensor
    """(B, A) the value of every action"""
    gate: Tensor | None = None
    """(B, K) how much each expert counts, rows that sum to one; None without experts"""
    logits: Tensor | None = None
    """(B, C) of what the opponent does or is; None without an extra head"""


class OpponentNetwork(nn.Module, ABC):
    """What the networks here have in common: how wide their inputs are, and that these are checked."""

    def __init__(self, state: int, opponent: int) -> None:
        """
        Args:
            state, opponent: S and P.
        """
        super().__init__()
        self.state, self.opponent = state, opponent

    def forward(self, state: Tensor, opponent: Tensor) -> Judgement:
        """`phi_s (B, S)` and `phi_o (B, P)` judged.

        Raises:
            ValueError: they have other shapes.
        """
        found, wanted = (tuple(state.shape), tuple(opponent.shape)), (self.state, self.opponent)
        if any(len(shape) != 2 for shape in found) or tuple(shape[1] for shape in found) != wanted:
            raise ValueError(
                f"state features {found[0]} and opponent features {found[1]} must have the shapes (B, {wanted[0]}) and "
                f"(B, {wanted[1]}) for which this network was made"
            )
        if len(state) != len(opponent):
            raise ValueError(f"{len(state)} rows of state features come with {len(opponent)} of opponent features")
        return self.judge(state, opponent)

    @abstractmethod
    def judge(self, state: Tensor, opponent: Tensor) -> Judgement:
        """The same for inputs that fit."""


def check_hidden(hidden: Sequence[int], least: int, why: str) -> None:
    """Raise ValueError unless there are `least` hidden layers or more."""
    if len(hidden) < least:
        raise ValueError(f"hidden={tuple(hidden)} must have {least} or more widths: {why}")


class DRONConcat(OpponentNetwork):
    """`h_s = ReLU(W_s phi_s)`, `h_o = ReLU(W_o phi_o)`, `Q = W_2 ReLU(W_1 [h_o; h_s])`; the extra head reads `h_o`.

    Raises:
        ValueError: there is no layer behind both, without which values would be sums of what each says by itself.
    """

    def __init__(
        self, state: int, opponent: int, actions: int, rng: torch.Generator, *, hidden: Sequence[int] = HIDDEN,
        opponent_hidden: int = 50, classes: int = 0,
    ) -> None:  # fmt: skip
        """
        Args:
            state, opponent, actions: S, P, A. rng: draws the weights, on the CPU.
            hidden: width of `h_s`, then of the layers behind both. opponent_hidden: of `h_o`.
            classes: C of the extra head; 0 for none.
        """
        super().__init__(state, opponent)
        check_hidden(hidden, 2, "one reads the state, the next what comes of state and opponent")
        self.state_layer = StackedMLP(1, state, (), hidden[0], rng)
        self.joint = StackedMLP(1, opponent_hidden + hidden[0], hidden[1:], actions, rng)
        self.opponent_layer = StackedMLP(1, opponent, (), opponent_hidden, rng)
        self.head = StackedMLP(1, opponent_hidden, (), classes, rng) if classes else None

    def judge(self, state: Tensor, opponent: Tensor) -> Judgement:
        seen, model = self.state_layer(state)[0].relu(), self.opponent_layer(opponent)[0].relu()
        values = self.joint(torch.cat([model, seen], 1))[0]
        return Judgement(values, logits=None if self.head is None else self.head(model)[0])


class DRONMixture(OpponentNetwork):
    """`Q(s, o, a) = sum_k g_k Q_k(s, a)`: experts `Q_k = V_k h` that see the state alone, by `h = ReLU(W ReLU(W
    phi_s))`, and a gate that sees both, `g = softmax(U_2 ReLU(U_1 [phi_o; phi_s]))`: the value with an opponent's type
    summed out.

    The extra head reads the gate's hidden layer. With one expert this is the plain network of the state, to the bit.

    Raises:
        ValueError: there is no hidden layer, or no expert.
    """

    def __init__(
        self, state: int, opponent: int, actions: int, rng: torch.Generator, *, hidden: Sequence[int] = HIDDEN,
        opponent_hidden: int = 50, experts: int = 3, classes: int = 0,
    ) -> None:  # fmt: skip
        """
        Args:
            state, opponent, actions: S, P, A. rng: draws the weights, on the CPU.
            hidden: widths of the layers up to `h`. opponent_hidden: of the gate's. experts: K.
            classes: C of the extra head; 0 for none.
        """
        super().__init__(state, opponent)
        check_hidden(hidden, 1, "experts share what reads the state")
        if experts < 1:
            raise ValueError(f"experts={experts} must be >= 1")
        self.trunk = StackedMLP(1, state, hidden[:-1], hidden[-1], rng)
        self.experts = StackedLinear(experts, hidden[-1], actions, rng)
        self.gate_layer = StackedMLP(1, opponent + state, (), opponent_hidden, rng)
        self.gate = StackedMLP(1, opponent_hidden, (), experts, rng)
        self.head = StackedMLP(1, opponent_hidden, (), classes, rng) if classes else None

    def judge(self, state: Tensor, opponent: Tensor) -> Judgement:
        experts = self.experts(self.trunk(state)[0].relu())
        both = self.gate_layer(torch.cat([opponent, state], 1))[0].relu()
        gate = self.gate(both)[0].softmax(1)
        return Judgement(mixed(gate, experts), gate, None if self.head is None else self.head(both)[0])


def mixed(gate: Tensor, experts: Tensor) -> Tensor:
    """The values `(B, A)` of experts `(K, B, A)`, weighed by `gate (B, K)`."""
    return (gate.T[:, :, None] * experts).sum(0)


class PlainNetwork(OpponentNetwork):
    """Q-learning's network: of the state alone, where opponents of all kinds are pooled, or of `[phi_o; phi_s]`."""

    def __init__(
        self, state: int, opponent: int, actions: int, rng: torch.Generator, *, hidden: Sequence[int] = HIDDEN,
        reads_opponent: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            state, opponent, actions: S, P, A. rng: draws the weights, on the CPU. hidden: widths of the layers.
            reads_opponent: whether phi_o is an input.
        """
        super().__init__(state, opponent)
        self.reads_opponent = reads_opponent
        self.network = StackedMLP(1, state + reads_opponent * opponent, hidden, actions, rng)

    def judge(self, state: Tensor, opponent: Tensor) -> Judgement:
        return Judgement(self.network(torch.cat([opponent, state], 1) if self.reads_opponent else state)[0])


class ColumnValues(nn.Module):
    """A network that reads its features from columns of the joint observation, as tianshou's policies ask for it."""

    state_columns: Tensor
    opponent_columns: Tensor

    def __init__(self, network: OpponentNetwork, state: Sequence[int], opponent: Sequence[int]) -> None:
        """
        Args:
            state, opponent: the columns of phi_s and of phi_o, in the order of the network's inputs.
        """
        super().__init__()
        self.network = network
        for name, columns in {"state_columns": state, "opponent_columns": opponent}.items():
            self.register_buffer(name, torch.tensor(list(columns), dtype=torch.long), persistent=False)

    def judge(self, obs: Tensor) -> Judgement:
        """All that the network says of `obs (B, O)`."""
        found: Judgement = self.network(obs[:, self.state_columns], obs[:, self.opponent_columns])
        return found

    def forward(self, obs: Tensor | np.ndarray, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """`(B, O)` to `(B, A)`."""
        weight = next(self.network.parameters())
        return self.judge(torch.as_tensor(obs, dtype=weight.dtype, device=weight.device)).values, state
