"""MEGA, OMEGA and Skew-Fit: which goal is chosen, when the game's own is, and that it spreads what is achieved."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameError, GameSpec, Rows, View
from presage.common.learner_state import learner_state, restore_learner
from presage.envs.goal_rules import DistanceRule, PoseRule
from presage.gcrl.goals.choice import as_penalty
from presage.gcrl.goals.density import KernelDensity
from presage.gcrl.goals.maximum_entropy import MaximumEntropy, MaximumEntropyConfig, chance_of_own, lowest_cutoff
from presage.gcrl.goals.source import AchievedGoals, GameGoals, GoalSource, Pursuits, UniformGoals
from presage.gcrl.poses import UnitPoses
from tests.common.toy import box_agent, generator

CELLS = 15
LINE = GameSpec(name="line", agents=(box_agent("a", (0,), 1, (0,)),), obs_dim=1, goal_dim=1, achieved=(0,))
PLANE = GameSpec(name="plane", agents=(box_agent("a", (0, 1), 2, (0, 1)),), obs_dim=2, goal_dim=2, achieved=(0, 1))


def filled(spec: GameSpec, achieved: Tensor) -> EpisodicReplay:
    """A replay whose steps achieve these, one-step episodes each."""
    size = len(achieved)
    replay = EpisodicReplay(spec, max(size, 2), 1)
    view, after = View.of(spec, torch.zeros_like(achieved)), View.of(spec, achieved)
    never, zero = torch.zeros(size, spec.n, dtype=torch.bool), torch.zeros(size, spec.n)
    over = torch.ones(size, dtype=torch.bool)
    replay.extend(Rows.of(spec, view, torch.zeros(size, spec.act_dim), zero, after, never, over, torch.zeros(size)))
    return replay


def starts(spec: GameSpec, size: int, desired: float = 0.0) -> View:
    return View.of(spec, torch.zeros(size, spec.obs_dim), desired=torch.full((size, spec.goal_dim), desired))


def pursuits(spec: GameSpec, reached: list[bool], desired: float = 0.0) -> Pursuits:
    start = starts(spec, len(reached), desired)
    return Pursuits(start=start, goals=start.desired, reached=torch.tensor(reached))


def easy(view: View, goals: Tensor) -> Tensor:
    return torch.zeros(len(goals))


def test_the_density_is_that_of_a_mixture_of_gaussians() -> None:
    points = torch.randn(400, 2, generator=generator(0), dtype=torch.float64) * torch.tensor([1.0, 5.0])
    density = KernelDensity(2, 500, 0.3).double()
    density.fit(points)
    normal: Any = Normal(points, 0.3 * (points.std(0, unbiased=False) + 1e-4))
    even: Any = Categorical(torch.ones(400))
    exact: Any = MixtureSameFamily(even, Independent(normal, 1))
    at = torch.randn(50, 2, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(density.log_density(at, part=7), exact.log_prob(at))
    with pytest.raises(RuntimeError, match="no points before `fit`"):
        KernelDensity(2, 10).log_density(at)
    with pytest.raises(ValueError, match="400 points were given to a density with room for 10"):
        KernelDensity(2, 10).fit(points)
    with pytest.raises(ValueError, match="most=1 >= 2"):
        KernelDensity(2, 1)


@pytest.mark.parametrize(
    ("values", "chosen"), [([0.0, 0.0, 0.0], 3.0), ([0.0, -1.0, -9.0], 1.0), ([-7.0, -5.0, -9.0], 1.0)]
)
def test_the_least_dense_goal_within_reach_is_chosen(values: list[float], chosen: float) -> None:
    source = MaximumEntropy(1, easy)
    source.achieved.fit(torch.randn(5_000, 1, generator=generator(0)))
    candidates = torch.tensor([[[0.0], [1.0], [3.0]]])
    assert source.choose(candidates, torch.tensor([values]), generator(0)).tolist() == [[chosen]]


def test_a_power_of_the_density_draws_as_it_says() -> None:
    source = MaximumEntropy(1, easy, MaximumEntropyConfig(power=-0.5))
    shares = torch.tensor([0.7, 0.2, 0.1])
    points = torch.tensor([0.0, 10.0, 20.0]).repeat_interleave(torch.tensor([70, 20, 10]))[:, None]
    source.achieved.fit(points)
    candidates = torch.tensor([0.0, 10.0, 20.0])[torch.multinomial(shares, 100_000, True, generator=generator(1))]
    chosen = source.choose(candidates.view(-1, 100, 1), torch.zeros(1_000, 100), generator(2))
    found = torch.stack([(chosen[:, 0] == at).double().mean() for at in (0.0, 10.0, 20.0)])
    torch.testing.assert_close(found, torch.tensor([0.523, 0.279, 0.198], dtype=torch.float64), atol=0.05, rtol=0)


@pytest.mark.parametrize(("power", "shares"), [(-1.0, (1 / 3, 1 / 3, 1 / 3)), (-0.5, (0.523, 0.279, 0.198))])
def test_candidates_of_a_known_density_are_drawn_in_the_shares_of_its_power(
    power: float, shares: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, density = MaximumEntropy(1, easy, MaximumEntropyConfig(power=power)), torch.tensor([0.7, 0.2, 0.1])
    monkeypatch.setattr(source.achieved, "log_density", lambda goals: density.log()[goals[:, 0].long()])
    draws, many = 10_000, 500
    candidates = torch.multinomial(density, draws * many, True, generator=generator(0)).view(draws, many, 1)
    chosen = source.choose(candidates, torch.zeros(draws, many), generator(1))
    for goal, share in enumerate(shares):
        sigma = math.sqrt(share * (1 - share) / draws)
        assert float((chosen == goal).double().mean()) == pytest.approx(share, abs=3 * sigma)


def test_the_chance_of_the_game_s_own_goal_follows_the_divergence() -> None:
    assert chance_of_own(0.0, -3.0) == chance_of_own(4.0, -3.0) == 1.0
    assert chance_of_own(8.0, -3.0) == pytest.approx(0.2)
    source = MaximumEntropy(1, easy, MaximumEntropyConfig(annealed=True, bandwidth=0.3, fitted=4_000))
    rng = generator(0)
    replay = filled(LINE, torch.randn(4_000, 1, generator=rng))

    def chance(away: float) -> float:
        wanted = away + torch.randn(1_000, 1, generator=rng)
        start = View.of(LINE, torch.zeros(1_000, 1), desired=wanted)
        source.ended(Pursuits(start=start, goals=wanted, reached=torch.zeros(1_000, dtype=torch.bool)))
        source.learn(replay, rng)
        return source.chance

    assert chance(0.0) == 1.0
    assert chance(4.0) == pytest.approx(0.2, abs=0.08)


def test_own_goals_are_pursued_by_chance_and_only_within_reach() -> None:
    def value(view: View, goals: Tensor) -> Tensor:
        return torch.where(goals[:, 0] > 50.0, reach, 0.0)

    source = MaximumEntropy(1, value, MaximumEntropyConfig(annealed=True, fitted=200, candidates=4))
    rng = generator(0)
    replay = filled(LINE, torch.randn(500, 1, generator=rng))
    assert source.propose(starts(LINE, 3, 99.0), replay, rng).tolist() == [[99.0]] * 3
    source.learn(replay, rng)
    source.chance, reach = 0.25, 0.0
    own = source.propose(starts(LINE, 4_000, 99.0), replay, rng)[:, 0] == 99.0
    assert float(own.double().mean()) == pytest.approx(0.25, abs=0.03)
    reach = -10.0
    assert not (source.propose(starts(LINE, 400, 99.0), replay, rng)[:, 0] == 99.0).any()


def test_the_lowest_cutoff_is_the_value_four_fifths_of_an_episode_away() -> None:
    assert lowest_cutoff(0.98, 50) == pytest.approx(-27.7, abs=0.05)
    assert lowest_cutoff(0.999, 300) == pytest.approx(-sum(0.99**k for k in range(240)))
    assert lowest_cutoff(0.98, None) == pytest.approx(-50.0)
    source = MaximumEntropy(1, easy, discount=0.9, episode_limit=5)
    for _ in range(9):
        source.ended(pursuits(LINE, [True] * 10))
    assert source.cutoff == source.metrics["goal/cutoff"] == pytest.approx(-(1 + 0.9 + 0.81 + 0.729))
    short = MaximumEntropy(1, easy, discount=0.9, episode_limit=1)
    short.ended(pursuits(LINE, [True] * 10))
    assert short.cutoff == -3.0, "never above where it starts"


def test_the_cutoff_follows_successes() -> None:
    source = MaximumEntropy(1, easy, MaximumEntropyConfig(lowest=-5.0))
    source.ended(pursuits(LINE, [False] * 10))
    assert source.cutoff == -3.0
    source.ended(pursuits(LINE, [True] * 7))
    assert source.cutoff == -3.0
    source.ended(pursuits(LINE, [False] * 3))
    assert source.cutoff == -4.0
    source.ended(pursuits(LINE, [True, False] * 5))
    assert source.cutoff == -4.0
    for _ in range(4):
        source.ended(pursuits(LINE, [True] * 10))
    assert source.cutoff == -5.0
    source.ended(pursuits(LINE, [False] * 10))
    assert source.cutoff == -4.0


def test_its_state_is_saved_and_the_same_seed_proposes_the_same() -> None:
    rng = generator(0)
    replay = filled(LINE, torch.randn(500, 1, generator=rng))
    source, other = (MaximumEntropy(1, easy, MaximumEntropyConfig(annealed=True, fitted=100)) for _ in range(2))
    source.ended(pursuits(LINE, [True] * 12, 0.5))
    source.learn(replay, rng)
    restore_learner(other, learner_state(source))
    one, two = (each.propose(starts(LINE, 20), replay, generator(3)) for each in (source, other))
    assert torch.equal(one, two)
    assert (other.cutoff, other.successes, other.chance) == (source.cutoff, source.successes, source.chance)


def walked(goals: Tensor, rng: torch.Generator) -> Tensor:
    """Where walkers of unit steps, from the middle, get to in 12 steps, noisily, in a field of cells: all places."""
    place, places = torch.full_like(goals, CELLS // 2), []
    for _ in range(12):
        step = (goals - place).clamp(-1.0, 1.0)
        place = (place + step + 0.3 * torch.randn(place.shape, generator=rng)).clamp(0.0, CELLS - 1.0)
        places.append(place)
    return torch.stack(places)


def entropy(places: Tensor) -> float:
    """Of the cells that places `(., 2)` lie in, in nats."""
    cell = places.round().long().reshape(-1, 2)
    counts = torch.bincount(cell[:, 0] * CELLS + cell[:, 1]).double()
    share = counts[counts > 0] / counts.sum()
    return float(-(share * share.log()).sum())


@pytest.mark.parametrize("seed", range(5))
def test_it_spreads_what_is_achieved_more_than_achieved_goals_do(seed: int) -> None:
    found = []
    sources: list[GoalSource] = [
        MaximumEntropy(2, easy, MaximumEntropyConfig(fitted=400, candidates=50)),
        AchievedGoals(),
    ]
    for source in sources:
        rng = generator(seed)
        places = walked(torch.full((1, 2), CELLS / 2), rng)
        for _ in range(200):
            replay = filled(PLANE, places.reshape(-1, 2))
            source.learn(replay, rng)
            goals = source.propose(starts(PLANE, 1), replay, rng)
            places = torch.cat([places, walked(goals, rng)])
        found.append(entropy(places))
    assert found[0] > found[1] + 0.1


def test_simple_sources() -> None:
    rng = generator(0)
    replay, empty = filled(LINE, torch.tensor([[1.0], [2.0]])), EpisodicReplay(LINE, 10, 1)
    start = starts(LINE, 200, 7.0)
    own, uniform, achieved = GameGoals(), UniformGoals(torch.tensor([-1.0]), torch.tensor([3.0])), AchievedGoals()
    assert torch.equal(own.propose(start, replay, rng), start.desired)
    drawn = uniform.propose(start, replay, rng)
    assert -1.0 <= float(drawn.min()) < 0.0 < 2.0 < float(drawn.max()) <= 3.0
    assert set(achieved.propose(start, replay, rng).flatten().tolist()) == {1.0, 2.0}
    assert torch.equal(achieved.propose(start, empty, rng), start.desired)
    for source in (own, uniform, achieved):
        source.ended(pursuits(LINE, [True]))
        source.learn(replay, rng)
    with pytest.raises(ValueError, match="must be <= high"):
        UniformGoals(torch.tensor([1.0]), torch.tensor([0.0]))


@pytest.mark.parametrize(
    "wrong", [{"candidates": 0}, {"fitted": 1}, {"remembered": 1}, {"judged": 0}, {"bandwidth": 0.0}, {"lowest": 0.0}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        MaximumEntropyConfig(**wrong)


def test_entropy_gain_is_the_rate_that_the_rule_stands_on() -> None:
    p, q = (torch.softmax(torch.randn(9, generator=generator(k), dtype=torch.float64), 0) for k in (0, 1))

    def spread(share: float) -> float:
        mixed = (1 - share) * p + share * q
        return float(-(mixed * mixed.log()).sum())

    slope = (spread(1e-5) - spread(-1e-5)) / 2e-5
    assert math.isclose(slope, float(-(q * p.log()).sum()) - spread(0.0), abs_tol=1e-4)


@pytest.mark.parametrize(
    ("reward_type", "ends", "terminates"),
    [
        ("penalty", "rule", False), ("penalty", "rule", True), ("bonus", "rule", True), ("bonus", "success", False),
        ("bonus", "rule", False), ("bonus", "never", True),
    ],
)  # fmt: skip
def test_values_are_brought_to_those_of_a_penalty(reward_type: Any, ends: Any, terminates: bool) -> None:
    discount, steps = 0.9, 400
    rule = DistanceRule(threshold=0.5, reward_type=reward_type, terminates=terminates)
    goes_on = ends == "never" or (ends == "rule" and not terminates)

    def paid_from(away: int) -> float:
        """To walk from `away` to 0, and to stay there if the walk goes on."""
        total = 0.0
        for k in range(steps):
            place = torch.tensor([[float(max(away - k - 1, 0))]])
            total += discount**k * float(rule.reward(place, torch.zeros(1, 1)))
            if place == 0 and not goes_on:
                break
        return total

    walks = range(1, 6)
    value = torch.tensor([paid_from(away) for away in walks])
    brought = as_penalty(lambda view, goals: value, rule, 1, discount, ends, torch.device("cpu"))
    found = brought(starts(LINE, 5), torch.zeros(5, 1))
    torch.testing.assert_close(found, torch.tensor([-sum(discount**k for k in range(away - 1)) for away in walks]))


@pytest.mark.parametrize("reward_type", ["distance", "exponential"])
def test_values_of_anything_else_are_refused(reward_type: str) -> None:
    rule = DistanceRule(threshold=0.5, reward_type=reward_type)  # type: ignore[arg-type]
    with pytest.raises(GameError, match=r"pays \d+ different rewards from .* to .*; sources that read values need"):
        as_penalty(lambda view, goals: goals[:, 0], rule, 1, 0.9, "rule", torch.device("cpu"))


@pytest.mark.parametrize("position", [True, False])
def test_values_of_poses_are_taken_as_they_are(position: bool) -> None:
    for rule in (PoseRule(position=position), UnitPoses(PoseRule(position=position))):
        value = as_penalty(lambda view, goals: goals[:, 0], rule, 7, 0.9, "rule", torch.device("cpu"))
        assert float(value(starts(LINE, 1), torch.full((1, 7), -3.0))) == -3.0
