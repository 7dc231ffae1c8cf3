"""Stacked networks against loops of ordinary torch layers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from presage.common.networks import LIPSCHITZ, Activation, Normaliser, StackedLinear, StackedMLP, hold_norm
from tests.common.toy import generator


def looped(network: StackedMLP, inputs: list[Tensor]) -> tuple[Tensor, list[nn.Sequential]]:
    """The outputs `(M, B, out)` of the members as plain torch networks, and those networks."""
    plain = [network.member(m) for m in range(network.stack)]
    return torch.stack([member(x) for member, x in zip(plain, inputs, strict=True)]), plain


def readers(form: str, stack: int, rows: int, width: int) -> tuple[Tensor, list[Tensor]]:
    """Random inputs in one of the three forms, with gradients, and what each member reads of them."""
    if form == "shared":
        x = torch.randn(rows, width, generator=generator(1), requires_grad=True)
        return x, [x] * stack
    groups = stack if form == "own" else stack // 2
    x = torch.randn(groups, rows, width, generator=generator(1), requires_grad=True)
    return x, [x[m % groups] for m in range(stack)]


@pytest.mark.parametrize("activation", ["relu", "silu", "tanh"])
@pytest.mark.parametrize("form", ["own", "shared", "paired"])
def test_a_stack_equals_a_loop_of_linear_layers_and_so_do_its_gradients(form: str, activation: Activation) -> None:
    stack, rows, width = 4, 5, 3
    network = StackedMLP(stack, width, (6, 7), 2, generator(0), activation)
    x, inputs = readers(form, stack, rows, width)
    upstream = torch.randn(stack, rows, 2, generator=generator(2))

    got = network(x)
    parameters = list(network.parameters())
    gradients = torch.autograd.grad((got * upstream).sum(), [x, *parameters])

    wanted, plain = looped(network, inputs)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-6)
    own = [p for member in plain for p in member.parameters()]
    expected = torch.autograd.grad((wanted * upstream).sum(), [x, *own])
    torch.testing.assert_close(gradients[0], expected[0], atol=1e-6, rtol=1e-5)
    per_member = len(own) // stack
    for k, gradient in enumerate(gradients[1:]):
        for m in range(stack):
            theirs = expected[1 + m * per_member + k]
            mine = gradient[m].T if theirs.ndim == 2 else gradient[m, 0]
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    stack=st.integers(1, 5), rows=st.integers(1, 6), width=st.integers(1, 4), outputs=st.integers(1, 3),
    hidden=st.lists(st.integers(1, 5), max_size=2), form=st.sampled_from(["own", "shared"]),
)  # fmt: skip
def test_every_shape_equals_the_loop(
    stack: int, rows: int, width: int, outputs: int, hidden: list[int], form: str
) -> None:
    network = StackedMLP(stack, width, hidden, outputs, generator(0))
    x, inputs = readers(form, stack, rows, width)
    torch.testing.assert_close(network(x), looped(network, inputs)[0], atol=1e-6, rtol=1e-6)


def test_frozen_weights_let_gradients_through_to_the_inputs_alone() -> None:
    network = StackedMLP(2, 3, (4,), 1, generator(0))
    x, _ = readers("own", 2, 5, 3)
    free, frozen = network(x), network(x, frozen=True)
    assert torch.equal(free, frozen)
    wanted = torch.autograd.grad(free.sum(), x)[0]
    torch.autograd.backward(frozen.sum())
    assert x.grad is not None
    assert torch.equal(x.grad, wanted)
    assert all(p.grad is None for p in network.parameters())


def test_a_member_holds_copies() -> None:
    network = StackedMLP(3, 2, (4,), 1, generator(0), "tanh")
    member = network.member(1)
    x = torch.randn(6, 2, generator=generator(1))
    before = network(x)
    torch.testing.assert_close(member(x), before[1], atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        for p in member.parameters():
            p.zero_()
    assert torch.equal(network(x), before)
    assert [type(layer) for layer in member] == [nn.Linear, nn.Tanh, nn.Linear]


def test_uniform_weights_spread_as_those_of_torch_do() -> None:
    inputs = 25
    layer = StackedLinear(40, inputs, 50, generator(0))
    for values in (layer.weight, layer.bias):
        assert values.abs().max() <= 1 / math.sqrt(inputs)
        assert values.std().item() == pytest.approx(1 / math.sqrt(3 * inputs), rel=0.05)
        assert values.mean().item() == pytest.approx(0.0, abs=0.01)
    torch_layer = nn.Linear(inputs, 50)
    assert torch_layer.weight.abs().max() <= 1 / math.sqrt(inputs)


def test_truncated_normal_weights_have_the_std_of_the_model_ensembles() -> None:
    inputs = 25
    layer = StackedLinear(40, inputs, 50, generator(0), "truncated_normal")
    std = 0.5 / math.sqrt(inputs)
    assert layer.weight.abs().max() <= 2 * std
    shrink = 0.8796  # std of a unit normal cut at two std: sqrt(1 - 4 pdf(2) / (1 - 2 tail))
    assert layer.weight.std().item() == pytest.approx(shrink * std, rel=0.02)
    assert layer.bias.abs().max() == 0


def test_the_generator_alone_decides_the_weights() -> None:
    one, two, other = (StackedMLP(2, 3, (4,), 1, generator(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one(torch.ones(1, 3)), other(torch.ones(1, 3)))
    assert not torch.equal(one(torch.ones(1, 3))[0], one(torch.ones(1, 3))[1]), "members start apart"


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"stack": 0}, "stack=0"),
        ({"inputs": 0}, r"widths=\[0, 4, 1\]"),
        ({"hidden": (4, 0)}, r"widths=\[3, 4, 0, 1\]"),
        ({"activation": "gelu"}, "activation='gelu'.*relu, silu, tanh"),
    ],
)
def test_a_network_that_cannot_be_is_refused_with_its_numbers(numbers: dict[str, object], named: str) -> None:
    settings_: dict[str, object] = {"stack": 2, "inputs": 3, "hidden": (4,), "outputs": 1, "rng": generator(0)}
    with pytest.raises(ValueError, match=named):
        StackedMLP(**(settings_ | numbers))  # type: ignore[arg-type]  # the point is to pass what does not fit


def test_a_normaliser_takes_float64_statistics_and_inverts() -> None:
    normaliser = Normaliser(3)
    column = 1e4 + torch.arange(1000, dtype=torch.float32) % 2  # std 0.5 on a mean that float32 sums would blur
    rows = torch.stack([column, torch.full_like(column, 7.25), column * 1e-3], 1)
    normaliser.fit(rows)
    assert normaliser.mean.tolist() == pytest.approx([10_000.5, 7.25, 10.0005], rel=1e-7)
    assert normaliser.std.tolist() == pytest.approx([0.5, 1.0, 0.5e-3], rel=1e-3)
    scaled = normaliser(rows)
    assert scaled[:, 1].abs().max() == 0, "a constant column must not be blown up"
    torch.testing.assert_close(normaliser.invert(scaled), rows)


@pytest.mark.parametrize("activation", ["relu", "silu", "tanh"])
def test_no_activation_is_steeper_than_is_said(activation: Activation) -> None:
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    y = {"relu": torch.relu, "silu": nn.functional.silu, "tanh": torch.tanh}[activation](x)
    steepest = ((y[1:] - y[:-1]) / (x[1:] - x[:-1])).max().item()
    assert steepest <= LIPSCHITZ[activation] + 1e-9
    assert steepest == pytest.approx(LIPSCHITZ[activation], abs=2e-6), "and as steep"


def test_norms_are_held_map_by_map() -> None:
    rng = generator(0)
    weight = torch.randn(3, 5, 4, generator=rng) * torch.tensor([0.01, 1.0, 100.0])[:, None, None]
    start = weight.clone()
    norms = [torch.linalg.matrix_norm(start[m], 2).item() for m in range(3)]
    direction = torch.randn(3, 4, generator=rng)
    hold_norm(weight, 0.5, direction, exact=True)
    for m, norm in enumerate(norms):
        torch.testing.assert_close(weight[m], start[m] * min(1.0, 0.5 / norm))
        right = torch.linalg.svd(start[m])[2][0]
        assert abs(float(right @ direction[m])) == pytest.approx(1.0, abs=1e-5), "where the map is largest"


def test_estimated_norms_are_never_too_large_and_get_better_with_every_step() -> None:
    rng = generator(0)
    weight, direction = torch.randn(2, 30, 20, generator=rng), torch.randn(2, 20, generator=rng)
    start, before = weight.clone(), torch.full((2,), math.inf)
    for _ in range(100):
        hold_norm(weight, 1.0, direction, exact=False)
        norm = torch.linalg.matrix_norm(weight, 2)
        assert (norm >= 1 - 1e-5).all()
        assert (norm <= before + 1e-5).all()
        before = norm
    assert (before < 1.001).all()
    scale = (weight / start).flatten(1)
    assert (scale.amax(1) - scale.amin(1) < 1e-3).all(), "maps are scaled, and nothing else"


def test_maps_without_a_norm_hurt_nobody() -> None:
    weight, direction = torch.randn(3, 4, 4, generator=generator(0)), torch.randn(3, 4, generator=generator(1))
    weight[0, 1, 2], weight[1] = float("nan"), 0.0
    for exact in (False, True):
        hold_norm(weight, 0.5, direction, exact=exact)
    assert weight[1].eq(0).all()
    assert torch.linalg.matrix_norm(weight[2], 2).item() <= 0.5 + 1e-6
    assert direction.isfinite().all(), "an exact look brings the estimate back"
