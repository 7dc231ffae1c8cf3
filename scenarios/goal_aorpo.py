"""AORPO with goals: every agent's goals are relabelled by hindsight or foresight, and its branches pursue goals too.

Put together from `presage.marl.aorpo` and `presage.gcrl`, which know nothing of each other: policies, critics and
opponent models read the agents' goals behind what they observe, the world pays imagined steps by the game's rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from presage.common.dyna import Dyna
from presage.common.game import GameError, GameSpec, GoalRule, Kernel
from presage.common.goal_view import GoalActor, GoalConditioned, GoalView
from presage.common.mbpo import build_world
from presage.common.method import Metrics
from presage.common.relabel import Ends, Relabeller
from presage.common.replay import Replay
from presage.common.streams import Streams
from presage.gcrl.foresight import Foresight, ForesightConfig
from presage.gcrl.hindsight import BranchHindsight, Hindsight, Shares
from presage.marl.aorpo import AdaptiveOpponents, AORPOConfig

KEPT = Shares(keep=1.0, future=0.0)
"""no goal but the one that was pursued"""


@dataclass(frozen=True, kw_only=True)
class GoalAORPOConfig:
    """AORPO's parts, and where the goals of real rows and of branches come from."""

    aorpo: AORPOConfig = field(default_factory=AORPOConfig)
    """all but the goals"""
    relabel: Literal["foresight", "hindsight", "none"] = "foresight"
    """where the goals of real rows come from"""
    foresight: ForesightConfig = field(default_factory=ForesightConfig)
    """how far to look, in the world that is learned for all agents"""
    shares: Shares = field(default_factory=Shares)
    """of hindsight, with `relabel="hindsight"`"""
    aims: Shares = field(default_factory=Shares)
    """what imagined branches pursue"""
    branch_hindsight: float = 0.0
    """share of imagined rows that get later outcomes of their own branch as their goals, in [0, 1]"""
    ends: Ends = "rule"
    """when a relabelled row has no future; see `presage.common.relabel.Goals`"""

    def __post_init__(self) -> None:
        if self.relabel not in ("foresight", "hindsight", "none"):
            raise ValueError(f"relabel={self.relabel!r} must be 'foresight', 'hindsight' or 'none'")
        if self.aorpo.loop.real_share == 1:
            raise ValueError("aorpo.loop.real_share=1 imagines nothing; AORPO needs less")

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """The method on a game of goals for several agents; see `presage.common.method.Method`.

        Raises:
            GameError: the game has no goals or one agent alone, or offers no true dynamics where they are asked for.
        """
        if not spec.goal_dim or spec.n == 1:
            raise GameError(
                f"{spec.name!r} has {spec.n} agent(s) and goals of {spec.goal_dim} numbers; this is for several agents "
                "with goals: take 'mapgo' for one agent, 'aorpo' without goals"
            )
        aorpo, seen = self.aorpo, GoalView(spec)
        masac, opponents = aorpo.learners(seen.spec, streams, device)
        actor = GoalActor(masac.policy, seen)
        world = build_world(
            spec, aorpo.model, aorpo.ensemble, aorpo.fit, streams, device, true_kernel, aorpo.propagation, goal_rule
        )
        relabel: Relabeller | None = None
        aims: Relabeller | None = None
        branch_relabel = None
        if goal_rule is not None:
            aims = Hindsight(spec, goal_rule, self.aims, ends=self.ends, device=device)
            if self.branch_hindsight:
                branch_relabel = BranchHindsight(
                    spec, goal_rule, self.branch_hindsight, ends=self.ends, device=device
                )  # fmt: skip
            if self.relabel == "hindsight":
                relabel = Hindsight(spec, goal_rule, self.shares, ends=self.ends, device=device)
            elif self.relabel == "foresight":
                relabel = Foresight(
                    spec, goal_rule, world.kernel, actor, self.foresight, ends=self.ends, device=device
                )  # fmt: skip
        return Dyna(
            spec, aorpo.loop, GoalConditioned(masac, seen), actor, streams, world=world,
            opponents=None if opponents is None else GoalOpponents(opponents, seen), relabel=relabel, aims=aims,
            branch_relabel=branch_relabel, device=device,
        )  # fmt: skip


class GoalOpponents(nn.Module):
    """Opponent models of a `GoalView`'s game, for the game of goals itself."""

    checkpoint_skip = ("models", "seen")
    """saved with the opponents"""

    def __init__(self, opponents: AdaptiveOpponents, seen: GoalView) -> None:
        super().__init__()
        self.opponents, self.seen, self.models = opponents, seen, GoalActor(opponents.models, seen)

    def fit(self, replay: Replay, rng: torch.Generator) -> Metrics:
        """Fit the models to the newest real rows."""
        newest = replay.rows(replay.latest(self.opponents.models.config.window))
        return self.opponents.fit_rows(self.seen.rows(newest), rng)

    def table(self, horizon: int) -> Tensor:
        """(N, N, horizon) int8: who answers for each agent at each step of each ego's branches."""
        return self.opponents.table(horizon)
