"""Measured statements: the file that keeps each one, and the table of them all.

A benchmark `benchmarks/NAME.py` ends in `write("NAME", ...)`, which keeps its figures in `benchmarks/results/NAME.json`
beside the command, commit, machine and versions that made them. `python -m benchmarks.claims` prints the table.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("benchmarks", "results")

Status = Literal["met", "missed", "stale", "no aim"]


class ClaimError(ValueError):
    """A result, or a block that quotes one, breaks the format; the message names it and how to fix it."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What a figure is held against."""

    op: Literal["<=", ">="]
    value: float

    def __post_init__(self) -> None:
        if self.op not in ("<=", ">="):
            raise ClaimError(f"an aim compares by '<=' or '>=', got {self.op!r}")

    def met(self, figure: float) -> bool:
        """Whether `figure` reaches the aim."""
        return figure <= self.value if self.op == "<=" else figure >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.op == '<=' else '≥'} {number(self.value)}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The figures of one benchmark, and everything needed to make them again. The fields are those of its file."""

    name: str
    """the benchmark, and the name of its file without suffix; not repeated inside the file"""
    command: str
    """what to run at the checkout's root to measure again"""
    commit: str
    """the commit that was measured; ends in `-dirty` where a file under `depends` differed from it"""
    date: str
    """the day of the measurement, UTC, as YYYY-MM-DD"""
    machine: str
    """processor, cores, torch threads, accelerator"""
    versions: dict[str, str]
    """Python's, and those of the libraries that the figures depend on"""
    seeds: list[int]
    """seeds of the runs, [] where nothing is random"""
    depends: list[str]
    """files and folders, relative to the root, whose change makes the figures stale"""
    figures: dict[str, float]
    """what was measured, units in the name; `x_low` and `x_high` are the interval of `x`"""
    aims: dict[str, Aim]
    """by figure, what the issue that set the aim asked for"""
    notes: str = ""
    """shapes, settings, the peer's command, remedies tried"""

    def __post_init__(self) -> None:
        if not self.figures:
            raise ClaimError(f"{self.name}: no figures")
        for figure, value in self.figures.items():
            if not math.isfinite(value):
                raise ClaimError(f"{self.name}: figure {figure!r} is {value}; a figure is a finite number")
            point = re.sub("_(low|high)$", "", figure)
            if point != figure and not {point, f"{point}_low", f"{point}_high"} <= self.figures.keys():
                raise ClaimError(f"{self.name}: {figure!r} bounds an interval, which takes {point}, _low and _high")
        for point in self.intervals:
            low, high = self.figures[f"{point}_low"], self.figures[f"{point}_high"]
            if low > high:
                raise ClaimError(f"{self.name}: the interval of {point!r} is upside down: {low} to {high}")
        unknown = self.aims.keys() - self.figures.keys()
        if unknown:
            raise ClaimError(f"{self.name}: aims for {sorted(unknown)}, but its figures are {sorted(self.figures)}")

    @property
    def intervals(self) -> set[str]:
        """Figures that come with an interval."""
        return {figure for figure in self.figures if f"{figure}_low" in self.figures}

    @property
    def rows(self) -> list[str]:
        """Figures that get a row of their own: an interval's bounds stand beside its point unless they have an aim."""
        bounds = {f"{point}_{end}" for point in self.intervals for end in ("low", "high")}
        return [figure for figure in self.figures if figure not in bounds or figure in self.aims]

    def shown(self, figure: str) -> str:
        """The figure as text, its interval behind it."""
        if figure not in self.intervals:
            return number(self.figures[figure])
        low, high = (number(self.figures[f"{figure}_{end}"]) for end in ("low", "high"))
        return f"{number(self.figures[figure])} ({low} to {high})"

    def status(self, figure: str) -> Status:
        """Whether the figure reaches its aim; staleness is a matter of the checkout, see `changed`."""
        if figure not in self.aims:
            return "no aim"
        return "met" if self.aims[figure].met(self.figures[figure]) else "missed"

    def to_json(self) -> str:
        """The text of the claim's file."""
        data = asdict(self)
        del data["name"]
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> Claim:
        """The claim kept in `path`; raises ClaimError where the file does not hold exactly the fields of one."""
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wanted = {field.name for field in fields(cls)} - {"name"}
        if data.keys() != wanted:
            missing, unknown = sorted(wanted - data.keys()), sorted(data.keys() - wanted)
            raise ClaimError(f"{path}: missing fields {missing}, unknown fields {unknown}")
        aims = {figure: Aim(**aim) for figure, aim in data.pop("aims").items()}
        return cls(name=path.stem, aims=aims, **data)


def number(value: float) -> str:
    """`value` as text: whole numbers and thousands in full with separators, others to four digits."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def write(
    name: str,
    *,
    figures: Mapping[str, float],
    aims: Mapping[str, Aim],
    depends: Sequence[str],
    seeds: Sequence[int] = (),
    versions: Mapping[str, str] | None = None,
    notes: str = "",
    made: tuple[str, str] | None = None,
    root: Path = ROOT,
) -> Path:
    """Keep the figures of `benchmarks/NAME.py`; commit, date, machine and versions are found out here.

    Args:
        depends: files and folders relative to `root` that the figures depend on, besides the benchmark's own file.
        versions: those of peers, which live in environments of their own; ours are added.
        made: commit and machine of runs that were made before and are only read now; None: made here and now.

    Raises:
        ClaimError: for a figure that is not finite, an aim without a figure, a path that does not exist.
    """
    paths = list(dict.fromkeys([f"benchmarks/{name}.py", *depends]))
    absent = [path for path in paths if not (root / path).exists()]
    if absent:
        raise ClaimError(f"{name} depends on {absent}, which do not exist under {root.name}/")
    claim = Claim(
        name=name,
        command=f"make bench NAME={name}",
        commit=made[0] if made else commit(paths, root),
        date=datetime.now(UTC).date().isoformat(),
        machine=made[1] if made else machine(),
        versions=installed() | dict(versions or {}),
        seeds=list(seeds),
        depends=paths,
        figures={figure: float(value) for figure, value in figures.items()},
        aims=dict(aims),
        notes=notes,
    )
    path = root / RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(claim.to_json(), encoding="utf-8")
    print(table([claim], root))
    return path


def imported(root: Path = ROOT) -> list[str]:
    """The files under `root` that this process has imported, this one left out: what a long study depends on."""
    files = {
        Path(file).resolve() for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))
    }
    inside = [path.relative_to(root) for path in files - {Path(__file__).resolve()} if path.is_relative_to(root)]
    return sorted(path.as_posix() for path in inside if (root / path).is_file() and not path.parts[0].startswith("."))


def read(root: Path = ROOT) -> list[Claim]:
    """All claims, by name."""
    return [Claim.from_file(path) for path in sorted((root / RESULTS).glob("*.json"))]


def machine() -> str:
    """Processor model, cores, torch threads and accelerator, without any name of the machine."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = named[1] if named else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    parts = [processor, f"{os.cpu_count()} cores", f"{threads} torch thread{'s' if threads > 1 else ''}"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def installed() -> dict[str, str]:
    """Versions of Python, of presage, and of what presage requires."""
    required = [re.split(r"[^\w.-]", line)[0] for line in metadata.requires("presage") or [] if "extra ==" not in line]
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ["presage", *required]}


def git(root: Path, *arguments: str) -> str | None:
    """What git prints, None where it fails."""
    asked = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else None


def commit(paths: Sequence[str], root: Path) -> str:
    """The commit that is checked out, with `-dirty` where a file under `paths` differs from it; "none" without one."""
    head = git(root, "rev-parse", "HEAD")
    if head is None:
        return "none"
    return f"{head}-dirty" if git(root, "status", "--porcelain", "--", *paths) else head


def changed(claim: Claim, root: Path = ROOT) -> list[str]:
    """Why the claim is stale: files under `depends` that differ from its commit, comments, docstrings and layout of
    Python aside; [] where it is not.
    """
    if claim.commit == "none":
        return ["it was measured outside a commit"]
    if claim.commit.endswith("-dirty"):
        return ["it was measured with changes that were not committed"]
    differing = git(root, "diff", "--name-only", claim.commit, "--", *claim.depends)
    if differing is None:
        return [f"its commit {claim.commit[:10]} is not in this history"]
    untracked = git(root, "ls-files", "--others", "--exclude-standard", "--", *claim.depends) or ""
    moved = [path for path in differing.splitlines() if not _does_the_same(path, claim.commit, root)]
    return sorted({*moved, *untracked.splitlines()})


def _does_the_same(path: str, earlier: str, root: Path) -> bool:
    """Whether a file is Python whose code is that of the commit `earlier`."""
    before = git(root, "show", f"{earlier}:{path}")
    if not path.endswith(".py") or before is None or not (root / path).is_file():
        return False
    try:
        return _code(before) == _code((root / path).read_text(encoding="utf-8"))
    except SyntaxError:
        return False


def _code(text: str) -> str:
    """What Python makes of a file, without strings that stand alone."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for name, part in ast.iter_fields(node):
            if isinstance(part, list):
                setattr(node, name, [each for each in part if not _stands_alone(each)])
    return ast.dump(tree)


def _stands_alone(node: object) -> bool:
    """Whether a statement is a docstring, of a module, function, class or attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def table(claims: Sequence[Claim], root: Path = ROOT) -> str:
    """Every figure beside its aim, whether it is met, missed or stale, and the command that made it."""
    if not claims:
        return f"no claims: {RESULTS.as_posix()} holds no results"
    rows = [("claim", "figure", "value", "aim", "status", "command")]
    why = []
    for claim in claims:
        reasons = changed(claim, root)
        if reasons:
            why.append(f"{claim.name} is stale: {', '.join(reasons)}")
        for figure in claim.rows:
            aim = str(claim.aims[figure]) if figure in claim.aims else ""
            status: Status = "stale" if reasons else claim.status(figure)
            rows.append((claim.name, figure, claim.shown(figure), aim, status, claim.command))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *why])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: print the table, or warn before a measurement that will be stale."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__.splitlines()[0])
    parser.add_argument("--ready", action="store_true", help="warn where figures measured now would be stale")
    if not parser.parse_args(arguments).ready:
        print(table(read()))
    elif commit([".", f":!{RESULTS.as_posix()}"], ROOT).endswith(("none", "-dirty")):
        print("note: there are uncommitted changes; figures that depend on them will read as stale")


if __name__ == "__main__":
    main()
