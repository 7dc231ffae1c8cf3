"""GoalGAN: labels, the discriminator's optimum, a band that the generator finds, the archive, rounds without hope."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameSpec, View
from presage.common.learner_state import learner_state, restore_learner
from presage.gcrl.goals.goal_gan import GoalGAN, GoalGANConfig, intermediate
from presage.gcrl.goals.source import Pursuits
from tests.common.toy import box_agent, generator

LINE = GameSpec(name="line", agents=(box_agent("a", (0,), 1, (0,)),), obs_dim=1, goal_dim=1, achieved=(0,))
EMPTY = EpisodicReplay(LINE, 10, 1)


def gan(**numbers: Any) -> GoalGAN:
    return GoalGAN(torch.tensor([-1.0]), torch.tensor([1.0]), GoalGANConfig(**numbers), generator(0))


def starts(size: int) -> View:
    return View.of(LINE, torch.zeros(size, 1), desired=torch.full((size, 1), 9.0))


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


def test_the_archive_keeps_its_goals_apart_and_proposals_mix_both() -> None:
    source, rng = gan(apart=0.3, noise=0.2), generator(0)
    source.remember(2 * torch.rand(400, 1, generator=rng) - 1)
    archive: Tensor = source.get_buffer("archived")[: source.kept]
    gaps = (archive - archive.T).abs() + torch.eye(source.kept) * 9
    assert float(gaps.min()) > 0.3
    assert source.kept >= 4
    assert set(source.propose(starts(300), EMPTY, rng).flatten().tolist()) == set(archive.flatten().tolist())
    source.trained = True
    proposed = source.propose(starts(3_000), EMPTY, rng)
    old = (proposed[:, :, None] == archive.T[None]).any(2)
    assert float(old.double().mean()) == pytest.approx(1 / 3, abs=0.04)
    assert float(proposed.abs().max()) <= 1.0


def test_without_positive_goals_nothing_is_trained() -> None:
    source, rng = gan(rounds=20), generator(0)
    before = [part.clone() for part in source.parameters()]
    source.ended(pursuits(torch.linspace(-1, 1, 20).tolist(), [False] * 20))
    source.learn(EMPTY, rng)
    assert source.trials == 0
    assert all(torch.equal(one, two) for one, two in zip(before, source.parameters(), strict=True))
    assert source.propose(starts(2), EMPTY, rng).tolist() == [[9.0], [9.0]]


def test_a_round_counts_labels_trains_and_archives() -> None:
    source, rng = gan(rounds=30, least_positive=5, steps=20), generator(0)
    goals = torch.linspace(-1, 1, 30).tolist()
    for turn in range(3):
        source.ended(pursuits(goals, [(k < 10) or (k < 20 and turn == 0) for k in range(30)]))
    assert source.trials == 30
    source.ended(pursuits([0.123], [True]))
    assert source.trials == 30
    source.learn(EMPTY, rng)
    assert source.trained
    assert 0 < source.kept <= 10
    archive = source.get_buffer("archived")[: source.kept, 0]
    assert float(archive.min()) >= goals[10] - 1e-6
    assert float(archive.max()) <= goals[19] + 1e-6


def test_a_restored_source_goes_on_exactly() -> None:
    source, other = (
        gan(rounds=30, steps=5),
        GoalGAN(torch.tensor([-1.0]), torch.tensor([1.0]), GoalGANConfig(rounds=30, steps=5), generator(8)),
    )
    rng, goals = generator(0), torch.linspace(-1, 1, 30)
    source.fit(goals[:, None], goals > 0, rng)
    source.remember(goals[:, None])
    source.ended(pursuits(goals[:12].tolist(), [True] * 12))
    restore_learner(other, learner_state(source))
    found = []
    for each in (source, other):
        rng = generator(3)
        each.ended(pursuits(goals.tolist(), [k % 2 == 0 for k in range(30)]))
        each.learn(EMPTY, rng)
        found.append(each.propose(starts(20), EMPTY, rng))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"low_success": 0.95}, {"noise_width": 0}, {"batch_size": 0}, {"steps": 0}, {"archive": 0},
        {"least_positive": 0}, {"rounds": 0}, {"learning_rate": 0.0}, {"noise": -1.0}, {"apart": -0.1},
        {"fresh_share": 1.5},
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
