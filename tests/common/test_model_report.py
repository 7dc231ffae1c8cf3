"""What a report says of models whose faults are known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import special, stats

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.model_report import (
    LEVELS,
    Answers,
    calibration_error,
    coverage,
    mixture_nll,
    model_report,
    plot_model,
    rank_correlation,
    varying,
)
from presage.common.replay import Replay
from presage.common.run import start
from presage.common.worlds import LearnedWorld
from tests.common.tiny_runs import AORPO, MODEL_FREE, scenario
from tests.common.toy import PLAIN, LinearGame, generator


def answers(stated: float, elites: int = 3, rows: int = 4_000) -> Answers:
    """Elites who agree on the mean and say that the noise, which is 1, is `stated`."""
    mean = torch.randn(rows, 2, generator=generator(0))
    truth = mean + torch.randn(rows, 2, generator=generator(1))
    return Answers(mean.expand(elites, -1, -1), torch.full((elites, rows, 2), stated), truth)


@pytest.mark.parametrize("stated", [0.5, 1.0, 2.0])
def test_coverage_is_what_the_normal_distribution_says(stated: float) -> None:
    covered = coverage(answers(stated))
    wanted = [2 * stats.norm.cdf(stated * stats.norm.ppf(0.5 + level / 2)) - 1 for level in LEVELS]
    np.testing.assert_allclose(covered, wanted, atol=0.015)
    assert calibration_error(covered) == pytest.approx(np.abs(np.subtract(wanted, LEVELS)).mean(), abs=0.01)


def test_the_mixtures_likelihood_is_scipys() -> None:
    rng = generator(3)
    mean, std, truth = torch.randn(4, 5, 2, generator=rng), torch.rand(4, 5, 2, generator=rng) + 0.1, torch.zeros(5, 2)
    logs = stats.norm.logpdf(truth.numpy(), mean.numpy(), std.numpy())
    wanted = -(special.logsumexp(logs, axis=0) - math.log(4))
    np.testing.assert_allclose(mixture_nll(Answers(mean, std, truth)), wanted, rtol=1e-5)


def test_columns_that_do_not_vary_are_left_out() -> None:
    truth = torch.tensor([[1.0, 0.0, 3.0], [2.0, 0.0, 4.0]])
    std = torch.tensor([1.0, 1.0, 0.0]).expand(2, 2, 3)
    found = Answers(torch.zeros(2, 2, 3), std, truth)
    assert varying(found).tolist() == [True, False, False]
    assert varying(found, noisy=False).tolist() == [True, False, True]


def test_ranks_are_compared() -> None:
    one = torch.tensor([0.1, 0.5, 0.2, 0.9])
    assert rank_correlation(one, one.exp()) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    assert math.isnan(rank_correlation(one, torch.ones(4)))


@pytest.mark.parametrize(("frames", "noise"), [(1, "learned"), (2, "learned"), (1, "none")])
def test_a_linear_system_is_foreseen_to_the_end_of_its_episodes(
    frames: int, noise: Literal["learned", "none"], tmp_path: Path
) -> None:
    spec = replace(PLAIN, frames=frames)
    game = LinearGame(spec, copies=4, limit=6)
    replay, rng, view = Replay(spec, 1_000, 4), generator(0), game.reset(1)
    for _ in range(60):
        rows, view = game.step(spec.random_action(view.acting, view.legal, rng))
        replay.extend(rows)
    config = EnsembleConfig(members=2, elites=2, hidden=(8,), outcome_hidden=(8,), noise=noise)
    world = LearnedWorld(DynamicsEnsemble(spec, config, generator(0)), FitConfig(max_updates=200), generator(1))
    world.fit(replay, generator(2))
    held_out = world.held_out(replay)
    assert len(held_out) == int(0.2 * 240)
    report, points = model_report(world.ensemble, replay, held_out)
    assert report.rows == len(held_out) == len(points[0]) == len(points[1])
    assert len(report.open_loop) == len(report.standing_still) == 6
    assert max(report.open_loop) < 0.1 * max(report.standing_still)
    assert report.error["obs"] < 0.02
    assert report.error.keys() == {"obs", "reward"}
    stated = report.error.keys() if noise == "learned" else set()
    assert report.nll.keys() == report.coverage.keys() == report.calibration_error.keys() == stated
    plot_model(report, points, tmp_path / "model.png")
    assert (tmp_path / "model.png").stat().st_size > 10_000


def test_a_report_needs_rows_that_were_held_out() -> None:
    config = EnsembleConfig(members=1, elites=1, hidden=(4,), outcome_hidden=(4,))
    ensemble = DynamicsEnsemble(PLAIN, config, generator(0))
    with pytest.raises(ValueError, match="no row is held out"):
        model_report(ensemble, Replay(PLAIN, 10, 1), torch.empty(0, dtype=torch.long))


def test_a_run_with_a_model_ends_with_its_report_and_one_without_does_not(tmp_path: Path) -> None:
    start(scenario(AORPO), tmp_path / "with")
    found = json.loads((tmp_path / "with" / "report" / "model.json").read_text())
    assert found["rows"] > 0
    assert len(found["open_loop"]) >= 1
    assert "](model.png)" in (tmp_path / "with" / "report" / "index.md").read_text()
    start(scenario(MODEL_FREE), tmp_path / "without")
    assert not (tmp_path / "without" / "report" / "model.json").exists()
