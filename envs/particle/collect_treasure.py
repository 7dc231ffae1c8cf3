"""Collect treasure: collectors pick up treasures and bring each to the deposit of its type. mpe2 `collect_treasure_v1`.

Shape suffixes: C collectors, P deposits (and types), K treasures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from presage.common.game import GameError
from presage.envs.particle.physics import Term, World, WorldState
from presage.envs.particle.scenario import (
    Before,
    Look,
    Scenario,
    alike,
    at_rest,
    length,
    marks,
    pair_distance,
    square,
    touching,
    uniform,
)

COLLECTOR_SIZE, DEPOSIT_SIZE, TREASURE_SIZE = 0.05, 0.075, 0.025
GAIN = 5.0
"""for every pick-up and every delivery, to everybody; and what a collector pays for every other one that it touches"""
SHAPING = 0.1
HALF = 0.95
"""treasures appear in [-0.95, 0.95]^2"""
GONE = -999.0
"""coordinates of a treasure that has been picked up"""


@dataclass(frozen=True, kw_only=True)
class CollectTreasure(Scenario):
    """Everybody sees all others by distance, nearest first, with what they carry or take, and treasures likewise.

    A treasure that is picked up appears elsewhere, with a new type, one step later.
    """

    collectors: int = 6
    """C, >= 1"""
    deposits: int = 2
    """P, one for each type of treasure; >= 1"""
    treasures: int = 6
    """K, >= 1"""

    def __post_init__(self) -> None:
        if min(self.collectors, self.deposits, self.treasures) < 1:
            raise GameError(
                f"collectors={self.collectors}, deposits={self.deposits} and treasures={self.treasures} must be >= 1"
            )

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "collect_treasure"

    @property
    def chances(self) -> int:  # type: ignore[override]  # a number in other scenarios
        """Of every treasure: where it appears, and its type."""
        return 3 * self.treasures

    @cached_property
    def world(self) -> World:
        """Collectors, heavier deposits, treasures; nothing collides. Private: the type that every collector carries and
        that of every treasure, as one-hot vectors, zeros for nothing; pick-ups and deliveries of the last step.
        """
        c, p, k = self.collectors, self.deposits, self.treasures
        moving: dict[str, float] = {"accel": 1.5, "max_speed": 1.0}
        return World(
            agents=(
                *alike("collector", c, size=COLLECTOR_SIZE, collides=False, **moving),
                *alike("deposit", p, size=DEPOSIT_SIZE, collides=False, mass=2.25, **moving),
            ),
            landmarks=marks(k, "treasure", size=TREASURE_SIZE), private=(c + k) * p + 2,
        )  # fmt: skip

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent: position, velocity, what it carries; others from where it stands, with velocities, the type that
        they take and the one that they carry; treasures from where it stands, with their types. (`look` orders them,
        and writes the types that deposits take.)
        """
        world, n = self.world, self.collectors + self.deposits
        seen = []
        for i in range(n):
            terms = [*world.position_terms(i), *world.velocity_terms(i), *self._carried(i, nothing=[])]
            for j in range(n):
                if j != i:
                    takes: list[Term] = [(world.zero, world.zero)] * self.deposits
                    terms += [*world.position_terms(j, i), *world.velocity_terms(j), *takes, *self._carried(j, takes)]
            for k in range(self.treasures):
                kind = world.private_terms((self.collectors + k) * self.deposits, self.deposits)
                terms += [*world.position_terms(n + k, i), *kind]
            seen.append(tuple(terms))
        return tuple(seen)

    def _carried(self, agent: int, nothing: list[Term]) -> list[Term]:
        if agent >= self.collectors:
            return nothing
        return self.world.private_terms(agent * self.deposits, self.deposits)

    def look(self, device: torch.device) -> Look:
        """Write the types that deposits take, and bring others and treasures into the order of their distance."""
        c, p, k = self.collectors, self.deposits, self.treasures
        n = c + p
        of_other, of_treasure = 4 + 2 * p, 2 + p
        widths = [len(terms) for terms in self.observed()]
        others = [[j for j in range(n) if j != i] for i in range(n)]
        takes = torch.zeros(n, n - 1, p, device=device)
        for i in range(n):
            for place, j in enumerate(others[i]):
                if j >= c:
                    takes[i, place, j - c] = 1.0

        def look(state: Tensor, seen: Tensor) -> Tensor:
            alive = self._alive(state)
            found = []
            for i, block in enumerate(torch.split(seen, widths)):
                sizes = [4 + p * (i < c), (n - 1) * of_other, k * of_treasure]
                own, rest, treasures = torch.split(block, sizes)
                others_ = rest.view(n - 1, of_other, -1).clone()
                others_[:, 4 : 4 + p] += takes[i, :, :, None].to(seen.dtype)
                treasures_ = treasures.view(k, of_treasure, -1) * alive.T[:, None]
                away = torch.hypot(treasures_[:, 0], treasures_[:, 1]).masked_fill(~alive.T, torch.inf)
                found += [own, _sorted(others_, torch.hypot(others_[:, 0], others_[:, 1])), _sorted(treasures_, away)]
            return torch.cat(found)

        return look

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What collectors carry `(B, C, P)`, types of treasures `(B, K, P)`, pick-ups and deliveries `(B, 2)`."""
        c, p, k = self.collectors, self.deposits, self.treasures
        carried, kinds, events = torch.split(self.world.own(state), [c * p, k * p, 2], 1)
        return carried.reshape(-1, c, p), kinds.reshape(-1, k, p), events

    def _alive(self, state: Tensor) -> Tensor:
        """`(B, K)` bool: which treasures lie there in `state (D, B)`."""
        return self._parts(state)[1].any(2)

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Agents uniform in [-1, 1]^2, at rest; treasures in [-0.95, 0.95]^2, of uniform types."""
        n, k = self.collectors + self.deposits, self.treasures
        number = uniform(copies, 2 * n + 3 * k, rng)
        kinds = one_hot((number[:, 2 * n + 2 * k :] * self.deposits).long(), self.deposits).to(number.dtype)
        carried = number.new_zeros(copies, self.collectors * self.deposits)
        private = torch.cat([carried, kinds.flatten(1), number.new_zeros(copies, 2)], 1)
        places = square(number[:, 2 * n : 2 * n + 2 * k], HALF)
        return at_rest(self.world, square(number[:, : 2 * n]), places, private=private)

    def happen(self, state: Tensor, chance: Tensor) -> Tensor:
        """Treasures one after the other: the first free collector who touches one takes it, and one that was taken
        earlier appears; then collectors deliver.
        """
        world, k = self.world, self.treasures
        named = world.unpack(state)
        carried, kinds, _ = (part.clone() for part in self._parts(state))
        collectors, deposits = torch.split(named.position, [self.collectors, self.deposits], 1)
        where, alive = named.landmarks.clone(), kinds.any(2)
        touched = touching(where, collectors, TREASURE_SIZE + COLLECTOR_SIZE)  # (B, K, C)
        numbers = chance.T.to(state.dtype)
        fresh = square(numbers[:, : 2 * k], HALF)
        fresh_kinds = one_hot((numbers[:, 2 * k :] * self.deposits).long(), self.deposits).to(state.dtype)
        picked = torch.zeros_like(state[0])
        for t in range(k):
            able = touched[:, t] & ~carried.any(2) & alive[:, t, None]
            taken = able.any(1)
            first = one_hot(able.to(torch.uint8).argmax(1), self.collectors).bool() & taken[:, None]
            carried = torch.where(first[:, :, None], kinds[:, t, None], carried)
            picked = picked + taken.to(picked.dtype)
            absent = ~alive[:, t, None]
            where[:, t] = torch.where(absent, fresh[:, t], where[:, t].masked_fill(taken[:, None], GONE))
            kinds[:, t] = torch.where(absent, fresh_kinds[:, t], kinds[:, t].masked_fill(taken[:, None], 0.0))
        delivered = (carried.bool() & touching(collectors, deposits, COLLECTOR_SIZE + DEPOSIT_SIZE)).any(2)
        carried = carried.masked_fill(delivered[:, :, None], 0.0)
        events = torch.stack([picked, delivered.sum(1).to(picked.dtype)], 1)
        private = torch.cat([carried.flatten(1), kinds.flatten(1), events], 1)
        return torch.cat([state[: world.moving_rows], where.permute(2, 1, 0).flatten(0, 1), private.T, state[-1:]])

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, N)` for `state (D, B)`: pick-ups and deliveries, for all; collectors pay for touching each other and for
        the way to the nearest treasure or to their deposit; a deposit for the way to the nearest collector who carries
        its type, or to the middle of all collectors.
        """
        carried, kinds, events = self._parts(state)
        collectors, deposits = torch.split(self.world.position(state), [self.collectors, self.deposits], 1)
        shared = GAIN * events.sum(1, keepdim=True)

        touched = touching(collectors, collectors, 2 * COLLECTOR_SIZE).sum(2, dtype=state.dtype) - 1.0
        alive = kinds.any(2)[:, None]
        to_treasure = pair_distance(collectors, self.world.landmark_position(state)).masked_fill(~alive, torch.inf)
        to_treasure = torch.where(alive.any(2), to_treasure.amin(2), 0.0)
        to_deposit = pair_distance(collectors, deposits)
        way = torch.where(carried.any(2), (to_deposit * carried).sum(2), to_treasure)
        of_collectors = shared - GAIN * touched - SHAPING * way

        carries = carried.bool()
        nearest = to_deposit.masked_fill(~carries, torch.inf).amin(1)
        middle = length(collectors.mean(1, keepdim=True) - deposits)
        of_deposits = shared - SHAPING * torch.where(carries.any(1), nearest, middle)
        return torch.cat([of_collectors, of_deposits], 1)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """The state behind `obs (B, O)` as far as it decides what follows: treasures in the order in which the first
        collector sees them, which decides only who takes which of two treasures that it touches at once.
        """
        c, p, k = self.collectors, self.deposits, self.treasures
        widths = [len(terms) for terms in self.observed()]
        blocks = torch.split(obs, widths, 1)
        position, velocity = torch.split(torch.stack([block[:, :4] for block in blocks], 1), 2, 2)
        carried = torch.stack([block[:, 4 : 4 + p] for block in blocks[:c]], 1)
        treasures = blocks[0][:, -k * (2 + p) :].reshape(-1, k, 2 + p)
        kinds = treasures[:, :, 2:]
        where = (position[:, :1] + treasures[:, :, :2]).masked_fill(~kinds.any(2, keepdim=True), GONE)
        private = torch.cat([carried.flatten(1), kinds.flatten(1), obs.new_zeros(len(obs), 2)], 1)
        return at_rest(self.world, position, where, velocity=velocity, private=private)


def _sorted(blocks: Tensor, key: Tensor) -> Tensor:
    """Blocks `(J, X, B)` in the order of their keys `(J, B)`, smallest first, one behind the other: `(J X, B)`."""
    order = key.argsort(dim=0, stable=True)
    return blocks.gather(0, order[:, None].expand_as(blocks)).flatten(0, 1)
