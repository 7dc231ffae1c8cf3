"""What is installed under a name: scenarios, methods, games, scripted references and true dynamics.

They are found through entry points, so that this package knows none of them and other packages add theirs the same way:

    [project.entry-points."presage.methods"]
    my_method = "my_package.my_module:MyConfig"
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

Kind = Literal["scenario", "method", "registry", "reference", "kernel"]

GROUPS: dict[Kind, str] = {
    "scenario": "presage.scenarios",
    "method": "presage.methods",
    "registry": "presage.registries",
    "reference": "presage.references",
    "kernel": "presage.kernels",
}
"""the entry points' group of every kind:

* scenario: a `presage.common.scenario.Scenario`
* method: the class of a frozen configuration that satisfies `presage.common.method.Method`
* registry: a module with `make(name, copies, workers, **options)`, `from_env(...)`, `names()` and `batched(name)`
* reference: `(spec, options) -> Actor`, a scripted controller of the game
* kernel: `(spec, options, device) -> Kernel`, the game's own dynamics
"""


class UnknownNameError(LookupError):
    """Nothing is installed under a name; the message gives the closest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


def names(kind: Kind) -> list[str]:
    """Every name of a kind, sorted."""
    return sorted(_installed(kind))


def load(kind: Kind, name: str) -> Any:
    """What is installed under `name`.

    Raises:
        UnknownNameError: nothing is, with the closest names.
    """
    found = _installed(kind)
    if name not in found:
        raise UnknownNameError(f"no {kind} is called {name!r}; {advice(name, found)}")
    return found[name].load()


def name_of(kind: Kind, value: Any) -> str | None:
    """The name under which `value` itself is installed, None where it is not."""
    where = f"{value.__module__}:{value.__qualname__}"
    return next((name for name, point in _installed(kind).items() if point.value == where), None)


def advice(name: str, known: Iterable[str]) -> str:
    """What else to write than `name`: the closest of the known names, or all of them."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"known are {', '.join(map(repr, known))}" if known else "none is installed: pip install presage again"


def _installed(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUPS[kind])}
