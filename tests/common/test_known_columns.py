"""Columns that a game gives by rule: passed on exactly, never learned, and refused where the rule is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from presage.common.backward import BackwardEnsemble
from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import GameError, GameSpec, KnownColumn, Symmetry, Window
from presage.common.propagation import EnsembleKernel
from tests.common.systems import box_game, transitions
from tests.common.toy import generator, random_rows

GOAL = KnownColumn(column=1, obs=((1, 1.0),))
HEARD = KnownColumn(column=2, act=((0, 0.5), (1, -2.0)), offset=0.5)
MOVED = KnownColumn(column=3, obs=((0, 2.0),))
SPEC = replace(box_game(4, 2), known=(GOAL, HEARD, MOVED))
CONFIG = EnsembleConfig(members=3, elites=2, hidden=(8,), outcome_hidden=(8,), known_columns=True)


def law(obs: Tensor, act: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    moved = obs[:, :1] + 0.1 * act[:, :1]
    after = torch.cat([moved, obs[:, 1:2], 0.5 * act[:, :1] - 2 * act[:, 1:] + 0.5, 2 * obs[:, :1]], 1)
    return after, after.sum(1, keepdim=True)


@pytest.mark.parametrize("target", ["delta", "absolute"])
@pytest.mark.parametrize("reward_input", ["transition", "joint"])
def test_known_columns_are_exact_before_any_fit(target: Literal["delta", "absolute"], reward_input: Any) -> None:
    rows = transitions(SPEC, 50, law)
    config = replace(CONFIG, target=target, reward_input=reward_input, log_variance=(-1.0, 0.5))
    ensemble = DynamicsEnsemble(SPEC, config, generator(0))
    for network in ensemble.networks:
        for parameter in network.parameters():
            parameter.data += 0.3
    found = ensemble.predict(rows.view, rows.act).mean
    torch.testing.assert_close(found[..., 1:], rows.next_obs[:, 1:].expand(3, -1, -1))
    assert (found[..., 0] - rows.next_obs[:, 0]).abs().min() > 0, "nothing is known of the first column"
    for propagation in ("fresh", "mean"):
        kernel = EnsembleKernel(ensemble, propagation)
        window = Window(
            obs=rows.obs[:, None], act=rows.act[:, None], valid=torch.ones(50, 1, dtype=torch.bool), now=rows.view
        )
        carry = kernel.init(window, torch.full((50,), -1), generator(1))
        _, outcome = kernel.step(carry, rows.view, rows.act, generator(2))
        torch.testing.assert_close(outcome.after.obs[:, 1:], rows.next_obs[:, 1:])


def test_nothing_is_learned_of_them_and_they_are_read_all_the_same() -> None:
    rows = transitions(SPEC, 400, law)
    ensemble = DynamicsEnsemble(SPEC, CONFIG, generator(0))
    assert torch.equal(ensemble.regressions(rows)["state"].targets[:, 1:], torch.zeros(400, 3))
    fitter = EnsembleFitter(ensemble, FitConfig(max_updates=300, holdout_stretch=1), generator(1))
    fitter.fit(rows, generator(2))
    assert (ensemble.state_network.spread[0, 0] > 0).tolist() == [True, False, False, False]
    fresh = transitions(SPEC, 100, law, seed=5)
    found = ensemble.predict(fresh.view, fresh.act)
    assert (found.mean - fresh.next_obs).abs().max() < 0.01
    assert (found.reward_mean - fresh.reward).abs().mean() < 0.02, "rewards are read from what was passed on"


def test_several_steps_on_what_follows_from_the_last_action_is_known() -> None:
    ensemble = DynamicsEnsemble(SPEC, CONFIG, generator(0), steps=2)
    assert ensemble.known.columns.tolist() == [1, 2]
    rows, acts = random_rows(SPEC, 5, generator(0)), torch.randn(5, 4, generator=generator(1))
    found = ensemble.predict(rows.view, acts).mean
    torch.testing.assert_close(found[0, :, 2], 0.5 * acts[:, 2] - 2 * acts[:, 3] + 0.5)


def test_of_what_came_before_only_constants_are_known() -> None:
    assert BackwardEnsemble(SPEC, CONFIG, generator(0)).known.columns.tolist() == [1]


def test_the_rule_is_differentiable_in_actions() -> None:
    ensemble = DynamicsEnsemble(SPEC, CONFIG, generator(0))
    rows = random_rows(SPEC, 3, generator(0))
    act = rows.act.clone().requires_grad_()
    ensemble.known(rows.obs, rows.view, act)[:, 2].sum().backward()
    assert act.grad is not None
    assert torch.equal(act.grad, torch.tensor([[0.5, -2.0]]).expand(3, -1))


def test_it_survives_plain_data() -> None:
    assert GameSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC


@pytest.mark.parametrize(
    ("known", "message"),
    [((GOAL, GOAL), "name one twice"), ((KnownColumn(column=4),), r"columns \[4\] outside 0..3 of the joint obs"),
     ((KnownColumn(column=0, act=((2, 1.0),)),), r"columns \[2\] outside 0..1 of the joint act")],
)  # fmt: skip
def test_rules_that_cannot_be_are_refused(known: tuple[KnownColumn, ...], message: str) -> None:
    with pytest.raises(GameError, match=message):
        replace(SPEC, known=known)


def test_a_symmetry_must_leave_the_known_among_themselves() -> None:
    swap = Symmetry(obs=(1, 0, 2, 3), act=(0, 1), agents=(0,))
    with pytest.raises(GameError, match=r"takes columns \[0, 1\] between those that follow a known rule"):
        replace(SPEC, known=(GOAL,), symmetries=(swap,))
