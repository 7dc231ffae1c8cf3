"""The command `presage`: one sentence on standard error and a code other than 0 for whatever cannot be done.

Codes: 2 for what was typed wrongly, 1 for everything else that is refused, 130 and 143 after SIGINT and SIGTERM.

Commands of other packages are entry points of the group `presage.commands`: functions that take what was typed behind
the name and return the code, and whose docstring begins with what the list of commands says of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version

from presage.common.configuration import UsageError

COMMANDS = {
    "train": (
        "cli_train:train",
        "train a scenario: presage train SCENARIO [--steps 5000 --seed 3 ...]",
    ),
    "resume": ("cli_train:resume", "go on with a run that was stopped or killed: presage resume RUN"),
    "demo": ("cli_train:demo", "train a small example from scratch and show what came out"),
    "evaluate": ("cli_show:evaluate", "let a trained run play: presage evaluate RUN [--episodes 320 --seed 5]"),
    "plot": ("cli_show:plot", "curves and a table of several runs: presage plot RUN ... [--out plots]"),
    "list": ("cli_show:list_names", "names that can be used: presage list scenarios|games|methods"),
    "doctor": ("doctor:doctor", "check the installation and say how to repair it"),
}
"""by name, the function that runs it, and what it is for"""

GROUP = "presage.commands"
"""entry points of commands that are defined elsewhere"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the code for the shell."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--traceback" in given:  # for authors of plugins: show where an error came from
        given.remove("--traceback")
        return _run(given)
    try:
        return _run(given)
    except UsageError as error:
        return _refuse(error, 2)
    except ModuleNotFoundError as error:
        return _refuse(f"{error}; presage doctor says how to repair the installation", 1)
    except Exception as error:
        if not isinstance(error, _expected()):
            raise
        return _refuse(error, 1)


def script(scenario: str) -> None:
    """What a scenario's file does when it is run: train that scenario with the options typed behind it."""
    sys.exit(main(["train", scenario, *sys.argv[1:]]))


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_menu())
        return 0
    if given[0] == "--version":
        print(f"presage {version('presage')}")
        return 0
    name, *rest = given
    installed = _installed()
    if name not in COMMANDS and name not in installed:
        from presage.common.plugins import advice

        raise UsageError(f"no command is called {name!r}; {advice(name, [*COMMANDS, *installed])}")
    # imported late, so that help and doctor also work where torch does not
    command: Callable[[list[str]], int]
    if name in COMMANDS:
        module, _, function = COMMANDS[name][0].partition(":")
        command = getattr(import_module(f"presage.common.{module}"), function)
    else:
        command = installed[name].load()
    return command(rest)


def _menu() -> str:
    lines = ["usage: presage COMMAND ...   (presage COMMAND --help tells its options)", ""]
    purposes = {name: purpose for name, (_, purpose) in COMMANDS.items()}
    purposes |= {name: _purpose(point) for name, point in _installed().items()}
    lines += [f"  {name:10} {purpose}" for name, purpose in purposes.items()]
    return "\n".join([*lines, "", "  --version  print the version"])


def _installed() -> dict[str, EntryPoint]:
    """Commands that are defined elsewhere, by name; none of them replaces one of ours."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: point for point in found if point.name not in COMMANDS}


def _purpose(point: EntryPoint) -> str:
    """What a command that is defined elsewhere says of itself in one line; what is broken says why."""
    try:
        text: str = point.load().__doc__ or ""
    except Exception as error:  # another package's defect must not hide all other commands
        return f"(cannot be loaded: {type(error).__name__}: {error})"
    line = text.strip().partition("\n")[0]
    return line[:1].lower() + line[1:]


def _expected() -> tuple[type[Exception], ...]:
    """Errors whose message is written for users; any other one is a defect and keeps its traceback."""
    from presage.common.checkpoint import CheckpointError
    from presage.common.circumstances import CircumstancesError
    from presage.common.configuration import ConfigError
    from presage.common.devices import DeviceError
    from presage.common.game import GameError
    from presage.common.plugins import UnknownNameError
    from presage.common.run_folder import RunError

    return CheckpointError, CircumstancesError, ConfigError, DeviceError, GameError, UnknownNameError, RunError, OSError


def _refuse(reason: Exception | str, code: int) -> int:
    print(f"presage: {' '.join(str(reason).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
