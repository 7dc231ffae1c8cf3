"""MapGo that imagines in FetchPush itself: what it learns from, and runs that stop at any instant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from presage.common import plugins
from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameError
from presage.common.parts import Parts, build
from presage.common.run import resume, start
from presage.common.scenario import Scenario
from presage.common.streams import streams
from presage.gcrl.mapgo import MapGoConfig
from presage.scenarios.goal_models import learner
from tests.common.tiny_runs import LOOP, Interrupted, differences, interrupt, scenario

CPU = torch.device("cpu")
FULL: Scenario[MapGoConfig] = plugins.load("scenario", "fetch_push_mapgo_perfect")
METHOD = replace(
    FULL.method, learner=learner(hidden=8), loop=replace(LOOP, replay_capacity=400, rollout_starts=6),
    relabelling=replace(FULL.method.relabelling, pool=8, pool_updates=4),
)  # fmt: skip
GAME = replace(FULL.game, copies=2, options={"max_episode_steps": 10, "frames": 11})
TINY = scenario(METHOD, GAME, kernel=FULL.kernel)


def test_it_differs_from_mapgo_in_its_world_alone() -> None:
    learned = plugins.load("scenario", "fetch_push_mapgo")
    assert replace(FULL.method, model="ensemble") == learned.method
    assert replace(FULL.game, options={}) == learned.game


def test_branches_start_where_the_game_was_and_pursue_goals() -> None:
    game: Any = Parts.of(TINY).training_game(TINY.game)
    dyna: Any = build(TINY, game.spec, streams(0), CPU, game.goal_rule)
    replay, view = EpisodicReplay(game.spec, 400, 2), game.reset(0)
    while dyna.env_steps < 72:
        rows, view = game.step(dyna.explore(view))
        replay.extend(rows)
        dyna.learn(replay, rows)
    real, imagined = replay.rows(replay.all()), dyna.imagined.rows(dyna.imagined.all())
    first = imagined[imagined.step == 0]
    assert len(imagined) == 2 * len(first) == 2 * 2 * 6  # horizon, imaginings kept, branches
    assert all(bool((real.obs == obs).all(1).any()) for obs in first.obs)
    assert torch.equal(imagined.reward, game.goal_rule.reward(imagined.next_achieved, imagined.desired))
    assert dyna.updates == (72 - 22) * 0.25 // 1
    assert len(dyna.mix(replay)) == 8


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(TINY, whole)
    with pytest.raises(Interrupted):
        start(TINY, cut, on_phase=interrupt("update", 9))
    resume(cut)
    assert differences(whole, cut) == []


def test_windows_have_to_reach_back() -> None:
    short = replace(TINY, game=replace(GAME, options={}))
    game: Any = Parts.of(short).training_game(short.game)
    with pytest.raises(GameError, match="give the game frames=51"):
        build(short, game.spec, streams(0), CPU, game.goal_rule)
    game.close()
