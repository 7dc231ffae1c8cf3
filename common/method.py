"""What a method is to the training loop: a frozen configuration that builds something which acts, learns and saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import Actor, GameSpec, GoalRule, Kernel, Rows, View
from presage.common.ledger import Ledger
from presage.common.replay import Replay
from presage.common.streams import Streams

Metrics = dict[str, float]


class Pursuer(Protocol):
    """Gives a run's episodes goals in place of the game's own."""

    metrics: Metrics
    """the latest of every quantity, by metric tag"""

    def aim(self, view: View, replay: EpisodicReplay) -> View:
        """What is seen before a step, under the goals that are pursued; `replay` holds all rows so far."""
        ...

    def explore(self, view: View, act: Tensor) -> Tensor:
        """The joint actions `(C, A)` to take instead of `act`."""
        ...

    def rows(self, rows: Rows) -> Rows:
        """One env step of every copy as it is to be stored, under the goals that were pursued in it."""
        ...

    def drop(self, copies: Sequence[int]) -> None:
        """Forget the open episodes of these copies, whose next ones begin."""
        ...


class Trainee(Protocol):
    """What a run trains, a module: `Dyna` around a learner, or a planner with its model."""

    env_steps: int
    """made so far"""
    metrics: Metrics
    """the latest of every quantity, by metric tag"""
    ledger: Ledger
    """what has been spent"""
    on_phase: Callable[[str], None] | None
    """called with "fit", "rollout" or "update" as each begins"""
    pursuit: Pursuer | None
    """who gives episodes their goals; None where they are the game's own"""

    @property
    def actor(self) -> Actor:
        """Who is evaluated."""
        ...

    @property
    def policy(self) -> nn.Module:
        """The parameters that `actor` acts by: what is kept of the best evaluation, and loaded to act."""
        ...

    @property
    def world(self) -> Any:
        """What it imagines in, learned or given; None where it does not imagine."""
        ...

    @property
    def imagined(self) -> Replay | None:
        """Imagined rows that a checkpoint keeps; None without."""
        ...

    @property
    def replay_capacity(self) -> int:
        """Real rows kept."""
        ...

    @property
    def persistent(self) -> Mapping[str, Any]:
        """Parts that save themselves, by methods `state` and `restore`."""
        ...

    def explore(self, view: View) -> Tensor:
        """Joint actions `(C, A)` for collection."""
        ...

    def learn(self, replay: Replay, rows: Rows) -> None:
        """Take note of `rows`, which were just inserted into `replay`, and do all that is due by now."""
        ...

    def losses(self) -> Metrics:
        """What the last update said, by metric tag; {} before the first, and where nothing is updated."""
        ...


class Method(Protocol):
    """A method's numbers; `build` puts its parts together."""

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Trainee:  # fmt: skip
        """The method on a game.

        Args:
            spec: the game. streams: generators by name; those that are used on the device are made there.
            true_kernel: the game's own dynamics where it offers them; read only by a configuration that asks for it.
            goal_rule: what goals are worth, in a game of goals that is to be trained on; None to act alone.
        """
        ...
