"""`Dyna` on real rows, for learners that follow what the other agents do by the newest of them."""

from __future__ import annotations

from typing import Any, Protocol

from tianshou.algorithm.algorithm_base import TrainingStats

from presage.common.dyna import Dyna
from presage.common.game import Rows
from presage.common.replay import Replay


class Follower(Protocol):
    """A learner with models of what others do."""

    @property
    def newest(self) -> int:
        """Rows that its models learn from at a time; >= 1."""
        ...

    def follow(self, rows: Rows) -> None:
        """Improve the models on the newest rows, oldest first."""
        ...


class FreshRows(Dyna):
    """`Dyna` whose learner, a `Follower`, sees the newest real rows before every update."""

    learner: Any

    def improve(self, replay: Replay) -> TrainingStats:
        """One step of the learner's models, and one update of everything else on a fresh batch."""
        follower: Follower = self.learner
        follower.follow(replay.rows(replay.latest(follower.newest)))
        return super().improve(replay)
