"""DRON's networks against loops over their formulas, and what they come down to in special cases."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from presage.common.networks import StackedMLP, stacked_linear
from presage.marl.opponents.dron_networks import (
    ColumnValues,
    DRONConcat,
    DRONMixture,
    OpponentNetwork,
    PlainNetwork,
    mixed,
)
from tests.common.toy import generator

Row = list[float]
SIZES = st.integers(1, 4)


def layer(weight: Tensor, bias: Tensor, row: Row) -> Row:
    """One affine map `weight (in, out)` of one row, number by number."""
    columns, offsets = weight.detach().T.tolist(), bias.detach().tolist()
    return [
        sum((x * w for x, w in zip(row, column, strict=True)), b) for column, b in zip(columns, offsets, strict=True)
    ]


def relu(row: Row) -> Row:
    return [max(number, 0.0) for number in row]


def through(network: StackedMLP, row: Row) -> Row:
    layers = [(weight[0], bias[0, 0]) for weight, bias in network.weights()]
    for weight, bias in layers[:-1]:
        row = relu(layer(weight, bias, row))
    return layer(*layers[-1], row)


def softmax(row: Row) -> Row:
    most = max(row)
    powers = [math.exp(number - most) for number in row]
    return [power / sum(powers) for power in powers]


def features(rows: int, state: int, opponent: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    rng = generator(seed)
    return torch.randn(rows, state, generator=rng), torch.randn(rows, opponent, generator=rng)


def close(found: Tensor | None, wanted: list[Row]) -> None:
    assert found is not None
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(SIZES, SIZES, st.integers(2, 4), st.lists(SIZES, min_size=2, max_size=3), SIZES, st.integers(0, 3))
def test_concat_is_its_formula(s: int, p: int, a: int, hidden: list[int], width: int, classes: int) -> None:
    network = DRONConcat(s, p, a, generator(0), hidden=hidden, opponent_hidden=width, classes=classes)
    state, opponent = features(3, s, p)
    values, logits = [], []
    for phi_s, phi_o in zip(state.tolist(), opponent.tolist(), strict=True):
        seen, model = relu(through(network.state_layer, phi_s)), relu(through(network.opponent_layer, phi_o))
        values.append(through(network.joint, model + seen))
        logits += [through(network.head, model)] if network.head is not None else []
    found = network(state, opponent)
    close(found.values, values)
    assert (found.logits is None) == (classes == 0)
    if classes:
        close(found.logits, logits)


@settings(max_examples=20, deadline=None)
@given(
    SIZES, SIZES, st.integers(2, 4), st.lists(SIZES, min_size=1, max_size=3), SIZES, SIZES, st.integers(0, 3)
)  # fmt: skip
def test_mixture_is_its_formula(
    s: int, p: int, a: int, hidden: list[int], width: int, experts: int, classes: int
) -> None:
    network = DRONMixture(s, p, a, generator(0), hidden=hidden, opponent_hidden=width, experts=experts, classes=classes)
    state, opponent = features(3, s, p)
    values, gates, logits = [], [], []
    for phi_s, phi_o in zip(state.tolist(), opponent.tolist(), strict=True):
        h = relu(through(network.trunk, phi_s))
        both = relu(through(network.gate_layer, phi_o + phi_s))
        gate = softmax(through(network.gate, both))
        each = [layer(network.experts.weight[k], network.experts.bias[k, 0], h) for k in range(experts)]
        values.append([sum(gate[k] * each[k][j] for k in range(experts)) for j in range(a)])
        gates.append(gate)
        logits += [through(network.head, both)] if network.head is not None else []
    found = network(state, opponent)
    close(found.values, values)
    close(found.gate, gates)
    assert found.gate is not None
    torch.testing.assert_close(found.gate.sum(1), torch.ones(3))
    assert (found.logits is None) == (classes == 0)
    if classes:
        close(found.logits, logits)


def test_experts_are_weighed_by_the_gate() -> None:
    values = mixed(torch.tensor([[0.25, 0.75]]), torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]))
    assert values.tolist() == [[0.25, 1.5]]
    assert int(values.argmax()) == 1


def test_the_gate_learns_which_experts_are_right() -> None:
    rng = generator(0)
    gate = torch.rand(6, 3, generator=rng).requires_grad_()
    experts, slope = torch.randn(3, 6, 4, generator=rng), torch.randn(6, 4, generator=rng)
    torch.autograd.backward(mixed(gate, experts), slope)
    assert gate.grad is not None
    for k in range(3):
        torch.testing.assert_close(gate.grad[:, k], (experts[k] * slope).sum(1))
    network = DRONMixture(3, 2, 4, generator(0), hidden=(6,), experts=3)
    torch.autograd.backward(network(*features(5, 3, 2)).values.sum())
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_experts_learn_as_far_as_the_gate_lets_them() -> None:
    network = DRONMixture(3, 2, 4, generator(0), hidden=(6,), experts=3)
    state, opponent = features(5, 3, 2)
    each: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], experts: Tensor) -> None:
        experts.retain_grad()
        each.append(experts)

    network.experts.register_forward_hook(keep)
    found = network(state, opponent)
    slope = torch.randn(5, 4, generator=generator(2))
    found.values.backward(slope)
    assert each[0].grad is not None
    for k in range(3):
        torch.testing.assert_close(each[0].grad[k], found.gate[:, k : k + 1].detach() * slope)


def test_one_expert_is_the_plain_network_to_the_bit() -> None:
    state, opponent = features(40, 5, 3)
    one = DRONMixture(5, 3, 4, generator(0), hidden=(16, 8), experts=1)
    plain = PlainNetwork(5, 3, 4, generator(0), hidden=(16, 8))
    assert torch.equal(one(state, opponent).values, plain(state, opponent).values)
    assert torch.equal(one(state, opponent).values, one(state, 5 * opponent).values)


def test_constant_features_of_the_opponent_are_a_bias() -> None:
    state, opponent = features(40, 5, 3)
    opponent = opponent[:1].expand(40, -1)
    concat = DRONConcat(5, 3, 4, generator(0), hidden=(16, 8), opponent_hidden=6)
    plain = PlainNetwork(5, 3, 4, generator(1), hidden=(16, 8))
    (first, second, last), (joint, out) = plain.network.layers, concat.joint.layers
    for ours, theirs in ((first, concat.state_layer.layers[0]), (second, joint), (last, out)):
        own, like = stacked_linear(ours), stacked_linear(theirs)
        with torch.no_grad():
            own.weight.copy_(like.weight[:, -own.weight.shape[1] :])
            own.bias.copy_(like.bias)
            if theirs is joint:
                own.bias.add_(concat.opponent_layer(opponent[:1])[0].relu() @ like.weight[0, :6])
    torch.testing.assert_close(concat(state, opponent).values, plain(state, opponent).values)


def test_plain_networks_read_the_state_or_both() -> None:
    state, opponent = features(6, 5, 3)
    pooled, joined = (PlainNetwork(5, 3, 4, generator(0), reads_opponent=both) for both in (False, True))
    assert torch.equal(pooled(state, opponent).values, pooled(state, opponent + 1).values)
    assert torch.equal(joined(state, opponent).values, joined.network(torch.cat([opponent, state], 1))[0])
    assert not torch.equal(joined(state, opponent).values, joined(state, opponent + 1).values)
    assert pooled(state, opponent).gate is None
    assert joined(state, opponent).logits is None


EVERY: list[Callable[[], OpponentNetwork]] = [
    lambda: DRONMixture(5, 3, 4, generator(0), classes=2),
    lambda: DRONConcat(5, 3, 4, generator(0), classes=2),
    lambda: PlainNetwork(5, 3, 4, generator(0)),
    lambda: PlainNetwork(5, 3, 4, generator(0), reads_opponent=True),
]


@pytest.mark.parametrize("make", EVERY)
def test_columns_that_are_not_named_never_reach_the_values(make: Callable[[], OpponentNetwork]) -> None:
    network = make()
    model = ColumnValues(network, (2, 0, 9, 3, 4), (7, 5, 6))
    obs = torch.randn(20, 10, generator=generator(3))
    wanted = network(obs[:, [2, 0, 9, 3, 4]], obs[:, [7, 5, 6]])
    spoiled = obs.clone()
    spoiled[:, [1, 8]] = torch.nan
    for found in (model(obs)[0], model(spoiled)[0], model(spoiled.numpy(), "carried")[0]):
        assert torch.equal(found, wanted.values)
    assert model(obs, "carried")[1] == "carried"


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize(
    ("state", "opponent", "message"),
    [
        ((6, 4), (6, 3), r"state features \(6, 4\) and opponent features \(6, 3\) must have the shapes \(B, 5\)"),
        ((6, 5), (6, 2), r"opponent features \(6, 2\).*\(B, 3\) for which this network was made"),
        ((5,), (3,), r"state features \(5,\)"),
        ((6, 5), (7, 3), "6 rows of state features come with 7 of opponent features"),
    ],
)
def test_features_of_other_shapes_are_refused(
    make: Callable[[], OpponentNetwork], state: tuple[int, ...], opponent: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()(torch.zeros(state), torch.zeros(opponent))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DRONConcat(2, 2, 2, generator(0), hidden=(8,)), r"hidden=\(8,\) must have 2 or more widths"),
        (lambda: DRONMixture(2, 2, 2, generator(0), hidden=()), r"hidden=\(\) must have 1 or more widths"),
        (lambda: DRONMixture(2, 2, 2, generator(0), experts=0), "experts=0 must be >= 1"),
        (lambda: DRONMixture(0, 2, 2, generator(0)), "widths >= 1"),
    ],
)
def test_shapes_that_make_no_network_are_refused(make: Callable[[], OpponentNetwork], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
