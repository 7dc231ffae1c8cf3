"""Planning: search over sequences of actions, given a function that says what each is worth.

All planners share one loop - propose, score, refit - over B situations at once, and know neither model nor network:
`score` does. They differ in how candidates are drawn and in what is learned from their values. A candidate whose value
is not finite loses against every other one, and a situation in which none is finite keeps its proposal.

Plans hold joint actions as rows do: box entries in [-1, 1] and one-hot heads. What a planner refits is a mean and a
standard deviation of every entry; of the entries of a head, the mean is their probability. So the fraction of the best
candidates that chose an entry is its new probability: the cross-entropy method for discrete actions.

Shape suffixes: B situations, K candidates, E elites, H horizon, A action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from presage.common.game import GameError, GameSpec

Score = Callable[[Tensor], Tensor]
"""plans (B, K, H, A) -> what each of them is worth (B, K)"""


@dataclass(frozen=True)
class PlanSpace:
    """Which entries of a joint action are numbers in [-1, 1], and which belong to one-hot heads."""

    width: int
    """A"""
    heads: tuple[slice, ...]
    """the discrete heads' entries"""

    @classmethod
    def of(cls, spec: GameSpec) -> PlanSpace:
        """The joint actions of a game.

        Raises:
            GameError: what is legal, or who acts, varies: a plan could not know it beforehand.
        """
        if spec.legal_varies or spec.acting_varies:
            raise GameError(f"planners need every action to be legal at every step; in {spec.name!r} that varies")
        return cls(spec.act_dim, tuple(where for _, head, where in spec.heads if head.kind == "discrete"))

    def middle(self, size: int, horizon: int, device: torch.device | str = "cpu") -> Tensor:
        """The mean of knowing nothing, `(B, H, A)`: the middle of every box, and even probabilities."""
        mean = torch.zeros(size, horizon, self.width, device=device)
        for where in self.heads:
            mean[..., where] = 1.0 / (where.stop - where.start)
        return mean

    def box(self, device: torch.device | str = "cpu") -> Tensor:
        """(A,) bool: the entries that are numbers."""
        numbers = torch.ones(self.width, dtype=torch.bool, device=device)
        for where in self.heads:
            numbers[where] = False
        return numbers

    def settle(self, plans: Tensor) -> Tensor:
        """Plans that can be played: numbers clipped to [-1, 1], every head one-hot at its largest entry."""
        settled = plans.clamp(-1.0, 1.0)
        for where in self.heads:
            best = plans[..., where].argmax(-1, keepdim=True)
            settled[..., where] = torch.zeros_like(settled[..., where]).scatter(-1, best, 1.0)
        return settled

    def draw(self, mean: Tensor, noise: Tensor, rng: torch.Generator) -> Tensor:
        """Playable candidates `(B, K, H, A)`.

        Args:
            mean: `(B, H, A)`. noise: `(B, K, H, A)` what is added to it where entries are numbers.
        """
        candidates = mean[:, None] + noise
        for where in self.heads:  # the largest of log p plus Gumbel noise is a draw from p
            uniform = torch.rand(candidates[..., where].shape, generator=rng, device=mean.device)
            candidates[..., where] = mean[:, None, :, where].log() - (-uniform.clamp_min(1e-12).log()).log()
        return self.settle(candidates)


class Memory(NamedTuple):
    """What a planner takes from one step of an episode to the next; rows are situations."""

    mean: Tensor
    """(B, H, A) the proposal to begin with"""
    elites: Tensor
    """(B, E, H, A) plans to try again; E may be 0"""


class Plan(NamedTuple):
    """What a search has found."""

    actions: Tensor
    """(B, H, A) playable; the first of the H is what to do now"""
    value: Tensor
    """(B,) the best value among the candidates, -inf where none was finite"""
    memory: Memory
    """where the search at the next step begins"""


class Planner(Protocol):
    """A way to search."""

    @property
    def horizon(self) -> int:
        """H, the actions of a plan; >= 1."""
        ...

    def begin(self, space: PlanSpace, size: int, device: torch.device | str = "cpu") -> Memory:
        """The memory of B situations in which episodes begin."""
        ...

    def plan(
        self, score: Score, memory: Memory, space: PlanSpace, rng: torch.Generator, proposals: Tensor | None = None
    ) -> Plan:
        """Search once.

        Args:
            proposals: `(B, P, H, A)` plans of somebody else, such as a policy's, that compete with the candidates.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class RandomShooting:
    """The best of many uniform plans; nothing is learned or remembered."""

    horizon: int = 10
    population: int = 1_000
    """K, candidates"""

    def __post_init__(self) -> None:
        _at_least(1, horizon=self.horizon, population=self.population)

    def begin(self, space: PlanSpace, size: int, device: torch.device | str = "cpu") -> Memory:
        """Nothing to remember."""
        return _fresh(space, size, self.horizon, device)

    def plan(
        self, score: Score, memory: Memory, space: PlanSpace, rng: torch.Generator, proposals: Tensor | None = None
    ) -> Plan:
        """Draw, score, and take the best."""
        mean = space.middle(len(memory.mean), self.horizon, memory.mean.device)
        noise = 2.0 * torch.rand(*_candidates(mean, self.population), generator=rng, device=mean.device) - 1.0
        candidates = _with(space.draw(mean, noise, rng), proposals)
        best = _Best.of(mean, space).updated(candidates, _values(score, candidates))
        return Plan(best.plan, best.value, memory)


@dataclass(frozen=True, kw_only=True)
class CEM:
    """The cross-entropy method as PETS plans with it (Chua et al. 2018, 1805.12114): candidates from a normal truncated
    at two standard deviations, narrow enough near a bound to stay inside, refitted to the best of them.

    With `gradient_steps`, candidates climb the score's gradient before they are judged (Bharadhwaj et al. 2020,
    2003.08876); `score` must then be differentiable in the entries that are numbers.
    """

    horizon: int = 25
    population: int = 400
    """K, candidates of an iteration"""
    elites: int = 40
    """best candidates that the proposal is refitted to"""
    iterations: int = 5
    smoothing: float = 0.1
    """share of the old mean and variance that a refit keeps; in [0, 1)"""
    start_std: float = 0.5
    """standard deviation of a search's first proposal, in units of the box's half width; > 0"""
    stop_variance: float = 1e-3
    """a situation whose variances all lie below this is refitted no more"""
    execute: str = "mean"
    """play the last "mean", as PETS does, or the "best" candidate of all iterations"""
    gradient_steps: int = 0
    gradient_size: float = 0.1
    """how far one such step moves a plan, as the length of the move (or less where the gradient is shorter than 1)"""

    def __post_init__(self) -> None:
        _at_least(1, horizon=self.horizon, elites=self.elites, iterations=self.iterations)
        _at_least(self.elites, population=self.population)
        _at_least(0, gradient_steps=self.gradient_steps)
        if not 0 <= self.smoothing < 1 or self.start_std <= 0 or self.gradient_size <= 0:
            raise ValueError(
                f"smoothing={self.smoothing} must lie in [0, 1), start_std={self.start_std} and "
                f"gradient_size={self.gradient_size} must be > 0"
            )
        if self.execute not in ("mean", "best"):
            raise ValueError(f"execute={self.execute!r} must be 'mean' or 'best'")

    def begin(self, space: PlanSpace, size: int, device: torch.device | str = "cpu") -> Memory:
        """The middle of the box, as the first mean."""
        return _fresh(space, size, self.horizon, device)

    def plan(
        self, score: Score, memory: Memory, space: PlanSpace, rng: torch.Generator, proposals: Tensor | None = None
    ) -> Plan:
        """Refit the proposal `iterations` times; the next search begins at its mean, one step on."""
        mean = memory.mean
        variance = torch.full_like(mean, self.start_std**2) * space.box(mean.device)
        best = _Best.of(mean, space)
        for _ in range(self.iterations):
            room = 0.5 * (1.0 - mean.abs()).clamp_min(0.0)  # two deviations to the nearer bound
            noise = truncated_normal(_candidates(mean, self.population), rng)
            std = torch.minimum(variance.sqrt(), room)
            candidates = _with(space.draw(mean, std[:, None] * noise, rng), proposals)
            candidates = climb(score, candidates, space, self.gradient_steps, self.gradient_size)
            values = _values(score, candidates)
            best = best.updated(candidates, values)
            chosen, weights = _elites(candidates, values, self.elites)
            going = (variance.amax((1, 2)) > self.stop_variance) | bool(space.heads)
            kept = torch.where(going[:, None, None], self.smoothing, 1.0)
            fitted = _refit(mean, variance, chosen, weights)
            mean = kept * mean + (1.0 - kept) * fitted[0]
            variance = kept * variance + (1.0 - kept) * fitted[1]
        actions = space.settle(mean) if self.execute == "mean" else best.plan
        return Plan(actions, best.value, memory._replace(mean=_shifted(mean, space)))


@dataclass(frozen=True, kw_only=True)
class ICEM:
    """The improved cross-entropy method (Pinneri et al. 2020, 2008.06389): coloured noise, elites that are tried again
    within a search and one step on in the next, a population that shrinks, and the best plan played.
    """

    horizon: int = 30
    population: int = 40
    """K, candidates of the first iteration"""
    elites: int = 10
    iterations: int = 3
    smoothing: float = 0.1
    """share of the old mean and variance that a refit keeps; in [0, 1)"""
    start_std: float = 0.5
    """as for CEM"""
    noise_exponent: float = 2.0
    """beta: the power spectrum of the noise falls as frequency^-beta; 0 for white noise, >= 0"""
    shrink: float = 1.25
    """what the population is divided by after every iteration, down to twice the elites; >= 1"""
    reuse: float = 0.3
    """share of the elites that is tried again, in [0, 1]"""

    def __post_init__(self) -> None:
        _at_least(1, horizon=self.horizon, elites=self.elites, iterations=self.iterations)
        _at_least(self.elites, population=self.population)
        if not 0 <= self.smoothing < 1 or self.start_std <= 0 or not 0 <= self.reuse <= 1:
            raise ValueError(
                f"smoothing={self.smoothing} must lie in [0, 1), start_std={self.start_std} be > 0 and "
                f"reuse={self.reuse} lie in [0, 1]"
            )
        if self.noise_exponent < 0 or self.shrink < 1:
            raise ValueError(f"noise_exponent={self.noise_exponent} must be >= 0 and shrink={self.shrink} >= 1")

    @property
    def reused(self) -> int:
        """How many elites are tried again."""
        return int(self.reuse * self.elites)

    def begin(self, space: PlanSpace, size: int, device: torch.device | str = "cpu") -> Memory:
        """The middle of the box, as the first mean and in the place of the elites."""
        return _fresh(space, size, self.horizon, device, self.reused)

    def plan(
        self, score: Score, memory: Memory, space: PlanSpace, rng: torch.Generator, proposals: Tensor | None = None
    ) -> Plan:
        """Refit the proposal `iterations` times; the next search begins at its mean and its elites, one step on."""
        mean, again = memory.mean, memory.elites
        variance = torch.full_like(mean, self.start_std**2) * space.box(mean.device)
        best = _Best.of(mean, space)
        for i in range(self.iterations):
            count = max(2 * self.elites, int(self.population * self.shrink**-i))
            noise = coloured_noise(_candidates(mean, count), self.noise_exponent, rng)
            candidates = _with(space.draw(mean, variance.sqrt()[:, None] * noise, rng), proposals)
            candidates = torch.cat([candidates, again], 1)
            if i == self.iterations - 1:
                candidates = torch.cat([candidates, space.settle(mean)[:, None]], 1)
            values = _values(score, candidates)
            best = best.updated(candidates, values)
            chosen, weights = _elites(candidates, values, self.elites)
            again = chosen[:, : self.reused]
            fitted = _refit(mean, variance, chosen, weights)
            mean = self.smoothing * mean + (1.0 - self.smoothing) * fitted[0]
            variance = self.smoothing * variance + (1.0 - self.smoothing) * fitted[1]
        last = space.draw(mean, torch.zeros_like(again), rng)[:, :, -1:]
        return Plan(
            best.plan, best.value, Memory(mean=_shifted(mean, space), elites=torch.cat([again[:, :, 1:], last], 2))
        )


@dataclass(frozen=True, kw_only=True)
class MPPI:
    """Model predictive path integral control (Williams et al. 2017, 1707.02342), as TD-MPC2 iterates it (Hansen et al.
    2024, 2310.16828): the proposal moves to the mean of the candidates, weighted by the exponential of their values.
    """

    horizon: int = 3
    population: int = 512
    """K, candidates of an iteration"""
    elites: int | None = 64
    """best candidates that have a weight; None: all have"""
    iterations: int = 6
    temperature: float = 0.5
    """kappa, what value differences are multiplied with in the exponent; > 0"""
    min_std: float = 0.05
    max_std: float = 2.0
    """of the proposal, in units of the box's half width; a search begins with the largest. Equal: fixed noise"""
    noise_exponent: float = 0.0
    """of the power spectrum of the noise over time, as for iCEM; 0 for white noise"""

    def __post_init__(self) -> None:
        _at_least(1, horizon=self.horizon, population=self.population, iterations=self.iterations)
        if self.elites is not None:
            _at_least(1, elites=self.elites)
            _at_least(self.elites, population=self.population)
        if self.temperature <= 0 or not 0 < self.min_std <= self.max_std or self.noise_exponent < 0:
            raise ValueError(
                f"temperature={self.temperature} must be > 0, 0 < min_std={self.min_std} <= max_std={self.max_std} and "
                f"noise_exponent={self.noise_exponent} >= 0"
            )

    def begin(self, space: PlanSpace, size: int, device: torch.device | str = "cpu") -> Memory:
        """The middle of the box, as the first mean."""
        return _fresh(space, size, self.horizon, device)

    def plan(
        self, score: Score, memory: Memory, space: PlanSpace, rng: torch.Generator, proposals: Tensor | None = None
    ) -> Plan:
        """Move the proposal `iterations` times; the next search begins at its mean, one step on."""
        mean, box = memory.mean, space.box(memory.mean.device)
        variance = torch.full_like(mean, self.max_std**2) * box
        best = _Best.of(mean, space)
        for _ in range(self.iterations):
            noise = coloured_noise(_candidates(mean, self.population), self.noise_exponent, rng)
            candidates = _with(space.draw(mean, variance.sqrt()[:, None] * noise, rng), proposals)
            values = _values(score, candidates)
            best = best.updated(candidates, values)
            chosen, valid = _elites(candidates, values, self.elites or candidates.shape[1])
            top = values.topk(chosen.shape[1], dim=1).values
            gap = torch.where(valid > 0, top - top[:, :1], 0.0)
            mean, spread = _refit(mean, variance, chosen, valid * (self.temperature * gap).exp())
            variance = spread.clamp(self.min_std**2, self.max_std**2) * box
        return Plan(space.settle(mean), best.value, memory._replace(mean=_shifted(mean, space)))


def truncated_normal(shape: tuple[int, ...], rng: torch.Generator, within: float = 2.0) -> Tensor:
    """Standard normal numbers of magnitude below `within`, by the inverse of their distribution function."""
    low = 0.5 * math.erfc(within / math.sqrt(2.0))
    uniform = torch.rand(shape, generator=rng, device=rng.device, dtype=torch.float64)
    normal: Tensor = torch.special.ndtri(low + (1.0 - 2.0 * low) * uniform)
    return normal.clamp(-within, within).float()


def coloured_noise(shape: tuple[int, ...], exponent: float, rng: torch.Generator) -> Tensor:
    """Normal numbers `(..., H, A)` of variance 1 whose power spectrum over the H steps falls as frequency^-exponent.

    Made in the frequency domain (Timmer and König 1995). The constant has the power of the lowest frequency, and all of
    them together are scaled to variance 1, so that every single step is standard normal whatever the exponent.
    """
    steps = shape[-2]
    if exponent == 0 or steps == 1:
        return torch.randn(shape, generator=rng, device=rng.device)
    frequency = torch.fft.rfftfreq(steps, device=rng.device)
    frequency[0] = frequency[1]
    scale = frequency ** (-exponent / 2)
    spectrum = torch.randn(*shape[:-2], shape[-1], len(scale), 2, generator=rng, device=rng.device)
    # The constant, and the highest frequency of an even number of steps, are real and stand once in the sum of squares.
    twice = torch.full_like(scale, 4.0)
    twice[0] = 1.0
    spectrum[..., 0, 1] = 0.0
    if steps % 2 == 0:
        twice[-1] = 1.0
        spectrum[..., -1, 1] = 0.0
    deviation = (twice * scale.square()).sum().sqrt() / steps
    series: Tensor = torch.fft.irfft(torch.view_as_complex(spectrum) * scale, n=steps) / deviation
    return series.transpose(-1, -2)


def climb(score: Score, plans: Tensor, space: PlanSpace, steps: int, size: float) -> Tensor:
    """The plans after some steps along the gradient of their score; entries of one-hot heads stay as they are.

    A step has the length `size` times that of the gradient, or `size` where the gradient is longer than 1; a plan whose
    gradient is not finite stays.
    """
    box = space.box(plans.device)
    for _ in range(steps):
        with torch.enable_grad():
            moving = plans.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(score(moving).sum(), moving)
        gradient = (gradient * box).nan_to_num(0.0, 0.0, 0.0)
        length = gradient.flatten(2).norm(dim=2)[..., None, None]
        moved = (plans + size * gradient / length.clamp_min(1.0)).clamp(-1.0, 1.0)
        plans = torch.where(box, moved, plans)
    return plans


class _Best(NamedTuple):
    """The best candidates of a search so far."""

    plan: Tensor
    """(B, H, A)"""
    value: Tensor
    """(B,)"""

    @classmethod
    def of(cls, mean: Tensor, space: PlanSpace) -> _Best:
        """Before anything is tried: the proposal's own mean, worth nothing."""
        return cls(space.settle(mean), mean.new_full((len(mean),), -torch.inf))

    def updated(self, candidates: Tensor, values: Tensor) -> _Best:
        """The better of these and of `candidates (B, K, H, A)`."""
        value, place = values.max(1)
        found = candidates[torch.arange(len(place), device=place.device), place]
        better = value > self.value
        return _Best(torch.where(better[:, None, None], found, self.plan), torch.where(better, value, self.value))


@torch.no_grad()
def _values(score: Score, candidates: Tensor) -> Tensor:
    """What the candidates are worth `(B, K)`; -inf where that is not finite.

    Raises:
        ValueError: the score has another shape.
    """
    values = score(candidates)
    if values.shape != candidates.shape[:2]:
        raise ValueError(f"a score gives one value per plan, {tuple(candidates.shape[:2])}; got {tuple(values.shape)}")
    return torch.where(values.isfinite(), values, -torch.inf)


def _elites(candidates: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best candidates `(B, E, H, A)`, and 1 for each whose value is finite, else 0: `(B, E)`."""
    top, place = values.topk(count, dim=1)
    chosen = candidates.gather(1, place[..., None, None].expand(-1, -1, *candidates.shape[2:]))
    return chosen, top.isfinite().to(candidates.dtype)


def _refit(mean: Tensor, variance: Tensor, plans: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance `(B, H, A)` of plans `(B, E, H, A)`; the old ones where all of their weights `(B, E)` are 0."""
    total = weights.sum(1)[:, None, None]
    share = (weights / weights.sum(1, keepdim=True).clamp_min(1e-30))[..., None, None]
    fitted = (share * plans).sum(1)
    spread = (share * (plans - fitted[:, None]).square()).sum(1)
    return torch.where(total > 0, fitted, mean), torch.where(total > 0, spread, variance)


def _candidates(mean: Tensor, count: int) -> tuple[int, ...]:
    return len(mean), count, *mean.shape[1:]


def _with(candidates: Tensor, proposals: Tensor | None) -> Tensor:
    return candidates if proposals is None else torch.cat([candidates, proposals], 1)


def _fresh(space: PlanSpace, size: int, horizon: int, device: torch.device | str = "cpu", elites: int = 0) -> Memory:
    """The memory with which an episode begins: the middle, and as elites the middle as well."""
    mean = space.middle(size, horizon, device)
    return Memory(mean=mean, elites=space.settle(mean)[:, None].repeat(1, elites, 1, 1))


def _shifted(mean: Tensor, space: PlanSpace) -> Tensor:
    """The proposal one step on: its first action has been taken, and nothing is known of the new last one."""
    return torch.cat([mean[:, 1:], space.middle(len(mean), 1, mean.device)], 1)


def _at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise ValueError(f"{name}={number} must be >= {least}")
