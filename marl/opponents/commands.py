"""`presage opponents fit` and `presage opponents evaluate`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from presage.common.arguments import one_run, parse
from presage.common.game import GameError, GameSpec
from presage.marl.opponents import fitting, sources
from presage.marl.opponents.assessment import Truth, assess
from presage.marl.opponents.fitting import FAMILIES, Config, Family
from presage.marl.opponents.record import Record

ConfigT = TypeVar("ConfigT", bound=Config)
Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN-OR-DATA")]
OPPONENTS = Path("opponents")
"""where models are kept unless told otherwise"""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where moments come from."""

    rows: Literal["play", "replay"] = "play"
    """of a run: new episodes under its policy, or those in its replay, as its agents learned and explored"""
    episodes: int = 64
    """of a run whose policy plays; >= 1"""
    greedy: bool = False
    """of a run whose policy plays: its likeliest actions instead of samples"""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes} must be >= 1")


@dataclass(frozen=True, kw_only=True)
class FitArguments(Data, Generic[ConfigT]):
    """Fit a model of the other agents, judge it on episodes that it was not fitted to, and keep both in a folder."""

    data: Source
    """the folder of a run, a file of Record.save, a NumPy archive, or a Minari dataset by its id or folder"""
    family: Family = "behaviour_cloning"
    """by networks, from what is seen now or from histories, of which LIAM reads its ego's alone; or by counting. Its
    numbers are --model.*"""
    model: ConfigT
    out: Path | None = None
    """the model's folder, which must not hold anything; opponents/FAMILY/seed_SEED unless given"""
    ego: str | None = None
    """whose model of the others; the first agent unless given"""
    held: float = 0.2
    """share of the episodes, or of those who played, to judge by; in (0, 1)"""
    by: Literal["episode", "who"] = "episode"
    """whether no episode, or nobody who played, is both fitted to and judged by"""
    seed: int = 0
    """of played episodes, of what is held out, of weights and batches"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.held < 1:
            raise ValueError(f"held={self.held} must lie in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(Data):
    """Judge a model by data that it was not fitted to."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL-FOLDER")]
    """the folder that presage opponents fit wrote"""
    data: Source
    """the folder of a run, a file of Record.save, a NumPy archive, or a Minari dataset by its id or folder"""
    out: Path | None = None
    """a folder for opponents.json and opponents.png; without it the table is printed and nothing kept"""
    seed: int = 2_000_000_011
    """of played episodes"""


def fit(arguments: Sequence[str]) -> int:
    """Fit a model, print how good it is, and keep it."""
    family = _family(arguments)
    kind: Any = FitArguments  # of this family's numbers, which are options too
    default: FitArguments[Any] = FitArguments(data=tyro.MISSING, model=FAMILIES[family], family=family)
    given = parse(kind[type(FAMILIES[family])], arguments, "presage opponents fit", default)
    folder = given.out or OPPONENTS / family / f"seed_{given.seed}"
    fitting.require_empty(folder)
    record, truth = _read(given.data, given, given.seed)
    print(f"{family} on {record.spec.name}: {len(record):,} moments of {_episodes(record):,} episodes", file=sys.stderr)
    ego = 0 if given.ego is None else given.ego
    found = fitting.fit(record, given.model, ego=ego, held=given.held, by=given.by, seed=given.seed, truth=truth)
    command = shlex.join(["presage", "opponents", "fit", *arguments])
    found.save(folder, {"command": command, "data": given.data, "record": _digest(record)})
    counts = ", ".join(f"{count:,} {what}" for what, count in found.moments.items() if count)
    print(f"{family} on {record.spec.name}, moments: {counts}")
    print(found.assessment)
    print(f"model: {folder}")
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Judge a model by other data, and print how good it is."""
    given = parse(EvaluateArguments, arguments, "presage opponents evaluate")
    if given.out is not None:
        fitting.require_empty(given.out)
    model, kept = fitting.load(given.model), fitting.about(given.model)
    record, truth = _read(given.data, given, given.seed)
    different = _difference(model.spec, record.spec)
    if different:
        raise GameError(f"{given.data} is of another game than {given.model}: {different}; give data of the same game")
    if kept["about"].get("record") == _digest(record):
        print("presage: the model was fitted to most of these moments; what it gets right here says little",
              file=sys.stderr)  # fmt: skip
    found = assess(model, record, truth=truth)
    print(f"{kept['family']} on {record.spec.name}, moments: {len(record):,} judged")
    print(found)
    if given.out is not None:
        with fitting.new_folder(given.out) as writing:
            found.save(writing)
        print(f"assessment: {given.out}")
    return 0


def _family(arguments: Sequence[str]) -> Family:
    """The family that is typed, whose numbers are options; the default one where that is none."""
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name == "--family":
            typed = value if equals else next(iter(arguments[place + 1 :]), "")
            return next((family for family in FAMILIES if family == typed), FitArguments.family)
    return FitArguments.family


def _read(data: str, given: Data, seed: int) -> tuple[Record, Truth | None]:
    one_run(Path(data))  # a folder of several runs is told by their names
    return sources.read(data, rows=given.rows, episodes=given.episodes, seed=seed, greedy=given.greedy)


def _episodes(record: Record) -> int:
    return len(set(record.episode.tolist()))


def _digest(record: Record) -> str:
    """What tells records apart."""
    moments = record.moments()
    found = sha256(record.step.numpy().tobytes())
    for numbers in (moments.view.obs, moments.act):
        found.update(numbers.contiguous().numpy().tobytes())
    return found.hexdigest()


def _difference(one: GameSpec, two: GameSpec) -> str:
    """In what two games differ; "" where they are equal."""
    if one.names != two.names:
        return f"agents {', '.join(two.names)} instead of {', '.join(one.names)}"
    pairs: list[tuple[str, Any, Any]] = [
        (f"agent {a.name!r}: ", a, b) for a, b in zip(one.agents, two.agents, strict=True)
    ]
    for whose, a, b in [*pairs, ("", one, two)]:
        for field in fields(a):
            ours, theirs = getattr(a, field.name), getattr(b, field.name)
            if ours != theirs:
                if field.name == "obs":
                    return f"{whose}{len(theirs)} observed numbers instead of {len(ours)}"
                return f"{whose}{field.name}={theirs!r} instead of {ours!r}"
    return ""
