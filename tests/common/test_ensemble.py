"""The stack of probabilistic networks: bounds, loss, statistics, and what survives a change of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.ensemble import CHUNK, GaussianStack, bounded, gaussian_nll, least_squares
from tests.common.toy import generator


def stack(**changed: object) -> GaussianStack:
    numbers: dict[str, object] = {
        "owners": 1, "members": 3, "elites": 2, "inputs": 4, "columns": 2, "flags": 1, "hidden": (5, 6),
        "activation": "silu", "linear_skip": True, "normalise_targets": True, "log_variance": (-10.0, 0.5),
        "learned_bounds": True, "unscaled": (), "rng": generator(0),
    }  # fmt: skip
    return GaussianStack(**(numbers | changed))  # type: ignore[arg-type]  # the numbers above are of the right types


def scrambled(network: GaussianStack) -> GaussianStack:
    """The same network with random weights everywhere, as after some fit."""
    rng = generator(7)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn(p.shape, generator=rng), alpha=0.3)
    network.fitted.fill_(True)
    return network


def rows(size: int, width: int, seed: int, scale: float = 1.0) -> Tensor:
    columns = torch.arange(1.0, width + 1)
    return scale * columns * (torch.randn(size, width, generator=generator(seed)) + columns)


def test_bounds_fold_the_log_variance_smoothly() -> None:
    raw = torch.tensor([-1000.0, -10.0, 0.0, 0.5, 1000.0], requires_grad=True)
    got = bounded(raw, torch.tensor(-10.0), torch.tensor(0.5))
    wanted = torch.tensor([-10.0, -9.306867, -0.474004, -0.193092, 0.500028])
    torch.testing.assert_close(got.detach(), wanted, atol=1e-5, rtol=0)
    slope = torch.autograd.grad(got.sum(), raw)[0]
    assert (slope[1:4] > 0.1).all()


def test_loss_at_the_true_mean_and_variance_has_its_known_expectation() -> None:
    residual = 0.5 * torch.randn(1, 200_000, 1, generator=generator(0))
    log_variance = torch.full_like(residual, math.log(0.25))
    weight = torch.ones(1, 1, 1)
    loss = gaussian_nll(torch.zeros_like(residual), log_variance, residual, weight)
    assert loss.item() == pytest.approx(-0.386294, abs=0.01)  # 1 + log 0.25


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 50), variance_weight=st.sampled_from([0.01, 1.0]))
def test_losses_equal_a_loop_over_networks_rows_and_columns(seed: int, variance_weight: float) -> None:
    shape = (2, 4, 3)
    mean, log_variance, target = (torch.randn(shape, generator=generator(seed + k)) for k in range(3))
    weight = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])[:, None]
    likelihood = gaussian_nll(mean, log_variance, target, weight)
    squares = least_squares(mean, log_variance, target, weight, variance_weight)
    for m in range(2):
        errors, doubts = [], []
        for b in range(4):
            for c in range(3):
                v, error = log_variance[m, b, c].item(), (mean - target)[m, b, c].item() ** 2
                if weight[m, 0, c]:
                    errors.append(error)
                    doubts.append(error * math.exp(-v) + v)
        assert likelihood[m].item() == pytest.approx(sum(doubts) / len(doubts), rel=1e-4, abs=1e-5)
        wanted = (sum(errors) + variance_weight * sum(doubts)) / len(errors)
        assert squares[m].item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_least_squares_pull_means_alike_and_variances_as_the_likelihood_does() -> None:
    target, weight = rows(5, 2, 1)[None], torch.ones(1, 1, 2)
    mean = torch.zeros(1, 5, 2, requires_grad=True)
    log_variance = torch.randn(1, 5, 2, generator=generator(2), requires_grad=True)
    loss = least_squares(mean, log_variance, target, weight, 0.25).sum()
    pull, doubt = torch.autograd.grad(loss, [mean, log_variance])
    torch.testing.assert_close(pull, -2 * target / 10)
    likelihood = gaussian_nll(mean, log_variance, target, weight).sum()
    torch.testing.assert_close(doubt, 0.25 * torch.autograd.grad(likelihood, log_variance)[0])


def test_one_network_of_the_stack_is_the_perceptron_plus_the_linear_path() -> None:
    network = scrambled(stack())
    network.take_statistics(0, rows(50, 4, 1), rows(50, 2, 2))
    network.rescale(0, torch.tensor([0.5, 3.0]).expand(3, 1, 2))
    x = rows(6, 4, 3)
    got = network.predict(x, network.select(slice(None)))
    skip = network.skip
    assert skip is not None
    for m in range(3):
        scaled = (x - network.input_mean[m]) / network.input_std[m]
        out = network.mlp.member(m)(scaled)
        mean = out[:, :2] + scaled @ skip.weight[m] + skip.bias[m]
        low, high = network.lower[m], network.upper[m]
        log_variance = bounded(out[:, 2:4], low, high)
        unit = torch.tensor([0.5, 3.0])
        torch.testing.assert_close(got.mean[m], network.target_mean[m] + unit * mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(got.std[m], unit * log_variance.exp().sqrt(), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(got.logits[m], out[:, 4:], atol=1e-5, rtol=1e-5)
    own = network.predict(x.expand(3, 6, 4), network.select(torch.tensor([2, 0, 1])))
    torch.testing.assert_close(own.mean, got.mean[[2, 0, 1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("linear_skip", [True, False])
@pytest.mark.parametrize("normalise_targets", [True, False])
def test_new_statistics_and_units_leave_the_predictions_of_fitted_networks_alone(
    linear_skip: bool, normalise_targets: bool, noisy: bool
) -> None:
    network = stack(linear_skip=linear_skip, normalise_targets=normalise_targets, noisy=noisy, unscaled=(3,))
    network.take_statistics(0, rows(50, 4, 1), rows(50, 2, 2))
    network = scrambled(network)
    x = rows(9, 4, 3)
    before = network.predict(x, network.select(slice(None)))
    network.take_statistics(0, rows(40, 4, 4, scale=3.0), rows(40, 2, 5, scale=0.2))
    assert network.input_std[0, 0, 0] > 2, "the statistics did change"
    assert network.input_mean[..., 3].eq(0).all()
    assert network.input_std[..., 3].eq(1).all()
    if normalise_targets:
        network.rescale(0, torch.tensor([0.1, 7.0]).expand(3, 1, 2))
    after = network.predict(x, network.select(slice(None)))
    for name, old, new in zip(before._fields, before, after, strict=True):
        torch.testing.assert_close(new, old, atol=2e-4, rtol=2e-4, msg=name)


def test_a_column_that_never_varied_is_its_constant_without_noise_until_it_varies() -> None:
    network = scrambled(stack())
    targets = rows(50, 2, 2)
    targets[:, 1] = 0.7
    network.take_statistics(0, rows(50, 4, 1), targets)
    found = network.predict(rows(9, 4, 3), network.select(slice(None)))
    assert (found.mean[..., 1] == torch.tensor(0.7)).all()
    assert (found.std[..., 1] == 0).all()
    assert (found.std[..., 0] > 0).all()
    scaled, live = network.standardise(targets.expand(3, -1, -1))
    assert live.flatten().tolist() == [1, 0] * 3
    assert scaled[..., 1].abs().max() == 0

    network.take_statistics(0, rows(50, 4, 1), rows(50, 2, 2))
    assert (network.predict(rows(9, 4, 3), network.select(slice(None))).std > 0).all()


def test_a_constant_input_column_is_no_number_to_divide_by() -> None:
    network = stack()
    inputs = rows(50, 4, 1)
    inputs[:, 2] = -3.0
    network.take_statistics(0, inputs, rows(50, 2, 2))
    found = network.predict(inputs, network.select(slice(None)))
    assert all(bool(part.isfinite().all()) for part in found)


def test_owners_keep_statistics_of_their_own() -> None:
    network = stack(owners=2, members=2, elites=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.take_statistics(1, rows(50, 4, 1), rows(50, 2, 2))
    after = network.state_dict()
    assert all(torch.equal(before[name][:2], after[name][:2]) for name in before if len(before[name]) == 4)
    assert all(not torch.equal(before[name][2:], after[name][2:]) for name in ("input_mean", "target_scale", "spread"))


def test_elites_are_found_owner_by_owner() -> None:
    network = stack(owners=2, members=3, elites=2)
    network.elites.copy_(torch.tensor([[2, 0], [1, 2]]))
    assert network.elite_index().tolist() == [2, 0, 4, 5]


def test_copies_of_the_elites_follow_every_change_of_the_stack() -> None:
    network, x = scrambled(stack()), rows(9, 4, 3)
    optimiser = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), fused=True)

    def said() -> Tensor:
        return network.predict(x, network.elite_networks()).mean

    assert network.elite_networks() is network.elite_networks(), "nothing has changed"
    saved, before = {name: value.clone() for name, value in network.state_dict().items()}, said()
    network(x)[0].sum().backward()
    held = network.elite_networks()
    optimiser.step()
    assert not torch.equal(said(), network.predict(x, held).mean)
    assert torch.equal(said(), network.predict(x, network.select(network.elite_index())).mean)
    network.settle()
    changes: list[Callable[[], object]] = [
        lambda: network.elites.copy_(torch.tensor([[1, 2]])),
        lambda: network.take_statistics(0, rows(50, 4, 1), rows(50, 2, 2)),
        lambda: network.load_state_dict(saved),
        network.double,
        network.float,
    ]
    for change in changes:
        held = network.elite_networks()
        change()
        x = x.to(network.head.weight.dtype)
        assert network.elite_networks() is network.elite_networks() is not held
        assert torch.equal(said(), network.predict(x, network.select(network.elite_index())).mean)
    assert torch.equal(said(), before)


@pytest.mark.parametrize("shared", [True, False])
def test_many_rows_are_predicted_as_few_are(shared: bool) -> None:
    network, many = scrambled(stack(hidden=(9, 8, 7))), 2 * CHUNK + 3
    network.take_statistics(0, rows(50, 4, 1), rows(50, 2, 2))
    x = rows(many, 4, 3) if shared else rows(3 * many, 4, 3).view(3, many, 4)
    networks = network.select(slice(None))
    found = network.predict(x, networks)
    parts = [network.predict(part, networks) for part in torch.split(x, 100, -2)]
    for k, whole in enumerate(found):
        torch.testing.assert_close(whole, torch.cat([part[k] for part in parts], 1), atol=1e-5, rtol=1e-5)
    x.requires_grad_(True)
    assert network.predict(x, networks).mean.requires_grad
    torch.testing.assert_close(network.predict(x, networks).mean.detach(), found.mean, atol=1e-5, rtol=1e-5)


def test_members_start_apart() -> None:
    network = stack()
    network.take_statistics(0, rows(50, 4, 1), rows(50, 2, 2))
    mean = network.predict(rows(9, 4, 3), network.select(slice(None))).mean
    assert (mean.std(0) > 0).all()
