"""Who answers for which row: members that say who they are, and what becomes of their answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.ensemble import GaussianStack, Prediction
from presage.common.game import ALL_AGENTS, GameError, GameSpec, View, Window
from presage.common.propagation import EnsembleKernel, Propagation, Route, balanced_slots, mixture
from tests.common.systems import box_game
from tests.common.toy import VARIED, generator, random_rows, window_at

LINE = box_game(1, 1)


def say(network: GaussianStack, column: int, values: Sequence[float], std: float = 0.0) -> None:
    """Make every network of the stack answer its own number in one column, whatever it reads."""
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
        network.lower.fill_(-40.0)
        network.upper.fill_(40.0)
        network.input_std.fill_(1.0)
        network.target_scale.fill_(1.0)
        network.noise.fill_(std)
        network.target_mean[:, 0, column] = torch.tensor(values)


def speaking(
    values: Sequence[float], spec: GameSpec = LINE, elites: int | None = None, owners: int = 1, std: float = 0.0
) -> DynamicsEnsemble:
    """An ensemble whose members change the first component of the state by their own number, and pay it ten times."""
    members = len(values) // owners
    config = EnsembleConfig(members=members, elites=elites or members, owners=owners, hidden=(2,), outcome_hidden=(2,))
    ensemble = DynamicsEnsemble(spec, config, generator(0))
    say(ensemble.state_network, 0, values, std)
    if ensemble.outcome_network is not None:
        say(ensemble.outcome_network, 0, [10 * value for value in values])
    return ensemble


def start(spec: GameSpec, size: int) -> Window:
    return window_at(View.of(spec, torch.zeros(size, spec.obs_dim)), spec.act_dim)


def everybody(size: int) -> Tensor:
    return torch.full((size,), ALL_AGENTS)


def walk(
    ensemble: DynamicsEnsemble, how: Propagation, size: int, steps: int, seed: int = 1, particles: int | None = None
) -> Tensor:
    """The first component of the state after every step, `(steps, size)`."""
    kernel, rng = EnsembleKernel(ensemble, how, particles), generator(seed)
    window = start(ensemble.spec, size)
    carry, view, seen = kernel.init(window, everybody(size), rng), window.now, []
    for _ in range(steps):
        carry, outcome = kernel.step(carry, view, torch.zeros(size, ensemble.spec.act_dim), rng)
        view = outcome.after
        seen.append(view.obs[:, 0])
    return torch.stack(seen)


def test_a_row_that_keeps_its_member_walks_away_and_one_that_does_not_wanders() -> None:
    ensemble = speaking([1.0, -1.0])
    fixed = walk(ensemble, "fixed", 4000, 10)
    assert fixed[-1].var(unbiased=False).item() == pytest.approx(100.0, abs=1e-4)
    assert walk(ensemble, "fresh", 4000, 10)[-1].var(unbiased=False).item() == pytest.approx(10.0, rel=0.1)
    assert walk(ensemble, "mean", 4000, 10).abs().max() == 0


def test_moments_of_the_mixture_wander_and_are_no_longer_two_points() -> None:
    """Members add +1 and -1: a mixture of mean 0 and variance 1, so that ten steps of its Gaussian have variance 10."""
    found = walk(speaking([1.0, -1.0]), "mixture", 40_000, 10)
    for step, row in enumerate(found, 1):
        assert row.var().item() == pytest.approx(step, rel=0.05)
    assert found[0].pow(4).mean().item() == pytest.approx(3.0, rel=0.1), "a Gaussian; two points have 1"
    steps = torch.diff(found, dim=0)
    assert torch.corrcoef(torch.stack([steps[0], steps[1]]))[0, 1].abs() < 0.03


@pytest.mark.parametrize("particles", [5, 20])
def test_moments_refitted_at_every_step_have_their_closed_form(particles: int) -> None:
    """Inside a plan each step adds the mixture's variance of 1 to the (unbiased) variance that is refitted: T after T.

    The plan's mean moves by 1 / P in a step and, as P new particles are drawn with variance t, by t / P after it: in
    all by (T + T (T + 1) / 2) / P. A particle has both, T (1 - 1 / P) + (T + T (T + 1) / 2) / P, which is T where
    particles are many, as for the mixture alone.
    """
    plans, steps = 200_000 // particles, 10
    found = walk(speaking([1.0, -1.0]), "moments", plans * particles, steps, particles=particles)[-1]
    inside = found.view(plans, particles)
    assert inside.var(1).mean().item() == pytest.approx(10.0, rel=0.05)
    assert inside.mean(1).var().item() == pytest.approx((10 + 55) / particles, rel=0.05)
    assert found.var().item() == pytest.approx(10 + 55 / particles, rel=0.05)


def test_refitted_particles_keep_their_plans_mean_and_covariance_but_not_their_own_place() -> None:
    """Nothing moves and nothing is uncertain: each plan's states are drawn anew from their own Gaussian."""
    spec, particles, plans = box_game(2, 1), 4, 20_000

    def pay(view: View, act: Tensor, after: View) -> Tensor:
        return (after.obs - view.obs).abs().sum(1, keepdim=True)

    config = EnsembleConfig(members=2, elites=2, hidden=(2,))
    ensemble = DynamicsEnsemble(spec, config, generator(0), reward=pay)
    say(ensemble.state_network, 0, [0.0, 0.0])
    first = torch.tensor([[1.0, 0.0], [2.0, 1.0], [4.0, -3.0], [5.0, 0.0]])
    second = torch.tensor([[100.0, 0.0], [101.0, 2.0], [102.0, 4.0], [103.0, 6.0]])
    view = View.of(spec, torch.stack([first, second]).repeat(plans // 2, 1, 1).flatten(0, 1))
    kernel, rng = EnsembleKernel(ensemble, "moments", particles), generator(1)
    carry = kernel.init(window_at(view, 1), everybody(len(view)), rng)
    _, outcome = kernel.step(carry, view, torch.zeros(len(view), 1), rng)
    assert outcome.reward.eq(0).all(), "rewards are those of a row's own step"
    found = outcome.after.obs.view(plans // 2, 2, particles, 2)
    for plan, start in enumerate((first, second)):
        drawn = found[:, plan].reshape(-1, 2)
        torch.testing.assert_close(drawn.mean(0), start.mean(0), atol=0.05, rtol=0)
        torch.testing.assert_close(torch.cov(drawn.T), torch.cov(start.T), atol=0.1, rtol=0.03)
        own = torch.corrcoef(torch.stack([found[:, plan, 0, 0], found[:, plan, 1, 0]]))[0, 1]
        assert own.abs() < 0.03, "particles are independent"
    line = found[:, 1] - second[0]
    torch.testing.assert_close(line[..., 1], 2 * line[..., 0], atol=1e-3, rtol=0, msg="off their line")


def test_earlier_frames_are_drawn_anew_with_the_state() -> None:
    """Nothing moves: the frame before is where the row is now, and so it is after both were drawn."""
    spec = replace(box_game(2, 1), frames=2, goal_dim=1)
    ensemble = DynamicsEnsemble(spec, EnsembleConfig(members=1, elites=1, hidden=(2,)), generator(0))
    say(ensemble.state_network, 0, [0.0])
    rng = generator(1)
    view = View.of(spec, torch.randn(12, 2, generator=rng), achieved=torch.randn(12, 1, generator=rng))
    window = Window(
        obs=torch.stack([torch.zeros(12, 2), view.obs], 1), act=torch.zeros(12, 2, 1),
        valid=torch.ones(12, 2, dtype=torch.bool), now=view,
    )  # fmt: skip
    kernel = EnsembleKernel(ensemble, "moments", 3)
    carry, outcome = kernel.step(kernel.init(window, everybody(12), rng), view, torch.zeros(12, 1), rng)
    assert carry.past is not None
    torch.testing.assert_close(carry.past.obs[:, 0], outcome.after.obs)
    assert not torch.allclose(outcome.after.obs, view.obs)
    assert not torch.allclose(outcome.after.achieved, view.achieved)


def test_a_mixture_has_the_moments_of_a_loop_over_its_members() -> None:
    rng = generator(0)
    said = Prediction(
        torch.randn(2, 3, 4, 5, generator=rng), torch.rand(2, 3, 4, 5, generator=rng),
        torch.randn(2, 3, 4, 2, generator=rng),
    )  # fmt: skip
    found = mixture(said)
    for owner in range(2):
        for row in range(4):
            for column in range(5):
                mean = [said.mean[owner, k, row, column].item() for k in range(3)]
                second = [said.std[owner, k, row, column].item() ** 2 + mean[k] ** 2 for k in range(3)]
                assert found.mean[owner, row, column].item() == pytest.approx(sum(mean) / 3, abs=1e-5)
                wanted = (sum(second) / 3 - (sum(mean) / 3) ** 2) ** 0.5
                assert found.std[owner, row, column].item() == pytest.approx(wanted, rel=1e-4)
            for flag in range(2):
                chance = sum(1 / (1 + math.exp(-said.logits[owner, k, row, flag].item())) for k in range(3)) / 3
                assert found.logits[owner, row, flag].sigmoid().item() == pytest.approx(chance, rel=1e-4)


@pytest.mark.parametrize("how", ["mixture", "moments"])
def test_slopes_are_finite_where_members_agree_on_a_column_without_noise(how: Propagation) -> None:
    ensemble = DynamicsEnsemble(box_game(2, 1), EnsembleConfig(members=2, elites=2, hidden=(4,)), generator(0))
    with torch.no_grad():
        ensemble.state_network.target_scale[..., 1] = 0.0  # a column that never varied
    kernel, window = EnsembleKernel(ensemble, how, 3), start(box_game(2, 1), 6)
    act = torch.zeros(6, 1, requires_grad=True)
    _, outcome = kernel.step(kernel.init(window, everybody(6), generator(1)), window.now, act, generator(2))
    slope = torch.autograd.grad(outcome.after.obs.sum(), act)[0]
    assert slope.isfinite().all()
    assert slope.abs().sum() > 0
    torch.testing.assert_close(outcome.after.obs[:, 1], torch.zeros(6))


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 40), elites=st.integers(1, 6), how=st.sampled_from(["fresh", "fixed"]), seed=st.integers(0, 99)
)
def test_every_elite_answers_equally_often(size: int, elites: int, how: Propagation, seed: int) -> None:
    values = [float(k) for k in range(1, elites + 1)]
    counts = torch.bincount(walk(speaking(values), how, size, 1, seed)[0].long(), minlength=elites + 1)[1:]
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1


def test_fresh_members_are_drawn_anew_and_fixed_ones_are_kept() -> None:
    ensemble = speaking([1.0, 2.0, 3.0, 4.0, 5.0])
    fresh = walk(ensemble, "fresh", 500, 2)
    fixed = walk(ensemble, "fixed", 500, 2)
    assert torch.equal(fixed[1], 2 * fixed[0])
    second = fresh[1] - fresh[0]
    joint = torch.bincount(((fresh[0] - 1) * 5 + second - 1).long(), minlength=25)
    assert joint.min() > 5, "the second draw must not depend on the first"


def test_a_single_row_meets_all_elites_in_time() -> None:
    kernel, rng = EnsembleKernel(speaking([0.0, 1.0, 2.0])), generator(0)
    window = start(LINE, 1)
    carry = kernel.init(window, everybody(1), rng)
    answers = {kernel.step(carry, window.now, torch.zeros(1, 1), rng)[1].after.obs.item() for _ in range(60)}
    assert answers == {0.0, 1.0, 2.0}


def test_only_elites_answer_and_rewards_come_from_the_networks_own_elites() -> None:
    ensemble = speaking([1.0, 2.0, 3.0, 4.0], elites=2)
    ensemble.state_network.elites.copy_(torch.tensor([[3, 1]]))
    assert ensemble.outcome_network is not None
    ensemble.outcome_network.elites.copy_(torch.tensor([[0, 2]]))
    kernel, rng = EnsembleKernel(ensemble), generator(0)
    window = start(LINE, 10)
    carry = kernel.init(window, everybody(10), rng)
    _, outcome = kernel.step(carry, window.now, torch.zeros(10, 1), rng)
    pairs = set(zip(outcome.after.obs[:, 0].tolist(), outcome.reward[:, 0].tolist(), strict=True))
    assert pairs == {(4.0, 10.0), (2.0, 30.0)}, "first elite with first elite"


def test_a_row_gets_the_member_that_the_carry_says() -> None:
    values = [1.0, 2.0, 3.0]
    kernel, rng = EnsembleKernel(speaking(values), "fixed"), generator(3)
    window = start(LINE, 8)
    carry = kernel.init(window, everybody(8), rng)
    assert carry.route is not None
    said = torch.tensor(values)[carry.route.slot // carry.capacity]
    for _ in range(3):
        carry, outcome = kernel.step(carry, window.now, torch.zeros(8, 1), rng)
        assert torch.equal(outcome.after.obs[:, 0], said)


def test_padding_changes_nothing_for_the_rows_that_are_there() -> None:
    ensemble = DynamicsEnsemble(box_game(3, 2), EnsembleConfig(members=5, elites=5, hidden=(7,)), generator(0))
    network = ensemble.state_network
    weights = network.select(network.elite_index())
    x = torch.randn(10, 5, generator=generator(1))
    slots = torch.tensor([0, 2, 4, 6, 8, 1, 3, 5, 7, 9])  # two places per network
    full, part = Route.of(slots, 5, 2), Route.of(slots[:7], 5, 2)
    whole = full.ungroup(network.predict(full.group(x), weights).mean)
    torch.testing.assert_close(part.ungroup(network.predict(part.group(x[:7]), weights).mean), whole[:7])
    alone = network.predict(x, weights).mean
    torch.testing.assert_close(whole, alone[slots // 2, torch.arange(10)], atol=1e-6, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    plans=st.integers(1, 5), particles=st.integers(1, 9), elites=st.integers(1, 5), seed=st.integers(0, 99),
    owners=st.integers(1, 3),
)  # fmt: skip
def test_every_plans_particles_are_spread_over_the_elites(
    plans: int, particles: int, elites: int, seed: int, owners: int
) -> None:
    owner = torch.arange(plans).remainder(owners).repeat_interleave(particles)
    most = int(torch.bincount(owner).max())
    capacity = -(-most // elites)
    slot = balanced_slots(owner, owners, elites, capacity, particles, generator(seed))
    assert len(set(slot.tolist())) == len(owner), "no two rows in one place"
    assert slot.min() >= 0
    assert slot.max() < owners * elites * capacity
    assert torch.equal(slot // capacity // elites, owner), "every row goes to its owner"
    for plan in range(plans):
        mine = (slot // capacity % elites)[plan * particles : (plan + 1) * particles]
        counts = torch.bincount(mine, minlength=elites)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("how", ["fresh", "fixed", "mean", "mixture"])
def test_every_ego_is_answered_by_its_own_ensemble(how: Propagation) -> None:
    spec = box_game(1, 1, agents=3)
    ensemble = speaking([1.0, 2.0, 10.0, 20.0, 100.0, 200.0], spec, owners=3)
    ego = torch.tensor([2, 0, 0, 1, 0, 0, 2])
    kernel, rng = EnsembleKernel(ensemble, how), generator(0)
    window = start(spec, 7)
    carry = kernel.init(window, ego, rng)
    _, outcome = kernel.step(carry, window.now, torch.zeros(7, 3), rng)
    found = outcome.after.obs[:, 0]
    if how == "mean":
        assert torch.equal(found, torch.tensor([150.0, 1.5, 1.5, 15.0, 1.5, 1.5, 150.0]))
    elif how == "mixture":
        mean = torch.where(ego == 0, 1.5, torch.where(ego == 1, 15.0, 150.0))
        assert (found / mean - 1).abs().max() < 4 / 3, "four standard deviations of a third of the mean"
    else:
        size = torch.where(ego == 0, 1.0, torch.where(ego == 1, 10.0, 100.0))
        assert set((found / size).tolist()) <= {1.0, 2.0}
        assert sorted(found[ego == 0].tolist()) == [1.0, 1.0, 2.0, 2.0]


def test_noise_has_the_predicted_spread_in_every_row() -> None:
    found = walk(speaking([0.0, 0.0], std=0.3), "fixed", 20_000, 1)[0]
    assert found.std().item() == pytest.approx(0.3, rel=0.03)
    assert found.mean().item() == pytest.approx(0.0, abs=0.01)
    assert torch.unique(found).numel() > 19_000


def test_equal_generators_give_equal_walks_and_others_do_not() -> None:
    ensemble = speaking([1.0, -1.0, 0.5], std=0.1)
    one, two, other = (walk(ensemble, "fresh", 20, 3, seed) for seed in (4, 4, 5))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_a_branch_goes_on_with_the_networks_that_it_began_with() -> None:
    ensemble = speaking([1.0])
    kernel, rng = EnsembleKernel(ensemble), generator(0)
    window = start(LINE, 2)
    carry = kernel.init(window, everybody(2), rng)
    say(ensemble.state_network, 0, [5.0])
    _, outcome = kernel.step(carry, window.now, torch.zeros(2, 1), rng)
    assert outcome.after.obs.flatten().tolist() == [1.0, 1.0]


def test_a_step_is_differentiable_in_the_action() -> None:
    ensemble = DynamicsEnsemble(LINE, EnsembleConfig(members=2, elites=2, hidden=(4,)), generator(0))
    kernel = EnsembleKernel(ensemble, "fixed")
    window = start(LINE, 6)
    act = torch.zeros(6, 1, requires_grad=True)

    def stepped(act: Tensor) -> Tensor:
        carry = kernel.init(window, everybody(6), generator(1))
        return kernel.step(carry, window.now, act, generator(2))[1].reward

    slope = torch.autograd.grad(stepped(act).sum(), act)[0]
    numeric = (stepped(act.detach() + 1e-2) - stepped(act.detach() - 1e-2)) / 2e-2
    torch.testing.assert_close(slope, numeric, atol=2e-3, rtol=2e-2)


def test_goals_and_flags_that_do_not_vary_pass_on() -> None:
    spec = GameSpec(
        name="apart", agents=box_game(2, 1, agents=2).agents, obs_dim=2, goal_dim=1, terminates=False
    )  # fmt: skip
    config = EnsembleConfig(members=1, elites=1, hidden=(2,), outcome_hidden=(2,))
    ensemble = DynamicsEnsemble(spec, config, generator(0))
    say(ensemble.state_network, 2, [0.5])
    rng = generator(0)
    view = View.of(
        spec, torch.randn(3, 2, generator=rng), achieved=torch.ones(3, 1), desired=torch.randn(3, 1, generator=rng),
        acting=torch.tensor([[True, False]] * 3),
    )  # fmt: skip
    kernel = EnsembleKernel(ensemble)
    carry = kernel.init(window_at(view, 2), everybody(3), rng)
    _, outcome = kernel.step(carry, view, torch.zeros(3, 2), rng)
    assert torch.equal(outcome.after.achieved, torch.full((3, 1), 1.5)), "modelled beside the observation"
    assert torch.equal(outcome.after.obs, view.obs)
    for name in ("desired", "acting", "legal"):
        assert torch.equal(getattr(outcome.after, name), getattr(view, name))
    assert not outcome.terminated.any()


def test_an_achieved_goal_inside_the_observation_is_read_from_the_predicted_one() -> None:
    spec = replace(box_game(3, 1), goal_dim=2, achieved=(2, 0))
    ensemble = speaking([4.0], spec)
    window = start(spec, 2)
    kernel, rng = EnsembleKernel(ensemble), generator(0)
    _, outcome = kernel.step(kernel.init(window, everybody(2), rng), window.now, torch.zeros(2, 1), rng)
    assert outcome.after.achieved.tolist() == [[0.0, 4.0]] * 2


def test_rules_see_the_step_and_replace_what_would_be_learned() -> None:
    spec = replace(box_game(1, 1, agents=2), terminates=True)

    def pay(view: View, act: Tensor, after: View) -> Tensor:
        return torch.cat([after.obs - view.obs, act[:, :1]], 1)

    def over(view: View, act: Tensor, after: View) -> Tensor:
        return (after.obs > 1.5).expand(-1, 2)

    config = EnsembleConfig(members=2, elites=2, hidden=(2,))
    ensemble = DynamicsEnsemble(spec, config, generator(0), reward=pay, terminates=over)
    assert ensemble.outcome_network is None, "nothing is left to learn beside the state"
    say(ensemble.state_network, 0, [1.0, 2.0])
    window = start(spec, 4)
    kernel, rng = EnsembleKernel(ensemble), generator(0)
    act = torch.rand(4, 2, generator=rng)
    _, outcome = kernel.step(kernel.init(window, everybody(4), rng), window.now, act, rng)
    assert torch.equal(outcome.reward[:, 0], outcome.after.obs[:, 0])
    assert torch.equal(outcome.reward[:, 1], act[:, 0])
    assert torch.equal(outcome.terminated, (outcome.after.obs == 2.0).expand(-1, 2))


def test_learned_flags_are_drawn_by_their_odds_and_stay_consistent() -> None:
    config = EnsembleConfig(members=1, elites=1, hidden=(2,), outcome_hidden=(2,))
    ensemble = DynamicsEnsemble(VARIED, config, generator(0))
    network = ensemble.outcome_network
    assert network is not None
    say(network, 0, [0.0])
    # terminated: a 30 %, b never; acting: a always, b half; legal: a's box is never "legal", b's three entries never
    odds = torch.tensor([0.3, 1e-9, 1 - 1e-7, 0.5, 1e-9, 1e-9, 1e-9, 1e-8, 1e-9])
    with torch.no_grad():
        network.head.bias[0, 0, 2 * network.columns :] = odds.logit()
    view = random_rows(VARIED, 20_000, generator(1)).view
    kernel, rng = EnsembleKernel(ensemble), generator(0)
    carry = kernel.init(window_at(view, VARIED.act_dim), everybody(len(view)), rng)
    _, outcome = kernel.step(carry, view, torch.zeros(len(view), VARIED.act_dim), rng)
    ended, acting, legal = outcome.terminated, outcome.after.acting, outcome.after.legal
    assert ended.float().mean(0).tolist() == pytest.approx([0.3, 0.0], abs=0.02)
    assert torch.equal(acting[:, 0], ~ended[:, 0]), "nobody acts after its end"
    assert acting[:, 1].float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert legal[:, :2].all(), "numbers are always legal"
    assert torch.equal(legal[:, 2:], torch.tensor([False, True, False]).expand(len(view), 3)), "the likeliest is left"


def test_earlier_frames_move_through_the_carry() -> None:
    spec = replace(box_game(1, 1), frames=3)
    ensemble = speaking([1.0], spec)
    size = 2
    window = Window(
        obs=torch.tensor([[[9.0], [-2.0], [-1.0], [0.0]]] * size),
        act=torch.tensor([[[9.0], [0.2], [0.4], [0.0]]] * size),
        valid=torch.ones(size, 4, dtype=torch.bool), now=View.of(spec, torch.zeros(size, 1)),
    )  # fmt: skip
    kernel, rng = EnsembleKernel(ensemble), generator(0)
    carry = kernel.init(window, everybody(size), rng)
    carry, outcome = kernel.step(carry, window.now, torch.full((size, 1), 0.6), rng)
    carry, outcome = kernel.step(carry, outcome.after, torch.full((size, 1), 0.8), rng)
    assert carry.past is not None
    assert carry.past.obs[0].flatten().tolist() == [0.0, 1.0]
    assert carry.past.act[0].flatten().tolist() == pytest.approx([0.6, 0.8])
    assert outcome.after.obs.flatten().tolist() == [2.0, 2.0]


@pytest.mark.parametrize("particles", [None, 1])
def test_moments_of_no_plan_are_refused(particles: int | None) -> None:
    with pytest.raises(ValueError, match=f"particles={particles} must be >= 2"):
        EnsembleKernel(speaking([1.0]), "moments", particles)


def test_what_cannot_be_stepped_is_refused_with_the_numbers() -> None:
    ensemble, rng = speaking([1.0]), generator(0)
    with pytest.raises(ValueError, match="propagation='often'"):
        EnsembleKernel(ensemble, "often")  # type: ignore[arg-type]  # the point is to pass what is unknown
    with pytest.raises(GameError, match=r"7 rows .* particles=3"):
        EnsembleKernel(ensemble, particles=3).init(start(LINE, 7), everybody(7), rng)
    kernel = EnsembleKernel(ensemble)
    carry = kernel.init(start(LINE, 4), everybody(4), rng)
    with pytest.raises(GameError, match="4 branches were started, 3 rows"):
        kernel.step(carry, start(LINE, 3).now, torch.zeros(3, 1), rng)
    two = box_game(1, 1, agents=2)
    with pytest.raises(GameError, match=r"owners=2.*0\.\.1, got \[-1, 1\]"):
        EnsembleKernel(speaking([1.0, 2.0], two, owners=2)).init(start(two, 2), torch.tensor([-1, 1]), rng)
