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
from presage.common.relabel import Ends, Goals
from presage.gcrl.goals.source import GoalSource, Pursuits

REMEMBERED = 100
"""newest pursuits whose successes are counted"""


class Pursuit(nn.Module):
    """Asks a source for goals when episodes begin, and tells it how they went; a `presage.common.method.Pursuer`."""

    checkpoint_skip = ("goals",)
    """the game's rule"""

    def __init__(
        self, spec: GameSpec, rule: GoalRule, source: GoalSource, rng: torch.Generator, *, learn_every: int = 500,
        wander: float = 0.0, ends: Ends = "rule", device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec, rule: the game and its `goal_rule`. source: of goals. rng: on the device, for all that it draws.
            learn_every: env steps after which the source is fitted anew, when it is next asked.
            wander: what is added to the chance of a random action with every env step since the episode's goal was
                first reached, so that an episode goes on to explore from there (Pitis et al. 2020; 0.1 in their code).
            ends: when a row has no future; see `presage.common.relabel.Goals`.

        Raises:
            GameError: the game has no goals.
            ValueError: a number is out of range.
        """
        super().__init__()
        if learn_every < 1 or not 0 <= wander <= 1:
            raise ValueError(f"learn_every={learn_every} must be >= 1 and wander={wander} lie in [0, 1]")
        self.goals, self.source, self.rng = Goals(spec, rule, ends, device), source, rng
        self.learn_every, self.wander = learn_every, wander
        self.since = learn_every
        """env steps since the source was fitted"""
        nobody = torch.zeros(0, device=device)
        self.begins = nobody.bool()
        """(C,) bool: copies whose episode begins with the next view"""
        self.desired = nobody
        """(C, G) the goals that are pursued"""
        self.wandering = nobody.long()
        """(C,) env steps since the goal was first reached; 0 until then"""
        self.starts: dict[str, Tensor] = {}
        """the first views of the open episodes, by field"""
        self.successes: deque[bool] = deque(maxlen=REMEMBERED)
        """whether the goals of the newest episodes that are over were reached"""
        self.metrics: Metrics = {}

    def aim(self, view: View, replay: EpisodicReplay) -> View:
        """What is seen, under the goals that are pursued; those of episodes that begin are proposed now."""
        if len(self.begins) != len(view):  # the run's first view
            self.begins = torch.ones(len(view), dtype=torch.bool, device=view.obs.device)
            self.desired, self.wandering = view.desired.clone(), self.begins.long() * 0
            self.starts = {field.name: getattr(view, field.name).clone() for field in fields(View)}
        if bool(self.begins.any()):
            if self.since >= self.learn_every and len(replay):
                self.source.learn(replay, self.rng)
                self.since = 0
                outcomes = replay.achieved_after(replay.latest(10_000)[:, None])
                self.metrics["goal/achieved_spread"] = float(outcomes.std(0, unbiased=False).mean())
            goals = self.source.propose(view[self.begins], replay, self.rng)
            self.desired = self.desired.masked_scatter(self.begins[:, None], goals)
            self.wandering = self.wandering.masked_fill(self.begins, 0)
            for name, kept in self.starts.items():
                new = getattr(view, name)
                self.starts[name] = torch.where(self.begins[:, None], new, kept)
            self.begins = torch.zeros_like(self.begins)
        return replace(view, desired=self.desired)

    def explore(self, view: View, act: Tensor) -> Tensor:
        """The joint actions `(C, A)`, some of them random where goals have been reached."""
        if self.wander == 0:
            return act
        spec = self.goals.spec
        other = spec.random_action(view.acting, view.legal, self.rng)
        chance = torch.rand(len(act), generator=self.rng, device=act.device)
        return torch.where((chance < self.wander * self.wandering)[:, None], other, act)

    def rows(self, rows: Rows) -> Rows:
        """One env step of every copy as it is to be stored: under the goal that was pursued in it."""
        everyone = torch.ones(1, 1, dtype=torch.bool, device=rows.obs.device)
        found = self.goals.replaced(rows, self.desired, everyone.expand(len(rows), self.goals.groups))
        over = rows.truncated | rows.terminated.all(1)
        found = found.with_(truncated=rows.truncated | (over & ~found.terminated.all(1)))
        reached = self.goals.rule.success(rows.next_achieved, self.desired).all(1)
        self.wandering += (self.wandering > 0) | reached
        self.since += len(rows)
        if bool(over.any()):
            self._ended(over)
        return found

    def _ended(self, over: Tensor) -> None:
        reached = self.wandering[over] > 0
        start = View(**{name: kept[over] for name, kept in self.starts.items()})
        goals = self.desired[over]
        self.source.ended(Pursuits(start=start, goals=goals, reached=reached))
        self.successes.extend(reached.tolist())
        self.begins = over
        self.metrics |= {
            "goal/pursued_success_rate": sum(self.successes) / len(self.successes),
            "goal/pursued_apart": float((goals - start.desired).square().sum(1).sqrt().mean()),
        }

    def drop(self, copies: Sequence[int]) -> None:
        """Forget the open episodes of these copies, whose next ones begin."""
        self.begins[list(copies)] = True
