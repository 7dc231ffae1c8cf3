"""Toy worlds, batched: small enough that what is best is known, or can be found by looking at everything."""

if not __name__.startswith("presage."):
    raise ImportError(f"write `import presage.envs.toy`; the bare name {__name__!r} would load a second copy of it")

from collections.abc import Callable
from functools import partial
from typing import Any

from presage.envs.batched import Rules
from presage.envs.toy.bit_flip import BitFlip
from presage.envs.toy.cartpole import CartPoleSwingUp
from presage.envs.toy.coins import Coins
from presage.envs.toy.linear_quadratic import LinearQuadratic
from presage.envs.toy.markov import TabularGame, two_state_pennies
from presage.envs.toy.matrix import (
    MatrixGame,
    MixedMatrixGame,
    central,
    climb,
    cycle,
    low_rank,
    penalty,
    rock_paper_scissors,
)
from presage.envs.toy.maze import GridMaze, four_rooms, random_maze
from presage.envs.toy.plane import PointMass, World2D
from presage.envs.toy.predators import PredatorPrey
from presage.envs.toy.quadratics import TwoQuadratics
from presage.envs.toy.soccer import Soccer
from presage.envs.toy.traffic import TrafficJunction


def _matrix(
    name: str, payoffs: Callable[..., Any], *, one_agent: bool = False, device: Any = "cpu", **numbers: Any
) -> MatrixGame:
    """One agent that chooses for everybody where `one_agent`."""
    table = payoffs(**numbers)
    return MatrixGame(name, central(table) if one_agent else table, device=device)


def _cycle(*, mixed: bool = False, device: Any = "cpu") -> MatrixGame:
    """In mixed strategies, one number for each agent, where `mixed`."""
    return (MixedMatrixGame if mixed else MatrixGame)("cycle", cycle(), device=device)


def _pennies(*, episode_limit: int = 50, device: Any = "cpu", **numbers: Any) -> TabularGame:
    tables = two_state_pennies(**numbers)
    return TabularGame("two_state_pennies", *tables, episode_limit=episode_limit, device=device)


def _four_rooms(*, scale: int = 1, **numbers: Any) -> GridMaze:
    return GridMaze(four_rooms(scale), name="four_rooms", **numbers)


def _maze(*, size: int = 8, maze_seed: int = 0, **numbers: Any) -> GridMaze:
    return GridMaze(random_maze(size, maze_seed), name="maze", **numbers)


RULES: dict[str, Callable[..., Rules]] = {
    "bit_flip": BitFlip,
    "cartpole_swingup": CartPoleSwingUp,
    "climb": partial(_matrix, "climb", climb),
    "coins": Coins,
    "cycle": _cycle,
    "four_rooms": _four_rooms,
    "linear_quadratic": LinearQuadratic,
    "low_rank": partial(_matrix, "low_rank", low_rank),
    "maze": _maze,
    "penalty": partial(_matrix, "penalty", penalty),
    "point_mass": PointMass,
    "predator_prey": PredatorPrey,
    "rock_paper_scissors": partial(_matrix, "rock_paper_scissors", rock_paper_scissors),
    "soccer": Soccer,
    "traffic_junction": TrafficJunction,
    "two_quadratics": TwoQuadratics,
    "two_state_pennies": _pennies,
    "world_2d": World2D,
}
"""every toy world by its name behind `toy/`; each takes options of its own, and `device`"""

__all__ = [
    "RULES",
    "BitFlip",
    "CartPoleSwingUp",
    "Coins",
    "GridMaze",
    "LinearQuadratic",
    "MatrixGame",
    "MixedMatrixGame",
    "PointMass",
    "PredatorPrey",
    "Soccer",
    "TabularGame",
    "TrafficJunction",
    "TwoQuadratics",
    "World2D",
    "central",
    "climb",
    "cycle",
    "four_rooms",
    "low_rank",
    "penalty",
    "random_maze",
    "rock_paper_scissors",
    "two_state_pennies",
]
