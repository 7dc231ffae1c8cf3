"""The linear path in closed form, against ridge regressions done one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from presage.common.ensemble import GaussianStack
from presage.common.linear_path import RIDGES, solve_linear_path
from tests.common.test_ensemble import scrambled, stack
from tests.common.toy import generator


def table(size: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs `(size, 4)` on different scales, and two targets that are linear in them."""
    rng = generator(seed)
    x = torch.randn(size, 4, generator=rng) * torch.tensor([1.0, 10.0, 0.1, 1.0]) + torch.tensor([0.0, 5.0, 0.0, -1.0])
    slope = torch.tensor([[1.0, 0.0], [0.3, -0.02], [0.0, 4.0], [-2.0, 1.0]])
    return x, x @ slope + torch.tensor([0.5, -3.0]) + noise * torch.randn(size, 2, generator=rng)


def halves(size: int) -> tuple[Tensor, Tensor]:
    index = torch.arange(size)
    return index[: size * 4 // 5], index[size * 4 // 5 :]


def error(network: GaussianStack, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error `(M, C)` in raw units."""
    found = network.predict(inputs, network.select(slice(None)))
    return (found.mean - targets).square().mean(1)


def test_a_linear_law_is_found_at_once() -> None:
    network, (inputs, targets), (train, held_out) = stack(), table(300, 0.0), halves(300)
    network.take_statistics(0, inputs[train], targets[train])
    network.rescale(0, network.spread)
    with torch.no_grad():
        assert network.skip is not None
        network.skip.weight.zero_()
    solve_linear_path(network, 0, inputs, targets, train, held_out)
    assert (error(network, inputs, targets).sqrt() < 1e-4 * targets.std(0)).all()
    assert torch.allclose(network.target_scale, 1e-3 * network.spread), "units do not shrink to rounding errors"


def test_each_member_gets_the_ridge_regression_of_what_it_leaves() -> None:
    network, (inputs, targets), (train, held_out) = scrambled(stack()), table(60, 0.4), halves(60)
    network.fitted.fill_(False)
    network.take_statistics(0, inputs[train], targets[train])
    before = network.predict(inputs, network.select(slice(None))).mean
    solve_linear_path(network, 0, inputs, targets, train, held_out)
    after = network.predict(inputs, network.select(slice(None))).mean
    x = ((inputs - network.input_mean[0]) / network.input_std[0]).double()
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    for m in range(3):
        for c in range(2):
            left = (targets - before[m])[:, c].double()
            options = [torch.zeros(5, dtype=torch.float64)]
            for ridge in RIDGES:
                gram = x[train].T @ x[train] / len(train) + ridge * torch.eye(5)
                options.append(torch.linalg.solve(gram, x[train].T @ left[train] / len(train)))
            scores = [(left - x @ option)[held_out].square().mean().item() for option in options]
            best = options[scores.index(min(scores))]
            torch.testing.assert_close(after[m, :, c], before[m, :, c] + (x @ best).float(), atol=1e-3, rtol=1e-3)


def test_held_out_errors_never_grow_even_with_fewer_rows_than_inputs() -> None:
    for seed in range(5):
        network, (inputs, targets) = scrambled(stack()), table(6, 5.0, seed)
        train, held_out = torch.arange(3), torch.arange(3, 6)
        network.take_statistics(0, inputs[train], targets[train])
        before = error(network, inputs[held_out], targets[held_out])
        solve_linear_path(network, 0, inputs, targets, train, held_out)
        assert (error(network, inputs[held_out], targets[held_out]) <= before * (1 + 1e-4) + 1e-6).all()


def test_afterwards_a_unit_is_what_the_linear_path_leaves() -> None:
    network, (inputs, targets), (train, held_out) = stack(), table(4000, 0.0), halves(4000)
    targets = targets + 0.7 * torch.sin(20 * inputs[:, :1])
    network.take_statistics(0, inputs[train], targets[train])
    solve_linear_path(network, 0, inputs, targets, train, held_out)
    torch.testing.assert_close(network.target_scale, torch.full((3, 1, 2), 0.7 * 0.5**0.5), atol=0.02, rtol=0)


def test_owners_are_solved_apart() -> None:
    network, (inputs, targets), (train, held_out) = stack(owners=2, members=2), table(300, 0.1), halves(300)
    for owner in range(2):
        network.take_statistics(owner, inputs[train], targets[train])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    solve_linear_path(network, 1, inputs, targets, train, held_out)
    for name, value in network.state_dict().items():
        if len(value) == 4:
            assert torch.equal(value[:2], before[name][:2]), name
    assert error(network, inputs, targets)[2:].max() < 0.02


def test_a_network_without_a_linear_path_is_refused() -> None:
    inputs, targets = table(10, 0.0)
    with pytest.raises(ValueError, match="linear_skip=True"):
        solve_linear_path(stack(linear_skip=False), 0, inputs, targets, *halves(10))
