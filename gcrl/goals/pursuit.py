"""A run's episodes under the goals that a source proposes, in place of the game's own.

A goal is pursued for a whole episode. Its rows are stored under it, paid and ended as the game's rule says of it, so
that whatever learns from them needs to know nothing of all this; evaluations keep the game's own goals.

Shape suffixes: C copies of the game, G goal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameSpec, GoalRule, Rows, View
from presage.common.method import Metrics
from presage.common.relabel import Goals
from presage.gcrl.goals.source import GoalSource, Pursuits

REMEMBERED = 100
"""newest pursuits whose successes are counted"""


class Pursuit(nn.Module):
    """Asks a source for goals when episodes begin, and tells it how they went; a `presage.common.method.Pursuer`."""

    checkpoint_skip = ("goals",)
    """the game's rule"""

    def __init__(
        self, spec: GameSpec, rule: GoalRule, source: GoalSource, rng: torch.Generator, *, learn_every: int = 500,
        wander: float = 0.0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec, rule: the game and its `goal_rule`. source: of goals. rng: on the device, for all that it draws.
            learn_every: env steps after which the source is fitted anew, when it is next asked.
            wander: what is added to the chance of a random action with every env step since the episode's goal was
                first reached, so that an episode goes on to explore from there (Pitis et al. 2020; 0.1 in their code).

        Raises:
            GameError: the game has no goals.
            ValueError: a number is out of range.
        """
        super().__init__()
        if learn_every < 1 or not 0 <= wander <= 1:
            raise ValueError(f"learn_every={learn_every} must be >= 1 and wander={wander} lie in [0, 1]")
        self.goals, self.source, self.rng = Goals(spec, rule, device=device), source, rng
        self.learn_every, self.wander = learn_every, wander
        self.since = learn_every
        """env steps since the source was fitted"""
        self.open: dict[str, Tensor] = {}
        """of every copy's open episode: its first view, by field, with `begins (C,)` bool, whether it begins with the
        next view, `goal (C, G)`, and `wandering (C,)`, env steps since the goal was first reached, 0 until then; empty
        before the run's first view"""
        self.successes: deque[bool] = deque(maxlen=REMEMBERED)
        """whether the goals of the newest episodes that are over were reached"""
        self.metrics: Metrics = {}

    def aim(self, view: View, replay: EpisodicReplay) -> View:
        """What is seen, under the goals that are pursued; those of episodes that begin are proposed now."""
        held = self.open
        if not held:
            first = {field.name: getattr(view, field.name).clone() for field in fields(View)}
            begins = torch.ones(len(view), dtype=torch.bool, device=view.obs.device)
            held = self.open = {**first, "begins": begins, "goal": view.desired, "wandering": begins.long()}
        if bool(held["begins"].any()):
            self._begin(view, replay)
        return replace(view, desired=held["goal"])

    def _begin(self, view: View, replay: EpisodicReplay) -> None:
        """Fit the source if that is due, and ask it for the goals of the episodes that begin."""
        held = self.open
        begins = held["begins"]
        if self.since >= self.learn_every and len(replay):
            self.source.learn(replay, self.rng)
            self.since = 0
            outcomes = replay.achieved_after(replay.latest(10_000)[:, None])
            self.metrics["goal/achieved_spread"] = float(outcomes.std(0, unbiased=False).mean())
            self.metrics |= self.source.metrics
        goals = self.source.propose(view[begins], replay, self.rng)
        for field in fields(View):
            held[field.name] = torch.where(begins[:, None], getattr(view, field.name), held[field.name])
        held["goal"] = held["goal"].masked_scatter(begins[:, None], goals)
        held["wandering"] = held["wandering"].masked_fill(begins, 0)
        held["begins"] = torch.zeros_like(begins)

    def explore(self, view: View, act: Tensor) -> Tensor:
        """The joint actions `(C, A)`, some of them random where goals have been reached."""
        if self.wander == 0:
            return act
        spec = self.goals.spec
        other = spec.random_action(view.acting, view.legal, self.rng)
        chance = torch.rand(len(act), generator=self.rng, device=act.device)
        return torch.where((chance < self.wander * self.open["wandering"])[:, None], other, act)

    def rows(self, rows: Rows) -> Rows:
        """One env step of every copy as it is to be stored: under the goal that was pursued in it."""
        goal, wandering = self.open["goal"], self.open["wandering"]
        everyone = torch.ones(1, 1, dtype=torch.bool, device=rows.obs.device)
        found = self.goals.replaced(rows, goal, everyone.expand(len(rows), self.goals.groups))
        over = rows.truncated | rows.terminated.all(1)
        found = found.with_(truncated=rows.truncated | (over & ~found.terminated.all(1)))
        reached = self.goals.rule.success(rows.next_achieved, goal).all(1)
        self.open["wandering"] = wandering + ((wandering > 0) | reached)
        self.since += len(rows)
        if bool(over.any()):
            self._ended(over)
        return found

    def _ended(self, over: Tensor) -> None:
        held = self.open
        reached, goals = held["wandering"][over] > 0, held["goal"][over]
        start = View(**{field.name: held[field.name][over] for field in fields(View)})
        self.source.ended(Pursuits(start=start, goals=goals, reached=reached))
        self.successes.extend(reached.tolist())
        held["begins"] = over
        self.metrics |= {
            "goal/pursued_success_rate": sum(self.successes) / len(self.successes),
            "goal/pursued_apart": float((goals - start.desired).square().sum(1).sqrt().mean()),
        }

    def drop(self, copies: Sequence[int]) -> None:
        """Forget the open episodes of these copies, whose next ones begin."""
        self.open["begins"][list(copies)] = True
