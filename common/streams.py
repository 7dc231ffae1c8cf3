"""Named streams of random numbers from one seed, so that a part's draws do not shift another's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

Streams = Callable[[str], torch.Generator]
"""the generator of a named stream; every call makes a new one at the stream's start"""


def streams(seed: int, device: torch.device | str = "cpu") -> Streams:
    """Generators on `device` by name: another stream for every name, the same for the same seed."""

    def stream(name: str) -> torch.Generator:
        high, low = np.random.SeedSequence((seed, *name.encode())).generate_state(2, dtype=np.uint32)
        return torch.Generator(device=device).manual_seed(int(high) << 31 ^ int(low))

    return stream
