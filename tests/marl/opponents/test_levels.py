"""Opponents out of runs: the checkpoints' policies, families by run, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from presage.common.agent import load
from presage.common.evaluate import first_window
from presage.common.game import GameError
from presage.common.run import start
from presage.common.run_folder import RunError, RunFolder
from presage.common.scenario import GameConfig
from presage.envs.registry import make
from presage.marl.opponents.levels import levels
from presage.marl.opponents.policies import Stated
from tests.common.tiny_runs import MODEL_FREE, scenario

GAME = GameConfig(name="particle/spread", copies=4, options={"agents": 2, "episode_limit": 5})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of 60 env steps, each with three checkpoints."""
    path = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        start(scenario(MODEL_FREE, GAME, steps=60, keep_checkpoints=3, seed=seed), path / f"seed_{seed}")
    return path


def test_every_checkpoint_is_a_level_and_every_run_a_family(folder: Path) -> None:
    pool = levels([folder / "seed_0", folder / "seed_1"])
    assert pool.names == tuple(f"seed_{seed} at {steps}" for seed in (0, 1) for steps in (20, 40, 60))
    assert [opponent.kind for opponent in pool] == ["seed_0"] * 3 + ["seed_1"] * 3
    learn, tried = pool.split(0.5, torch.Generator())
    assert {opponent.kind for opponent in learn}.isdisjoint(opponent.kind for opponent in tried)


def test_the_last_level_plays_as_the_loaded_run_does_and_the_first_one_otherwise(folder: Path) -> None:
    pool, agent = levels([folder / "seed_0"]), load(folder / "seed_0", device="cpu")
    view = make("particle/spread", 16, agents=2, episode_limit=5).reset(3)
    acts = [o.actor.step(o.actor.init(first_window(pool.spec, view)), view, None)[1] for o in pool]
    assert torch.equal(acts[-1], agent.actor.step(None, view, None)[1])
    assert not torch.equal(acts[0], acts[-1])


def test_policies_state_what_they_play(folder: Path) -> None:
    pool = levels([folder / "seed_0"])
    view = make("particle/spread", 16, agents=2, episode_limit=5).reset(3)
    actor = pool.opponents[0].actor
    assert isinstance(actor, Stated)
    assert actor.predicted(view).log_prob(actor.step(None, view, torch.Generator())[1]).shape == (16, 2)


def test_runs_of_different_games_and_runs_without_checkpoints_are_refused(folder: Path, tmp_path: Path) -> None:
    other = scenario(MODEL_FREE, GameConfig(name="particle/spread", copies=4, options={"agents": 3}), steps=20)
    start(other, tmp_path / "three")
    with pytest.raises(GameError, match="the runs are of different games"):
        levels([folder / "seed_0", tmp_path / "three"])
    RunFolder.create(tmp_path / "fresh", other)
    with pytest.raises(RunError, match="has no checkpoint yet; train it on"):
        levels([tmp_path / "fresh"])
    with pytest.raises(GameError, match="there are no runs"):
        levels([])
