"""The games of the scenarios, with what returns are held against and how long and closely a run is watched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from presage.common.method import Method
from presage.common.scenario import GameConfig, Scenario


@dataclass(frozen=True, kw_only=True)
class Task:
    """A game and a budget; all methods on it get the same."""

    game: GameConfig
    """what is played"""
    steps: int
    """env steps of a run"""
    evaluate_every: int
    """env steps between two evaluations, and between two checkpoints"""
    reference: str = ""
    """the scripted controller"""
    kernel: str = ""
    """the game's own dynamics"""

    def scenario(self, name: str, label: str, description: str, method: Method, **numbers: Any) -> Scenario[Any]:
        """A method on this task; `numbers` are further fields of `Scenario`, and come before the task's own."""
        own: dict[str, Any] = {
            "game": self.game, "steps": self.steps, "evaluate_every": self.evaluate_every,
            "checkpoint_every": self.evaluate_every, "reference": self.reference, "kernel": self.kernel,
        }  # fmt: skip
        return Scenario(name=name, label=label, description=description, method=method, **(own | numbers))


SPREAD = Task(
    game=GameConfig(name="mpe/simple_spread_v3", copies=20),
    steps=4_000, evaluate_every=250, reference="greedy_spread", kernel="spread",
)  # fmt: skip
"""three agents cover three landmarks without touching each other"""

SPREAD_CONTINUOUS = replace(
    SPREAD, game=GameConfig(name="mpe/simple_spread_v3", copies=20, options={"continuous_actions": True})
)
"""the same, with Box actions"""

SPEAKER_LISTENER = Task(
    game=GameConfig(name="mpe/simple_speaker_listener_v4", copies=20),
    steps=4_000, evaluate_every=250, reference="greedy_speaker_listener", kernel="speaker_listener",
)  # fmt: skip
"""one agent knows the goal and cannot move, the other moves and hears it"""

TAG = Task(game=GameConfig(name="mpe/simple_tag_v3", copies=20), steps=10_000, evaluate_every=1_000)
"""three slow predators hunt one quick prey, all of which learn"""

INVERTED_PENDULUM = Task(game=GameConfig(name="gym/InvertedPendulum-v5"), steps=10_000, evaluate_every=500)
"""a cart keeps its pole up"""

CARTPOLE = Task(
    game=GameConfig(name="toy/cartpole_swingup"), steps=10_000, evaluate_every=500, kernel="cartpole"
)  # fmt: skip
"""a cart swings its hanging pole up and holds it there, fifty env steps an episode"""

HOPPER = Task(game=GameConfig(name="gym/Hopper-v5"), steps=10_000, evaluate_every=1_000, kernel="hopper")
"""one leg hops forward and must not fall"""

HALF_CHEETAH = Task(
    game=GameConfig(name="gym/HalfCheetah-v5"), steps=10_000, evaluate_every=1_000, kernel="half_cheetah"
)  # fmt: skip
"""two legs run, and nothing ends before its thousand env steps"""

PENDULUM = Task(game=GameConfig(name="gym/Pendulum-v1"), steps=10_000, evaluate_every=500)
"""a pendulum is swung up by a motor too weak to lift it at once"""

BIT_FLIP = Task(
    game=GameConfig(name="toy/bit_flip", copies=16, options={"bits": 15, "terminates": False}),
    steps=120_000, evaluate_every=12_000,
)  # fmt: skip
"""fifteen bits are flipped one at a time until they are as they should be"""

WORLD = Task(game=GameConfig(name="toy/world_2d"), steps=10_000, evaluate_every=500, kernel="world_2d")
"""MapGo's 2D world: a point walks to the far corner of a square"""

FETCH_REACH = Task(game=GameConfig(name="fetch/reach"), steps=5_000, evaluate_every=250)
"""a robot's arm moves its hand to a place in the air"""

FETCH_PUSH = Task(game=GameConfig(name="fetch/push", copies=8), steps=500_000, evaluate_every=20_000)
"""a robot's arm pushes a block across a table"""

POINT_MAZE = Task(game=GameConfig(name="maze/point-medium", copies=4), steps=100_000, evaluate_every=5_000)
"""a ball is rolled through a maze, from anywhere to anywhere"""

MAZE_FROM_ONE_START = Task(
    game=GameConfig(
        name="gym/PointMaze_Large_Diverse_G-v3", copies=4, options={"max_episode_steps": 300, "continuing_task": False}
    ),
    steps=50_000, evaluate_every=5_000,
)  # fmt: skip
"""likewise, from one cell to one of several"""

GOAL_NAVIGATION = Task(
    game=GameConfig(name="particle/goal_navigation", copies=20, options={"agents": 3}),
    steps=4_000, evaluate_every=250, kernel="goal_navigation",
)  # fmt: skip
"""three agents reach three places, each its own, without pushing one another away"""

SOCCER = Task(game=GameConfig(name="toy/soccer", copies=16), steps=100_000, evaluate_every=10_000)
"""on a grid, against an opponent that is offensive in every other episode and defensive in the others"""

TWO_QUADRATICS = Task(game=GameConfig(name="toy/two_quadratics", copies=5), steps=6_000, evaluate_every=250)
"""two numbers are named at once; what is best lies behind what is safe"""

CLIMB = Task(game=GameConfig(name="toy/climb"), steps=500, evaluate_every=50)
"""two choices are made at once; the best ones are dear to whoever makes them alone"""
