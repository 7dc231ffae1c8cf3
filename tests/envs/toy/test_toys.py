"""What every toy world has in common: it is a game, it is checked by its ecosystem, it is resumed, it is imagined."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

from presage.common.evaluate import first_window
from presage.common.game import Game, GameError, Rows
from presage.envs.batched import BatchedGame, RulesKernel
from presage.envs.registry import make, names
from presage.envs.toy import (
    RULES,
    BitFlip,
    GridMaze,
    MatrixGame,
    MixedMatrixGame,
    PredatorPrey,
    TabularGame,
    World2D,
    climb,
)
from presage.envs.toy.maze import random_maze
from presage.envs.toy.plane_maze import PlaneMaze
from presage.envs.views import GymnasiumView, ParallelView, TurnView

WORLDS = {**RULES, "plane_maze": lambda: PlaneMaze(random_maze(5))}
every_world = pytest.mark.parametrize("name", sorted(WORLDS))
HIDDEN = {"traffic_junction"}
"""worlds whose state cannot be told from what is seen"""


def play(game: BatchedGame, steps: int, seed: int = 0) -> list[Rows]:
    rng, view, found = torch.Generator().manual_seed(seed), game._view, []
    for _ in range(steps):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        found.append(rows)
    return found


def equal(a: Rows, b: Rows) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Rows))


@every_world
def test_it_is_a_game_of_the_registry(name: str) -> None:
    assert f"toy/{name}" in names()
    game = make(f"toy/{name}", 5)
    assert isinstance(game, Game)
    assert game.copies == 5
    view = game.reset(0)
    assert view.obs.shape == (5, game.spec.obs_dim)
    rows, _ = game.step(game.spec.random_action(view.acting, view.legal, torch.Generator()))
    assert rows.reward.shape == (5, game.spec.n)
    assert rows.reward.isfinite().all()


# Advice of the checkers: a spec does not bound what is seen, and actions are shown in the game's own units.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is:UserWarning")
@pytest.mark.filterwarnings("ignore:Agent's m.*imum observation space value is:UserWarning")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space:UserWarning")
@every_world
def test_its_views_keep_their_ecosystems_contracts(name: str) -> None:
    if make(f"toy/{name}", 1).spec.acting_varies:
        api_test(TurnView(make(f"toy/{name}", 1)), num_cycles=100)
        seed_test(lambda: TurnView(make(f"toy/{name}", 1)), num_cycles=20)
        return
    parallel_api_test(ParallelView(make(f"toy/{name}", 1)), num_cycles=40)
    parallel_seed_test(lambda: ParallelView(make(f"toy/{name}", 1)), num_cycles=20)
    if make(f"toy/{name}", 1).spec.n == 1:
        check_env(GymnasiumView(make(f"toy/{name}", 1)), skip_render_check=True)


@every_world
def test_it_goes_on_where_it_was_saved(name: str) -> None:
    game = BatchedGame(WORLDS[name](), 6)
    game.reset(3)
    play(game, 13)
    saved, steps = game.state(), 150
    expected = play(game, steps, seed=1)
    fresh = BatchedGame(WORLDS[name](), 6)
    fresh.restore(saved)
    assert all(equal(a, b) for a, b in zip(play(fresh, steps, seed=1), expected, strict=True))
    assert any(rows.terminated.all(1).any() or rows.truncated.any() for rows in expected)


@every_world
def test_an_episode_does_not_depend_on_the_others(name: str) -> None:
    """Copies end at different times; each one's episodes and chances are its own."""
    few, many = BatchedGame(WORLDS[name](), 2), BatchedGame(WORLDS[name](), 9)
    many_view, rng = many.reset(4), torch.Generator().manual_seed(0)
    few.reset(4)
    for _ in range(60):
        act = many.spec.random_action(many_view.acting, many_view.legal, rng)
        few_rows, _ = few.step(act[:2])
        many_rows, many_view = many.step(act)
        assert equal(few_rows, many_rows[:2])


@pytest.mark.parametrize("name", sorted(WORLDS.keys() - HIDDEN))
def test_it_is_imagined_as_it_is_played(name: str) -> None:
    class Played(RulesKernel):
        numbers: torch.Tensor

        def chance(self, rows: int, rng: torch.Generator) -> torch.Tensor:
            return self.numbers

    rules = WORLDS[name]()
    game, kernel, rng = BatchedGame(rules, 20), Played(rules), torch.Generator().manual_seed(0)
    view = game.reset(0)
    for _ in range(25):
        carry = kernel.init(first_window(game.spec, view), torch.zeros(20), rng)
        act = game.spec.random_action(view.acting, view.legal, rng)
        kernel.numbers = game.chance()
        seen = view
        rows, view = game.step(act)
        _, outcome = kernel.step(carry, seen, act, rng)
        torch.testing.assert_close(outcome.after.obs, rows.next_obs)
        torch.testing.assert_close(outcome.reward, rows.reward)
        assert torch.equal(outcome.terminated, rows.terminated)
        assert torch.equal(outcome.after.desired, rows.desired)
        assert torch.equal(outcome.after.acting, rows.next_acting)


def test_hidden_states_are_not_made_up() -> None:
    rules = RULES["traffic_junction"]()
    window = first_window(rules.spec, BatchedGame(rules, 2).reset(0))
    with pytest.raises(GameError, match="does not tell since when"):
        RulesKernel(rules).init(window, torch.zeros(2), torch.Generator())


@pytest.mark.parametrize("name", ["bit_flip", "four_rooms", "maze", "plane_maze", "world_2d"])
def test_goals_can_be_replaced(name: str) -> None:
    game = make(f"toy/{name}", 30)
    rule = game.goal_rule  # type: ignore[attr-defined]
    view = game.reset(0)
    rows, _ = game.step(game.spec.random_action(view.acting, view.legal, torch.Generator()))
    assert torch.equal(rule.reward(rows.next_achieved, rows.desired), rows.reward)
    assert torch.equal(rule.terminated(rows.next_achieved, rows.desired), rows.terminated)
    assert rule.success(rows.next_achieved, rows.next_achieved).all()
    assert (rule.reward(rows.next_achieved, rows.next_achieved) == 0).all()


@pytest.mark.parametrize(
    ("make_rules", "message"),
    [
        (lambda: BitFlip(0), "bits=0 must be >= 1"),
        (lambda: World2D(epsilon=0.0), r"epsilon=0\.0 must be > 0"),
        (lambda: PlaneMaze(random_maze(3), epsilon=-1.0), r"epsilon=-1\.0 must be > 0"),
        (lambda: PlaneMaze(random_maze(3), start=(1, 1)), r"start=\(1, 1\) must be a free cell"),
        (lambda: PlaneMaze(random_maze(3), start=(0, 5)), r"start=\(0, 5\) must be a free cell .* \(5, 5\)"),
        (lambda: PredatorPrey(2, needed=3), "needed=3 in 1..predators"),
        (lambda: MatrixGame("x", torch.zeros(2, 3).numpy()), r"\(2, 3\) are for 1 agents, not for 2"),
        (lambda: MixedMatrixGame("climb", climb()), r"'climb' has choices among \(3, 3\)"),
        (lambda: RULES["two_quadratics"](form="book"), "form='book' of the two quadratics must be 'paper' or 'code'"),
        (lambda: GridMaze(torch.ones(2, 2).bool().numpy()), "at least one free cell"),
        (lambda: GridMaze(torch.tensor([[False, True, False]]).numpy()), "cannot be reached"),
        (lambda: RULES["penalty"](cost=1.0), r"cost=1\.0 of the penalty game must be <= 0"),
        (lambda: RULES["low_rank"](rank=0), "rank=0 must be >= 1"),
        (lambda: RULES["maze"](size=0), "size=0 of a maze must be >= 1"),
        (lambda: RULES["four_rooms"](scale=0), "scale=0 of the four rooms"),
        (lambda: RULES["linear_quadratic"](noise=-1.0), r"noise=-1\.0 must be >= 0"),
        (lambda: RULES["traffic_junction"](agents=0), "agents=0 must be >= 1"),
        (
            lambda: TabularGame("x", torch.zeros(1, 2, 2).numpy(), torch.ones(2, 2, 2).numpy(), torch.ones(2).numpy()),
            "transitions must be probabilities",
        ),
    ],
)
def test_what_makes_no_game_is_refused(make_rules: object, message: str) -> None:
    with pytest.raises(GameError, match=message):
        make_rules()  # type: ignore[operator]
