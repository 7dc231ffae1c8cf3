"""Fitting systems whose laws are known, and what a fit may and may not touch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common import fit as fitting
from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.ensemble import GaussianStack
from presage.common.fit import EnsembleFitter, FitConfig, clip_by_member, network_loss
from presage.common.game import Rows, View, Window
from presage.common.held_out_scores import HeldOut, held_out
from presage.common.holdout import Numbered, Split
from presage.common.networks import Activation
from presage.common.propagation import EnsembleKernel
from tests.common.systems import box_game, transitions
from tests.common.test_ensemble import scrambled, stack
from tests.common.toy import VARIED, generator, random_rows, window_at

LINE = box_game(1, 1)
SMALL = EnsembleConfig(members=3, elites=2, hidden=(16,), outcome_hidden=(8,))
QUICK = FitConfig(max_updates=40, evaluate_every=10, batch_size=32)
SURE = replace(SMALL, noise="none")
"""members without noise"""
HELD = replace(SMALL, lipschitz=1.5, linear_skip=False)
"""members of a bounded slope"""

Law = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


def noisy_line(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """next = 0.9 obs + 0.5 act + noise of std 0.1, paid by obs - act."""
    noise = 0.1 * torch.randn(obs.shape, generator=rng)
    return 0.9 * obs + 0.5 * act[:, :1] + noise, (obs - act[:, :1]).expand(-1, 1)


def two_regions(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """next = obs / 2 with noise of std 0.05 below zero and 0.5 above, paid nothing."""
    std = torch.where(obs < 0, 0.05, 0.5)
    return obs / 2 + std * torch.randn(obs.shape, generator=rng), torch.zeros(len(obs), 1)


def fitted(config: EnsembleConfig, fit: FitConfig, rows: Rows) -> DynamicsEnsemble:
    ensemble = DynamicsEnsemble(LINE, config, generator(0))
    EnsembleFitter(ensemble, fit, generator(1)).fit(rows, generator(2))
    return ensemble


def probe(*obs: float, act: float = 0.0) -> tuple[View, Tensor]:
    return View.of(LINE, torch.tensor(obs)[:, None]), torch.full((len(obs), 1), act)


def weights(ensemble: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in ensemble.state_dict().items()}


@pytest.mark.parametrize(("linear_skip", "mean", "noise"), [(True, 0.01, 0.01), (False, 0.03, 0.02)])
def test_a_noisy_linear_system_is_recovered(linear_skip: bool, mean: float, noise: float) -> None:
    config = replace(SMALL, linear_skip=linear_skip)
    fit = FitConfig(max_updates=800, patience=8, score="error" if linear_skip else "likelihood")
    ensemble = fitted(config, fit, transitions(LINE, 6000, noisy_line))
    for act in (-0.8, 0.0, 0.8):
        view, action = probe(-0.8, -0.3, 0.2, 0.9, act=act)
        found = ensemble.predict(view, action)
        truth = 0.9 * view.obs + 0.5 * act
        spread = (0.9**2 / 3 + 0.5**2 / 3 + 0.1**2) ** 0.5
        elite = ensemble.state_network.elites[0]
        assert (found.mean[elite].mean(0) - truth).abs().max() < mean * spread
        assert found.std[elite].mean().item() == pytest.approx(0.1, abs=noise), "a variance taken for a std gives 0.01"
        paid = view.obs - act
        torch.testing.assert_close(found.reward_mean[elite].mean(0), paid, atol=0.05, rtol=0)


def test_noise_is_told_apart_where_it_differs() -> None:
    fit = FitConfig(max_updates=800, patience=9, learning_rate=5e-3, score="likelihood")
    ensemble = fitted(SMALL, fit, transitions(LINE, 6000, two_regions))
    found = ensemble.predict(*probe(-0.9, -0.7, 0.7, 0.9))
    std = found.std[ensemble.state_network.elites[0]].mean(0)[:, 0]
    assert std[:2].tolist() == pytest.approx([0.05, 0.05], rel=0.25)
    assert std[2:].tolist() == pytest.approx([0.5, 0.5], rel=0.15)


@pytest.mark.parametrize("frames", [1, 2])
def test_hidden_velocities_need_two_frames(frames: int) -> None:
    """Positions alone are seen; the push of an action shows in the position one step later."""
    spec = replace(LINE, frames=frames)
    rng, size = generator(3), 1500
    obs, velocity = torch.randn(size, 1, generator=rng), torch.randn(size, 1, generator=rng)
    acts = torch.rand(size, 2, generator=rng) * 2 - 1
    now = obs + 0.1 * velocity
    velocity = 0.75 * velocity + 0.5 * acts[:, :1]
    after = now + 0.1 * velocity
    rows = transitions(spec, size, lambda obs, act, rng: (obs, torch.zeros(len(obs), 1)))
    rows = rows.with_(obs=now, next_obs=after, act=acts[:, 1:])
    window = Window(
        obs=torch.stack([obs, now], 1), act=torch.stack([acts[:, :1], torch.zeros(size, 1)], 1),
        valid=torch.ones(size, 2, dtype=torch.bool), now=rows.view,
    )  # fmt: skip
    ensemble = DynamicsEnsemble(spec, SMALL, generator(0))
    report = EnsembleFitter(ensemble, QUICK, generator(1)).fit(rows, generator(2), window=window)
    explained = report.networks["state"].explained["obs"]
    assert explained > 0.999 if frames == 2 else explained < 0.2


def test_terminations_are_learned_where_the_game_has_them() -> None:
    spec = replace(LINE, terminates=True)
    rows = transitions(spec, 3000, noisy_line)
    rows = rows.with_(terminated=rows.next_obs > 0.5)
    ensemble = DynamicsEnsemble(spec, SMALL, generator(0))
    fit = FitConfig(max_updates=500, learning_rate=5e-3)
    report = EnsembleFitter(ensemble, fit, generator(1)).fit(rows, generator(2))
    assert report.networks["outcome"].nll["terminated"] < 0.08
    network = ensemble.outcome_network
    assert network is not None
    reads = torch.tensor([[0.2, 0.24, 0.3], [0.6, 0.32, 0.7]])  # 0.9 obs + 0.5 act = next
    odds = network.predict(reads, network.select(network.elite_index())).logits.mean(0)[:, 0]
    assert odds[0] < -3
    assert odds[1] > 3


def test_a_member_that_never_improves_keeps_the_weights_that_it_came_with() -> None:
    """Member 1 is the law itself; the others are not."""

    def law(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return obs + 2 * act, torch.zeros(len(obs), 1)

    config = replace(SMALL, hidden=(), linear_skip=False, reward_input="joint", normalise_targets=False)
    rows = transitions(LINE, 300, law)
    ensemble = DynamicsEnsemble(LINE, config, generator(0))
    fitter = EnsembleFitter(ensemble, replace(QUICK, learning_rate=1e-2), generator(1))
    fitter.fit(rows, generator(2))
    network = ensemble.state_network
    with torch.no_grad():
        network.head.weight[1] = 0.0
        network.head.weight[1, 1, 0] = 2.0
        network.head.bias[1] = 0.0
    before, stated = weights(network), held_out_errors(ensemble, rows)
    report = fitter.fit(rows, generator(3)).networks["state"]
    after = weights(network)
    for name in dict(network.named_parameters()):
        assert torch.equal(after[name][1], before[name][1]), name
    assert not torch.equal(after["mlp.layers.0.weight"][0], before["mlp.layers.0.weight"][0])
    found = held_out_errors(ensemble, rows)
    assert (found[[0, 2]] < stated[[0, 2]]).all()
    assert report.elites[0][0] == 1, "and it leads the elites"
    assert network.elites[0, 0] == 1


def held_out_errors(ensemble: DynamicsEnsemble, rows: Rows) -> Tensor:
    """Mean squared error of every member's next observation on all rows."""
    return (ensemble.predict(rows.view, rows.act).mean - rows.next_obs).square().mean((1, 2))


def test_every_member_returns_to_its_own_best_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: dict[int, list[Tensor]] = {}

    def spy(network: GaussianStack, *arguments: Tensor) -> HeldOut:
        found = held_out(network, *arguments)  # type: ignore[arg-type]  # one of them is an int
        looks.setdefault(id(network), []).append(found.error.mean(1))
        return found

    monkeypatch.setattr(fitting, "held_out", spy)
    ensemble = DynamicsEnsemble(LINE, replace(SMALL, members=5, linear_skip=False), generator(0))
    fit = FitConfig(max_updates=120, evaluate_every=3, patience=99, batch_size=8, learning_rate=0.03)
    report = EnsembleFitter(ensemble, fit, generator(1)).fit(transitions(LINE, 200, noisy_line), generator(2))
    history = torch.stack(looks[id(ensemble.state_network)])
    best, last = history[:-1].min(0), history[-1]
    assert len(set(best.indices.tolist())) > 1, "members had their best looks at different times"
    assert torch.equal(last, best.values)
    assert report.networks["state"].scores == pytest.approx(best.values.tolist())
    order = best.values.argsort().tolist()
    assert report.networks["state"].elites == [order]
    assert ensemble.state_network.elites.tolist() == [order[:2]]


def test_a_fit_that_diverged_leaves_no_trace_and_the_next_one_learns() -> None:
    rows = transitions(LINE, 300, noisy_line)
    ensemble = DynamicsEnsemble(LINE, replace(SMALL, linear_skip=False), generator(0))
    fitter = EnsembleFitter(ensemble, replace(QUICK, learning_rate=1e25), generator(1))
    untouched = {name: p.detach().clone() for name, p in ensemble.named_parameters()}
    report = fitter.fit(rows, generator(2))
    assert not math.isfinite(report.networks["state"].train_loss)
    assert all(torch.equal(p, untouched[name]) for name, p in ensemble.named_parameters())
    before = held_out_errors(ensemble, rows)
    for group in fitter.optimisers["state"].param_groups:
        group["lr"] = 1e-2
    fitter.fit(rows, generator(3))
    assert (held_out_errors(ensemble, rows) < 0.5 * before).all()


def test_a_fit_stops_when_no_member_has_improved_for_long_enough() -> None:
    rows = transitions(LINE, 500, noisy_line)
    ensemble = DynamicsEnsemble(LINE, SMALL, generator(0))
    fit = FitConfig(max_updates=10_000, evaluate_every=5, patience=3, min_improvement=0.999)
    report = EnsembleFitter(ensemble, fit, generator(1)).fit(rows, generator(2))
    assert report.networks["state"].updates == 15, "the linear path has left nothing to gain by such a measure"
    assert report.networks["state"].epochs == pytest.approx(15 * 256 / 400)


def test_equal_generators_give_equal_fits_to_the_bit() -> None:
    rows = transitions(LINE, 300, noisy_line)
    fit = replace(QUICK, bootstrap=True, gradient_clip=1.0)
    one, two = (weights(fitted(SMALL, fit, rows)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = DynamicsEnsemble(LINE, SMALL, generator(0))
    EnsembleFitter(other, fit, generator(1)).fit(rows, generator(9))
    assert not torch.equal(other.state_network.head.weight, one["state_network.mlp.layers.1.weight"])


@pytest.mark.parametrize("keep_optimiser", [True, False])
@pytest.mark.parametrize("config", [SMALL, SURE, HELD])
def test_a_restored_fitter_goes_on_to_the_bit(keep_optimiser: bool, config: EnsembleConfig) -> None:
    rows = transitions(LINE, 400, noisy_line)
    fit = replace(QUICK, keep_optimiser=keep_optimiser, bootstrap=True)
    rng = generator(2)
    ensemble = DynamicsEnsemble(LINE, config, generator(0))
    fitter = EnsembleFitter(ensemble, fit, generator(1))
    fitter.fit(rows[:300], rng)
    saved = copy.deepcopy((ensemble.state_dict(), fitter.state(), rng.get_state()))
    fitter.fit(rows, rng)

    again = DynamicsEnsemble(LINE, config, generator(50))
    other = EnsembleFitter(again, fit, generator(51))
    again.load_state_dict(saved[0])
    other.restore(saved[1])
    resumed = generator(52)
    resumed.set_state(saved[2])
    other.fit(rows, resumed)
    for name, value in ensemble.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert (other.fits, other.updates, other.salt) == (fitter.fits, fitter.updates, fitter.salt)


def test_warm_fits_go_on_from_what_was_learned_and_fresh_moments_are_fresh() -> None:
    rows = transitions(LINE, 400, noisy_line)
    for keep in (True, False):
        fitter = EnsembleFitter(
            DynamicsEnsemble(LINE, SMALL, generator(0)), replace(QUICK, keep_optimiser=keep), generator(1)
        )
        fitter.fit(rows, generator(2))
        fitter.fit(rows, generator(3))
        head = fitter.ensemble.state_network.head.weight
        assert fitter.optimisers["state"].state[head]["step"] == (80 if keep else 40)
        assert fitter.fits == 2
        assert fitter.updates == 160


def test_owners_do_not_touch_each_other() -> None:
    spec = box_game(1, 1, agents=2)

    def law(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return 0.9 * obs + 0.1 * torch.randn(obs.shape, generator=rng), obs.expand(-1, 2)

    rows = transitions(spec, 400, law)
    ego = torch.arange(400, dtype=torch.int16) % 3 - 1
    rows = rows.with_(ego=ego)
    changed = rows.with_(next_obs=torch.where(ego[:, None] == 1, -3 * rows.obs, rows.next_obs))
    found = []
    for data in (rows, changed):
        ensemble = DynamicsEnsemble(spec, replace(SMALL, owners=2), generator(0))
        fit = replace(QUICK, patience=99, bootstrap=True, gradient_clip=0.5)
        EnsembleFitter(ensemble, fit, generator(1)).fit(data, generator(2))
        found.append(ensemble)
    for name in dict(found[0].state_network.named_parameters()):
        one, two = (ensemble.state_network.state_dict()[name] for ensemble in found)
        assert torch.equal(one[:3], two[:3]), name
    first, second = (ensemble.state_network for ensemble in found)
    assert torch.equal(first.elites[0], second.elites[0])
    view, act = View.of(spec, torch.tensor([[0.5]])), torch.zeros(1, 2)
    for owner, wanted in ((0, 0.45), (1, -0.4)):
        mean = found[1].predict(view, act, owner=owner).mean[..., 0]
        assert mean.mean().item() == pytest.approx(wanted, abs=0.1 if owner == 0 else 0.6)
    apart = [ensemble.predict(view, act, owner=1).mean for ensemble in found]
    assert not torch.allclose(apart[0], apart[1], atol=0.1)


def test_a_report_tells_held_out_errors_in_raw_units() -> None:
    spec = box_game(2, 1, agents=2)

    def law(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.tensor([3.0, 0.5]) * torch.randn(obs.shape, generator=rng)
        return obs + 10 * noise, torch.randn(len(obs), 2, generator=rng)

    rows = transitions(spec, 4000, law)
    ensemble = DynamicsEnsemble(spec, SMALL, generator(0))
    report = EnsembleFitter(ensemble, QUICK, generator(1)).fit(rows, generator(2))
    state, outcome = report.networks["state"], report.networks["outcome"]
    assert state.rmse["obs"] == pytest.approx(((30**2 + 5**2) / 2) ** 0.5, rel=0.05)
    assert outcome.rmse["reward"] == pytest.approx(1.0, rel=0.05)
    assert state.explained["obs"] == pytest.approx(0.0, abs=0.03)
    assert state.nll["obs"] == pytest.approx(0.5 * (1 + 1.837877), abs=0.15), "entropy of a unit normal"
    assert (report.train_rows, report.held_out_rows) == (3200, 800)
    metrics = report.metrics()
    assert metrics["obs_rmse"] == state.rmse["obs"]
    assert metrics["reward_nll"] == outcome.nll["reward"]
    assert metrics["state_updates"] == state.updates


def test_scores_equal_a_loop_over_members_and_rows() -> None:
    network = scrambled(stack(owners=2, members=2, elites=1))
    table = torch.randn(30, 7, generator=generator(1))
    table[:, 6] = (table[:, 6] > 0).float()
    for owner in range(2):
        network.take_statistics(owner, table[:20, :4], table[:20, 4:6])
    index = torch.stack([torch.arange(20, 30), torch.arange(10, 20)]).repeat_interleave(2, 0)
    counted = torch.ones(4, 10)
    counted[2:, 6:] = 0
    found = held_out(network, table, 4, index, counted)
    for m in range(4):
        rows = table[index[m, : int(counted[m].sum())]]
        answer = network.predict(rows[:, :4].expand(1, -1, -1), network.select(torch.tensor([m])))
        target, flag = rows[:, 4:6], rows[:, 6:]
        spread = network.spread[m, 0]
        torch.testing.assert_close(found.error[m], ((answer.mean[0] - target) / spread).square().mean(0))
        off = (answer.mean[0] - target) / answer.std[0]
        nll = 0.5 * off**2 + (answer.std[0] / spread).log() + 0.5 * math.log(2 * math.pi)
        torch.testing.assert_close(found.nll[m], nll.mean(0))
        torch.testing.assert_close(found.surprise[m], off.square().mean(0))
        truth = torch.where(flag > 0, answer.logits[0].sigmoid(), 1 - answer.logits[0].sigmoid())
        torch.testing.assert_close(found.flags[m], -truth.log().mean(0))


def test_calibrated_spreads_are_those_of_held_out_errors() -> None:
    rows = transitions(LINE, 200, two_regions)
    ensemble = DynamicsEnsemble(LINE, SMALL, generator(0))
    fitter = EnsembleFitter(ensemble, replace(QUICK, calibrate=True), generator(1))
    report = fitter.fit(rows, generator(2)).networks["state"]
    numbered = Numbered.of(rows.ego, rows.step, lanes=1, first=0, length=100)
    (kept,) = Split.of(numbered, 1, 0.2, 5000, fitter.salt).held_out
    found = ensemble.predict(rows[kept].view, rows[kept].act)
    off = (found.mean - rows[kept].next_obs) / found.std
    assert off.square().mean((1, 2)).tolist() == pytest.approx([1.0] * 3, rel=1e-4)
    spread = ensemble.state_network.spread[0, 0]
    nll = 0.5 * off**2 + (found.std / spread).log() + 0.5 * math.log(2 * math.pi)
    assert report.nll["obs"] == pytest.approx(nll[ensemble.state_network.elites[0]].mean().item(), rel=1e-4)


def test_gradients_are_clipped_member_by_member() -> None:
    network = stack()
    loss = network_loss(network, *random_batch(), FitConfig(loss="likelihood"))
    torch.autograd.backward((loss * torch.tensor([1.0, 100.0, 1e-4])).sum())
    norms = gradient_norms(network)
    clip_by_member(network, 1.0)
    after = gradient_norms(network)
    assert norms[1] > 1 > norms[2]
    torch.testing.assert_close(after, norms.clamp(max=1.0))


def random_batch() -> tuple[Tensor, Tensor]:
    """Inputs `(3, 5, 4)` and targets `(3, 5, 3)` for the small stack; the last target is a flag."""
    rng = generator(4)
    targets = torch.randn(3, 5, 3, generator=rng)
    targets[..., 2] = (targets[..., 2] > 0).float()
    return torch.randn(3, 5, 4, generator=rng), targets


def gradient_norms(network: GaussianStack) -> Tensor:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.stack([torch.cat([g[m].flatten() for g in gradients]).norm() for m in range(3)])


@pytest.mark.parametrize("loss", ["likelihood", "least_squares"])
def test_a_loss_adds_up_columns_flags_and_bounds(loss: Literal["likelihood", "least_squares"]) -> None:
    network = stack()
    inputs, targets = random_batch()
    found = network_loss(network, inputs, targets, FitConfig(loss=loss, bound_penalty=0.3, variance_weight=0.1))
    mean, log_variance, logits = network(inputs)
    for m in range(3):
        variance, error = log_variance[m].exp(), (mean[m] - targets[m, :, :2]) ** 2
        doubt = (error / variance + variance.log()).mean() + 0.3 * (network.upper[m] - network.lower[m]).sum()
        columns = doubt if loss == "likelihood" else error.mean() + 0.1 * doubt
        cross = torch.nn.functional.binary_cross_entropy(logits[m].sigmoid(), targets[m, :, 2:])
        torch.testing.assert_close(found[m], columns + cross)


def test_decay_is_stretched_over_the_layers_and_spares_biases_and_bounds() -> None:
    ensemble = DynamicsEnsemble(LINE, replace(SMALL, hidden=(4, 4, 4)), generator(0))
    fitter = EnsembleFitter(ensemble, replace(QUICK, weight_decay=(1e-5, 2e-5, 3e-5, 4e-5, 5e-5)), generator(1))
    network = ensemble.state_network
    decays = {
        id(p): group["weight_decay"] for group in fitter.optimisers["state"].param_groups for p in group["params"]
    }
    linear = list(network.mlp.layers)
    assert [decays[id(layer.weight)] for layer in linear] == [1e-5, 2e-5, 4e-5, 5e-5]
    assert {decays[id(p)] for p in (*(layer.bias for layer in linear), network.lower, network.upper)} == {0.0}
    assert network.skip is not None
    assert id(network.skip.weight) not in decays, "the linear path is solved, not trained"


def test_rows_that_cannot_be_fitted_are_refused() -> None:
    rows = transitions(LINE, 50, noisy_line)
    broken = rows.next_obs.clone()
    broken[7] = float("nan")
    fitter = EnsembleFitter(DynamicsEnsemble(LINE, SMALL, generator(0)), QUICK, generator(1))
    before = weights(fitter.ensemble)
    with pytest.raises(ValueError, match="row 7 holds a number that is not finite"):
        fitter.fit(rows.with_(next_obs=broken), generator(2))
    with pytest.raises(ValueError, match="row 7 holds a number that is not finite"):
        fitter.fit(rows.with_(reward=broken), generator(2))
    assert all(torch.equal(before[name], value) for name, value in fitter.ensemble.state_dict().items())
    with pytest.raises(ValueError, match="4 rows are too few"):
        fitter.fit(rows[:4], generator(2))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"holdout": 1.0}, "holdout=1.0"),
        ({"variance_weight": 0.0}, "variance_weight=0.0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"weight_decay": ()}, r"weight_decay=\(\)"),
        ({"gradient_clip": -1.0}, "gradient_clip=-1.0"),
        ({"holdout_stretch": 0}, "holdout_stretch=0"),
        ({"average": 1.0}, "average=1.0"),
        ({"average": -0.1}, "average=-0.1"),
    ],
)
def test_contradictions_are_refused_with_their_numbers(changed: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(QUICK, **changed)  # type: ignore[arg-type]  # fields of several types


def test_kept_weights_are_averages_over_updates() -> None:
    """After one update w1 from w0, an average that keeps a share k is k w0 + (1 - k) w1; k begins with a tenth."""
    rows, network = transitions(LINE, 200, noisy_line), replace(SMALL, linear_skip=False)
    once = replace(QUICK, max_updates=1, evaluate_every=1, learning_rate=1e-2)
    plain, half_of_it, most = (weights(fitted(network, replace(once, average=k), rows)) for k in (0.0, 0.05, 0.9))
    moved = [name for name in plain if not torch.equal(plain[name], most[name])]
    assert moved
    for name in moved:
        torch.testing.assert_close(most[name] - plain[name], 2 * (half_of_it[name] - plain[name]), atol=2e-7, rtol=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_averages_are_nearer_to_the_law_than_weights_that_large_steps_move(seed: int) -> None:
    game = box_game(6, 1)

    def law(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return (2 * obs).sin() + 0.02 * torch.randn(obs.shape, generator=rng), torch.zeros(len(obs), 1)

    def error(average: float) -> float:
        ensemble = DynamicsEnsemble(game, replace(SMALL, hidden=(64, 64), linear_skip=False), generator(seed))
        config = FitConfig(
            average=average, learning_rate=1e-2, batch_size=64, max_updates=400, min_improvement=0.0,
            loss="likelihood", score="likelihood",
        )  # fmt: skip
        rows, network = transitions(game, 3_000, law), ensemble.state_network
        EnsembleFitter(ensemble, config, generator(1)).fit(rows, generator(2))
        said = network.predict(ensemble.inputs(rows.view, rows.act, None), network.select(slice(None)))
        return float((said.mean[..., :6] + rows.obs - (2 * rows.obs).sin()).square().mean())

    assert error(0.95) < 0.75 * error(0.0)


def test_the_group_lasso_adds_the_norms_of_every_inputs_weights() -> None:
    ensemble = DynamicsEnsemble(LINE, SMALL, generator(0))
    network = ensemble.state_network
    rng = generator(1)
    inputs, targets = torch.randn(3, 7, 2, generator=rng), torch.randn(3, 7, 1, generator=rng)
    plain = network_loss(network, inputs, targets, QUICK)
    held = network_loss(network, inputs, targets, replace(QUICK, input_penalty=0.5))
    weight = network.first.weight.detach()
    norms = [sum(float(weight[m, k].norm()) for k in range(2)) for m in range(3)]
    torch.testing.assert_close(held - plain, 0.5 * torch.tensor(norms), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hidden", [(32, 32), (32, 32, 32, 32)])
def test_deep_perceptrons_learn_beside_a_linear_path(hidden: tuple[int, ...]) -> None:
    def law(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return obs + torch.sin(4 * obs), torch.zeros(len(obs), 1)

    config, fit = replace(SMALL, hidden=hidden), FitConfig(max_updates=500, evaluate_every=50)
    found = fitted(config, fit, transitions(LINE, 3000, law)).predict(*probe(-0.8, -0.4, 0.4, 0.8)).mean.mean(0)
    wanted = torch.tensor([-0.8, -0.4, 0.4, 0.8])
    torch.testing.assert_close(found[:, 0], wanted + torch.sin(4 * wanted), atol=0.1, rtol=0)


def test_the_group_lasso_silences_inputs_that_do_not_pay() -> None:
    spec = box_game(8, 1)

    def law(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        after = torch.zeros_like(obs)
        after[:, 0] = torch.sin(4 * obs[:, 0])
        return after, torch.zeros(len(obs), 1)

    rows = transitions(spec, 400, law)
    shares = []
    for penalty in (0.0, 0.02):
        config = replace(SMALL, linear_skip=False, target="absolute")
        ensemble = DynamicsEnsemble(spec, config, generator(0))
        fit = FitConfig(max_updates=1000, learning_rate=5e-3, input_penalty=penalty, patience=10)
        EnsembleFitter(ensemble, fit, generator(1)).fit(rows, generator(2))
        norm = ensemble.state_network.first.weight.detach().norm(dim=2)
        shares.append(float((norm[:, 1:].mean(1) / norm[:, 0]).mean()))
    assert shares[1] < 0.3 * shares[0]


def test_a_negative_group_lasso_is_refused() -> None:
    with pytest.raises(ValueError, match="input_penalty=-1 must be >= 0"):
        FitConfig(input_penalty=-1)


def test_members_without_noise_predict_means_and_log_odds_alone() -> None:
    rows = random_rows(VARIED, 200, generator(0))
    ensemble = DynamicsEnsemble(VARIED, SURE, generator(0))
    fitter = EnsembleFitter(ensemble, QUICK, generator(1))
    reports = [fitter.fit(part, generator(2)) for part in (rows[:100], rows)]
    state, outcome = ensemble.networks
    assert (state.head.weight.shape[2], outcome.head.weight.shape[2]) == (5, 2 + 9)
    found = ensemble.predict(rows.view, rows.act)
    assert found.std.eq(0).all()
    assert found.reward_std.eq(0).all()
    assert found.mean.std(0).gt(0).all(), "what they disagree on is still to be seen"
    assert set(reports[1].networks["outcome"].nll) == {"terminated", "acting", "legal"}
    assert "obs_nll" not in reports[1].metrics()
    assert set(reports[1].networks["state"].rmse) == {"obs", "achieved"}

    kernel, at = EnsembleKernel(ensemble, "fixed"), rows[:20]
    window, ego = window_at(at.view, VARIED.act_dim), torch.full((20,), -1)
    carry = kernel.init(window, ego, generator(3))
    one, two = (kernel.step(carry, at.view, at.act, generator(seed))[1] for seed in (4, 5))
    assert torch.equal(one.after.obs, two.after.obs)
    assert torch.equal(one.reward, two.reward)
    assert not torch.equal(one.terminated, two.terminated), "flags have odds all the same"


def test_members_without_noise_are_fitted_by_squared_errors_alone() -> None:
    network = stack(noisy=False)
    inputs, targets = random_batch()
    found = network_loss(network, inputs, targets, FitConfig(variance_weight=7.0))
    mean, _, logits = network(inputs)
    for m in range(3):
        errors = [(mean[m, b, c] - targets[m, b, c]).item() ** 2 for b in range(5) for c in range(2)]
        cross = torch.nn.functional.binary_cross_entropy(logits[m].sigmoid(), targets[m, :, 2:])
        assert found[m].item() == pytest.approx(sum(errors) / len(errors) + cross.item(), rel=1e-5)


@pytest.mark.parametrize("linear_skip", [True, False])
def test_a_noisy_linear_system_is_recovered_without_learning_its_noise(linear_skip: bool) -> None:
    fit = FitConfig(max_updates=800, patience=8)
    ensemble = fitted(replace(SURE, linear_skip=linear_skip), fit, transitions(LINE, 6000, noisy_line))
    view, action = probe(-0.8, -0.3, 0.2, 0.9, act=0.5)
    found = ensemble.predict(view, action)
    spread = (0.9**2 / 3 + 0.5**2 / 3 + 0.1**2) ** 0.5
    assert (found.mean.mean(0) - (0.9 * view.obs + 0.25)).abs().max() < 0.03 * spread
    torch.testing.assert_close(found.reward_mean.mean(0), view.obs - 0.5, atol=0.05, rtol=0)


@pytest.mark.parametrize("changed", [{"loss": "likelihood"}, {"score": "likelihood"}, {"calibrate": True}])
def test_no_likelihood_is_asked_of_members_without_noise(changed: dict[str, object]) -> None:
    fit = replace(QUICK, **changed)  # type: ignore[arg-type]  # fields of several types
    with pytest.raises(ValueError, match="noise='none' predicts none; take loss='least_squares'"):
        EnsembleFitter(DynamicsEnsemble(LINE, SURE, generator(0)), fit, generator(1))


def steps_of(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """A step of height 4 at 0, and a fast wave: steeper than any bound in these tests."""
    return obs + 4 * (obs > 0) + torch.sin(20 * act[:, :1]), torch.sin(30 * obs).expand(-1, 1)


@settings(max_examples=8, deadline=None)
@given(
    bound=st.sampled_from([0.3, 1.0, 4.0]), activation=st.sampled_from(["relu", "silu", "tanh"]),
    hidden=st.sampled_from([(), (16,), (16, 16, 8)]), seed=st.integers(0, 99),
)  # fmt: skip
def test_no_distance_grows_by_more_than_the_bound(
    bound: float, activation: Activation, hidden: tuple[int, ...], seed: int
) -> None:
    config = replace(HELD, lipschitz=bound, activation=activation, hidden=hidden, outcome_hidden=hidden)
    ensemble = DynamicsEnsemble(LINE, config, generator(seed))
    fitter = EnsembleFitter(ensemble, replace(QUICK, learning_rate=0.05), generator(1))
    rng, steepest = generator(seed), []
    for rows in (None, transitions(LINE, 300, steps_of), transitions(LINE, 300, steps_of, low=-9.0, high=5.0)):
        if rows is not None:
            fitter.fit(rows, generator(2))
        for network in ensemble.networks:
            inputs = network.input_mean.shape[2]
            maps = [p.detach() for name, p in network.mlp.named_parameters() if name.endswith("weight")]
            maps[-1] = maps[-1][..., : network.columns]
            norms = [torch.linalg.matrix_norm(part, 2) for part in maps]
            slope = 1.0998394 if activation == "silu" else 1.0
            assert (torch.stack(norms).prod(0) * slope ** len(hidden) <= bound * (1 + 1e-5)).all()
            one = network.input_mean + network.input_std * torch.randn(3, 2000, inputs, generator=rng)
            for near in (1e-2, 1.0, 100.0):
                two = one + near * network.input_std * torch.randn(one.shape, generator=rng)
                with torch.no_grad():
                    apart = (network(one)[0] - network(two)[0]).norm(dim=2)
                ratio = apart / ((one - two) / network.input_std).norm(dim=2)
                assert ratio.max() <= bound * (1 + 1e-3), "to rounding"
                steepest.append(ratio.max().item())
    if bound <= 1.0:  # a deep network does not come to a steep slope in so few updates
        assert max(steepest) > 0.2 * bound, "and the bound is made use of"


def test_a_bound_below_the_slope_is_what_the_slope_becomes() -> None:
    """In standardised units a line has slope 1; under a bound of a half the best fit is half as steep."""

    def line(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return 4 * obs, torch.zeros(len(obs), 1)

    config = replace(HELD, hidden=(), lipschitz=0.5, target="absolute")
    ensemble = fitted(config, FitConfig(max_updates=400, learning_rate=1e-2), transitions(LINE, 1000, line))
    found = ensemble.predict(*probe(-0.5, 0.5)).mean[:, :, 0]
    assert (found[:, 1] - found[:, 0]).tolist() == pytest.approx([2.0] * 3, rel=0.02)


def test_what_is_less_steep_than_the_bound_is_learned_as_ever() -> None:
    def wave(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return obs + torch.sin(3 * obs) / 3, torch.zeros(len(obs), 1)

    rows, explained = transitions(LINE, 2000, wave), []
    for bound in (0.7, 10.0, None):  # sin(3 x) / 3 has slope 1; its unit is 0.22, that of x 0.58: 2.6 in all
        config = replace(HELD, lipschitz=bound, hidden=(32, 32), activation="relu")
        ensemble = DynamicsEnsemble(LINE, config, generator(0))
        fit = FitConfig(max_updates=800, learning_rate=5e-3)
        report = EnsembleFitter(ensemble, fit, generator(1)).fit(rows, generator(2))
        explained.append(report.networks["state"].explained["obs"])
    assert explained[0] < 0.8
    assert explained[1] > 0.995
    assert explained[2] > 0.995
