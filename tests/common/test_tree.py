"""Trees go through JSON and tensors to the bit, and what cannot is refused by its place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from presage.common.tree import Tree, TreeError, put_together, take_apart
from tests.common.trees import TREES, identical


@given(tree=TREES)
def test_a_tree_comes_back_to_the_bit_through_json_text(tree: Tree) -> None:
    data, parts = take_apart(tree)
    assert identical(put_together(json.loads(json.dumps(data, allow_nan=False)), parts), tree)


class Evil:
    """Pickles into the creation of a file."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("evil",)


def cyclic() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"a": [1, {2}]}, "a set at 'a/1'"),
        ({"a": Evil()}, "an? Evil at 'a'"),
        ({"a": {(1, 2): 3}}, "dict key of type tuple at 'a'"),
        ({True: 1}, "dict key of type bool"),
        ([np.array(["x"])], "dtype <U1 at '0'"),
        ([np.array([{}])], "dtype object at '0'"),
        ([np.zeros(2, dtype=">f4")], "dtype >f4 at '0'"),
        ([np.zeros(2, dtype="longdouble")], "dtype longdouble|dtype float128"),
        ([torch.zeros(2).to_sparse()], "layout torch.sparse_coo"),
        ([torch.zeros(2, device="meta")], "on meta"),
        ("\ud800", "not Unicode"),
        (1j, "a complex at 'its root'"),
        (cyclic(), "contains itself"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_its_place(tree: Tree, named: str) -> None:
    with pytest.raises(TreeError, match=named):
        take_apart(tree)


def test_tensors_are_named_by_their_path_and_share_no_storage() -> None:
    base = torch.arange(6)
    tree = {
        "a": [base, base],
        "a/0": base[1:3],
        "b": {"c": np.float32(2.0), "d": (torch.ones(()),)},
        "__metadata__": base,
    }
    data, tensors = take_apart(tree)
    assert list(tensors) == ["a/0", "a/1", "a/0+", "b/c", "b/d/0", "__metadata__+"]
    assert [tensor.tolist() for tensor in tensors.values()] == [[*range(6)], [*range(6)], [1, 2], 2.0, 1.0, [*range(6)]]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}) == 6
    assert data == {
        "a": [{"$tensor": "a/0"}, {"$tensor": "a/1"}],
        "a/0": {"$tensor": "a/0+"},
        "b": {"c": {"$scalar": {"$array": {"$tensor": "b/c"}}}, "d": {"$tuple": [{"$tensor": "b/d/0"}]}},
        "__metadata__": {"$tensor": "__metadata__+"},
    }


def test_no_kind_of_view_loses_its_content() -> None:
    z = torch.tensor([1 + 2j, 3 - 4j])
    tree = [z.conj(), z.conj().imag, z.to(torch.complex128).conj(), torch.arange(6).reshape(2, 3).T, np.arange(4)[::-1]]
    data, tensors = take_apart(tree)
    found = put_together(data, tensors)
    assert found[0].tolist() == [1 - 2j, 3 + 4j]
    assert found[1].tolist() == [-2.0, 4.0]
    assert found[2].tolist() == [1 - 2j, 3 + 4j]
    assert found[2].dtype == torch.complex128
    assert found[3].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found[4].tolist() == [3, 2, 1, 0]
