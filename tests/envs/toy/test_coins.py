"""The coin game against a plain loop of one game, what each agent is shown, and the best score against trying all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import GameError, View
from presage.envs.batched import BatchedGame
from presage.envs.lane import Declaration
from presage.envs.registry import make
from presage.envs.toy import Coins
from presage.envs.vector import VectorGame
from presage.envs.views import ParallelView, TurnView

Cell = tuple[int, int]
STEPS = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1), 4: (0, 0)}
UP, DOWN, LEFT, RIGHT, STAY = STEPS


@dataclass
class Plain:
    """One game, move by move, as the module's text has it."""

    height: int
    width: int
    colours: int
    limit: int
    coins: dict[Cell, int]
    places: list[Cell]
    goals: tuple[int, int]
    turn: int
    taken: list[int] = field(default_factory=list)
    """colours, in order"""
    acted: tuple[int, int] | None = None
    """who acted last, and what"""
    time: int = 0
    centred: bool = False

    def score(self) -> int:
        total = 0
        for colour in range(self.colours):
            count = sum(one == colour for one in self.taken)
            total += count**2 if colour in self.goals else -(count**2)
        return total

    def step(self, move: int) -> None:
        y, x = self.places[self.turn]
        dy, dx = STEPS[move]
        if 0 <= y + dy < self.height and 0 <= x + dx < self.width:
            y, x = y + dy, x + dx
        self.places[self.turn] = (y, x)
        if (y, x) in self.coins:
            self.taken.append(self.coins.pop((y, x)))
        self.acted, self.turn, self.time = (self.turn, move), 1 - self.turn, self.time + 1

    def shown(self, agent: int) -> list[float]:
        """What the agent observes."""
        cells = list(product(range(self.height), range(self.width)))
        found: list[bool | float] = []
        if self.centred:
            far = list(product(range(1 - self.height, self.height), range(1 - self.width, self.width)))
            for y, x in (self.places[agent], self.places[1 - agent]):
                found += [
                    self.coins.get((y + dy, x + dx)) == colour for colour in range(self.colours) for dy, dx in far
                ]
        else:
            found += [self.coins.get(cell) == colour for colour in range(self.colours) for cell in cells]
        for who in (agent, 1 - agent):
            found += [cell == self.places[who] for cell in cells]
        for who in (agent, 1 - agent):
            found += [self.acted == (who, move) for move in STEPS]
        found += [self.turn == agent, self.turn != agent, (self.limit - self.time) / self.limit]
        return [float(x) for x in found] + [float(self.goals[agent] == colour) for colour in range(self.colours)]

    def best(self, known: dict[Any, int] | None = None) -> int:
        """The best score, by trying everything that is left to do, but nothing twice from where one has been."""
        known = {} if known is None else known
        here = (tuple(self.places), frozenset(self.coins), self.time)
        if self.time == self.limit:
            return self.score()
        if here not in known:
            tried = []
            for move in STEPS:
                ahead = replace(self, coins=dict(self.coins), places=list(self.places), taken=list(self.taken))
                ahead.step(move)
                tried.append(ahead.best(known))
            known[here] = max(tried)
        return known[here]


def plain_of(rules: Coins, obs: Tensor) -> Plain:
    """The game whose first joint observation `obs (O,)` is."""
    cells = list(product(range(rules.height), range(rules.width)))
    where = rules._board(obs[None])[0]
    return Plain(
        rules.height, rules.width, rules.colours, rules.limit,
        coins={cells[cell]: colour for colour, cell in where.nonzero().tolist()},
        places=[cells[int(obs[list(place)].argmax())] for place in rules.places],
        goals=(int(obs[list(rules.goals[0])].argmax()), int(obs[list(rules.goals[1])].argmax())),
        turn=int(obs[list(rules.turns)].argmax()), centred=rules.centred,
    )  # fmt: skip


def joint(view: View, chosen: Tensor) -> Tensor:
    """Whoever's turn it is makes the move `chosen (C,)`."""
    moves = torch.nn.functional.one_hot(chosen, 5).float()
    return torch.cat([moves, moves], 1) * view.acting.repeat_interleave(5, 1)


def played(game: BatchedGame, seed: int, steps: int) -> Iterator[tuple[Tensor, Any, View]]:
    """Random moves, the rows they make, and the next view."""
    rng, view = torch.Generator().manual_seed(seed), game.reset(seed)
    for _ in range(steps):
        chosen = torch.randint(5, (game.copies,), generator=rng)
        rows, view = game.step(joint(view, chosen))
        yield chosen, rows, view


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([(2, 4), (3, 3), (1, 8), (4, 5)]), st.sampled_from([2, 3]),
    st.sampled_from([1, 2]), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_a_game_goes_on_as_in_a_plain_loop(
    seed: int, size: tuple[int, int], colours: int, coins: int, distinct: bool, each: bool, centred: bool
) -> None:
    rules = Coins(*size, coins=coins, colours=colours, distinct=distinct, centred=centred,
                  paid="each" if each else "last", episode_limit=14)  # fmt: skip
    game = BatchedGame(rules, 3)
    games = [plain_of(rules, obs) for obs in game.reset(seed).obs]
    for chosen, rows, view in played(game, seed, 30):
        for k, plain in enumerate(games):
            for agent, spec in enumerate(game.spec.agents):
                torch.testing.assert_close(rows.obs[k, list(spec.obs)], torch.tensor(plain.shown(agent)))
                assert bool(rows.acting[k, agent]) == (plain.turn == agent)
            before = plain.score()
            plain.step(int(chosen[k]))
            over = plain.time == 14
            paid = plain.score() - before if each else plain.score() * over
            assert rows.reward[k].tolist() == [paid, paid]
            assert rows.terminated[k].tolist() == [over, over]
            assert not rows.truncated[k]
            for agent, spec in enumerate(game.spec.agents):
                torch.testing.assert_close(rows.next_obs[k, list(spec.obs)], torch.tensor(plain.shown(agent)))
            if over:
                games[k] = plain_of(rules, view.obs[k])


def test_both_payments_add_up_to_the_score() -> None:
    totals = []
    for paid in ("last", "each"):
        game = BatchedGame(Coins(3, 4, coins=2, paid=paid, episode_limit=20), 50)
        total = torch.zeros(50)
        for _, rows, _ in played(game, 1, 20):
            total += rows.reward[:, 0]
        totals.append(total)
    assert torch.equal(*totals)
    assert len(set(totals[0].tolist())) > 4


def test_nobody_sees_the_goal_of_the_other_and_all_else_is_seen_by_both() -> None:
    spec = Coins().spec
    mine, other = (set(agent.obs) for agent in spec.agents)
    goals = Coins().goals
    assert mine - other == set(goals[0])
    assert other - mine == set(goals[1])
    assert mine | other == set(range(spec.obs_dim))
    assert spec.obs_dim == 3 * 64 + 2 * 64 + 2 * 5 + 2 + 1 + 2 * 3


def test_what_was_done_is_shown_to_both() -> None:
    rules = Coins()
    for _, rows, _ in played(BatchedGame(rules, 20), 0, 30):
        assert torch.equal(rows.next_obs[:, list(rules.acted)], rows.act)


def test_episodes_begin_evenly() -> None:
    rules = Coins(3, 4, coins=2)
    view = BatchedGame(rules, 24_000).reset(1)
    board = view.obs[:, list(rules.board)].view(-1, 3, 12)
    assert (board.sum(2) == 2).all()
    places = torch.stack([view.obs[:, list(place)] for place in rules.places], 1)
    assert (torch.cat([board, places], 1).sum(1) <= 1).all(), "no two things on one cell"
    torch.testing.assert_close(board.mean(0), torch.full((3, 12), 1 / 6), atol=0.01, rtol=0)
    torch.testing.assert_close(places.mean(0), torch.full((2, 12), 1 / 12), atol=0.01, rtol=0)
    assert float(view.acting[:, 0].float().mean()) == pytest.approx(0.5, abs=0.015)
    assert (view.acting.sum(1) == 1).all()


@pytest.mark.parametrize("distinct", [True, False])
def test_goals_are_even_and_apart_where_they_have_to_be(distinct: bool) -> None:
    rules = Coins(colours=4, coins=1, distinct=distinct)
    obs = BatchedGame(rules, 24_000).reset(0).obs
    goal, other = (obs[:, list(columns)] for columns in rules.goals)
    share = (goal[:, :, None] * other[:, None]).mean(0)
    even = (1 - torch.eye(4)) / 12 if distinct else torch.full((4, 4), 1 / 16)
    torch.testing.assert_close(share, even, atol=0.01, rtol=0)


def test_a_colour_that_is_nobodys_goal_costs_and_one_that_is_both_goals_counts_once() -> None:
    rules = Coins(1, 8, coins=2, distinct=False)
    blank = rules.draw(1, torch.Generator()).repeat(4, 1)
    blank[:, 10:12] = torch.tensor([[0.0, 1], [0, 0], [2, 2], [1, 2]])
    blank[:, 12:15] = torch.tensor([2.0, 1, 2])
    assert rules.score(blank).tolist() == [4 + 1 - 4, 4 - 1 - 4, -4 - 1 + 4, -4 + 1 + 4]


def test_what_is_declared_known_is() -> None:
    game = BatchedGame(Coins(4, 4, coins=2), 60)
    assert len(game.spec.known) == 10 + 2 + 1 + 6
    for _, rows, _ in played(game, 0, 25):
        for known in game.spec.known:
            wanted = torch.full((60,), known.offset)
            for columns, source in ((known.obs, rows.obs), (known.act, rows.act)):
                wanted = sum((factor * source[:, k] for k, factor in columns), wanted)
            torch.testing.assert_close(rows.next_obs[:, known.column], wanted)


@pytest.mark.parametrize("centred", [False, True])
def test_it_is_the_same_game_when_the_agents_change_places(centred: bool) -> None:
    rules = Coins(4, 4, coins=2, paid="each", episode_limit=20, centred=centred)
    symmetry, game, other = rules.spec.symmetries[0], BatchedGame(rules, 30), BatchedGame(rules, 30)
    game.reset(0)
    other.reset(0)
    swap = torch.arange(rules.draw(1, torch.Generator()).shape[1])
    for pair in ((16, 17), (18, 19), (23, 24)):
        swap[list(pair)] = swap[list(pair[::-1])]
    state = game.state()["state"][:, swap]
    state[:, 25] = 1 - state[:, 25]
    other.inject(state)
    for _, rows, _ in played(game, 0, 19):
        mirrored, _ = other.step(rows.act[:, symmetry.act])
        assert torch.equal(mirrored.obs, rows.obs[:, symmetry.obs])
        assert torch.equal(mirrored.next_obs, rows.next_obs[:, symmetry.obs])
        assert torch.equal(mirrored.reward, rows.reward[:, symmetry.agents])
        for agent in range(2):
            seen, swapped = (game.spec.agents[k].obs for k in (agent, 1 - agent))
            assert torch.equal(mirrored.obs[:, seen], rows.obs[:, swapped])


@pytest.mark.parametrize(("size", "coins", "colours"), [((1, 9), 2, 3), ((1, 8), 2, 2), ((3, 3), 2, 3)])
def test_the_optimum_is_the_best_of_everything_that_can_be_done(
    size: tuple[int, int], coins: int, colours: int
) -> None:
    rules = Coins(*size, coins=coins, colours=colours, episode_limit=6, distinct=False)
    game = BatchedGame(rules, 12)
    view = game.reset(3)
    plains = [plain_of(rules, obs) for obs in view.obs]
    rng = torch.Generator().manual_seed(0)
    for _ in range(2):  # from the start, and with coins taken and one turn gone
        found = rules.optimum(game.state()["state"])
        assert found.tolist() == [plain.best() for plain in plains]
        chosen = torch.randint(5, (12,), generator=rng)
        _, view = game.step(joint(view, chosen))
        for plain, move in zip(plains, chosen.tolist(), strict=True):
            plain.step(move)
    assert len(set(found.tolist())) > 2


def test_with_time_for_everything_all_coins_of_both_goals_are_taken_and_no_other_one() -> None:
    rules = Coins(4, 4, coins=1, episode_limit=60)
    assert rules.optimum(rules.draw(10, torch.Generator().manual_seed(0))).tolist() == [2.0] * 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0}, "height=0, width=8 and coins=4 must be >= 1"),
        ({"colours": 1}, "colours=1 >= 2"),
        ({"height": 3, "width": 4}, "4 coins of 3 colours .* height=3 times width=4 must be >= 14"),
        ({"episode_limit": 7}, "episode_limit=7 must be even and >= 2"),
        ({"paid": "daily"}, "paid='daily' must be 'last' or 'each'"),
    ],
)
def test_what_makes_no_game_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GameError, match=message):
        Coins(**options)


def test_boards_of_too_many_coins_have_no_known_optimum() -> None:
    rules = Coins(coins=5)
    with pytest.raises(GameError, match="15 coins have too many sets"):
        rules.optimum(rules.draw(1, torch.Generator()))


def test_whoever_acts_out_of_turn_is_refused() -> None:
    game = BatchedGame(Coins(), 2)
    view = game.reset(0)
    with pytest.raises(GameError, match="zeros where the agent is not acting"):
        game.step(joint(view, torch.zeros(2, dtype=torch.int64)).roll(5, 1))


def test_other_libraries_see_a_game_of_turns() -> None:
    """What PettingZoo is shown turn by turn makes the same rows again."""
    rules = Coins(3, 4, coins=2, episode_limit=12)
    lane = VectorGame(lambda: TurnView(BatchedGame(rules, 1)), 1, 0, Declaration(episode_limit=12))
    view = lane.reset(5)
    game = BatchedGame(rules, 1)
    game.inject(rules.reconstruct(first_window(rules.spec, as_joint(rules, view))))
    rng = torch.Generator().manual_seed(0)
    for step in range(12):
        act = joint(view, torch.randint(5, (1,), generator=rng))
        told, view = lane.step(act)
        rows, _ = game.step(act)
        assert torch.equal(told.acting, rows.acting)
        assert torch.equal(told.reward, rows.reward)
        assert torch.equal(told.terminated, rows.terminated)
        assert torch.equal(told.next_obs, shown(rules, rows.next_obs)), step
    assert told.terminated.all()
    with pytest.raises(GameError, match="take turns; see it as a TurnView"):
        ParallelView(BatchedGame(rules, 1)).reset(seed=0)
    with pytest.raises(GameError, match="act at once; see it as a ParallelView"):
        TurnView(make("toy/climb", 1)).reset(seed=0)


def shown(rules: Coins, obs: Tensor) -> Tensor:
    """What the agents observe, side by side."""
    return torch.cat([obs[:, list(agent.obs)] for agent in rules.spec.agents], 1)


def as_joint(rules: Coins, view: View) -> View:
    """The joint view behind what the agents observe, side by side."""
    columns = [k for agent in rules.spec.agents for k in agent.obs]
    obs = torch.zeros(len(view), rules.spec.obs_dim)
    obs[:, columns] = view.obs
    return View.of(rules.spec, obs, acting=view.acting)


def test_a_centred_board_tells_the_state_as_well() -> None:
    rules = Coins(3, 4, coins=2, centred=True)
    game = BatchedGame(rules, 20)
    for _, _, view in played(game, 0, 30):
        assert torch.equal(rules.reconstruct(first_window(rules.spec, view)), game.state()["state"])
    assert rules.spec.obs_dim == 2 * 3 * 5 * 7 + 2 * 12 + 2 * 5 + 2 + 1 + 2 * 3
    mine, other = (set(agent.obs) for agent in rules.spec.agents)
    assert mine ^ other == set(rules.goals[0] + rules.goals[1])
