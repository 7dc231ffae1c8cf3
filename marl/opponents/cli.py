"""`presage opponents`, which `presage.common.cli` finds by its entry point.

What it needs is imported late, so that the list of commands needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from presage.common.configuration import UsageError
from presage.common.plugins import advice

USAGE = """usage: presage opponents COMMAND ...   (presage opponents COMMAND --help tells its options)

  fit       fit a model of the other agents, judge it, and keep both: presage opponents fit RUN-OR-DATA
  evaluate  judge such a model by other data: presage opponents evaluate MODEL-FOLDER RUN-OR-DATA

RUN-OR-DATA is the folder of a run, a file of Record.save, a NumPy archive, or a Minari dataset by its id or folder"""


def opponents(arguments: Sequence[str]) -> int:
    """Models of the other agents, from runs and data: presage opponents fit|evaluate ..."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    from presage.marl.opponents import commands

    known = {"fit": commands.fit, "evaluate": commands.evaluate}
    name, *rest = arguments
    if name not in known:
        raise UsageError(f"no command of presage opponents is called {name!r}; {advice(name, known)}")
    return known[name](rest)
