"""Model-predictive control: act by planning anew at every step in a kernel, learned or true.

`imagined_returns` makes a planner's score out of a kernel, and `PlanningActor` is the planner as an `Actor`.

Shape suffixes: B situations, K candidates, P particles of a candidate, H horizon, T frames, N agents, O, A as usual.
"""

from __future__ import annotations

import torch
from torch import Tensor

from presage.common.game import ALL_AGENTS, Carry, GameSpec, Kernel, View, Window
from presage.common.planning import Memory, Planner, PlanSpace, Score


def imagined_returns(
    spec: GameSpec, kernel: Kernel, window: Window, rng: torch.Generator, *,
    particles: int = 1, risk: float = 0.0, discount: float = 1.0,
) -> Score:  # fmt: skip
    """What plans are worth by imagining them: the team's return, the mean over agents of their rewards.

    An agent that has terminated earns no more; the reward of the step that ended it counts. Particles of one candidate
    are consecutive rows, so that a kernel can spread them evenly over its members.

    Args:
        window: B windows that end at the situations. rng: draws outcomes.
        particles: P, times that each candidate is imagined. discount: gamma of the returns, in [0, 1].
        risk: standard deviations over its particles that are taken from a candidate's mean.

    Raises:
        ValueError: a number is out of range, or risk is asked for with a single particle.
    """
    if particles < 1 or not 0 <= discount <= 1:
        raise ValueError(f"particles={particles} must be >= 1 and discount={discount} lie in [0, 1]")
    if risk and particles < 2:
        raise ValueError(f"risk={risk} compares the particles of a candidate; particles={particles} must be >= 2")

    def score(plans: Tensor) -> Tensor:
        situations, candidates, horizon = plans.shape[:3]
        rows = torch.arange(situations, device=plans.device).repeat_interleave(candidates * particles)
        starts = window[rows]
        ego = torch.full((len(rows),), ALL_AGENTS, device=plans.device)
        carry, view = kernel.init(starts, ego, rng), starts.now
        total = plans.new_zeros(len(rows))
        earning = torch.ones(len(rows), spec.n, dtype=torch.bool, device=plans.device)
        weight = 1.0
        for h in range(horizon):
            act = plans[:, :, h].flatten(0, 1).repeat_interleave(particles, 0)
            carry, outcome = kernel.step(carry, view, act, rng)
            total = total + weight * torch.where(earning, outcome.reward, 0.0).mean(1)
            earning = earning & ~outcome.terminated
            weight *= discount
            view = outcome.after
        returns = total.view(situations, candidates, particles)
        mean = returns.mean(2)
        return mean - risk * returns.std(2) if risk else mean

    return score


class PlanningActor:
    """Plans at every step, plays the first action, and begins the next search where this one ended.

    Its carry is the planner's memory, the window that the kernel needs and a clock, row by row, so that a new episode
    begins with nothing of the last one. Greedy actions search with noise of the actor's own seed and the clock: the
    same episodes are played alike each time.
    """

    def __init__(
        self, spec: GameSpec, kernel: Kernel, planner: Planner, *,
        particles: int = 1, risk: float = 0.0, discount: float = 1.0, seed: int = 0,
    ) -> None:  # fmt: skip
        """
        Args:
            kernel: what to imagine in. planner: how to search.
            particles, risk, discount: as for `imagined_returns`. seed: of the noise of greedy actions.

        Raises:
            GameError: what is legal, or who acts, varies in this game.
        """
        self.spec, self.kernel, self.planner = spec, kernel, planner
        self.space = PlanSpace.of(spec)
        self.particles, self.risk, self.discount, self.seed = particles, risk, discount, seed

    def init(self, window: Window) -> Carry:
        """The planner's first memory and the last frames of `window`, the first one repeated where it is shorter."""
        size, device, frames = len(window), window.obs.device, self.spec.frames
        lacking = max(frames - window.obs.shape[1], 0)
        obs = torch.cat([window.obs[:, :1].expand(-1, lacking, -1), window.obs], 1)[:, -frames:]
        act = torch.cat([window.act.new_zeros(size, lacking, self.spec.act_dim), window.act], 1)[:, -frames:]
        valid = torch.cat([window.valid.new_zeros(size, lacking), window.valid], 1)[:, -frames:]
        memory = self.planner.begin(self.space, size, device)
        return (*memory, obs, act, valid, torch.zeros(size, dtype=torch.int64, device=device))

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)` that the best plan begins with."""
        mean, elites, obs, act, valid, clock = carry
        obs = torch.cat([obs[:, :-1], view.obs[:, None]], 1)
        if rng is None:
            rng = torch.Generator(view.obs.device).manual_seed(self.seed + int(clock.max()))
        window = Window(obs=obs, act=act, valid=valid, now=view)
        score = imagined_returns(
            self.spec, self.kernel, window, rng, particles=self.particles, risk=self.risk, discount=self.discount
        )
        found = self.planner.plan(score, Memory(mean, elites), self.space, rng)
        chosen = found.actions[:, 0]
        # The window of the next step: what was seen moves back, and its own place is filled when it is seen.
        taken = torch.cat([act[:, :-1], chosen[:, None]], 1)
        back = torch.cat([taken[:, 1:], torch.zeros_like(taken[:, :1])], 1)
        seen = torch.cat([obs[:, 1:], obs[:, -1:]], 1)
        known = torch.cat([valid[:, 1:], torch.ones_like(valid[:, :1])], 1)
        return (*found.memory, seen, back, known, clock + 1), chosen
