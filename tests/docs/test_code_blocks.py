"""Guides do what they say, and the tool that holds them to it notices where one does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.code_blocks import NOT_RUN, PageError, alike, blocks, run

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "skipped"), [("opponents.md", 0), ("api/opponents.md", 0), ("goals.md", 1)]
)  # fmt: skip
def test_a_page_does_what_it_says(page: str, skipped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert any(block.language == "python" for block in blocks(DOCS / page))
    assert len(run(DOCS / page, commands=("opponents",))) == skipped


def page(folder: Path, *fenced: tuple[str, str]) -> Path:
    path = folder / "page.md"
    path.write_text("# Page\n\n" + "\n\n".join(f"```{language}\n{text}\n```" for language, text in fenced) + "\n")
    return path


@pytest.mark.parametrize(
    ("fenced", "sentence"),
    [
        ([("python", "x = 1"), ("python", "print(y)")], "page.md:8: NameError: name 'y' is not defined"),
        ([("python", "print(1.0)"), ("text", "1.5")], "page.md:4 prints"),
        ([("python", "print('a 1')"), ("text", "a")], "page.md:4 prints"),
        ([("python", "if")], "page.md:4: invalid syntax"),
        ([("python", f"{NOT_RUN}\nimport nowhere.at_all")], "ModuleNotFoundError"),
        ([("python", f"{NOT_RUN}\nx = 1\ntrain(x)")], r"\['train'\] are not known by then"),
        ([("sh", "presage opponents fit nothing.npz")], "page.md:4: presage opponents fit nothing.npz returns 1"),
    ],
)
def test_a_page_that_does_not_is_noticed(fenced: list[tuple[str, str]], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(PageError, match=sentence):
        run(page(tmp_path, *fenced), commands=("opponents",))


def test_a_page_is_one_session(tmp_path: Path) -> None:
    path = page(
        tmp_path, ("python", "x = 1"), ("sh", "presage train soccer_dqn\npresage opponents fit RUN"), ("toml", "x = 2"),
        ("python", f"{NOT_RUN}\nx = 1 / 0"), ("python", "print('x', x)"), ("text", "x 1.1"),
    )  # fmt: skip
    found = list(blocks(path))
    assert [block.language for block in found] == ["python", "sh", "toml", "python", "python"]
    assert [block.line for block in found] == [4, 8, 13, 17, 22]
    assert found[-1].prints == "x 1.1\n"
    assert [block.line for block in run(path, commands=("opponents",))] == [17]


@pytest.mark.parametrize(
    ("said", "promised", "same"),
    [
        ("agent 0.50 –", "agent 0.61 –", True), ("agent 0.50 –", "agent 0.71 –", False),
        ("agent 0.5 –", "agent 0.5 0.5", False), ("a b", "a", False), ("a\n b", "a  b", True), ("-1", "1", False),
    ],
)  # fmt: skip
def test_prints_are_compared_word_by_word(said: str, promised: str, same: bool) -> None:
    assert alike(said, promised) == same
