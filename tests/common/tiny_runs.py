"""Runs small enough for tests: a second or less each, and yet every phase of a run occurs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tianshou.utils.torch_utils import policy_within_training_step

from presage.common import checkpoint
from presage.common.dyna import Dyna, DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.episodic_replay import EpisodicReplay
from presage.common.fit import FitConfig
from presage.common.game import Game, Rows
from presage.common.mbpo import MBPOConfig
from presage.common.metrics import METRICS_FILE, read_metrics, without_times
from presage.common.one_batch import OneBatch
from presage.common.run import resume, start
from presage.common.scenario import GameConfig, Scenario
from presage.common.schedules import LengthRamp
from presage.marl.aorpo import AORPOConfig
from presage.marl.masac import MASACConfig
from presage.marl.model_free import ModelFreeConfig
from presage.marl.opponents.behaviour_cloning import BehaviourCloningConfig

LOOP = DynaConfig(
    batch_size=8, updates_per_step=0.25, warmup_steps=24, fit_every=24, rollout_every=12, rollout_starts=4,
    horizon=LengthRamp(start_epoch=0, end_epoch=0, start=2, end=2), replay_capacity=80, kept_rollouts=2,
)  # fmt: skip
"""the replay wraps around within a run"""
LEARNER = MASACConfig(hidden=(8,))
ENSEMBLE = EnsembleConfig(members=2, elites=1, hidden=(8,), outcome_hidden=(8,))
FIT = FitConfig(max_updates=4, evaluate_every=2, batch_size=8)

AORPO = AORPOConfig(
    learner=LEARNER, loop=LOOP, ensemble=ENSEMBLE, fit=FIT,
    opponents=BehaviourCloningConfig(hidden=(8,), passes=1, window=40),
)  # fmt: skip
MODEL_FREE = ModelFreeConfig(learner=LEARNER, loop=replace(LOOP, real_share=1.0))
MBPO = MBPOConfig(loop=LOOP, ensemble=ENSEMBLE, fit=FIT)

PARTICLE = GameConfig(name="particle/spread", copies=4, options={"agents": 2, "episode_limit": 5})
MPE = GameConfig(name="mpe/simple_spread_v3", copies=2, options={"N": 2, "max_cycles": 5})


def scenario(method: Any = AORPO, game: GameConfig = PARTICLE, **numbers: Any) -> Scenario[Any]:
    """72 env steps with evaluations at 0, 32, 64 and 72 and checkpoints at 20, 40, 60 and 72."""
    own: dict[str, Any] = {"steps": 72, "evaluate_every": 32, "evaluation_episodes": 4, "checkpoint_every": 20}
    return Scenario(name="tiny", game=game, method=method, **(own | numbers))


def improve(learner: Any, rows: Rows) -> None:
    """One update of a tianshou algorithm with exactly these rows."""
    with policy_within_training_step(learner.policy):
        learner.update(OneBatch(rows), 0)


def played(dyna: Dyna, game: Game, steps: int, *, seed: int = 0) -> EpisodicReplay:
    """Let `dyna` collect and learn for so many env steps, and return what it collected."""
    replay, view = EpisodicReplay(game.spec, 100_000, game.copies), game.reset(seed)
    while dyna.env_steps < steps:
        rows, view = game.step(dyna.explore(view))
        replay.extend(rows)
        dyna.learn(replay, rows)
    return replay


class Interrupted(Exception):
    """What `interrupt` raises in place of a kill."""


def interrupt(phase: str, occurrence: int) -> Callable[[str], None]:
    """A listener that ends a run where `phase` begins for the n-th time."""
    left = [occurrence]

    def listen(now: str) -> None:
        left[0] -= now == phase
        if left[0] == 0:
            raise Interrupted

    return listen


def assert_resumes(tiny: Scenario[Any], folder: Path) -> Path:
    """A run that is cut off at its ninth update and resumed ends as one that is not, which is returned."""
    whole, cut = folder / "whole", folder / "cut"
    start(tiny, whole)
    with pytest.raises(Interrupted):
        start(tiny, cut, on_phase=interrupt("update", 9))
    resume(cut)
    assert differences(whole, cut) == []
    return whole


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, string and array of a tree, with its path."""
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if items is None:
        yield path, tree
        return
    for key, value in items:
        yield from leaves(value, f"{path}/{key}")


def final_state(folder: Path) -> dict[str, Any]:
    """All that a run's newest checkpoint holds but the length of its metrics file, in which durations are written."""
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    tree = checkpoint.load(found)
    del tree["schedule"][3]
    return dict(leaves(tree))


def differences(first: Path, second: Path) -> list[str]:
    """Paths of whatever differs, to the bit, between the newest checkpoints and between the metrics of two runs."""
    ours, theirs = final_state(first), final_state(second)
    found = sorted(ours.keys() ^ theirs.keys())
    found += [path for path in ours.keys() & theirs.keys() if not _equal(ours[path], theirs[path])]
    lines = [[json.dumps(r) for r in without_times(read_metrics(f / METRICS_FILE))] for f in (first, second)]
    return found + ([METRICS_FILE] if lines[0] != lines[1] else [])


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a.nan_to_num(nan=1234.5), b.nan_to_num(nan=1234.5)) and a.dtype == b.dtype
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b) or (a != a and b != b)
