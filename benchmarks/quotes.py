"""Blocks in README, RESULTS and docs that quote measured figures, rewritten from `benchmarks/results`.

A block stands between two markers, each alone on its line: `<!-- claims:NAME -->`, which may name some of the figures
(`<!-- claims:NAME speedup returns -->`), and `<!-- /claims -->`. `python -m benchmarks.quotes` rewrites them all.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.claims import ROOT, Claim, ClaimError, read

_OPENING = re.compile(r"<!-- claims:(?P<name>[\w-]+)(?P<figures>(?: \w+)*) -->")
_CLOSING = "<!-- /claims -->"


def quote(claim: Claim, figures: Sequence[str] = ()) -> str:
    """The claim as Markdown: a table of the figures named (all when none is) and a line on how they were made."""
    unknown = [figure for figure in figures if figure not in claim.figures]
    if unknown:
        raise ClaimError(f"{claim.name} has no figures {unknown}; it has {sorted(claim.figures)}")
    lines = ["| figure | measured | aim | |", "|---|---|---|---|"]
    for figure in figures or claim.rows:
        aim, verdict = (str(claim.aims[figure]), claim.status(figure)) if figure in claim.aims else ("", "")
        lines.append(f"| `{figure}` | {claim.shown(figure)} | {aim} | {verdict} |")
    seeds = f"; seeds {', '.join(map(str, claim.seeds))}" if claim.seeds else ""
    made = f"`{claim.command}` on {claim.date} at commit {claim.commit[:10]}; {claim.machine}{seeds}."
    return "\n".join([*lines, "", made])


def refreshed(text: str, claims: Sequence[Claim]) -> str:
    """`text` with every block rewritten from `claims`.

    Raises:
        ClaimError: for a marker without its partner, and for a block that quotes what was never measured.
    """
    known = {claim.name: claim for claim in claims}
    lines: list[str] = []
    opened: str | None = None
    for line in text.splitlines():
        opening = _OPENING.fullmatch(line)
        if (opening is None and line.startswith("<!-- claims")) or (opening and opened):
            raise ClaimError(f"{line!r} is malformed, or opens a block inside {opened!r}")
        if opening:
            if opening["name"] not in known:
                raise ClaimError(f"{line!r} quotes an unknown result; there are {sorted(known)}")
            opened = line
            lines += [line, "", quote(known[opening["name"]], opening["figures"].split()), ""]
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


def outdated(root: Path = ROOT) -> dict[Path, str]:
    """README, changelog, results and pages of the site whose blocks are not current, with the text that they should
    have.
    """
    claims = read(root)
    found = {}
    first = (root / "README.md", root / "CHANGELOG.md", root / "benchmarks" / "RESULTS.md")
    pages = [*first, *sorted((root / "docs").rglob("*.md"))]
    for path in filter(Path.exists, pages):
        text = path.read_text(encoding="utf-8")
        try:
            current = refreshed(text, claims)
        except ClaimError as error:
            raise ClaimError(f"{path.relative_to(root)}: {error}") from error
        if current != text:
            found[path] = current
    return found


def main(root: Path = ROOT) -> None:
    """Rewrite the blocks that are not current."""
    try:
        found = outdated(root)
    except ClaimError as error:
        sys.exit(str(error))
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
        print(f"rewrote {path.relative_to(root)}")


if __name__ == "__main__":
    main()
