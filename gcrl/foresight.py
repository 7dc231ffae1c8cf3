"""Foresight goal inference (Zhu et al. 2021, "MapGo", 2105.06350): a row is learned from as if the goal had been where
the present policy, in the learned model, would get to from where the row led.

Hindsight takes goals that an older policy reached in the same episode. Foresight asks the model where the present one
would go, and so follows it, and gives other goals at every draw; but only as far ahead as the model can be trusted.

Shape suffixes: B rows, G goal, K groups of agents that share a goal (one agent: 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import ALL_AGENTS, Actor, GameError, GameSpec, GoalRule, Kernel, Rows, View, Window
from presage.common.relabel import Ends, Goals

Doubt = Callable[[View, Tensor], Tensor]
"""how little the model is to be trusted, `(B,)`, for the steps from B views by the actions `(B, A)`"""


@dataclass(frozen=True, kw_only=True)
class ForesightConfig:
    """How far to look, and what is pursued meanwhile. The defaults are those of the released code."""

    length: int = 10
    """H, imagined steps at most; >= 0, and 0 is hindsight alone"""
    shortest: int = 1
    """imagined steps at least: 1, or 0, where the row's own outcome can be its goal"""
    steps: Literal["hindsight", "uniform"] = "hindsight"
    """"hindsight": as many as lie between the row and one of its episode's later rows, drawn at random; where these are
    more than `length`, the row gets a later outcome of its episode instead. "uniform": any number up to `length`"""
    pursued: Literal["future", "kept"] = "future"
    """what the policy is after while it is imagined: a later outcome of the row's episode, or the row's own goal"""
    greedy: bool = False
    """whether it acts greedily, or as it explores"""
    keep: float = 0.0
    """share of the rows that keep their goal, in [0, 1]"""
    trusted: float | None = None
    """quantile in (0, 1): a branch ends before a step that is doubted more than this share of the first ones, which
    start from real states; None: it never does"""
    low: tuple[float, ...] = ()
    """(G) or (): goals below it anywhere are not taken, but replaced by hindsight"""
    high: tuple[float, ...] = ()
    """(G) or (): likewise above it"""

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError(f"length={self.length} must be >= 0")
        if self.shortest not in (0, 1):
            raise ValueError(f"shortest={self.shortest} must be 0 or 1")
        for name, known in (("steps", ("hindsight", "uniform")), ("pursued", ("future", "kept"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(map(repr, known))}")
        if self.steps == "uniform" and self.length < self.shortest:
            raise ValueError(f"steps='uniform' needs length={self.length} >= shortest={self.shortest}")
        if not 0 <= self.keep <= 1:
            raise ValueError(f"keep={self.keep} must lie in [0, 1]")
        if self.trusted is not None and not 0 < self.trusted < 1:
            raise ValueError(f"trusted={self.trusted} must lie in (0, 1), or be None")


class Foresight:
    """The relabeller of foresight goal inference; a `presage.common.relabel.Relabeller`."""

    def __init__(
        self, spec: GameSpec, rule: GoalRule, kernel: Kernel, actor: Actor, config: ForesightConfig | None = None, *,
        doubt: Doubt | None = None, ends: Ends = "rule", device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec, rule: the game and its `goal_rule`. kernel: what is imagined in. actor: the present policies.
            doubt: needed where the configuration trusts a quantile. ends: see `Goals`.

        Raises:
            GameError: the game has no goals, or the bounds are not as wide as they are.
            ValueError: a quantile is to be trusted, and there is no `doubt`.
        """
        self.goals, self.config = Goals(spec, rule, ends, device), config or ForesightConfig()
        self.spec, self.kernel, self.actor, self.doubt = spec, kernel, actor, doubt
        if self.config.trusted is not None and doubt is None:
            raise ValueError(f"trusted={self.config.trusted} needs to know how far the model is off; pass doubt=...")
        self._bounds: dict[str, Tensor] = {}
        for name in ("low", "high"):
            bound = getattr(self.config, name)
            if bound and len(bound) != spec.goal_dim:
                raise GameError(
                    f"{name}={bound} must have one number for each of the {spec.goal_dim} entries of a goal"
                )
            if bound:
                self._bounds[name] = torch.tensor(bound, device=device)
        self.metrics: dict[str, Tensor] = {}
        """of the latest call: shares of the goals that were foreseen, and of those that the row itself reaches"""

    @torch.no_grad()
    def __call__(self, replay: EpisodicReplay, index: Tensor, rows: Rows, rng: torch.Generator) -> Rows:
        """The rows at `index (B,)` of `replay` under the goals inferred for them; see `Relabeller`."""
        config, goals, device = self.config, self.goals, index.device
        shape = (len(index), goals.groups)
        chance = torch.rand(3, *shape, generator=rng, device=device, dtype=torch.float64)
        ahead = replay.span(index).after[:, None] + 1  # later outcomes, the row's own among them
        later, otherwise = (self._outcome(replay, index, (part * ahead).long()) for part in chance[:2])
        if config.steps == "hindsight":
            steps = (chance[2] * ahead).long() + config.shortest
        else:
            steps = config.shortest + (chance[2] * (config.length + 1 - config.shortest)).long()
        foreseen = steps <= config.length
        some = foreseen.any(1).nonzero().squeeze(1)
        wanted = later if config.pursued == "future" else rows.desired
        found, sure = self._imagine(replay, index[some], wanted[some], torch.where(foreseen, steps, 0)[some], rng)
        foreseen = foreseen.index_put((some,), foreseen[some] & sure)
        there = torch.zeros_like(otherwise).index_copy(0, some, found)
        desired = torch.where(goals.by_entry(foreseen), there, otherwise)
        chosen = goals.places(len(index), rng) >= config.keep
        answer = goals.replaced(rows, desired, chosen)
        self.metrics = {
            "goal/foreseen_share": (foreseen & chosen).double().mean(),
            "goal/reached_share": goals.rule.success(rows.next_achieved, answer.desired).double().mean(),
        }
        return answer

    def _imagine(
        self, replay: EpisodicReplay, index: Tensor, wanted: Tensor, steps: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Where the policy is after `steps (B, K)` from the outcomes of the rows at `index (B,)`, in pursuit of
        `wanted (B, G)`.

        Returns:
            `(B, G)` goals, and `(B, K)` whether they lie within the bounds.
        """
        window = replay.window(index, self.spec.frames, after=True)
        view = replace(window.now, desired=wanted)
        window = Window(obs=window.obs, act=window.act, valid=window.valid, now=view)
        everyone = torch.full((len(index),), ALL_AGENTS, device=index.device)
        carry, memory = self.kernel.init(window, everyone, rng), self.actor.init(window)
        alive = torch.ones(len(index), dtype=torch.bool, device=index.device)
        place, at = self.goals.by_entry(steps), view.achieved
        found, most = at, None
        longest = int(steps.max()) if steps.numel() else 0
        for step in range(1, longest + 1):
            memory, act = self.actor.step(memory, view, None if self.config.greedy else rng)
            if self.config.trusted is not None and self.doubt is not None:
                doubt = self.doubt(view, act)
                most = torch.quantile(doubt, self.config.trusted) if most is None else most
                alive = alive & (doubt <= most)
            carry, outcome = self.kernel.step(carry, view, act, rng)
            view = outcome.after
            at = torch.where(alive[:, None], view.achieved, at)
            found = torch.where(place == step, at, found)
            alive = alive & ~outcome.terminated.all(1)
        inside = torch.ones_like(found, dtype=torch.bool)
        if "low" in self._bounds:
            inside &= found >= self._bounds["low"]
        if "high" in self._bounds:
            inside &= found <= self._bounds["high"]
        outside = torch.zeros(steps.shape, dtype=torch.long, device=steps.device)
        outside.index_add_(1, self.goals.of_entry, (~inside).long())
        return found, outside == 0

    def _outcome(self, replay: EpisodicReplay, index: Tensor, ahead: Tensor) -> Tensor:
        """What was achieved after the rows that lie `ahead (B, K)` of those at `index (B,)`: `(B, G)`."""
        return replay.achieved_after(self.goals.by_entry(replay.shifted(index[:, None], ahead)))
