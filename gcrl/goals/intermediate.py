"""Goals of intermediate difficulty without a generator: of what has been achieved, the goal that is as likely to be
reached as not, by a classifier of the latest pursuits.

It stands in for GoalGAN in the code of Pitis et al. 2020 (2007.02832); what is labelled, how many pursuits are
remembered, batch and candidates are taken over from there, the network is the suite's own.

Shape suffixes: C episodes, M candidates, O observation, G goal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameSpec, View
from presage.common.networks import Normaliser, StackedMLP
from presage.gcrl.goals.source import NOTHING, Pursuits


@dataclass(frozen=True, kw_only=True)
class IntermediateConfig:
    """The classifier's numbers."""

    candidates: int = 100
    """M, achieved goals that each episode's is chosen among; >= 1"""
    remembered: int = 200
    """newest pursuits that it is fitted to; >= 2"""
    hidden: tuple[int, ...] = (128, 128)
    """widths of the hidden layers"""
    learning_rate: float = 1e-3
    """Adam's step size; > 0"""
    batch_size: int = 100
    """pursuits of a step; >= 1"""
    steps: int = 100
    """of a fit; >= 1"""

    def __post_init__(self) -> None:
        low = {"candidates": (self.candidates, 1), "remembered": (self.remembered, 2),
               "batch_size": (self.batch_size, 1), "steps": (self.steps, 1)}  # fmt: skip
        for name, (value, least) in low.items():
            if value < least:
                raise ValueError(f"{name}={value} must be >= {least}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be > 0")


class IntermediateGoals(nn.Module):
    """The source of goals that are reached about every other time; a `GoalSource`."""

    metrics = NOTHING

    def __init__(self, spec: GameSpec, config: IntermediateConfig | None, rng: torch.Generator) -> None:
        """
        Args:
            rng: draws the first weights, on the CPU.
        """
        super().__init__()
        self.config = config = config or IntermediateConfig()
        width = spec.obs_dim + spec.goal_dim
        self.obs_dim = spec.obs_dim
        self.normaliser = Normaliser(width)
        self.network = StackedMLP(1, width, config.hidden, 1, rng)
        self.optim = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.register_buffer("tried", torch.zeros(config.remembered, width))
        self.register_buffer("reached", torch.zeros(config.remembered))
        self.count = 0
        """pursuits so far; `tried` and `reached` are rings of the newest"""
        self.fitted = False
        """whether the classifier has seen any pursuit"""

    def logit(self, obs: Tensor, goals: Tensor) -> Tensor:
        """Log-odds `(B,)` that the goals `(B, G)` are reached in an episode that begins with `obs (B, O)`."""
        said: Tensor = self.network(self.normaliser(torch.cat([obs, goals], 1)))[0, :, 0]
        return said

    @torch.no_grad()
    def propose(self, start: View, replay: EpisodicReplay, rng: torch.Generator) -> Tensor:
        """Goals `(C, G)`; before the first fit any that have been achieved, or the game's own."""
        if not len(replay):
            return start.desired
        size, many = len(start), self.config.candidates if self.fitted else 1
        goals = replay.achieved_after(replay.sample(size * many, rng)[:, None])
        rows = torch.arange(size, device=goals.device)
        unsure = self.logit(start.obs[rows.repeat_interleave(many)], goals).abs().view(size, many)
        return goals.view(size, many, -1)[rows, unsure.argmin(1)]

    def ended(self, pursuits: Pursuits) -> None:
        """Remember how the pursuits went."""
        tried, reached = self.get_buffer("tried"), self.get_buffer("reached")
        new = torch.cat([pursuits.start.obs, pursuits.goals], 1)[-len(tried) :]
        place = torch.arange(self.count, self.count + len(new), device=tried.device) % len(tried)
        tried[place], reached[place] = new, pursuits.reached[-len(tried) :].to(reached.dtype)
        self.count += len(new)

    def learn(self, replay: EpisodicReplay, rng: torch.Generator) -> None:
        """Fit the classifier to the pursuits that are remembered."""
        count = min(self.count, self.config.remembered)
        if count < 2:
            return
        tried, reached = self.get_buffer("tried")[:count], self.get_buffer("reached")[:count]
        self.normaliser.fit(tried)
        for _ in range(self.config.steps):
            index = torch.randint(count, (self.config.batch_size,), generator=rng, device=tried.device)
            said = self.logit(tried[index, : self.obs_dim], tried[index, self.obs_dim :])
            loss = nn.functional.binary_cross_entropy_with_logits(said, reached[index])
            self.optim.zero_grad()
            torch.autograd.backward(loss, inputs=list(self.network.parameters()))
            self.optim.step()
        self.fitted = True
