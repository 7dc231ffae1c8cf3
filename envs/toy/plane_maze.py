"""A maze on a plane, explored from one cell: where goals should come from is what it is made to show."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules
from presage.envs.goal_rules import DistanceRule
from presage.envs.toy.maze import GridMaze, Walls

STEP = 0.95
"""the longest way along an axis in one env step, in cells"""
MARGIN = 0.01
"""how near a point comes to a wall, in cells"""


class PlaneMaze(Rules):
    """A point in a maze of unit cells goes at most 0.95 along each axis, rows first, as far as walls let it.

    In the manner of the point maze that MEGA (Pitis et al. 2020, 2007.02832) is tried in, with the same distance to a
    goal; walls, steps and the length of episodes are the suite's own.

    Args:
        walls: (rows, columns), true where nobody can be; what is outside is walled. start: row and column of the cell
            in whose middle episodes begin. epsilon: distance at which a goal counts as reached. spread: goals anywhere
            instead of in the cell that is farthest from the start. terminates: whether an episode ends at its goal.

    Raises:
        GameError: `epsilon` is not above 0, the start is no free cell, or some cell cannot be reached.
    """

    def __init__(
        self, walls: Walls, *, start: tuple[int, int] = (0, 0), epsilon: float = 0.15, spread: bool = False,
        terminates: bool = False, episode_limit: int = 50, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if epsilon <= 0:
            raise GameError(f"epsilon={epsilon} must be > 0")
        grid = GridMaze(walls)
        self.walls, self.cells, self.start = grid.walls, grid.cells, start
        inside = all(0 <= cell < size for cell, size in zip(start, self.walls.shape, strict=True))
        if not inside or self.walls[start]:
            raise GameError(f"start={start} must be a free cell of a maze of shape {self.walls.shape}")
        self.steps = grid.distances[grid.number[start]]
        """(K,) cells from the start to each of `cells`"""
        self.device, self.dtype = torch.device(device), torch.float32
        self.goal_rule = DistanceRule(threshold=epsilon, terminates=terminates)
        both = (0, 1)
        agent = AgentSpec(
            name="agent", obs=both, heads=(Head(kind="box", size=2),), low=(-1.0, -1.0), high=(1.0, 1.0), shape=(2,),
            goal=both,
        )  # fmt: skip
        self.spec = GameSpec(
            name="plane_maze", agents=(agent,), obs_dim=2, goal_dim=2, achieved=both, episode_limit=episode_limit,
            terminates=terminates,
        )  # fmt: skip
        wanted = self.cells if spread else self.cells[[int(self.steps.argmax())]]
        self._wanted = torch.as_tensor(wanted, dtype=self.dtype, device=self.device)
        self._begin = torch.tensor(start, dtype=self.dtype, device=self.device) + 0.5
        self._blocked = torch.as_tensor(np.pad(self.walls, 1, constant_values=True), device=self.device)

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, 4)`: the middle of the start, then a goal anywhere in one of the cells where goals are."""
        number = torch.rand(copies, 3, generator=rng, device=self.device, dtype=torch.float64)
        cell = self._wanted[(number[:, 0] * len(self._wanted)).long()]
        goal = cell + number[:, 1:].to(self.dtype).clamp(MARGIN, 1.0 - MARGIN)
        return torch.cat([self._begin.expand(copies, 2), goal], 1)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """One axis after the other is gone along, up to the next wall; a step crosses one border of cells at most."""
        here = state[:, :2]
        for axis in (0, 1):
            cell = here.floor().long()
            walled = []
            for side in (-1, 1):
                beside = cell.clone()
                beside[:, axis] += side
                walled.append(self._blocked[beside[:, 0] + 1, beside[:, 1] + 1])
            low = (cell[:, axis] + MARGIN).masked_fill(~walled[0], -torch.inf)
            high = (cell[:, axis] + 1.0 - MARGIN).masked_fill(~walled[1], torch.inf)
            here = here.clone()
            here[:, axis] = (here[:, axis] + STEP * act[:, axis]).clamp(low, high)
        return torch.cat([here, state[:, 2:]], 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """The position, row first, which is what is achieved."""
        return {"obs": state[:, :2], "achieved": state[:, :2], "desired": state[:, 2:]}

    def reconstruct(self, window: Window) -> Tensor:
        """Position and goal are what is seen."""
        return torch.cat([window.now.obs, window.now.desired], 1)
