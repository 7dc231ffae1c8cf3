"""Joint actions of all copies at once: checked, and translated into each environment's own terms."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from presage.common.game import AgentSpec, GameError, GameSpec


class ActionReader:
    """Checks `act (C, A)` and turns it into environment actions for all copies in a few array operations.

    It accepts what `GameSpec.check_action` accepts and yields what `AgentSpec.to_env` yields row by row; both of those
    are per agent, and at one copy would cost as much as a particle game's own physics.
    """

    def __init__(self, spec: GameSpec) -> None:
        self._spec = spec
        self._width = spec.act_dim
        owner = np.repeat(np.arange(spec.n), [agent.width for agent in spec.agents])
        box = np.repeat([not agent.discrete for agent in spec.agents], [agent.width for agent in spec.agents])
        self._owner = owner
        self._all_box, self._any_box = bool(box.all()), bool(box.any())
        self._box = np.flatnonzero(box)
        self._one_hot = np.flatnonzero(~box)
        discrete = [(i, where) for i, head, where in spec.heads if head.kind == "discrete"]
        self._choices = np.array([i for i, _ in discrete], dtype=np.intp)
        self._member = np.zeros((spec.act_dim, len(discrete)), dtype=np.float32)
        for column, (_, where) in enumerate(discrete):
            self._member[where, column] = 1.0
        bounds = [
            (agent.low, agent.high) if not agent.discrete else ((0.0,) * agent.width, (0.0,) * agent.width)
            for agent in spec.agents
        ]
        self._low = np.concatenate([low for low, _ in bounds])
        self._high = np.concatenate([high for _, high in bounds])
        self._span = self._high - self._low
        self._read = [_reader(agent, where) for agent, where in zip(spec.agents, spec.act, strict=True)]

    def check(self, act: np.ndarray, acting: np.ndarray, legal: np.ndarray) -> None:
        """Raise GameError unless `act (C, A)` fits the spec, `acting (C, N)` and `legal (C, A)`."""
        if not self._fits(act, acting):
            self._spec.check_action(torch.from_numpy(act), torch.from_numpy(acting))
        if self._spec.legal_varies:
            illegal = (act != 0.0) & ~legal
            if illegal.any():
                copy, entry = np.argwhere(illegal)[0].tolist()
                i = int(self._owner[entry])
                where = self._spec.act[i]
                raise GameError(
                    f"agent {self._spec.names[i]!r} in copy {copy} chose entry {entry - where.start} of its action, "
                    f"which is not legal now; legal are {np.flatnonzero(legal[copy, where]).tolist()}"
                )

    def read(self, act: np.ndarray) -> list[tuple[Any, ...]]:
        """Per copy, the environment's own action of each agent."""
        if self._any_box:
            unit = np.minimum(np.maximum(act.astype(np.float64), -1.0), 1.0)
            scaled = np.minimum(np.maximum(self._low + (unit + 1.0) * 0.5 * self._span, self._low), self._high)
            numbers = scaled.astype(np.float32)
        else:
            numbers = act
        return list(zip(*(read(act, numbers) for read in self._read), strict=True))

    def _fits(self, act: np.ndarray, acting: np.ndarray) -> bool:
        """Whether the action is certainly good; a quick test that spares the good ones `check_action`."""
        if act.ndim != 2 or act.shape[1] != self._width:
            return False
        if self._any_box:
            box = act if self._all_box else act[:, self._box]
            if not (np.abs(box) <= 1.0).all():
                return False
            if self._spec.acting_varies and box[~acting[:, self._owner[self._box]]].any():
                return False
            if self._all_box:
                return True
        one_hot = act[:, self._one_hot] if self._any_box else act
        wanted = acting[:, self._choices] if self._spec.acting_varies else 1.0
        return bool(((one_hot == 0.0) | (one_hot == 1.0)).all()) and bool((act @ self._member == wanted).all())


def _reader(agent: AgentSpec, where: slice) -> Callable[[np.ndarray, np.ndarray], Any]:
    """A function from `act (C, A)`, and the same in environment units, to the C actions of `agent` in its own terms."""
    if agent.discrete and agent.scalar:
        start = agent.starts[0]
        return lambda act, _: (act[:, where].argmax(1) + start).tolist()
    if agent.discrete:
        edges = np.cumsum([where.start, *(head.size for head in agent.heads)]).tolist()
        heads = [slice(lo, hi) for lo, hi in pairwise(edges)]
        starts = np.asarray(agent.starts, dtype=np.int64)
        return lambda act, _: np.stack([act[:, head].argmax(1) for head in heads], axis=1) + starts
    return lambda act, numbers: numbers[:, where].reshape(len(act), *agent.shape)
