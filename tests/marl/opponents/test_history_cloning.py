"""Models of opponents with a memory: what is remembered, and that it is learned."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import GameError, GameSpec, View
from presage.marl.opponents.assessment import assess
from presage.marl.opponents.history_cloning import HistoryCloning, HistoryCloningConfig
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.record import Record
from tests.common.toy import discrete_agent, generator
from tests.marl.sample_games import motley, random_rows

PAIR = GameSpec(name="pair", obs_dim=2, agents=(discrete_agent("me", (0,), 2), discrete_agent("other", (1,), 2)))


def model(spec: GameSpec = PAIR, seed: int = 0, **numbers: Any) -> HistoryCloning:
    small: dict[str, Any] = {"length": 4, "memory": 8, "hidden": (8,), **numbers}
    return HistoryCloning(spec, HistoryCloningConfig(**small), generator(seed))


def echo(episodes: int, length: int, seed: int) -> Record:
    """The other repeats what I did the step before, and begins with anything; nothing of this is seen."""
    rng = generator(seed)
    mine = torch.randint(2, (episodes, length), generator=rng)
    other = torch.cat([torch.randint(2, (episodes, 1), generator=rng), mine[:, :-1]], 1)
    act = torch.cat([torch.eye(2)[mine.flatten()], torch.eye(2)[other.flatten()]], 1)
    record = Record(PAIR)
    record.extend_moments(Moments(view=View.of(PAIR, torch.ones(len(act), 2)), act=act), [length] * episodes)
    return record


def test_an_opponent_that_echoes_is_learned_from_what_was_done() -> None:
    models = model(learning_rate=0.01, updates=400, memory=16)
    found = models.fit(echo(200, 6, 0), generator(1))
    assert found["other"] == pytest.approx(math.log(2) / 6, abs=0.03)  # its first action alone is a coin
    judged = assess(models, echo(100, 6, 5))
    steps, nll = judged.by_step["me", "other"]
    assert steps == list(range(6))
    assert nll[0] == pytest.approx(math.log(2), abs=0.1)
    assert max(nll[1:]) < 0.05


def test_a_kind_of_opponent_is_found_out_as_an_episode_goes_on() -> None:
    rng, episodes, length = generator(0), 400, 8
    kind = torch.randint(2, (episodes, 1), generator=rng).expand(-1, length)
    other = torch.where(torch.rand(episodes, length, generator=rng) < 0.9, kind, 1 - kind)
    act = torch.cat([torch.eye(2)[torch.zeros_like(other).flatten()], torch.eye(2)[other.flatten()]], 1)
    record = Record(PAIR)
    record.extend_moments(Moments(view=View.of(PAIR, torch.ones(len(act), 2)), act=act), [length] * episodes)
    models = model(length=8, learning_rate=0.01, updates=500, memory=16)
    first, second = record.split(0.25, rng)
    models.fit(record, generator(1), index=first, held=second)
    nll = assess(models, record, second).by_step["me", "other"][1]
    assert nll[0] == pytest.approx(math.log(2), abs=0.08)
    floor = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert sum(nll[4:]) / 4 < floor + 0.1


def turncoats(swaps: Tensor, seed: int) -> tuple[Record, Tensor]:
    """The other does what a coin shows, or the opposite, and changes to the other way where `swaps (E, T)` say so.

    Returns:
        the record, and what the other did, `(E T,)`.
    """
    rng = generator(seed)
    shown = torch.randint(2, swaps.shape, generator=rng)
    way = torch.randint(2, (len(swaps), 1), generator=rng) + swaps.cumsum(1)
    did = ((shown + way) % 2).flatten()
    act = torch.cat([torch.eye(2)[torch.zeros_like(did)], torch.eye(2)[did]], 1)
    view = View.of(PAIR, torch.stack([torch.ones(len(did)), shown.flatten().float()], 1))
    record = Record(PAIR)
    record.extend_moments(Moments(view=view, act=act), [swaps.shape[1]] * len(swaps))
    return record, did


@pytest.mark.parametrize("seed", range(2))
def test_after_a_switch_it_is_right_within_three_steps(seed: int) -> None:
    length, switch = 12, 5
    swaps = torch.rand(500, length, generator=generator(seed)) < 0.05
    models = model(
        seed=seed, sees="state", length=length, learning_rate=0.01, updates=300, memory=16, batch_size=64, patience=20
    )
    models.fit(turncoats(swaps, seed + 10)[0], generator(seed + 20))
    record, did = turncoats((torch.arange(length) == switch).expand(100, -1), seed + 30)
    chances = models.expected(windows(record, length)).probabilities("other")[0].detach()
    right = chances[torch.arange(len(did)), did].view(100, length)
    assert float(right[:, switch].mean()) < 0.1  # which could not be foreseen
    assert float(right[:, switch + 3 :].mean(0).min()) > 0.9
    assert float(right[:, switch + 3 :].min()) > 0.5


def windows(record: Record, length: int) -> Any:
    return record.window(torch.arange(len(record)), length)


@pytest.mark.parametrize("members", [1, 3])
def test_step_by_step_it_expects_what_it_expects_of_the_whole_history(members: int) -> None:
    spec = motley(flags=False)
    record = Record(spec)
    rows = random_rows(spec, 12, seed=0)
    record.extend_moments(Moments.of(rows), [5, 7])
    models = model(spec, sees="state", members=members)
    for start, size in ((0, 5), (5, 7)):
        carry = models.init(first_window(spec, record.moments(torch.tensor([start])).view))
        for t in range(min(size, 4)):
            moment = record.moments(torch.tensor([start + t]))
            whole = models.expected(record.window(torch.tensor([start + t]), 4))
            carry, act = models.step(carry, moment.view, None)
            torch.testing.assert_close(act, whole.mode())
            carry = models.told(carry, moment.act)
        window = record.window(torch.tensor([start + size - 1]), 4)
        resumed = models.init(window)
        torch.testing.assert_close(models.step(resumed, window.now, None)[1], models.expected(window).mode())


def test_histories_before_the_start_of_an_episode_are_not_read() -> None:
    record = echo(4, 3, 0)
    models = model()
    short, long = (models.expected(windows(record, length)) for length in (3, 9))
    act = record.moments().act
    torch.testing.assert_close(short.log_prob(act), long.log_prob(act))


def test_it_reads_what_it_may_and_not_what_is_being_done() -> None:
    spec = motley(flags=False)
    record = Record(spec)
    record.extend_moments(Moments.of(random_rows(spec, 6, seed=1)), [6])
    models = HistoryCloning(spec, HistoryCloningConfig(length=4, memory=8, sees="own"), generator(0), ego="guard")
    window = record.window(torch.tensor([5]), 4)
    mine = list(spec.agents[spec.index("guard")].obs)
    for column in range(spec.obs_dim):
        other = window.obs.clone()
        other[:, :, column] = torch.nan
        seen = models.expected(type(window)(obs=other, act=window.act, valid=window.valid, now=window.now))
        assert bool(seen.probabilities("scout")[0].isnan().any()) == (column in mine)
    moved = window.act.clone()
    moved[:, -1] = 1.0  # what is done at the last moment is not known yet
    same = models.expected(type(window)(obs=window.obs, act=moved, valid=window.valid, now=window.now))
    assert torch.equal(same.probabilities("scout")[0], models.expected(window).probabilities("scout")[0])


def test_the_same_seed_fits_alike_and_what_is_saved_goes_on() -> None:
    record = echo(40, 5, 0)
    one, two = model(updates=60), model(updates=60)
    for models in (one, two):
        models.fit(record, generator(1))
    three = model(seed=9, updates=60)
    three.restore(one.state())
    for models in (one, three):
        models.fit(record, generator(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), three.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_every_member_keeps_its_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    models = model(members=2, updates=20, evaluate_every=1, patience=20, learning_rate=0.1)
    record = echo(30, 5, 0)
    first, second = record.split(0.3, generator(0))
    looks: list[Tensor] = []
    look = models._likelihoods

    def noted(*arguments: Any) -> Tensor:
        looks.append(look(*arguments))
        return looks[-1]

    monkeypatch.setattr(models, "_likelihoods", noted)
    models.fit(record, generator(1), index=first, held=second)
    torch.testing.assert_close(look(record, second), torch.stack(looks).amin(0))


def test_what_does_not_suit_is_refused() -> None:
    with pytest.raises(GameError, match="the models are of 'pair' as it was, the record of 'motley'"):
        model().fit(Record(motley()), generator(0))
    record = echo(3, 3, 0)
    with pytest.raises(GameError, match="0 moments to fit to and 3 held out"):
        model().fit(record, generator(0), index=torch.tensor([], dtype=torch.int64), held=torch.arange(3))
    for change, message in (({"sees": "x"}, "sees='x' must be one of"), ({"length": 0}, "length=0 must be >= 1"),
                            ({"gradient_clip": 0.0}, "gradient_clip=0.0 must be > 0")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            HistoryCloningConfig(**change)


def test_moments_that_are_left_out_play_no_part_in_when_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    record, models, seen = echo(30, 5, 0), model(updates=4, evaluate_every=2), list[Tensor]()
    index = (record.episode < 10).nonzero().squeeze(1)
    look = models._likelihoods

    def noted(record: Record, held: Tensor) -> Tensor:
        seen.append(held)
        return look(record, held)

    monkeypatch.setattr(models, "_likelihoods", noted)
    models.fit(record, generator(1), index=index)
    assert len(seen) > 1
    assert bool(torch.isin(torch.cat(seen), index).all())
