from collections.abc import Mapping
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from presage.common.intervals import Band, Interval
from presage.common.marl_eval import SeedResult, write_evaluations
from presage.common.metrics import QUERIES, MetricLog
from presage.common.report import (
    HEADER,
    TableRow,
    markdown_table,
    plot_curves,
    report,
    table_cells,
    text_table,
)

ROWS = [
    TableRow(name="random", returns=Interval(value=-30.0, low=-31.25, high=-29.0), over="32 episodes"),
    TableRow(
        name="aorpo", returns=Interval(value=-15.0, low=-16.0, high=-14.0), over="5 seeds",
        gap=Interval(value=0.75, low=0.7, high=0.8), env_steps=25_000, queries=120_000,
    ),
]  # fmt: skip


def test_markdown_table() -> None:
    assert markdown_table(HEADER, table_cells(ROWS)) == (
        "| method | return [95 % interval] | interval over | gap closed | env steps | opponent queries |\n"
        "|---|---:|---:|---:|---:|---:|\n"
        "| random | -30.00 [-31.25, -29.00] | 32 episodes | – | – | – |\n"
        "| aorpo | -15.00 [-16.00, -14.00] | 5 seeds | 0.75 [0.70, 0.80] | 25,000 | 120,000 |\n"
    )


def test_text_table() -> None:
    assert text_table(("method", "return"), [("random", "-30.00"), ("a", "5.00")]) == (
        "method  return\nrandom  -30.00\na         5.00\n"
    )


def test_a_bar_in_a_cell_does_not_break_the_markdown_table() -> None:
    assert markdown_table(("a|b",), [("c|d",)]) == "| a\\|b |\n|---|\n| c\\|d |\n"


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture[..., :3] == colour).all(axis=-1).any())


def longest_grey_row(picture: np.ndarray) -> int:
    """The most pixels of a row that are as grey as a level's line; text and grid lines have few, or are lighter."""
    red, green, blue = (picture[..., k].astype(int) for k in range(3))
    return int(((red == green) & (green == blue) & (red > 100) & (red < 190)).sum(axis=1).max())


BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def test_curves_are_drawn_in_a_colour_each(tmp_path: Path) -> None:
    x = np.array([0.0, 1000.0, 2000.0])
    one = Band(x=x, value=x / 100, low=x / 100 - 1, high=x / 100 + 1)
    plot_curves({"one": one}, tmp_path / "one.png", levels={"random": -2.0})
    plot_curves({"one": one, "two": Band(x=x, value=-x, low=-x, high=-x)}, tmp_path / "two.png")
    first, second = imageio.imread(tmp_path / "one.png"), imageio.imread(tmp_path / "two.png")
    assert has_colour(first, BLUE)
    assert not has_colour(first, VERMILLION)
    assert has_colour(second, BLUE)
    assert has_colour(second, VERMILLION)


def test_levels_are_drawn(tmp_path: Path) -> None:
    x = np.array([0.0, 1.0])
    band = Band(x=x, value=x, low=x, high=x)
    plot_curves({"a": band}, tmp_path / "with.png", levels={"random": 0.5})
    plot_curves({"a": band}, tmp_path / "without.png")
    assert longest_grey_row(imageio.imread(tmp_path / "with.png")) > 300
    assert longest_grey_row(imageio.imread(tmp_path / "without.png")) < 150


def keep(folder: Path, seed: int, task: str, returns: Mapping[str, list[tuple[int, list[float]]]]) -> None:
    """Write an evaluation file of (env steps, returns) by algorithm."""
    results = [
        SeedResult(
            environment="mpe", task=task, algorithm=name, seed=seed,
            evaluations=[(env_steps, {"return": episodes}) for env_steps, episodes in evaluations],
        )
        for name, evaluations in returns.items()
    ]  # fmt: skip
    write_evaluations(folder / "evaluation.json", results)


def run_folder(
    root: Path, seed: int, last: list[float], *, algorithm: str = "aorpo", task: str = "spread", queries: int = 0
) -> Path:
    """A run of two evaluations, at 500 and 1000 env steps, kept with a random actor at -30 and a reference at -10."""
    folder = root / f"{algorithm}_{seed}"
    with MetricLog(folder, tensorboard=False) as log:
        log.write(500, {QUERIES: queries // 2})
        log.write(1000, {QUERIES: queries})
    (folder / "config.yaml").write_text(f"method: {algorithm} <&>\n")
    levels = {"random": [(0, [-30.0] * 4)], "reference": [(0, [-10.0] * 4)]}
    keep(folder, seed, task, levels | {algorithm: [(500, [-25.0] * 4), (1000, last)]})
    return folder


def test_report_of_seeds(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path, seed, [-14.0, -16.0], queries=1000 + seed) for seed in range(3)]
    page = report(folders, tmp_path / "out").read_text()
    assert page.startswith("# aorpo on spread\n")
    assert (
        "| random | -30.00 [-30.00, -30.00] | 4 episodes | – | – | – |\n"
        "| aorpo | -15.00 [-15.00, -15.00] | 3 seeds | 0.75 [0.75, 0.75] | 1,000 | 1,001 |\n"
        "| reference | -10.00 [-10.00, -10.00] | 4 episodes | – | – | – |\n"
    ) in page
    assert "```yaml\nmethod: aorpo <&>\n```" in page
    assert "](curves.png)" in page
    assert ".gif" not in page
    assert has_colour(imageio.imread(tmp_path / "out" / "curves.png"), BLUE)
    web = (tmp_path / "out" / "index.html").read_text()
    assert "method: aorpo &lt;&amp;&gt;" in web
    assert "<td>0.75 [0.75, 0.75]</td>" in web
    assert "aorpo      -15.00 [-15.00, -15.00]" in (tmp_path / "out" / "table.txt").read_text()


def test_report_of_one_seed_draws_its_interval_over_episodes(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, 0, [-10.0, -20.0, -30.0, -20.0])
    row = next(line for line in report([folder], folder / "report").read_text().splitlines() if "| aorpo" in line)
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[3] == "4 episodes"
    value, ends = cells[2].split(" ", 1)
    low, high = (float(end) for end in ends.strip("[]").split(", "))
    assert float(value) == -20.0
    # Means of four draws: -30 and -27.5 together have a probability of 9/256, so the 2.5 % percentile is -27.5.
    assert (low, high) == (-27.5, -12.5)


def test_report_compares_methods_and_embeds_the_picture(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path, 0, [-15.0]), run_folder(tmp_path, 0, [-20.0], algorithm="masac")]
    picture = folders[1] / "report" / "episode.gif"
    picture.parent.mkdir()
    picture.write_bytes(b"GIF89a")
    page = report(folders, tmp_path / "out").read_text()
    assert page.startswith("# aorpo against masac on spread\n")
    assert "](episode.gif)" in page
    assert (tmp_path / "out" / "episode.gif").read_bytes() == b"GIF89a"
    assert has_colour(imageio.imread(tmp_path / "out" / "curves.png"), VERMILLION)


def test_report_is_the_same_when_made_again(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path, seed, [-14.0 - seed]) for seed in range(4)]
    first = report(folders, tmp_path / "out").read_text()
    assert report(folders, tmp_path / "out").read_text() == first


def test_report_refuses_what_it_cannot_put_together(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", 0, [-15.0])
    with pytest.raises(ValueError, match="another run of 'aorpo' with seed 0"):
        report([folder, run_folder(tmp_path / "b", 0, [-15.0])], tmp_path / "out")
    with pytest.raises(ValueError, match="one report covers one task"):
        report([folder, run_folder(tmp_path / "c", 1, [-15.0], task="tag")], tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds no evaluation\.json"):
        report([tmp_path], tmp_path / "out")


def test_a_reference_no_better_than_random_leaves_no_gap(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, 0, [-15.0])
    keep(folder, 0, "spread", {"aorpo": [(500, [-15.0])], "random": [(0, [-10.0])], "reference": [(0, [-10.0])]})
    page = report([folder], tmp_path / "out").read_text()
    assert "| aorpo | -15.00 [-15.00, -15.00] | 1 episode | – | 500 | 0 |" in page
