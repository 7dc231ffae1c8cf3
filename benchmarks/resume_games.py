"""Whether every game of the registry goes on, saved in the middle of an episode and restored, as if nothing had been.

A game that is adapted from another package is restored by replaying its open episode from the seed; one that leaves
something to chance beyond its seed does not replay, and resumes at an episode boundary only. Two copies of every game
play 12 random steps and are saved; a fresh game is restored, and both play 12 more with the same actions: every number
of every row is compared.
"""

from __future__ import annotations

import argparse
import fnmatch
import warnings
from dataclasses import fields
from typing import Any, Literal

import torch

from benchmarks.claims import Aim, imported, write
from presage.common.game import Game, Rows, View
from presage.envs import registry
from presage.envs.vector import ReplayError

COPIES, BEFORE, AFTER = 2, 12, 12


def play(game: Game, view: View, steps: int, rng: torch.Generator) -> tuple[list[Rows], View]:
    """The rows of some random steps, and the last view."""
    found = []
    for _ in range(steps):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        found.append(rows)
    return found, view


def same(first: Any, second: Any) -> bool:
    """Whether two views, or rows, hold the same numbers; NaN is itself."""
    pairs = ((getattr(first, f.name), getattr(second, f.name)) for f in fields(first))
    return all(a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in pairs)


def resumes(name: str) -> Literal["exact", "boundary", "wrong"]:
    """How a restored game of this name goes on: it repeats what the saved one did; it says that it cannot; or it does
    otherwise without a word.
    """
    game, resumed = registry.make(name, COPIES), registry.make(name, COPIES)
    try:
        rng = torch.Generator().manual_seed(0)
        _, view = play(game, game.reset(7), BEFORE, rng)
        saved, noise = game.state(), rng.get_state()
        expected, last = play(game, view, AFTER, rng)
        resumed.reset(0)
        try:
            seen = resumed.restore(saved)
        except ReplayError:
            return "boundary"
        rng.set_state(noise)
        found, end = play(resumed, seen, AFTER, rng)
        good = same(seen, view) and same(end, last) and all(map(same, found, expected))
        return "exact" if good else "wrong"
    finally:
        game.close()
        resumed.close()


def main() -> None:
    """Try every game that can be played here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--matching", default="*", help="only names like this; other than * keeps nothing")
    options = parser.parse_args()
    found: dict[str, list[str]] = {"exact": [], "boundary": [], "wrong": [], "not played": []}
    for name in fnmatch.filter(registry.names(), options.matching):
        with warnings.catch_warnings(action="ignore"):  # what packages say of their own games
            try:
                kind: str = resumes(name)
            except Exception as error:  # a package is missing, an option is needed, another package's game is broken
                kind = "not played"
                print(f"{name}: {error}", flush=True)
        found[kind].append(name)
        print(f"{name:40} {kind}", flush=True)
    if options.matching != "*":
        return
    figures = {kind: len(names) for kind, names in found.items() if kind != "not played"}
    write(
        "resume_games", seeds=[7], depends=imported(),
        figures={"games": sum(figures.values()), **figures}, aims={"wrong": Aim(op="<=", value=0.0)},
        notes="; ".join(f"{kind}: {', '.join(names) or 'none'}" for kind, names in found.items() if kind != "exact"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
