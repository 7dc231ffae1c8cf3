"""The report of one run or of several: curves, a table of returns, a picture of an episode, all on one page.

The parts (`plot_curves`, `table_cells`, `write_page`) take plain data; `report` alone knows what a run folder holds.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from presage.common.curves import SeedCurves, gap_closed
from presage.common.intervals import Band, Interval, mean, score_interval
from presage.common.marl_eval import EVALUATION_FILE, RANDOM, REFERENCE, Episodes, SeedResult, read_evaluations
from presage.common.metrics import METRICS_FILE, QUERIES, read_metrics, series
from presage.common.scenario import CONFIG_FILE

CURVES_FILE = "curves.png"
SUCCESS_FILE = "success.png"
"""likewise of a game of goals, the share of its goals that are reached at the end of an episode"""
SUCCESS = "success_rate"
PICTURE_FILE = "episode.gif"
"""the recording of an episode, in a run folder's `report/`; likewise the next"""
MODEL_PICTURE = "model.png"
"""what the learned model knows on held-out rows"""
GOALS_PICTURE = "goals.png"
"""where its goals lay"""
PICTURES = {"One episode": PICTURE_FILE, "Goals, newest rows": GOALS_PICTURE,
            "The learned model on rows that it was not fitted to": MODEL_PICTURE}  # fmt: skip
"""pictures that a run may have, by what they show"""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""told apart by colour-blind readers too; Okabe and Ito 2008"""
DASHES = ("-", "--", "-.", (0, (1, 1)))

HEADER = ("method", "return [95 % interval]", "interval over", "gap closed", "env steps", "opponent queries")


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One method, or one of the levels it is held against."""

    name: str
    returns: Interval
    over: str
    """what the interval was drawn over: "5 seeds", "32 episodes" """
    gap: Interval | None = None
    """share of the way from the random to the reference return; None where one is unknown or there is no gap"""
    env_steps: int | None = None
    """per seed; None for what does not learn"""
    queries: int | None = None
    """opponent queries per seed, averaged; None where they were not counted"""


def report(folders: Sequence[Path], out: Path, *, seed: int = 0) -> Path:
    """Write the report of the runs in `folders` to the folder `out`.

    Runs of the same algorithm are its seeds: their curves are aggregated by the interquartile mean. The results kept
    under the algorithms `random` and `reference` are the levels that methods are held against; the first folder that
    has them counts.

    Args:
        folders: run folders with an `evaluation.json`; all of one task.
        out: made if need be; files of an earlier report are replaced.
        seed: of the bootstrap, so that the same runs give the same report.

    Returns:
        the page, `out/index.md`; `out/index.html` lies beside it.

    Raises:
        ValueError: where the runs are of several tasks, have the same algorithm and seed, or were never evaluated.
    """
    rng = np.random.default_rng(seed)
    results, levels = _gather(folders)
    held = {name: _level(name, levels[name], rng) for name in (RANDOM, REFERENCE) if name in levels}
    points = {name: row.returns.value for name, row in held.items()}
    below, above = ([held[name]] if name in held else [] for name in (RANDOM, REFERENCE))
    rows: list[TableRow] = []
    bands: dict[str, Band] = {}
    success: dict[str, Band] = {}
    for name, runs in results.items():
        curves = SeedCurves.align([_curve(run) for run, _ in runs])
        label = f"{name} ({_count(curves.seeds, 'seed')})"
        bands[label] = curves.band(rng)
        rows.append(_row(name, curves, runs, points, rng))
        if all(SUCCESS in _last(run) for run, _ in runs):
            success[label] = SeedCurves.align([_curve(run, SUCCESS) for run, _ in runs]).band(rng)
    out.mkdir(parents=True, exist_ok=True)
    plot_curves(bands, out / CURVES_FILE, levels=points)
    drawn = {label: path.name for label, name in PICTURES.items() if (path := _picture(folders, out, name))}
    if success:
        plot_curves(success, out / SUCCESS_FILE, y_label="goals reached")
        drawn = {"Goals reached against env steps": SUCCESS_FILE, **drawn}
    task = next(iter(results.values()))[0][0].task
    configs = {name: runs[0][1] / CONFIG_FILE for name, runs in results.items()}
    return write_page(
        out,
        title=f"{' against '.join(results)} on {task}",
        rows=[*below, *rows, *above],
        pictures=drawn,
        configs={name: path.read_text(encoding="utf-8") for name, path in configs.items() if path.exists()},
    )


def plot_curves(
    bands: Mapping[str, Band], path: Path, *, levels: Mapping[str, float] | None = None,
    x_label: str = "env steps", y_label: str = "return",
) -> None:  # fmt: skip
    """Draw one line with its band per entry of `bands`, and a grey horizontal line per level, as a PNG."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for k, (label, band) in enumerate(bands.items()):
        colour, dash = COLOURS[k % len(COLOURS)], DASHES[k % len(DASHES)]
        single = len(band.x) == 1  # a line of one point would not be seen
        axes.plot(
            band.x, band.value, color=colour, linestyle=dash, linewidth=2, marker="o" if single else "", label=label
        )
        axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
    for k, (label, level) in enumerate((levels or {}).items()):
        axes.axhline(level, color="0.45", linestyle=(":", "--")[k % 2], linewidth=1.2, zorder=1)
        axes.annotate(label, (1, level), xycoords=("axes fraction", "data"), xytext=(-4, 3), textcoords="offset points",
                      ha="right", color="0.35", fontsize=9)  # fmt: skip
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    if bands:
        axes.legend(frameon=False, loc="best")
    figure.savefig(path, dpi=150)


def table_cells(rows: Sequence[TableRow]) -> list[tuple[str, ...]]:
    """The text of every cell, under `HEADER`; what is not known is a dash."""
    return [
        (
            row.name,
            str(row.returns),
            row.over,
            "–" if row.gap is None else str(row.gap),
            "–" if row.env_steps is None else f"{row.env_steps:,}",
            "–" if row.queries is None else f"{row.queries:,}",
        )
        for row in rows
    ]


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A markdown table, numbers to the right; the first column to the left."""
    rule = "|---|" + "---:|" * (len(header) - 1)
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, *cells)]
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def text_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """The same table for a terminal, in columns of equal width."""
    widths = [max(len(row[k]) for row in (header, *cells)) for k in range(len(header))]
    lines = []
    for row in (header, *cells):
        aligned = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) + "\n"


def write_page(
    out: Path, *, title: str, rows: Sequence[TableRow], pictures: Mapping[str, str] | None = None,
    configs: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write `index.md`, `index.html` and `table.txt` around the curves that already lie in `out`.

    Args:
        out: the report's folder.
        title: first line of the page.
        rows: of the table.
        pictures: files inside `out` by what they show.
        configs: the resolved configuration of each method, as text.

    Returns:
        the markdown page.
    """
    cells = table_cells(rows)
    images = {"Return against env steps": CURVES_FILE, **(pictures or {})}
    note = (
        "Lines are interquartile means over seeds; bands and brackets are 95 % bootstrap intervals. The gap runs from "
        "the random policy (0) to the reference (1), both taken as exact."
    )
    page = [f"# {title}", note, *(f"![{label}]({name})" for label, name in images.items())]
    page.append(markdown_table(HEADER, cells).rstrip())
    web = [f"<h1>{html.escape(title)}</h1>", f"<p>{note}</p>"]
    web += [f'<p><img src="{html.escape(name)}" alt="{html.escape(label)}"></p>' for label, name in images.items()]
    web.append(_html_table(cells))
    for name, text in (configs or {}).items():
        page += [f"## Configuration of {name}", f"```yaml\n{text.rstrip()}\n```"]
        web += [f"<h2>Configuration of {html.escape(name)}</h2>", f"<pre>{html.escape(text)}</pre>"]
    (out / "table.txt").write_text(text_table(HEADER, cells), encoding="utf-8")
    (out / "index.html").write_text(_PAGE.format(title=html.escape(title), body="\n".join(web)), encoding="utf-8")
    path = out / "index.md"
    path.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return path


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
img {{ max-width: 100% }} td, th {{ padding: .2rem .8rem; text-align: right }}
td:first-child, th:first-child {{ text-align: left }} pre {{ background: #f4f4f4; padding: 1rem; overflow-x: auto }}
</style></head><body>
{body}
</body></html>
"""


def _html_table(cells: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in HEADER)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _gather(folders: Sequence[Path]) -> tuple[dict[str, list[tuple[SeedResult, Path]]], dict[str, Sequence[float]]]:
    """The runs by algorithm, each with its folder, and the returns of every level's episodes."""
    runs: dict[str, list[tuple[SeedResult, Path]]] = {}
    levels: dict[str, Sequence[float]] = {}
    tasks: set[tuple[str, str]] = set()
    for folder in folders:
        if not (folder / EVALUATION_FILE).exists():
            raise ValueError(f"{folder} holds no {EVALUATION_FILE}: it is no run folder, or was never evaluated")
        for result in read_evaluations(folder / EVALUATION_FILE):
            tasks.add((result.environment, result.task))
            if result.algorithm in (RANDOM, REFERENCE):
                levels.setdefault(result.algorithm, _last(result)["return"])
                continue
            known = runs.setdefault(result.algorithm, [])
            if any(result.seed == other.seed for other, _ in known):
                raise ValueError(
                    f"{folder} is another run of {result.algorithm!r} with seed {result.seed}; give one of them"
                )
            known.append((result, folder))
    if len(tasks) != 1:
        raise ValueError(f"one report covers one task, got {sorted(tasks)}; report each on its own")
    if not runs:
        raise ValueError("no folder holds the evaluations of a method")
    return runs, levels


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _last(result: SeedResult) -> Episodes:
    episodes = result.evaluations[-1][1] if result.evaluations else result.absolute
    if "return" not in episodes:
        raise ValueError(f"{result.algorithm!r}, seed {result.seed}, has no evaluation with a return")
    return episodes


def _curve(result: SeedResult, measure: str = "return") -> tuple[list[float], list[float]]:
    """Env steps and mean return, or another measure, of each evaluation of one run."""
    if not result.evaluations:
        raise ValueError(f"{result.algorithm!r}, seed {result.seed}, was never evaluated while it learned")
    steps = [float(env_steps) for env_steps, _ in result.evaluations]
    return steps, [float(np.mean(episodes[measure])) for _, episodes in result.evaluations]


def _level(name: str, returns: Sequence[float], rng: np.random.Generator) -> TableRow:
    interval = score_interval(returns, rng, statistic=mean)
    return TableRow(name=name, returns=interval, over=_count(len(returns), "episode"))


def _row(
    name: str, curves: SeedCurves, runs: Sequence[tuple[SeedResult, Path]], levels: Mapping[str, float],
    rng: np.random.Generator,
) -> TableRow:  # fmt: skip
    """The returns at the last evaluation that all seeds share; of one seed, over that evaluation's episodes."""
    if curves.seeds > 1:
        returns, over = score_interval(curves.returns[:, -1], rng), _count(curves.seeds, "seed")
    else:
        episodes = _last(runs[0][0])["return"]
        returns, over = score_interval(episodes, rng, statistic=mean), _count(len(episodes), "episode")
    gap = None
    if RANDOM in levels and REFERENCE in levels and levels[REFERENCE] > levels[RANDOM]:
        ends = (returns.value, returns.low, returns.high)
        value, low, high = gap_closed(ends, levels[RANDOM], levels[REFERENCE]).tolist()
        gap = Interval(value=value, low=low, high=high)
    queries = [counted for _, folder in runs if (counted := _queries(folder)) is not None]
    return TableRow(
        name=name, returns=returns, over=over, gap=gap, env_steps=int(curves.steps[-1]),
        queries=round(float(np.mean(queries))) if len(queries) == len(runs) else None,
    )  # fmt: skip


def _queries(folder: Path) -> float | None:
    """Opponent queries of the whole run, as its last line tells."""
    path = folder / METRICS_FILE
    counts = series(read_metrics(path), QUERIES)[1] if path.exists() else np.empty(0)
    return float(counts[-1]) if counts.size else None


def _picture(folders: Sequence[Path], out: Path, name: str) -> Path | None:
    """The first run's picture of that name, copied into the report unless it is there already."""
    for folder in folders:
        source = folder / "report" / name
        if source.exists():
            target = out / name
            if source.resolve() != target.resolve():
                shutil.copyfile(source, target)
            return target
    return None
