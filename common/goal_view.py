"""Goal-conditioned learning by composition: a learner that knows nothing of goals reads them behind what it observes.

`GoalView` turns a game of goals into the game that such a learner sees; `GoalConditioned` hands it rows of that game,
and `GoalActor` plays by its policy. Inputs can be standardised by running statistics, as in Plappert et al. 2018.

Shape suffixes: B rows, N agents, O observation, G goal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm, Policy, TrainingStats
from tianshou.data import ReplayBuffer
from torch import Tensor, nn

from presage.common.game import Actor, Carry, GameSpec, Rows, Symmetry, View, Window
from presage.common.one_batch import OneBatch


class RunningNormaliser(nn.Module):
    """Standardises columns by mean and deviation of all rows that it has been shown; sums are kept in float64.

    Inputs are held to `[-most, most]` before, and to `[-limit, limit]` after (Plappert et al. 2018 and its code).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, *, least: float = 0.01, limit: float = 5.0, most: float = 200.0) -> None:
        """
        Args:
            least: the smallest deviation that is divided by; > 0.
        """
        super().__init__()
        if not (least > 0 and limit > 0 and most > 0):
            raise ValueError(f"least={least}, limit={limit} and most={most} must be > 0")
        self.least, self.limit, self.most = least, limit, most
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Take `x (B, width)` into the statistics."""
        exact = x.clamp(-self.most, self.most).double()
        count, total, squares = (self.get_buffer(name) for name in ("count", "total", "squares"))
        count += len(x)
        total += exact.sum(0)
        squares += exact.square().sum(0)
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((squares / count - mean.square()).clamp_min(self.least**2).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """`x (B, width)` standardised."""
        return ((x.clamp(-self.most, self.most) - self.mean) / self.std).clamp(-self.limit, self.limit)


class GoalView:
    """A game of goals as a learner without goals sees it: every agent's observation ends with its goal."""

    def __init__(self, spec: GameSpec, normaliser: RunningNormaliser | None = None) -> None:
        """
        Args:
            normaliser: of the joint observation with the joint goal behind it, `O + G` wide.
        """
        self.normaliser = normaliser
        start = spec.obs_dim
        self.spec = replace(
            spec,
            agents=tuple(
                replace(agent, obs=(*agent.obs, *(start + k for k in agent.goal)), goal=()) for agent in spec.agents
            ),
            obs_dim=start + spec.goal_dim, goal_dim=0, achieved=(), known=(),
            symmetries=tuple(
                Symmetry(obs=(*each.obs, *(start + k for k in each.goal)), act=each.act, agents=each.agents)
                for each in spec.symmetries
            ),
        )  # fmt: skip
        """the game that is seen; what is known of columns beforehand is left out"""

    def obs(self, obs: Tensor, desired: Tensor) -> Tensor:
        """`(B, O)` and `(B, G)` as `(B, O + G)`, standardised where there is a normaliser."""
        both = torch.cat([obs, desired], 1)
        return both if self.normaliser is None else self.normaliser(both)

    def view(self, view: View) -> View:
        """What is seen before acting."""
        nothing = view.obs[:, :0]
        return replace(view, obs=self.obs(view.obs, view.desired), achieved=nothing, desired=nothing)

    def window(self, window: Window) -> Window:
        """A window whose goal was the present one all along."""
        size, length = window.valid.shape
        desired = window.now.desired[:, None].expand(-1, length, -1).reshape(size * length, -1)
        obs = self.obs(window.obs.reshape(size * length, -1), desired).view(size, length, -1)
        return replace(window, obs=obs, now=self.view(window.now))

    def rows(self, rows: Rows) -> Rows:
        """Transitions between what is seen."""
        nothing = rows.obs[:, :0]
        return rows.with_(
            obs=self.obs(rows.obs, rows.desired), next_obs=self.obs(rows.next_obs, rows.desired), achieved=nothing,
            next_achieved=nothing, desired=nothing,
        )  # fmt: skip


class GoalConditioned(OffPolicyAlgorithm[Policy]):
    """A tianshou algorithm for a `GoalView`'s game that is updated with rows of the game of goals.

    Statistics of the inputs are those of the rows it is updated with, whose goals are the relabelled ones.
    """

    checkpoint_skip = ("goal_view",)
    """its normaliser is saved by itself"""

    def __init__(self, learner: OffPolicyAlgorithm[Any], goal_view: GoalView, *, watched: int | None = None) -> None:
        """
        Args:
            learner: built for `goal_view.spec`.
            watched: updates whose rows count for the statistics of the inputs; None for all.

        Raises:
            ValueError: `watched` is below 1.
        """
        if watched is not None and watched < 1:
            raise ValueError(f"watched={watched} must be >= 1, or None")
        super().__init__(policy=learner.policy)
        self.learner, self.goal_view, self.watched = learner, goal_view, watched
        self.normaliser = goal_view.normaliser
        if self.normaliser is not None:  # whoever acts by the policy needs it as well
            self.policy.add_module("normaliser", self.normaliser)
        self.updates = 0

    @property
    def gamma(self) -> Any:
        """The learner's discount."""
        return self.learner.gamma

    @property
    def metrics(self) -> Any:
        """What a learner for several agents says of its last update."""
        return getattr(self.learner, "metrics", None)

    def update(self, buffer: ReplayBuffer, sample_size: int | None) -> TrainingStats:
        """One update with the rows of a `OneBatch`.

        Raises:
            TypeError: another buffer.
        """
        if not isinstance(buffer, OneBatch):
            raise TypeError(f"updates take a OneBatch of rows, got {type(buffer).__name__}")
        rows = buffer.rows
        if self.normaliser is not None and (self.watched is None or self.updates < self.watched):
            self.normaliser.add(torch.cat([rows.obs, rows.desired], 1))
        self.updates += 1
        return self.learner.update(OneBatch(self.goal_view.rows(rows)), sample_size)

    def _update_with_batch(self, batch: Any) -> TrainingStats:
        return self.learner._update_with_batch(batch)


class GoalActor:
    """Plays the game of goals by an actor for a `GoalView`'s game."""

    def __init__(self, actor: Actor, goal_view: GoalView) -> None:
        self.actor, self.goal_view = actor, goal_view
        compared: Callable[[nn.Module, View], Tensor] | None = getattr(actor, "divergence", None)
        self.divergence = None if compared is None else partial(self._divergence, compared)
        """as the actor's own; None where it has none"""

    def init(self, window: Window) -> Carry:
        """What the actor remembers at the end of `window`."""
        return self.actor.init(self.goal_view.window(window))

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`, greedy where rng is None."""
        return self.actor.step(carry, self.goal_view.view(view), rng)

    def _divergence(self, compared: Callable[[nn.Module, View], Tensor], earlier: nn.Module, view: View) -> Tensor:
        return compared(earlier, self.goal_view.view(view))
