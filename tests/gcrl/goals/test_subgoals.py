"""Hierarchical foresight over states: a chain with a closed form, two rooms and their door, the number of plans."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.evaluate import first_window
from presage.common.game import Carry, GameError, Outcome, Rows, View, Window
from presage.common.model_predictive import imagined_returns
from presage.common.planning import CEM, PlanSpace
from presage.envs.batched import Rules, RulesKernel
from presage.envs.toy.maze import GridMaze
from presage.envs.toy.plane import World2D
from presage.gcrl.goals.subgoals import (
    ForeseenSubgoals,
    ForeseenSubgoalsConfig,
    SubgoalSearch,
    in_box,
    subgoals_to,
)
from tests.common.toy import generator

CHAIN = in_box(torch.tensor([0.0]), torch.tensor([12.0]))


def beyond_five(x: Tensor, y: Tensor) -> Tensor:
    """The square of what is left of a stretch after five steps of one."""
    return ((x - y).abs()[:, 0] - 5.0).clamp_min(0.0).square()


@pytest.mark.parametrize("seed", range(5))
def test_one_subgoal_halves_a_chain(seed: int) -> None:
    start, goal = torch.zeros(3, 1), torch.full((3, 1), 12.0)
    way = subgoals_to(start, goal, beyond_five, CHAIN, 1, SubgoalSearch(iterations=5), generator(seed))
    torch.testing.assert_close(way.places, torch.full((3, 1, 1), 6.0), atol=0.3, rtol=0)
    torch.testing.assert_close(way.cost, torch.ones(3), atol=0.5, rtol=0)


def test_two_subgoals_leave_no_stretch_too_long() -> None:
    way = subgoals_to(
        torch.zeros(4, 1), torch.full((4, 1), 12.0), beyond_five, CHAIN, 1, SubgoalSearch(subgoals=2), generator(0)
    )
    assert torch.equal(way.cost, torch.zeros(4))
    path = torch.cat([torch.zeros(4, 1, 1), way.places, torch.full((4, 1, 1), 12.0)], 1)
    assert float((path[:, 1:] - path[:, :-1]).abs().max()) <= 5.0


def test_the_worst_stretch_is_that_of_the_way_that_is_returned() -> None:
    start, goal = torch.rand(6, 1, generator=generator(0)), 11 + torch.rand(6, 1, generator=generator(1))
    way = subgoals_to(start, goal, beyond_five, CHAIN, 1, SubgoalSearch(), generator(2))
    first, second = beyond_five(start, way.places[:, 0]), beyond_five(way.places[:, 0], goal)
    assert torch.equal(way.cost, torch.maximum(first, second))


def through_the_door(x: Tensor, y: Tensor) -> Tensor:
    """How far is left after straight steps that stop at a wall along x = 0, which has a door at |y| < 0.5."""
    share = torch.linspace(0.0, 1.0, 41)[None, :, None]
    line = x[:, None] + share * (y - x)[:, None]
    crosses = (x[:, 0] > 0) != (y[:, 0] > 0)
    at = x[:, 1] - x[:, 0] * (y[:, 1] - x[:, 1]) / (y[:, 0] - x[:, 0]).where(crosses, 1.0)
    stopped = crosses & (at.abs() >= 0.5)
    before = (line[..., 0] > 0) == (x[:, :1] > 0)
    left = torch.where(before, (line - y[:, None]).norm(dim=2), torch.inf).min(1).values
    return torch.where(stopped, left, 0.0)


def test_the_subgoal_of_two_rooms_is_at_their_door() -> None:
    size = 50
    spots = torch.rand(size, 2, generator=generator(0))
    start, goal = torch.stack([-1 - 3 * spots[:, 0], spots[:, 1] + 3], 1), torch.tensor([[3.0, 3.5]]).expand(size, -1)
    box = in_box(torch.tensor([-4.0, -4.0]), torch.tensor([4.0, 4.0]))
    search = SubgoalSearch(iterations=8, population=200)
    way = subgoals_to(start, goal.contiguous(), through_the_door, box, 2, search, generator(1))
    solved = way.cost == 0
    assert float(solved.double().mean()) >= 0.9
    place = way.places[solved, 0]
    assert (through_the_door(start[solved], place) == 0).all()
    assert (through_the_door(place, goal[solved]) == 0).all()


def visited(rules: Rules, places: Tensor) -> EpisodicReplay:
    """A replay of steps that lead from these places to themselves."""
    spec, size = rules.spec, len(places)
    replay, view = EpisodicReplay(spec, size, 1), View.of(spec, places)
    never, zero = torch.zeros(size, 1, dtype=torch.bool), torch.zeros(size, 1)
    act = spec.random_action(view.acting, view.legal, generator(0))
    replay.extend(Rows.of(spec, view, act, zero, view, never, never[:, 0], zero[:, 0]))
    return replay


class Walks:
    """Takes a shortest way through a maze."""

    def __init__(self, rules: GridMaze) -> None:
        self.rules = rules

    def init(self, window: Window) -> None:
        return None

    def step(self, carry: None, view: View, rng: torch.Generator | None) -> tuple[None, Tensor]:
        moves, here = torch.eye(4), torch.cat([view.obs, view.desired], 1)
        there = [self.rules.move(here, move.expand(len(view), -1), None)[:, :2] for move in moves]
        left = torch.stack([self.rules.steps_to_goal(cell, view.desired) for cell in there], 1)
        return None, moves[left.argmin(1)]


def test_subgoals_between_two_rooms_lie_within_a_cell_of_their_door() -> None:
    """Stretches of at most seven steps, and ways through the door that take twice as many, or a little less."""
    length, door = 7, torch.tensor([[7.0, 6.0]])
    walls = torch.zeros(9, 13, dtype=torch.bool)
    walls[:, 6] = torch.arange(9) != 7
    rules = GridMaze(walls.numpy(), terminates=False)
    cells = torch.tensor(rules.cells, dtype=torch.float32)
    to_door = rules.steps_to_goal(cells, door.expand(len(cells), -1))
    some = cells[(to_door == length) | (to_door == length - 1)]
    left, right = some[some[:, 1] < 6], some[some[:, 1] > 6]
    start, goal = left.repeat_interleave(len(right), 0), right.repeat(len(left), 1)
    far = (goal - start).abs().sum(1) > length
    start, goal = start[far], goal[far]
    assert len(start) > 100
    config = ForeseenSubgoalsConfig(search=SubgoalSearch(iterations=5), length=length)
    assert rules.goal_rule is not None
    source = ForeseenSubgoals(rules.spec, rules.goal_rule, RulesKernel(rules), Walks(rules), config)
    found = source.propose(View.of(rules.spec, start, desired=goal), visited(rules, cells), generator(0))
    away = (found - door).abs().amax(1)
    assert float((away <= 1).double().mean()) >= 0.9
    assert not bool((found == goal).all(1).any())
    corner, in_sight = torch.tensor([[0.0, 5.0, 0.0, 5.0]]), torch.tensor([[8.0, 0.0]])
    assert float(source.left(corner, in_sight, generator(0))) > 0  # nothing is in the way, but it is too far


class Counted(RulesKernel):
    """The world itself, and how many rollouts of how many steps were imagined in it."""

    rollouts = steps = 0

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        self.rollouts += len(window)
        return super().init(window, ego, rng)

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        self.steps += len(act)
        return super().step(carry, view, act, rng)


@pytest.mark.parametrize(("subgoals", "rollouts"), [(1, 180_000), (2, 270_000)])
def test_as_many_rollouts_are_imagined_as_the_numbers_say(subgoals: int, rollouts: int) -> None:
    kernel = Counted(World2D())
    planner, space = CEM(horizon=2, population=100, elites=20, iterations=3), PlanSpace.of(kernel.spec)

    def planned(x: Tensor, y: Tensor) -> Tensor:
        window = first_window(kernel.spec, View.of(kernel.spec, x, desired=y))
        score = imagined_returns(kernel.spec, kernel, window, generator(0))
        return -planner.plan(score, planner.begin(space, len(x)), space, generator(0)).value

    square = in_box(torch.zeros(2), torch.full((2,), 20.0))
    search = SubgoalSearch(subgoals=subgoals, population=100, iterations=3)
    subgoals_to(torch.zeros(1, 2), torch.full((1, 2), 18.0), planned, square, 2, search, generator(0))
    assert (kernel.rollouts, kernel.steps) == (rollouts, 2 * rollouts)


def test_a_stretch_can_be_priced_by_planning_in_a_model() -> None:
    """Steps of one at most towards the other end, by the cross-entropy method: the closed form of the chain."""
    planner, space = CEM(horizon=5, population=300, elites=30, iterations=12), PlanSpace(1, ())

    def planned(x: Tensor, y: Tensor) -> Tensor:
        def score(plans: Tensor) -> Tensor:
            return -(x[:, None] + plans.sum(2) - y[:, None]).square().sum(2)

        return -planner.plan(score, planner.begin(space, len(x)), space, generator(0)).value

    x, y = torch.zeros(30, 1), torch.linspace(-9, 9, 30)[:, None]
    near = (x - y).abs()[:, 0] <= 5
    found = planned(x, y)
    assert float(found[near].max()) < 1e-2
    torch.testing.assert_close(found[~near], beyond_five(x, y)[~near], atol=0.35, rtol=0.1)
    way = subgoals_to(
        torch.zeros(1, 1), torch.full((1, 1), 9.0), planned, CHAIN, 1, SubgoalSearch(population=40, elites=8),
        generator(1),
    )  # fmt: skip
    assert float(way.cost) < 0.05
    assert 4.0 <= float(way.places) <= 5.0 + 0.2


def test_stretches_without_a_price_lose() -> None:
    def cost(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(y[:, 0] > 6.0, torch.nan, (y[:, 0] - 8.0).square())

    way = subgoals_to(torch.zeros(2, 1), torch.full((2, 1), 5.0), cost, CHAIN, 1, SubgoalSearch(), generator(0))
    assert (way.places <= 6.0).all()
    assert way.cost.isfinite().all()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="subgoals=0"):
        SubgoalSearch(subgoals=0)
    with pytest.raises(ValueError, match="elites=200 <= population=100"):
        SubgoalSearch(elites=200)
    with pytest.raises(ValueError, match=r"starts \(1, 1\) and goals \(2, 1\)"):
        subgoals_to(torch.zeros(1, 1), torch.zeros(2, 1), beyond_five, CHAIN, 1, SubgoalSearch(), generator(0))


class Straight:
    """Heads for its goal on the plane, along both axes at once."""

    def init(self, window: Window) -> None:
        return None

    def step(self, carry: None, view: View, rng: torch.Generator | None) -> tuple[None, Tensor]:
        return None, (view.desired - view.achieved).clamp(-1.0, 1.0)


def world_source(ready: bool = True) -> tuple[ForeseenSubgoals, EpisodicReplay]:
    """A source that looks five steps ahead, and a replay of places all over the lower half of the square."""
    rules = World2D(spread=True)
    config = ForeseenSubgoalsConfig(length=5, pool=2_000)
    assert rules.goal_rule is not None
    source = ForeseenSubgoals(rules.spec, rules.goal_rule, RulesKernel(rules), Straight(), config, lambda: ready)
    return source, visited(rules, torch.rand(2_000, 2, generator=generator(0)) * 10)


def start_of(goals: Tensor) -> View:
    return View.of(World2D().spec, torch.zeros(len(goals), 2), desired=goals)


def test_the_first_subgoal_is_in_reach_and_brings_the_goal_into_reach() -> None:
    source, replay = world_source()
    goals = 8 + 1.5 * torch.rand(20, 2, generator=generator(1))
    found = source.propose(start_of(goals), replay, generator(2))
    within = 5.0 + 0.15  # five steps, and what counts as reached
    assert float(found.amax()) <= within
    assert float((goals - found).amax()) <= within
    assert not bool((found == goals).all(1).any())


def test_a_goal_in_reach_is_pursued_itself() -> None:
    source, replay = world_source()
    goals = 5 * torch.rand(10, 2, generator=generator(1))
    assert torch.equal(source.propose(start_of(goals), replay, generator(2)), goals)


def test_subgoals_are_places_that_have_been_seen() -> None:
    source, replay = world_source()
    goals = torch.full((5, 2), 19.0)
    found = source.propose(start_of(goals), replay, generator(2))
    seen = replay.rows(replay.all()).next_achieved
    assert bool((found[:, None] == seen[None]).all(2).any(1).all())
    left = source.left(torch.cat([start_of(goals).obs, start_of(goals).achieved], 1), goals, generator(0))
    torch.testing.assert_close(left, torch.full((5,), 14.0 * 2**0.5))


def test_before_the_model_is_fitted_goals_are_the_games_own() -> None:
    source, replay = world_source(ready=False)
    goals = torch.full((5, 2), 9.0)
    assert torch.equal(source.propose(start_of(goals), replay, generator(2)), goals)
    with pytest.raises(ValueError, match="length=0 and pool=1000 must be >= 1"):
        ForeseenSubgoalsConfig(length=0)
    with pytest.raises(GameError, match="needs 2 frames"):
        ForeseenSubgoals(replace(source.spec, frames=2), source.rule, source.kernel, source.actor)
