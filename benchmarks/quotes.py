"""Blocks in README, RESULTS and docs that quote measured figures, rewritten from `benchmarks/results`.

A block stands between two markers, each alone on its line: `<!-- claims:NAME -->`, which may name some of the figures
(`<!-- claims:NAME speedup returns -->`), and `<!-- /claims -->`. Figures that are alike go in a table of their own:
`<!-- claims:NAME {row}_{column} rows: hopper walker columns: speedup returns -->` has a line for each row, with the
figures `hopper_speedup` and `hopper_returns` in the first, and a dash where nothing was measured.

A picture that a page of the site shows from `pictures/results/` is a copy of the one below `benchmarks/results`, since
the site has nothing from outside `docs/`. `python -m benchmarks.quotes` rewrites them all.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from benchmarks.claims import ROOT, Claim, ClaimError, read

_OPENING = re.compile(r"<!-- claims:(?P<name>[\w-]+)(?P<figures>(?: [\w-]+?)*) -->")
_TABLE = re.compile(
    r"<!-- claims:(?P<name>[\w-]+) (?P<pattern>[\w{}-]+)"
    r" rows:(?P<rows>(?: [\w-]+)+) columns:(?P<columns>(?: [\w-]+)+) -->"
)
_CLOSING = "<!-- /claims -->"
_PICTURE = re.compile(r"!\[[^\]]*\]\((?P<copy>pictures/results/(?P<path>[^)]+))\)")


def quote(claim: Claim, figures: Sequence[str] = ()) -> str:
    """The claim as Markdown: a table of the figures named (all when none is) and a line on how they were made."""
    _check([figure for figure in figures if figure not in claim.figures], claim)
    lines = ["| figure | measured | aim | |", "|---|---|---|---|"]
    for figure in figures or claim.rows:
        aim, verdict = (str(claim.aims[figure]), claim.status(figure)) if figure in claim.aims else ("", "")
        lines.append(f"| `{figure}` | {claim.shown(figure)} | {aim} | {verdict} |")
    return "\n".join([*lines, "", _made(claim)])


def table(claim: Claim, pattern: str, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Figures of the claim that `pattern` names by `{row}` and `{column}`, as Markdown.

    Raises:
        ClaimError: `pattern` names neither, or a row or a column has no figure.
    """
    if "{row}" not in pattern or "{column}" not in pattern or set("{}") & set(re.sub("{row}|{column}", "", pattern)):
        raise ClaimError(f"{pattern!r} must name figures by {{row}} and {{column}}")
    names = [[pattern.replace("{row}", row).replace("{column}", column) for column in columns] for row in rows]
    bare = [line for line in [*names, *map(list, zip(*names, strict=True))] if not set(line) & claim.figures.keys()]
    _check([name for line in bare for name in line], claim)
    head = [f"`{pattern}`", *(f"`{column}`" for column in columns)]
    cells = [
        [f"`{row}`", *(claim.shown(name) if name in claim.figures else "–" for name in line)]
        for row, line in zip(rows, names, strict=True)
    ]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", _made(claim)])


def _check(unknown: Sequence[str], claim: Claim) -> None:
    """Raise ClaimError where there are `unknown` figures."""
    if unknown:
        near = sorted({name for figure in unknown for name in get_close_matches(figure, claim.figures)})
        raise ClaimError(
            f"{claim.name} has no figures {list(unknown)}; the nearest of its {len(claim.figures)} are {near}"
        )


def _made(claim: Claim) -> str:
    """How the figures were made, on a line."""
    seeds = f"; seeds {', '.join(map(str, claim.seeds))}" if claim.seeds else ""
    return f"`{claim.command}` on {claim.date} at commit {claim.commit[:10]}; {claim.machine}{seeds}."


def refreshed(text: str, claims: Sequence[Claim]) -> str:
    """`text` with every block rewritten from `claims`.

    Raises:
        ClaimError: for a marker without its partner, and for a block that quotes what was never measured.
    """
    known = {claim.name: claim for claim in claims}
    lines: list[str] = []
    opened: str | None = None
    for line in text.splitlines():
        opening = _OPENING.fullmatch(line) or _TABLE.fullmatch(line)
        if (opening is None and line.startswith("<!-- claims")) or (opening and opened):
            raise ClaimError(f"{line!r} is malformed, or opens a block inside {opened!r}")
        if opening:
            if opening["name"] not in known:
                raise ClaimError(f"{line!r} quotes an unknown result; there are {sorted(known)}")
            opened, claim = line, known[opening["name"]]
            if opening.re is _TABLE:
                block = table(claim, opening["pattern"], opening["rows"].split(), opening["columns"].split())
            else:
                block = quote(claim, opening["figures"].split())
            lines += [line, "", block, ""]
        elif line == _CLOSING:
            if opened is None:
                raise ClaimError(f"{line!r} closes a block that was never opened")
            opened = None
            lines.append(line)
        elif opened is None:
            lines.append(line)
    if opened:
        raise ClaimError(f"{opened!r} is never closed by {_CLOSING!r}")
    return "\n".join(lines) + "\n" * text.endswith("\n")


def pictured(page: Path, text: str, root: Path = ROOT) -> dict[Path, bytes]:
    """What the pictures of results that a page shows should hold.

    Raises:
        ClaimError: one is not among the results.
    """
    found = {}
    for picture in _PICTURE.finditer(text):
        path = root / "benchmarks" / "results" / picture["path"]
        if not path.is_file():
            raise ClaimError(f"{picture['copy']} is a copy of {path.relative_to(root)}, which is not there")
        found[page.parent / picture["copy"]] = path.read_bytes()
    return found


def outdated(root: Path = ROOT) -> dict[Path, bytes]:
    """README, changelog, results and pages of the site whose blocks are not current, and pictures of results in the
    site that are not, with what they should hold.
    """
    claims = read(root)
    found: dict[Path, bytes] = {}
    first = (root / "README.md", root / "CHANGELOG.md", root / "benchmarks" / "RESULTS.md")
    pages = [*first, *sorted((root / "docs").rglob("*.md"))]
    for page in filter(Path.exists, pages):
        text = page.read_text(encoding="utf-8")
        try:
            current = {page: refreshed(text, claims).encode(), **pictured(page, text, root)}
        except ClaimError as error:
            raise ClaimError(f"{page.relative_to(root)}: {error}") from error
        found |= {path: held for path, held in current.items() if not path.exists() or path.read_bytes() != held}
    return found


def main(root: Path = ROOT) -> None:
    """Rewrite the blocks and the pictures that are not current."""
    try:
        found = outdated(root)
    except ClaimError as error:
        sys.exit(str(error))
    for path, held in found.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held)
        print(f"rewrote {path.relative_to(root)}")


if __name__ == "__main__":
    main()
