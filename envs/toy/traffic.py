"""Traffic junction with continuous speeds, after the task that Kim, Park and Sung 2021 use for intention sharing.

Their text leaves geometry and numbers open; those here are ours. Shape suffixes: B rows, N agents.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules

ENTRIES, ROUTES = 4, 3
"""roads that lead to the crossing; ways on: left, right, straight"""
LANE = 0.15
"""distance of a lane from the middle of its road; traffic keeps to the right"""
LENGTHS = (2.0 + 2.0 * LANE, 2.0 - 2.0 * LANE, 2.0)
"""of the ways, by route"""
RADIUS = 0.1
ARRIVED, OVERLAP, WAITING = 20.0, -10.0, -0.01


class TrafficJunction(Rules):
    """Everybody sees where all are, and which entry and route are its own; those of others are theirs to tell.

    Each agent decides how far to advance along its way. It is paid 20 for an arrival without an overlap on the way, -10
    for every step in which it overlaps somebody, and 0.01 less for every step since it entered. Who arrives enters
    again, by another way.

    Args:
        agents: N, >= 1. speed: largest advance in a step, > 0. episode_limit: env steps in an episode, >= 1.
    """

    def __init__(
        self, agents: int = 4, *, speed: float = 0.2, episode_limit: int = 40, device: torch.device | str = "cpu"
    ) -> None:
        if agents < 1 or speed <= 0:
            raise GameError(f"agents={agents} must be >= 1 and speed={speed} > 0")
        self.speed = speed
        self.device, self.dtype = torch.device(device), torch.float32
        self.chances = 2 * agents
        own = ENTRIES + ROUTES
        self.spec = GameSpec(
            name="traffic_junction",
            agents=tuple(
                AgentSpec(
                    name=f"car_{i}",
                    obs=(*range(2 * agents), *range(2 * agents + own * i, 2 * agents + own * (i + 1))),
                    heads=(Head(kind="box", size=1),), low=(0.0,), high=(1.0,), shape=(1,),
                )
                for i in range(agents)
            ),
            obs_dim=(2 + own) * agents, episode_limit=episode_limit,
        )  # fmt: skip

    # A state is (B, N, 5): entry, route, way gone, steps since entering, whether it has overlapped since then.

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, N, 5)`: everybody enters by a uniform way."""
        number = torch.rand(copies, self.chances, generator=rng, device=self.device, dtype=torch.float64)
        return self._entering(number)

    def _entering(self, number: Tensor) -> Tensor:
        """Fresh agents `(B, N, 5)` from uniform numbers `(B, 2 N)`."""
        entry, route = number.reshape(len(number), -1, 2).unbind(2)
        chosen = torch.stack([(entry * ENTRIES).floor(), (route * ROUTES).floor()], 2).to(self.dtype)
        return torch.cat([chosen, torch.zeros(*chosen.shape[:2], 3, dtype=self.dtype, device=self.device)], 2)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """Everybody advances; who arrived in the step before enters anew."""
        if chance is None:
            raise GameError("the junction takes two uniform numbers of every agent for each step")
        state = torch.where(self._arrived(state)[:, :, None], self._entering(chance), state)
        way, route = state[:, :, 2] + (act + 1.0) * 0.5 * self.speed, state[:, :, 1]
        way = torch.minimum(way, way.new_tensor(LENGTHS)[route.long()])
        moved = torch.stack([state[:, :, 0], route, way, state[:, :, 3] + 1.0, state[:, :, 4]], 2)
        moved[:, :, 4] = ((moved[:, :, 4] > 0) | self.overlaps(moved)).to(self.dtype)
        return moved

    def _arrived(self, state: Tensor) -> Tensor:
        length = state.new_tensor(LENGTHS)[state[:, :, 1].long()]
        return state[:, :, 2] >= length - 1e-6

    def places(self, state: Tensor) -> Tensor:
        """Where everybody is, `(B, N, 2)`: 1 from the middle at first, then past the turn of its way."""
        entry, route, way = state[:, :, 0], state[:, :, 1].long(), state[:, :, 2]
        # Seen from the entry: forwards is y, to the right is x. Left turns lie beyond the middle, right ones before it.
        turn = way.new_tensor([1.0 + LANE, 1.0 - LANE, math.inf])[route]
        side = way.new_tensor([-1.0, 1.0, 0.0])[route]
        past = (way - turn).clamp(min=0.0)
        x, y = LANE + side * past, torch.minimum(way, turn) - 1.0
        angle = entry * (math.pi / 2.0)
        return torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], 2)

    def overlaps(self, state: Tensor) -> Tensor:
        """`(B, N)` bool: who is nearer to somebody else than two radii, in the crossing or on a road."""
        place = self.places(state)
        apart = torch.hypot(*(place[:, :, None] - place[:, None]).unbind(3))
        oneself = torch.eye(self.spec.n, dtype=torch.bool, device=state.device)
        return ((apart < 2.0 * RADIUS) & ~oneself).any(2)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """All places, then every agent's entry and route as one-hot vectors."""
        ways = torch.cat([one_hot(state[:, :, 0].long(), ENTRIES), one_hot(state[:, :, 1].long(), ROUTES)], 2)
        return {"obs": torch.cat([self.places(state).flatten(1), ways.flatten(1).to(self.dtype)], 1)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """Arrivals, overlaps and waiting, `(B, N)`."""
        clean = self._arrived(after) & (after[:, :, 4] == 0)
        return ARRIVED * clean + OVERLAP * self.overlaps(after) + WAITING * after[:, :, 3]

    def reconstruct(self, window: Window) -> Tensor:
        """Not to be had: nobody sees since when a car is on its way."""
        raise GameError("what is seen of 'traffic_junction' does not tell since when a car has been on its way")
