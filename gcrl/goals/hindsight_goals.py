"""Goals that lead towards the game's own by way of what has been achieved: hindsight goal generation (Ren, Dong, Zhou,
Liu, Peng 2019, "Exploration via Hindsight Goal Generation", 1906.04279).

Desired goals are matched one to one to trajectories that were achieved, at the least total cost: how far a trajectory
comes to the goal, how hard the place is for the policy to reach, and how far apart both starts are. An episode pursues
the place on its trajectory that is best for its goal.

Shape suffixes: C episodes, I trajectories, J desired goals, T steps, G goal.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import View
from presage.gcrl.goals.maximum_entropy import Value
from presage.gcrl.goals.source import NOTHING, Pursuits


@dataclass(frozen=True, kw_only=True)
class HindsightGoalsConfig:
    """The numbers of hindsight goal generation, by its authors' code."""

    pool: int = 1_000
    """I, newest trajectories that goals are matched to; >= 1"""
    matched: int = 50
    """J, desired goals that are matched together: those of the episodes that begin, and the newest before them; >= 1"""
    lipschitz: float = 5.0
    """L: how much the value can change with the goal; > 0"""
    start_weight: float = 3.0
    """c: weight of how far apart the starts of an episode and a trajectory are; >= 0"""
    moved: float = 0.01
    """how far from its start a trajectory has to end; >= 0"""
    noise: float = 0.0
    """standard deviation of what is added to goals; >= 0"""

    def __post_init__(self) -> None:
        if self.pool < 1 or self.matched < 1:
            raise ValueError(f"pool={self.pool} and matched={self.matched} must be >= 1")
        if self.lipschitz <= 0:
            raise ValueError(f"lipschitz={self.lipschitz} must be > 0")
        if self.start_weight < 0 or self.moved < 0 or self.noise < 0:
            raise ValueError(
                f"start_weight={self.start_weight}, moved={self.moved} and noise={self.noise} must be >= 0"
            )


def trajectory_costs(trails: Tensor, there: Tensor, prices: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
    """How far every trajectory is from every goal, `(J, I)`, and the step where it is nearest, `(J, I)`.

    Args:
        trails: `(I, T, G)` achieved goals. there: `(I, T)` bool, false after a trajectory's end.
        prices: `(I, T)` what is added to the distance at every step. goals: `(J, G)`.
    """
    size, length, width = trails.shape
    apart = torch.cdist(goals, trails.reshape(size * length, width)).view(len(goals), size, length)
    total = (apart + prices).masked_fill(~there, torch.inf)
    found = total.min(2)
    return found.values, found.indices


class HindsightGoals(nn.Module):
    """The source of hindsight goal generation's goals; a `GoalSource`. Trajectories are read off the replay."""

    checkpoint_skip = ("value",)
    """the policy's business"""
    metrics = NOTHING

    def __init__(
        self, width: int, value: Value, reach: float, config: HindsightGoalsConfig | None = None, *,
        discount: float = 0.98,
    ) -> None:  # fmt: skip
        """
        Args:
            width: G. value: of the policy that pursues. reach: the largest distance between start and goal, > 0.
            discount: gamma of the value, whose rewards are -1 and 0; in [0, 1).

        Raises:
            ValueError: `reach` or `discount` is out of range.
        """
        super().__init__()
        if reach <= 0 or not 0 <= discount < 1:
            raise ValueError(f"reach={reach} must be > 0 and discount={discount} lie in [0, 1)")
        self.config, self.value, self.reach = config or HindsightGoalsConfig(), value, reach
        self.discount = discount
        self.register_buffer("wanted", torch.zeros(self.config.matched, 2 * width))
        self.met = 0
        """desired goals so far; `wanted` is a ring of the newest, each with what was achieved at its start"""
        self.held: dict[str, Tensor] = {}
        """the trajectories' first views, by field, with `trails (I, T, G)` and `there (I, T)`, which is false after a
        trajectory's end; empty until there are some"""

    @torch.no_grad()
    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """Goals `(C, G)`: places on the matched trajectories; the game's own where there is none to match."""
        if not self.held:
            return start.desired
        trails, there = self.held["trails"], self.held["there"]
        begun = View(**{field.name: self.held[field.name] for field in fields(View)})
        config, size, width = self.config, len(start), start.desired.shape[1]
        earlier = self.get_buffer("wanted")[: min(self.met, max(config.matched - size, 0))]
        goals = torch.cat([start.desired, earlier[:, :width]])
        begins = torch.cat([start.achieved, earlier[:, width:]])
        many, length, _ = trails.shape
        rows = torch.arange(many, device=goals.device).repeat_interleave(length)
        values = self.value(begun[rows], trails.reshape(-1, width)).view(many, length)
        values = values.clamp(-1.0 / (1.0 - self.discount), 0.0)
        prices = -self.reach * (1.0 - self.discount) / config.lipschitz * values
        costs, steps = trajectory_costs(trails, there, prices, goals)
        costs = costs + config.start_weight * torch.cdist(begins, begun.achieved)
        wants, takes = (torch.from_numpy(each) for each in linear_sum_assignment(costs.cpu().numpy()))
        mine = wants < size
        wants, takes = (each[mine].to(goals.device) for each in (wants, takes))
        chosen = start.desired.clone()
        places = trails[takes, steps[wants, takes]]
        chosen[wants] = places + config.noise * torch.randn(places.shape, generator=rng, device=places.device)
        return chosen

    def ended(self, pursuits: Pursuits) -> None:
        """Remember the game's own goals."""
        wanted = self.get_buffer("wanted")
        newest = torch.cat([pursuits.start.desired, pursuits.start.achieved], 1)[-len(wanted) :]
        wanted[torch.arange(self.met, self.met + len(newest), device=wanted.device) % len(wanted)] = newest
        self.met += len(newest)

    @torch.no_grad()
    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Read the newest trajectories that moved off the replay."""
        newest = replay.lanes * replay.slots
        if replay.spec.episode_limit is not None:  # of so many rows at least `pool` begin an episode
            newest = min(newest, (self.config.pool + replay.lanes) * replay.spec.episode_limit)
        index = replay.latest(newest)
        rows = replay.rows(index)
        first = (rows.step == 0).nonzero()[:, 0]
        if not len(first):
            return
        begin = index[first]
        after = replay.span(begin).after
        ahead = torch.arange(int(after.max()) + 1, device=begin.device)
        there = ahead[None] <= after[:, None]
        at = replay.shifted(begin[:, None], torch.minimum(ahead[None], after[:, None]))
        trails = replay.achieved_after(at.reshape(-1, 1)).view(*at.shape, -1)
        starts = rows.view[first]
        moved = (trails[:, -1] - starts.achieved).square().sum(1).sqrt() > self.config.moved
        keep = moved.nonzero()[:, 0][-self.config.pool :]
        if len(keep):
            views = {field.name: getattr(starts, field.name)[keep] for field in fields(View)}
            self.held = {**views, "trails": trails[keep], "there": there[keep]}
