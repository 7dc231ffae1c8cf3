"""Hindsight: goals of the same episode and the allowed range, exact shares, rewards and ends as the game's own."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameError, Rows, View
from presage.common.relabel import Goals
from presage.envs.goal_rules import DistanceRule
from presage.envs.registry import make, make_gymnasium
from presage.envs.toy.plane import World2D
from presage.gcrl.hindsight import BranchHindsight, Hindsight, Shares
from tests.common.told import EPISODE, LANE, Exactly, Told, told_games, told_spec
from tests.common.toy import PLAIN, assert_same_rows, box_agent, generator

STRATEGIES = [field.name for field in fields(Shares) if field.name != "keep"]


def only(strategy: str) -> Shares:
    return Shares(keep=0.0, **{"future": 0.0, strategy: 1.0})


def drawn(told: Told, shares: Shares, size: int, seed: int = 0, **options: object) -> tuple[torch.Tensor, Rows, Rows]:
    """Places, stored rows and relabelled ones."""
    rng = generator(seed)
    index = told.replay.sample(size, rng)
    rows = told.replay.rows(index)
    return index, rows, Hindsight(told.spec, Exactly(), shares, **options)(told.replay, index, rows, rng)  # type: ignore[arg-type]


def origin(goal: float) -> tuple[int, int, int]:
    """(lane, episode, steps made) that a goal tells of."""
    return int(goal) // LANE, int(goal) % LANE // EPISODE, int(goal) % EPISODE


@given(told_games(), st.sampled_from(["future", "geometric", "final", "episode"]), st.integers(0, 100))
def test_goals_come_from_the_same_episode_and_the_allowed_range(told: Told, strategy: str, seed: int) -> None:
    index, _, found = drawn(told, only(strategy), 64, seed)
    for place, goals in zip(index.tolist(), found.desired.tolist(), strict=True):
        lane, episode, step = told.at(place)
        held = [step + 1 for step in told.steps(lane, episode)]  # steps made when their outcomes were seen
        allowed = {"future": held[held.index(step + 1) :], "final": held[-1:], "episode": held}
        for goal in goals:
            at = origin(goal)
            assert at[:2] == (lane, episode)
            assert at[2] in allowed.get(strategy, allowed["future"])


@given(told_games(), st.sampled_from(STRATEGIES), st.integers(0, 100))
def test_rewards_and_ends_are_the_rule_s_and_everything_else_is_untouched(told: Told, strategy: str, seed: int) -> None:
    before = told.replay.rows(told.replay.all())
    _, rows, found = drawn(told, Shares(keep=1.0, **{"future": 0.0, strategy: 1.0}), 64, seed)
    reached = found.next_achieved == found.desired
    changed = found.desired != rows.desired
    assert torch.equal(found.reward[changed], reached[changed].float() - 1)
    assert torch.equal(found.terminated[changed], reached[changed])
    assert_same_rows(found.with_(desired=rows.desired, reward=rows.reward, terminated=rows.terminated), rows)
    assert_same_rows(told.replay.rows(told.replay.all()), before)


@given(told_games(agents=2), st.lists(st.floats(0.0, 5.0), min_size=7, max_size=7), st.integers(1, 300))
def test_shares_are_exact(told: Told, weights: list[float], size: int) -> None:
    if sum(weights) == 0:
        weights[0] = 1.0
    shares = Shares(**dict(zip(["keep", *STRATEGIES], weights, strict=True)))
    _, rows, found = drawn(told, shares, size)
    kept = (found.desired == rows.desired).sum(0)
    expected = size * weights[0] / sum(weights)
    assert (kept >= math.floor(expected - 1e-9)).all()
    if weights[STRATEGIES.index("pursued") + 1] == 0:  # what is pursued elsewhere in an episode is the same goal
        assert (kept <= math.ceil(expected + 1e-9)).all()


def test_the_k_of_the_paper_is_a_share() -> None:
    assert Shares.of(4) == Shares(keep=1.0, future=4.0)
    assert Shares.of(1, "final") == Shares(keep=1.0, future=0.0, final=1.0)
    told = one_episode(10)
    for k in (0, 1, 4):
        _, rows, found = drawn(told, Shares.of(k), 1_000)
        assert int((found.desired != rows.desired).sum()) == 1_000 * k // (1 + k)


def one_episode(length: int) -> Told:
    spec = told_spec(1, True)
    told = Told(spec, EpisodicReplay(spec, 100, 1), [[length]])
    told.play([length])
    return told


@pytest.mark.parametrize(("strategy", "step"), [("future", 3), ("geometric", 3), ("episode", 5), ("future", 9)])
def test_goals_are_as_likely_as_they_should_be(strategy: str, step: int) -> None:
    told, size, persistence = one_episode(10), 20_000, 0.8
    rng = generator(0)
    index = torch.full((size,), step)
    relabel = Hindsight(told.spec, Exactly(), only(strategy), persistence=persistence)
    goals = relabel(told.replay, index, told.replay.rows(index), rng).desired[:, 0].long()
    counts = np.bincount(goals.numpy(), minlength=11)
    likely = np.zeros(11)
    for k in range(0 if strategy == "episode" else step, 10):
        likely[k + 1] = persistence ** (k - step) if strategy == "geometric" else 1.0
    possible = likely > 0
    assert counts[~possible].sum() == 0
    if possible.sum() > 1:
        assert chisquare(counts[possible], size * likely[possible] / likely.sum()).pvalue > 1e-3


@pytest.mark.parametrize("strategy", ["random", "pursued"])
def test_goals_of_the_whole_replay_come_from_all_of_it(strategy: str) -> None:
    spec = told_spec(1, False)
    told = Told(spec, EpisodicReplay(spec, 20, 2), [[3, 4, 2], [5, 5]])
    told.play([9, 10])
    _, _, found = drawn(told, only(strategy), 2_000)
    rows = told.replay.rows(told.replay.all())
    everything = rows.next_achieved if strategy == "random" else rows.desired
    assert set(found.desired.flatten().tolist()) == set(everything.flatten().tolist())


def test_agents_draw_for_themselves_and_those_that_share_a_goal_together() -> None:
    spec = told_spec(3, True)
    told = Told(spec, EpisodicReplay(spec, 100, 1), [[40]])
    told.play([40])
    _, rows, found = drawn(told, Shares.of(1), 1_000)
    changed = found.desired != rows.desired
    assert torch.equal(changed.sum(0), torch.full((3,), 500))
    together = float((changed[:, 0] & changed[:, 1]).float().mean())
    assert together == pytest.approx(0.25, abs=0.05)
    assert (found.desired[:, 0] != found.desired[:, 1])[changed[:, 0] & changed[:, 1]].any()
    assert torch.equal(found.reward[~changed], rows.reward[~changed])

    shared = tuple(box_agent(f"agent_{i}", (i,), 1, (0, 1) if i < 2 else (2,)) for i in range(3))
    goals = Goals(type(spec)(**{**vars(spec), "agents": shared}), Exactly())
    assert goals.groups == 2
    assert goals.of_entry.tolist() == [0, 0, 1]


@pytest.mark.parametrize(("ends", "terminated"), [("rule", True), ("success", True), ("never", False)])
def test_a_row_whose_goal_is_its_own_outcome_ends_as_asked(ends: str, terminated: bool) -> None:
    told = one_episode(4)
    index = torch.tensor([3])
    relabel = Hindsight(told.spec, Exactly(), Shares(keep=0.0, future=1.0), ends=ends)  # type: ignore[arg-type]
    found = relabel(told.replay, index, told.replay.rows(index), generator(0))
    assert float(found.reward) == 0.0
    assert bool(found.terminated) == terminated


def test_the_same_generator_draws_the_same_goals() -> None:
    told = one_episode(20)
    mixed = Shares(keep=1, future=1, geometric=1, final=1, episode=1, random=1, pursued=1)
    (_, _, one), (_, _, two), (_, _, other) = (drawn(told, mixed, 50, seed) for seed in (0, 0, 1))
    assert_same_rows(one, two)
    assert not torch.equal(one.desired, other.desired)


def test_bad_input_is_refused() -> None:
    spec = told_spec(1, True)
    with pytest.raises(ValueError, match=r"future=-1\.0 must be >= 0"):
        Shares(future=-1.0)
    with pytest.raises(ValueError, match="all shares are 0"):
        Shares(keep=0.0, future=0.0)
    with pytest.raises(ValueError, match="strategy='past' must be one of future"):
        Shares.of(4, "past")
    with pytest.raises(ValueError, match=r"persistence=1\.0 must lie in"):
        Hindsight(spec, Exactly(), persistence=1.0)
    with pytest.raises(ValueError, match="ends='always' must be one of"):
        Hindsight(spec, Exactly(), ends="always")  # type: ignore[arg-type]
    with pytest.raises(GameError, match="'plain' has no goals"):
        Hindsight(PLAIN, Exactly())
    ownerless = type(spec)(**{**vars(spec), "agents": (box_agent("a", (0,), 1),)})
    with pytest.raises(GameError, match=r"entries \[0\] of the goal vector belong to no agent"):
        Hindsight(ownerless, Exactly())


@pytest.mark.parametrize(
    ("name", "options"), [("FetchReach-v4", {}), ("PointMaze_UMaze-v3", {"continuing_task": False})]
)
def test_relabelled_rows_are_what_the_environment_itself_would_have_said(name: str, options: dict[str, Any]) -> None:
    game, raw = make(f"gym/{name}", 2, **options), make_gymnasium(name, options).unwrapped
    replay, view, rng = EpisodicReplay(game.spec, 500, 2), game.reset(0), generator(0)
    for _ in range(150):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        replay.extend(rows)
    game.close()
    index = replay.sample(500, rng)
    relabel = Hindsight(game.spec, game.goal_rule)  # type: ignore[attr-defined]
    found = relabel(replay, index, replay.rows(index), rng)
    said: Any = raw
    for achieved, desired, reward, terminated in zip(
        found.next_achieved.numpy(), found.desired.numpy(), found.reward, found.terminated, strict=True
    ):
        assert float(reward) == pytest.approx(float(said.compute_reward(achieved, desired, {})))
        assert bool(terminated) == bool(said.compute_terminated(achieved, desired, {}))
    assert 0 < int((found.desired == found.next_achieved).all(1).sum()) < 500


@settings(deadline=None, max_examples=30)
@given(
    lives=st.lists(st.integers(1, 5), min_size=1, max_size=9),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_in_branches_goals_are_their_own_later_outcomes(lives: list[int], share: float, seed: int) -> None:
    """Branches of unequal lengths, whose outcomes are (branch, step)."""
    rules, rule, steps = World2D(spread=True), DistanceRule(threshold=0.15), []
    for u in range(max(lives)):
        branch = torch.tensor([k for k, life in enumerate(lives) if life > u])
        at = torch.stack([branch.float(), torch.full((len(branch),), float(u))], 1)
        view, after = (View.of(rules.spec, at - torch.tensor([0.0, k]), desired=at * 0 - 9.0) for k in (1.0, 0.0))
        never = torch.zeros(len(branch), 1, dtype=torch.bool)
        zero = torch.zeros(len(branch), 1)
        steps.append(
            (Rows.of(rules.spec, view, zero.expand(-1, 2), zero, after, never, never[:, 0], zero[:, 0]), branch)
        )
    found = list(BranchHindsight(rules.spec, rule, share)(steps, torch.Generator().manual_seed(seed)))
    for u, (rows, (before, branch)) in enumerate(zip(found, steps, strict=True)):
        moved = (rows.desired != before.desired).any(1)
        assert abs(int(moved.sum()) - share * len(rows)) < 1
        assert torch.equal(rows.desired[moved, 0], branch[moved].float())
        limit = torch.tensor(lives)[branch[moved]].float()
        assert bool(((rows.desired[moved, 1] >= u) & (rows.desired[moved, 1] < limit)).all())
        assert torch.equal(rows.reward[moved], rule.reward(rows.next_achieved, rows.desired)[moved])
        assert torch.equal(rows.reward[~moved], before.reward[~moved])
        assert torch.equal(before.desired, torch.full_like(before.desired, -9.0))


def test_branches_of_no_step_have_nothing_to_relabel() -> None:
    assert not list(BranchHindsight(World2D().spec, DistanceRule(threshold=0.15), 0.5)([], generator(0)))


def test_a_share_of_branches_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share=1\.5 must lie in"):
        BranchHindsight(World2D().spec, DistanceRule(threshold=0.15), 1.5)
