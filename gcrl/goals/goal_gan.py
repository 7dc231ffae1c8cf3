"""Goals of intermediate difficulty, drawn by a generative adversarial network: GoalGAN (Florensa, Held, Geng, Abbeel
2018, 1705.06366).

A goal is of intermediate difficulty for a policy that reaches it sometimes, neither hardly ever nor nearly always. The
generator is trained by least squares (LSGAN) against a discriminator that has seen goals of both kinds, so that it is
drawn to the one and pushed away from the other.

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
    rounds: int = 300
    """goals that are tried between two rounds; >= 1"""

    def __post_init__(self) -> None:
        if not 0 <= self.low_success < self.high_success <= 1:
            raise ValueError(
                f"low_success={self.low_success} and high_success={self.high_success} must be 0 <= low < high <= 1"
            )
        counts = {"noise_width": self.noise_width, "batch_size": self.batch_size, "steps": self.steps,
                  "archive": self.archive, "least_positive": self.least_positive, "rounds": self.rounds}  # fmt: skip
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name}={count} must be >= 1")
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
        self.register_buffer("tried", torch.zeros(config.rounds, width))
        self.register_buffer("outcomes", torch.zeros(config.rounds, 2))
        self.trials = 0
        """goals tried since the last round, with successes and tries in `outcomes`"""
        self.trained = False
        """whether the networks have seen any goal"""

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
        """Goals `(C, G)`: generated ones with noise, and archived ones; before the first round, goals that have been
        achieved, or the game's own.
        """
        size, config = len(start), self.config
        if not self.trained and self.kept == 0:
            return replay.achieved_after(replay.sample(size, rng)[:, None]) if len(replay) else start.desired
        old = torch.randint(max(self.kept, 1), (size,), generator=rng, device=start.obs.device)
        fresh = self.generate(size, rng)
        fresh = fresh + config.noise * torch.randn(fresh.shape, generator=rng, device=fresh.device)
        middle, reach = self.get_buffer("middle"), self.get_buffer("reach")
        fresh = torch.minimum(torch.maximum(fresh, middle - reach), middle + reach)
        take = torch.rand(size, generator=rng, device=fresh.device) < config.fresh_share
        take = (take | (self.kept == 0)) & self.trained
        return torch.where(take[:, None], fresh, self.get_buffer("archived")[old])

    def ended(self, pursuits: Pursuits) -> None:
        """Count how often each goal was pursued and reached; beyond a round's goals, the newest are not counted."""
        tried, outcomes = self.get_buffer("tried"), self.get_buffer("outcomes")
        for goal, reached in zip(pursuits.goals, pursuits.reached, strict=True):
            same = (tried[: self.trials] == goal).all(1).nonzero()
            if len(same):
                place = int(same[0])
            elif self.trials < len(tried):
                place = self.trials
                tried[place], outcomes[place] = goal, 0.0
                self.trials += 1
            else:
                continue
            outcomes[place, 0] += float(reached)
            outcomes[place, 1] += 1.0

    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Once a round's goals have been tried: label them, train on them, archive those of intermediate difficulty."""
        if self.trials < self.config.rounds:
            return
        goals, outcomes = self.get_buffer("tried").clone(), self.get_buffer("outcomes")
        labels = intermediate(outcomes[:, 0], outcomes[:, 1], self.config.low_success, self.config.high_success)
        self.trials = 0
        self.fit(goals, labels, rng)
        self.remember(goals[labels])

    def remember(self, goals: Tensor) -> None:
        """Archive those of `goals (M, G)` that are far enough from all archived ones, as long as there is room."""
        archived = self.get_buffer("archived")
        for goal in goals:
            near = (archived[: self.kept] - goal).square().sum(1) <= self.config.apart**2
            if self.kept < len(archived) and not bool(near.any()):
                archived[self.kept] = goal
                self.kept += 1
