"""Crypto (covert communication): Alice tells Bob a message under a key they share, and Eve listens.

mpe2 `simple_crypto_v3`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from presage.envs.particle.physics import Body, Term, World, WorldState
from presage.envs.particle.scenario import Before, Scenario, at_rest, marks, square, uniform

WORDS = 4
MEANINGS = 2
"""messages and keys that are drawn; each is one entry of a one-hot vector of `WORDS` numbers"""
EVE, BOB, ALICE = range(3)


@dataclass(frozen=True, kw_only=True)
class Crypto(Scenario):
    """Nobody moves. Alice sees message and key, Bob the key and what Alice said, Eve what Alice said."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        return "crypto"

    @cached_property
    def world(self) -> World:
        """Three speakers who never move; two landmarks without meaning. Private: the message, the key."""
        names = ("eve_0", "bob_0", "alice_0")
        return World(
            agents=tuple(Body(name=name, movable=False, collides=False, silent=False) for name in names),
            landmarks=marks(MEANINGS), words=WORDS, private=2 * WORDS,
        )  # fmt: skip

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Eve: Alice's word. Bob: the key, Alice's word. Alice: the message, the key."""
        heard, key = self.world.message_terms(ALICE), self.world.private_terms(WORDS)
        return tuple(heard), (*key, *heard), tuple(self.world.private_terms())

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """A uniform message and a uniform key."""
        number = uniform(copies, 2 + 2 * (len(self.world.agents) + MEANINGS), rng)
        chosen = (number[:, :2] * MEANINGS).long()
        private = torch.nn.functional.one_hot(chosen, WORDS).to(number.dtype).flatten(1)
        place = square(number[:, 2:])
        return at_rest(self.world, place[:, :3], place[:, 3:], private=private)

    def rewards(self, state: Tensor) -> Tensor:
        """`(B, 3)` for `state (D, B)`: squared errors of Eve's and Bob's words as guesses of the message; Eve pays
        hers, Alice and Bob get it and pay Bob's. Silence, all zeros, counts as no guess.
        """
        named = self.world.unpack(state)
        guess, message = named.message, named.private[:, None, :WORDS]
        error = (guess - message).square().sum(-1) * (guess != 0).any(-1)
        team = error[:, EVE] - error[:, BOB]
        return torch.stack([-error[:, EVE], team, team], 1)

    def reconstruct(self, obs: Tensor, before: Before | None = None) -> WorldState:
        """A state like the one behind `obs (B, 20)`; where all stand and what Eve and Bob said has no effect."""
        rows, private = len(obs), obs[:, 3 * WORDS :]
        message = obs.new_zeros(rows, 3, WORDS)
        message[:, ALICE] = obs[:, :WORDS]
        nowhere = obs.new_zeros(rows, 3, 2)
        return at_rest(self.world, nowhere, nowhere[:, :MEANINGS], message=message, private=private)
