"""Random generators go on where they stood, and refuse the state of another kind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from presage.common import checkpoint
from presage.common.checkpoint import CheckpointError
from presage.common.random_state import (
    RandomGenerator,
    generator_state,
    global_random_state,
    restore_generator,
    restore_global_random_state,
)

BIT_GENERATORS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]


def draws(generator: RandomGenerator) -> list[float]:
    if isinstance(generator, torch.Generator):
        found: list[float] = torch.randn(17, generator=generator).tolist()
        return found
    # single 32-bit draws leave half a word behind, which is part of the state
    return [float(generator.integers(2**16, dtype=np.uint32)), *generator.normal(size=17).tolist()]


def make(kind: str, seed: int) -> RandomGenerator:
    if kind == "torch":
        return torch.Generator().manual_seed(seed)
    return np.random.Generator({b.__name__: b for b in BIT_GENERATORS}[kind](seed))


@pytest.mark.parametrize("kind", ["torch", *(b.__name__ for b in BIT_GENERATORS)])
def test_a_generator_goes_on_through_the_disk(kind: str, tmp_path: Path) -> None:
    generator, other = make(kind, 1), make(kind, 2)
    draws(generator)
    checkpoint.save(tmp_path / "one", generator_state(generator), kind="test", version=1)
    expected = draws(generator)
    restore_generator(other, checkpoint.load(tmp_path / "one"))
    assert draws(other) == expected
    assert draws(other) == draws(generator)


@given(before=st.integers(0, 5), seed=st.integers(0, 2**32))
def test_a_state_is_a_copy(before: int, seed: int) -> None:
    for kind in ("torch", "MT19937", "SFC64"):
        generator = make(kind, seed)
        for _ in range(before):
            draws(generator)
        state = generator_state(generator)
        expected = draws(generator)
        for _ in range(2):
            restore_generator(generator, state)
            assert draws(generator) == expected


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (generator_state(make("MT19937", 0)), "algorithm 'MT19937' in the checkpoint and 'PCG64' here"),
        (generator_state(make("torch", 0)), "library 'torch' in the checkpoint and 'numpy' here"),
        ({"library": "numpy", "algorithm": "PCG64", "state": {}}, "another layout"),
        ({"library": "numpy"}, "not a generator's state"),
        (None, "not a generator's state"),
    ],
)
def test_a_numpy_generator_refuses_another_state(state: Any, sentence: str) -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(CheckpointError, match=sentence):
        restore_generator(generator, state)
    assert generator.normal() == np.random.default_rng(0).normal()


def test_a_torch_generator_refuses_another_state() -> None:
    generator = torch.Generator().manual_seed(3)
    good = generator_state(generator)
    with pytest.raises(CheckpointError, match="algorithm 'cuda' in the checkpoint and 'cpu' here"):
        restore_generator(generator, good | {"algorithm": "cuda"})
    with pytest.raises(CheckpointError, match="another layout"):
        restore_generator(generator, good | {"state": good["state"][:-1]})
    with pytest.raises(CheckpointError, match="refuses its saved state"):
        restore_generator(generator, good | {"state": torch.full_like(good["state"], 255)})


def test_the_global_streams_go_on_through_the_disk(tmp_path: Path) -> None:
    def all_draws() -> list[float]:
        return [random.random(), random.gauss(), *np.random.normal(size=3), torch.rand(()).item()]

    before = global_random_state()
    try:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        all_draws()  # normals come in pairs: one of each library is now in store
        checkpoint.save(tmp_path / "one", global_random_state(), kind="test", version=1)
        expected = all_draws()
        all_draws()
        restore_global_random_state(checkpoint.load(tmp_path / "one"))
        assert all_draws() == expected
    finally:
        restore_global_random_state(before)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cuda": [torch.zeros(16, dtype=torch.uint8)] * 99}, "of 99 CUDA devices, here are"),
        ({"python": {"words": np.zeros(3)}}, "python's global random state has another layout"),
        ({"numpy": {}}, "numpy's global random state has another layout"),
        ({"torch": generator_state(np.random.default_rng(0))}, "torch's global generator has library 'numpy'"),
        ({"more": 1}, "not a global random state"),
    ],
)
def test_other_global_states_are_refused_before_anything_is_changed(change: dict[str, Any], sentence: str) -> None:
    before = global_random_state()
    torch.manual_seed(5)
    random.seed(5)
    with pytest.raises(CheckpointError, match=sentence):
        restore_global_random_state(before | change)
    expected = (torch.rand(()).item(), random.random())
    torch.manual_seed(5)
    random.seed(5)
    assert (torch.rand(()).item(), random.random()) == expected
    restore_global_random_state(before)
