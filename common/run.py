"""Start a run, or go on with one, to its report: what `presage train` and `presage resume` do."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from presage.common.circumstances import Circumstances
from presage.common.closing import conclude
from presage.common.configuration import ConfigError
from presage.common.method import Method
from presage.common.parts import Parts
from presage.common.phases import OnPhase
from presage.common.run_folder import RunError, RunFolder, require_empty
from presage.common.scenario import OWN_GAME, GameConfig, Scenario, write_scenario
from presage.common.training import Training
from presage.common.tree import Tree


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a sitting on a run ended."""

    folder: Path
    env_steps: int
    """made in the whole run so far"""
    stopped_by: int | None
    """the signal that asked to stop; None where all env steps were made"""
    table: str
    """the report's table; "" where the run was stopped"""


def start(
    scenario: Scenario[Any], folder: Path | str, *, environment: Any = None, parts: Parts | None = None,
    on_phase: OnPhase | None = None, command: str = "",
) -> Outcome:  # fmt: skip
    """Run a scenario in a new folder; a run that fails before its first checkpoint leaves no folder behind.

    Args:
        folder: where it is saved; must not hold anything.
        environment: what to play instead of a game by name; see `Parts.of`.
        parts: instead of what is installed under the scenario's names.
        on_phase: called with each phase as it begins.
        command: what was typed, for the record.

    Raises:
        RunError, ConfigError, GameError, DeviceError: it cannot run; the message says why.
    """
    require_empty(folder)
    training = Training(scenario, parts or Parts.of(scenario, environment), on_phase)
    run = RunFolder.create(folder, scenario)
    try:
        with run.locked():
            return _sit(training, run, command, [])
    except BaseException:
        if not run.has_checkpoints:
            run.remove()
        raise


def resume(
    folder: Path | str, *, steps: int | None = None, anyway: bool = False, environment: Any = None,
    method: type[Any] | None = None, parts: Parts | None = None, on_phase: OnPhase | None = None, command: str = "",
    say: Callable[[str], None] = lambda sentence: print(sentence, file=sys.stderr),
) -> Outcome:  # fmt: skip
    """Go on with a run from its newest intact checkpoint; metrics past it are cut off first.

    Args:
        steps: a new budget of env steps, no smaller than what is made; None keeps the run's own.
        anyway: go on with other threads or library versions too, and so with other numbers.
        method: the class of its method, where that is not installed under a name.
        say: takes a sentence on whatever makes the numbers differ from those of an uninterrupted run.

    Raises:
        RunError, CircumstancesError, CheckpointError, ConfigError, GameError: it cannot go on; the message says why.
    """
    run = RunFolder(folder)
    with run.locked():
        tree = run.newest()
        scenario = _continued(run.scenario(method), tree, steps, run)
        training = Training(scenario, parts or Parts.of(scenario, environment), on_phase)
        differs: list[str] = []
        if tree is not None:
            differs = Circumstances(**tree["circumstances"]).check(training.circumstances(), anyway=anyway)
            lost = training.restore(tree, run)
            if lost:
                differs.append(f"open episodes of copies {lost} that do not play again, so that their next ones start")
        if differs:
            say(f"going on with other numbers than an uninterrupted run: {', '.join(differs)}")
        if steps is not None:
            write_scenario(run.path, replace(run.scenario(method), steps=steps))
        return _sit(training, run, command, differs)


def train(
    environment: Any, method: Method, folder: Path | str, *, steps: int, copies: int = 1, workers: int = 0,
    options: Mapping[str, bool | int | float | str] | None = None, **numbers: Any,
) -> Outcome:  # fmt: skip
    """Train a method on an environment of one's own, or on a game by name.

    Args:
        environment: a function or class that builds a PettingZoo ParallelEnv or AECEnv or a gymnasium.Env; one such
            object, for a single copy; or a game's name, such as "mpe/simple_spread_v3".
        method: its configuration, such as `AORPOConfig()`.
        folder: where the run is saved; must not hold anything.
        steps: env steps. copies, workers, options: see `GameConfig`.
        numbers: further fields of `Scenario`; evaluations and checkpoints come every twentieth of the run by default.

    Raises:
        RunError, ConfigError, GameError, DeviceError: as `start`.
    """
    by_name = isinstance(environment, str)
    game = GameConfig(
        name=environment if by_name else OWN_GAME, copies=copies, workers=workers, options=dict(options or {})
    )
    often = max(1, steps // 20)
    defaults: dict[str, Any] = {"name": Path(folder).name, "evaluate_every": often, "checkpoint_every": often}
    try:
        scenario: Scenario[Any] = Scenario(game=game, method=method, steps=steps, **(defaults | numbers))
    except TypeError as error:
        raise ConfigError(f"{error}; see presage.common.scenario.Scenario for what can be set") from error
    return start(scenario, folder, environment=None if by_name else environment)


def _continued(scenario: Scenario[Any], tree: Tree | None, steps: int | None, run: RunFolder) -> Scenario[Any]:
    """The scenario of the rest of a run: where it was made, and with the new budget."""
    if tree is not None:
        made = int(tree["env_steps"])
        if steps is not None and steps < made:
            raise RunError(f"steps={steps} is less than the {made} env steps that {run.path} has made")
        scenario = replace(scenario, device=tree["circumstances"]["device"])
    return scenario if steps is None else replace(scenario, steps=steps)


def _sit(training: Training, run: RunFolder, command: str, differs: list[str]) -> Outcome:
    """Train to the end or to a signal, and conclude."""
    try:
        run.add_sitting(training.circumstances(), training.env_steps, command, differs)
        stopped_by = training.run(run)
        table = conclude(training, run) if training.finished else ""
    finally:
        training.close()
    return Outcome(folder=run.path, env_steps=training.env_steps, stopped_by=stopped_by, table=table)


def exit_code(outcome: Outcome) -> int:
    """What a process that ends like this returns to its shell: 130 after SIGINT, 143 after SIGTERM, else 0."""
    return 0 if outcome.table or outcome.stopped_by is None else 128 + signal.Signals(outcome.stopped_by)
