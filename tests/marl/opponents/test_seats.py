"""How an agent sees the joint action, against slices of the spec."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from presage.common.game import GameError, View
from presage.common.networks import StackedMLP
from presage.marl.opponents.seats import check_rows, judged, seats_of
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.sample_games import boxes, random_rows


def test_the_rest_is_what_all_others_do_in_order() -> None:
    spec = boxes()
    seats = seats_of(spec, "it")
    assert [seat.agents for seat in seats] == [[0, 2], [1]]
    assert [(seat.own_width, seat.rest_width) for seat in seats] == [(1, 3), (2, 2)]
    rows = random_rows(spec, 7, seed=0)
    for seat in seats:
        own, others = seat.acts(rows.view)
        for place, agent in enumerate(seat.agents):
            left = [j for j in range(spec.n) if j != agent]
            expected = torch.cat([rows.act[:, spec.act[j]] for j in left], 1)
            assert torch.equal(seat.rest(rows.act)[place], expected)
            flags = torch.cat([rows.acting[:, [j]].expand(-1, spec.agents[j].width) for j in left], 1)
            assert torch.equal(others[place], flags.float())
            assert torch.equal(own[place], rows.acting[:, [agent]].float())


def test_alternatives_are_judged_as_if_one_by_one() -> None:
    critic = StackedMLP(2, 6 + 1 + 3, (5,), 1, generator(0))
    rng = generator(1)
    obs, own = torch.randn(4, 6, generator=rng), torch.randn(2, 4, 1, generator=rng)
    rest = torch.randn(2, 4, 9, 3, generator=rng)
    found = judged(critic, obs, own[:, :, None], rest)
    assert found.shape == (2, 4, 9)
    for k in range(9):
        torch.testing.assert_close(found[:, :, k], judged(critic, obs, own, rest[:, :, k]))
    plain = critic.member(1)(torch.cat([obs, own[1], rest[1, :, 2]], 1)).squeeze(1)
    torch.testing.assert_close(found[1, :, 2], plain)


def test_games_that_do_not_suit_are_refused() -> None:
    alone = replace(boxes(), agents=(box_agent("only", (0,), 1),))
    with pytest.raises(GameError, match="it models the other agents; 'boxes' has 1"):
        seats_of(alone, "it")
    mixed = replace(boxes(), agents=(box_agent("a", (0,), 1), discrete_agent("b", (1,), 3)))
    with pytest.raises(GameError, match="it takes box actions, but b of 'boxes' choose among discrete ones"):
        seats_of(mixed, "it")
    check_rows(random_rows(boxes(), 6, seed=0), "it")
    with pytest.raises(GameError, match="it learns from rows that serve all agents"):
        check_rows(random_rows(boxes(), 6, seed=0, egos="own"), "it")


def test_everybody_acts_where_turns_do_not_vary() -> None:
    spec = boxes(flags=False)
    for seat in seats_of(spec, "it"):
        own, others = seat.acts(View.of(spec, torch.zeros(3, spec.obs_dim)))
        assert bool((own == 1).all() and (others == 1).all())
