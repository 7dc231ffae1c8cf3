"""The whole state of a learner as plain data and tensors, and back, exact to the bit.

A learner is any tianshou `Algorithm`, wrapped ones too, or any other `torch.nn.Module` with its optimisers. tianshou's
own `state_dict` loses the temperature's optimiser, TD3's counter, schedulers, noise and a wrapped algorithm's
optimisers; so the objects are walked: from the learner along attributes, lists, tuples and dicts. What is kept:

* tensors: parameters and buffers of every module (target networks too), and parameters that only an optimiser holds;
* optimisers, wherever they hang: settings per group, state per parameter;
* generators: torch's and numpy's;
* values (see `held_values`) of every object's attributes, be it a module, a noise or a scheduler: numbers, strings,
  None, arrays, tensors, containers of such.

Left out: gradients (a checkpoint falls between updates), functions, enums, sets, spaces, environments, tianshou's data,
attributes called `device` (a learner may move), cached properties, numbers of frozen dataclasses (configuration), and
objects that persist themselves, by methods `state` and `restore` (a game) or `save` and `load` (a replay). A class
leaves out more of its attributes by naming them in a class attribute `checkpoint_skip`.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from presage.common.checkpoint import CheckpointError
from presage.common.held_values import (
    CONTAINERS,
    Placer,
    aliases,
    copied,
    is_mutable,
    is_parameter,
    is_value,
    is_writable,
)
from presage.common.random_state import RandomGenerator, check_generator, generator_state, restore_generator
from presage.common.tree import Tree

_MODULE_INTERNALS = frozenset(vars(nn.Module())) - {"training"}
_OUTSIDE = ("gymnasium.", "pettingzoo.", "tianshou.data.", "tianshou.env.")
"""packages whose classes, with all that inherits from them, are no part of a learner"""
_FOREIGN = frozenset(sys.stdlib_module_names) | {"torch", "numpy"}
"""packages whose own classes are no part of a learner, unless this module names them"""
_PERSIST = (("state", "restore"), ("save", "load"))
"""methods of objects that persist themselves"""


def learner_state(learner: object) -> Tree:
    """A copy of all that a learner's next updates depend on but data and global random states; see the module.

    Raises:
        CheckpointError: a lazy module has not seen its first batch, or an optimiser holds what is not plain.
    """
    parts = _Parts(learner)
    return {
        "classes": dict(parts.classes),
        "tensors": {path: copied(tensor) for path, tensor in parts.tensors.items()},
        "optimisers": {path: parts.optimiser_state(path) for path in parts.optimisers},
        "generators": {path: generator_state(generator) for path, generator in parts.generators.items()},
        "values": {path: copied(slot.value, path) for path, slot in parts.values.items()},
        "aliases": aliases({path: slot.value for path, slot in parts.values.items()}, parts.tensors),
    }


def restore_learner(learner: object, tree: Tree) -> None:
    """Put `learner_state`'s tree into a learner that was built the same way; it continues as the saved one would.

    Everything is compared before anything is changed. Tensors are written in place, so that optimisers, target
    networks and shared layers keep their references. Hyperparameters come back too: change them afterwards.

    Raises:
        CheckpointError: names the first part where tree and learner differ in name, class, shape, dtype or layout.
    """
    parts = _Parts(learner)
    parts.compare(tree)
    device = next((tensor.device for tensor in parts.tensors.values()), torch.device("cpu"))
    with torch.no_grad():
        for path, tensor in parts.tensors.items():
            tensor.copy_(tree["tensors"][path])
        placer = Placer(tree["aliases"], parts.tensors, device)
        for path, new in tree["values"].items():
            parts.values[path].put(placer.place(path, parts.values[path].value, new))
        for path, optimiser in parts.optimisers.items():
            _restore_optimiser(optimiser, tree["optimisers"][path])
    for path, generator in parts.generators.items():
        restore_generator(generator, tree["generators"][path])


@dataclass(frozen=True)
class _Slot:
    """Where a value is held: an object by attribute, or a container by index or key."""

    owner: Any
    key: Any

    @property
    def value(self) -> Any:
        return self.owner[self.key] if isinstance(self.owner, CONTAINERS) else getattr(self.owner, self.key)

    def put(self, new: Any) -> None:
        """Hold `new` instead; a tuple cannot, whose arrays and tensors are written in place."""
        if isinstance(self.owner, list | deque | dict):
            self.owner[self.key] = new
        elif not isinstance(self.owner, tuple):
            object.__setattr__(self.owner, self.key, new)


class _Parts:
    """All that hangs on a learner, by path; found breadth first, so that every part goes by its shortest path."""

    def __init__(self, learner: object) -> None:
        self.classes: dict[str, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.optimisers: dict[str, Optimizer] = {}
        self.generators: dict[str, RandomGenerator] = {}
        self.values: dict[str, _Slot] = {}
        self._names: dict[int, str] = {}
        seen: set[int] = set()
        queue: deque[tuple[str, Any, _Slot | None]] = deque([("", learner, None)])
        while queue:
            path, part, slot = queue.popleft()
            if is_value(part) or id(part) not in seen:  # objects are entered once, values in all their places
                seen.add(id(part))
                queue.extend(self._enter(path, part, slot))
        for path, optimiser in self.optimisers.items():
            for i, group in enumerate(optimiser.param_groups):
                for j, parameter in enumerate(group["params"]):
                    self._enter_tensor(f"{path}.param_groups[{i}][{j}]", parameter)

    def _enter(self, path: str, part: Any, slot: _Slot | None) -> Iterable[tuple[str, Any, _Slot | None]]:
        """Put one part into its table and return what hangs on it."""
        if isinstance(part, Tensor) and (slot is None or is_parameter(part)):
            self._enter_tensor(path, part)
        elif is_value(part):
            if slot is not None and not (isinstance(slot.owner, tuple) and not is_writable(part)):
                self.values[path] = slot
        elif isinstance(part, dict):
            return [(f"{path}[{key!r}]", item, _Slot(part, key)) for key, item in part.items()]
        elif isinstance(part, CONTAINERS):
            return [(f"{path}[{i}]", item, _Slot(part, i)) for i, item in enumerate(part)]
        elif isinstance(part, RandomGenerator):
            self.generators[path] = part
        elif _belongs(part):
            self.classes[path] = type(part).__qualname__
            if isinstance(part, Optimizer):
                self.optimisers[path] = part
            below = [(f"{path}.{name}" if path else name, item, slot) for name, item, slot in _attributes(part)]
            return sorted(below, key=lambda child: child[0])
        return ()

    def _enter_tensor(self, path: str, tensor: Tensor) -> None:
        if id(tensor) in self._names:
            return
        if nn.parameter.is_lazy(tensor):
            raise CheckpointError(f"{path!r} has no shape yet: run one batch through its lazy module first")
        self.tensors[path] = tensor
        self._names[id(tensor)] = path

    def optimiser_state(self, path: str) -> list[dict[str, Any]]:
        """One optimiser's groups: paths of the parameters, settings, and the state of each parameter."""
        optimiser = self.optimisers[path]
        return [
            {
                "parameters": self._parameters(group),
                "settings": {name: copied(value, path) for name, value in group.items() if name != "params"},
                "state": [copied(dict(optimiser.state.get(parameter, {})), path) for parameter in group["params"]],
            }
            for group in optimiser.param_groups
        ]

    def _parameters(self, group: Mapping[str, Any]) -> list[str]:
        return [self._names[id(parameter)] for parameter in group["params"]]

    def compare(self, tree: Tree) -> None:
        """Raise CheckpointError at the first difference between a saved tree and these parts."""
        tables: dict[str, Mapping[str, Any]] = {
            "classes": self.classes, "tensors": self.tensors, "optimisers": self.optimisers,
            "generators": self.generators, "values": self.values,
        }  # fmt: skip
        if not isinstance(tree, Mapping) or tree.keys() != {*tables, "aliases"}:
            raise CheckpointError("this tree is no learner's state; give the one that learner_state returned")
        for path in sorted(tree["classes"].keys() & self.classes.keys()):
            _compare(path, "class", tree["classes"][path], self.classes[path])
        for table, own in tables.items():
            for path in sorted(tree[table].keys() ^ own.keys()):
                where = "this learner lacks" if path in tree[table] else "the checkpoint lacks"
                raise CheckpointError(f"{where} {path!r} (of {table}); build the learner as the saved one was built")
        held = {path: slot.value for path, slot in self.values.items()}
        for path, slot in self.values.items():
            if isinstance(slot.owner, tuple):  # can only be written in place
                _compare(path, "type", type(tree["values"][path]).__name__, type(slot.value).__name__)
        for saved, own in ((tree["tensors"], self.tensors), (tree["values"], held)):
            for path, value in own.items():
                if isinstance(value, Tensor | np.ndarray) and isinstance(saved[path], Tensor | np.ndarray):
                    _compare(path, "shape", tuple(saved[path].shape), tuple(value.shape))
                    _compare(path, "dtype", str(saved[path].dtype), str(value.dtype))
        for path, optimiser in self.optimisers.items():
            groups = tree["optimisers"][path]
            _compare(path, "number of parameter groups", len(groups), len(optimiser.param_groups))
            for group, own_group in zip(groups, optimiser.param_groups, strict=True):
                for names in zip_longest(group["parameters"], self._parameters(own_group)):
                    _compare(path, "among its parameters", *names)
                for names in zip_longest(sorted(group["settings"]), sorted(own_group.keys() - {"params"})):
                    _compare(path, "among its settings", *names)
        for path, generator in self.generators.items():
            check_generator(generator, tree["generators"][path], path)


def _belongs(part: Any) -> bool:
    """Whether an object is part of a learner, so that its attributes are walked."""
    if isinstance(part, nn.Module | Optimizer | LRScheduler):
        return True
    kind = type(part)
    if isinstance(part, type | Enum) or kind.__module__.partition(".")[0] in _FOREIGN:
        return False
    if any(all(callable(getattr(kind, verb, None)) for verb in pair) for pair in _PERSIST):
        return False
    return not any(f"{base.__module__}.".startswith(_OUTSIDE) for base in kind.__mro__)


def _attributes(part: Any) -> Iterator[tuple[str, Any, _Slot | None]]:
    """Name, value and slot of all that an object holds and that is part of a learner."""
    kind = type(part)
    held = dict(getattr(part, "__dict__", {}))
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        names = [slots] if isinstance(slots, str) else [name for name in slots if not name.startswith("__")]
        held |= {name: getattr(part, name) for name in names if hasattr(part, name)}
    if isinstance(part, nn.Module):
        for table in (part._parameters, part._buffers, part._modules):
            yield from ((name, item, None) for name, item in table.items() if item is not None)
        held = {name: item for name, item in held.items() if name not in _MODULE_INTERNALS}
    if isinstance(part, Optimizer):  # a subclass's own counters; the rest is kept per group
        inner = ("state", "param_groups", "defaults", "step")
        held = {name: item for name, item in held.items() if name not in inner and not name.startswith("_")}
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    skipped = {"device"}.union(*(vars(base).get("checkpoint_skip", ()) for base in kind.__mro__))
    for name, item in held.items():
        derived = isinstance(getattr(kind, name, None), cached_property)
        if name not in skipped and not derived and not (frozen and is_value(item) and not is_mutable(item)):
            yield name, item, _Slot(part, name)


def self_saving(held: Mapping[str, Any], world: Any = None) -> dict[str, Any]:
    """Those of the parts `held`, and of what a world holds, that save themselves by methods `state` and `restore`."""
    inside = {} if world is None else {f"world.{name}": part for name, part in vars(world).items()}
    every = {**held, **inside}
    return {name: part for name, part in every.items() if hasattr(part, "state") and hasattr(part, "restore")}


def _restore_optimiser(optimiser: Optimizer, groups: list[dict[str, Any]]) -> None:
    for group, saved in zip(optimiser.param_groups, groups, strict=True):
        for name, new in saved["settings"].items():
            old = group[name]
            group[name] = old.copy_(new) if isinstance(old, Tensor) and isinstance(new, Tensor) else copied(new)
        step_on_device = group.get("capturable") or group.get("fused")
        for parameter, state in zip(group["params"], saved["state"], strict=True):
            optimiser.state.pop(parameter, None)
            if state:
                optimiser.state[parameter] = {
                    name: copied(item, device="cpu" if name == "step" and not step_on_device else parameter.device)
                    for name, item in state.items()
                }


def _compare(path: str, what: str, saved: Any, own: Any) -> None:
    if saved != own:
        raise CheckpointError(
            f"{path or 'the learner'!r} has {what} {saved} in the checkpoint and {own} in this learner; "
            "build the learner as the saved one was built"
        )
