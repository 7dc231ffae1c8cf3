"""Many opponents to learn against and to be tried on, kept apart by who they are; and everybody against everybody.

Shape suffixes: I egos, J opponents, E episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from presage.common.evaluate import evaluate
from presage.common.game import Actor, Game, GameError, GameSpec, View
from presage.marl.opponents.policies import Team
from presage.marl.opponents.record import Record

Together = Callable[[View, Tensor, torch.Generator | None], Tensor]
"""(views `(B, ...)`, the place in the pool of who acts in each `(B,)`, what draws) -> joint actions `(B, A)`"""


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """Somebody to play against."""

    name: str
    actor: Actor = field(repr=False)
    """plays all seats but the ego's"""
    family: str = ""
    """who is of its kind: other levels of one training run, other seeds of one rule; its own name where left out"""

    @property
    def kind(self) -> str:
        """The family, or the name."""
        return self.family or self.name


class Pool:
    """Opponents by name."""

    def __init__(self, spec: GameSpec, opponents: Sequence[Opponent], *, together: Together | None = None) -> None:
        """
        Args:
            together: answers for all of them at once, each in its own rows, faster than one after another; for
                opponents that remember nothing.

        Raises:
            GameError: two of one name, or none.
        """
        names = [opponent.name for opponent in opponents]
        if not names or len(set(names)) < len(names):
            raise GameError(f"a pool needs opponents of different names, got {names}")
        self.spec, self.opponents, self.together = spec, tuple(opponents), together

    @property
    def names(self) -> tuple[str, ...]:
        """In order."""
        return tuple(opponent.name for opponent in self.opponents)

    def __len__(self) -> int:
        return len(self.opponents)

    def __iter__(self) -> Iterator[Opponent]:
        return iter(self.opponents)

    def split(self, share: float, rng: torch.Generator) -> tuple[Pool, Pool]:
        """Opponents to learn against, and others to be tried on; no family is in both.

        Args:
            share: of the families that go to the second; in (0, 1).

        Raises:
            GameError: they are all of one family.
        """
        if not 0 < share < 1:
            raise ValueError(f"share={share} must lie in (0, 1)")
        families = sorted({opponent.kind for opponent in self})
        if len(families) < 2:
            raise GameError(f"all of {self.names} are of the family {families[0]!r}; a split needs a second one")
        count = max(1, min(len(families) - 1, round(share * len(families))))
        order = torch.randperm(len(families), generator=rng)[:count].tolist()
        chosen = {families[k] for k in order}
        tried = [place for place, opponent in enumerate(self) if opponent.kind in chosen]
        return self._of([place for place in range(len(self)) if place not in tried]), self._of(tried)

    def _of(self, places: Sequence[int]) -> Pool:
        """Some of them."""
        some = [self.opponents[place] for place in places]
        together = None if self.together is None else partial(_under_other_places, self.together, torch.tensor(places))
        return Pool(self.spec, some, together=together)

    def record(self, game: Game, ego: str, actor: Actor, episodes: int, seed: int, rng: torch.Generator) -> Record:
        """Episodes of every opponent, under its name, with the ego played by `actor`; actions are sampled.

        Args:
            episodes: against each, a multiple of the game's copies. seed: of the first one's games; the others' follow.
        """
        record = Record(self.spec)
        for place, opponent in enumerate(self):
            team = Team(self.spec, seats(self.spec, ego, actor, opponent.actor))
            record.play(game, team, episodes, seed + place, rng=rng, who=opponent.name)
        return record


def _under_other_places(
    together: Together, places: Tensor, view: View, who: Tensor, rng: torch.Generator | None
) -> Tensor:
    """What `together` answers for a pool whose opponents stand at `places` in the one that it is made for."""
    return together(view, places.to(who.device)[who], rng)


def seats(spec: GameSpec, ego: str, actor: Actor, others: Actor) -> dict[str, Actor]:
    """The ego by one actor, everybody else by another."""
    spec.index(ego)
    return {name: actor if name == ego else others for name in spec.names}


@dataclass(frozen=True, kw_only=True)
class CrossPlay:
    """What every ego gets against every opponent."""

    egos: tuple[str, ...]
    others: tuple[str, ...]
    returns: NDArray[np.float64]
    """(I, J, E) of the ego"""

    @property
    def means(self) -> NDArray[np.float64]:
        """(I, J)."""
        return np.asarray(self.returns.mean(2))

    def __str__(self) -> str:
        """The table, an ego to a line."""
        cells = [["", *self.others], *([ego, *(f"{x:.2f}" for x in row)] for ego, row in zip(self.egos, self.means,
                                                                                        strict=True))]  # fmt: skip
        widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join(line.rstrip() for line in lines)

    def plot(self) -> Figure:
        """The means as a picture."""
        size = 1.5 + 0.55 * max(len(self.others), len(self.egos))
        figure = Figure(figsize=(size + 1.5, size), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        drawn = axes.imshow(self.means, cmap="viridis")
        axes.set_xticks(range(len(self.others)), self.others, rotation=45, ha="right", fontsize=7)
        axes.set_yticks(range(len(self.egos)), self.egos, fontsize=7)
        axes.set(xlabel="opponent", ylabel="ego")
        figure.colorbar(drawn, label="return of the ego")
        return figure


def cross_play(
    make_game: Callable[[int], Game], ego: str, egos: Mapping[str, Actor], others: Mapping[str, Actor], *,
    episodes: int = 64, seed: int = 0, rng: torch.Generator | None = None,
) -> CrossPlay:  # fmt: skip
    """Every ego against every opponent, on the same episodes.

    Args:
        make_game: a game of so many copies. ego: the agent that the egos play.
        episodes: E of every pair. seed: of the games. rng: of sampled actions; None: greedy ones.

    Raises:
        GameError: nobody on one side, or an unknown agent.
    """
    if not egos or not others:
        raise GameError(f"cross-play needs both sides, got {len(egos)} egos and {len(others)} opponents")
    game = make_game(episodes)
    try:
        place = game.spec.index(ego)
        returns = np.empty((len(egos), len(others), episodes))
        for i, actor in enumerate(egos.values()):
            for j, opponent in enumerate(others.values()):
                team = Team(game.spec, seats(game.spec, ego, actor, opponent))
                returns[i, j] = evaluate(game, team, episodes, seed, rng=rng).returns[:, place]
    finally:
        game.close()
    return CrossPlay(egos=tuple(egos), others=tuple(others), returns=returns)
