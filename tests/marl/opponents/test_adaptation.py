"""Changes are noticed soon and seldom wrongly; who was met before is known again."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import GameError, GameSpec, View, Window
from presage.marl.opponents.adaptation import PageTest, PageTestConfig, Recall
from presage.marl.opponents.assessment import assess
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.predicted import Predicted
from presage.marl.opponents.record import Record
from tests.common.toy import discrete_agent, generator

GAME = GameSpec(name="coin", obs_dim=2, agents=(discrete_agent("me", (0,), 2), discrete_agent("other", (1,), 2)))


class Steady:
    """Plays, or expects, the same whatever is seen."""

    spec: GameSpec = GAME
    ego: tuple[int, ...] = (0,)
    history = 1

    def __init__(self, chance: float) -> None:
        self.logits = torch.tensor([math.log(chance), math.log(1 - chance)])

    def expected(self, window: Window) -> Predicted:
        size = len(window)
        return Predicted.of_parameters(GAME, [torch.zeros(size, 2), self.logits.expand(size, 2)])


def windows(rows: int) -> Window:
    return first_window(GAME, View.of(GAME, torch.zeros(rows, 2)))


def did(heads: Tensor) -> Tensor:
    """The joint action of rows in which the other showed heads, or not."""
    return torch.cat([torch.eye(2)[torch.zeros(len(heads), dtype=torch.int64)], torch.eye(2)[1 - heads.long()]], 1)


def test_a_posterior_over_two_is_bayes_rule() -> None:
    recall = Recall({"first": Steady(0.8), "second": Steady(0.3)}, rows=1, switching=0.0)
    for heads in (True, True, False):
        recall.observe(windows(1), did(torch.tensor([heads])))
    assert recall.chances[0].tolist() == pytest.approx([0.670157, 0.329843], abs=1e-5)
    told = recall.expected(windows(1)).probabilities("other")[0][0]
    assert float(told[0]) == pytest.approx(0.670157 * 0.8 + 0.329843 * 0.3, abs=1e-5)
    recall.begin(torch.tensor([True]))
    assert recall.chances[0].tolist() == pytest.approx([0.5, 0.5])


def test_chances_with_switches_are_those_of_the_hidden_chain() -> None:
    models, switching, shown = (0.8, 0.3, 0.5), 0.1, [True, False, False, True]
    recall = Recall({str(p): Steady(p) for p in models}, rows=1, switching=switching)
    wanted = [1 / 3] * 3
    for heads in shown:
        recall.observe(windows(1), did(torch.tensor([heads])))
        posterior = [w * (p if heads else 1 - p) for w, p in zip(wanted, models, strict=True)]
        wanted = [(1 - switching) * w / sum(posterior) + switching / 3 for w in posterior]
    assert recall.chances[0].tolist() == pytest.approx(wanted, abs=1e-5)


def test_who_was_met_before_is_known_again_within_a_few_moments() -> None:
    rows, rng = 200, generator(0)
    recall = Recall({"bold": Steady(0.95), "shy": Steady(0.05)}, rows=rows)
    for chance in (0.95, 0.05, 0.95):
        for _ in range(8):
            recall.observe(windows(rows), did(torch.rand(rows, generator=rng) < chance))
        right = recall.chances[:, 0 if chance > 0.5 else 1]
        assert float((right > 0.9).double().mean()) > 0.97
    recall.remember("fair", Steady(0.5))
    assert recall.names == ("bold", "shy", "fair")
    assert float(recall.chances.sum(1).sub(1).abs().max()) < 1e-5
    assert float(recall.chances[0, 2]) == pytest.approx(1 / 3)


def test_what_is_recalled_is_judged_as_any_model() -> None:
    record, rng = Record(GAME), generator(1)
    heads = torch.rand(2_000, generator=rng) < 0.8
    record.extend_moments(Moments(view=View.of(GAME, torch.zeros(2_000, 2)), act=did(heads)), [2_000])
    recall = Recall({"right": Steady(0.8), "wrong": Steady(0.2)}, rows=2_000, switching=0.0)
    recall.observe(windows(2_000), did(heads))
    assert assess(recall, record).qualities[0].nll < 0.7


@pytest.mark.parametrize("acting", [True, False])
def test_a_change_is_flagged_soon_and_seldom_without_one(acting: bool) -> None:
    rows, rng = 400, generator(0)
    test = PageTest(rows, 1, PageTestConfig())
    model = Steady(0.9)
    entropy = model.expected(windows(rows)).entropy()[:, 1:]
    flags = []
    for t in range(400):
        heads = torch.rand(rows, generator=rng) < (0.9 if t < 300 else 0.1)
        surprise = -model.expected(windows(rows)).log_prob(did(heads))[:, 1:]
        flags.append(test.observe(surprise, entropy, torch.full((rows, 1), acting)))
    told = torch.stack(flags)[:, :, 0]
    if not acting:
        assert not bool(told.any())
        return
    false_alarms = float(told[:300].sum()) / (300 * rows)
    assert false_alarms < 1 / 1_000
    first = told[300:].double().argmax(0).double()
    assert bool(told[300:].any(0).all())
    assert float(first.mean()) < 8.0


def test_the_time_of_a_change_is_estimated() -> None:
    test = PageTest(1, 1, PageTestConfig(drift=0.1, threshold=3.0))
    for surprise in (0.5, 0.2, 0.4):
        assert not bool(test.observe(torch.tensor([[surprise]]), torch.tensor([[0.5]])))
    assert int(test.since) == 0
    for _ in range(3):
        assert not bool(test.observe(torch.tensor([[1.5]]), torch.tensor([[0.5]])))
    assert bool(test.observe(torch.tensor([[1.5]]), torch.tensor([[0.5]])))
    assert int(test.since) == 4
    test.begin()
    assert int(test.since) == 0


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(GameError, match="there is nothing to recall"):
        Recall({}, rows=1)
    other = Steady(0.5)
    other.ego = (1,)
    with pytest.raises(GameError, match=r"one and the same ego; \['b'\] are not"):
        Recall({"a": Steady(0.5), "b": other}, rows=1)
    with pytest.raises(GameError, match="'b' is of another game or ego"):
        Recall({"a": Steady(0.5)}, rows=1).remember("b", other)
    with pytest.raises(ValueError, match=r"switching=1\.0 must lie in"):
        Recall({"a": Steady(0.5)}, rows=1, switching=1.0)
    with pytest.raises(ValueError, match=r"drift=0\.0 and threshold=8\.0 must be > 0"):
        PageTestConfig(drift=0.0)
