"""What the tests of the common parts share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tianshou.algorithm import algorithm_base
from tianshou.data.buffer import manager

KERNELS = ((algorithm_base, "_nstep_return"), (manager, "_prev_index"), (manager, "_next_index"))


@pytest.fixture(scope="module", autouse=True)
def _interpreted_kernels() -> Iterator[None]:
    """tianshou's kernels run as the Python functions they are: to compile them takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        for compiles in (algorithm_base.Policy, manager.ReplayBufferManager):
            patch.setattr(compiles, "_compile", staticmethod(lambda: None))
        for module, name in KERNELS:
            kernel = getattr(module, name)
            patch.setattr(module, name, getattr(kernel, "py_func", kernel))  # bare where numba is switched off
        yield
