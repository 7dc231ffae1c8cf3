"""Values that a learner's objects hold beside modules and optimisers: which are kept, how copied, how put back.

A value is a number, a string, None, a numeric array, a tensor that is no parameter, or nested lists, tuples, deques and
dicts (keys str or int) of such. Everything else is structure, which is walked and compared, not copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from copy import copy
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from presage.common.checkpoint import CheckpointError

CONTAINERS = (list, tuple, deque, dict)
_SCALARS = (type(None), bool, int, float, str)
_NUMERIC = "biufc"
"""kinds of numpy dtypes that are kept"""


def is_parameter(part: Any) -> bool:
    """Whether a part is a tensor that gradients are taken to, so that optimisers may hold it."""
    return isinstance(part, Tensor) and part.requires_grad and part.is_leaf


def is_value(part: Any) -> bool:
    """Whether a part is kept as it is; see the module."""
    if isinstance(part, Tensor):
        return not is_parameter(part)
    if isinstance(part, np.ndarray | np.generic):
        return part.dtype.kind in _NUMERIC
    if isinstance(part, dict):
        return all(type(key) in (str, int) and is_value(item) for key, item in part.items())
    return all(map(is_value, part)) if isinstance(part, CONTAINERS) else type(part) in _SCALARS


def is_mutable(part: Any) -> bool:
    """Whether a value can change in place, so that it matters who else holds it."""
    return isinstance(part, Tensor | np.ndarray | list | deque | dict)


def is_writable(part: Any) -> bool:
    """Whether a value can be overwritten in place: mutable, not expanded, read-only or made in inference mode."""
    if isinstance(part, Tensor):
        expanded = any(stride == 0 and size > 1 for stride, size in zip(part.stride(), part.shape, strict=True))
        return not expanded and not part.is_inference()
    return part.flags.writeable if isinstance(part, np.ndarray) else is_mutable(part)


def copied(value: Any, where: str = "", device: torch.device | str = "cpu") -> Any:
    """A deep copy with tensors on `device`; deques become lists, dicts and tuples of any class plain ones.

    Raises:
        CheckpointError: what is to be copied holds something else than values, at `where`.
    """
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: copied(item, where, device) for key, item in value.items()}
    if isinstance(value, CONTAINERS):
        items = [copied(item, where, device) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if type(value) in _SCALARS or isinstance(value, np.generic):
        return value
    raise CheckpointError(
        f"{where!r} holds a {type(value).__qualname__}, which cannot be saved: hold numbers or tensors"
    )


def aliases(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """For every path in `values` that leads to the very object of an earlier path, or of a tensor: that other path."""
    first = {id(tensor): path for path, tensor in tensors.items()}
    below = chain.from_iterable(_below(path, value) for path, value in values.items())
    found = {path: first.setdefault(id(part), path) for path, part in below if is_mutable(part)}
    return {path: other for path, other in found.items() if path != other}


class Placer:
    """Puts saved values in the place of held ones, in place where it can, sharing what was shared when saved."""

    def __init__(self, shared: Mapping[str, str], tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """
        Args:
            shared: what `aliases` returned at the save.
            tensors: parameters and buffers, which already have their content.
            device: where a tensor goes that takes the place of something else.
        """
        self._shared, self._device = shared, device
        self._placed: dict[str, Any] = dict(tensors)
        self._taken = set(map(id, tensors.values()))

    def place(self, path: str, old: Any, new: Any) -> Any:
        """What shall stand at `path` instead of `old`, with the content of `new`; paths come in the saved order."""
        if path in self._shared:
            return self._placed[self._shared[path]]
        if id(old) in self._taken:  # another path has been given it: this one gets its own, a container of that class
            old = copy(old) if isinstance(old, CONTAINERS) else None
        result = self._filled(path, old, new)
        self._placed[path] = result
        self._taken.add(id(result))
        return result

    def _filled(self, path: str, old: Any, new: Any) -> Any:
        if isinstance(new, Tensor):
            if isinstance(old, Tensor) and _same_layout(old, new) and is_writable(old):
                return old.copy_(new)
            return copied(new, device=old.device if isinstance(old, Tensor) else self._device)
        if isinstance(new, np.ndarray):
            if not (isinstance(old, np.ndarray) and _same_layout(old, new) and is_writable(old)):
                return new.copy()
            old[...] = new
            return old
        if isinstance(new, dict):
            into = old if isinstance(old, dict) else {}
            pairs = {key: self.place(f"{path}[{key!r}]", into.get(key), item) for key, item in new.items()}
            into.clear()
            into.update(pairs)
            return into
        if isinstance(new, list | tuple):
            held = chain(old if isinstance(old, list | tuple | deque) else (), repeat(None))
            items = [self.place(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(held, new, strict=False))]
            if isinstance(new, tuple):
                named = isinstance(old, tuple) and hasattr(old, "_make") and len(old) == len(new)
                if isinstance(old, torch.Size) and all(type(item) is int for item in items):
                    return torch.Size(items)
                return type(old)(*items) if named else tuple(items)
            if not isinstance(old, list | deque):
                return items
            old.clear()
            old.extend(items)
            return old
        return new


def _same_layout(old: Any, new: Any) -> bool:
    return bool((old.shape, old.dtype) == (new.shape, new.dtype))


def _below(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value and all that it contains, by path, in the order in which `Placer` comes by."""
    yield path, value
    if isinstance(value, CONTAINERS):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _below(f"{path}[{key!r}]", item)
