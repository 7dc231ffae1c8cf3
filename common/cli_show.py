"""`presage evaluate`, `presage plot` and `presage list`."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from presage.common import plugins
from presage.common.agent import load
from presage.common.arguments import one_run, parse
from presage.common.devices import GameOnDevice
from presage.common.evaluate import evaluate as play
from presage.common.game import GameSpec
from presage.common.intervals import mean, score_interval
from presage.common.parts import Parts
from presage.common.report import report, text_table
from presage.common.run_folder import RunError
from presage.common.scenario import read_scenario


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Let the policy of a run play episodes that it was not trained on, with greedy actions."""

    run: tyro.conf.Positional[Path]
    """the run's folder"""
    episodes: int = 320
    """>= 1"""
    seed: int = 2_000_000_011
    """of the episodes"""
    which: Literal["newest", "best"] = "newest"
    """the policy of the newest checkpoint, or of the run's best evaluation so far"""


@dataclass(frozen=True, kw_only=True)
class PlotArguments:
    """Curves, a table and a page of runs on one task; runs of the same method are its seeds."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of runs"""
    out: Path = Path("plots")
    """where the page is written"""


@dataclass(frozen=True, kw_only=True)
class ListArguments:
    """Names that can be used."""

    what: tyro.conf.Positional[Literal["scenarios", "games", "methods"]] = "scenarios"
    """of which kind"""
    matching: str = "*"
    """only names like this, with * for anything: "mpe/*" """
    names_only: bool = False
    """of games: without agents, what they see and do, goals, frames, and whether they are batched, for which each game
    is made"""


def evaluate(arguments: Sequence[str]) -> int:
    """Let a trained run play, and print what it reached."""
    given = parse(EvaluateArguments, arguments, "presage evaluate")
    if given.episodes < 1:
        raise RunError(f"episodes={given.episodes} must be >= 1")
    run = one_run(given.run)
    agent, scenario = load(run, which=given.which), read_scenario(run)
    game = GameOnDevice(Parts.of(scenario).evaluation_game(scenario.game, given.episodes), agent.device)
    try:
        found = play(game, agent.actor, given.episodes, given.seed)
    finally:
        game.close()
    rng = np.random.default_rng(given.seed)
    rows = {"return": found.mean_returns}
    if len(found.agents) > 1:
        rows |= {f"return of {name}": found.returns[:, i] for i, name in enumerate(found.agents)}
    rows |= {"length": found.lengths, **found.measures}
    cells = [(name, str(score_interval(values, rng, statistic=mean))) for name, values in rows.items()]
    print(f"{scenario.algorithm} on {scenario.game.name} at env step {agent.env_steps:,}, {given.episodes} episodes")
    print(text_table(("", "mean [95 % interval]"), cells), end="")
    return 0


def plot(arguments: Sequence[str]) -> int:
    """Write the report of several runs and print its table."""
    given = parse(PlotArguments, arguments, "presage plot")
    if not given.runs:
        raise RunError("name at least one run folder: presage plot RUN ...")
    try:
        page = report(given.runs, given.out)
    except ValueError as error:
        raise RunError(str(error)) from error
    print((page.parent / "table.txt").read_text(encoding="utf-8"), end="")
    print(f"report: {page.with_suffix('.html')}")
    return 0


def list_names(arguments: Sequence[str]) -> int:
    """Print the names of a kind."""
    given = parse(ListArguments, arguments, "presage list")
    if given.what == "games":
        registry = plugins.load("registry", "games")
        chosen = fnmatch.filter(registry.names(), given.matching)
        if chosen and not given.names_only:
            return _list_games(registry, chosen)
        names: dict[str, str] = dict.fromkeys(chosen, "")
    elif given.what == "methods":
        names = {name: _described("method", name) for name in plugins.names("method")}
    else:
        names = {name: _described("scenario", name) for name in plugins.names("scenario")}
    names = {name: purpose for name, purpose in names.items() if fnmatch.fnmatch(name, given.matching)}
    if not names:
        raise RunError(f"no name of {given.what} is like {given.matching!r}; `presage list {given.what}` prints all")
    width = max(map(len, names), default=0)
    for name, purpose in names.items():
        print(f"{name:{width}}  {purpose}".rstrip())
    return 0


def _list_games(registry: Any, names: Sequence[str]) -> int:
    """Print what each game is, one line as each is made; what cannot be made says why."""
    layout = f"{{:{max(map(len, names))}}}  {{:24}} {{:20}} {{:30}} {{:>5}} {{:>6}}  {{}}"
    print(layout.format("game", "agents", "observed numbers", "actions", "goal", "frames", "batched"))
    for name in names:
        try:
            with warnings.catch_warnings(action="ignore"):  # what packages say of their own games
                game = registry.make(name, 1)
        except Exception as error:  # a package is missing, or another package's game is broken
            print(f"{name}: {error}")
            continue
        print(layout.format(name, *_columns(game.spec), "yes" if registry.batched(name) else "no"))
        game.close()
    return 0


def _columns(spec: GameSpec) -> tuple[str, str, str, int, int]:
    """Agents, what they see, what they do, goal numbers and frames of a game; equal agents are counted."""
    teams = [
        (name.rpartition("_")[0] or name, len(a.obs), str(a.space))
        for name, a in zip(spec.names, spec.agents, strict=True)
    ]
    runs = [(*team, len(list(group))) for team, group in groupby(teams)]
    agents = ", ".join(f"{count} {stem}" if count > 1 else stem for stem, _, _, count in runs)
    seen = ", ".join(str(width) for _, width, _, _ in runs)
    done = ", ".join(dict.fromkeys(space for _, _, space, _ in runs))
    return agents, seen, done, spec.goal_dim, spec.frames


def _described(kind: plugins.Kind, name: str) -> str:
    """What an installed thing says of itself in one line; what is broken says why."""
    try:
        found = plugins.load(kind, name)
    except Exception as error:  # another package's defect must not hide all other names
        return f"(cannot be loaded: {type(error).__name__}: {error})"
    text: str = found.description if kind == "scenario" else found.__doc__ or ""
    return text.strip().partition("\n")[0]
