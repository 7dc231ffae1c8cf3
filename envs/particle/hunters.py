"""Scripted predators for `Hunted`, each by a simple rule of whom it runs after.

The first four are those that LIAM's authors wrote (Papoudakis, Christianos, Albrecht 2021, released code); the others
stand in for the policies that they trained.

Shape suffixes: B rows, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from presage.common.game import Carry, GameError, View, Window
from presage.envs.particle.controls import MOVES
from presage.envs.particle.hunted import Hunted

PREDATORS = 3
LEAD = 5.0
"""env steps by which a predator that aims ahead is ahead"""
STEP = 0.1
"""time of an env step"""

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(the others from where it stands `(B, 3, 2)`, two predators and then the prey; the prey's velocity `(B, 2)`; uniform
numbers in [0, 1) `(B,)`) -> the way that it heads for `(B, 2)`"""


def prey(away: Tensor, velocity: Tensor, chance: Tensor) -> Tensor:
    """After the prey."""
    return away[:, 2]


def farthest(away: Tensor, velocity: Tensor, chance: Tensor) -> Tensor:
    """After whoever is farthest away in one coordinate."""
    return _chosen(away, away.abs().amax(2).argmax(1))


def nearest(away: Tensor, velocity: Tensor, chance: Tensor) -> Tensor:
    """After whoever is nearest."""
    return _chosen(away, away.square().sum(2).argmin(1))


def other(away: Tensor, velocity: Tensor, chance: Tensor) -> Tensor:
    """After one of the other predators, in every step another one by chance."""
    return _chosen(away, (chance >= 0.5).long())


def ahead(away: Tensor, velocity: Tensor, chance: Tensor) -> Tensor:
    """To where the prey will be."""
    return away[:, 2] + LEAD * STEP * velocity


def together(away: Tensor, velocity: Tensor, chance: Tensor) -> Tensor:
    """Between the prey and the predator that is nearest to it."""
    pack = torch.cat([torch.zeros_like(away[:, :1]), away[:, :2]], 1)
    first = _chosen(pack, (pack - away[:, 2:]).square().sum(2).argmin(1))
    return 0.5 * (first + away[:, 2])


def still(away: Tensor, velocity: Tensor, chance: Tensor) -> Tensor:
    """Nowhere."""
    return torch.zeros_like(velocity)


RULES: Mapping[str, Rule] = {
    rule.__name__: rule for rule in (prey, farthest, nearest, other, ahead, together, still)
}  # fmt: skip
"""by name"""


class Packs:
    """Sets of three predators, each predator by a rule of its own, all sets at once; the prey does nothing. They
    remember nothing; a push is along the longer coordinate of the way.
    """

    def __init__(self, scenario: Hunted, sets: Sequence[Sequence[str]]) -> None:
        """
        Args:
            scenario: the game, with three predators. sets: the rules of each one's predators, out of `RULES`.

        Raises:
            GameError: no sets, other numbers of predators, or an unknown rule.
        """
        if not sets:
            raise GameError("no sets of predators: name the rules of one or more")
        for rules in sets:
            if set(rules) - RULES.keys() or len(rules) != PREDATORS or scenario.adversaries != PREDATORS:
                raise GameError(
                    f"{scenario.adversaries} predators by rules={tuple(rules)}: there must be {PREDATORS}, each by "
                    f"one of {', '.join(RULES)}"
                )
        used = sorted({name for rules in sets for name in rules})
        self._rules = [RULES[name] for name in used]
        self._places = torch.tensor([[used.index(name) for name in rules] for rules in sets])
        """(sets, predators) of their rules"""
        self._width = len(scenario.observed()[0])
        self._first = 4 + 2 * scenario.obstacles
        """of a predator's numbers, those that tell of the others"""

    @torch.no_grad()
    def __call__(self, view: View, who: Tensor, rng: torch.Generator | None) -> Tensor:
        """Joint actions `(B, A)` of the sets `who (B,)`; with rng None chance decides for the first one."""
        rows, obs = len(view), view.obs
        chance = obs.new_zeros(rows, PREDATORS)
        if rng is not None:
            chance = torch.rand(chance.shape, generator=rng, device=chance.device)
        own = obs[:, : PREDATORS * self._width].reshape(-1, self._width)
        away, velocity = own[:, self._first : self._first + 6].view(-1, 3, 2), own[:, -2:]
        ways = torch.stack([rule(away, velocity, chance.flatten()) for rule in self._rules], 1)
        places = self._places.to(who.device)[who].flatten()
        moves = _moves(_chosen(ways, places)).view(rows, PREDATORS)
        act = one_hot(torch.cat([moves, torch.zeros_like(moves[:, :1])], 1), MOVES).to(obs.dtype).flatten(1)
        return act * view.acting.repeat_interleave(MOVES, 1)


class Hunters:
    """One such set as an actor."""

    def __init__(self, scenario: Hunted, rules: Sequence[str]) -> None:
        """
        Args:
            scenario, rules: as of `Packs`.

        Raises:
            GameError: as there.
        """
        self._pack = Packs(scenario, [rules])

    def init(self, window: Window) -> Carry:
        """Nothing to remember."""
        return None

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`, as of `Packs`."""
        return carry, self._pack(view, torch.zeros(len(view), dtype=torch.int64, device=view.obs.device), rng)


def _chosen(points: Tensor, place: Tensor) -> Tensor:
    """One of the points `(B, K, 2)` in every row, `(B, 2)`."""
    return points.gather(1, place[:, None, None].expand(-1, 1, 2)).squeeze(1)


def _moves(ways: Tensor) -> Tensor:
    """The pushes `(B,)` along the longer coordinates of `ways (B, 2)`; none for no way."""
    x, y = ways.unbind(1)
    along_x, along_y = 1 + (x >= 0).long(), 3 + (y >= 0).long()
    return torch.where(x.abs() >= y.abs(), along_x, along_y) * (ways != 0).any(1)
