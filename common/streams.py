"""Named streams of random numbers from one seed, so that a part's draws do not shift another's."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch


class Streams(Protocol):
    """The generator of a named stream; every call makes a new one at the stream's start."""

    def __call__(self, name: str, device: torch.device | str | None = None) -> torch.Generator:
        """
        Args:
            name: of the stream.
            device: where it is made instead of where all of them are: weights are drawn on "cpu", so that every device
                starts from the same ones.
        """
        ...


def streams(seed: int, device: torch.device | str = "cpu") -> Streams:
    """Generators on `device` by name: another stream for every name, the same for the same seed."""
    home = device

    def stream(name: str, device: torch.device | str | None = None) -> torch.Generator:
        high, low = np.random.SeedSequence((seed, *name.encode())).generate_state(2, dtype=np.uint32)
        place = home if device is None else device
        return torch.Generator(place).manual_seed(int(high) << 31 ^ int(low))

    return stream
