"""Which rows are held out and which a member resamples, decided by a row's number alone, for ever.

Drawing the split afresh at every fit would score networks on rows that an earlier fit trained them on, and drawing the
bootstrap afresh would show every member all rows in the end; here few rows change sides as data grow. Neighbouring rows
of an episode are alike (landmarks stay where they are), so that whole stretches of an episode are held out together.

Shape suffixes: B rows, M networks in a stack (owner, member), W rows in a member's resample, H held-out rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from presage.common.game import ALL_AGENTS

_POISSON = (0.36787944, 0.73575888, 0.91969860, 0.98101184, 0.99634015, 0.99940582, 0.99991676, 0.99998975)
"""distribution function of the Poisson distribution with mean 1 at 0..7"""


def uniform_by_number(number: Tensor, salt: int) -> Tensor:
    """A number in [0, 1) for every integer in `number`, float64; the same wherever and whenever it is asked for.

    A counter hash: two rounds of 31-bit multiply and shift (the finaliser of MurmurHash3, kept within int64).
    """
    mask = 0xFFFFFFFF
    h = (number.long() * 0x9E3779B1 + salt * 0x85EBCA77) & mask
    for multiplier in (0x85EBCA6B, 0xC2B2AE35):
        h = ((h ^ (h >> 16)) * multiplier) & mask
    return (h ^ (h >> 16)).double() / 2.0**32


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """Where the rows of one fit stand in the history of the game."""

    ego: Tensor
    """(B,) whose rows they are; rows of `ALL_AGENTS` are everybody's"""
    number: Tensor
    """(B,) int64, the same for a row in every fit"""
    stretch: Tensor
    """(B,) number of the first row of the stretch of its episode that is held out together"""

    @classmethod
    def of(cls, ego: Tensor, step: Tensor, lanes: int, first: int, length: int) -> Numbered:
        """Number rows that are ordered by time, then lane.

        Args:
            ego: `(B,)`. step: `(B,)` env steps since the episode's start.
            lanes: rows of one time, one per copy of the game. first: time of the first rows.
            length: steps in a stretch.
        """
        number = torch.arange(len(ego), device=ego.device) + first * lanes
        return cls(ego=ego, number=number, stretch=number - step.long() % length * lanes)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Training and held-out rows of every owner, as indices into the rows of one fit."""

    train: tuple[Tensor, ...]
    """per owner"""
    held_out: tuple[Tensor, ...]
    """per owner"""

    @classmethod
    def of(cls, rows: Numbered, owners: int, share: float, most: int, salt: int) -> Split:
        """Hold out `share` of an owner's rows, but `most` at most, stretch by stretch (the last one is cut to size).

        Raises:
            ValueError: an owner has too few rows for one held-out and one training row.
        """
        index = torch.arange(len(rows.ego), device=rows.ego.device)
        key = uniform_by_number(rows.stretch, salt)
        train, held_out = [], []
        for owner in range(owners):
            own = index if owners == 1 else index[(rows.ego == owner) | (rows.ego == ALL_AGENTS)]
            size = min(int(share * len(own)), most)
            if size < 1:
                whose = "" if owners == 1 else f" of owner {owner}"
                raise ValueError(
                    f"{len(own)} rows{whose} are too few to fit on: holdout={share:g} of them is no row at all; "
                    f"collect at least {int(1 / share) + 1}"
                )
            order = key[own].argsort(stable=True)
            held_out.append(own[order[:size]])
            train.append(own[order[size:].sort().values])
        return cls(train=tuple(train), held_out=tuple(held_out))

    def resamples(self, rows: Numbered, members: int, salt: int, bootstrap: bool) -> Tensor:
        """`(M, W)` training rows of every network: a Poisson bootstrap of its owner's, or all of them.

        Networks with fewer rows than the longest start over with their first ones.
        """
        lists = []
        for owner, train in enumerate(self.train):
            for member in range(members):
                if not bootstrap:
                    lists.append(train)
                    continue
                chance = uniform_by_number(rows.number[train], salt + 1 + owner * members + member)
                times = torch.bucketize(chance, chance.new_tensor(_POISSON), right=True)
                drawn = train.repeat_interleave(times)
                lists.append(drawn if len(drawn) else train)
        width = max(len(rows) for rows in lists)
        turn = torch.arange(width, device=lists[0].device)
        return torch.stack([rows[turn % len(rows)] for rows in lists])

    def repeated(self, images: int, rows: int) -> Split:
        """The same split where `images` copies of all `rows` rows follow them; copies only train."""
        return Split(train=tuple(repeated(own, images, rows) for own in self.train), held_out=self.held_out)

    def with_heads(self, heads: int) -> Split:
        """The same split where every row stands `heads` times, its copies side by side."""
        return Split(
            train=tuple(side_by_side(own, heads) for own in self.train),
            held_out=tuple(side_by_side(own, heads) for own in self.held_out),
        )

    def scored(self, members: int) -> tuple[Tensor, Tensor]:
        """`(M, H)` held-out rows of every network, and `(M, H)` weights, 0 where a row only fills up."""
        width = max(len(rows) for rows in self.held_out)
        turn = torch.arange(width, device=self.held_out[0].device)
        rows = torch.stack([own[turn % len(own)] for own in self.held_out])
        weights = torch.stack([(turn < len(own)).float() for own in self.held_out])
        return rows.repeat_interleave(members, 0), weights.repeat_interleave(members, 0)


def repeated(index: Tensor, images: int, rows: int) -> Tensor:
    """Indices `(..., W)` into `rows` rows, and into `images` copies of them that follow: `(..., (1 + images) W)`."""
    return torch.cat([index + k * rows for k in range(images + 1)], -1)


def side_by_side(index: Tensor, copies: int) -> Tensor:
    """Indices `(..., W)` of rows as those of their `copies`, which stand side by side: `(..., W * copies)`."""
    return (index[..., None] * copies + torch.arange(copies, device=index.device)).flatten(-2)
