"""Where goals lay: episodes told apart for any state of the replay, entropies by hand, a picture of each kind."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from presage.common.episodic_replay import EpisodicReplay
from presage.common.goal_report import GoalPoints, entropy, plot_goals
from presage.envs.batched import BatchedGame
from presage.envs.toy.plane import World2D
from tests.common.toy import generator


@settings(deadline=None, max_examples=30)
@given(
    copies=st.integers(1, 3), limit=st.integers(1, 5), steps=st.integers(1, 15), slots=st.integers(2, 12),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_pursuits_are_those_of_a_list_of_episodes(copies: int, limit: int, steps: int, slots: int, seed: int) -> None:
    rules = World2D(epsilon=14.0, spread=True, episode_limit=limit)
    game, rng = BatchedGame(rules, copies), generator(seed)
    replay, said = EpisodicReplay(rules.spec, slots * copies, copies, block_rows=4), []
    game.reset(seed)
    for _ in range(steps):
        rows, _ = game.step(torch.rand(copies, 2, generator=rng) * 2 - 1)
        replay.extend(rows)
        said.append(rows)
    rule = rules.goal_rule
    assert rule is not None
    found = GoalPoints.of(replay, rule)
    wanted = []
    for lane in range(copies):
        held = said[-replay.filled[lane] :]
        for k, rows in enumerate(held):
            hit = bool(rule.success(rows.next_achieved, rows.desired)[lane, 0])
            if k == 0 or int(rows.step[lane]) == 0:
                wanted.append([rows.desired[lane].tolist(), hit])
            else:
                wanted[-1][1] = wanted[-1][1] or hit
    assert [[goal, hit] for goal, hit in zip(found.pursued.tolist(), found.reached.tolist(), strict=True)] == wanted
    report = found.report()
    assert report.pursuits == len(wanted)
    assert report.reached_share == pytest.approx(np.mean([hit for _, hit in wanted]))
    assert len(found.achieved) == sum(replay.filled)


def test_entropy_is_that_of_shares() -> None:
    assert entropy(np.array([[3.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    assert entropy(np.array([5.0])) == 0.0


@pytest.mark.parametrize("width", [1, 2, 3])
def test_goals_of_any_width_can_be_drawn(tmp_path: Path, width: int) -> None:
    points = GoalPoints(
        pursued=torch.rand(9, width), reached=torch.arange(9) % 2 == 0, achieved=torch.rand(50, width) * 3
    )
    plot_goals(points, tmp_path / "goals.png")
    assert (tmp_path / "goals.png").stat().st_size > 5_000
