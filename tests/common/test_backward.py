"""A backward model against inverses of matrices, rows turned by hand, and the way forward."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.backward import BackwardEnsemble, BackwardKernel, ahead
from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import ALL_AGENTS, Rows, View
from presage.common.learner_state import learner_state, restore_learner
from presage.common.propagation import EnsembleKernel
from tests.common.systems import box_game, transitions
from tests.common.test_multistep import played
from tests.common.test_propagation import say
from tests.common.toy import PLAIN, VARIED, LinearGame, generator, random_rows, window_at

SMALL = EnsembleConfig(members=3, elites=2, hidden=(8,), outcome_hidden=(8,))
QUICK = FitConfig(max_updates=20, evaluate_every=10, batch_size=32)


def everybody(size: int) -> Tensor:
    return torch.full((size,), ALL_AGENTS)


def back(ensemble: BackwardEnsemble, view: View, acts: list[Tensor]) -> View:
    """Where one was before `acts`, the latest first, by the elites' mean."""
    kernel, rng = BackwardKernel(ensemble, "mean"), generator(5)
    carry = kernel.init(window_at(view, acts[0].shape[1]), everybody(len(view)), rng)
    for act in acts:
        carry, origin = kernel.step_back(carry, view, act, rng)
        view = origin.before
    return view


def test_rows_are_read_the_other_way_round() -> None:
    rows = random_rows(VARIED, 6, generator(0))
    found = BackwardEnsemble(VARIED, SMALL, generator(0)).regressions(rows)
    before, after = torch.cat([rows.obs, rows.achieved], 1), torch.cat([rows.next_obs, rows.next_achieved], 1)
    reads = torch.cat([after, rows.act, rows.next_acting.float()], 1)
    assert torch.equal(found["state"].inputs, reads)
    assert torch.equal(found["state"].targets, before - after)
    assert torch.equal(found["outcome"].inputs, torch.cat([reads, before, rows.desired], 1))
    flags = [rows.terminated, rows.acting, rows.legal]
    assert torch.equal(found["outcome"].targets, torch.cat([rows.reward, *(flag.float() for flag in flags)], 1))


def test_an_invertible_linear_system_is_inverted_and_forward_then_back_is_the_identity() -> None:
    game = LinearGame(PLAIN, copies=2, limit=15)
    rows = played(game, 300)
    backward = BackwardEnsemble(PLAIN, SMALL, generator(0))
    EnsembleFitter(backward, QUICK, generator(1)).fit(rows, generator(2), lanes=2)
    some, inverse = rows[:40], torch.linalg.inv(game._drift)
    wanted = (some.next_obs - some.act @ game._push) @ inverse
    torch.testing.assert_close(wanted, some.obs, atol=1e-5, rtol=0)
    torch.testing.assert_close(back(backward, some.next_view, [some.act]).obs, wanted, atol=3e-3, rtol=0)

    forward = DynamicsEnsemble(PLAIN, SMALL, generator(3))
    EnsembleFitter(forward, QUICK, generator(4)).fit(rows, generator(5), lanes=2)
    rng = generator(6)
    start = View.of(PLAIN, torch.rand(30, 3, generator=rng) - 0.5)
    kernel = EnsembleKernel(forward, "mean")
    carry, view, acts = kernel.init(window_at(start, PLAIN.act_dim), everybody(30), rng), start, []
    for _ in range(3):
        acts.append(PLAIN.random_action(view.acting, view.legal, rng))
        carry, outcome = kernel.step(carry, view, acts[-1], rng)
        view = outcome.after
    assert (view.obs - start.obs).abs().mean() > 0.1, "somewhere else in between"
    torch.testing.assert_close(back(backward, view, acts[::-1]).obs, start.obs, atol=0.02, rtol=0)


def test_where_two_states_lead_to_one_the_spread_says_so() -> None:
    """next = |obs|: what is seen after x was -x or x, mean 0 and standard deviation x."""
    spec = box_game(1, 1)

    def law(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return obs.abs(), torch.zeros(len(obs), 1)

    backward = BackwardEnsemble(spec, replace(SMALL, hidden=(32,)), generator(0))
    fit = FitConfig(max_updates=600, learning_rate=5e-3, score="likelihood")
    EnsembleFitter(backward, fit, generator(1)).fit(transitions(spec, 4000, law), generator(2))
    found = backward.predict(View.of(spec, torch.tensor([[0.4], [0.8]])), torch.zeros(2, 1))
    assert found.mean.mean(0)[:, 0].tolist() == pytest.approx([0.0, 0.0], abs=0.08)
    assert found.std.mean(0)[:, 0].tolist() == pytest.approx([0.4, 0.8], rel=0.2)


def test_rules_are_asked_in_forward_order() -> None:
    spec = replace(box_game(1, 1), terminates=True)

    def pay(view: View, act: Tensor, after: View) -> Tensor:
        return 100 * view.obs + after.obs + act

    def over(view: View, act: Tensor, after: View) -> Tensor:
        return after.obs > 5 * view.obs

    ensemble = BackwardEnsemble(spec, replace(SMALL, members=1, elites=1), generator(0), reward=pay, terminates=over)
    say(ensemble.state_network, 0, [-2.0])
    view, act = View.of(spec, torch.tensor([[3.0], [2.2]])), torch.tensor([[0.5], [0.0]])
    rng = generator(0)
    kernel = BackwardKernel(ensemble)
    _, origin = kernel.step_back(kernel.init(window_at(view, 1), everybody(2), rng), view, act, rng)
    torch.testing.assert_close(origin.before.obs, torch.tensor([[1.0], [0.2]]))
    torch.testing.assert_close(origin.reward, torch.tensor([[103.5], [22.2]]))
    assert origin.terminated.tolist() == [[False], [True]]


def test_who_ended_in_a_step_may_have_acted_before_it() -> None:
    ensemble = BackwardEnsemble(VARIED, replace(SMALL, members=1, elites=1), generator(0))
    network = ensemble.outcome_network
    assert network is not None
    say(network, 0, [0.0])
    with torch.no_grad():  # both agents end and acted before; nothing but a's box and b's first entry was legal
        network.head.bias[0, 0, 2 * network.columns :] = torch.tensor([50.0] * 4 + [-50.0] * 2 + [50.0] + [-50.0] * 2)
    view = random_rows(VARIED, 20, generator(1)).view
    rng = generator(0)
    kernel = BackwardKernel(ensemble)
    carry = kernel.init(window_at(view, VARIED.act_dim), everybody(20), rng)
    _, origin = kernel.step_back(carry, view, torch.zeros(20, VARIED.act_dim), rng)
    assert origin.terminated.all()
    assert origin.before.acting.all()
    assert torch.equal(origin.before.legal, torch.tensor([[True, True, True, False, False]]).expand(20, -1))
    assert torch.equal(origin.before.desired, view.desired)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), lanes=st.integers(1, 3), length=st.integers(1, 4)
)  # fmt: skip
def test_windows_ahead_show_what_came_later_in_the_episode(lengths: list[int], lanes: int, length: int) -> None:
    clock = torch.tensor([t for episode in lengths for t in range(episode)], dtype=torch.int32)
    size = len(clock) * lanes
    rows = random_rows(PLAIN, size, generator(0)).with_(step=clock.repeat_interleave(lanes))
    found = ahead(rows, length, lanes)
    left = [episode - 1 - t for episode in lengths for t in range(episode)]  # rows of the episode that follow
    for row in range(size):
        for k in range(length):
            known = k <= left[row // lanes]
            latest = row + min(k, left[row // lanes]) * lanes
            place = length - 1 - k
            assert bool(found.valid[row, place]) == known
            assert torch.equal(found.obs[row, place], rows.next_obs[latest])
            wanted = rows.act[latest] if known and k else torch.zeros(PLAIN.act_dim)
            assert torch.equal(found.act[row, place], wanted)
    assert torch.equal(found.now.obs, rows.next_obs)


@pytest.mark.parametrize("frames", [1, 2])
def test_hidden_velocities_need_the_frame_that_came_later(frames: int) -> None:
    """Positions alone are seen; the velocity before a step is known from the position after the next one."""
    spec = replace(box_game(1, 1), frames=frames)
    rng, size = generator(3), 1000
    acts = torch.rand(size, 1, generator=rng) * 2 - 1
    position, velocity, seen = torch.zeros(1), torch.zeros(1), [torch.zeros(1)]
    for act in acts:
        position, velocity = position + 0.1 * velocity, 0.75 * velocity + 0.5 * act
        seen.append(position)
    obs = torch.stack(seen)
    never = torch.zeros(size, 1, dtype=torch.bool)
    rows = Rows.of(
        spec, View.of(spec, obs[:-1]), acts, torch.zeros(size, 1), View.of(spec, obs[1:]), never, never[:, 0],
        torch.arange(size),
    )  # fmt: skip
    ensemble, window = BackwardEnsemble(spec, SMALL, generator(0)), ahead(rows, frames)
    # the last row lacks its later frame
    EnsembleFitter(ensemble, QUICK, generator(1)).fit(rows[:-1], generator(2), window=window[slice(0, size - 1)])
    kernel = BackwardKernel(ensemble, "mean")
    at = torch.arange(500, 540)
    carry, view, error = kernel.init(window[at], everybody(40), rng), window.now[at], []
    for k in range(3):
        carry, origin = kernel.step_back(carry, view, rows.act[at - k], rng)
        view = origin.before
        error.append(float((view.obs - obs[at - k]).abs().mean()))
    if frames == 2:
        assert max(error) < 0.01
    else:
        assert min(error) > 0.01


def test_equal_seeds_give_equal_pasts_and_a_restored_ensemble_the_same() -> None:
    rows = random_rows(VARIED, 100, generator(0))

    def past(ensemble: BackwardEnsemble) -> Tensor:
        kernel, rng, view = BackwardKernel(ensemble, "fixed"), generator(5), rows.view
        carry = kernel.init(window_at(view, VARIED.act_dim), everybody(100), rng)
        for _ in range(2):
            carry, origin = kernel.step_back(carry, view, rows.act, rng)
            view = origin.before
        return torch.cat([view.obs, view.achieved, origin.reward, view.acting, origin.terminated], 1)

    def fitted() -> BackwardEnsemble:
        ensemble = BackwardEnsemble(VARIED, SMALL, generator(0))
        EnsembleFitter(ensemble, QUICK, generator(1)).fit(rows, generator(2))
        return ensemble

    one, again = fitted(), BackwardEnsemble(VARIED, SMALL, generator(9))
    assert torch.equal(past(one), past(fitted()))
    restore_learner(again, learner_state(one))
    assert torch.equal(past(one), past(again))


def test_a_forward_ensemble_is_not_for_going_back() -> None:
    with pytest.raises(ValueError, match="DynamicsEnsemble predicts what follows"):
        BackwardKernel(DynamicsEnsemble(PLAIN, SMALL, generator(0)))  # type: ignore[arg-type]  # the point
