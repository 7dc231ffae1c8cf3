"""Squashed Gaussians against torch's distributions and the reference numbers of the opponent models' specification."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as torch_distributions

from presage.marl.opponents.squashed import SquashedGaussian, log_slope, unsquash
from tests.common.toy import generator


def double(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_reference_numbers() -> None:
    one, other = SquashedGaussian(double(0.0), double(1.0)), SquashedGaussian(double(0.5), double(2.0))
    assert float(one.divergence(other)) == pytest.approx(0.349397, abs=1e-6)
    assert float(other.divergence(one)) == pytest.approx(0.931853, abs=1e-6)
    assert float(SquashedGaussian(double(0.2), double(0.5)).log_prob(double(0.6))) == pytest.approx(-0.205521, abs=1e-6)


@settings(deadline=None)
@given(st.floats(-2, 2), st.floats(0.05, 3), st.floats(-3, 3))
def test_densities_are_those_of_a_transformed_normal(mean: float, sigma: float, u: float) -> None:
    normal = torch_distributions.Normal(double(mean), double(sigma))
    squashed = torch_distributions.TransformedDistribution(normal, [torch_distributions.TanhTransform()])
    found = SquashedGaussian(double(mean), double(sigma)).log_prob(double(u))
    expected = squashed.log_prob(double(u).tanh())  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_divergence_is_the_mean_of_log_ratios() -> None:
    one, other = SquashedGaussian(double(0.3), double(0.4)), SquashedGaussian(double(-0.2), double(0.7))
    many = SquashedGaussian(one.mean.expand(200_000), one.sigma.expand(200_000))
    u = many.sample(generator(0))
    ratios = many.log_prob(u) - other.log_prob(u)
    error = float(ratios.std()) / 200_000**0.5
    assert float(ratios.mean()) == pytest.approx(float(one.divergence(other)), abs=4 * error)
    assert error < 0.005


def test_nothing_is_lost_where_tanh_saturates() -> None:
    far = double(-30.0, 30.0)
    torch.testing.assert_close(log_slope(far), double(1.0, 1.0) * (2 * torch.tensor(2.0).log().double() - 60))
    assert unsquash(double(-1.0, 1.0)).isfinite().all()
    torch.testing.assert_close(unsquash(double(0.3, -0.8).tanh()), double(0.3, -0.8))


def test_numbers_of_a_network_are_means_and_held_log_sigmas() -> None:
    found = SquashedGaussian.of(double(0.5, -1.0, 0.0, 9.0), floor=0.01)
    assert found.mean.tolist() == [0.5, -1.0]
    torch.testing.assert_close(found.sigma, double(1.01, torch.tensor(2.0).exp().item() + 0.01), rtol=1e-6, atol=0)
    near = SquashedGaussian(double(2.0), double(torch.tensor(-1.0).exp().item()))
    assert float(near.size()) == pytest.approx(0.5 * (4 + 1))
