"""The parts of the ensemble benchmark that are not timing: the common score, the made-up system, the bare products."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from benchmarks.bare_products import products
from benchmarks.ensemble_speed import System, nll, reached


def test_the_nll_is_that_of_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    mean, std, target = rng.normal(size=(3, 5, 2)), rng.uniform(0.1, 2.0, (3, 5, 2)), rng.normal(size=(5, 2))
    expected = np.mean([-norm.logpdf(target, mean[e], std[e]).mean() for e in range(3)])
    assert nll(mean, std, target) == pytest.approx(expected)


def test_a_target_is_reached_at_the_first_look_at_or_below_it() -> None:
    assert reached([1.0, 2.0, 3.0, 4.0], [0.5, 0.2, 0.3, 0.1], 0.2) == 2.0
    assert reached([1.0, 2.0], [0.5, 0.3], 0.2) == math.inf


def test_the_system_s_truth_is_what_its_targets_scatter_around() -> None:
    drawn = System(obs=3, act=2).draw(200_000, torch.Generator().manual_seed(0))
    surprise = (drawn["targets"] - drawn["mean"]) / drawn["std"]
    assert surprise.mean(0).abs().max() < 0.01
    assert surprise.square().mean(0).sub(1).abs().max() < 0.02
    assert torch.allclose(drawn["next_obs"] - drawn["obs"], drawn["targets"][:, :3], atol=1e-6)
    assert torch.equal(drawn["reward"], drawn["targets"][:, 3:])


def test_the_products_are_all_that_backpropagation_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(torch, "bmm", lambda x, w, out: made.append((*x.shape, w.shape[2], tuple(out.shape))))
    products(2, 5, [3, 7, 4], backward=True)()
    assert made == [
        (2, 5, 3, 7, (2, 5, 7)), (2, 3, 5, 7, (2, 3, 7)),
        (2, 5, 7, 4, (2, 5, 4)), (2, 7, 5, 4, (2, 7, 4)), (2, 5, 4, 7, (2, 5, 7)),
    ]  # fmt: skip
