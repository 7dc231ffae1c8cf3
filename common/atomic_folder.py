"""Folders that appear, are replaced and disappear in one step, also when the process is killed in between.

A folder is written under a hidden name beside its place, synced to disk and renamed into place. One that is replaced is
first moved aside under another hidden name; should a kill fall between the two renames, `present` finds it there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITING, _REPLACED, _DELETING = ".presage-writing-", ".presage-replaced-", ".presage-deleting-"


@contextmanager
def replacing(folder: Path, *, siblings: re.Pattern[str]) -> Iterator[Path]:
    """A new hidden folder to write into, which at the end of the `with` block becomes `folder`, or is dropped on error.

    What killed processes left behind of `folder`, and of its siblings if its name is one of theirs, is removed first.

    Args:
        folder: absolute; what lies there is replaced whole.
        siblings: names of folders that only this process writes now.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(folder, siblings)
    writing, aside = _hidden(_WRITING, folder), _hidden(_REPLACED, folder)
    writing.mkdir()
    try:
        yield writing
        for path in (*writing.iterdir(), writing):
            sync(path)
        if folder.exists():
            folder.rename(aside)
        writing.rename(folder)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    for path in (folder.parent, folder.parent.parent):  # the upper one for a parent that is new itself
        sync(path)
    shutil.rmtree(aside, ignore_errors=True)


def copies(folder: Path) -> list[Path]:
    """`folder`, and where it was moved aside by a process killed before it was done replacing it, if they exist."""
    return [path for path in (folder, _hidden(_REPLACED, folder)) if path.is_dir()]


def present(folder: Path) -> Path | None:
    """`folder`, or what has to stand in for it since a process was killed between the two renames; else None."""
    return next(iter(copies(folder)), None)


def names(parent: Path) -> set[str]:
    """Names of all folders in `parent` for which `present` finds something; none where `parent` does not exist."""
    if not parent.is_dir():
        return set()
    found = {path.name.removeprefix(_REPLACED) for path in parent.iterdir() if path.is_dir()}
    return {name for name in found if not name.startswith((_WRITING, _DELETING))}


def remove(folder: Path) -> None:
    """Delete a folder with all it holds; it is renamed first, so that no half-deleted folder stands in its place."""
    for path in reversed(copies(folder)):
        doomed = _hidden(_DELETING, folder)
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, has reached the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders and journals renames by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hidden(prefix: str, folder: Path) -> Path:
    return folder.with_name(prefix + folder.name)


def _clean_up(folder: Path, siblings: re.Pattern[str]) -> None:
    for prefix in (_WRITING, _DELETING, _REPLACED):
        for path in list(folder.parent.glob(prefix + "*")):
            name = path.name.removeprefix(prefix)
            if name != folder.name and not (siblings.fullmatch(name) and siblings.fullmatch(folder.name)):
                continue  # another process may be writing it
            if prefix == _REPLACED and not path.with_name(name).exists():
                path.rename(path.with_name(name))
            else:
                shutil.rmtree(path)
