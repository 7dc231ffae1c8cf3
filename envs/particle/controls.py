"""What a joint action does in a particle world: who pushes where, and what is said."""

from __future__ import annotations

import torch
from torch import Tensor

from presage.common.game import GameSpec
from presage.envs.particle.physics import Differences, Term, World

MOVES = 5
"""entries of a movable agent's action: nothing, -x, +x, -y, +y"""


class Controls:
    """Reads pushes and words out of joint actions by mpe2's rules.

    A discrete agent that moves and speaks has one entry for every pair of a word and a move, unless its words are
    symbols of their own. A continuous one has its moves and its words side by side, each in [0, 1] in the environment's
    own terms.
    """

    def __init__(self, world: World, spec: GameSpec, *, device: torch.device | str) -> None:
        self._shape = (2, len(world.agents))
        self._discrete = spec.discrete
        # The entries of pairs are summed into moves and words, which are appended to the joint action, so that every
        # push is a difference of two columns of the result and every word is one of its columns.
        speaking = [(i, world.agents[i]) for i in world.speakers]
        paired = [i for i, body in speaking if spec.discrete and body.movable and not body.symbols]
        self._pairs = [(spec.act[i], (world.words, MOVES)) for i in paired]
        appended = spec.act_dim
        pushes: tuple[list[Term], list[Term]] = ([], [])
        words: list[int] = []
        for i, body in enumerate(world.agents):
            first = spec.act[i].start
            if i in paired:
                first, appended = appended, appended + MOVES + world.words
            for axis in (0, 1):
                pushes[axis].append((first + 2 * axis + 2, first + 2 * axis + 1) if body.movable else (0, 0))
            if not body.silent:
                word = first + MOVES * body.movable
                words.extend(range(word, word + world.words))
        self._push = Differences([*pushes[0], *pushes[1]], device=device)
        self._words = torch.tensor(words, dtype=torch.long, device=device)

    def __call__(self, act: Tensor) -> tuple[Tensor, Tensor]:
        """The pushes `(2, N, B)` by axis and the words `(S * M, B)` of joint actions `act (B, A)`."""
        if self._discrete:
            for where, shape in self._pairs:
                pairs = act[:, where].reshape(len(act), *shape)
                act = torch.cat([act, pairs.sum(1), pairs.sum(2)], 1)
        else:
            # The environment's own numbers are float32, and mpe2 subtracts them as such.
            act = ((act.clamp(-1.0, 1.0) + 1.0) * 0.5).to(torch.float32)
        columns = act.T
        return self._push(columns).view(*self._shape, len(act)), columns.index_select(0, self._words)
