"""A folder that is replaced is there at every instant, old or new, whenever the process stops."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from presage.common import atomic_folder

STEPS = re.compile(r"step_\d+")


class Killed(BaseException):
    """Stands for SIGKILL: nothing is done after it."""


@contextmanager
def stopped_before(instant: int) -> Iterator[list[str]]:
    """Every call that changes the disk raises from the `instant`-th on; yields the names of those that were made."""
    made: list[str] = []

    def limit(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if len(made) + 1 >= instant:
                raise Killed
            made.append(name)
            return original(*arguments, **options)

        patch.setattr(owner, name, call)

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (Path, "rename"), (Path, "mkdir"), (Path, "write_text"), (os, "fsync"), (os, "unlink"), (os, "rmdir"),
        ):  # fmt: skip
            limit(patch, owner, name)
        yield made


def write(folder: Path, content: str) -> None:
    with atomic_folder.replacing(folder, siblings=STEPS) as writing:
        for name in ("a", "b"):
            (writing / name).write_text(content)


def read(folder: Path) -> set[str]:
    found = atomic_folder.present(folder)
    assert found is not None
    return {(found / name).read_text() for name in ("a", "b")}


CALLS = ["mkdir", "mkdir", "write_text", "write_text", "fsync", "fsync", "fsync", "rename", "rename", "fsync", "fsync"]
CLEANING = ["unlink", "unlink", "rmdir"]


def test_a_replacement_makes_the_calls_that_the_next_test_stops_between(tmp_path: Path) -> None:
    write(tmp_path / "step_1", "old")
    with stopped_before(10**6) as made:
        write(tmp_path / "step_1", "new")
    assert made == CALLS + CLEANING


@pytest.mark.parametrize("instant", range(1, len(CALLS + CLEANING) + 2))
@pytest.mark.parametrize("after", ["step_1", "step_2"])
def test_a_process_that_stops_anywhere_leaves_the_old_or_the_new(tmp_path: Path, instant: int, after: str) -> None:
    folder = tmp_path / "step_1"
    write(folder, "old")
    stopped = False
    with stopped_before(instant):
        try:
            write(folder, "new")
        except Killed:
            stopped = True
    assert stopped == (instant <= len(CALLS + CLEANING))
    # the new one is there from the second renaming on
    content = {"new"} if instant > CALLS.index("rename") + 2 else {"old"}
    assert read(folder) == content
    assert atomic_folder.names(tmp_path) == {"step_1"}
    # what is left of it goes with the next of its siblings
    write(tmp_path / after, "next")
    assert read(tmp_path / after) == {"next"}
    if after != "step_1":
        assert read(folder) == content
    assert {path.name for path in tmp_path.iterdir()} == {"step_1", after}


@pytest.mark.parametrize("instant", range(1, 6))
def test_a_removal_that_stops_anywhere_leaves_all_or_nothing(tmp_path: Path, instant: int) -> None:
    folder = tmp_path / "step_1"
    write(folder, "old")
    stopped = False
    with stopped_before(instant):
        try:
            atomic_folder.remove(folder)
        except Killed:
            stopped = True
    assert stopped == (instant < 5)
    assert (read(folder) == {"old"}) if instant == 1 else atomic_folder.present(folder) is None
    assert atomic_folder.names(tmp_path) == ({"step_1"} if instant == 1 else set())
    atomic_folder.remove(folder)
    write(tmp_path / "step_2", "next")
    assert [path.name for path in tmp_path.iterdir()] == ["step_2"]


def test_a_removal_takes_the_copy_moved_aside_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "step_1"
    write(folder, "old")
    with stopped_before(len(CALLS) + 2), pytest.raises(Killed):  # amid the deletion of the replaced one
        write(folder, "new")
    assert len(atomic_folder.copies(folder)) == 2
    atomic_folder.remove(folder)
    assert list(tmp_path.iterdir()) == []


def test_everything_is_on_disk_before_it_is_renamed_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    rename, fsync = Path.rename, os.fsync

    def logged_rename(path: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return rename(path, target)

    def logged_sync(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        events.extend(f"sync {path.name}" for path in tmp_path.rglob("*") if path.stat().st_ino == inode)
        fsync(descriptor)

    monkeypatch.setattr(Path, "rename", logged_rename)
    monkeypatch.setattr(os, "fsync", logged_sync)
    write(tmp_path / "run" / "step_1", "new")
    assert sorted(events[:2]) == ["sync a", "sync b"]
    assert events[2:] == ["sync .presage-writing-step_1", "rename to step_1", "sync run"]


def test_an_error_while_writing_leaves_the_old_and_no_trace(tmp_path: Path) -> None:
    write(tmp_path / "one", "old")

    def failing() -> None:
        with atomic_folder.replacing(tmp_path / "one", siblings=STEPS) as writing:
            (writing / "a").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        failing()
    assert read(tmp_path / "one") == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_others_are_writing_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / ".presage-writing-seed_1"
    theirs.mkdir()
    write(tmp_path / "seed_2", "mine")
    write(tmp_path / "step_1", "mine")
    assert theirs.is_dir()
    assert atomic_folder.names(tmp_path) == {"seed_2", "step_1"}
    shutil.rmtree(tmp_path / "seed_2")
    write(tmp_path / "seed_1", "mine")
    assert atomic_folder.names(tmp_path) == {"seed_1", "step_1"}
    assert not theirs.exists()


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert atomic_folder.names(tmp_path) == atomic_folder.names(tmp_path / "nothing") == set()
    assert atomic_folder.present(tmp_path / "file") is None
    assert atomic_folder.copies(tmp_path / "nothing") == []
