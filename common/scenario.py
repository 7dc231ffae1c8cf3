"""A scenario: the game, the method and the numbers of one training run, as a frozen configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
import yaml

from presage.common import plugins
from presage.common.configuration import ConfigError, from_plain, to_plain
from presage.common.method import Method

CONFIG_FILE = "config.yaml"
"""the resolved scenario in a run folder"""
DRAFT = f".{CONFIG_FILE}.draft"
OWN_GAME = "own"
"""the game's name where it is not found by name but handed to `Training`"""

Device = Literal["auto", "cpu", "cuda"]
MethodT = TypeVar("MethodT", bound=Method)
Fixed = Annotated[str, tyro.conf.Suppress]
"""text that belongs to a scenario and is no option of the command line's help"""


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """Which game is played, and in how many copies."""

    name: str = OWN_GAME
    """as in `presage list games`, such as `mpe/simple_spread_v3`; `own` where the game is handed over as an object"""
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """settings of the environment by its own names"""
    copies: int = 1
    """games played side by side; an env step of each counts as one; >= 1"""
    workers: int = 0
    """processes that hold the copies, at most as many; 0 plays them in the training process"""

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ConfigError(f"game.copies={self.copies} must be >= 1")
        if not 0 <= self.workers <= self.copies:
            raise ConfigError(f"game.workers={self.workers} must lie in 0..game.copies={self.copies}")

    @property
    def environment(self) -> str:
        """The family of the game: what stands before the slash of its name."""
        return self.name.partition("/")[0]

    @property
    def task(self) -> str:
        """What stands behind it, with the options: runs of the same task can be compared."""
        options = ", ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        name = self.name.partition("/")[2] or self.name
        return f"{name} ({options})" if options else name


@dataclass(frozen=True, kw_only=True)
class Scenario(Generic[MethodT]):
    """A training run: a game, a method, and how long and how closely to watch. Env steps count over all copies."""

    name: Fixed
    """what the command line calls it"""
    description: Fixed = ""
    """one sentence"""
    label: Fixed = ""
    """what curves and tables call the method; "" means the name that the method is installed under"""
    game: GameConfig = field(default_factory=GameConfig)
    """what is played"""
    method: MethodT
    """what learns"""
    steps: int
    """env steps of the run; >= 1"""
    seed: int = 0
    """of everything that is drawn while training; >= 0"""
    evaluate_every: int
    """env steps between two evaluations; >= 1"""
    evaluation_episodes: int = 32
    """episodes of an evaluation, the same ones every time, with greedy actions; >= 1"""
    evaluation_seed: int = 1_000_000_007
    """of the evaluations' episodes; one that neither training nor tuning has seen"""
    checkpoint_every: int
    """env steps between two checkpoints; >= 1"""
    keep_checkpoints: int = 2
    """newest checkpoints that are kept; >= 1"""
    device: Device = "auto"
    """where the networks live; `auto` takes CUDA where torch sees it"""
    threads: int | None = None
    """torch's CPU threads, of which the numbers depend; None leaves torch's own choice"""
    reference: Fixed = ""
    """the scripted controller that returns are held against, by the name it is installed under; "" for none"""
    kernel: Fixed = ""
    """the game's own dynamics, likewise, for methods with `model="true"`; "" for none"""

    def __post_init__(self) -> None:
        low = {"steps": self.steps, "evaluate_every": self.evaluate_every, "keep_checkpoints": self.keep_checkpoints,
               "evaluation_episodes": self.evaluation_episodes, "checkpoint_every": self.checkpoint_every,
               "threads": 1 if self.threads is None else self.threads}  # fmt: skip
        for name, value in low.items():
            if value < 1:
                raise ConfigError(f"{name}={value} must be >= 1")
        if self.seed < 0 or self.evaluation_seed < 0:
            raise ConfigError(f"seed={self.seed} and evaluation_seed={self.evaluation_seed} must both be >= 0")
        if self.seed == self.evaluation_seed:
            raise ConfigError(f"seed={self.seed} is the evaluation_seed too; evaluate on other episodes")

    @property
    def algorithm(self) -> str:
        """What curves and tables call the method."""
        return self.label or method_name(type(self.method)).rpartition(":")[2]


def method_name(kind: type[Any]) -> str:
    """The name that a method's class is installed under, or where it is defined: `module:Class`."""
    return plugins.name_of("method", kind) or f"{kind.__module__}:{kind.__qualname__}"


def scenario_to_plain(scenario: Scenario[Any]) -> dict[str, Any]:
    """A scenario as plain data; `method.class` names the class of its method."""
    data: dict[str, Any] = to_plain(scenario)
    data["method"] = {"class": method_name(type(scenario.method)), **data["method"]}
    return data


def scenario_from_plain(data: Any, method: type[Any] | None = None) -> Scenario[Any]:
    """The inverse of `scenario_to_plain`.

    Args:
        method: the class of the method, where it is not installed under a name.

    Raises:
        ConfigError: anything in it is unknown, missing, of a wrong type or contradictory.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("method"), Mapping) or "class" not in data["method"]:
        raise ConfigError("a scenario must be a mapping whose `method` names its `class`")
    numbers = {name: value for name, value in data["method"].items() if name != "class"}
    kind = method or _method_class(str(data["method"]["class"]))
    found: Scenario[Any] = from_plain(Scenario, {**data, "method": numbers}, narrowed={"method": kind})
    return found


def write_scenario(folder: Path, scenario: Scenario[Any]) -> None:
    """Write `config.yaml`, whole or not at all."""
    text = yaml.safe_dump(scenario_to_plain(scenario), sort_keys=False, allow_unicode=True, width=100)
    draft = folder / DRAFT
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / CONFIG_FILE)


def read_scenario(folder: Path, method: type[Any] | None = None) -> Scenario[Any]:
    """The scenario of a run folder.

    Raises:
        ConfigError: there is no `config.yaml`, or it does not hold a scenario.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{folder} is no run folder: it has no {CONFIG_FILE}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return scenario_from_plain(data, method)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _method_class(name: str) -> type[Any]:
    if ":" in name:
        own = name.partition(":")[2]
        raise ConfigError(f"the method {name!r} is not installed under a name; hand its class over: method={own}")
    try:
        kind: type[Any] = plugins.load("method", name)
    except plugins.UnknownNameError as error:
        raise ConfigError(str(error)) from error
    return kind
