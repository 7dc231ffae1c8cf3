"""LIAM's encoder and decoder fitted to a record: what it finds out, what it may look at, and what is saved of it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from presage.common.evaluate import RandomActor
from presage.common.game import GameError, GameSpec, View
from presage.common.learner_state import learner_state
from presage.envs.batched import BatchedGame
from presage.marl.opponents.assessment import assess
from presage.marl.opponents.liam_model import LIAMModel, LIAMModelConfig
from presage.marl.opponents.liam_networks import EncodingConfig, Units
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.policies import linear
from presage.marl.opponents.record import Record
from tests.common.toy import LinearGame, box_agent, discrete_agent, generator
from tests.marl.opponents.matching import LENGTH, POOL, SHOWN, SPEC, Matching

ENCODING = EncodingConfig(embedding=4, memory=16, hidden=(16,), learning_rate=1e-2)
CONFIG = LIAMModelConfig(encoding=ENCODING, length=LENGTH, updates=200, evaluate_every=50)
TINY = replace(CONFIG, updates=4, evaluate_every=2, batch_size=8, length=3)


@cache
def played() -> Record:
    """Episodes of both partners, with an ego that plays at random."""
    return POOL.record(BatchedGame(Matching(), 16), "ego", RandomActor(SPEC), 64, 0, generator(0))


def pair(*, box: bool = False, flags: bool = False) -> tuple[GameSpec, Record]:
    """Random moments of an ego and two unlike others."""
    other = box_agent("b", (1, 2), 2) if box else discrete_agent("b", (1, 2), 3)
    agents = (discrete_agent("a", (0, 2), 2), other, discrete_agent("c", (0, 1, 2), 2))
    spec = GameSpec(name="pair", agents=agents, obs_dim=3, acting_varies=flags, legal_varies=flags)
    rng, record = generator(4), Record(spec)
    view = View.of(spec, 5.0 + 2.0 * torch.randn(60, 3, generator=rng))
    if flags:
        legal = torch.rand(60, spec.act_dim, generator=rng) < 0.5
        legal[:, [0, 2, 5]] = True
        view = View.of(spec, view.obs, acting=torch.rand(60, 3, generator=rng) < 0.6, legal=legal)
    act = spec.random_action(view.acting, view.legal, rng)
    record.extend_moments(Moments(view=view, act=act), [5, 1, 9, 5] * 3)
    return spec, record


def model(spec: GameSpec, config: LIAMModelConfig = TINY, ego: int | str = 0, seed: int = 0) -> LIAMModel:
    return LIAMModel(spec, config, generator(seed), ego=ego)


@cache
def fitted() -> tuple[LIAMModel, Tensor, dict[str, float]]:
    found, (train, held) = model(SPEC, CONFIG), played().split(0.25, generator(1))
    return found, held, found.fit(played(), generator(2), index=train, held=held)


def test_it_finds_the_partner_out_once_it_was_shown() -> None:
    found, held, told = fitted()
    judged = assess(found, played(), held)
    (quality,) = judged.qualities
    assert (quality.ego, quality.agent) == ("ego", "partner")
    steps, nll = judged.by_step["ego", "partner"]
    assert list(steps) == list(range(LENGTH))
    assert max(abs(value - math.log(2)) for value in nll[:SHOWN]) < 0.15, "of both kinds, nobody knows"
    assert max(nll[SHOWN:]) < 0.02
    assert told["partner"] == pytest.approx(quality.nll, abs=1e-4)


def test_it_tells_what_the_others_observe_in_their_own_units() -> None:
    found, held, told = fitted()
    window, moments = played().window(held, LENGTH), played().moments(held)
    with torch.no_grad():
        seen = found.observations(window)["partner"]
    assert (seen - moments.view.obs[:, 3:]).abs().max() < 0.15
    assert told["observations"] < 0.05


@pytest.mark.parametrize("changes", [False, True])
def test_embeddings_are_of_whole_histories_and_of_nothing_before_them(changes: bool) -> None:
    spec, record = pair()
    found = model(spec, replace(TINY, changes=changes))
    index = torch.arange(len(record))
    with torch.no_grad():
        short, long = (found.embed(record.window(index, length)) for length in (3, 12))
        early = record.step < 3
        torch.testing.assert_close(short[early], long[early])
        window = record.window(index, 4)
        strange = replace(
            window, obs=window.obs.masked_fill(~window.valid[..., None], 77.0),
            act=window.act.masked_fill(~window.valid[..., None], 1.0),
        )  # fmt: skip
        assert torch.equal(found.embed(window), found.embed(strange))


def test_it_reads_how_much_what_its_ego_sees_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, record = pair()
    found = model(spec, replace(TINY, changes=True))
    index = (record.step < 4).nonzero().squeeze(1)
    found.fit(record, generator(0), index=index, held=torch.arange(20, 60))
    obs, step = record.moments().view.obs[:, list(spec.obs[0])], record.step
    later = index[step[index] > 0]
    changed = obs[later] - obs[later - 1]
    read: list[Tensor] = []
    along = found.encoder.along

    def watched(x: Tensor, units: Units, first: Tensor) -> Units:
        read.append(x)
        return along(x, units, first)

    monkeypatch.setattr(found.encoder, "along", watched)
    with torch.no_grad():
        found.embed(record.window(torch.arange(60), 2))
    before, now = read[0][..., -2:]
    assert not bool(before.any()), "of the moment before the first of a window nothing is known"
    assert not bool(now[step == 0].any()), "nor of that before an episode's"
    expected = (changed - changed.mean(0)) / changed.std(0, unbiased=False)
    torch.testing.assert_close(now[later], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("ego", [0, 1, 2])
def test_it_looks_at_what_its_ego_sees_and_has_done(ego: int, changes: bool) -> None:
    spec, record = pair()
    found = model(spec, replace(TINY, changes=changes), ego=ego)
    found.fit(record, generator(0))
    window = record.window(torch.tensor([12]), 3)
    own, done = list(spec.obs[ego]), spec.act[ego]
    others = [k for k in range(3) if k not in own]
    obs, act = window.obs.clone(), window.act.clone()
    obs[..., others] = math.nan
    act[..., [k for k in range(spec.act_dim) if k not in range(spec.act_dim)[done]]] = math.nan
    blind = replace(window, obs=obs, act=act)
    with torch.no_grad():
        assert torch.equal(found.embed(blind), found.embed(window))
        act[:, :-1, done] = 1.0 - act[:, :-1, done]
        assert not torch.equal(found.embed(replace(blind, act=act)), found.embed(window)), "it reads its own past"
        now = window.act.clone()
        now[:, -1] = 7.0
        assert torch.equal(found.embed(replace(window, act=now)), found.embed(window)), "and nothing of the present"


@pytest.mark.parametrize("box", [False, True])
def test_what_is_expected_is_what_the_fit_judges(box: bool) -> None:
    """The held-out NLL that a fit returns, against the answers of `expected` moment by moment."""
    spec, record = pair(box=box, flags=not box)
    found, held = model(spec, ego=0), torch.arange(20, 60)
    told = found.fit(record, generator(0), index=torch.arange(20), held=held)
    with torch.no_grad():
        moments = record.moments(held)
        nll = -found.expected(record.window(held, TINY.length)).log_prob(moments.act)
    for i, name in ((1, "b"), (2, "c")):
        acts = moments.view.acting[:, i]
        assert told[name] == pytest.approx(float(nll[acts, i].mean()), abs=1e-4)


def test_of_itself_nothing_is_expected() -> None:
    spec, record = pair()
    with torch.no_grad():
        even = model(spec).expected(record.window(torch.arange(4), 3)).probabilities("a")[0]
    assert torch.equal(even, torch.full((4, 2), 0.5))


def test_those_who_do_not_act_and_what_was_before_an_episode_count_nothing() -> None:
    spec, record = pair(flags=True)
    index = torch.arange(60)
    _, _, counts = model(spec)._errors(record, index)
    acting = record.moments().view.acting[:, 1:].float()
    for back in range(TINY.length):
        known = record.step >= back
        own = counts[TINY.length - 1 - back]
        assert torch.equal(own[known], acting[index[known] - back])
        assert not bool(own[~known].any())


def test_box_actions_and_two_others_are_learned() -> None:
    """Policies that are linear in what everybody sees: the likelihood comes near theirs."""
    agents = (box_agent("a", (0, 1), 1), discrete_agent("b", (0, 1), 3), box_agent("c", (0, 1), 1))
    spec = GameSpec(name="alike", agents=agents, obs_dim=2)
    actor = linear(spec, generator(1), scale=2.0)
    record = Record(spec)
    record.play(LinearGame(spec, 8, limit=5), actor, 160, 0, rng=generator(2))
    config = replace(CONFIG, length=2, updates=500, encoding=replace(ENCODING, embedding=8, hidden=(32,)))
    found = model(spec, config, ego="a")
    train, held = record.split(0.25, generator(3))
    told = found.fit(record, generator(4), index=train, held=held)
    floor = -actor.predicted(record.moments(held).view).log_prob(record.moments(held).act).mean(0)
    assert told["b"] < float(floor[1]) + 0.1
    assert told["c"] < float(floor[2]) + 0.1
    assert told["observations"] < 0.1


@pytest.mark.parametrize("changes", [False, True])
def test_same_seed_same_numbers_and_what_is_saved_goes_on_as_it_would(changes: bool) -> None:
    spec, record = pair()
    whole, again, other = (model(spec, replace(TINY, changes=changes), seed=seed) for seed in (0, 0, 1))
    for found in (whole, again, other):
        found.fit(record, generator(5))
    tensors = [learner_state(found)["tensors"] for found in (whole, again, other)]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert not all(torch.equal(tensors[0][name], tensors[2][name]) for name in tensors[0])
    other.restore(again.state())
    whole.fit(record, generator(6))
    other.fit(record, generator(6))
    tensors = [learner_state(found)["tensors"] for found in (whole, other)]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_a_fit_ends_with_the_best_weights_it_had() -> None:
    spec, record = pair()
    found = model(spec, replace(TINY, updates=200, evaluate_every=10, patience=2))
    held = torch.arange(40, 60)
    told = found.fit(record, generator(0), index=torch.arange(40), held=held)
    now = found._judged(record, held)
    assert {name: told[name] for name in now} == pytest.approx(now)
    assert told["updates"] < 200, "random choices are soon learned by heart"


@pytest.mark.parametrize("name", ["length", "batch_size", "updates", "evaluate_every", "patience"])
def test_contradictions_are_named(name: str) -> None:
    wrong: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name}=0 must be >= 1"):
        LIAMModelConfig(**wrong)


def test_what_does_not_suit_is_refused() -> None:
    spec, record = pair()
    with pytest.raises(GameError, match="'alone' has one agent; a model of the others needs a game of two or more"):
        model(GameSpec(name="alone", agents=(discrete_agent("a", (0,), 2),), obs_dim=1))
    with pytest.raises(GameError, match="the model is of 'matching' as it was, the record of 'pair'"):
        model(SPEC).fit(record, generator(0))
    with pytest.raises(GameError, match="0 moments to fit to and 3 held out; both need some"):
        model(spec).fit(record, generator(0), index=torch.arange(0), held=torch.arange(3))
