"""Heads of several steps against powers of matrices, plain loops, and their own predictions put together by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig, runs
from presage.common.fit import FitConfig
from presage.common.game import ALL_AGENTS, GameError, GameSpec, Rows, Symmetry, View, Window, concatenate
from presage.common.learner_state import learner_state, restore_learner
from presage.common.multistep import MultistepEnsemble, MultistepFitter, MultistepKernel
from tests.common.systems import box_game
from tests.common.toy import PLAIN, VARIED, LinearGame, generator, random_rows, window_at

SMALL = EnsembleConfig(members=3, elites=2, hidden=(8,), outcome_hidden=(8,))
QUICK = FitConfig(max_updates=20, evaluate_every=10, batch_size=32)
LINE = box_game(1, 1)


def played(game: LinearGame, steps: int) -> Rows:
    """What random actions lead to, by time, then copy."""
    rng, view, parts = generator(8), game.reset(3), []
    for _ in range(steps):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        parts.append(rows)
    return concatenate(parts)


def everybody(size: int) -> Tensor:
    return torch.full((size,), ALL_AGENTS)


@pytest.mark.parametrize("target", ["delta", "absolute"])
def test_heads_of_a_linear_system_are_the_powers_of_its_matrices(target: Literal["delta", "absolute"]) -> None:
    game = LinearGame(PLAIN, copies=3, limit=17)
    ensemble = MultistepEnsemble(PLAIN, replace(SMALL, target=target), 4, generator(0))
    reports = MultistepFitter(ensemble, QUICK, generator(1)).fit(played(game, 300), generator(2), lanes=3)
    assert [report.train_rows + report.held_out_rows for report in reports] == [
        3 * sum(min(17, 300 - start) - h + 1 for start in range(0, 300, 17)) for h in (1, 2, 3, 4)
    ], "every run inside an episode, and no other"
    rng = generator(4)
    obs = torch.rand(6, 3, generator=rng) - 0.5
    everyone, legal = torch.ones(6, 2, dtype=torch.bool), torch.ones(6, PLAIN.act_dim, dtype=torch.bool)
    acts = torch.stack([PLAIN.random_action(everyone, legal, rng) for _ in range(4)], 1)
    for h, head in enumerate(ensemble.heads, 1):
        wanted = obs @ torch.linalg.matrix_power(game._drift, h)
        for i in range(h):
            wanted = wanted + acts[:, i] @ game._push @ torch.linalg.matrix_power(game._drift, h - 1 - i)
        found = head.predict(View.of(PLAIN, obs), acts[:, :h].flatten(1)).mean
        torch.testing.assert_close(found.mean(0), wanted, atol=3e-3, rtol=0)


def test_a_direct_head_does_not_inherit_the_bias_of_one_step() -> None:
    """x' = 0.95 x + noise is seen through as much noise again: one step shows the slope 0.95 / 2, and h steps show
    0.95^h / 2, which the one-step slope to the power h is far below.
    """
    rng, size = generator(0), 8000
    state, seen = torch.randn(1, 1, generator=rng), []
    for _ in range(size + 1):
        seen.append(state + torch.randn(1, 1, generator=rng))
        state = 0.95 * state + (1 - 0.95**2) ** 0.5 * torch.randn(1, 1, generator=rng)
    obs = torch.cat(seen)
    never = torch.zeros(size, 1, dtype=torch.bool)
    rows = Rows.of(
        LINE, View.of(LINE, obs[:-1]), torch.zeros(size, 1), torch.zeros(size, 1), View.of(LINE, obs[1:]), never,
        never[:, 0], torch.arange(size),
    )  # fmt: skip
    ensemble = MultistepEnsemble(LINE, SMALL, 8, generator(0))
    MultistepFitter(ensemble, replace(QUICK, max_updates=1), generator(1)).fit(rows, generator(2))
    slopes = []
    for h, head in enumerate(ensemble.heads, 1):
        ends = head.predict(View.of(LINE, torch.tensor([[-1.0], [1.0]])), torch.zeros(2, h)).mean.mean(0)[:, 0]
        slopes.append(float(ends[1] - ends[0]) / 2)
    assert slopes[0] == pytest.approx(0.475, abs=0.04)
    assert slopes[7] == pytest.approx(0.95**8 / 2, abs=0.06)
    assert slopes[0] ** 8 < 0.01


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=3),
    steps=st.integers(1, 5),
)  # fmt: skip
def test_runs_never_leave_an_episode(lengths: list[list[int]], steps: int) -> None:
    lanes, time = len(lengths), max(sum(lane) for lane in lengths)
    clock = [[t for length in lane for t in range(length)] for lane in lengths]
    clock = [(lane + list(range(time)))[:time] for lane in clock]
    episode = [[sum(t == 0 for t in lane[: k + 1]) for k in range(time)] for lane in clock]
    wanted = [
        [(t + k) * lanes + lane for k in range(steps)]
        for t in range(time - steps + 1)
        for lane in range(lanes)
        if episode[lane][t] == episode[lane][t + steps - 1]
    ]
    rows = random_rows(PLAIN, lanes * time, generator(0))
    rows = rows.with_(step=torch.tensor(clock, dtype=torch.int32).T.flatten())
    assert runs(rows, steps, lanes).T.tolist() == wanted


def elite_mean(head: DynamicsEnsemble, view: View, acts: Tensor, window: Window | None = None) -> Tensor:
    return head.predict(view, acts, window).mean[head.state_network.elites[0]].mean(0)


@pytest.mark.parametrize("frames", [1, 2])
def test_step_h_is_predicted_from_the_start_and_step_h_plus_one_from_a_new_one(frames: int) -> None:
    spec = replace(PLAIN, frames=frames)
    ensemble = MultistepEnsemble(spec, SMALL, 3, generator(0))
    rng, size = generator(1), 5
    obs = torch.randn(size, 2, 3, generator=rng)
    acts = [spec.random_action(torch.ones(size, 2).bool(), torch.ones(size, 5).bool(), rng) for _ in range(6)]

    def shown(before: Tensor, act: Tensor, now: Tensor) -> Window:
        return Window(
            obs=torch.stack([before, now], 1), act=torch.stack([act, torch.zeros_like(act)], 1),
            valid=torch.ones(size, 2, dtype=torch.bool), now=View.of(spec, now),
        )  # fmt: skip

    window = shown(obs[:, 0], acts[5], obs[:, 1])
    wanted: list[Tensor] = []
    start = window
    for k in range(5):
        first = k // 3 * 3
        if k == 3:
            start = shown(wanted[1], acts[2], wanted[2])
        so_far = torch.cat(acts[first : k + 1], 1)
        wanted.append(elite_mean(ensemble.heads[k - first], start.now, so_far, start if frames > 1 else None))

    kernel = MultistepKernel(ensemble, "mean")
    carry, view = kernel.init(window, everybody(size), generator(2)), window.now
    for k in range(5):
        carry, outcome = kernel.step(carry, view, acts[k], generator(3))
        view = outcome.after
        torch.testing.assert_close(view.obs, wanted[k], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reward_input", ["transition", "joint"])
def test_rewards_and_flags_are_the_first_heads_at_predicted_states(
    reward_input: Literal["transition", "joint"],
) -> None:
    ensemble = MultistepEnsemble(VARIED, replace(SMALL, reward_input=reward_input), 2, generator(0))
    one, two = ensemble.heads
    rows = random_rows(VARIED, 7, generator(1))
    kernel = MultistepKernel(ensemble, "mean")
    carry = kernel.init(window_at(rows.view, VARIED.act_dim), everybody(7), generator(2))
    carry, first = kernel.step(carry, rows.view, rows.act, generator(2))
    _, second = kernel.step(carry, first.after, rows.act, generator(2))
    state = elite_mean(two, rows.view, torch.cat([rows.act, rows.act], 1))
    torch.testing.assert_close(torch.cat([second.after.obs, second.after.achieved], 1), state, atol=1e-5, rtol=1e-5)
    inputs = one.inputs(first.after, rows.act, None)
    if one.outcome_network is None:
        network, reads, skip = one.state_network, inputs, one.state_dim
    else:
        network, reads, skip = one.outcome_network, torch.cat([inputs, state, rows.desired], 1), 0
    said = network.predict(reads, network.select(network.elite_index()))
    torch.testing.assert_close(second.reward, said.mean.mean(0)[:, skip:], atol=1e-5, rtol=1e-5)
    ended, acting, _ = torch.split(said.logits.mean(0) > 0, [2, 2, 5], 1)
    assert torch.equal(second.terminated, ended)
    assert torch.equal(second.after.acting, acting & ~ended)
    assert torch.equal(second.after.desired, rows.desired)


def test_later_heads_say_nothing_but_the_state_and_rules_are_for_the_first() -> None:
    def pay(view: View, act: Tensor, after: View) -> Tensor:
        return after.obs - view.obs

    ensemble = MultistepEnsemble(LINE, SMALL, 2, generator(0), reward=pay)
    one, two = ensemble.heads
    assert (one.reward_rule, two.reward_rule) == (pay, None)
    assert (two.steps, two.outcome_network, two.rewards, sum(two.flags.values())) == (2, None, 0, 0)
    kernel, view = MultistepKernel(ensemble), View.of(LINE, torch.zeros(4, 1))
    carry = kernel.init(window_at(view, 1), everybody(4), generator(1))
    for _ in range(3):
        carry, outcome = kernel.step(carry, view, torch.ones(4, 1), generator(2))
        assert torch.equal(outcome.reward, outcome.after.obs - view.obs)
        view = outcome.after


def test_a_run_takes_one_new_name_as_a_whole() -> None:
    """Two agents that each move their own number, known by one renaming; every head reads who moved what."""
    swap = Symmetry(obs=(1, 0), act=(1, 0), agents=(1, 0))
    spec = replace(box_game(2, 1, agents=2), symmetries=(swap,))
    rng, size = generator(0), 400
    acts = torch.rand(size, 2, generator=rng) * 2 - 1
    obs = torch.cat([torch.zeros(1, 2), 0.1 * acts.cumsum(0)])
    never = torch.zeros(size, 2, dtype=torch.bool)
    rows = Rows.of(
        spec, View.of(spec, obs[:-1]), acts, torch.zeros(size, 2), View.of(spec, obs[1:]), never, never[:, 0],
        torch.arange(size),
    )  # fmt: skip
    ensemble = MultistepEnsemble(spec, SMALL, 3, generator(0))
    MultistepFitter(ensemble, replace(QUICK, renamings=2), generator(1)).fit(rows, generator(2))
    act = torch.rand(5, 6, generator=rng) * 2 - 1
    found = ensemble.heads[2].predict(View.of(spec, torch.zeros(5, 2)), act).mean.mean(0)
    torch.testing.assert_close(found, 0.1 * act.view(5, 3, 2).sum(1), atol=3e-3, rtol=0)


@pytest.mark.parametrize("spec", [PLAIN, VARIED])
def test_a_restored_model_goes_on_to_the_bit(spec: GameSpec) -> None:
    rows = random_rows(spec, 200, generator(0)).with_(step=torch.arange(200, dtype=torch.int32) % 20)

    def made(seed: int) -> tuple[MultistepEnsemble, MultistepFitter]:
        ensemble = MultistepEnsemble(spec, SMALL, 2, generator(seed))
        return ensemble, MultistepFitter(ensemble, replace(QUICK, bootstrap=True), generator(seed))

    def imagined(ensemble: MultistepEnsemble) -> Tensor:
        kernel, rng = MultistepKernel(ensemble, "fixed"), generator(5)
        carry, view = kernel.init(window_at(rows[:9].view, spec.act_dim), everybody(9), rng), rows[:9].view
        for _ in range(3):
            carry, outcome = kernel.step(carry, view, rows[:9].act, rng)
            view = outcome.after
        return torch.cat([view.obs, view.achieved, outcome.reward], 1)

    rng = generator(2)
    ensemble, fitter = made(0)
    fitter.fit(rows[:100], rng)
    saved: tuple[Any, Any, Tensor] = (
        learner_state(ensemble), copy.deepcopy(fitter.state()), rng.get_state(),
    )  # fmt: skip
    fitter.fit(rows, rng)
    again, other = made(7)
    restore_learner(again, saved[0])
    other.restore(saved[1])
    resumed = generator(9)
    resumed.set_state(saved[2])
    other.fit(rows, resumed)
    for name, value in ensemble.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert torch.equal(imagined(ensemble), imagined(again))


def test_what_cannot_be_is_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match="horizon=0 must be >= 1"):
        MultistepEnsemble(LINE, SMALL, 0, generator(0))
    with pytest.raises(ValueError, match="steps=2 must be >= 1, and 1 where a rule"):
        DynamicsEnsemble(LINE, SMALL, generator(0), steps=2, reward=lambda view, act, after: after.obs)
    ensemble = MultistepEnsemble(LINE, SMALL, 3, generator(0))
    with pytest.raises(ValueError, match="propagation='moments' must be"):
        MultistepKernel(ensemble, "moments")  # type: ignore[arg-type]  # the point is to pass what is not for it
    rows = random_rows(LINE, 100, generator(0))
    with pytest.raises(GameError, match="steps=3: 2 following rows are needed, got 0"):
        ensemble.heads[2].regressions(rows)
    with pytest.raises(ValueError, match="no episode shows 2 steps in a row"):
        MultistepFitter(ensemble, QUICK, generator(1)).fit(rows, generator(2))
