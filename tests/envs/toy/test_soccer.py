"""Soccer against a plain loop of one game, its features against a recount of everything seen, and what is best."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import GameError
from presage.envs.batched import BatchedGame, RulesKernel
from presage.envs.toy import Soccer
from presage.envs.toy.soccer import ACTION, DEFENSIVE, OFFENSIVE, OPPONENT, STATE, TYPE
from presage.envs.views import GymnasiumView

Cell = tuple[int, int]
STEPS = {0: (0, 1), 1: (0, -1), 2: (-1, 0), 3: (1, 0), 4: (0, 0)}
UP, DOWN, LEFT, RIGHT, STAY = STEPS


@dataclass
class Plain:
    """One game, move by move, as the module's text has it."""

    height: int
    width: int
    own: Cell
    other: Cell
    ball: bool
    defensive: bool
    log: list[tuple[bool, Cell, Cell, Cell, int]] = field(default_factory=list)
    """for every move: whether the opponent had the ball, the agent's cell, its own before and after, what it tried"""
    lost: int = 0

    @property
    def rows(self) -> tuple[int, int]:
        return self.height // 2, self.height // 2 + 1

    def best(self) -> set[int]:
        """The moves between which the opponent has no preference."""
        bold, careful = (1, 9) if self.defensive else (9, 1)
        (x, y), (fx, fy), (low, high) = self.other, self.own, self.rows
        score = dict.fromkeys(STEPS, 0)
        if not self.ball:
            if x > 1:
                score[LEFT] += bold
            if y < low:
                score[UP] += bold
            elif y > high:
                score[DOWN] += bold
            if x <= fx:
                score[LEFT] += careful
            if x >= fx:
                score[RIGHT] += careful
            if y <= fy:
                score[DOWN] += careful
            if y >= fy:
                score[UP] += careful
        else:
            if abs(x - self.width) != 1:
                score[RIGHT] += careful
            if y <= low:
                score[UP] += careful
            elif y >= high:
                score[DOWN] += careful
            if abs(x - fx) + abs(y - fy) == 1:
                score[STAY] += bold
            else:
                score[LEFT] += bold * (x > fx)
                score[RIGHT] += bold * (x < fx)
                score[UP] += bold * (y < fy)
                score[DOWN] += bold * (y > fy)
        return {move for move, points in score.items() if points == max(score.values())}

    def to(self, cell: Cell, move: int, columns: range) -> Cell:
        x, y = cell[0] + STEPS[move][0], cell[1] + STEPS[move][1]
        return min(max(x, columns[0]), columns[-1]), min(max(y, 1), self.height)

    def step(self, move: int, answer: int) -> int:
        """Play; who scores."""
        own = self.to(self.own, move, range(2, self.width + 1))
        other = self.to(self.other, answer, range(1, self.width))
        self.log.append((not self.ball, self.own, self.other, other, answer))
        if own == other:
            self.lost += self.ball
            self.ball = not self.ball
        else:
            self.own, self.other = own, other
        x, y = self.own if self.ball else self.other
        return (1 if self.ball else -1) * (x == (self.width if self.ball else 1) and y in self.rows)

    def code(self, entry: tuple[bool, Cell, Cell, Cell, int]) -> list[float]:
        _, me, before, after, _ = entry
        middle = sum(self.rows) / 2
        found = []
        for mark in (me, (self.width, middle), (1, middle)):
            change = [abs(after[k] - mark[k]) - abs(before[k] - mark[k]) for k in range(2)]
            found.append(1.0 if min(change) < 0 else -1.0 if max(change) > 0 else 0.0)
        return [*found, float(before == after)]

    def features(self) -> list[float]:
        """All that tells of the opponent, from everything seen."""
        found: list[float] = []
        for with_ball in (True, False):
            moves = [self.code(entry) for entry in self.log if entry[0] == with_ball]
            found += [sum(0.8 ** (len(moves) - 1 - k) * move[j] for k, move in enumerate(moves)) for j in range(4)]
        for back in (2, 1):
            entry = self.log[-back] if len(self.log) >= back else None
            found += [0.0] * 5 if entry is None else [1.0 if entry[0] else 2.0, *self.code(entry)]
        found += [float(bool(self.log) and self.log[-1][4] == move) for move in STEPS]
        return [*found, self.lost, len(self.log) / 100]

    def state(self) -> list[float]:
        low, high = self.rows
        field = [1, self.width, 1, self.height, self.width, low, high, 1, low, high]
        return [*map(float, (*self.own, *self.other, *field)), float(self.ball)]


def moves(chosen: Any) -> Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(chosen), 5).float()


def plain_of(rules: Soccer, obs: Tensor) -> Plain:
    """The game whose first observation `obs (O,)` is."""
    ax, ay, bx, by = (int(number) for number in obs[:4])
    return Plain(rules.height, rules.width, (ax, ay), (bx, by), bool(obs[14]), bool(obs[TYPE[DEFENSIVE]]))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 4, 6]), st.sampled_from([5, 7, 9]), st.integers(0, 10_000))
def test_a_game_goes_on_as_in_a_plain_loop(seed: int, height: int, width: int, mine: int) -> None:
    rules = Soccer(height, width, episode_limit=40)
    game, rng = BatchedGame(rules, 3), torch.Generator().manual_seed(mine)
    view = game.reset(seed)
    games = [plain_of(rules, obs) for obs in view.obs]
    for _ in range(60):
        chosen = torch.randint(5, (3,), generator=rng)
        for plain, obs in zip(games, view.obs, strict=True):
            torch.testing.assert_close(obs[list(STATE)], torch.tensor(plain.state()))
            torch.testing.assert_close(obs[list(OPPONENT)], torch.tensor(plain.features()))
            assert int(obs[list(ACTION)].argmax()) in plain.best()
            assert obs[list(TYPE + ACTION)].sum() == 2
        answers = view.obs[:, list(ACTION)].argmax(1)
        rows, view = game.step(moves(chosen))
        for k, plain in enumerate(games):
            scored = plain.step(int(chosen[k]), int(answers[k]))
            assert float(rows.reward[k]) == scored
            assert bool(rows.terminated[k]) == (scored != 0)
            assert bool(rows.truncated[k]) == (len(plain.log) == 40 and scored == 0)
            torch.testing.assert_close(rows.next_obs[k, list(OPPONENT)], torch.tensor(plain.features()))
            torch.testing.assert_close(rows.next_obs[k, list(STATE)], torch.tensor(plain.state()))
            if rows.terminated[k] or rows.truncated[k]:
                games[k] = plain_of(rules, view.obs[k])


@pytest.mark.parametrize("defensive", [False, True])
def test_the_opponent_prefers_what_its_motives_say_everywhere(defensive: bool) -> None:
    rules = Soccer()
    every = [
        (own, other, ball)
        for own in product(range(2, 10), range(1, 7)) for other in product(range(1, 9), range(1, 7))
        for ball in (False, True)
    ]  # fmt: skip
    own, other, ball = (torch.tensor(column) for column in zip(*every, strict=True))
    found = rules.answers(own.float(), other.float(), ball, torch.full_like(ball, defensive))
    for (me, foe, mine), chances in zip(every, found.tolist(), strict=True):
        best = Plain(6, 9, me, foe, mine, defensive).best()
        assert chances == pytest.approx([(move in best) / len(best) for move in STEPS])


def test_chance_decides_between_equals() -> None:
    rules = Soccer(defensive=1.0)
    game = BatchedGame(rules, 60_000)
    view = game.reset(0)
    where = (view.obs[:, :4] == torch.tensor([2.0, 6.0, 7.0, 3.0])).all(1) & (view.obs[:, 14] == 0)
    assert int(where.sum()) > 40
    assert Plain(6, 9, (2, 6), (7, 3), False, True).best() == {DOWN, RIGHT}
    share = view.obs[:, list(ACTION)].mean(0)
    likely = rules.answers(view.obs[:, :2], view.obs[:, 2:4], view.obs[:, 14] > 0, view.obs[:, 41] > 0)
    torch.testing.assert_close(share, likely.mean(0), atol=0.01, rtol=0)
    some = view.obs[where][:, list(ACTION)].mean(0)
    assert some[[UP, LEFT, STAY]].sum() == 0
    assert 0.2 < float(some[DOWN]) < 0.8


def test_episodes_begin_in_two_halves_with_an_even_chance_of_the_ball() -> None:
    view = BatchedGame(Soccer(defensive=0.25), 48_000).reset(1)
    own, other = view.obs[:, :2], view.obs[:, 2:4]
    for place, columns in ((own, (2, 5)), (other, (5, 8))):
        assert (int(place[:, 0].min()), int(place[:, 0].max())) == columns
        assert (int(place[:, 1].min()), int(place[:, 1].max())) == (1, 6)
        counts = torch.bincount(place[:, 0].long())[columns[0] :]
        assert (counts / 12_000 - 1).abs().max() < 0.05
    assert float((own == other).all(1).float().mean()) == pytest.approx(1 / 96, abs=0.003)
    assert float(view.obs[:, 14].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(view.obs[:, TYPE[DEFENSIVE]].mean()) == pytest.approx(0.25, abs=0.01)
    for share, kind in ((0.0, OFFENSIVE), (1.0, DEFENSIVE)):
        fixed = BatchedGame(Soccer(defensive=share), 500).reset(0)
        assert fixed.obs[:, list(TYPE)].argmax(1).tolist() == [kind] * 500


def test_the_label_is_what_the_opponent_then_does_and_nobody_reads_it() -> None:
    game = BatchedGame(Soccer(), 200)
    game.reset(0)
    for k in range(20):
        rows, _ = game.step(moves(torch.full((200,), k % 5)))
        assert torch.equal(rows.obs[:, list(ACTION)], rows.next_obs[:, 33:38])
        assert torch.equal(rows.obs[:, list(TYPE)], rows.next_obs[:, list(TYPE)])
    assert not set(TYPE + ACTION) & set(game.spec.agents[0].obs)
    shown, _ = GymnasiumView(BatchedGame(Soccer(), 1)).reset(seed=0)
    assert shown.shape == (40,)


def test_what_is_declared_known_is() -> None:
    game = BatchedGame(Soccer(), 100)
    game.reset(0)
    rng = torch.Generator().manual_seed(0)
    assert len(game.spec.known) == 18
    for _ in range(30):
        rows, _ = game.step(moves(torch.randint(5, (100,), generator=rng)))
        for known in game.spec.known:
            wanted = sum((factor * rows.obs[:, k] for k, factor in known.obs), torch.full((100,), known.offset))
            torch.testing.assert_close(rows.next_obs[:, known.column], wanted)


def test_labels_can_be_left_out_and_the_state_is_hidden_then() -> None:
    rules = Soccer(labels=False)
    with_labels, without = BatchedGame(Soccer(), 4).reset(0), BatchedGame(rules, 4).reset(0)
    assert torch.equal(with_labels.obs[:, :40], without.obs)
    assert rules.spec.obs_dim == 40
    with pytest.raises(GameError, match="without labels does not tell"):
        RulesKernel(rules).init(first_window(rules.spec, without), torch.zeros(4), torch.Generator())


def best_by_looking_ahead(plain: Plain, steps: int) -> float:
    """The best expected return of `steps` more moves, by trying everything."""
    if steps == 0:
        return 0.0
    answers, found = plain.best(), []
    for move in STEPS:
        worth = 0.0
        for answer in answers:
            after = Plain(plain.height, plain.width, plain.own, plain.other, plain.ball, plain.defensive)
            scored = after.step(move, answer)
            worth += (scored if scored else best_by_looking_ahead(after, steps - 1)) / len(answers)
        found.append(worth)
    return max(found)


def test_the_optimum_is_the_best_of_everything_that_can_be_done() -> None:
    rules = Soccer(4, 5, episode_limit=4)
    game = BatchedGame(rules, 40)
    view = game.reset(0)
    best, _ = rules.optimum(game.state()["state"])
    wanted = [best_by_looking_ahead(plain_of(rules, obs), 4) for obs in view.obs]
    assert best.tolist() == pytest.approx(wanted, abs=1e-5)
    assert len(set(best.tolist())) > 3


def test_best_moves_earn_what_is_best() -> None:
    rules = Soccer(episode_limit=30)
    game = BatchedGame(rules, 8_000)
    game.reset(0)
    expected = rules.optimum(game.state()["state"])[0].mean()
    total, going = torch.zeros(8_000), torch.ones(8_000, dtype=torch.bool)
    for _ in range(30):
        rows, _ = game.step(moves(rules.optimum(game.state()["state"])[1]))
        total += rows.reward[:, 0] * going
        going &= ~rows.terminated[:, 0]
    assert float(total.mean()) == pytest.approx(float(expected), abs=4 * float(total.std()) / 8_000**0.5)


@pytest.mark.parametrize(("kind", "published", "best"), [(OFFENSIVE, 0.897, 0.8957), (DEFENSIVE, 0.504, 0.6519)])
def test_specialists_of_the_papers_discount_get_what_the_papers_did(kind: int, published: float, best: float) -> None:
    """The best policy for a discount of 0.9, over the 100 moves of an episode; theirs are measured over 5,000 games."""
    rules = Soccer(defensive=float(kind))
    cells = [torch.cartesian_prod(torch.arange(first, first + 8.0), torch.arange(1.0, 7.0)) for first in (2.0, 1.0)]
    pairs = torch.cartesian_prod(torch.arange(48), torch.arange(48), torch.arange(2))
    own, other, ball = cells[0][pairs[:, 0]], cells[1][pairs[:, 1]], pairs[:, 2] > 0

    def number(own: Tensor, other: Tensor, ball: Tensor) -> Tensor:
        at = [(place[:, 0] - first) * 6 + place[:, 1] - 1 for place, first in ((own, 2), (other, 1))]
        return ((at[0] * 48 + at[1]) * 2 + ball).long()

    after = [
        rules.play(own, other, ball, *(torch.full((4_608,), move) for move in both)) for both in product(STEPS, STEPS)
    ]
    to = torch.stack([number(*each) for each in after]).view(5, 5, -1)
    paid = torch.stack([rules.scored(*each) for each in after]).view(5, 5, -1)
    likely = rules.answers(own, other, ball, torch.full_like(ball, bool(kind))).T

    def worth(value: Tensor, discount: float) -> Tensor:
        return (likely * (paid + torch.where(paid == 0, discount * value[to], 0.0))).sum(1)

    value, total = torch.zeros(4_608), torch.zeros(4_608)
    for _ in range(200):
        value = worth(value, 0.9).amax(0)
    found = worth(value, 0.9)
    chosen = (found >= found.amax(0) - 1e-5).float()
    for _ in range(100):
        total = (chosen / chosen.sum(0) * worth(total, 1.0)).sum(0)
    half = (own[:, 0] <= 5) & (other[:, 0] >= 5)
    assert float(total[half].mean()) == pytest.approx(published, abs=0.02)
    state = torch.zeros(int(half.sum()), 32)
    state[:, :5] = torch.cat([own[half], other[half], ball[half, None]], 1)
    state[:, 30] = kind
    assert float(rules.optimum(state)[0].mean()) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 5}, "height=5 must be even and >= 2"),
        ({"width": 8}, "width=8 odd and >= 5"),
        ({"width": 3}, "width=3 odd and >= 5"),
        ({"defensive": 1.5}, r"defensive=1\.5 must lie in \[0, 1\]"),
    ],
)
def test_what_makes_no_game_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GameError, match=message):
        Soccer(**options)


def test_a_move_needs_its_chance() -> None:
    rules = Soccer()
    state = rules.draw(2, torch.Generator().manual_seed(0))
    with pytest.raises(GameError, match="one uniform number for each step"):
        rules.move(state, moves([0, 1]), None)
