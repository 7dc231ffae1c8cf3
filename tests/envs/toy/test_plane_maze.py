"""The maze on a plane: walls hold, and goals lie where they should."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from presage.common.game import GameError
from presage.envs.batched import BatchedGame
from presage.envs.registry import make
from presage.envs.toy.maze import Walls, random_maze
from presage.envs.toy.plane_maze import MARGIN, STEP, PlaneMaze
from presage.scenarios.plane_maze_parts import plane_maze


def crept(walls: Walls, place: list[float], act: list[float]) -> list[float]:
    """Where an action leads by thousands of small steps, each of which is taken unless it is into a wall."""
    tiny = 1e-3
    for axis in (0, 1):
        left = abs(act[axis]) * STEP
        while left > 0:
            there = list(place)
            there[axis] += float(np.sign(act[axis])) * min(tiny, left)
            left -= tiny
            cell = tuple(int(np.floor(x)) for x in there)
            inside = all(0 <= x < size for x, size in zip(cell, walls.shape, strict=True))
            if not inside or walls[cell]:
                break
            place = there
    return place


@given(seed=st.integers(0, 10_000), size=st.integers(1, 6))
def test_a_step_goes_as_far_as_walls_let_it(seed: int, size: int) -> None:
    walls, rng = random_maze(size, seed), np.random.default_rng(seed)
    rules = PlaneMaze(walls)
    place = rules.cells[rng.integers(len(rules.cells))] + rng.uniform(MARGIN, 1 - MARGIN, 2)
    act = rng.uniform(-1, 1, 2)
    state = torch.tensor([[*place, 0.5, 0.5]], dtype=torch.float32)
    moved = rules.move(state, torch.tensor(act[None], dtype=torch.float32), None)[0]
    assert moved[2:].tolist() == [0.5, 0.5], "goals stay"
    np.testing.assert_allclose(moved[:2].numpy(), crept(walls, list(place), list(act)), atol=MARGIN + 1e-3)


def test_nobody_gets_into_a_wall_or_over_one() -> None:
    rules = PlaneMaze(random_maze(5), episode_limit=500)
    game, rng = BatchedGame(rules, 64), torch.Generator().manual_seed(0)
    view = game.reset(0)
    for _ in range(400):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        before, after = (x.floor().long() for x in (rows.obs, rows.next_obs))
        assert not rules.walls[tuple(after.T.numpy())].any()
        corner = torch.stack([after[:, 0], before[:, 1]])  # rows first
        assert not rules.walls[tuple(corner.numpy())].any()


def test_the_game_asks_for_the_farthest_cell_or_for_any() -> None:
    walls = random_maze(5)
    grid = nx.grid_2d_graph(*walls.shape)
    grid.remove_nodes_from([cell for cell in list(grid) if walls[cell]])
    steps = nx.single_source_shortest_path_length(grid, (0, 0))
    far, anywhere = (
        PlaneMaze(walls, spread=spread).draw(4_000, torch.Generator().manual_seed(0)) for spread in (False, True)
    )
    assert torch.equal(far[:, :2], torch.full((4_000, 2), 0.5))
    (cell,) = {tuple(goal) for goal in far[:, 2:].floor().long().tolist()}
    assert steps[cell] == max(steps.values()) == 30
    inside = far[:, 2:] - far[:, 2:].floor()
    assert 0.45 < inside.mean() < 0.55
    cells = [tuple(goal) for goal in anywhere[:, 2:].floor().long().tolist()]
    counts = np.array([cells.count(cell) for cell in grid])
    assert len(cells) == counts.sum(), "never in a wall"
    assert abs(counts - 4_000 / len(counts)).max() < 4 * (4_000 / len(counts)) ** 0.5


def test_the_game_by_name_says_what_it_does_not_take() -> None:
    assert make("toy/plane_maze", 2, size=3, terminates=True).spec.terminates
    with pytest.raises(GameError, match="workers=2 must be 0"):
        plane_maze(1, workers=2)
    with pytest.raises(GameError, match=r"does not take these options: .*'sise'"):
        plane_maze(1, sise=3)
    with pytest.raises(GameError, match="size=0 of a maze must be"):
        plane_maze(1, size=0)
