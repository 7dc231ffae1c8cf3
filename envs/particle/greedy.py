"""Scripted controllers of particle games: strong references by simple rules, no proven optima.

Both aim by where a push leads two steps ahead, the first position that it changes in mpe2's physics. Aiming by the
point where a body would come to rest, as AORPO's reference does, accelerates too little and brakes too early.

Shape suffixes: B batch, N agents, K landmarks, F assignments.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from presage.common.game import Carry, GameError, View, Window
from presage.envs.particle.controls import MOVES
from presage.envs.particle.physics import DAMPING, TIME_STEP, Body
from presage.envs.particle.scenario import pair_distance
from presage.envs.particle.speaker_listener import WORDS, goal_mask, seen_parts
from presage.envs.particle.spread import AGENT_SIZE, Spread

DIRECTIONS = ((0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))
VELOCITY_REACH = TIME_STEP * (2.0 - DAMPING)
"""how far a velocity of 1 leads in two steps"""
PUSH_REACH = Body.accel * TIME_STEP**2
"""how far a full push leads in two steps"""
MOST_ASSIGNED = 5
"""agents whose assignments are still enumerated"""
BERTH = 2 * AGENT_SIZE + 0.05
"""distance between two agents from which they count as apart"""
OVERLAP_WEIGHT = 2.0
"""distance to the landmark that is given up for a unit of missing berth"""


class GreedySpread:
    """Every agent heads for its landmark of the cheapest assignment and steers clear of where the others are going.

    The assignment is recomputed at each step from the view: least sum of squared distances between landmarks and the
    points where agents will be in two steps. Memoryless and deterministic; reads positions and velocities of all.

    Args:
        scenario: the game; at most 5 agents.
        continuous: whether to answer with Box actions (the same pushes).

    Raises:
        GameError: for more agents than 5.
    """

    def __init__(self, scenario: Spread, *, continuous: bool = False) -> None:
        if scenario.agents > MOST_ASSIGNED:
            raise GameError(
                f"greedy spread enumerates the assignments of at most {MOST_ASSIGNED} agents, got {scenario.agents}"
            )
        self._scenario = scenario
        self._continuous = continuous
        self._orders = torch.tensor(list(permutations(range(scenario.agents))))

    def init(self, window: Window) -> Carry:
        """Nothing to remember."""
        return None

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`."""
        seen = self._scenario.reconstruct(view.obs)
        drift = seen.velocity * VELOCITY_REACH
        landmarks = cheapest_landmarks(seen.position + drift, seen.landmarks, self._orders.to(drift.device))
        ends = seen.position[:, :, None] + options(drift)  # (B, N, 5, 2)
        missed = (landmarks[:, :, None] - ends).square().sum(-1).sqrt()

        rows, n, _ = missed.shape
        others = pair_distance(ends.flatten(1, 2), seen.position + drift).view(rows, n, MOVES, n)
        oneself = torch.eye(n, dtype=torch.bool, device=missed.device)[:, None]
        overlap = (BERTH - others).clamp(min=0.0).masked_fill(oneself, 0.0).sum(-1)
        choice = (missed + OVERLAP_WEIGHT * overlap).argmin(2)
        act = one_hot(choice, MOVES).to(view.obs.dtype).flatten(1)
        return carry, masked(act, view.acting.repeat_interleave(MOVES, 1), continuous=self._continuous)


class GreedySpeakerListener:
    """The speaker names the goal's landmark by its number; the listener goes to the landmark it heard of.

    Until a word has reached it, the listener goes to the middle of the landmarks. Memoryless and deterministic; each
    agent uses its own observation alone.

    Args:
        continuous: whether to answer with Box actions (the same pushes and words).
    """

    def __init__(self, *, continuous: bool = False) -> None:
        self._continuous = continuous

    def init(self, window: Window) -> Carry:
        """Nothing to remember."""
        return None

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`."""
        colour, velocity, landmarks, word = seen_parts(view.obs)
        said = word > 0.5
        meant = said | ~said.any(1, keepdim=True)
        target = (landmarks * meant[:, :, None]).sum(1) / meant.sum(1, keepdim=True)
        ends = options(velocity * VELOCITY_REACH)
        choice = (target[:, None] - ends).square().sum(-1).argmin(1)
        act = torch.cat([goal_mask(colour), one_hot(choice, MOVES)], 1).to(view.obs.dtype)
        acting = torch.cat([view.acting[:, :1].expand(-1, WORDS), view.acting[:, 1:].expand(-1, MOVES)], 1)
        return carry, masked(act, acting, continuous=self._continuous)


def cheapest_landmarks(position: Tensor, landmarks: Tensor, orders: Tensor) -> Tensor:
    """Each agent's landmark `(B, N, 2)` in the assignment of least squared distance.

    Args:
        position: `(B, N, 2)` of the agents.
        landmarks: `(B, N, 2)`.
        orders: `(F, N)`, each row the landmark of every agent in one assignment.
    """
    cost = pair_distance(position, landmarks).square()
    agents = torch.arange(position.shape[1], device=position.device)
    best = orders[cost[:, agents, orders].sum(-1).argmin(1)]
    return landmarks.gather(1, best[:, :, None].expand(-1, -1, 2))


def options(drift: Tensor) -> Tensor:
    """Displacements `(..., 5, 2)` in two steps under each push, of bodies that drift `drift (..., 2)` without one."""
    return drift[..., None, :] + PUSH_REACH * drift.new_tensor(DIRECTIONS)


def masked(act: Tensor, acting: Tensor, *, continuous: bool) -> Tensor:
    """`act (B, A)` of entries 0 and 1 in the slice's terms, zero where `acting (B, A)` is false."""
    return (act * 2.0 - 1.0 if continuous else act) * acting
