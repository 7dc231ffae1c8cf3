import logging
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
import torch

from presage.common.closing import best_again, levels, record_episode
from presage.common.evaluate import evaluate
from presage.common.marl_eval import RANDOM, REFERENCE
from presage.common.parts import Parts
from presage.common.scenario import GameConfig
from presage.common.training import Training
from tests.common.tiny_runs import MODEL_FREE, MPE, PARTICLE, scenario


def training(game: GameConfig = PARTICLE, **numbers: Any) -> Training:
    wanted = scenario(MODEL_FREE, game, **numbers)
    return Training(wanted, Parts.of(wanted))


def test_levels_play_the_evaluation_s_own_episodes() -> None:
    run = training(reference="greedy_spread")
    found = levels(run)
    assert found.keys() == {RANDOM, REFERENCE}
    assert found[REFERENCE].mean_return > found[RANDOM].mean_return
    assert run.parts.reference is not None
    again = evaluate(
        run.evaluation_game, run.parts.reference(run.spec, {}), 4, run.scenario.evaluation_seed
    )  # fmt: skip
    assert again.mean_returns.tolist() == found[REFERENCE].mean_returns.tolist()
    assert levels(training()).keys() == {RANDOM}


def test_the_best_policy_plays_and_the_newest_comes_back() -> None:
    run = training()
    run.best = {"return": 0.0, "policy": {k: v.clone() for k, v in run.trainee.policy.state_dict().items()}}
    wanted = best_again(run)
    assert len(wanted.lengths) == 40
    with torch.no_grad():
        for parameter in run.trainee.policy.parameters():
            parameter.neg_()
    newest = {name: value.clone() for name, value in run.trainee.policy.state_dict().items()}
    newest_return = evaluate(run.evaluation_game, run.trainee.actor, 40, run.scenario.evaluation_seed + 1)
    assert newest_return.mean_return != wanted.mean_return
    assert best_again(run).mean_returns.tolist() == wanted.mean_returns.tolist()
    assert all(torch.equal(run.trainee.policy.state_dict()[name], value) for name, value in newest.items())


def test_an_episode_is_recorded_where_the_game_draws(tmp_path: Path) -> None:
    record_episode(training(MPE), tmp_path / "episode.gif")
    frames = imageio.imread(tmp_path / "episode.gif", index=None)
    assert 1 <= len(frames) <= 5
    record_episode(training(GameConfig(name="toy/low_rank")), tmp_path / "none.gif")
    assert not (tmp_path / "none.gif").exists()


def test_recorded_episodes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presage.common.parts.MOST_FRAMES", 3)
    game = Parts.of(scenario(game=MPE)).picture_game(MPE)
    assert game is not None
    assert game.spec.episode_limit == 3


def test_a_picture_that_fails_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> float:
        raise OSError("no display")

    monkeypatch.setattr("presage.common.closing.record", fail)
    with caplog.at_level(logging.WARNING):
        record_episode(training(MPE), tmp_path / "episode.gif")
    assert [record.getMessage() for record in caplog.records] == ["no episode was recorded: OSError: no display"]
