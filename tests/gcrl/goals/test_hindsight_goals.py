"""Hindsight goal generation: the matching against brute force, trajectories as they were played, a curriculum."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameSpec, Rows, View
from presage.common.learner_state import learner_state, restore_learner
from presage.gcrl.goals.hindsight_goals import HindsightGoals, HindsightGoalsConfig, trajectory_costs
from presage.gcrl.goals.source import Pursuits
from tests.common.toy import box_agent, generator

PLANE = GameSpec(name="plane", agents=(box_agent("a", (0, 1), 2, (0, 1)),), obs_dim=2, goal_dim=2, achieved=(0, 1))
GAMMA, REACH, LIPSCHITZ, START = 0.9, 10.0, 5.0, 3.0
CONFIG = HindsightGoalsConfig(lipschitz=LIPSCHITZ, start_weight=START)


def played(trails: list[Tensor]) -> EpisodicReplay:
    """A replay of episodes that went through the places `(T + 1, 2)`, the first one being the start."""
    replay = EpisodicReplay(PLANE, 500, 1)
    for trail in trails:
        size = len(trail) - 1
        view, after = (View.of(PLANE, part) for part in (trail[:-1], trail[1:]))
        never, step = torch.zeros(size, 1, dtype=torch.bool), torch.arange(size)
        replay.extend(
            Rows.of(PLANE, view, torch.zeros(size, 2), torch.zeros(size, 1), after, never, step == size - 1, step)
        )
    return replay


def starts(desired: Tensor, at: Tensor | None = None) -> View:
    return View.of(PLANE, torch.zeros_like(desired) if at is None else at, desired=desired)


def hard(view: View, goals: Tensor) -> Tensor:
    """Farther goals take longer."""
    far: Tensor = torch.linalg.vector_norm(goals - view.achieved, dim=1)
    return -far


def cost(trail: Tensor, begin: Tensor, desired: Tensor) -> tuple[float, Tensor]:
    """What one trajectory costs for one goal, and the place on it, by the paper's formula."""
    at = trail[1:]
    value = (-(at - trail[0]).norm(dim=1)).clamp(-1 / (1 - GAMMA), 0)
    each = (at - desired).norm(dim=1) - REACH * (1 - GAMMA) / LIPSCHITZ * value
    best = int(each.argmin())
    return float(each[best] + START * (trail[0] - begin).norm()), at[best]


@pytest.mark.parametrize("seed", range(6))
def test_goals_are_matched_at_the_least_total_cost(seed: int) -> None:
    rng = generator(seed)
    trails = [torch.randn(length, 2, generator=rng).cumsum(0) for length in (4, 7, 3, 6)]
    desired, at = 3 * torch.randn(3, 2, generator=rng), torch.randn(3, 2, generator=rng)
    source, replay = HindsightGoals(2, hard, REACH, CONFIG, discount=GAMMA), played(trails)
    source.learn(replay, rng)
    found = source.propose(starts(desired, at), replay, rng)
    costs = [[cost(trail, at[j], desired[j]) for trail in trails] for j in range(3)]
    best = min(permutations(range(4), 3), key=lambda order: sum(costs[j][i][0] for j, i in enumerate(order)))
    torch.testing.assert_close(found, torch.stack([costs[j][i][1] for j, i in enumerate(best)]))


def test_costs_look_at_no_step_after_a_trajectory_s_end() -> None:
    trails = torch.tensor([[[0.0], [5.0], [9.0]]])
    there, prices = torch.tensor([[True, True, False]]), torch.zeros(1, 3)
    found, steps = trajectory_costs(trails, there, prices, torch.tensor([[9.0], [1.0]]))
    assert found.tolist() == [[4.0], [1.0]]
    assert steps.tolist() == [[1], [0]]


def test_trajectories_are_those_of_the_replay_that_moved() -> None:
    moving, still = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), torch.zeros(4, 2)
    source = HindsightGoals(2, hard, REACH, CONFIG, discount=GAMMA)
    source.learn(EpisodicReplay(PLANE, 10, 1), generator(0))
    assert not source.held
    source.learn(played([still, moving, still, moving + 1]), generator(0))
    assert source.held["there"].sum(1).tolist() == [2, 2]
    torch.testing.assert_close(source.held["trails"][0, :2], moving[1:])
    torch.testing.assert_close(source.held["trails"][1, :2], moving[1:] + 1)


def test_without_trajectories_the_game_s_own_goals_are_pursued() -> None:
    desired = torch.tensor([[4.0, 5.0]])
    source = HindsightGoals(2, hard, REACH, CONFIG, discount=GAMMA)
    assert torch.equal(source.propose(starts(desired), EpisodicReplay(PLANE, 10, 1), generator(0)), desired)


def test_goals_met_before_take_their_share_of_the_trajectories() -> None:
    """Two trajectories: the better one goes to the goal that gains most by it, be it of an episode before."""
    near, far = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 9.0]])
    source, replay = HindsightGoals(2, hard, REACH, CONFIG, discount=GAMMA), played([near, far])
    source.learn(replay, generator(0))
    goal = torch.tensor([[0.0, 5.5]])
    assert source.propose(starts(goal), replay, generator(0)).tolist() == [[0.0, 9.0]]
    source.ended(Pursuits(start=starts(torch.tensor([[0.0, 9.0]])), goals=goal, reached=torch.tensor([False])))
    assert source.propose(starts(goal), replay, generator(0)).tolist() == [[1.0, 0.0]]
    other = HindsightGoals(2, hard, REACH, CONFIG, discount=GAMMA)
    restore_learner(other, learner_state(source))
    other.learn(replay, generator(0))
    assert other.propose(starts(goal), replay, generator(0)).tolist() == [[1.0, 0.0]]


def test_goals_come_nearer_to_the_desired_one_as_trajectories_do() -> None:
    rng, desired = generator(0), torch.tensor([[8.0, 8.0]])
    source = HindsightGoals(2, hard, REACH, CONFIG, discount=GAMMA)
    trails, gaps = [torch.randn(6, 2, generator=rng) * 0.5], list[float]()
    trails[0][0] = 0.0
    for _ in range(40):
        replay = played(trails[-60:])
        source.learn(replay, rng)
        goal = source.propose(starts(desired), replay, rng)
        gaps.append(float((goal - desired).norm()))
        way = torch.linspace(0, 1, 12)[:, None] * goal
        trails.append(way + torch.cat([torch.zeros(1, 2), 0.4 * torch.randn(11, 2, generator=rng)]))
    assert gaps[-1] < 0.5 * gaps[0]


@pytest.mark.parametrize(
    "wrong",
    [{"pool": 0}, {"matched": 0}, {"lipschitz": 0.0}, {"start_weight": -1.0}, {"moved": -1.0},
     {"noise": -0.5}],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        HindsightGoalsConfig(**wrong)
    with pytest.raises(ValueError, match=r"reach=0\.0 must be > 0"):
        HindsightGoals(2, hard, 0.0)
    with pytest.raises(ValueError, match=r"discount=1\.0 lie in \[0, 1\)"):
        HindsightGoals(2, hard, 1.0, discount=1.0)
