"""The maze on a plane as a game by name, and hindsight on it in pursuit of goals from any source.

The game is an entry point, not a line in `presage.envs.toy.RULES`: nearly every measurement has imported that file, and
would be stale for a game that it does not play.
"""

from __future__ import annotations

from typing import Any

from presage.common.game import GameError
from presage.common.scenario import GameConfig
from presage.envs.batched import BatchedGame
from presage.envs.toy.maze import random_maze
from presage.envs.toy.plane_maze import PlaneMaze
from presage.gcrl.goals.choice import GoalsConfig
from presage.gcrl.her import HERConfig
from presage.gcrl.mapgo import MapGoConfig
from presage.scenarios.goal_models import her, in_a_maze, learner, mapgo
from presage.scenarios.tasks import Task

WARMUP, UPDATES_PER_STEP = 1_000, 0.5
LEARNER = learner(hidden=128)


def plane_maze(copies: int, workers: int = 0, *, size: int = 5, maze_seed: int = 0, **options: Any) -> BatchedGame:
    """A random maze of `size` by `size` cells with walls between; see `presage.envs.registry.make`.

    Args:
        size, maze_seed: as of `presage.envs.toy.maze.random_maze`. options: of `PlaneMaze`.

    Raises:
        GameError: workers are asked for, or what is named makes no maze.
    """
    if workers:
        raise GameError(f"toy/plane_maze plays all copies at once as tensors; workers={workers} must be 0")
    try:
        rules = PlaneMaze(random_maze(size, maze_seed), **options)
    except TypeError as error:
        raise GameError(f"toy/plane_maze does not take these options: {error}") from error
    return BatchedGame(rules, copies)


TASK = Task(
    game=GameConfig(name="toy/plane_maze", copies=10, options={"terminates": True}), steps=50_000, evaluate_every=2_500
)
"""from one corner of a maze to the cell that is farthest from it"""


def in_pursuit(goals: GoalsConfig) -> HERConfig | MapGoConfig:
    """Hindsight on real rows; MapGo where goals are foreseen in a model. Episodes wander on from goals of one's own."""
    if goals.source == "subgoals":
        return mapgo(LEARNER, WARMUP, UPDATES_PER_STEP, fit_every=2_500, goals=in_a_maze(goals))
    return her(LEARNER, WARMUP, UPDATES_PER_STEP, goals=in_a_maze(goals))
