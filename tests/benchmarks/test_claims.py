"""Claims are kept whole, judged against their aims, called stale when what they depend on changed, quoted verbatim."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import quotes
from benchmarks.claims import ROOT, Aim, Claim, ClaimError, changed, imported, number, read, table, write
from presage.common import game


def run_git(root: Path, *arguments: str) -> str:
    """Git in `root`, with an identity of its own and none of the user's settings."""
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"]
    asked = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def commit_all(root: Path) -> str:
    run_git(root, "add", "--all")
    run_git(root, "commit", "--quiet", "--message", "change")
    return run_git(root, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with two benchmarks, `speed` and `learning`, what they depend on, and a README."""
    for name in ("benchmarks/speed.py", "benchmarks/learning.py", "common/replay.py", "envs/toy.py", "docs/index.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"contents of {name}\n")
    (tmp_path / "README.md").write_text("# Title\n")
    run_git(tmp_path, "init", "--quiet")
    commit_all(tmp_path)
    return tmp_path


def write_speed(root: Path) -> Path:
    """A speed that meets its aim, an overhead that misses it, a count without one."""
    return write(
        "speed",
        figures={"steps_per_second": 131_072.4, "overhead": 0.31, "copies": 1024},
        aims={"steps_per_second": Aim(op=">=", value=100_000), "overhead": Aim(op="<=", value=0.25)},
        depends=["common", "envs/toy.py"],
        root=root,
    )


def make_claim(**changes: object) -> Claim:
    claim = Claim(
        name="learning", command="make bench NAME=learning", commit="0123456789abcdef", date="2026-01-31",
        machine="Some CPU, 2 cores, 1 torch thread", versions={"python": "3.11.7"}, seeds=[3, 4], depends=["common"],
        figures={"gap": 0.92345, "gap_low": 0.9, "gap_high": 0.95}, aims={"gap": Aim(op=">=", value=0.9)},
    )  # fmt: skip
    return replace(claim, **changes)  # type: ignore[arg-type]  # each test names fields of its own


def cells(text: str) -> dict[str, list[str]]:
    """The printed table's rows as cells, by figure."""
    rows = [re.split(r" {2,}", line) for line in text.splitlines()]
    return {row[1]: row for row in rows if len(row) > 2}


@pytest.mark.parametrize(
    ("op", "value", "figure", "met"),
    [(">=", 0.9, 0.9, True), (">=", 0.9, 0.89, False), ("<=", 2.0, 2.0, True), ("<=", 2.0, 2.01, False)],
)
def test_aim_includes_its_bound(op: str, value: float, figure: float, met: bool) -> None:
    aim = Aim(op=op, value=value)  # type: ignore[arg-type]  # the parameters are plain strings
    assert aim.met(figure) is met


def test_written_file_holds_the_fields_of_a_claim(checkout: Path) -> None:
    data = json.loads(write_speed(checkout).read_text())
    assert list(data) == [
        "command", "commit", "date", "machine", "versions", "seeds", "depends", "figures", "aims", "notes",
    ]  # fmt: skip
    assert data["command"] == "make bench NAME=speed"
    assert data["commit"] == run_git(checkout, "rev-parse", "HEAD")
    assert data["depends"] == ["benchmarks/speed.py", "common", "envs/toy.py"]
    assert data["figures"] == {"steps_per_second": 131_072.4, "overhead": 0.31, "copies": 1024.0}
    assert data["aims"]["overhead"] == {"op": "<=", "value": 0.25}
    assert data["versions"]["numpy"] == np.__version__
    assert data["versions"]["torch"] == torch.__version__
    assert f"{torch.get_num_threads()} torch thread" in data["machine"]


def test_claim_survives_its_file(checkout: Path) -> None:
    path = write_speed(checkout)
    (claim,) = read(checkout)
    assert claim.name == "speed"
    assert claim.to_json() == path.read_text()


def test_table_tells_met_from_missed(checkout: Path) -> None:
    write_speed(checkout)
    rows = cells(table(read(checkout), checkout))
    command = "make bench NAME=speed"
    assert rows["steps_per_second"] == ["speed", "steps_per_second", "131,072", "≥ 100,000", "met", command]
    assert rows["overhead"] == ["speed", "overhead", "0.31", "≤ 0.25", "missed", command]
    assert rows["copies"] == ["speed", "copies", "1,024", "no aim", command]


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("path", ["common/replay.py", "common/new.py", "envs/toy.py", "benchmarks/speed.py"])
def test_change_of_a_dependency_makes_every_figure_stale(checkout: Path, path: str, committed: bool) -> None:
    write_speed(checkout)
    assert changed(read(checkout)[0], checkout) == []
    (checkout / path).write_text("other contents\n")
    if committed:
        commit_all(checkout)
    text = table(read(checkout), checkout)
    assert {row[-2] for row in cells(text).values()} == {"status", "stale"}
    assert text.splitlines()[-1] == f"speed is stale: {path}"


def test_change_of_another_file_leaves_figures_alone(checkout: Path) -> None:
    write_speed(checkout)
    (checkout / "benchmarks/learning.py").write_text("other contents\n")
    commit_all(checkout)
    assert changed(read(checkout)[0], checkout) == []


def test_removed_dependency_makes_stale(checkout: Path) -> None:
    write_speed(checkout)
    (checkout / "envs/toy.py").unlink()
    assert changed(read(checkout)[0], checkout) == ["envs/toy.py"]


def test_measurement_with_uncommitted_changes_stays_stale(checkout: Path) -> None:
    (checkout / "common/replay.py").write_text("being tried\n")
    write_speed(checkout)
    run_git(checkout, "checkout", "common/replay.py")
    (claim,) = read(checkout)
    assert claim.commit == run_git(checkout, "rev-parse", "HEAD") + "-dirty"
    assert changed(claim, checkout) == ["it was measured with changes that were not committed"]


def test_unknown_commit_is_stale(checkout: Path) -> None:
    assert changed(make_claim(), checkout) == ["its commit 0123456789 is not in this history"]


def test_measurement_outside_a_repository_is_kept_and_stale(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/speed.py").touch()
    write("speed", figures={"copies": 3}, aims={}, depends=[], root=tmp_path)
    (claim,) = read(tmp_path)
    assert (claim.figures, changed(claim, tmp_path)) == ({"copies": 3.0}, ["it was measured outside a commit"])


def test_interval_stands_beside_its_point() -> None:
    claim = make_claim()
    assert claim.rows == ["gap"]
    assert claim.shown("gap") == "0.9234 (0.9 to 0.95)"


def test_bound_with_an_aim_has_a_row_of_its_own() -> None:
    claim = make_claim(aims={"gap_low": Aim(op=">=", value=0.91)})
    assert claim.rows == ["gap", "gap_low"]
    assert claim.status("gap_low") == "missed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"figures": {}}, "no figures"),
        ({"figures": {"gap": float("nan")}}, "'gap' is nan"),
        ({"figures": {"gap": 1.0, "gap_low": 0.5}}, "'gap_low' bounds an interval"),
        ({"figures": {"gap": 1.0, "gap_low": 2.0, "gap_high": 0.5}}, "upside down: 2.0 to 0.5"),
        ({"aims": {"speedup": Aim(op=">=", value=2)}}, r"aims for \['speedup'\]"),
    ],
)
def test_contradictory_claim_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ClaimError, match=message):
        make_claim(**changes)


def test_absent_dependency_is_refused(checkout: Path) -> None:
    with pytest.raises(ClaimError, match=r"learning depends on \['marl'\], which do not exist"):
        write("learning", figures={"gap": 1.0}, aims={}, depends=["marl"], root=checkout)


def test_file_with_other_fields_is_refused(checkout: Path) -> None:
    path = write_speed(checkout)
    path.write_text(path.read_text().replace('"notes"', '"remarks"'))
    with pytest.raises(ClaimError, match=r"missing fields \['notes'\], unknown fields \['remarks'\]"):
        read(checkout)


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (1234.56, "1,235"), (-2e6, "-2,000,000"), (0.98765, "0.9877"), (1e-7, "1e-07")]
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_number_keeps_four_digits(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=6e-4)


QUOTED = """\
| figure | measured | aim | |
|---|---|---|---|
| `gap` | 0.9234 (0.9 to 0.95) | ≥ 0.9 | met |

`make bench NAME=learning` on 2026-01-31 at commit 0123456789; Some CPU, 2 cores, 1 torch thread; seeds 3, 4."""


def test_block_is_rewritten_and_its_surroundings_are_kept() -> None:
    old = "before\n\n<!-- claims:learning -->\nyesterday's\nfigures\n<!-- /claims -->\n\nafter\n"
    new = f"before\n\n<!-- claims:learning -->\n\n{QUOTED}\n\n<!-- /claims -->\n\nafter\n"
    assert quotes.refreshed(old, [make_claim()]) == new
    assert quotes.refreshed(new, [make_claim()]) == new


def test_block_quotes_the_figures_it_names() -> None:
    claim = make_claim(figures={"speedup": 3.5, "gap": 0.5}, aims={"speedup": Aim(op=">=", value=4)})
    text = quotes.refreshed("<!-- claims:learning speedup -->\n<!-- /claims -->\n", [claim])
    assert "| `speedup` | 3.5 | ≥ 4 | missed |\n" in text
    assert "gap" not in text


TABLED = "<!-- claims:learning {row}_{column} rows: hopper walker columns: gap speedup -->"


def test_figures_that_are_alike_stand_in_a_table() -> None:
    figures = {"hopper_gap": 0.5, "hopper_gap_low": 0.25, "hopper_gap_high": 0.75, "hopper_speedup": 3.0,
               "walker_gap": 0.125}  # fmt: skip
    claim = make_claim(figures=figures, aims={})
    text = quotes.refreshed(f"{TABLED}\nold\n<!-- /claims -->\n", [claim])
    head, rule, hopper, walker = (line for line in text.splitlines() if line.startswith("|"))
    assert head == "| `{row}_{column}` | `gap` | `speedup` |"
    assert rule == "| --- | --- | --- |"
    assert hopper == "| `hopper` | 0.5 (0.25 to 0.75) | 3 |"
    assert walker == "| `walker` | 0.125 | – |"
    assert text.count("`make bench NAME=learning` on 2026-01-31") == 1
    assert quotes.refreshed(text, [claim]) == text
    with pytest.raises(ClaimError, match=r"no figures \['swimmer_gap', 'swimmer_speedup'\]; the nearest"):
        quotes.refreshed(text.replace("walker", "swimmer"), [claim])
    with pytest.raises(ClaimError, match=r"no figures \['hopper_steps', 'walker_steps'\]"):
        quotes.refreshed(text.replace("speedup", "steps"), [claim])
    with pytest.raises(ClaimError, match=r"'\{row\}_gap' must name figures by \{row\} and \{column\}"):
        quotes.refreshed(text.replace("{column}", "gap"), [claim])


def test_two_blocks_are_each_rewritten() -> None:
    block = "<!-- claims:learning -->\n<!-- /claims -->\n"
    assert quotes.refreshed(block + "between\n" + block, [make_claim()]).count(QUOTED) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- claims:learning -->\n", "never closed"),
        ("<!-- /claims -->\n", "never opened"),
        ("<!-- claims:learning -->\n<!-- claims:learning -->\n<!-- /claims -->\n", "opens a block inside"),
        ("<!-- claims: learning -->\n<!-- /claims -->\n", "malformed"),
        ("<!-- claims:unheard -->\n<!-- /claims -->\n", "unknown result"),
        ("<!-- claims:learning speedup -->\n<!-- /claims -->\n", r"no figures \['speedup'\]"),
        ("<!-- claims:learning gaps -->\n<!-- /claims -->\n", r"nearest of its \d+ are \['gap'\]"),
    ],
)
def test_broken_block_is_refused(text: str, message: str) -> None:
    with pytest.raises(ClaimError, match=message):
        quotes.refreshed(text, [make_claim()])


def test_text_without_blocks_is_left_alone() -> None:
    text = "Figures stand between `<!-- claims:NAME -->` and `<!-- /claims -->`.\n\nno newline at the end"
    assert quotes.refreshed(text, []) == text


def test_quotes_follow_a_new_measurement(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = checkout / "docs/index.md"
    page.write_text("<!-- claims:speed overhead -->\n<!-- /claims -->\n")
    write_speed(checkout)
    capsys.readouterr()
    quotes.main(checkout)
    assert capsys.readouterr().out == "rewrote docs/index.md\n"
    assert "| `overhead` | 0.31 | ≤ 0.25 | missed |" in page.read_text()
    assert quotes.outdated(checkout) == {}
    write("speed", figures={"overhead": 0.2}, aims={}, depends=[], root=checkout)
    assert list(quotes.outdated(checkout)) == [page]


def test_pictures_in_the_site_follow_those_of_the_results(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, copy = (checkout / place / "goals/maze.png" for place in ("benchmarks/results", "docs/pictures/results"))
    (checkout / "docs/index.md").write_text("![a maze](pictures/results/goals/maze.png)\n")
    with pytest.raises(SystemExit, match=r"docs/index\.md: .* copy of benchmarks/results/goals/maze\.png"):
        quotes.main(checkout)
    picture.parent.mkdir(parents=True)
    for held in (b"first", b"second"):
        picture.write_bytes(held)
        assert list(quotes.outdated(checkout)) == [copy]
        quotes.main(checkout)
        assert copy.read_bytes() == held
    assert capsys.readouterr().out == "rewrote docs/pictures/results/goals/maze.png\n" * 2


def test_broken_block_is_named_by_its_file(checkout: Path) -> None:
    (checkout / "docs/index.md").write_text("<!-- claims:unheard -->\n<!-- /claims -->\n")
    with pytest.raises(SystemExit, match=r"docs/index\.md: .*unheard"):
        quotes.main(checkout)


def test_figures_quoted_in_readme_and_docs_are_current() -> None:
    assert [path.relative_to(ROOT) for path in quotes.outdated(ROOT)] == [], "run `make quotes`"


def test_imported_files_are_those_of_the_checkout_without_the_environment() -> None:
    found = imported()
    assert Path(game.__file__).resolve().relative_to(ROOT).as_posix() in found
    assert "benchmarks/quotes.py" in found
    assert "benchmarks/claims.py" not in found
    assert all((ROOT / path).is_file() and not path.startswith(".") for path in found)


def test_words_and_layout_of_python_move_nothing(checkout: Path) -> None:
    path = checkout / "common/replay.py"
    path.write_text('"""One."""\n\nX = 1\n"""a number"""\n\n\ndef double(x):\n    """Twice."""\n    return 2 * x\n')
    commit_all(checkout)
    write_speed(checkout)
    path.write_text('"""Two."""\n# why\nX = (1)\n\n\ndef double(x):\n    return 2 * x  # both\n')
    assert changed(read(checkout)[0], checkout) == []
    path.write_text('"""Two."""\nX = 2\n\n\ndef double(x):\n    return 2 * x\n')
    assert changed(read(checkout)[0], checkout) == ["common/replay.py"]
