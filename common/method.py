"""What a method is to the training loop: a frozen configuration that builds a `Dyna` for a game."""

from __future__ import annotations

from typing import Protocol

import torch

from presage.common.dyna import Dyna
from presage.common.game import GameSpec, Kernel
from presage.common.streams import Streams


class Method(Protocol):
    """A method's numbers; `build` puts its parts together."""

    def build(self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None) -> Dyna:
        """The method on a game.

        Args:
            spec: the game. streams: generators by name; those that are used on the device are made there.
            true_kernel: the game's own dynamics where it offers them; read only by a configuration that asks for it.
        """
        ...
