"""Goals of intermediate difficulty, drawn by a generative adversarial network: GoalGAN (Florensa, Held, Geng, Abbeel
2018, 1705.06366).

A goal is of intermediate difficulty for a policy that reaches it sometimes, neither hardly ever nor nearly always. The
generator is trained by least squares (LSGAN) against a discriminator that has seen goals of both kinds, so that it is
drawn to the one and pushed away from the other.

Rounds go as in the paper: a set of goals, two thirds of them generated and the others archived, is pursued, each goal
several times; then they are labelled, trained on, and archived where they are of intermediate difficulty. Before the
first round the generator is trained to draw what has been achieved. After a round with hardly any goal of intermediate
difficulty, which trains nothing, achieved goals stand in for generated ones. Labels come from the round's own episodes,
while the policy goes on learning; the paper can also label by further episodes of the policy that a round ends with.

The released code spans twice the box of goals and clips; here the generator's range is the box. Its labels, networks
and noise are taken over. By itself the generator collapses to a single goal, which noise and archive hide; a small
weight on how much its goals differ (`diversity`) spreads them over the band of intermediate ones (`GoalGAN.spread`).

Shape suffixes: M goals, G goal, Z noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import View
from presage.common.method import Metrics
from presage.common.networks import StackedMLP
from presage.gcrl.goals.source import Pursuits

FAKE, REAL = -1.0, 1.0
"""what the discriminator says of generated goals and of those that are too hard or too easy, and of the others: a, b"""


@dataclass(frozen=True, kw_only=True)
class GoalGANConfig:
    """The numbers of GoalGAN, by its authors' code for the multi-path maze, with the bounds of its other tasks; the
    archive's room, `least_positive` and `diversity` are the suite's own.
    """

    low_success: float = 0.1
    """success rate above which a goal is not too hard; in [0, 1)"""
    high_success: float = 0.9
    """success rate below which it is not too easy; in (0, 1]"""
    generator_hidden: tuple[int, ...] = (256, 256)
    """widths of the generator's hidden layers"""
    discriminator_hidden: tuple[int, ...] = (128, 128)
    """likewise of the discriminator's; with ReLU, where the code's are leaky"""
    noise_width: int = 4
    """Z, numbers that the generator reads; >= 1"""
    learning_rate: float = 1e-3
    """RMSprop's step size for both; > 0"""
    batch_size: int = 64
    """goals of a step, and as many generated ones; >= 1"""
    steps: int = 300
    """of both networks in a round; >= 1"""
    wished: float = 1.0
    """c: what the generator wants the discriminator to say; 0 in the paper, 1 in its code"""
    diversity: float = 0.001
    """weight of a regularisation that keeps the generator from drawing one goal alone; 0 in the paper; >= 0"""
    noise: float = 0.5
    """standard deviation of what is added to generated goals, in their own units; >= 0"""
    fresh_share: float = 2 / 3
    """share of generated goals among those proposed, the rest are archived ones; in [0, 1]"""
    apart: float = 0.3
    """least distance between archived goals, in their own units; >= 0"""
    archive: int = 10_000
    """goals that the archive has room for; >= 1"""
    least_positive: int = 10
    """goals of intermediate difficulty without which a round trains nothing; >= 1"""
    goals: int = 300
    """M, of a round; >= 1"""
    tries: int = 3
    """pursuits of each of them before it is labelled; >= 2: what is tried once is reached always or never"""
    first: int = 10_000
    """achieved goals that the generator is trained to draw before the first round; >= 1"""

    def __post_init__(self) -> None:
        if not 0 <= self.low_success < self.high_success <= 1:
            raise ValueError(
                f"low_success={self.low_success} and high_success={self.high_success} must be 0 <= low < high <= 1"
            )
        counts = {"noise_width": self.noise_width, "batch_size": self.batch_size, "steps": self.steps,
                  "archive": self.archive, "least_positive": self.least_positive, "goals": self.goals,
                  "first": self.first}  # fmt: skip
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name}={count} must be >= 1")
        if self.tries < 2:
            raise ValueError(f"tries={self.tries} must be >= 2: a goal that is tried once is reached always or never")
        if self.diversity < 0:
            raise ValueError(f"diversity={self.diversity} must be >= 0")
        if self.learning_rate <= 0 or self.noise < 0 or self.apart < 0 or not 0 <= self.fresh_share <= 1:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be > 0, noise={self.noise} and apart={self.apart} >= 0, and "
                f"fresh_share={self.fresh_share} lie in [0, 1]"
            )


def intermediate(successes: Tensor, tries: Tensor, low: float, high: float) -> Tensor:
    """Which goals are of intermediate difficulty, `(M,)` bool: success rates strictly between the bounds.

    Args:
        successes, tries: `(M,)` counts, tries >= 1.
    """
    rate = successes / tries
    return (rate > low) & (rate < high)


class GoalGAN(nn.Module):
    """The source of GoalGAN's goals; a `GoalSource`."""

    checkpoint_skip = ("metrics",)
    """made again by every round"""

    def __init__(self, low: Tensor, high: Tensor, config: GoalGANConfig | None, rng: torch.Generator) -> None:
        """
        Args:
            low, high: `(G,)` the box that goals lie in. rng: draws the first weights, on the CPU.

        Raises:
            ValueError: the box is empty along some axis.
        """
        super().__init__()
        if low.shape != high.shape or not bool((low < high).all()):
            raise ValueError(f"low={low.tolist()} must be < high={high.tolist()}, entry by entry")
        self.config = config = config or GoalGANConfig()
        width = len(low)
        self.register_buffer("middle", (low + high) / 2)
        self.register_buffer("reach", (high - low) / 2)
        self.generator = StackedMLP(1, config.noise_width, config.generator_hidden, width, rng)
        self.discriminator = StackedMLP(1, width, config.discriminator_hidden, 1, rng)
        self.generator_optim, self.discriminator_optim = (
            torch.optim.RMSprop(part.parameters(), lr=config.learning_rate)
            for part in (self.generator, self.discriminator)
        )
        self.register_buffer("archived", torch.zeros(config.archive, width))
        self.kept = 0
        """goals in the archive"""
        self.register_buffer("tried", torch.zeros(config.goals, width))
        """the goals of the round"""
        self.register_buffer("asked", torch.zeros(config.goals, dtype=torch.int64))
        """how often each was proposed"""
        self.register_buffer("outcomes", torch.zeros(config.goals, 2))
        """successes and tries of each, among episodes that are over"""
        self.under_way = False
        """whether there is a round"""
        self.trained = False
        """whether the generator has seen any goal"""
        self.hopeless = False
        """whether the last round had too few goals of intermediate difficulty"""
        self.metrics: Metrics = {}

    # ------------------------------------------------------------- networks

    def generate(self, count: int, rng: torch.Generator) -> Tensor:
        """Goals `(count, G)` as the generator draws them, without noise; differentiable in its weights."""
        return self._goals_of(self._noise(count, rng))

    def _noise(self, count: int, rng: torch.Generator) -> Tensor:
        """What the generator reads: `(count, Z)` standard normal."""
        return torch.randn(
            count, self.config.noise_width, generator=rng, device=self.get_buffer("middle").device
        )  # fmt: skip

    def _goals_of(self, noise: Tensor) -> Tensor:
        """Goals `(M, G)` of noise `(M, Z)`."""
        share: Tensor = self.generator(noise)[0].tanh()
        return self.get_buffer("middle") + self.get_buffer("reach") * share

    def judge(self, goals: Tensor) -> Tensor:
        """What the discriminator says of `goals (M, G)`: `(M,)`, `REAL` or `FAKE` where it is sure."""
        scaled = (goals - self.get_buffer("middle")) / self.get_buffer("reach")
        said: Tensor = self.discriminator(scaled)[0, :, 0]
        return said

    def fit(self, goals: Tensor, labels: Tensor, rng: torch.Generator, steps: int | None = None) -> bool:
        """Train both networks on `goals (M, G)`, of which `labels (M,)` says which are of intermediate difficulty.

        Nothing happens where there are too few of these: the generator would only be pushed away.

        Returns:
            whether anything was trained.
        """
        config = self.config
        if int(labels.sum()) < min(config.least_positive, len(labels)):
            return False
        self.trained = True
        for _ in range(config.steps if steps is None else steps):
            index = torch.randint(len(goals), (config.batch_size,), generator=rng, device=goals.device)
            wanted = torch.where(labels[index], REAL, FAKE)
            with torch.no_grad():
                fake = self.generate(config.batch_size, rng)
            said = self.judge(torch.cat([goals[index], fake]))
            loss = (said - torch.cat([wanted, torch.full_like(wanted, FAKE)])).square().mean()
            self.discriminator_optim.zero_grad()
            torch.autograd.backward(loss, inputs=list(self.discriminator.parameters()))
            self.discriminator_optim.step()
            noise = self._noise(config.batch_size, rng)
            drawn = self._goals_of(noise)
            loss = (self.judge(drawn) - config.wished).square().mean() + config.diversity * self._sameness(noise, drawn)
            self.generator_optim.zero_grad()
            torch.autograd.backward(loss, inputs=list(self.generator.parameters()))
            self.generator_optim.step()
        return True

    def _sameness(self, noise: Tensor, drawn: Tensor) -> Tensor:
        """How little the goals of pairs of a batch differ, in halves of the box, by how much their noise does: the
        inverse of the ratio, which is large where the generator has collapsed (Mao et al. 2019, 1903.05628).
        """
        apart = ((drawn - drawn.roll(1, 0)) / self.get_buffer("reach")).abs().mean(1)
        return 1.0 / ((apart / (noise - noise.roll(1, 0)).abs().mean(1).clamp_min(1e-6)).mean() + 1e-3)

    @torch.no_grad()
    def spread(self, rng: torch.Generator, count: int = 1_000) -> Tensor:
        """Standard deviations `(G,)` of generated goals without noise: near 0, the generator draws one goal alone."""
        return self.generate(count, rng).std(0)

    # --------------------------------------------------------------- source

    @torch.no_grad()
    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """Goals `(C, G)`: those of the round that were proposed least; before there is anything to learn from, the
        game's own.
        """
        if not self.trained:
            return start.desired
        tried, asked = self.get_buffer("tried"), self.get_buffer("asked")
        if not self.under_way:
            tried.copy_(self._drawn(replay, rng))
            asked.zero_()
            self.get_buffer("outcomes").zero_()
            self.under_way = True
        size = len(start)
        place = asked.argsort(stable=True)[torch.arange(size, device=asked.device) % len(tried)]
        asked.index_add_(0, place, torch.ones_like(place))
        return tried[place]

    def _drawn(self, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """Goals `(M, G)` of a round, in no order."""
        config, middle, reach = self.config, self.get_buffer("middle"), self.get_buffer("reach")
        old = min(self.kept, round((1 - config.fresh_share) * config.goals))
        archived = self.get_buffer("archived")[torch.randperm(max(self.kept, 1), generator=rng, device=middle.device)]
        if self.hopeless:
            fresh = replay.achieved_after(replay.sample(config.goals - old, rng)[:, None])
        else:
            fresh = self.generate(config.goals - old, rng)
            fresh = fresh + config.noise * torch.randn(fresh.shape, generator=rng, device=fresh.device)
            fresh = torch.minimum(torch.maximum(fresh, middle - reach), middle + reach)
        goals = torch.cat([fresh, archived[:old]])
        return goals[torch.randperm(len(goals), generator=rng, device=goals.device)]

    def ended(self, pursuits: Pursuits) -> None:
        """Count how often each goal of the round was pursued and reached; others are none of its business."""
        same = (pursuits.goals[:, None] == self.get_buffer("tried")).all(2)
        known, place = same.any(1), same.long().argmax(1)
        counts = torch.stack([pursuits.reached.float(), torch.ones(len(pursuits), device=place.device)], 1)
        self.get_buffer("outcomes").index_add_(0, place[known], counts[known])

    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Once a round's goals have been tried: label them, train on them, archive those of intermediate difficulty.
        At first, train on what has been achieved.
        """
        if not self.trained:
            achieved = replay.achieved_after(replay.sample(self.config.first, rng)[:, None])
            self.fit(achieved, torch.ones(len(achieved), dtype=torch.bool, device=achieved.device), rng)
            return
        outcomes = self.get_buffer("outcomes")
        if not self.under_way or outcomes[:, 1].sum() < self.config.tries * len(outcomes):
            return
        whole = outcomes[:, 1] > 1  # a goal whose episodes were dropped says nothing
        goals, outcomes = self.get_buffer("tried")[whole], outcomes[whole]
        labels = intermediate(outcomes[:, 0], outcomes[:, 1], self.config.low_success, self.config.high_success)
        self.under_way = False
        self.hopeless = not self.fit(goals, labels, rng)
        self.remember(goals[labels])
        self.metrics = {
            "goal/intermediate_share": float(labels.double().mean()),
            "goal/generator_spread": float((self.spread(rng) / self.get_buffer("reach")).mean()),
            "goal/archived": float(self.kept),
        }

    def remember(self, goals: Tensor) -> None:
        """Archive those of `goals (M, G)` that are far enough from all archived ones, as long as there is room."""
        archived = self.get_buffer("archived")
        for goal in goals:
            near = (archived[: self.kept] - goal).square().sum(1) <= self.config.apart**2
            if self.kept < len(archived) and not bool(near.any()):
                archived[self.kept] = goal
                self.kept += 1
