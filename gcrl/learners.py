"""Which learner pursues goals: one of tianshou's, made goal-conditioned by composition.

A game without goals gets the learner itself, so that goal-conditioned methods reduce to their plain forms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm
from torch import Tensor

from presage.common.ddpg import DDPGConfig, build_ddpg
from presage.common.dqn import DQNConfig, LeanDQN, build_dqn
from presage.common.evaluate import first_window
from presage.common.game import Actor, GameError, GameSpec, View
from presage.common.goal_view import GoalActor, GoalConditioned, GoalView, RunningNormaliser
from presage.common.sac import SACConfig, build_sac
from presage.common.streams import Streams


@dataclass(frozen=True, kw_only=True)
class GoalLearnerConfig:
    """A learner for one agent, and how it reads its inputs."""

    algorithm: Literal["ddpg", "sac", "dqn"] = "ddpg"
    """deterministic policy gradients (TD3 with `ddpg.twin`), soft actor-critic, or Q-learning for a single choice"""
    ddpg: DDPGConfig = field(default_factory=DDPGConfig)
    """numbers of `ddpg`"""
    sac: SACConfig = field(default_factory=SACConfig)
    """numbers of `sac`"""
    dqn: DQNConfig = field(default_factory=DQNConfig)
    """numbers of `dqn`"""
    normalise: bool = True
    """standardise observations and goals by running statistics of the rows that are learned from"""
    watched: int | None = None
    """updates whose rows count for these statistics; None for all"""

    def __post_init__(self) -> None:
        if self.algorithm not in ("ddpg", "sac", "dqn"):
            raise ValueError(f"algorithm={self.algorithm!r} must be 'ddpg', 'sac' or 'dqn'")

    @property
    def discount(self) -> float:
        """gamma of the chosen algorithm."""
        numbers: DDPGConfig | SACConfig | DQNConfig = getattr(self, self.algorithm)
        return numbers.discount

    def build(self, spec: GameSpec, streams: Streams, device: torch.device) -> tuple[OffPolicyAlgorithm[Any], Actor]:
        """The learner and its policy on a game.

        Raises:
            GameError: the algorithm does not suit the game.
        """
        init_rng = streams("learner", "cpu")
        if not spec.goal_dim:
            return self._plain(spec, init_rng, device)
        normaliser = RunningNormaliser(spec.obs_dim + spec.goal_dim).to(device) if self.normalise else None
        seen = GoalView(spec, normaliser)
        learner, actor = self._plain(seen.spec, init_rng, device)
        return GoalConditioned(learner, seen, watched=self.watched), GoalActor(actor, seen)

    def _plain(
        self, spec: GameSpec, rng: torch.Generator, device: torch.device
    ) -> tuple[OffPolicyAlgorithm[Any], Actor]:
        if self.algorithm == "ddpg":
            return build_ddpg(spec, self.ddpg, rng, device)
        if self.algorithm == "sac":
            return build_sac(spec, self.sac, rng, device)
        return build_dqn(spec, self.dqn, rng, device)


def value_of(learner: OffPolicyAlgorithm[Any], actor: Actor) -> Callable[[View, Tensor], Tensor]:
    """What the policy of a learner of goals expects from B views in pursuit of goals `(B, G)`: Q(s, pi(s, g), g), the
    smaller one of two critics; `(B,)`.

    Args:
        learner, actor: as `GoalLearnerConfig.build` gives them.

    Raises:
        GameError: they are those of a game without goals.
    """
    if not isinstance(learner, GoalConditioned) or not isinstance(actor, GoalActor):
        raise GameError("the value of pursuing a goal needs a learner of goals; this game has none")
    seen, critic_of, policy = learner.goal_view, learner.learner, actor.actor

    @torch.no_grad()
    def value(view: View, goals: Tensor) -> Tensor:
        now = seen.view(replace(view, desired=goals))
        if isinstance(critic_of, LeanDQN):
            values: Tensor = critic_of.policy.model(now.obs)[0]
            return values.masked_fill(~now.legal, -torch.inf).amax(1)
        act = policy.step(policy.init(first_window(seen.spec, now)), now, None)[1]
        critics: list[Any] = [getattr(critic_of, name) for name in ("critic", "critic2") if hasattr(critic_of, name)]
        return torch.stack([critic(now.obs, act)[:, 0] for critic in critics]).amin(0)

    return value
