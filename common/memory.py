"""How the process keeps memory that tensors come and go in."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""of glibc's `mallopt`"""
_LARGEST = (1 << 30, 32 << 20)
"""bytes of a block that is still taken from the kept memory: what is wished for, and what older versions take"""


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, instead of giving it back to the system; True where that can be set.

    Large blocks are handed back to Linux as soon as a tensor dies, and its successor, a step later, gets pages that the
    system has to clear one by one first: up to a third of the time of imagining many rows on the CPU
    (`benchmarks/ensemble_speed.py`). With this, what was once used at the same time, and a little more, stays with the
    process until it ends. No number changes. Training calls it; it concerns the whole process, so importing the package
    does not.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc; other C libraries have none
    if mallopt is None:
        return False
    return (
        any(mallopt(_MMAP_THRESHOLD, bytes_) for bytes_ in _LARGEST)
        and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
        and bool(mallopt(_TOP_PAD, 64 << 20))
    )
