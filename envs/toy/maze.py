"""Mazes on a grid with exact distances: start and goal are free cells, a step leads to a neighbouring one.

Shape suffixes: B rows, K free cells.
"""

from __future__ import annotations

from functools import cached_property

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules
from presage.envs.toy.bit_flip import EqualRule

Walls = NDArray[np.bool_]
"""(rows, columns), true where nobody can be"""

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""up, down, left, right, by row and column"""

FOUR_ROOMS = (
    ".....#.....",
    ".....#.....",
    "...........",
    ".....#.....",
    ".....#.....",
    "#.####.....",
    ".....###.##",
    ".....#.....",
    ".....#.....",
    "...........",
    ".....#.....",
)


class GridMaze(Rules):
    """A walker sees its row and column, and has a goal cell; walls and edges keep it where it is.

    Args:
        walls: where nobody can be. terminates: whether an episode ends at its goal.
        episode_limit: env steps in an episode; None for four times the longest way in the maze.

    Raises:
        GameError: no cell is free, or some free cells cannot be reached from others.
    """

    def __init__(
        self, walls: Walls, *, terminates: bool = True, episode_limit: int | None = None,
        device: torch.device | str = "cpu", name: str = "maze",
    ) -> None:  # fmt: skip
        self.walls = np.asarray(walls, dtype=bool)
        if self.walls.ndim != 2 or self.walls.all():
            raise GameError(f"a maze has rows and columns and at least one free cell, got walls {self.walls.shape}")
        self.cells = np.argwhere(~self.walls)
        """(K, 2) row and column of every free cell"""
        longest = self.distances.max()
        if not np.isfinite(longest):
            raise GameError("some free cells of the maze cannot be reached from others; open a way between them")
        self.device, self.dtype = torch.device(device), torch.float32
        self.goal_rule = EqualRule(terminates)
        agent = AgentSpec(name="agent", obs=(0, 1), heads=(Head(kind="discrete", size=len(MOVES)),), goal=(0, 1))
        limit = max(1, 4 * int(longest)) if episode_limit is None else episode_limit
        self.spec = GameSpec(
            name=name, agents=(agent,), obs_dim=2, goal_dim=2, achieved=(0, 1), episode_limit=limit,
            terminates=terminates,
        )  # fmt: skip
        self._cells = torch.as_tensor(self.cells, dtype=self.dtype, device=self.device)
        self._moves = torch.tensor(MOVES, dtype=self.dtype, device=self.device)
        self._blocked = torch.as_tensor(np.pad(self.walls, 1, constant_values=True), device=self.device)

    @cached_property
    def number(self) -> NDArray[np.int64]:
        """(rows, columns) the number of every free cell among `cells`, -1 for walls."""
        found = np.full(self.walls.shape, -1, dtype=np.int64)
        found[tuple(self.cells.T)] = np.arange(len(self.cells))
        return found

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        """(K, K) the fewest steps from one free cell to another; infinite where there is no way."""
        pairs = []
        for move in MOVES:
            beside = self.cells + move
            inside = ((beside >= 0) & (beside < self.walls.shape)).all(1)
            reached = self.number[tuple(beside[inside].T)]
            pairs.append(np.stack([np.flatnonzero(inside), reached], 1)[reached >= 0])
        steps = np.concatenate(pairs)
        size = len(self.cells)
        graph = csr_matrix((np.ones(len(steps)), (steps[:, 0], steps[:, 1])), shape=(size, size))
        found: NDArray[np.float64] = shortest_path(graph, unweighted=True)
        return found

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, 4)` two free cells, uniform: where the walker is, and its goal."""
        number = torch.rand(copies, 2, generator=rng, device=self.device, dtype=torch.float64)
        return self._cells[(number * len(self._cells)).long()].flatten(1)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """The walker goes one cell on, unless something is in its way."""
        here = state[:, :2]
        there = here + act.to(self.dtype) @ self._moves
        row, column = (there.long() + 1).unbind(1)
        return torch.cat([torch.where(self._blocked[row, column][:, None], here, there), state[:, 2:]], 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """Row and column, which are what is achieved."""
        return {"obs": state[:, :2], "achieved": state[:, :2], "desired": state[:, 2:]}

    def reconstruct(self, window: Window) -> Tensor:
        """The walker's cell and goal are what is seen."""
        return torch.cat([window.now.obs, window.now.desired], 1)

    def steps_to_goal(self, obs: Tensor, desired: Tensor) -> Tensor:
        """The fewest env steps `(B,)` from cell `obs (B, 2)` to cell `desired (B, 2)`."""
        start, goal = (self.number[tuple(cell.cpu().long().numpy().T)] for cell in (obs, desired))
        return torch.as_tensor(self.distances[start, goal], dtype=self.dtype, device=obs.device)


def four_rooms(scale: int = 1) -> Walls:
    """The map of the four rooms of SoRB (Eysenbach et al. 2019): 11 by 11, every cell repeated `scale` times each way.

    Raises:
        GameError: the scale is below 1.
    """
    if scale < 1:
        raise GameError(f"scale={scale} of the four rooms must be >= 1")
    walls = np.array([[cell == "#" for cell in row] for row in FOUR_ROOMS])
    return walls.repeat(scale, 0).repeat(scale, 1)


def random_maze(size: int = 8, seed: int = 0) -> Walls:
    """A maze of `size` by `size` cells with walls between: one way between any two, a random spanning tree.

    Raises:
        GameError: the size is below 1.
    """
    if size < 1:
        raise GameError(f"size={size} of a maze must be >= 1")
    grid = nx.grid_2d_graph(size, size)
    weights = np.random.default_rng(seed).random(grid.number_of_edges())
    for (a, b), weight in zip(sorted(grid.edges), weights, strict=True):
        grid.edges[a, b]["weight"] = weight
    walls = np.ones((2 * size - 1, 2 * size - 1), dtype=bool)
    walls[::2, ::2] = False
    for (row, column), (other_row, other_column) in nx.minimum_spanning_tree(grid).edges:
        walls[row + other_row, column + other_column] = False
    return walls
