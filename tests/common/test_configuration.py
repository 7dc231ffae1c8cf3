from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from presage.common.configuration import ConfigError, from_plain, to_plain


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    widths: tuple[int, ...] = (8, 8)
    pair: tuple[int, str] = (1, "a")

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate={self.rate} must be > 0")


@dataclass(frozen=True, kw_only=True)
class Outer:
    size: int
    inner: Inner = field(default_factory=Inner)
    kind: Literal["one", "two", 3] = "one"
    limit: int | None = None
    fast: bool = False
    options: dict[str, bool | int | float | str] = field(default_factory=dict)


outers = st.builds(
    Outer,
    size=st.integers(-(2**60), 2**60),
    inner=st.builds(
        Inner,
        rate=st.floats(1e-300, 1e300),
        widths=st.lists(st.integers(1, 9)).map(tuple),
        pair=st.tuples(st.integers(), st.text(max_size=5)),
    ),
    kind=st.sampled_from(["one", "two", 3]),
    limit=st.none() | st.integers(),
    fast=st.booleans(),
    options=st.dictionaries(
        st.text("abc", max_size=3), st.booleans() | st.integers() | st.floats(-9, 9) | st.text("xy")
    ),
)


@given(outers)
def test_a_configuration_survives_yaml(outer: Outer) -> None:
    back = from_plain(Outer, yaml.safe_load(yaml.safe_dump(to_plain(outer))))
    assert back == outer
    # 1 == True == 1.0, so equality alone would not notice a changed type
    kinds = [{name: type(value) for name, value in each.options.items()} for each in (back, outer)]
    assert kinds[0] == kinds[1]


def test_what_is_left_out_keeps_its_default() -> None:
    assert from_plain(Outer, {"size": 3, "inner": {"rate": 2}}) == Outer(size=3, inner=Inner(rate=2.0))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"size": 1, "inner": {"rtae": 1.0}}, r"inner.rtae is no setting of Inner; did you mean 'rate'\?"),
        ({"size": 1, "zzz": 1}, r"zzz is no setting of Outer; known are 'fast', 'inner'"),
        ({}, "size is missing; Outer has no default for it"),
        ({"size": "1"}, "size='1' must be a whole number"),
        ({"size": True}, "size=True must be a whole number"),
        ({"size": 1.0}, r"size=1\.0 must be a whole number"),
        ({"size": 1, "inner": {"rate": "fast"}}, "inner.rate='fast' must be a number"),
        ({"size": 1, "inner": {"rate": -1}}, r"inner: rate=-1\.0 must be > 0"),
        ({"size": 1, "inner": {"widths": 8}}, "inner.widths=8 must be a list"),
        ({"size": 1, "inner": {"widths": [8, None]}}, r"inner.widths\[1\]=None must be a whole number"),
        ({"size": 1, "inner": {"pair": [1]}}, r"inner.pair=\[1\] must be a list of 2"),
        ({"size": 1, "inner": 5}, "inner must map Inner's settings to values, got 5"),
        ({"size": 1, "kind": "three"}, "kind='three' must be one of 'one', 'two', 3"),
        ({"size": 1, "limit": "no"}, "limit='no' must be a whole number or null"),
        ({"size": 1, "fast": 1}, "fast=1 must be true or false"),
        ({"size": 1, "options": {"a": [1]}}, r"options.a=\[1\] must be true or false or a whole number or a number"),
        ([1], r"the configuration must map Outer's settings to values, got \[1\]"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named(data: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        from_plain(Outer, data)


def test_what_is_no_plain_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds <function"):
        to_plain({"size": test_what_is_no_plain_data_is_refused})
