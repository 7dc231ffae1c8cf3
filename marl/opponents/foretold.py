"""A game against a pool whose ego is told what the others are about to do: by a model of them, or truly.

What it is told stands behind what it observes, so that any learner for one agent can use a model of the others.

Shape suffixes: C game copies, B rows, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import GameError, GameSpec, Rows, View
from presage.common.heads import join
from presage.marl.opponents.against import Against
from presage.marl.opponents.assessment import Expects
from presage.marl.opponents.predicted import Predicted


class Foretold:
    """The game; as deterministic, and as resumable, as `Against` itself. What a model has learned is not part of it."""

    def __init__(self, against: Against, told: Expects | Literal["moves"]) -> None:
        """
        Args:
            against: played and closed by this one alone.
            told: a model for the ego, whose expectations are told, see `expectation`; or "moves", the moves that the
                others have settled on: more than any model can know of opponents that sample.

        Raises:
            GameError: neither of them; a model of another game, for another ego, or one that reads a history; or one is
                to be asked in a game in which some of what the others might do is illegal at times, which the ego is
                not shown.
        """
        inner = against.game.spec
        if isinstance(told, str) and told != "moves":
            raise GameError(f"told={told!r} must be 'moves', or a model for the ego")
        if told != "moves":
            name = inner.names[against.ego]
            if told.spec != inner:
                raise GameError(f"the model is of {told.spec.name!r} as it was, the pool plays {inner.name!r}")
            if told.ego != (against.ego,):
                egos = ", ".join(inner.names[ego] for ego in told.ego)
                raise GameError(f"the model is for {egos}; make one for {name!r} alone, who plays here")
            if told.history > 1:
                raise GameError(
                    f"the model reads {told.history} views at once, and is told of one here; take one with history=1, "
                    "such as behaviour cloning"
                )
            if inner.legal_varies:
                raise GameError(
                    f"in {inner.name!r} legal actions vary, and the ego is not shown the others'; tell it their "
                    '"moves", or play another game'
                )
        self.against, self.model, self.copies = against, None if told == "moves" else told, against.copies
        base, width = against.spec, len(against.hidden.actions)
        ego = base.agents[0]
        behind = tuple(range(base.obs_dim, base.obs_dim + width))
        self.spec: GameSpec = replace(
            base, name=f"{base.name}, foretold", agents=(replace(ego, obs=(*ego.obs, *behind)),),
            obs_dim=base.obs_dim + width,
        )  # fmt: skip
        self._others = [k for i in range(inner.n) if i != against.ego for k in range(inner.act_dim)[inner.act[i]]]
        """the others' columns of the joint action, in the order of `Hidden.actions`"""
        self._view: View | None = None
        if hasattr(against, "render"):
            self.render = against.render

    def reset(self, seed: int) -> View:
        """Start episode 0 in every copy; C rows."""
        self._view = self._shown(self.against.reset(seed))
        return self._view

    def step(self, act: Tensor) -> tuple[Rows, View]:
        """Play `act (C, A)` of the ego; the transitions, and the view to act on next.

        Raises:
            GameError: before `reset`; and as of `Against`.
        """
        if self._view is None:
            raise GameError(f"call reset(seed) before playing {self.spec.name!r}")
        rows, after = self.against.step(act)
        reached = self._shown(rows.next_view)
        begun = bool((rows.terminated[:, 0] | rows.truncated).any())
        found = Rows.of(
            self.spec, self._view, rows.act, rows.reward, reached, rows.terminated, rows.truncated, rows.step
        )  # fmt: skip
        self._view = self._shown(after) if begun else reached
        return found, self._view

    def state(self) -> dict[str, Any]:
        """Plain data and tensors from which `restore` continues exactly, with the same model."""
        return {"game": self.spec.name, "inner": self.against.state()}

    def restore(self, state: Mapping[str, Any]) -> View:
        """Continue from `state`; the view to act on next.

        Raises:
            GameError: the state is of another game; and as of `Against`.
        """
        if state["game"] != self.spec.name:
            raise GameError(f"the saved state is of {state['game']!r}; this game is {self.spec.name!r}")
        try:
            self._view = self._shown(self.against.restore(state["inner"]))
        except GameError as error:
            boundary = getattr(error, "boundary", None)
            if boundary is not None:
                error.boundary = {**state, "inner": boundary}  # type: ignore[attr-defined]  # as adapters
            raise
        return self._view

    def close(self) -> None:
        """Free what the inner game holds."""
        self.against.close()

    @torch.no_grad()
    def _shown(self, view: View) -> View:
        """What is seen of `Against`'s `view`, with what is told behind it."""
        if self.model is None:
            told = view.obs[:, list(self.against.hidden.actions)]
        else:
            inside = self.against.inside(view)
            told = expectation(self.model.expected(first_window(self.model.spec, inside)))[:, self._others]
        return View.of(self.spec, torch.cat([view.obs, told], 1), acting=view.acting, legal=view.legal)


def expectation(expected: Predicted) -> Tensor:
    """The probabilities of one-hot actions, head by head, and the likeliest box actions: `(B, A)`."""
    parts = []
    for part in expected.parts:
        parts.append(torch.cat(part.marginals(), -1) if part.group.discrete else part.mode())
    return join([part.group for part in expected.parts], parts)
