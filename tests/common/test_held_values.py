"""Values keep their content and what they share, and never write over what belongs to something else."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from presage.common.checkpoint import CheckpointError
from presage.common.held_values import Placer, aliases, copied, is_mutable, is_value

CPU = torch.device("cpu")


class Level(IntEnum):
    HIGH = 1


class Pair(NamedTuple):
    left: Any
    right: Any


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (None, True), (1, True), (1.5, True), ("text", True), (np.float32(1), True), (np.zeros(2), True),
        (torch.zeros(2), True), (torch.zeros(2, requires_grad=True) * 2, True), (Pair(1, [2, {"a": deque([3])}]), True),
        (Counter(a=1), True), ({1: [torch.zeros(1), None]}, True),
        (nn.Parameter(torch.ones(1), requires_grad=False), True),
        (nn.Parameter(torch.ones(1)), False), ([nn.Parameter(torch.ones(1))], False), (Level.HIGH, False), ({1}, False),
        ({(0, 1): 1}, False), ([nn.Linear(1, 1)], False), (np.array(["x"]), False), (np.array([None]), False),
        (b"x", False), (1j, False), (print, False),
    ],
)  # fmt: skip
def test_what_is_a_value(part: Any, expected: bool) -> None:
    assert is_value(part) is expected


def drawn(draw: Any, pool: list[Any], depth: int) -> Any:
    """A value; mutable ones are taken from the pool sometimes, and added to it always."""
    kind = draw(st.sampled_from(["number", "shared", "array", "tensor", "list", "deque", "dict", "tuple", "named"]))
    if kind == "shared" and pool:
        return draw(st.sampled_from(pool))
    if depth == 0 or kind in ("number", "shared"):
        return draw(st.integers(0, 3))
    size = draw(st.integers(0, 3))
    items = [drawn(draw, pool, depth - 1) for _ in range(size)]
    makers: dict[str, Callable[[], Any]] = {
        "array": lambda: np.full(size, draw(st.integers(0, 3))),
        "tensor": lambda: torch.full((size,), draw(st.integers(0, 3))),
        "list": lambda: items,
        "deque": lambda: deque(items),
        "dict": lambda: OrderedDict(enumerate(items)),
        "tuple": lambda: tuple(items),
        "named": lambda: Pair(items, size),
    }
    made = makers[kind]()
    if is_mutable(made):
        pool.append(made)
    return made


@st.composite
def holdings(draw: Any) -> dict[str, Any]:
    pool: list[Any] = []
    return {name: drawn(draw, pool, 2) for name in "abcd"}


def parts(values: dict[str, Any]) -> dict[str, Any]:
    """Every part by path."""
    found: dict[str, Any] = {}

    def visit(path: str, value: Any) -> None:
        found[path] = value
        if isinstance(value, list | tuple | deque | dict):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                visit(f"{path}.{key}", item)

    for name, value in values.items():
        visit(name, value)
    return found


def content(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        return (str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {key: content(item) for key, item in value.items()}
    if isinstance(value, list | deque):
        return [content(item) for item in value]
    return tuple(map(content, value)) if isinstance(value, tuple) else value


@given(saved=holdings(), held=holdings())
def test_content_and_sharing_come_back_whatever_was_held(saved: dict[str, Any], held: dict[str, Any]) -> None:
    shared = aliases(saved, {})
    copies = {path: copied(value) for path, value in saved.items()}
    placer = Placer(shared, {}, CPU)
    restored = {path: placer.place(path, held[path], new) for path, new in copies.items()}
    assert content(restored) == content(saved)
    before, after = parts(saved), parts(restored)
    assert before.keys() == after.keys()
    mutable = [path for path in before if is_mutable(before[path])]
    for one in mutable:
        for other in mutable:
            assert (after[one] is after[other]) == (before[one] is before[other]), (one, other)


@given(saved=holdings())
def test_what_can_be_written_is_written_in_place_and_keeps_its_class(saved: dict[str, Any]) -> None:
    before = {path: (id(part), type(part)) for path, part in parts(saved).items() if is_mutable(part)}
    placer = Placer(aliases(saved, {}), {}, CPU)
    for path, new in copied(saved).items():
        saved[path] = placer.place(path, saved[path], new)
    assert {path: (id(part), type(part)) for path, part in parts(saved).items() if is_mutable(part)} == before


def test_a_value_that_is_a_parameter_stays_it_and_one_that_was_not_leaves_it_alone() -> None:
    weight = torch.zeros(2)
    assert aliases({"a": [weight], "b": weight}, {"weight": weight}) == {"a[0]": "weight", "b": "weight"}
    assert Placer({"a": "weight"}, {"weight": weight}, CPU).place("a", None, torch.zeros(2)) is weight
    other = Placer({}, {"weight": weight}, CPU).place("a", weight, torch.ones(2))
    assert other.tolist() == [1, 1]
    assert weight.tolist() == [0, 0]


def test_a_container_held_twice_but_saved_apart_becomes_two_of_its_class() -> None:
    both = deque([1, 2], maxlen=4)
    placer = Placer({}, {}, CPU)
    one, two = (placer.place(path, both, [number]) for path, number in (("a", 5), ("b", 6)))
    assert (one, two) == (deque([5]), deque([6]))
    assert one is both
    assert two.maxlen == 4


def test_named_tuples_and_sizes_stay_what_they_are_if_they_can() -> None:
    placer = Placer({}, {}, CPU)
    found = placer.place("a", Pair(1, Pair(2, 3)), (4, (5, 6)))
    assert found == Pair(4, Pair(5, 6))
    assert type(found) is type(found.right) is Pair
    assert placer.place("b", Pair(1, 2), (4, 5, 6)) == (4, 5, 6)
    size = placer.place("c", torch.Size([1]), (4, 5))
    assert (type(size), size.numel()) == (torch.Size, 20)
    assert placer.place("d", torch.Size([1]), ("x",)) == ("x",)


def test_a_copy_refuses_what_is_no_value_by_its_place() -> None:
    with pytest.raises(CheckpointError, match="'optimiser' holds a function"):
        copied({"a": [lambda: None]}, "optimiser")
