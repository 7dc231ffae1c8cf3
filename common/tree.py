"""Trees of plain data and tensors, taken apart into JSON and named tensors, and put together again to the bit.

What JSON lacks stands in a dict with a single key that starts with "$":

    {"$tensor": name}       a tensor              {"$int": "0x…"}           an int of 2^53 or more
    {"$complex": tensor}    a complex128 tensor   {"$float": "7ff8…"}       inf or nan: its 8 bytes, big-endian
    {"$array": tensor}      a numpy array         {"$tuple": [...]}         a tuple
    {"$scalar": array}      a numpy scalar        {"$dict": [[key, value]]} a dict with keys that JSON would confuse
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor

Tree = Any
"""nested dicts (keys str or int), lists and tuples of None, bool, int, float, str, numpy scalars, arrays and tensors"""

_ARRAYS = {np.dtype(code) for code in "?bhilqBHILQefdFD"}
_RESERVED = ("", "__metadata__")
"""names that a safetensors file cannot give to a tensor"""


class TreeError(TypeError):
    """A tree holds what cannot be stored; the message names it and where it is."""


def take_apart(tree: Tree) -> tuple[Any, dict[str, Tensor]]:
    """A tree as JSON data and the tensors that it refers to, dense on the CPU, named by their path in the tree.

    No two of the tensors share storage. Exact to the bit: NaN payloads, -0.0, integers of any length, every dtype.

    Raises:
        TreeError: something in the tree is none of the kinds of `Tree`, or it contains itself.
    """
    tensors: dict[str, Tensor] = {}
    try:
        return _encode(tree, (), tensors), _unshared(tensors)
    except RecursionError:
        raise TreeError("the tree nests too deeply or contains itself; make it flatter") from None


def put_together(data: Any, tensors: dict[str, Tensor]) -> Tree:
    """The tree that `take_apart` took apart.

    Raises:
        KeyError, TypeError, ValueError: `data` and `tensors` did not come from there.
    """
    if isinstance(data, list):
        return [put_together(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    mark: str = next(iter(data), "")
    content: Any = data.get(mark)
    if not mark.startswith("$"):
        return {key: put_together(item, tensors) for key, item in data.items()}
    match mark:
        case "$tensor":
            return tensors[content]
        case "$complex":
            return torch.view_as_complex(put_together(content, tensors))
        case "$array":
            return put_together(content, tensors).numpy()
        case "$scalar":
            return put_together(content, tensors)[()]
        case "$int":
            return int(content, 16)
        case "$float":
            return struct.unpack(">d", bytes.fromhex(content))[0]
        case "$tuple":
            return tuple(put_together(item, tensors) for item in content)
        case "$dict":
            return {put_together(key, tensors): put_together(item, tensors) for key, item in content}
    raise ValueError(f"unknown mark {mark!r}")


def _encode(value: Tree, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON data; `path` leads to it from the root; its tensors are added to `tensors`."""
    if isinstance(value, Tensor):
        return _encode_tensor(value, path, tensors)
    if isinstance(value, np.generic):
        return {"$scalar": _encode(np.asarray(value), path, tensors)}
    kind = type(value)
    if kind is np.ndarray:
        if value.dtype not in _ARRAYS:
            raise _unsupported(path, f"a numpy array of dtype {value.dtype}")
        # a copy, since torch wants writable memory and positive strides
        return {"$array": _encode_tensor(torch.from_numpy(value.copy(order="C")), path, tensors)}
    if value is None or kind is bool:
        return value
    if kind is str:
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise _unsupported(path, f"the string {value!r}, which is not Unicode,")
        return value
    if kind is int:
        return value if abs(value) < 2**53 else {"$int": hex(value)}
    if kind is float:
        return value if abs(value) < float("inf") else {"$float": struct.pack(">d", value).hex()}
    if kind in (list, tuple):
        items = [_encode(item, (*path, str(i)), tensors) for i, item in enumerate(value)]
        return items if kind is list else {"$tuple": items}
    if kind is dict:
        pairs = [[_encode_key(key, path), _encode(item, (*path, str(key)), tensors)] for key, item in value.items()]
        clear = all(type(key) is str and not key.startswith("$") for key in value)
        return dict(pairs) if clear else {"$dict": pairs}
    raise _unsupported(path, f"a {kind.__qualname__}")


def _encode_key(key: Any, path: tuple[str, ...]) -> Any:
    if type(key) not in (str, int):
        raise _unsupported(path, f"a dict key of type {type(key).__qualname__}")
    return _encode(key, path, {})


def _encode_tensor(tensor: Tensor, path: tuple[str, ...], tensors: dict[str, Tensor]) -> dict[str, Any]:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise _unsupported(path, f"a tensor of layout {tensor.layout} and dtype {tensor.dtype} on {tensor.device}")
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if tensor.dtype == torch.complex128:  # the one ordinary dtype that safetensors lacks
        return {"$complex": _encode_tensor(torch.view_as_real(dense), path, tensors)}
    name = "/".join(path)
    while name in tensors or name in _RESERVED:  # two paths can have one name, as keys may hold slashes
        name += "+"
    tensors[name] = dense
    return {"$tensor": name}


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none of which shares storage with another: safetensors refuses those that do."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return result


def _unsupported(path: tuple[str, ...], what: str) -> TreeError:
    return TreeError(
        f"the tree holds {what} at {'/'.join(path) or 'its root'!r}; it may hold dicts (keys str or int), lists and "
        "tuples of None, bool, int, float, str, and dense numeric tensors and arrays: convert it first"
    )
