"""The coin game on which SOM was studied (Raileanu, Denton, Szlam, Fergus 2018, "Modeling Others using Oneself in
Multi-Agent Reinforcement Learning", 1802.09640): two agents, each with a colour of its own that the other does not see.

From the paper: two players with hidden goals, all else visible to both, no way to talk, and a reward at the end of an
episode that depends on both goals. The numbers of the board and of the reward could not be checked against it; those
here are the suite's own, as are these rules:

* coins of `colours` colours, `coins` of each, lie on different cells; each agent begins on a free cell, and by default
  the two goals are different colours;
* they take turns, an env step each, and who begins is even; both may stand on one cell, and the edge holds both;
* whoever enters a cell takes its coin for both;
* both are paid the sum over colours of the square of how many coins were taken, with a plus where the colour is
  somebody's goal and a minus where it is nobody's.

So an agent gains by taking coins of the other's colour too, but has to see from its moves which one that is.

Shape suffixes: B rows, C copies, K colours, P cells, V cells of a centred board.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import one_hot

from presage.common.game import AgentSpec, GameError, GameSpec, Head, KnownColumn, Symmetry, Window
from presage.envs.batched import Rules

UP, DOWN, LEFT, RIGHT, STAY = range(5)
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))
"""by row and column; row 0 is the uppermost"""

Paid = Literal["last", "each"]
MOST_COINS = 14
"""that `Coins.optimum` tries all sets of"""


class Coins(Rules):
    """Two agents, five moves (up, down, left, right, stay), one after the other, and one score for both.

    Each observes, in this order and as columns of the joint observation: where the coins of each colour lie (`board`,
    or from where it and the other stand, `around`), where it is and where the other is (`places`), what it and the
    other did last (`acted`: zeros for who did not act), whether it is its turn and whether it is the other's (`turns`),
    the share of the episode that is left (`left`), and its goal (`goals`): whatever the two see, their own goals aside,
    is the same but for who is who.

    Args:
        height, width: of the board; >= 1. coins: of each colour, >= 1. colours: K, >= 2.
        distinct: whether the two goals are always different colours; else they are drawn apart.
        centred: whether coins are shown by how far they are from each agent, up, down, left and right, instead of by
            cells; it is the same board, and easier to learn from.
        paid: whether the score is paid with the last step, or what it changes by with each. The sum is the same.
        episode_limit: env steps in an episode, half of them for each agent; even, >= 2. Its end is the game's own.

    Raises:
        GameError: a number is out of range, or the board is too small for the coins and the agents.
    """

    board: tuple[int, ...]
    """columns of the joint observation `(K * P)`: of the first colour on all cells, row by row, then of the next; ()
    where boards are centred"""
    around: tuple[tuple[int, ...], tuple[int, ...]]
    """per agent `(K * V)`: likewise, of the V = (2 height - 1) (2 width - 1) cells of a board whose middle is the
    agent's own cell, zeros beyond the edge; () where boards are not centred"""
    places: tuple[tuple[int, ...], tuple[int, ...]]
    """per agent `(P)`"""
    acted: tuple[int, ...]
    """`(A)`: the last joint action"""
    turns: tuple[int, int]
    left: int
    goals: tuple[tuple[int, ...], tuple[int, ...]]
    """per agent `(K)`"""

    def __init__(
        self, height: int = 8, width: int = 8, *, coins: int = 4, colours: int = 3, distinct: bool = True,
        centred: bool = False, paid: Paid = "last", episode_limit: int = 20, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if height < 1 or width < 1 or coins < 1 or colours < 2:
            raise GameError(
                f"height={height}, width={width} and coins={coins} must be >= 1, and colours={colours} >= 2"
            )
        if height * width < coins * colours + 2:
            raise GameError(
                f"{coins} coins of {colours} colours and two agents begin on different cells; "
                f"height={height} times width={width} must be >= {coins * colours + 2}"
            )
        if episode_limit < 2 or episode_limit % 2:
            raise GameError(f"episode_limit={episode_limit} must be even and >= 2: agents have as many turns each")
        if paid not in get_args(Paid):
            raise GameError(f"paid={paid!r} must be 'last' or 'each'")
        self.height, self.width, self.coins, self.colours = height, width, coins, colours
        self.cells, self.distinct, self.centred = height * width, distinct, centred
        self.paid, self.limit = paid, episode_limit
        self.device, self.dtype = torch.device(device), torch.float32
        cell = torch.arange(self.cells, device=self.device)
        row, column = cell // width, cell % width
        to = [(row + y).clamp(0, height - 1) * width + (column + x).clamp(0, width - 1) for y, x in MOVES]
        self._to = torch.stack(to, 1)
        """(P, 5): where each move leads from each cell"""
        far_row, far_column = (torch.arange(1 - size, size, device=self.device) for size in (height, width))
        seen_row, seen_column = row[:, None] + far_row, column[:, None] + far_column
        inside = ((seen_row >= 0) & (seen_row < height))[:, :, None] & ((seen_column >= 0) & (seen_column < width))[
            :, None
        ]
        seen = torch.where(inside, seen_row[:, :, None] * width + seen_column[:, None], self.cells)
        self._around = seen.flatten(1)
        """(P, V): the cells around each cell, and P beyond the edge"""
        self._widths = [self.cells, 2, 2, colours, 2, 1, 1]
        """of the parts of a state, see `draw`"""
        self._number_columns()
        self.spec = self._make_spec()

    def _number_columns(self) -> None:
        board, around = (0, self._around.shape[1]) if self.centred else (self.cells, 0)
        colours, cells = self.colours, self.cells
        widths = [0, colours * board, *[colours * around] * 2, *[cells] * 2, 2 * len(MOVES), 2, 1, *[colours] * 2]
        parts = [tuple(range(low, high)) for low, high in pairwise(np.cumsum(widths).tolist())]
        self.board, *each, self.acted, turns, left, goal, other_goal = parts
        self.around, self.places, self.turns = (each[0], each[1]), (each[2], each[3]), (turns[0], turns[1])
        self.left, self.goals = left[0], (goal, other_goal)

    def _make_spec(self) -> GameSpec:
        moves = len(MOVES)
        acted = (self.acted[:moves], self.acted[moves:])
        agents = tuple(
            AgentSpec(
                name=f"agent_{i}",
                obs=(*self.board, *self.around[i], *self.around[1 - i], *self.places[i], *self.places[1 - i],
                     *acted[i], *acted[1 - i], self.turns[i], self.turns[1 - i], self.left, *self.goals[i]),
                heads=(Head(kind="discrete", size=moves),),
            )
            for i in range(2)
        )  # fmt: skip
        swapped = (*self.board, *self.around[1], *self.around[0], *self.places[1], *self.places[0], *acted[1],
                   *acted[0], *self.turns[::-1], self.left, *self.goals[1], *self.goals[0])  # fmt: skip
        known = (
            *(KnownColumn(column=column, act=((k, 1.0),)) for k, column in enumerate(self.acted)),
            *(KnownColumn(column=self.turns[i], obs=((self.turns[1 - i], 1.0),)) for i in range(2)),
            KnownColumn(column=self.left, obs=((self.left, 1.0),), offset=-1.0 / self.limit),
            *(KnownColumn(column=k, obs=((k, 1.0),)) for goal in self.goals for k in goal),
        )
        return GameSpec(
            name="coins", agents=agents, obs_dim=len(swapped), episode_limit=self.limit, terminates=True,
            acting_varies=True, known=known,
            symmetries=(Symmetry(obs=swapped, act=(*range(moves, 2 * moves), *range(moves)), agents=(1, 0)),),
        )  # fmt: skip

    # ------------------------------------------------------------------ what happens

    # A state is (B, P + 2 + 2 + K + 2 + 1 + 1): the colour of the coin on each cell, from 1, and 0 for none; the cells
    # of both agents; their goals; the coins that were taken of each colour; what each did in the last step, from 1, and
    # 0 for who did not act; whose turn it is; env steps made.

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, P + K + 8)`: coins and agents on different cells, and goals, all uniform; nothing done yet."""
        number = torch.rand(copies, self.cells + 3, generator=rng, device=self.device, dtype=torch.float64)
        order = number[:, : self.cells].argsort(1)
        coins = torch.arange(1, self.colours + 1, device=self.device).repeat_interleave(self.coins)
        board = torch.zeros_like(order).scatter_(1, order[:, 2 : 2 + len(coins)], coins.expand(copies, -1))
        goal = (number[:, -3] * self.colours).long()
        further = 1 + (number[:, -2] * (self.colours - 1)).long()
        other = (goal + further) % self.colours if self.distinct else (number[:, -2] * self.colours).long()
        first = (number[:, -1] < 0.5).long()
        blank = torch.zeros(copies, self.colours + 2, dtype=torch.int64, device=self.device)
        parts = [
            board,
            order[:, :2],
            torch.stack([goal, other], 1),
            blank,
            first[:, None],
            torch.zeros_like(goal)[:, None],
        ]
        return torch.cat(parts, 1).to(self.dtype)

    def _parts(self, state: Tensor) -> tuple[Tensor, ...]:
        """Board, cells, goals, coins taken, last moves, turn and time of `state`, each `(B, width)` int64."""
        return torch.split(state.long(), self._widths, 1)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """Whoever's turn it is goes, and takes the coin where it arrives."""
        board, cells, goals, taken, _, turn, time = self._parts(state)
        chosen = act.view(len(act), 2, len(MOVES))
        last = (chosen.argmax(2) + 1) * (chosen.sum(2) > 0)
        arrived = self._to[cells.gather(1, turn)[:, 0], last.gather(1, turn)[:, 0] - 1][:, None]
        coin = board.gather(1, arrived)
        taken = taken + (coin == torch.arange(1, self.colours + 1, device=self.device))
        parts = [board.scatter(1, arrived, 0), cells.scatter(1, turn, arrived), goals, taken, last, 1 - turn, time + 1]
        return torch.cat(parts, 1).to(self.dtype)

    def score(self, state: Tensor) -> Tensor:
        """What the coins that were taken by `state` are worth, `(B,)`."""
        _, _, goals, taken, *_ = self._parts(state)
        return (self._signs(goals) * taken.square()).sum(1).to(self.dtype)

    def _signs(self, goals: Tensor) -> Tensor:
        """1 for the colours `(B, K)` that are somebody's goal, -1 for the others."""
        return 2 * one_hot(goals, self.colours).amax(1) - 1

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """The score, or its change, for both, `(B, 2)`."""
        score = self.score(after)
        paid = score * (after[:, -1] == self.limit) if self.paid == "last" else score - self.score(before)
        return paid[:, None].expand(-1, 2)

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """`(B, 2)` bool: the score is final after so many env steps."""
        return (after[:, -1:] == self.limit).expand(-1, 2)

    # ------------------------------------------------------------------- what is seen

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """All columns, and whose turn it is."""
        board, cells, goals, _, last, turn, time = self._parts(state)
        turns = one_hot(turn[:, 0], 2)
        coins = board[:, None] == torch.arange(1, self.colours + 1, device=self.device)[:, None]
        if self.centred:
            coins = nn.functional.pad(coins, (0, 1))[:, None].expand(-1, 2, -1, -1)
            coins = coins.gather(3, self._around[cells][:, :, None].expand(-1, -1, self.colours, -1))
        seen = [
            coins.flatten(1), one_hot(cells, self.cells).flatten(1),
            one_hot(last, len(MOVES) + 1)[:, :, 1:].flatten(1), turns,
            (self.limit - time).to(self.dtype) / self.limit, one_hot(goals, self.colours).flatten(1),
        ]  # fmt: skip
        return {"obs": torch.cat([part.to(self.dtype) for part in seen], 1), "acting": turns > 0}

    def reconstruct(self, window: Window) -> Tensor:
        """Everything is seen: coins that are no longer there were taken."""
        obs = window.now.obs
        board = self._board(obs)
        colour = torch.arange(1.0, self.colours + 1, device=obs.device)
        last = obs[:, list(self.acted)].view(-1, 2, len(MOVES))
        parts = [
            (board * colour[:, None]).sum(1),
            *(obs[:, list(place)].argmax(1, keepdim=True) for place in self.places),
            *(obs[:, list(goal)].argmax(1, keepdim=True) for goal in self.goals),
            self.coins - board.sum(2), (last * torch.arange(1.0, len(MOVES) + 1, device=obs.device)).sum(2),
            obs[:, self.turns[1] : self.turns[1] + 1],
            (self.limit * (1.0 - obs[:, self.left : self.left + 1])).round(),
        ]  # fmt: skip
        return torch.cat([part.to(self.dtype) for part in parts], 1)

    def _board(self, obs: Tensor) -> Tensor:
        """Where coins lie, `(B, K, P)`."""
        if not self.centred:
            return obs[:, list(self.board)].view(-1, self.colours, self.cells)
        around = obs[:, list(self.around[0])].view(len(obs), self.colours, -1)
        where = self._around[obs[:, list(self.places[0])].argmax(1)]
        blank = around.new_zeros(len(obs), self.colours, self.cells + 1)
        return blank.scatter_add(2, where[:, None].expand_as(around), around)[..., :-1]

    # -------------------------------------------------------------------- what is best

    def optimum(self, state: Tensor) -> Tensor:
        """The best score `(B,)` that two can end an episode with who know both goals; nobody who has to find out gets
        more.

        By all sets of coins that each of them can take in the turns that it has left. Which of the two takes a coin and
        when plays no part, so that what they can take together are the unions of a set of one and a set of the other.

        Raises:
            GameError: more than `MOST_COINS` coins lie on a board.
        """
        return torch.tensor([self._best(row[None]) for row in state], dtype=self.dtype, device=self.device)

    def _best(self, state: Tensor) -> int:
        board, cells, goals, taken, _, turn, time = (part[0].cpu().numpy() for part in self._parts(state))
        where = np.flatnonzero(board)
        if len(where) > MOST_COINS:
            raise GameError(
                f"{len(where)} coins have too many sets; the best score is known for at most {MOST_COINS} on a board"
            )
        left = self.limit - int(time[0])
        turns = [(left + (int(turn[0]) == i)) // 2 for i in range(2)]
        both = np.ones(2 ** len(where), dtype=np.int64)
        for cell, moves in zip(cells, turns, strict=True):
            both *= self._subsets(self._within_reach(int(cell), moves, where).astype(np.int64))
        possible = self._subsets(both, sign=-1) > 0  # a union of two sets, one of each, is exactly this one
        sets = np.arange(len(possible))[:, None] >> np.arange(len(where)) & 1
        counts = taken + sets @ np.eye(self.colours, dtype=np.int64)[board[where] - 1]
        signs = np.where(np.isin(np.arange(self.colours), goals), 1, -1)
        return int((counts**2 @ signs)[possible].max())

    def _within_reach(self, cell: int, moves: int, where: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each set of the coins at the cells `where` can be all that one takes in so many moves from `cell`."""
        reached = np.zeros((self.cells, 2 ** len(where)), dtype=bool)
        reached[cell, 0] = True
        near = self._to.cpu().numpy()  # steps lead back, so that these are also the cells that one can come from
        for _ in range(moves):
            reached = reached[near].any(1)
            for k, place in enumerate(where):
                halves = reached[place].reshape(-1, 2, 2**k)  # sets without the k-th coin, and with it
                halves[:, 1] |= halves[:, 0]
                halves[:, 0] = False
        return np.asarray(reached.any(0))

    @staticmethod
    def _subsets(values: NDArray[np.int64], sign: int = 1) -> NDArray[np.int64]:
        """For each set the sum of `values` over its subsets; with `sign=-1` back again."""
        found, size = values.copy(), 1
        while size < len(found):
            halves = found.reshape(-1, 2, size)
            halves[:, 1] += sign * halves[:, 0]
            size *= 2
        return found
