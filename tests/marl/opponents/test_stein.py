"""Stein directions against a loop over pairs, and particles against the density that they follow."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from presage.marl.opponents.stein import NARROWEST, stein_direction
from tests.common.toy import generator


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_directions_are_those_of_a_loop_over_pairs(shape: tuple[int, ...]) -> None:
    rng = generator(0)
    fixed, score = torch.randn(2, *shape, 7, 2, generator=rng, dtype=torch.float64)
    moved = torch.randn(*shape, 4, 2, generator=rng, dtype=torch.float64)
    found = stein_direction(fixed, score, moved)
    assert found.shape == moved.shape
    for index in product(*map(range, shape)):
        xs, gradients, ys, directions = (part[index] for part in (fixed, score, moved, found))
        squares = sorted(float((x - y).square().sum()) for x in xs for y in ys)
        bandwidth = squares[(len(squares) - 1) // 2] / math.log(7)
        for y, direction in zip(ys, directions, strict=True):
            total = torch.zeros(2, dtype=torch.float64)
            for x, gradient in zip(xs, gradients, strict=True):
                place = x.clone().requires_grad_()
                kernel = torch.exp(-(place - y).square().sum() / bandwidth)
                (repulsion,) = torch.autograd.grad(kernel, place)
                total += kernel.detach() * gradient + repulsion
            torch.testing.assert_close(direction, total / 7)


def test_particles_become_a_sample_of_the_density() -> None:
    rng = generator(1)
    particles = torch.randn(60, 1, generator=rng) * 0.1 - 3
    for _ in range(400):  # all of them move, and all of them say where to
        score = -(particles - 1.0) / 0.5**2
        particles = particles + 0.2 * stein_direction(particles, score, particles)
    assert float(particles.mean()) == pytest.approx(1.0, abs=0.05)
    assert float(particles.std()) == pytest.approx(0.5, abs=0.05)


def test_particles_in_one_place_do_not_divide_by_zero() -> None:
    together = torch.zeros(4, 1)
    assert torch.equal(stein_direction(together, torch.ones(4, 1), together), torch.ones(4, 1))
    near = stein_direction(together, torch.zeros(4, 1), torch.full((1, 1), 0.01))
    assert float(near) == pytest.approx(2 * 0.01 / NARROWEST * math.exp(-(0.01**2) / NARROWEST), rel=1e-5)


def test_bad_particles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2\) must be \(..., n, d\) with n >= 2"):
        stein_direction(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"the score, of shape \(3, 1\), as large"):
        stein_direction(torch.zeros(3, 2), torch.zeros(3, 1), torch.zeros(3, 2))
