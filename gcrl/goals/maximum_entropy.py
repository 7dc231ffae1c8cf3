"""Goals that spread what is achieved: MEGA and OMEGA (Pitis, Chan, Zhao, Stadie, Ba 2020, 2007.02832), and resampling
by a power of the density, as in Skew-Fit (Pong et al. 2020, 1903.03698).

Pursuing what has seldom been achieved adds most to the entropy of all that is achieved: mixing a little of q into p
changes it at the rate CE(q, p) - H(p), and a pursuit that ends at g makes q a point at g. So MEGA pursues, of goals
that have been achieved and that the policy can reach from where it is, the least dense. OMEGA turns to the game's own
goals as the distribution of achieved goals comes to cover them.

Shape suffixes: C episodes, M candidates, G goal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import View
from presage.gcrl.goals.density import KernelDensity
from presage.gcrl.goals.source import Pursuits

Value = Callable[[View, Tensor], Tensor]
"""what the policy expects from B views in pursuit of the goals `(B, G)`: `(B,)`"""


@dataclass(frozen=True, kw_only=True)
class MaximumEntropyConfig:
    """The numbers of MEGA, by its authors' code."""

    candidates: int = 100
    """M, achieved goals that each episode's is chosen among; >= 1"""
    fitted: int = 10_000
    """achieved goals that the density is fitted to; >= 2"""
    bandwidth: float = 0.1
    """of the density's Gaussians; > 0"""
    power: float | None = None
    """None: the least dense candidate; else candidates are drawn by this power of their density: 0 is any alike, -1
    makes achieved goals uniform in one step (Skew-Fit)"""
    annealed: bool = False
    """OMEGA: pursue the game's own goal with a chance that grows as achieved goals come to cover it"""
    offset: float = -3.0
    """OMEGA: b in the chance 1 / max(b + KL(desired || achieved), 1)"""
    remembered: int = 1_000
    """OMEGA: newest of the game's own goals that their density is fitted to; >= 2"""
    cutoff: float = -3.0
    """value from which on a goal counts as reachable, at first and at most; for rewards of -1 and 0"""
    lowest: float | None = None
    """what the cutoff cannot fall below; <= cutoff. None: the value of a goal that is four fifths of an episode away"""
    judged: int = 10
    """episodes by whose successes the cutoff is moved; >= 1"""

    def __post_init__(self) -> None:
        low = {"candidates": (self.candidates, 1), "fitted": (self.fitted, 2), "remembered": (self.remembered, 2),
               "judged": (self.judged, 1)}  # fmt: skip
        for name, (value, least) in low.items():
            if value < least:
                raise ValueError(f"{name}={value} must be >= {least}")
        if self.bandwidth <= 0 or (self.lowest is not None and self.lowest > self.cutoff):
            raise ValueError(f"bandwidth={self.bandwidth} must be > 0, lowest={self.lowest} <= cutoff={self.cutoff}")


class MaximumEntropy(nn.Module):
    """The source of MEGA's goals, OMEGA's and Skew-Fit's; a `GoalSource`."""

    checkpoint_skip = ("value",)
    """the policy's business"""

    def __init__(
        self, width: int, value: Value, config: MaximumEntropyConfig | None = None, *, discount: float = 0.98,
        episode_limit: int | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            width: G. value: of the policy that pursues. discount: of that value. episode_limit: most env steps of an
                episode; both tell the lowest cutoff where `config` does not.
        """
        super().__init__()
        self.config, self.value = config or MaximumEntropyConfig(), value
        self.achieved = KernelDensity(width, self.config.fitted, self.config.bandwidth)
        self.desired = KernelDensity(width, self.config.remembered, self.config.bandwidth)
        self.register_buffer("wanted", torch.zeros(self.config.remembered, width))
        self.met = 0
        """of the game's own goals so far; `wanted` is a ring of the newest"""
        self.lowest = lowest_cutoff(discount, episode_limit) if self.config.lowest is None else self.config.lowest
        self.cutoff = self.config.cutoff
        """value from which on a goal counts as reachable now"""
        self.successes: list[bool] = []
        """of the latest episodes, since the cutoff was last judged"""
        self.chance = 1.0
        """of the game's own goal, with OMEGA"""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The cutoff, and OMEGA's chance."""
        found = {"goal/cutoff": self.cutoff}
        return found | ({"goal/chance_of_own": self.chance} if self.config.annealed else {})

    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """Goals `(C, G)`; before the first fit the game's own."""
        if not self.achieved.count:
            return start.desired
        size, many = len(start), self.config.candidates
        goals = replay.achieved_after(replay.sample(size * many, rng)[:, None])
        rows = torch.arange(size, device=goals.device).repeat_interleave(many)
        with torch.no_grad():
            values = self.value(start[rows], goals).view(size, many)
            own = self.value(start, start.desired) if self.config.annealed else None
        chosen = self.choose(goals.view(size, many, -1), values, rng)
        if own is None:
            return chosen
        turn = torch.rand(size, generator=rng, device=goals.device) < self.chance
        return torch.where((turn & (own >= self.cutoff))[:, None], start.desired, chosen)

    def choose(self, candidates: Tensor, values: Tensor, rng: torch.Generator) -> Tensor:
        """Of `candidates (C, M, G)` with `values (C, M)`, goals `(C, G)`: the best valued where none is reachable."""
        size, many, width = candidates.shape
        density = self.achieved.log_density(candidates.reshape(-1, width)).view(size, many)
        reachable = values >= self.cutoff
        if self.config.power is None:
            best = density.masked_fill(~reachable, torch.inf).argmin(1)
        else:
            noise = torch.rand(density.shape, generator=rng, device=density.device).clamp_min(1e-12)
            drawn = self.config.power * density - (-noise.log()).log()  # the largest is a draw by the power's weights
            best = drawn.masked_fill(~reachable, -torch.inf).argmax(1)
        best = torch.where(reachable.any(1), best, values.argmax(1))
        return candidates[torch.arange(size, device=best.device), best]

    def ended(self, pursuits: Pursuits) -> None:
        """Judge the cutoff by the successes, and remember the game's own goals."""
        wanted = self.get_buffer("wanted")
        newest = pursuits.start.desired[-len(wanted) :]
        wanted[torch.arange(self.met, self.met + len(newest), device=wanted.device) % len(wanted)] = newest
        self.met += len(newest)
        for reached in pursuits.reached.tolist():
            self.successes.append(bool(reached))
            if len(self.successes) < self.config.judged:
                continue
            share = sum(self.successes) / len(self.successes)
            if share >= 0.7:
                self.cutoff = max(self.cutoff - 1.0, min(self.lowest, self.config.cutoff))
            elif share <= 0.3:
                self.cutoff = min(self.cutoff + 1.0, self.config.cutoff)
            self.successes = []

    @torch.no_grad()
    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Fit the densities anew."""
        self.achieved.fit(replay.achieved_after(replay.sample(self.config.fitted, rng)[:, None]))
        wanted = self.get_buffer("wanted")[: self.met]
        if self.config.annealed and len(wanted) > 1:
            self.desired.fit(wanted, like=self.achieved)
            apart = self.desired.log_density(wanted) - self.achieved.log_density(wanted)
            self.chance = chance_of_own(float(apart.mean()), self.config.offset)


def lowest_cutoff(discount: float, episode_limit: int | None) -> float:
    """What a goal is worth that takes four fifths of an episode to reach, where every step until then costs 1; a
    discount above 0.99 counts as that. Without a limit, one that is never reached.
    """
    rate = min(discount, 0.99)
    missed = 0.0 if episode_limit is None else rate ** (0.8 * episode_limit)
    return -(1.0 - missed) / (1.0 - rate)


def chance_of_own(apart: float, offset: float) -> float:
    """OMEGA's chance of the game's own goal when achieved goals are so many nats from the desired ones."""
    return 1.0 / max(offset + apart, 1.0)
