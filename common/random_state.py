"""States of random generators as plain data: those passed in, and the global ones that tianshou and numpy draw from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from presage.common.checkpoint import CheckpointError
from presage.common.tree import Tree

RandomGenerator = torch.Generator | np.random.Generator


def generator_state(generator: RandomGenerator) -> Tree:
    """Where a generator stands, so that `restore_generator` continues its stream.

    A numpy generator's count of spawned children is not part of it: spawn at the start, not during a run.
    """
    if isinstance(generator, torch.Generator):
        return {"library": "torch", "algorithm": generator.device.type, "state": generator.get_state()}
    state = deepcopy(generator.bit_generator.state)
    return {"library": "numpy", "algorithm": state["bit_generator"], "state": state}


def restore_generator(generator: RandomGenerator, state: Tree) -> None:
    """Continue the stream that `generator_state` was taken of.

    Raises:
        CheckpointError: the state is of another kind of generator, or of one on another kind of device.
    """
    check_generator(generator, state)
    try:
        if isinstance(generator, torch.Generator):
            generator.set_state(state["state"])
        else:
            generator.bit_generator.state = state["state"]
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"a random generator refuses its saved state ({error}); use another checkpoint"
        ) from error


def check_generator(generator: RandomGenerator, state: Tree, name: str = "a random generator") -> None:
    """Raise CheckpointError, which calls the generator `name`, unless `restore_generator` would take the state."""
    own = generator_state(generator)
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise CheckpointError(f"{name}: this is not a generator's state; give what generator_state returned")
    for key in ("library", "algorithm"):
        if state[key] != own[key]:
            raise CheckpointError(
                f"{name} has {key} {state[key]!r} in the checkpoint and {own[key]!r} here; make it as it was made there"
            )
    if _layout(state["state"]) != _layout(own["state"]):
        raise CheckpointError(f"{name}: its saved state has another layout than this version's; use the versions saved")


def global_random_state() -> Tree:
    """Where the global streams stand: Python's `random`, `numpy.random`, torch on the CPU and, once used, on CUDA."""
    version, words, gauss = random.getstate()
    # asking an unused CUDA device for its state would start it
    used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call] # torch's gap
    return {
        "python": {"version": version, "words": np.array(words, dtype=np.uint32), "gauss": gauss},
        "numpy": deepcopy(np.random.get_state(legacy=False)),
        "torch": generator_state(torch.default_generator),
        "cuda": torch.cuda.get_rng_state_all() if used else [],
    }


def restore_global_random_state(state: Tree) -> None:
    """Continue the global streams that `global_random_state` was taken of.

    Raises:
        CheckpointError: another version of Python or numpy, or another number of CUDA devices; nothing is changed then.
    """
    own = global_random_state()
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise CheckpointError("this is not a global random state; give what global_random_state returned")
    for part in ("python", "numpy"):
        if _layout(state[part]) != _layout(own[part]):
            raise CheckpointError(f"{part}'s global random state has another layout than here; use the version saved")
    check_generator(torch.default_generator, state["torch"], "torch's global generator")
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if state["cuda"] and len(state["cuda"]) != devices:
        raise CheckpointError(
            f"the global random state is of {len(state['cuda'])} CUDA devices, here are {devices}; resume where it was "
            "saved, or load the learner alone"
        )
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(state["numpy"])
    restore_generator(torch.default_generator, state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def _layout(state: Any) -> Any:
    """Names, shapes and dtypes in a state, without its numbers."""
    if isinstance(state, Mapping):
        return {key: _layout(value) for key, value in state.items()}
    if isinstance(state, Tensor | np.ndarray):
        return tuple(state.shape), state.dtype
    return state if isinstance(state, str) else None
