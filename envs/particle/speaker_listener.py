"""Speaker and listener (cooperative communication): one agent knows the goal, the other can move.

mpe2 `simple_speaker_listener_v4`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle.physics import Body, Renaming, Term, World, WorldState
from presage.envs.particle.scenario import Before, Scenario, at_rest, marks, square, uniform

LANDMARKS = 3
WORDS = 3
GOAL_SHADE = 0.65
OTHER_SHADE = 0.15
"""landmark k has the goal's shade in colour channel k and this one in the others"""


@dataclass(frozen=True, kw_only=True)
class SpeakerListener(Scenario):
    """The speaker sees the colour of the goal landmark and sends a word; the listener hears it one step later."""

    reward: Literal["mpe2", "original"] = "mpe2"
    """`original`: every agent gets the sum of both agents' rewards (Lowe et al. 2017), here twice the one of mpe2"""

    def __post_init__(self) -> None:
        if self.reward not in ("mpe2", "original"):
            raise GameError(f"reward={self.reward!r} must be 'mpe2' or 'original'")

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "speaker_listener"

    @cached_property
    def world(self) -> World:
        """An immovable speaker, a silent listener and three landmarks; nothing collides. Private: the goal's colour."""
        return World(
            agents=(
                Body(name="speaker_0", size=0.075, collides=False, movable=False, silent=False),
                Body(name="listener_0", size=0.075, collides=False),
            ),
            landmarks=marks(LANDMARKS, size=0.04),
            words=WORDS,
            private=LANDMARKS,
        )

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """The speaker: the goal's colour. The listener: velocity, landmarks from where it stands, the word."""
        world = self.world
        listener = world.velocity_terms(1)
        for entity in range(2, 2 + LANDMARKS):
            listener += world.position_terms(entity, 1)
        return tuple(world.private_terms()), (*listener, *world.message_terms(0))

    def interchangeable(self) -> list[Renaming]:
        """Landmarks are alike, and each takes its colour along."""
        return [Renaming((0, 1), order, order) for order in permutations(range(LANDMARKS))]

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """A uniform goal; agents and landmarks uniform in [-1, 1]^2, at rest, nothing said yet."""
        number = uniform(copies, 1 + 2 * (2 + LANDMARKS), rng)
        goal, place = (number[:, :1] * LANDMARKS).long(), square(number[:, 1:])
        colour = torch.full((copies, LANDMARKS), OTHER_SHADE, dtype=place.dtype, device=rng.device)
        return at_rest(self.world, place[:, :2], place[:, 2:], private=colour.scatter(1, goal, GOAL_SHADE))

    def rewards(self, state: Tensor) -> Tensor:
        """Minus the squared distance from listener to goal, for both: `(B, 2)` for `state (D, B)`."""
        world = self.world
        colour = state[world.zero - LANDMARKS : world.zero]
        x, y = (state[first : first + LANDMARKS] - state[own] for first, own in self._goal_rows)
        missed = torch.where(goal_mask(colour), x * x + y * y, 0.0).sum(0)
        return -missed[:, None].expand(-1, 2) * (2.0 if self.reward == "original" else 1.0)

    @cached_property
    def _goal_rows(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """By axis, the rows of the first landmark and of the listener."""
        landmark, listener = self.world.position_rows(2), self.world.position_rows(1)
        return (landmark[0], listener[0]), (landmark[1], listener[1])

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """A state like the one behind `obs (B, O)`, with the listener at the origin: no agent sees where it is."""
        colour, velocity, landmarks, word = seen_parts(obs)
        still = torch.zeros_like(velocity)
        return at_rest(
            self.world, torch.stack([still, still], 1), landmarks, velocity=torch.stack([still, velocity], 1),
            message=word[:, None], private=colour,
        )  # fmt: skip


def seen_parts(obs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The parts of `obs (B, 14)`: goal's colour `(B, 3)`, listener's velocity `(B, 2)`, landmarks from where it stands
    `(B, 3, 2)`, and the word it heard `(B, 3)`.
    """
    word = 5 + 2 * LANDMARKS
    return obs[:, :3], obs[:, 3:5], obs[:, 5:word].reshape(len(obs), LANDMARKS, 2), obs[:, word:]


def goal_mask(colour: Tensor) -> Tensor:
    """Which landmark has the colour: bool of the shape of `colour`, in which landmarks are one dimension."""
    return colour > (GOAL_SHADE + OTHER_SHADE) / 2
