"""Points on a plane: the 2D world of MapGo, and a point mass that is paid for its distance from the middle."""

from __future__ import annotations

import torch
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules
from presage.envs.goal_rules import DistanceRule

SIDE = 20.0
"""of MapGo's world"""
FAR_CORNER, WIDTH = 18.0, 0.5
"""its goals lie within [18 - 0.5, 18 + 0.5]^2"""


def _mover(name: str, goal: bool) -> AgentSpec:
    both = (0, 1)
    return AgentSpec(
        name=name, obs=both, heads=(Head(kind="box", size=2),), low=(-1.0, -1.0), high=(1.0, 1.0), shape=(2,),
        goal=both if goal else (),
    )  # fmt: skip


class World2D(Rules):
    """From (0, 0) to a goal near (18, 18) of a square with side 20, by steps of at most 1 along each axis.

    MapGo's 2D-World (Zhu et al. 2021, 2105.06350).

    Args:
        epsilon: distance at which the goal counts as reached. spread: goals anywhere in the square instead.
        terminates: whether an episode ends at its goal.
    """

    def __init__(
        self, *, epsilon: float = 0.15, spread: bool = False, terminates: bool = False, episode_limit: int = 100,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if epsilon <= 0:
            raise GameError(f"epsilon={epsilon} must be > 0")
        self.spread, self.epsilon = spread, epsilon
        self.device, self.dtype = torch.device(device), torch.float32
        self.goal_rule = DistanceRule(threshold=epsilon, terminates=terminates)
        self.spec = GameSpec(
            name="world_2d", agents=(_mover("agent", goal=True),), obs_dim=2, goal_dim=2, achieved=(0, 1),
            episode_limit=episode_limit, terminates=terminates,
        )  # fmt: skip

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, 4)`: the origin, then the goal."""
        number = torch.rand(copies, 2, generator=rng, device=self.device)
        goal = number * SIDE if self.spread else FAR_CORNER + (2.0 * number - 1.0) * WIDTH
        return torch.cat([torch.zeros_like(goal), goal], 1)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """The step is taken as far as the square allows."""
        return torch.cat([(state[:, :2] + act).clamp(0.0, SIDE), state[:, 2:]], 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """The position, which is what is achieved."""
        return {"obs": state[:, :2], "achieved": state[:, :2], "desired": state[:, 2:]}

    def reconstruct(self, window: Window) -> Tensor:
        """Position and goal are what is seen."""
        return torch.cat([window.now.obs, window.now.desired], 1)

    def steps_to_goal(self, obs: Tensor, desired: Tensor) -> Tensor:
        """The fewest env steps `(B,)` that lead from `obs (B, 2)` within reach of `desired (B, 2)`.

        After k steps every point within k along each axis can be reached, so that what is left of each axis decides.
        """
        apart = (desired - obs).abs()
        steps = torch.arange(int(SIDE) + 2, device=obs.device, dtype=obs.dtype)
        left = (apart[:, None] - steps[:, None]).clamp(min=0.0)
        reached = torch.hypot(left[..., 0], left[..., 1]) <= self.epsilon
        first: Tensor = reached.to(torch.uint8).argmax(1)
        return first


class PointMass(Rules):
    """A point in [-1, 1]^2 is moved by at most 0.1 along each axis and pays its distance from the middle."""

    STEP = 0.1

    def __init__(self, *, episode_limit: int = 25, device: torch.device | str = "cpu") -> None:
        self.device, self.dtype = torch.device(device), torch.float32
        self.spec = GameSpec(
            name="point_mass", agents=(_mover("agent", goal=False),), obs_dim=2, episode_limit=episode_limit
        )

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, 2)` uniform in [-1, 1]^2."""
        return torch.rand(copies, 2, generator=rng, device=self.device) * 2.0 - 1.0

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """A tenth of the action is added."""
        return (state + self.STEP * act).clamp(-1.0, 1.0)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """The position."""
        return {"obs": state}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """Minus the distance from the middle after the step, `(B, 1)`."""
        return -torch.hypot(after[:, :1], after[:, 1:])

    def reconstruct(self, window: Window) -> Tensor:
        """The position is what is seen."""
        return window.now.obs

    def optimum(self, obs: Tensor) -> Tensor:
        """The best return `(B,)` of an episode from `obs (B, 2)`: both axes are brought to 0 as fast as they can be."""
        limit = self.spec.episode_limit or 0
        steps = torch.arange(1, limit + 1, device=obs.device, dtype=obs.dtype)
        left = (obs.abs()[:, None] - self.STEP * steps[:, None]).clamp(min=0.0)
        return -torch.hypot(left[..., 0], left[..., 1]).sum(1)
