"""Measures of predictions against numbers worked out by hand, and one call that puts them together."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from presage.common.game import GameError, GameSpec, View
from presage.marl.opponents import measures
from presage.marl.opponents.assessment import FILE, PICTURE, assess
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.predicted import Predicted
from presage.marl.opponents.record import Record
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.opponents.test_predicted import DIAL, dice, mixture

GAME = GameSpec(
    name="three", obs_dim=3,
    agents=(discrete_agent("me", (0,), 2), discrete_agent("chooser", (1,), 3), box_agent("turner", (2,), 1)),
)  # fmt: skip


def truth(view: View) -> Predicted:
    """What the others play: logits and means that are linear in what they see."""
    seen = view.obs
    logits = torch.stack([1.5 * seen[:, 1], torch.zeros(len(seen)), -0.5 * seen[:, 1]], 1)
    numbers = torch.stack([0.4 * seen[:, 2], torch.full((len(seen),), math.log(0.3))], 1)
    return Predicted.of_parameters(GAME, [torch.zeros(len(seen), 2), logits, numbers])


def recorded(episodes: int, seed: int, length: int = 10) -> Record:
    rng = generator(seed)
    view = View.of(GAME, torch.randn(episodes * length, 3, generator=rng))
    record = Record(GAME)
    record.extend_moments(Moments(view=view, act=truth(view).sample(rng)), [length] * episodes)
    return record


def test_skill_is_between_the_frequencies_and_the_truth() -> None:
    assert measures.skill(0.9, 0.8, 1.2) == pytest.approx(0.75)
    with pytest.raises(ValueError, match=r"context_free=0\.5 must lie above floor=0\.8"):
        measures.skill(0.9, 0.8, 0.5)
    assert measures.gain(3.0, 1.0, 5.0) == 0.5
    with pytest.raises(ValueError, match="a model has nothing to bring"):
        measures.gain(3.0, 1.0, 1.0)


def test_accuracy_confidence_and_brier_of_dice() -> None:
    predicted, act = dice(0.7, 0.2, 0.1), torch.tensor([[1.0, 0.0, 0.0]])
    assert float(measures.likeliest_is_right(predicted, act)) == 1.0
    assert float(measures.likeliest_is_right(predicted, act.roll(1, 1))) == 0.0
    assert float(measures.confidence(predicted)) == pytest.approx(0.7)
    assert float(measures.brier(predicted, "a", act)) == pytest.approx(0.3**2 + 0.2**2 + 0.1**2)


def test_the_calibration_error_weighs_bins_by_their_predictions() -> None:
    confidences = torch.tensor([0.9] * 10 + [0.6] * 10)
    right = torch.tensor([1.0] * 8 + [0.0] * 2 + [1.0] * 6 + [0.0] * 4)
    found = measures.calibration(confidences, right)
    assert found.error == pytest.approx(0.05)
    assert found.count.tolist() == [10, 10]
    with pytest.raises(ValueError, match=r"confidences \(20,\) and right \(3,\)"):
        measures.calibration(confidences, right[:3])


def test_bins_have_equal_mass_where_confidences_differ() -> None:
    p = torch.rand(3_000, generator=generator(0), dtype=torch.float64)
    found = measures.calibration(p, (torch.rand(3_000, generator=generator(1)) < p).double())
    assert found.count.tolist() == [200] * 15
    assert found.error < 0.04


def test_places_of_numbers_are_uniform_where_the_prediction_is_right() -> None:
    one = mixture(DIAL, 1, 3, seed=0)
    many = one[torch.zeros(4_000, dtype=torch.int64)]
    places = measures.place(many, "a", many.sample(generator(1)))
    assert measures.coverage(places) == pytest.approx({0.5: 0.5, 0.8: 0.8, 0.95: 0.95}, abs=0.03)
    assert float(places.mean()) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(GameError, match="acts one-hot, which has no order"):
        measures.place(dice(0.7, 0.2, 0.1), "a", torch.eye(3)[:1])


def loss(good_from: int, steps: int = 200) -> Tensor:
    return torch.where(torch.arange(steps) < good_from, 2.0, 0.0)


def test_a_model_has_adapted_when_its_average_stays_close_to_the_oracles() -> None:
    zero = torch.zeros(200)
    assert measures.steps_to_adapt(loss(0), zero) == 0
    found = measures.steps_to_adapt(loss(30), zero)
    assert found is not None
    assert 30 < found < 30 + 20 * math.log(2.0 / 0.1) + 2  # the average forgets with a rate of one in twenty
    assert measures.steps_to_adapt(loss(180), zero) is None
    again = loss(30)
    again[120:125] = 20.0
    assert measures.steps_to_adapt(again, zero, hold=100) is None
    assert measures.regret(loss(30), zero) == 60.0


def test_one_call_tells_all_there_is_to_know(tmp_path: Path) -> None:
    record, held = recorded(300, 0), recorded(300, 1)
    numbers = BehaviourCloningConfig(hidden=(16,), passes=12, learning_rate=0.01, entropy_bonus=0.0)
    model = BehaviourCloning(GAME, numbers, generator(2), egos=(0,))
    model.fit(record.moments(), generator(3))
    found = assess(model, held, truth=truth)
    chooser, turner = found.qualities
    assert (chooser.ego, chooser.agent, turner.agent) == ("me", "chooser", "turner")
    for quality in found.qualities:
        assert quality.moments == 3_000
        assert quality.divergence is not None
        assert quality.floor is not None
        assert 0 <= quality.divergence < 0.02
        assert quality.nll - quality.floor == pytest.approx(quality.divergence, abs=0.06)
        assert quality.calibration_error < 0.05
        assert quality.disagreement == 0.0
    assert chooser.accuracy == pytest.approx(chooser.best_accuracy, abs=0.03)
    assert turner.accuracy is None
    assert found.worst_divergence == max(chooser.divergence or 0.0, turner.divergence or 0.0)
    assert str(found).splitlines()[1].split()[:2] == ["me", "chooser"]
    found.save(tmp_path)
    assert json.loads((tmp_path / FILE).read_text())[0]["nll"] == chooser.nll
    assert (tmp_path / PICTURE).stat().st_size > 5_000
    assert found.by_step["me", "turner"][0] == list(range(10))


def test_a_model_of_nothing_is_found_out() -> None:
    held = recorded(100, 1)
    model = BehaviourCloning(GAME, BehaviourCloningConfig(hidden=(16,)), generator(0), egos=(0, 1))
    found = assess(model, held, truth=truth)
    assert [(quality.ego, quality.agent) for quality in found.qualities] == [
        ("me", "chooser"), ("me", "turner"), ("chooser", "me"), ("chooser", "turner"),
    ]  # fmt: skip
    assert found.worst_divergence > 0.2
    unknown = assess(model, held, torch.arange(50))
    assert unknown.qualities[0].moments == 50
    assert unknown.qualities[0].divergence is None
    with pytest.raises(GameError, match="assess with truth="):
        _ = unknown.worst_divergence
    with pytest.raises(GameError, match="the model is of 'three' as it was, the record of 'dial'"):
        assess(model, Record(DIAL))


def test_a_model_that_has_diverged_is_not_judged() -> None:
    model = BehaviourCloning(GAME, BehaviourCloningConfig(hidden=(16,)), generator(0), egos=(0,))
    with torch.no_grad():
        for parameter in model.networks.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(GameError, match="nll of what 'me' expects of 'chooser' is nan: the model has diverged"):
        assess(model, recorded(10, 1), truth=truth)
