"""Soccer on a grid against a rule-based opponent that is offensive in some episodes and defensive in others, on which
DRON was studied (He, Boyd-Graber, Kwok, Daumé 2016, "Opponent Modeling in Deep Reinforcement Learning", 1609.05559).

The opponent is a part of the rules: the game has one agent. As in the authors' code, with `x` from 1 to `width`, `y`
from 1 to `height`, the agent shooting to the right and the opponent to the left:

* a goal is the two middle rows of the outermost column; whoever holds the ball there scores, and nobody enters the
  column of the goal that it defends;
* both begin in their own half, which includes the middle column, with a goal's column left out, so that they may share
  a cell (once in 96 episodes on the field of 6 by 9); who has the ball is even;
* both move at once; two that exchange their cells pass each other; two that arrive in one cell go back to where they
  were, and the ball changes hands;
* the opponent scores each move by two motives, advance and avoid with the ball, defend and intercept without; offensive
  ones weigh advance and intercept by 0.9 and the others by 0.1, defensive ones the other way round; the best move is
  taken, by even chance among equals (the code would repeat its last move then, but has forgotten it by that time);
* the features are those of the code, in its units and order.

What differs: an episode is cut after `episode_limit` env steps, where the code terminates it one step later without a
reward; features start at zero in every episode, and their decay is not rounded to integers; the older of the two latest
moves is right from the second step on; and the last action is the last one, not all that were ever seen. What the
opponent will do is drawn when a state is reached, so that the label of its action is what it then does; the code's is
another draw by the same rule.

Shape suffixes: B rows, C copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from presage.common.game import AgentSpec, GameError, GameSpec, Head, KnownColumn, Window
from presage.envs.batched import Rules

UP, DOWN, LEFT, RIGHT, STAY = range(5)
MOVES = ((0.0, 1.0), (0.0, -1.0), (-1.0, 0.0), (1.0, 0.0), (0.0, 0.0))
OFFENSIVE, DEFENSIVE = range(2)
BOLD = (9.0, 1.0)
"""tenths by which an opponent of each type weighs advancing and intercepting; the rest of ten is for the other two"""
DECAY = 0.8
"""of the statistics, at every move that counts for them"""

STATE = tuple(range(15))
"""columns of the joint observation that tell of the state: where the agent and its opponent are, the first and the last
column and row, column and rows of the goal that the agent shoots at and of the other one, whether it has the ball"""
OPPONENT = tuple(range(15, 40))
"""columns that tell of the opponent, see `Soccer.observe`; the agent reads these and `STATE`"""
TYPE = (40, 41)
"""hidden columns: whether the opponent is offensive or defensive, as a one-hot vector"""
ACTION = tuple(range(42, 47))
"""hidden columns: what the opponent is about to do, as a one-hot vector"""

_WIDTHS = {"own": 2, "other": 2, "ball": 1, "statistics": 8, "recent": 10, "last": 5, "lost": 1, "time": 1, "type": 1,
           "next": 1}  # fmt: skip
"""of the parts of a state"""


@dataclass(frozen=True)
class _Parts:
    """A state by its parts, each `(B, width)`."""

    own: Tensor
    other: Tensor
    ball: Tensor
    """1 where the agent has it"""
    statistics: Tensor
    recent: Tensor
    last: Tensor
    lost: Tensor
    time: Tensor
    """env steps made"""
    type: Tensor
    next: Tensor
    """the opponent's next action"""

    def joined(self) -> Tensor:
        """The state `(B, 32)`."""
        return torch.cat([getattr(self, name) for name in _WIDTHS], 1)


class Soccer(Rules):
    """One agent, five moves (up, down, left, right, stay), +1 for a goal and -1 for the opponent's.

    The joint observation ends in labels that the agent does not read: the columns `TYPE` and `ACTION`. Learners of
    `presage.common` for one agent read the whole joint observation; `labels=False` leaves these columns out.

    Args:
        height: rows, even, >= 2. width: columns, odd, >= 5.
        defensive: probability that the opponent of an episode is defensive, in [0, 1]; 0 and 1 fix its type.
        episode_limit: env steps in an episode, >= 1. labels: whether the joint observation has them.

    Raises:
        GameError: a number is out of range.
    """

    chances = 1

    def __init__(
        self, height: int = 6, width: int = 9, *, defensive: float = 0.5, episode_limit: int = 100, labels: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if height < 2 or height % 2 or width < 5 or width % 2 == 0:
            raise GameError(f"height={height} must be even and >= 2, width={width} odd and >= 5")
        if not 0 <= defensive <= 1:
            raise GameError(f"defensive={defensive} must lie in [0, 1]: it is a probability")
        self.height, self.width, self.defensive, self.labels = height, width, defensive, labels
        self.low, self.high = height // 2, height // 2 + 1
        """rows of the goals"""
        self.device, self.dtype = torch.device(device), torch.float32
        field = [1, width, 1, height, width, self.low, self.high, 1, self.low, self.high]
        self._field = torch.tensor(field, dtype=self.dtype, device=self.device)
        self._moves = torch.tensor(MOVES, device=self.device)
        constant = (*STATE[4:14], *(TYPE if labels else ()))
        time, recent = OPPONENT[-1], OPPONENT[8:18]
        self.spec = GameSpec(
            name="soccer",
            agents=(AgentSpec(name="agent", obs=STATE + OPPONENT, heads=(Head(kind="discrete", size=len(MOVES)),)),),
            obs_dim=len(STATE + OPPONENT) + (len(TYPE + ACTION) if labels else 0), episode_limit=episode_limit,
            terminates=True,
            known=(
                *(KnownColumn(column=k, obs=((k, 1.0),)) for k in constant),
                *(KnownColumn(column=old, obs=((new, 1.0),)) for old, new in zip(recent[:5], recent[5:], strict=True)),
                KnownColumn(column=time, obs=((time, 1.0),), offset=0.01),
            ),
        )  # fmt: skip

    # ------------------------------------------------------------------ what happens

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, 32)`: both in their halves, an even chance of the ball, nothing observed yet."""
        number = torch.rand(copies, 7, generator=rng, device=self.device, dtype=torch.float64)
        half = self.width // 2  # columns of a half without the goal's
        spread = torch.tensor([half, self.height, half, self.height], dtype=number.dtype, device=self.device)
        first = torch.tensor([2, 1, half + 1, 1], dtype=number.dtype, device=self.device)
        places = ((number[:, :4] * spread).floor() + first).to(self.dtype)
        blank = {
            name: torch.zeros(copies, width, dtype=self.dtype, device=self.device) for name, width in _WIDTHS.items()
        }
        given = {
            "own": places[:, :2],
            "other": places[:, 2:],
            "ball": (number[:, 4:5] < 0.5).to(self.dtype),
            "type": (number[:, 5:6] < self.defensive).to(self.dtype),
        }
        return self._deciding(_Parts(**(blank | given)), number[:, 6:]).joined()

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """Both move, the opponent is observed, and then makes up its mind anew."""
        if chance is None:
            raise GameError("soccer takes one uniform number for each step")
        now = self._parts(state)
        chosen = now.next[:, 0].long()
        own, other, ball = self.play(now.own, now.other, now.ball[:, 0] > 0, act.argmax(1), chosen)
        features = self.observe(state)
        after = _Parts(
            own=own, other=other, ball=ball[:, None].to(self.dtype), statistics=features[:, :8],
            recent=features[:, 8:18], last=one_hot(chosen, len(MOVES)).to(self.dtype),
            lost=now.lost + now.ball * ~ball[:, None], time=now.time + 1.0, type=now.type, next=now.next,
        )  # fmt: skip
        return self._deciding(after, chance).joined()

    def play(
        self, own: Tensor, other: Tensor, ball: Tensor, move: Tensor, answer: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Places `(B, 2)` of both, and whether the agent has the ball `(B,)`, after they move.

        Args:
            own, other, ball: the same before. move, answer: `(B,)` the moves of the agent and of its opponent.
        """
        to = self._held(own + self._moves[move], first=2, last=self.width)
        there = self._held(other + self._moves[answer], first=1, last=self.width - 1)
        met = (to == there).all(1)
        return torch.where(met[:, None], own, to), torch.where(met[:, None], other, there), ball ^ met

    def _held(self, place: Tensor, first: int, last: int) -> Tensor:
        """Places `(B, 2)` in the field, in the columns `first` to `last`."""
        return torch.stack([place[:, 0].clamp(first, last), place[:, 1].clamp(1, self.height)], 1)

    def scored(self, own: Tensor, other: Tensor, ball: Tensor) -> Tensor:
        """`(B,)` 1 where the agent has brought the ball to its goal, -1 where the opponent has, else 0."""
        holder = torch.where(ball[:, None], own, other)
        target = torch.where(ball, float(self.width), 1.0)
        inside = (holder[:, 0] == target) & (holder[:, 1] >= self.low) & (holder[:, 1] <= self.high)
        return inside * torch.where(ball, 1.0, -1.0).to(self.dtype)

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """Goals, `(B, 1)`."""
        now = self._parts(after)
        return self.scored(now.own, now.other, now.ball[:, 0] > 0)[:, None]

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """`(B, 1)` bool: a goal ends the episode."""
        return self.rewards(before, act, after) != 0

    # --------------------------------------------------------------------- the opponent

    def answers(self, own: Tensor, other: Tensor, ball: Tensor, defensive: Tensor) -> Tensor:
        """How likely the opponent makes each move, `(B, 5)`: evenly those that score best.

        Args:
            own, other: `(B, 2)` places. ball, defensive: `(B,)` bool.
        """
        bold = torch.where(defensive, BOLD[DEFENSIVE], BOLD[OFFENSIVE])
        careful = 10.0 - bold
        (x, y), (foe_x, foe_y) = other.unbind(1), own.unbind(1)
        nothing, near = torch.zeros_like(x), (other - own).abs().sum(1) == 1
        left_of, right_of, below, above = x < foe_x, x > foe_x, y < foe_y, y > foe_y
        with_ball = torch.stack([
            bold * (y < self.low) + careful * ~below,  # advance to the goal's rows and column; avoid: away from the foe
            bold * (y > self.high) + careful * ~above,
            bold * (x > 1) + careful * ~right_of,
            careful * ~left_of,
            nothing,
        ], 1)  # fmt: skip
        without_ball = torch.stack([
            careful * (y <= self.low) + bold * (below & ~near),  # defend: up and down before the goal; intercept
            careful * (y >= self.high) + bold * (above & ~near),
            bold * (right_of & ~near),
            careful * (self.width - x > 1) + bold * (left_of & ~near),
            bold * near,
        ], 1)  # fmt: skip
        score = torch.where(ball[:, None], without_ball, with_ball)
        best = (score == score.amax(1, keepdim=True)).to(self.dtype)
        return best / best.sum(1, keepdim=True)

    def _deciding(self, now: _Parts, chance: Tensor) -> _Parts:
        """The same state with a new next action, drawn by `chance (B, 1)` in [0, 1)."""
        likely = self.answers(now.own, now.other, now.ball[:, 0] > 0, now.type[:, 0] > 0) > 0
        rank = (chance * likely.sum(1, keepdim=True)).floor()
        chosen = (likely.cumsum(1) > rank).to(self.dtype).argmax(1, keepdim=True)
        return _Parts(**(vars(now) | {"next": chosen.to(self.dtype)}))

    def observe(self, state: Tensor) -> Tensor:
        """The features that follow from how the opponent moves in `state`, `(B, 18)`.

        They tell whether it moved nearer to the agent, to the goal that the agent shoots at, to the goal that it shoots
        at itself (1; -1 is farther, 0 neither), and whether it stayed: as sums that decay, four over its moves with the
        ball and four over those without; and of its last two moves, the older one first, each behind a 1 where it had
        the ball and a 2 where it had not. A move counts as it was tried, also where the two met and went back.
        """
        now = self._parts(state)
        there = self._held(now.other + self._moves[now.next[:, 0].long()], first=1, last=self.width - 1)
        middle = (self.low + self.high) / 2
        goals = torch.tensor([[self.width, middle], [1.0, middle]], dtype=self.dtype, device=self.device)
        marks = torch.stack([now.own, *(goal.expand_as(now.own) for goal in goals)], 1)
        change = (there[:, None] - marks).abs() - (now.other[:, None] - marks).abs()
        nearer, farther = (change < 0).any(2), (change > 0).any(2)
        toward = torch.where(nearer, 1.0, torch.where(farther, -1.0, 0.0)).to(self.dtype)
        seen = torch.cat([toward, (there == now.other).all(1, keepdim=True).to(self.dtype)], 1)
        with_ball, without = torch.split(now.statistics, 4, 1)
        statistics = [
            torch.where(now.ball > 0, with_ball, DECAY * with_ball + seen),
            torch.where(now.ball > 0, DECAY * without + seen, without),
        ]
        return torch.cat([*statistics, now.recent[:, 5:], 1.0 + now.ball, seen], 1)

    # ------------------------------------------------------------------- what is seen

    def _parts(self, state: Tensor) -> _Parts:
        return _Parts(*torch.split(state, list(_WIDTHS.values()), 1))

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """The columns `STATE`, `OPPONENT`, and the labels `TYPE` and `ACTION` where there are any."""
        now = self._parts(state)
        field = self._field.expand(len(state), -1)
        seen = [now.own, now.other, field, now.ball, now.statistics, now.recent, now.last, now.lost, now.time / 100.0]
        if self.labels:
            seen += [one_hot(now.type[:, 0].long(), len(TYPE)).to(self.dtype),
                     one_hot(now.next[:, 0].long(), len(ACTION)).to(self.dtype)]  # fmt: skip
        return {"obs": torch.cat(seen, 1)}

    def reconstruct(self, window: Window) -> Tensor:
        """Everything is seen, labels included; without them the opponent's mind is not."""
        if not self.labels:
            raise GameError("what is seen of 'soccer' without labels does not tell what the opponent is about to do")
        obs = window.now.obs
        time = (100.0 * obs[:, OPPONENT[-1:]]).round()
        labels = [obs[:, where].argmax(1, keepdim=True).to(self.dtype) for where in (TYPE, ACTION)]
        return torch.cat([obs[:, STATE[:4]], obs[:, STATE[-1:]], obs[:, OPPONENT[:-1]], time, *labels], 1)

    # -------------------------------------------------------------------- what is best

    def optimum(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The best expected return `(B,)` of the rest of an episode, for one who knows the opponent's type and not its
        next move; and the best move `(B,)`.

        By backward induction over all places, once for each type; nobody who has to find out the type gets more.
        """
        now = self._parts(state)
        values, moves = self._best
        limit = self.spec.episode_limit or 0
        where = (
            (limit - now.time[:, 0].long()).clamp(0, limit), now.type[:, 0].long(),
            self._index(now.own, now.other, now.ball[:, 0] > 0),
        )  # fmt: skip
        return values[where], moves[where]

    def _index(self, own: Tensor, other: Tensor, ball: Tensor) -> Tensor:
        """The number of a position among all, `(B,)`."""
        cells = [
            ((place[:, 0] - first) * self.height + place[:, 1] - 1.0).long() for place, first in ((own, 2), (other, 1))
        ]
        return (cells[0] * (self.width - 1) * self.height + cells[1]) * 2 + ball.long()

    @cached_property
    def _best(self) -> tuple[Tensor, Tensor]:
        """Values and moves `(steps left, type, position)`."""
        columns, rows = torch.arange(2.0, self.width + 1), torch.arange(1.0, self.height + 1)
        cells = torch.cartesian_prod(columns, rows)
        pairs = torch.cartesian_prod(torch.arange(len(cells)), torch.arange(len(cells)), torch.arange(2))
        step_left = torch.tensor([1.0, 0.0])
        own, other, ball = cells[pairs[:, 0]], cells[pairs[:, 1]] - step_left, pairs[:, 2] > 0
        own, other, ball = own.to(self.device), other.to(self.device), ball.to(self.device)
        moves = len(MOVES)
        each = torch.arange(moves, device=self.device)
        reached, paid = [], []
        for move in each:
            for answer in each:
                after = self.play(own, other, ball, move.expand(len(own)), answer.expand(len(own)))
                reached.append(self._index(*after))
                paid.append(self.scored(*after))
        to, reward = (torch.stack(found).reshape(moves, moves, -1) for found in (reached, paid))
        likely = torch.stack([self.answers(own, other, ball, torch.full_like(ball, bool(kind))).T for kind in range(2)])
        value = torch.zeros(2, len(own), device=self.device)
        values, best = [value], [torch.zeros_like(value, dtype=torch.long)]
        for _ in range(self.spec.episode_limit or 0):
            worth = reward + torch.where(reward == 0, value[:, to], 0.0)
            value, move = (likely[:, None] * worth).sum(2).max(1)
            values.append(value)
            best.append(move)
        return torch.stack(values), torch.stack(best)
