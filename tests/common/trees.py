"""Trees of every kind of value that a checkpoint can hold, and when two of them are the same."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from presage.common.tree import Tree

TORCH_DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.complex128, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


def content(array: Any) -> bytes:
    """The elements' bytes in C order."""
    if isinstance(array, torch.Tensor):
        flat = torch.empty(array.numel(), dtype=array.dtype).copy_(array.detach().reshape(-1))
        return bytes(flat.view(torch.uint8).tolist())
    return bytes(array.tobytes())


def identical(a: Tree, b: Tree) -> bool:
    """Whether two trees agree in types, order of keys, shapes, dtypes and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor | np.ndarray | np.generic):
        return bool(a.dtype == b.dtype and a.shape == b.shape and content(a) == content(b))
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, dict):
        return [*map(repr, a)] == [*map(repr, b)] and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    return bool(a == b)


@st.composite
def tensors(draw: Callable[[st.SearchStrategy[Any]], Any]) -> torch.Tensor:
    """Tensors of any dtype, any bits (so any NaN), 0-d, empty, transposed and strided."""
    dtype = draw(st.sampled_from(TORCH_DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = int(np.prod(shape, dtype=int))
    raw = torch.tensor(list(draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))))
    raw = raw.to(torch.uint8) & 1 if dtype == torch.bool else raw.to(torch.uint8)
    dense = raw.view(dtype).reshape(shape) if count else torch.zeros(shape, dtype=dtype)
    transposed = dense.transpose(0, -1) if shape and draw(st.booleans()) else dense
    return transposed[::2] if shape and draw(st.booleans()) else transposed


NUMPY_DTYPES = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="="), hnp.unsigned_integer_dtypes(endianness="="),
    hnp.floating_dtypes(endianness="=", sizes=(16, 32, 64)), hnp.complex_number_dtypes(endianness="=", sizes=(64, 128)),
)  # fmt: skip
ARRAYS = hnp.arrays(NUMPY_DTYPES, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**140), 2**140), st.text(), st.floats(),
    st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", struct.pack(">Q", bits))[0]),
    ARRAYS.filter(lambda array: array.size).map(lambda array: array.reshape(-1)[0]),
)  # fmt: skip
KEYS = st.one_of(
    st.text(max_size=4), st.sampled_from(["$tensor", "$dict", "__metadata__", "a/b", "", "a"]), st.integers()
)
TREES = st.recursive(
    st.one_of(SCALARS, ARRAYS, tensors()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple), st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)
