"""GoalGAN: labels, the discriminator's optimum, a band that the generator finds, the archive, rounds without hope."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameSpec, Rows, View
from presage.common.learner_state import learner_state, restore_learner
from presage.envs.batched import BatchedGame
from presage.envs.toy.plane import World2D
from presage.gcrl.goals.goal_gan import GoalGAN, GoalGANConfig, intermediate
from presage.gcrl.goals.pursuit import Pursuit
from presage.gcrl.goals.source import Pursuits
from tests.common.toy import box_agent, generator

LINE = GameSpec(name="line", agents=(box_agent("a", (0,), 1, (0,)),), obs_dim=1, goal_dim=1, achieved=(0,))
EMPTY = EpisodicReplay(LINE, 10, 1)


def gan(**numbers: Any) -> GoalGAN:
    return GoalGAN(torch.tensor([-1.0]), torch.tensor([1.0]), GoalGANConfig(**numbers), generator(0))


def starts(size: int) -> View:
    return View.of(LINE, torch.zeros(size, 1), desired=torch.full((size, 1), 9.0))


def walked(achieved: list[float]) -> EpisodicReplay:
    """A replay of so many steps, each to the next of these places."""
    replay, places = EpisodicReplay(LINE, len(achieved), 1), torch.tensor(achieved)[:, None]
    for k, place in enumerate(places):
        reached = View.of(LINE, place[None], desired=torch.full((1, 1), 9.0))
        never, zero = torch.zeros(1, 1, dtype=torch.bool), torch.zeros(1, 1)
        replay.extend(Rows.of(LINE, starts(1), zero, zero, reached, never, never[0], torch.tensor([k])))
    return replay


def pursuits(goals: list[float], reached: list[bool]) -> Pursuits:
    return Pursuits(start=starts(len(goals)), goals=torch.tensor(goals)[:, None], reached=torch.tensor(reached))


def test_labels_are_success_rates_between_the_bounds() -> None:
    three, tries = torch.arange(4.0), torch.full((4,), 3.0)
    assert intermediate(three, tries, 0.1, 0.9).tolist() == [False, True, True, False]
    assert intermediate(three[:3], torch.full((3,), 2.0), 0.0, 1.0).tolist() == [False, True, False]


@pytest.mark.parametrize(("shares", "optimum"), [((0.5, 0.2, 0.3), 0.0), ((0.8, 0.1, 0.1), 0.6)])
def test_the_discriminator_tends_to_its_optimum(shares: tuple[float, ...], optimum: float) -> None:
    """`D* = (b p1 + a (p0 + pG)) / (p1 + p0 + pG)` in a cell: what least squares says where labels contradict."""
    source, at = gan(discriminator_hidden=(16,)), torch.zeros(100, 1)
    wanted = torch.cat(
        [torch.full((round(100 * share),), sign) for share, sign in zip(shares, (1.0, -1.0, -1.0), strict=True)]
    )
    for _ in range(600):
        source.discriminator_optim.zero_grad()
        (source.judge(at) - wanted).square().mean().backward()  # type: ignore[no-untyped-call]
        source.discriminator_optim.step()
    assert float(source.judge(at[:1]).detach()) == pytest.approx(optimum, abs=0.02)


@pytest.mark.parametrize(("diversity", "least", "most"), [(0.0, 0.0, 0.025), (0.001, 0.03, 0.08)])
@pytest.mark.parametrize(("seed", "wished"), [(0, 1.0), (1, 0.0)])
def test_generated_goals_lie_in_the_band_of_intermediate_ones(
    seed: int, wished: float, diversity: float, least: float, most: float
) -> None:
    """A band of deviation 0.058: the generator draws one of its goals alone, unless it is made to differ."""
    source, rng = gan(wished=wished, diversity=diversity), generator(seed)
    goals = 2 * torch.rand(300, 1, generator=rng) - 1
    assert source.fit(goals, ((goals > 0.4) & (goals < 0.6))[:, 0], rng, steps=1_000)
    drawn = source.generate(2_000, rng).detach()
    assert float(((drawn > 0.3) & (drawn < 0.7)).double().mean()) >= 0.95
    assert least < float(source.spread(rng)) < most


def test_the_generator_s_range_is_the_box() -> None:
    source = GoalGAN(torch.tensor([-3.0, 5.0]), torch.tensor([1.0, 6.0]), GoalGANConfig(), generator(0))
    with torch.no_grad():
        for part in source.generator.parameters():
            part.mul_(1_000.0)
    goals = source.generate(500, generator(1)).detach()
    assert [goals.min(0).values.tolist(), goals.max(0).values.tolist()] == [[-3.0, 5.0], [1.0, 6.0]]


def test_the_archive_keeps_its_goals_apart_and_a_round_takes_a_third_from_it() -> None:
    source, rng = gan(apart=0.01, noise=0.2, goals=90), generator(0)
    source.remember(2 * torch.rand(400, 1, generator=rng) - 1)
    archive: Tensor = source.get_buffer("archived")[: source.kept]
    gaps = (archive - archive.T).abs() + torch.eye(source.kept) * 9
    assert float(gaps.min()) > 0.01
    assert source.kept >= 40
    source.trained = True
    proposed = source.propose(starts(90), EMPTY, rng)
    old = (proposed[:, :, None] == archive.T[None]).any(2)[:, 0]
    assert int(old.sum()) == 30
    assert len(set(proposed[old].flatten().tolist())) == 30
    assert float(proposed.abs().max()) <= 1.0
    few = gan(goals=90)
    few.remember(torch.tensor([[0.5]]))
    few.trained = True
    assert int((few.propose(starts(90), EMPTY, rng) == 0.5).sum()) == 1


def test_at_first_it_draws_what_has_been_achieved() -> None:
    source, rng = gan(steps=600, first=300, noise=0.0, goals=200), generator(0)
    replay = walked(torch.empty(500).uniform_(-0.8, -0.4, generator=rng).tolist())
    assert source.propose(starts(2), replay, rng).tolist() == [[9.0], [9.0]]
    source.learn(replay, rng)
    drawn = source.propose(starts(200), replay, rng)
    assert float(((drawn > -0.9) & (drawn < -0.3)).double().mean()) > 0.9


def test_every_goal_of_a_round_is_pursued_as_often() -> None:
    source, rng = gan(goals=10, tries=3), generator(0)
    source.trained = True
    found = torch.cat([source.propose(starts(4), EMPTY, rng) for _ in range(10)]).flatten().tolist()
    assert sorted(Counter(found).values()) == [4] * 10
    assert len(set(found[:10])) == 10


def test_without_positive_goals_nothing_is_trained_and_achieved_ones_stand_in() -> None:
    source, rng = gan(goals=20, tries=2), generator(0)
    source.trained = True
    before = [part.clone() for part in source.parameters()]
    for _ in range(2):
        goals = source.propose(starts(20), EMPTY, rng)
        source.ended(pursuits(goals.flatten().tolist(), [False] * 20))
    source.learn(EMPTY, rng)
    assert source.hopeless
    assert source.metrics["goal/intermediate_share"] == source.metrics["goal/archived"] == 0.0
    assert all(torch.equal(one, two) for one, two in zip(before, source.parameters(), strict=True))
    achieved = [0.11, 0.22, 0.33]
    assert set(source.propose(starts(20), walked(achieved), rng).flatten().tolist()) <= set(
        torch.tensor(achieved).tolist()
    )


def test_a_round_counts_labels_trains_and_archives() -> None:
    source, rng = gan(goals=30, tries=3, least_positive=5, steps=20, noise=0.5, apart=0.01), generator(0)
    source.trained = True
    weights = [part.clone() for part in source.generator.parameters()]
    goals = source.propose(starts(30), EMPTY, rng)
    hard, easy = goals[:, 0] < -0.3, goals[:, 0] > 0.3
    for turn in range(3):
        assert source.under_way, "a round lasts until every goal has been tried as often as is asked"
        source.learn(EMPTY, rng)
        source.ended(pursuits(goals.flatten().tolist(), (easy | (~hard & (turn == 0))).tolist()))
        source.ended(pursuits([0.123456], [True]))
    source.learn(EMPTY, rng)
    assert not source.under_way
    assert not source.hopeless
    assert any(not torch.equal(one, two) for one, two in zip(weights, source.generator.parameters(), strict=True))
    archive, wanted = source.get_buffer("archived")[: source.kept, 0], goals[~hard & ~easy, 0]
    assert 5 <= source.kept <= len(wanted)
    assert set(archive.tolist()) <= set(wanted.tolist())
    assert source.metrics["goal/intermediate_share"] == pytest.approx(len(wanted) / len(set(goals.flatten().tolist())))
    assert source.metrics["goal/generator_spread"] > 0.0


def test_goals_of_a_plane_are_labelled_trained_on_and_archived() -> None:
    """No goal of a continuous space comes twice by itself: a round has to pursue the same ones again."""
    rules = World2D(epsilon=0.8, spread=True, episode_limit=8)
    assert rules.goal_rule is not None
    numbers = GoalGANConfig(goals=12, tries=4, least_positive=2, steps=30, noise=0.3, first=200)
    source = GoalGAN(torch.zeros(2), torch.full((2,), 6.0), numbers, generator(0))
    pursuit = Pursuit(rules.spec, rules.goal_rule, source, generator(1), learn_every=16)
    game, rng = BatchedGame(rules, 4), generator(5)
    replay, view = EpisodicReplay(rules.spec, 4_000, 4), game.reset(3)
    for _ in range(800):
        pursuit.aim(view, replay)
        rows, view = game.step(torch.rand(4, 2, generator=rng) * 2 - 1)
        replay.extend(pursuit.rows(rows))
    assert source.kept > 3
    assert pursuit.metrics["goal/archived"] == source.kept
    assert 0.0 < pursuit.metrics["goal/intermediate_share"] < 1.0


def test_a_restored_source_goes_on_exactly() -> None:
    numbers = {"goals": 30, "tries": 2, "steps": 5, "least_positive": 1}
    source = gan(**numbers)
    other = GoalGAN(torch.tensor([-1.0]), torch.tensor([1.0]), GoalGANConfig(**numbers), generator(8))  # type: ignore[arg-type]
    rng, goals = generator(0), torch.linspace(-1, 1, 30)
    source.fit(goals[:, None], goals > 0, rng)
    source.remember(goals[:, None])
    first = source.propose(starts(12), EMPTY, rng).flatten().tolist()
    source.ended(pursuits(first, [True] * 12))
    restore_learner(other, learner_state(source))
    found = []
    for each in (source, other):
        rng = generator(3)
        rest = torch.cat([each.propose(starts(24), EMPTY, rng) for _ in range(2)]).flatten().tolist()
        each.ended(pursuits(rest, [k % 2 == 0 for k in range(48)]))
        each.learn(EMPTY, rng)
        assert not each.under_way
        found.append(each.propose(starts(20), EMPTY, rng))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"low_success": 0.95}, {"noise_width": 0}, {"batch_size": 0}, {"steps": 0}, {"archive": 0},
        {"least_positive": 0}, {"goals": 0}, {"tries": 1}, {"first": 0}, {"learning_rate": 0.0},
        {"noise": -1.0}, {"apart": -0.1}, {"fresh_share": 1.5},
    ],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        GoalGANConfig(**wrong)


def test_an_empty_box_is_refused() -> None:
    with pytest.raises(ValueError, match=r"low=\[1\.0\] must be < high=\[1\.0\]"):
        GoalGAN(torch.tensor([1.0]), torch.tensor([1.0]), None, generator(0))
