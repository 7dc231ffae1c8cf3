"""Code in Markdown pages, run as a reader would: block after block, in one session and one folder.

* Python blocks share their names, from the top of a page to its end.
* A block of `text` right behind a Python block is what it prints, word by word; numbers may be `TOLERANCE` off, as
  other machines round otherwise.
* Lines `presage NAME ...` of shell blocks run where NAME is asked for; those with a word in capitals only show how a
  command is written.
* A Python block whose first line begins with `NOT_RUN` says so to its reader. It has to compile, to import what is
  there, and to use names that are known by then.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from presage.common.cli import main

NOT_RUN = "# takes minutes: the tests of this page read this block and do not run it"
TOLERANCE = 0.2
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_WORDS = re.compile(r"(-?\d+(?:\.\d+)?)|[^\s\d]+")


@dataclass(frozen=True)
class Block:
    """One block of code, and where it stands."""

    page: Path
    line: int
    """of its first line of code, from 1"""
    language: str
    text: str
    prints: str | None = None
    """what the page says that it prints"""

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"


class PageError(AssertionError):
    """A page says what is not so; the message says where."""


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order; what one prints is part of it."""
    source = page.read_text(encoding="utf-8")
    found = [*_FENCE.finditer(source), None]
    for match, after in pairwise(found):
        assert match is not None
        if match[1] == "text":
            continue
        prints = None
        if after is not None and after[1] == "text" and not source[match.end() : after.start()].strip():
            prints = after[2]
        yield Block(page, source[: match.start(2)].count("\n") + 1, match[1], match[2], prints)


def run(page: Path, commands: Collection[str] = ()) -> list[Block]:
    """Run a page in the current folder, which it may write to.

    Args:
        commands: of `presage` whose lines in shell blocks are run as well.

    Returns:
        the blocks that were not run, since they say so.

    Raises:
        PageError: a block fails, prints something else, or is no valid code.
    """
    names: dict[str, Any] = {"__name__": page.stem}
    skipped = []
    for block in blocks(page):
        if block.language == "python" and block.text.startswith(NOT_RUN):
            _read(block, names)
            skipped.append(block)
        elif block.language == "python":
            _run(block, names)
        elif block.language == "sh":
            _run_commands(block, commands)
    return skipped


def _compiled(block: Block) -> Any:
    try:
        return compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    except SyntaxError as error:
        raise PageError(f"{block.where}: {error}") from error


def _run(block: Block, names: dict[str, Any]) -> None:
    said = io.StringIO()
    code = _compiled(block)
    try:
        with contextlib.redirect_stdout(said):
            exec(code, names)
    except Exception as error:
        raise PageError(f"{block.where}: {type(error).__name__}: {error}") from error
    if block.prints is not None and not alike(said.getvalue(), block.prints):
        raise PageError(f"{block.where} prints\n{said.getvalue()}\nwhere the page has\n{block.prints}")


def _read(block: Block, names: dict[str, Any]) -> None:
    """Hold a block that is not run against the names that are known by then."""
    _compiled(block)
    tree = ast.parse(block.text)
    imports: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    _run(Block(block.page, block.line, "python", ast.unparse(ast.Module(imports, []))), names)
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    made = {node.id for node in named if isinstance(node.ctx, ast.Store)}
    unknown = {node.id for node in named} - names.keys() - vars(builtins).keys() - made
    if unknown:
        raise PageError(f"{block.where}: {sorted(unknown)} are not known by then")


def _run_commands(block: Block, commands: Collection[str]) -> None:
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["presage"] or words[1] not in commands or any(word.isupper() for word in words):
            continue
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                code: Any = main(words[1:])
            except SystemExit as stopped:  # --help
                code = stopped.code or 0
        if code != 0:
            raise PageError(f"{block.where}: {line} returns {code}: {said.getvalue()}")


def alike(said: str, promised: str) -> bool:
    """Whether two prints have equal words, and numbers within `TOLERANCE`."""
    for one, other in zip_longest(_WORDS.finditer(said), _WORDS.finditer(promised)):
        if one is None or other is None:
            return False
        if one[1] is None or other[1] is None:
            if one[0] != other[0]:
                return False
        elif abs(float(one[1]) - float(other[1])) > TOLERANCE:
            return False
    return True
