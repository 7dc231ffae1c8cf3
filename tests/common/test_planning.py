"""Planners against optima that are known, and against the faults of other people's."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.evaluate import renew
from presage.common.game import GameError
from presage.common.planning import (
    CEM,
    ICEM,
    MPPI,
    Memory,
    Planner,
    PlanSpace,
    RandomShooting,
    Score,
    climb,
    coloured_noise,
    truncated_normal,
)
from presage.envs.registry import make
from presage.envs.toy import LinearQuadratic

NUMBERS = PlanSpace(2, ())
MIXED = PlanSpace(6, (slice(0, 3), slice(4, 6)))
"""two heads around one number"""
PLANNERS: dict[str, Planner] = {
    "shooting": RandomShooting(horizon=4, population=50),
    "cem": CEM(horizon=4, population=50, elites=8),
    "icem": ICEM(horizon=4, population=50, elites=8),
    "mppi": MPPI(horizon=4, population=50, elites=8),
}


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def near(target: Tensor) -> Score:
    """A score: minus the squared distance to `target (B, H, A)`."""
    return lambda plans: -(plans - target[:, None]).square().sum((2, 3))


@pytest.mark.parametrize(
    ("planner", "within"),
    [
        (CEM(horizon=3, population=400, elites=40, iterations=10, stop_variance=0.0), 0.01),
        (ICEM(horizon=3, population=400, elites=20, iterations=10, noise_exponent=0.5), 0.03),
        (MPPI(horizon=3, population=512, elites=64, iterations=12, temperature=3.0, min_std=0.01), 0.03),
        (RandomShooting(horizon=3, population=20_000), 0.35),
    ],
    ids=["cem", "icem", "mppi", "shooting"],
)
def test_every_situation_finds_its_own_optimum(planner: Planner, within: float) -> None:
    target = torch.rand(3, 3, 2, generator=generator(1)) * 1.6 - 0.8
    found = planner.plan(near(target), planner.begin(NUMBERS, 3), NUMBERS, generator())
    assert (found.actions - target).abs().max() < within
    assert (found.value > -6 * within**2).all()


@pytest.mark.parametrize("planner", [PLANNERS[name] for name in ("cem", "icem", "mppi")], ids=["cem", "icem", "mppi"])
def test_heads_are_chosen_beside_numbers(planner: Planner) -> None:
    planner = replace(planner, population=300, elites=30, iterations=8)  # type: ignore[type-var]
    target = MIXED.settle(torch.randn(2, 4, 6, generator=generator(3)) * 0.4)
    found = planner.plan(near(target), planner.begin(MIXED, 2), MIXED, generator())
    heads = ~MIXED.box()
    assert torch.equal(found.actions[..., heads], target[..., heads])
    assert (found.actions - target).abs().max() < 0.15


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(PLANNERS)), st.integers(0, 1000), st.sampled_from([-1.0, 0.0, 3.0]))
def test_only_playable_plans_are_ever_judged(name: str, seed: int, slope: float) -> None:
    planner, box = PLANNERS[name], MIXED.box()
    memory, rng = planner.begin(MIXED, 2), generator(seed)

    def score(plans: Tensor) -> Tensor:
        assert plans[..., box].abs().max() <= 1.0
        for where in MIXED.heads:
            assert torch.equal(plans[..., where].sum(-1), torch.ones(plans.shape[:-1]))
            assert bool(((plans[..., where] == 0.0) | (plans[..., where] == 1.0)).all())
        return slope * plans.sum((2, 3))

    for _ in range(2):
        found = planner.plan(score, memory, MIXED, rng)
        score(found.actions[:, None])
        memory = found.memory


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_what_is_not_a_number_loses(name: str) -> None:
    """Where every honest value is about -100, putting a small number in the place of NaN would win."""
    planner = PLANNERS[name]

    def score(plans: Tensor) -> Tensor:
        first = plans[:, :, 0, 0]
        return torch.where(first > 0, torch.nan, -100.0 - first.square())

    found = planner.plan(score, planner.begin(NUMBERS, 4), NUMBERS, generator())
    assert (found.actions[:, 0, 0] <= 0).all()
    assert ((found.value <= -100) & (found.value >= -101)).all()


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_without_any_finite_value_the_proposal_stays(name: str) -> None:
    planner = PLANNERS[name]
    memory = planner.begin(NUMBERS, 2)
    found = planner.plan(lambda plans: torch.full(plans.shape[:2], torch.nan), memory, NUMBERS, generator())
    assert torch.equal(found.actions, torch.zeros(2, 4, 2))
    assert torch.equal(found.memory.mean, memory.mean)
    assert (found.value == -torch.inf).all()


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_the_same_seed_finds_the_same_plan_and_the_noise_matters(name: str) -> None:
    planner, score = PLANNERS[name], near(torch.full((1, 4, 2), 0.3))
    plans = [planner.plan(score, planner.begin(NUMBERS, 1), NUMBERS, generator(s)).actions for s in (0, 0, 1)]
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[0], plans[2])


@pytest.mark.parametrize("scale", ["start_std", "max_std"])
def test_the_width_of_the_proposal_changes_what_is_found(scale: str) -> None:
    kind = PLANNERS["cem" if scale == "start_std" else "mppi"]
    score, found = near(torch.full((1, 4, 2), 0.3)), []
    for width in (0.1, 0.4):
        planner = replace(kind, **{scale: width})  # type: ignore[type-var]
        found.append(planner.plan(score, planner.begin(NUMBERS, 1), NUMBERS, generator()).actions)
    assert not torch.allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_a_new_episode_knows_nothing_of_the_last_one(name: str) -> None:
    planner, score = PLANNERS[name], near(torch.full((2, 4, 2), 0.6))
    fresh = planner.begin(NUMBERS, 2)
    memory = planner.plan(score, fresh, NUMBERS, generator(5)).memory
    renewed = Memory(*renew(memory, fresh, torch.tensor([True, False])))
    assert torch.equal(renewed.mean[0], fresh.mean[0])
    assert torch.equal(renewed.elites[0], fresh.elites[0])
    assert torch.equal(renewed.mean[1], memory.mean[1])
    assert name == "shooting" or not torch.equal(memory.mean, fresh.mean)


def test_the_next_search_begins_one_step_on() -> None:
    planner = CEM(horizon=3, population=400, elites=40, iterations=10, stop_variance=0.0)
    target = torch.tensor([[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]])
    memory = planner.plan(near(target), planner.begin(NUMBERS, 1), NUMBERS, generator()).memory
    assert torch.allclose(memory.mean, torch.tensor([[[0.3, 0.4], [0.5, 0.6], [0.0, 0.0]]]), atol=0.01)


def test_icem_tries_the_last_searchs_elites_again_one_step_on() -> None:
    planner = ICEM(horizon=3, population=40, elites=10, iterations=2)
    judged: list[Tensor] = []

    def score(plans: Tensor) -> Tensor:
        judged.append(plans)
        return -(plans - 0.4).square().sum((2, 3))

    memory = planner.plan(score, planner.begin(NUMBERS, 1), NUMBERS, generator()).memory
    values = judged[1].sub(0.4).square().sum((2, 3))[0]
    best = judged[1][0, values.topk(3, largest=False).indices]
    assert torch.equal(memory.elites[0, :, :2], best[:, 1:])
    judged.clear()
    planner.plan(score, memory, NUMBERS, generator(1))
    assert torch.equal(judged[0][:, -3:], memory.elites)
    assert [plans.shape[1] for plans in judged] == [40 + 3, 32 + 3 + 1]


@given(st.floats(0.1, 3.0), st.floats(0.01, 4.0))
def test_mppi_weighs_by_the_exponential_of_the_gap(temperature: float, gap: float) -> None:
    planner = MPPI(horizon=1, population=1, elites=None, iterations=1, temperature=temperature)
    judged: list[Tensor] = []

    def score(plans: Tensor) -> Tensor:
        judged.append(plans)
        return torch.tensor([[0.0, -gap]])

    proposal = torch.tensor([[[[0.7, -0.7]]]])
    found = planner.plan(score, planner.begin(NUMBERS, 1), NUMBERS, generator(), proposal)
    ratio = math.exp(temperature * gap)
    expected = (ratio * judged[0][0, 0] + judged[0][0, 1]) / (ratio + 1.0)
    assert torch.allclose(found.actions[0], expected, atol=1e-5)


def test_somebody_elses_plan_wins_where_it_is_best() -> None:
    target = torch.rand(2, 4, 2, generator=generator(8)) * 2 - 1
    for planner in (PLANNERS["shooting"], PLANNERS["icem"]):
        found = planner.plan(near(target), planner.begin(NUMBERS, 2), NUMBERS, generator(), target[:, None])
        assert torch.equal(found.actions, target)


def test_candidates_that_climb_need_fewer() -> None:
    target = torch.rand(4, 6, 2, generator=generator(2)) * 1.6 - 0.8
    plain = CEM(horizon=6, population=20, elites=4, iterations=3)
    missed = [
        float((p.plan(near(target), p.begin(NUMBERS, 4), NUMBERS, generator()).actions - target).square().sum())
        for p in (plain, replace(plain, gradient_steps=10, gradient_size=0.3))
    ]
    assert missed[1] < 0.1 * missed[0]


def test_a_step_of_climbing_follows_the_gradient_of_numbers_alone() -> None:
    weight = torch.tensor([3.0, 1.0, 0.0, 0.5, 0.0, 0.0])
    plans = MIXED.settle(torch.zeros(1, 1, 1, 6))
    moved = climb(lambda p: (p * weight).sum((2, 3)), plans, MIXED, 1, 0.1)
    assert moved[0, 0, 0, 3] == pytest.approx(0.05)
    assert torch.equal(moved[..., ~MIXED.box()], plans[..., ~MIXED.box()])
    stuck = climb(lambda p: (p * torch.nan).sum((2, 3)), plans, MIXED, 1, 0.1)
    assert torch.equal(stuck, plans)


def test_truncation_at_two_deviations_leaves_88_percent_of_one() -> None:
    drawn = truncated_normal((400_000,), generator())
    assert drawn.abs().max() <= 2.0
    assert float(drawn.std()) == pytest.approx(0.8796, abs=0.003)
    assert abs(float(drawn.mean())) < 0.005


@pytest.mark.parametrize("exponent", [0.0, 0.25, 1.0, 2.0, 3.5])
def test_coloured_noise_has_its_slope_and_unit_variance(exponent: float) -> None:
    steps = 256
    noise = coloured_noise((4_000, steps, 1), exponent, generator())
    power = torch.fft.rfft(noise[..., 0]).abs().square().mean(0)[1:-1]
    frequency = torch.fft.rfftfreq(steps)[1:-1]
    slope = np.polyfit(np.log(frequency.numpy()), np.log(power.numpy()), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)
    for length in (2, 3, 30):
        assert coloured_noise((100_000, length, 1), exponent, generator(1)).var(0).sub(1.0).abs().max() < 0.04


def test_a_linear_system_is_steered_within_five_percent_of_the_formula() -> None:
    rules = LinearQuadratic(noise=0.0, episode_limit=12)
    space, start = PlanSpace.of(rules.spec), rules.draw(8, generator(4))

    def score(plans: Tensor) -> Tensor:
        count = plans.shape[1]
        state = start.repeat_interleave(count, 0)
        total = torch.zeros(len(state))
        for act in plans.flatten(0, 1).unbind(1):
            after = rules.move(state, act, None)
            total, state = total + rules.rewards(state, act, after)[:, 0], after
        return total.view(len(start), count)

    planner = CEM(horizon=12, population=400, elites=40, iterations=10, stop_variance=0.0)
    found = planner.plan(score, planner.begin(space, 8), space, generator())
    reached, best = score(found.actions[:, None])[:, 0], rules.optimum(start)
    assert (reached <= best + 1e-5).all()
    assert float(reached.mean()) > 1.05 * float(best.mean())


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(GameError, match="legal at every step"):
        PlanSpace.of(make("classic/tictactoe", 1).spec)
    with pytest.raises(ValueError, match=r"one value per plan, \(1, 50\); got \(1,\)"):
        PLANNERS["cem"].plan(
            lambda plans: plans.sum((1, 2, 3)), PLANNERS["cem"].begin(NUMBERS, 1), NUMBERS, generator()
        )


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: CEM(population=10, elites=20), "population=10 must be >= 20"),
        (lambda: CEM(smoothing=1.0), "smoothing=1.0"),
        (lambda: CEM(execute="last"), "execute='last'"),
        (lambda: ICEM(shrink=0.5), "shrink=0.5"),
        (lambda: ICEM(reuse=1.5), "reuse=1.5"),
        (lambda: MPPI(min_std=3.0), "min_std=3.0"),
        (lambda: MPPI(temperature=0.0), "temperature=0.0"),
        (lambda: RandomShooting(horizon=0), "horizon=0 must be >= 1"),
    ],
)
def test_bad_numbers_are_named(make_one: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_one()  # type: ignore[operator]
