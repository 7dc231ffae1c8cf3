"""Where tensors live: the device of a run, and a game whose rows arrive there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from presage.common.game import Game, GameError, GoalRule, Rows, View


class DeviceError(RuntimeError):
    """A device was asked for that is not there."""


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to run on; `auto` is CUDA where torch sees it.

    Raises:
        DeviceError: CUDA was asked for and torch does not see it.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device='cuda', but torch sees no CUDA device; ask `presage doctor`, or use device='cpu'")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


class GameOnDevice:
    """A game that may live elsewhere, with views and rows on `device` and actions taken from there."""

    def __init__(self, game: Game, device: torch.device) -> None:
        self.game, self.spec, self.copies, self.device = game, game.spec, game.copies, device
        self.goal_rule: GoalRule | None = getattr(game, "goal_rule", None)
        self._home = device

    def reset(self, seed: int) -> View:
        return self._arrive(self.game.reset(seed))

    def step(self, act: Tensor) -> tuple[Rows, View]:
        rows, view = self.game.step(act.to(self._home))
        return rows if self._home == self.device else rows.to(self.device), self._arrive(view)

    def state(self) -> dict[str, Any]:
        return self.game.state()

    def restore(self, state: Mapping[str, Any]) -> View:
        return self._arrive(self.game.restore(state))

    def render(self, copy: int) -> np.ndarray:
        """The picture of one copy; raises GameError where the game does not draw."""
        draw: Callable[[int], np.ndarray] | None = getattr(self.game, "render", None)
        if draw is None:
            raise GameError(f"{self.spec.name!r} does not draw itself")
        return draw(copy)

    def close(self) -> None:
        self.game.close()

    def _arrive(self, view: View) -> View:
        self._home = view.obs.device
        if self._home == self.device:
            return view
        return View(**{f.name: getattr(view, f.name).to(self.device) for f in fields(View)})
