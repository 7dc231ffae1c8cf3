"""Errors inside imagined branches: what each of the four ways of imagining gets wrong, and how far views are apart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import Carry, GameError, Kernel, Outcome, View, Window
from presage.envs.particle import ParticleGame, Spread, TrueKernel
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from presage.marl.opponents.imagined import CELLS, Imagined, energy_distance, errors_in_branches
from presage.marl.opponents.policies import Stated, linear, uniform
from tests.common.toy import generator

GAME = ParticleGame(Spread(), 256)
SPEC = GAME.spec
OTHERS = linear(SPEC, generator(0), scale=3.0)
WORLD = TrueKernel(Spread())


class Still:
    """A world in which nothing that is done has an effect."""

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        return WORLD.init(window, ego, rng)

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        nothing = torch.zeros_like(act)
        nothing[:, :: act.shape[1] // SPEC.n] = 1.0
        return WORLD.step(carry, view, nothing, rng)


def imagined(models: Any = OTHERS, learned: Kernel = WORLD, horizon: int = 8, **changed: Any) -> Imagined:
    starts = first_window(SPEC, GAME.reset(1))
    numbers: dict[str, Any] = {"ego": "agent_1", "policy": uniform(SPEC), "true": WORLD, "rng": generator(2)}
    return errors_in_branches(models, OTHERS, starts, horizon, learned=learned, **(numbers | changed))


def test_models_that_are_right_in_the_true_game_are_off_by_chance_alone() -> None:
    found = imagined()
    assert torch.equal(found.divergence[:, [0, 2]], torch.zeros(8, 2, dtype=torch.float64))
    assert bool(found.divergence[:, 1].isnan().all())
    assert set(found.distances) == set(CELLS)
    for values in (*found.distances.values(), found.noise):
        assert float(values.abs().max()) < 0.02  # the smallest that another cause gives below is 0.07


def test_models_are_held_against_the_truth_at_the_views_that_branches_reach() -> None:
    found = imagined(uniform(SPEC))
    view = GAME.reset(1)
    floor = OTHERS.predicted(view).entropy().mean(0)
    expected = math.log(5) - floor[[0, 2]].double()
    torch.testing.assert_close(found.divergence[0, [0, 2]], expected, rtol=1e-5, atol=0)
    assert float(found.variation[:, [0, 2]].min()) > 0.1


def test_what_is_lost_is_told_apart() -> None:
    by_models, by_dynamics = imagined(uniform(SPEC)), imagined(learned=Still())
    both = imagined(uniform(SPEC), Still())
    for found, wrong in ((by_models, {0, 2}), (by_dynamics, {1, 2}), (both, {0, 1, 2})):
        for k, values in enumerate(found.distances.values()):
            if k in wrong:
                assert float(values[-1]) > 0.07
                assert float(values[-1]) > float(values[0])
            else:
                assert float(values.abs().max()) < 0.02


def test_a_bank_of_one_ego_is_asked_and_the_same_seed_says_the_same() -> None:
    bank = BehaviourCloning(SPEC, BehaviourCloningConfig(hidden=(8,)), generator(4), egos=(1,))
    one, two = imagined(bank, horizon=3), imagined(bank, horizon=3)
    assert bool((one.divergence[:, [0, 2]] > 0).all())
    assert torch.equal(one.divergence[:, 0], two.divergence[:, 0])
    assert torch.equal(one.noise, two.noise)
    figure = one.plot(SPEC.names)
    assert len(figure.axes[0].lines) == 2
    assert len(figure.axes[1].lines) == 4


def test_what_cannot_be_imagined_is_refused() -> None:
    bank = BehaviourCloning(SPEC, BehaviourCloningConfig(), generator(4))
    other: Stated = uniform(ParticleGame(Spread(agents=2), 2).spec)
    with pytest.raises(GameError, match="errors in branches are of one ego's models"):
        imagined(bank)
    with pytest.raises(GameError, match="the models are of"):
        imagined(other)
    with pytest.raises(GameError, match="256 starts and horizon=0: at least two branches"):
        imagined(horizon=0)


def test_energy_distance_of_normals_is_the_closed_form() -> None:
    def mean_distance(shift: float) -> float:  # of two normals of deviation 1: E|N(shift, 2)|
        deviation = math.sqrt(2)
        spread = deviation * math.sqrt(2 / math.pi) * math.exp(-(shift**2) / 4)
        return spread + shift * math.erf(shift / 2)

    count = 4_000
    x = torch.special.ndtri((torch.arange(count).double() + 0.5) / count)[:, None]  # as even as samples can be
    for shift in (0.5, 2.0):
        expected = 2 * mean_distance(shift) - 2 * mean_distance(0.0)
        assert float(energy_distance(x, x + shift)) == pytest.approx(expected, abs=2e-3)


def test_energy_distance_has_no_bias_also_in_pairs_that_begin_alike() -> None:
    rng, alone, pairs = generator(5), [], []
    for _ in range(400):
        begin, x, y = (torch.randn(8, 2, generator=rng) for _ in range(3))
        alone.append(float(energy_distance(x, y)))
        pairs.append(float(energy_distance(begin + 0.1 * x, begin + 0.1 * y, paired=True)))
    for values in map(torch.tensor, (alone, pairs)):
        assert abs(float(values.mean())) < 3 * float(values.std()) / 20
    with pytest.raises(GameError, match="needs two samples of each, equally many in pairs, got 2 and 3"):
        energy_distance(torch.zeros(2, 1), torch.zeros(3, 1), paired=True)
