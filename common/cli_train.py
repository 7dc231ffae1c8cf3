"""`presage train`, `presage resume` and `presage demo`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic

import tyro

from presage.common import plugins
from presage.common.arguments import one_run, parse
from presage.common.configuration import UsageError
from presage.common.run import Outcome, exit_code, start
from presage.common.run import resume as resume_run
from presage.common.scenario import MethodT, Scenario

RUNS = Path("runs")
"""where runs are kept unless told otherwise"""


@dataclass(frozen=True, kw_only=True)
class TrainArguments(Generic[MethodT]):
    """Train a scenario in a new run folder; every number of it can be set."""

    scenario: Annotated[Scenario[MethodT], tyro.conf.arg(name="")]
    folder: Path | None = None
    """the run's folder, which must not hold anything; runs/SCENARIO/seed_SEED unless given"""


@dataclass(frozen=True, kw_only=True)
class ResumeArguments:
    """Go on with a run from its newest intact checkpoint."""

    run: tyro.conf.Positional[Path]
    """the run's folder"""
    steps: int | None = None
    """a new budget of env steps for the whole run; None keeps its own"""
    anyway: bool = False
    """go on with other threads or library versions, and so with other numbers"""


@dataclass(frozen=True, kw_only=True)
class DemoArguments:
    """Train a small example from scratch and show what came out."""

    folder: Path | None = None
    """the run's folder; the first of runs/demo, runs/demo_2, ... that is free unless given"""


def train(arguments: Sequence[str]) -> int:
    """Train a scenario with the numbers typed."""
    if not arguments or arguments[0].startswith("-"):
        known = f"scenarios: {', '.join(plugins.names('scenario'))}"
        if list(arguments) in (["-h"], ["--help"]):
            print(f"usage: presage train SCENARIO [options]\n\n--help behind a scenario lists its options; {known}")
            return 0
        raise UsageError(f"name the scenario first: presage train SCENARIO [options]; {known}")
    name, *rest = arguments
    try:
        scenario: Scenario[Any] = plugins.load("scenario", name)
    except plugins.UnknownNameError as error:
        raise UsageError(str(error)) from error
    kind: Any = TrainArguments  # of this scenario's method, whose fields are options too
    default: TrainArguments[Any] = TrainArguments(scenario=scenario)
    given = parse(kind[type(scenario.method)], rest, f"presage train {name}", default)
    folder = given.folder or RUNS / name / f"seed_{given.scenario.seed}"
    return _show(start(given.scenario, folder, command=shlex.join(["presage", "train", *arguments])))


def resume(arguments: Sequence[str]) -> int:
    """Go on with a run."""
    given = parse(ResumeArguments, arguments, "presage resume")
    command = shlex.join(["presage", "resume", *arguments])
    return _show(resume_run(one_run(given.run), steps=given.steps, anyway=given.anyway, command=command))


def demo(arguments: Sequence[str]) -> int:
    """Train the scenario `demo`."""
    given = parse(DemoArguments, arguments, "presage demo")
    scenario: Scenario[Any] = plugins.load("scenario", "demo")
    folder = given.folder or _free(RUNS / "demo")
    print(f"{scenario.description}: {scenario.steps:,} env steps into {folder}", file=sys.stderr)
    return _show(start(scenario, folder, command=shlex.join(["presage", "demo", *arguments])))


def _free(folder: Path) -> Path:
    """`folder`, or the first of `folder_2`, `folder_3`, ... that is not there yet."""
    found, number = folder, 1
    while found.exists():
        number += 1
        found = folder.with_name(f"{folder.name}_{number}")
    return found


def _show(outcome: Outcome) -> int:
    """Print what came out of it, and return the code for the shell."""
    if outcome.table:
        print(outcome.table, end="")
        print(f"report: {outcome.folder / 'report' / 'index.html'}")
    else:
        print(
            f"stopped and saved at env step {outcome.env_steps:,}; go on with: presage resume {outcome.folder}",
            file=sys.stderr,
        )
    return exit_code(outcome)
