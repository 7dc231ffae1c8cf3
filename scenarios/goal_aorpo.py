"""AORPO with goals: every agent's goals are relabelled by hindsight or foresight, and its branches pursue goals too.

Put together from `presage.marl.aorpo` and `presage.gcrl`, which know nothing of each other: policies, critics and
opponent models read the agents' goals behind what they observe, the world pays imagined steps by the game's rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from presage.common.dyna import Dyna
from presage.common.game import GameError, GameSpec, GoalRule, Kernel
from presage.common.goal_view import GoalActor, GoalConditioned, GoalView
from presage.common.mbpo import build_world
from presage.common.method import Metrics
from presage.common.replay import Replay
from presage.common.streams import Streams
from presage.gcrl.relabelling import RelabellingConfig
from presage.marl.aorpo import AdaptiveOpponents, AORPOConfig


@dataclass(frozen=True, kw_only=True)
class GoalAORPOConfig:
    """AORPO's parts, and where the goals of real rows and of branches come from."""

    aorpo: AORPOConfig = field(default_factory=AORPOConfig)
    """all but the goals"""
    relabelling: RelabellingConfig = field(default_factory=RelabellingConfig)
    """where these come from; foresight looks ahead in the world that is learned for all agents"""

    def __post_init__(self) -> None:
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
        relabelling = self.relabelling.build(spec, goal_rule, actor, world, device)
        return Dyna(
            spec, aorpo.loop, GoalConditioned(masac, seen), actor, streams, world=world,
            opponents=None if opponents is None else GoalOpponents(opponents, seen), relabel=relabelling.rows,
            aims=relabelling.aims, branch_relabel=relabelling.branches, device=device,
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
