"""Long studies: finished runs are kept and never made again, and what is under way decides what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import long_runs
from benchmarks.long_runs import Curve, Curves, confirm, work_through


@dataclass(frozen=True)
class Toy:
    """A run that ends at once."""

    key: str

    def run(self) -> Curve:
        """Its curve."""
        return {"returns": [len(self.key)], "seconds": 0.0, "commit": "abc", "machine": "toy"}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Curves:
    monkeypatch.setattr(long_runs, "ROOT", tmp_path)
    return Curves("study")


def test_finished_runs_are_kept_one_to_a_line(kept: Curves) -> None:
    assert kept.read() == {}
    kept.keep("b", {"returns": [1.0]})
    kept.keep("a", {"returns": [2.0]})
    assert kept.read() == {"a": {"returns": [2.0]}, "b": {"returns": [1.0]}}
    assert kept.path.read_text().splitlines()[1] == '"a": {"returns": [2.0]},'
    assert [path.name for path in kept.path.parent.iterdir()] == ["study.json"]


def test_the_origin_counts_runs_by_commit_and_machine(kept: Curves) -> None:
    kept.keep("levels", {"random": 0.0})
    for key, machine in (("a", "one"), ("b", "one"), ("c", "two")):
        kept.keep(key, {"commit": "0123456789abcdef", "machine": machine})
    assert (
        kept.origin()
        == "Runs: 1 from commit 0123456789 on two; 2 from commit 0123456789 on one; one torch thread each."
    )


def test_figures_are_as_old_as_the_oldest_run(kept: Curves, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_runs, "git", lambda root, *arguments: "newest\nmiddle\noldest")
    for key, commit, machine in (("a", "middle", "one"), ("b", "oldest", "two"), ("c", "newest", "one")):
        kept.keep(key, {"commit": commit, "machine": machine})
    assert kept.made() == ("oldest", "one; two")


def test_runs_under_way_have_folders_of_their_own(kept: Curves, tmp_path: Path) -> None:
    assert kept.folder("measure/ask always/5/0") == tmp_path / "runs/benchmarks/study/measure_ask_always_5_0"


def test_only_what_is_left_is_run_and_what_it_opens_follows(kept: Curves) -> None:
    kept.keep("done", {"returns": [0]})

    def jobs() -> Sequence[Toy]:
        return [Toy("done"), Toy("first"), *([Toy("second")] if "first" in kept.read() else [])]

    work_through(kept, jobs, processes=2)
    returns = {key: curve["returns"] for key, curve in kept.read().items() if key != "files"}
    assert returns == {"done": [0], "first": [5], "second": [6]}
    assert {"benchmarks/long_runs.py", "common/training.py"} <= {*kept.read()["files"]["paths"]}


def test_figures_depend_on_what_runs_and_their_report_imported_and_what_is_still_there(
    kept: Curves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "method.py").touch()
    monkeypatch.setattr(long_runs, "imported", lambda: ["benchmarks/confirm.py", "report.py"])
    kept.keep_files(["method.py"])
    kept.keep_files(["removed.py", "benchmarks/confirm.py", "common/cli.py"])
    assert kept.depends() == ["method.py", "report.py"]


def test_nothing_is_started_after_the_last_hour(kept: Curves) -> None:
    work_through(kept, lambda: [Toy("late")], processes=1, hours=0.0)
    assert kept.read() == {}


def test_runs_that_come_out_as_they_were_make_figures_as_new_as_they(
    kept: Curves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_runs, "git", lambda root, *arguments: "abc\nold")
    for key in ("first", "second"):
        kept.keep(key, Toy(key).run() | {"commit": "old", "machine": "one", "seconds": 7.0})
    assert kept.made() == ("old", "one")
    kept.folder("first").mkdir(parents=True)  # what was left of it is not gone on with
    confirm(kept, [Toy("first")], processes=1)
    assert not kept.folder("first").exists()
    assert kept.made() == ("abc", "one")
    assert kept.origin().endswith("Equal to the last digit at commit abc: first.")
    assert kept.read()["first"]["commit"] == "old"


def test_a_run_that_comes_out_otherwise_confirms_nothing(kept: Curves) -> None:
    kept.keep("first", Toy("first").run() | {"returns": [5.0001]})
    with pytest.raises(SystemExit, match=r"first comes out otherwise than at commit abc .* 5\.0 instead of 5\.0001"):
        confirm(kept, [Toy("first")], processes=1)
    assert "confirmed" not in kept.read()
