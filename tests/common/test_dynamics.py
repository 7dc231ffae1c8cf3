"""What a dynamics ensemble reads and predicts, against rows put together by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import GameError, View, Window
from presage.common.geometry import Geometry
from tests.common.systems import box_game, transitions
from tests.common.toy import PLAIN, REACHING, VARIED, generator, random_rows

SMALL = EnsembleConfig(members=3, elites=2, hidden=(8,), outcome_hidden=(8,))


def test_plain_games_are_read_and_predicted_as_they_stand() -> None:
    rows = random_rows(PLAIN, 6, generator(0))
    found = DynamicsEnsemble(PLAIN, SMALL, generator(0)).regressions(rows)
    assert torch.equal(found["state"].inputs, torch.cat([rows.obs, rows.act], 1))
    assert torch.equal(found["state"].targets, rows.next_obs - rows.obs)
    assert torch.equal(found["outcome"].inputs, torch.cat([rows.obs, rows.act, rows.next_obs], 1))
    assert torch.equal(found["outcome"].targets, rows.reward)
    assert found["state"].groups == {"obs": slice(0, 3)}
    assert found["outcome"].groups == {"reward": slice(0, 2)}


def test_everything_that_varies_is_read_and_predicted() -> None:
    rows = random_rows(VARIED, 6, generator(0))
    found = DynamicsEnsemble(VARIED, SMALL, generator(0)).regressions(rows)
    state, after = torch.cat([rows.obs, rows.achieved], 1), torch.cat([rows.next_obs, rows.next_achieved], 1)
    reads = torch.cat([state, rows.act, rows.acting.float()], 1)
    assert torch.equal(found["state"].inputs, reads)
    assert torch.equal(found["state"].targets, after - state)
    assert torch.equal(found["outcome"].inputs, torch.cat([reads, after, rows.desired], 1))
    flags = [rows.terminated, rows.next_acting, rows.next_legal]
    assert torch.equal(found["outcome"].targets, torch.cat([rows.reward, *(flag.float() for flag in flags)], 1))
    assert found["state"].groups == {"obs": slice(0, 3), "achieved": slice(3, 5)}
    assert found["outcome"].groups == {
        "reward": slice(0, 2), "terminated": slice(2, 4), "acting": slice(4, 6), "legal": slice(6, 11)
    }  # fmt: skip


def test_the_papers_form_predicts_all_from_the_present_in_one_network() -> None:
    rows = random_rows(REACHING, 6, generator(0))
    config = replace(SMALL, reward_input="joint", target="absolute")
    found = DynamicsEnsemble(REACHING, config, generator(0)).regressions(rows)
    assert list(found) == ["state"]
    assert torch.equal(found["state"].inputs, torch.cat([rows.obs, rows.act, rows.desired], 1))
    assert torch.equal(found["state"].targets, torch.cat([rows.next_obs, rows.reward, rows.terminated.float()], 1))
    assert found["state"].groups == {"obs": slice(0, 3), "reward": slice(3, 4), "terminated": slice(4, 5)}


def test_several_frames_are_read_with_the_actions_between_them() -> None:
    spec = replace(PLAIN, frames=3)
    rng = generator(1)
    rows = random_rows(spec, 4, rng)
    obs, act = torch.randn(4, 5, 3, generator=rng), torch.randn(4, 5, 5, generator=rng)
    window = Window(obs=obs, act=act, valid=torch.ones(4, 5, dtype=torch.bool), now=rows.view)
    ensemble = DynamicsEnsemble(spec, SMALL, generator(0))
    reads = ensemble.regressions(rows, window)["state"].inputs
    past = [obs[:, 2], obs[:, 3], act[:, 2], act[:, 3]]
    assert torch.equal(reads, torch.cat([rows.obs, rows.act, *past], 1))

    short = Window(obs=obs[:, -2:], act=act[:, -2:], valid=window.valid[:, -2:], now=window.now)
    with pytest.raises(GameError, match=r"frames=3, the window has 2"):
        ensemble.regressions(rows, short)
    with pytest.raises(GameError, match="the earlier ones are missing"):
        ensemble.regressions(rows)
    with pytest.raises(GameError, match="4 windows were given for 3 rows"):
        ensemble.regressions(rows[:3], window)


def test_actions_keep_their_scale_and_states_are_standardised() -> None:
    spec = replace(PLAIN, frames=2)
    rng = generator(1)
    rows = random_rows(spec, 50, rng)
    rows = rows.with_(obs=rows.obs * 5 + 3, next_obs=rows.next_obs * 5 + 3)
    window = Window(
        obs=torch.randn(50, 2, 3, generator=rng), act=torch.randn(50, 2, 5, generator=rng),
        valid=torch.ones(50, 2, dtype=torch.bool), now=rows.view,
    )  # fmt: skip
    ensemble = DynamicsEnsemble(spec, SMALL, generator(0))
    EnsembleFitter(ensemble, FitConfig(max_updates=1), generator(0)).fit(rows, generator(0), window=window)
    for network in ensemble.networks:
        std = network.input_std[0, 0]
        assert (std[:3] > 4).all()
        assert std[3:8].tolist() == [1.0] * 5, "the action"
        assert (std[8:11] != 1).all(), "the frame before"
        assert std[11:16].tolist() == [1.0] * 5, "its action"


def test_networks_read_the_vectors_that_the_game_declares() -> None:
    game = replace(PLAIN, vectors=((0, 1),))
    rows = random_rows(game, 6, generator(0))
    own = Geometry(((0, 1),))
    found = DynamicsEnsemble(game, SMALL, generator(0)).regressions(rows)
    assert torch.equal(found["state"].inputs, torch.cat([rows.obs, rows.act, own.features(rows.obs)], 1))
    assert torch.equal(found["outcome"].inputs, torch.cat([found["state"].inputs, own(rows.next_obs)], 1))
    plain = DynamicsEnsemble(game, replace(SMALL, geometry=False), generator(0)).regressions(rows)
    assert torch.equal(plain["state"].inputs, torch.cat([rows.obs, rows.act], 1))


def test_predictions_are_those_of_the_networks_one_by_one() -> None:
    rows = random_rows(REACHING, 40, generator(0))
    ensemble = DynamicsEnsemble(REACHING, SMALL, generator(0))
    EnsembleFitter(ensemble, FitConfig(max_updates=20), generator(0)).fit(rows, generator(0))
    found = ensemble.predict(rows.view, rows.act)
    assert ensemble.outcome_network is not None
    for m in range(3):
        one = torch.tensor([m])
        inputs = torch.cat([rows.obs, rows.act], 1)
        mean, std, _ = ensemble.state_network.predict(inputs, ensemble.state_network.select(one))
        torch.testing.assert_close(found.mean[m], rows.obs + mean[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.std[m], std[0], atol=1e-5, rtol=1e-5)
        reads = torch.cat([inputs, found.mean[m], rows.desired], 1)
        mean, std, _ = ensemble.outcome_network.predict(reads, ensemble.outcome_network.select(one))
        torch.testing.assert_close(found.reward_mean[m], mean[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.reward_std[m], std[0], atol=1e-5, rtol=1e-5)

    unit = ensemble.state_network.spread[0, 0]
    apart = (found.mean - found.mean.mean(0)) / unit
    torch.testing.assert_close(
        ensemble.disagreement(rows.view, rows.act), apart.square().mean(0).mean(1).sqrt(), atol=1e-6, rtol=1e-4
    )


def test_columns_that_never_vary_are_predicted_exactly() -> None:
    spec = box_game(3, 1)

    def law(obs: torch.Tensor, act: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([obs[:, 0] + act[:, 0], obs[:, 1], obs[:, 2] + 0.25], 1), torch.zeros(len(obs), 1)

    rows = transitions(spec, 300, law)
    for target in ("delta", "absolute"):
        ensemble = DynamicsEnsemble(spec, replace(SMALL, target=target), generator(0))
        EnsembleFitter(ensemble, FitConfig(max_updates=5), generator(0)).fit(rows, generator(0))
        found = ensemble.predict(rows.view, rows.act)
        if target == "delta":
            assert torch.equal(found.mean[..., 1], rows.obs[:, 1].expand(3, -1)), "a landmark stays to the bit"
            torch.testing.assert_close(found.mean[..., 2], rows.next_obs[:, 2].expand(3, -1), atol=1e-6, rtol=0)
            assert found.std[..., 1:].eq(0).all()
        assert found.reward_mean.eq(0).all()
        assert found.reward_std.eq(0).all()
        assert found.std[..., 0].gt(0).all()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"elites": 4}, r"elites=4 must lie in 1\.\.members=3"),
        ({"owners": 0}, "owners=0"),
        ({"hidden": (4, 0)}, r"hidden=\(4, 0\)"),
        ({"log_variance": (1.0, 0.5)}, r"log_variance=\(1.0, 0.5\)"),
        ({"lipschitz": 0.0, "linear_skip": False}, "lipschitz=0.0 must be > 0"),
        ({"lipschitz": 2.0}, "lipschitz=2.0 bounds the perceptrons, linear_skip=True .* set linear_skip=False"),
    ],
)
def test_contradictions_are_refused_with_their_numbers(changed: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(SMALL, **changed)  # type: ignore[arg-type]  # fields of several types


def test_what_does_not_fit_the_game_is_refused() -> None:
    with pytest.raises(ValueError, match=r"owners=3 must be 1 .* or 2 \(one for each agent of 'plain'\)"):
        DynamicsEnsemble(PLAIN, replace(SMALL, owners=3), generator(0))


def test_members_agree_where_they_learned_and_part_elsewhere() -> None:
    spec = box_game(1, 1)

    def law(obs: torch.Tensor, act: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        bend = torch.sin(3 * obs) + 0.05 * torch.randn(obs.shape, generator=rng)
        return obs + bend, torch.zeros(len(obs), 1)

    config = EnsembleConfig(members=5, elites=5, hidden=(32,))
    ensemble = DynamicsEnsemble(spec, config, generator(0))
    fitter = EnsembleFitter(ensemble, FitConfig(max_updates=300, batch_size=64, learning_rate=5e-3), generator(0))
    fitter.fit(transitions(spec, 1000, law), generator(1))
    grid = torch.tensor([[-0.8], [0.0], [0.8], [10.0], [-10.0]])
    found = ensemble.disagreement(View.of(spec, grid), torch.zeros(5, 1))
    assert found[:3].max() < 0.15
    assert found[3:].min() > 3 * found[:3].max()


def test_rewards_can_be_read_from_the_next_states_lengths_alone() -> None:
    game = replace(REACHING, vectors=((2, 0),))
    config = replace(SMALL, reward_input="lengths")
    rows = random_rows(game, 6, generator(0))
    ensemble = DynamicsEnsemble(game, config, generator(0))
    found = ensemble.regressions(rows)
    others = [k for k in range(game.obs_dim) if k not in (0, 2)]
    length = rows.next_obs[:, [0, 2]].norm(dim=1, keepdim=True)
    wanted = torch.cat([rows.next_obs[:, others], length, rows.desired], 1)
    torch.testing.assert_close(found["outcome"].inputs, wanted)
    EnsembleFitter(ensemble, FitConfig(max_updates=5), generator(0)).fit(
        random_rows(game, 40, generator(1)), generator(0)
    )
    predicted = ensemble.predict(rows.view, rows.act)
    assert ensemble.outcome_network is not None
    for m in range(3):
        state = predicted.mean[m]
        reads = torch.cat([state[:, others], state[:, [0, 2]].norm(dim=1, keepdim=True), rows.desired], 1)
        chosen = ensemble.outcome_network.select(torch.tensor([m]))
        torch.testing.assert_close(predicted.reward_mean[m], ensemble.outcome_network.predict(reads, chosen)[0][0])
    with pytest.raises(ValueError, match="needs vectors, and 'reaching' declares none"):
        DynamicsEnsemble(REACHING, config, generator(0))


def test_a_distance_is_learned_for_directions_that_were_never_seen() -> None:
    spec = replace(box_game(2, 1), vectors=((0, 1),))

    def law(obs: torch.Tensor, act: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return obs, torch.sin(6 * obs.norm(dim=1, keepdim=True))

    seen = transitions(spec, 400, law)
    above = seen[(seen.obs[:, 1] > 0).nonzero().squeeze(1)]
    below = seen[(seen.obs[:, 1] < 0).nonzero().squeeze(1)]
    error = {}
    for kind in ("transition", "lengths"):
        config = replace(SMALL, reward_input=kind, hidden=(16,), outcome_hidden=(16,))
        ensemble = DynamicsEnsemble(spec, config, generator(0))
        EnsembleFitter(ensemble, FitConfig(max_updates=300, learning_rate=5e-3), generator(0)).fit(above, generator(0))
        predicted = ensemble.predict(below.view, below.act).reward_mean.mean(0)
        error[kind] = float((predicted - below.reward).square().mean() / below.reward.var())
    assert error["lengths"] < 0.2
    assert error["transition"] > 5 * error["lengths"]
