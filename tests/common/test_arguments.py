from dataclasses import dataclass, field

import pytest

from presage.common.arguments import parse
from presage.common.configuration import UsageError


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3
    """at least 1"""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size} must be >= 1")


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    name_of_it: str = "x"

    def __post_init__(self) -> None:
        if self.name_of_it == "":
            raise ValueError("name_of_it must not be empty")


def test_what_is_typed_replaces_the_default() -> None:
    default = Outer(inner=Inner(size=5), name_of_it="y")
    assert parse(Outer, ["--inner.size", "7"], "p", default) == Outer(inner=Inner(size=7), name_of_it="y")
    assert parse(Outer, [], "p") == Outer()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])  # tyro draws its frames by what the terminal can show
@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["--inner.siez", "7"], "Unrecognized options: --inner.siez, 7; did you mean --inner.size?"),
        (["--inner.size", "x"], "Error parsing --inner.size: invalid literal for int() with base 10: 'x'"),
        (["--inner.size", "0"], "Error parsing inner: size=0 must be >= 1"),
        (["--name-of-it", ""], "Error parsing Outer: name_of_it must not be empty"),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence(
    typed: list[str], sentence: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tyro._fmtlib._FORCE_UTF8_BOXES", encoding == "utf-8")
    with pytest.raises(UsageError) as refused:
        parse(Outer, typed, "p")
    assert str(refused.value).removesuffix(" (see p --help)") == sentence


def test_help_is_printed_and_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Outer, ["--help"], "p")
    assert not stopped.value.code
    assert "at least 1" in capsys.readouterr().out
