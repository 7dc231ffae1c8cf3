"""Games by name, and from an environment of one's own."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import pettingzoo
from pettingzoo import AECEnv, ParallelEnv

from presage.common.game import Game, GameError, GoalRule
from presage.envs.batched import BatchedGame
from presage.envs.goal_rules import goal_rule_of
from presage.envs.lane import Declaration
from presage.envs.particle import SCENARIOS, ParticleGame, SpeakerListener, Spread, game_spec
from presage.envs.toy import RULES
from presage.envs.vector import VectorGame

Adapted = tuple[Callable[[], Any], Declaration]
"""what builds an environment, and what is declared about it"""

GROUP = "presage.games"
"""entry points `NAME = module:factory` of other packages, each called as `factory(copies, workers=0, **options)`"""

PETTINGZOO = ("butterfly", "classic", "sisl")
"""PettingZoo's own families whose games have names here"""

DIES = frozenset({"knights_archers_zombies"})
"""PettingZoo's games, without version, whose agents end one by one though all act at once"""

MAMUJOCO = {
    "Ant": ("2x4", "2x4d", "4x2"), "HalfCheetah": ("2x3", "6x1"), "Hopper": ("3x1",), "Humanoid": ("9|8",),
    "HumanoidStandup": ("9|8",), "Reacher": ("2x1",), "Swimmer": ("2x1",), "Walker2d": ("2x3",),
}  # fmt: skip
"""bodies of multi-agent MuJoCo and how they are shared out; CoupledHalfCheetah needs an older MuJoCo than Fetch does"""

SHORT = {
    "fetch/pick-and-place": "FetchPickAndPlace-v4", "fetch/push": "FetchPush-v4", "fetch/reach": "FetchReach-v4",
    "fetch/slide": "FetchSlide-v4", "hand/block": "HandManipulateBlock-v1", "hand/egg": "HandManipulateEgg-v1",
    "hand/pen": "HandManipulatePen-v1", "hand/reach": "HandReach-v3",
    "maze/ant-large": "AntMaze_Large-v5", "maze/ant-medium": "AntMaze_Medium-v5", "maze/ant-umaze": "AntMaze_UMaze-v5",
    "maze/point-large": "PointMaze_Large-v3", "maze/point-medium": "PointMaze_Medium-v3",
    "maze/point-umaze": "PointMaze_UMaze-v3",
}  # fmt: skip
"""short names of goal worlds; mazes end at their goals, where gymnasium-robotics' own default goes on for ever"""

HIDES_VELOCITIES = {"simple_adversary_v3": 2}
"""mpe2 games whose joint observation leaves velocities out, and the frames that determine the next one"""

NEVER_TERMINATES = frozenset(
    {
        "FetchPickAndPlace", "FetchPush", "FetchReach", "FetchSlide", "HalfCheetah", "HandReach", "HumanoidStandup",
        "Pendulum", "Pusher", "Reacher", "Swimmer",
    }
)  # fmt: skip
"""Gymnasium environments, without `Dense` and version, that end by a step limit alone"""

ACHIEVED = {
    "FetchPickAndPlace": (3, 4, 5), "FetchPush": (3, 4, 5), "FetchReach": (0, 1, 2), "FetchSlide": (3, 4, 5),
    "HandReach": tuple(range(48, 63)), "PointMaze": (0, 1),
}  # fmt: skip
"""goal environments, likewise (mazes without their map), and where their `observation` holds the achieved goal"""

GOALS = ("Fetch", "Hand", "PointMaze", "AntMaze")
"""what the names of gymnasium-robotics' goal environments begin with"""

MAZES = ("PointMaze", "AntMaze")

DECLARED = frozenset(field.name for field in fields(Declaration))


def make(name: str, copies: int, workers: int = 0, **options: Any) -> Game:
    """A game by its name.

    Args:
        name: one of `names()`: `particle/spread` and every other name of `presage.envs.particle.SCENARIOS`, `toy/climb`
            and every other one of `presage.envs.toy.RULES`, `mpe/simple_spread_v3` and every other game of mpe2,
            `sisl/pursuit` and PettingZoo's other games (with or without version), `mamujoco/Ant-2x4`, `fetch/push`,
            `maze/point-large`, `gym/Pendulum-v1` and every other Gymnasium id, or a name that another package gives.
        copies: games played side by side, >= 1.
        workers: processes that hold them; 0 plays them in this one.
        options: of the environment, or of the particle game and its scenario; for mpe and Gymnasium games also every
            field of `Declaration` but the name.

    Raises:
        GameError: for an unknown name, with the closest known ones; for options that the game does not take; where a
            package is missing, with what to install.
    """
    plugins = _plugins()
    if name in plugins:
        game: Game = plugins[name].load()(copies, workers=workers, **options)
        return game
    family, _, rest = name.partition("/")
    if family == "particle" and rest in SCENARIOS:
        return _particle(rest, copies, workers, options)
    if family == "toy" and rest in RULES:
        return _toy(rest, copies, workers, options)
    make_env, declared = _adapted(name, options)
    return VectorGame(make_env, copies, workers, declared)


def environment(name: str, **options: Any) -> Any:
    """The PettingZoo or Gymnasium environment behind a name that is not batched, as its own package makes it.

    Raises:
        GameError: as `make` does.
    """
    return _adapted(name, options)[0]()


def _adapted(name: str, options: dict[str, Any]) -> Adapted:
    """What builds one copy of another package's game, and what is known of it."""
    if options.get("render_mode"):
        _draw_without_display()
    family, _, rest = name.partition("/")
    if family == "mpe":
        return _mpe(rest, options)
    if family == "gym":
        return _gymnasium(rest, options)
    if name in SHORT:
        ends = {"continuing_task": False} if family == "maze" else {}
        return _gymnasium(SHORT[name], ends | options, name)
    if family in PETTINGZOO:
        return _pettingzoo(name, options)
    if family == "mamujoco":
        return _mamujoco(rest, options)
    raise _unknown(name)


def _draw_without_display() -> None:
    """Have MuJoCo draw by EGL, in this process and its workers, where there is no display and nobody has chosen.

    Gymnasium would take GLFW, which then fails for good: a later try in the same process ends the process.
    """
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"} & os.environ.keys():
        os.environ["MUJOCO_GL"] = "egl"


def from_env(env: Any, copies: int = 1, workers: int = 0, **declared: Any) -> VectorGame:
    """A game from an environment of one's own: a PettingZoo ParallelEnv or AECEnv, or a gymnasium.Env.

    Args:
        env: a function or class that builds one, or, for one copy in this process, an environment.
        copies: games played side by side, >= 1.
        workers: processes that hold them; 0 plays them in this one.
        declared: fields of `Declaration`.

    Raises:
        GameError: for an `env` that cannot serve, with what would.
    """
    unknown = declared.keys() - DECLARED
    if unknown:
        raise GameError(f"unknown {sorted(unknown)}; what can be declared is {', '.join(sorted(DECLARED))}")
    if isinstance(env, ParallelEnv | AECEnv | gymnasium.Env):
        if copies != 1 or workers:
            raise GameError(
                f"copies={copies}, workers={workers} need a function or class that builds the environment; "
                f"one object, {env}, can only be one copy in this process"
            )
        game = VectorGame(lambda: env, 1, 0, Declaration(**declared))
    elif callable(env):
        game = VectorGame(env, copies, workers, Declaration(**declared))
    else:
        raise GameError(f"expected an environment, or a function or class that builds one, got {env!r}")
    if game.spec.goal_dim and game.goal_rule is None:
        game.goal_rule = _own_rule(env)
    return game


def _own_rule(env: Any) -> GoalRule | None:
    """What an environment with goals says of them, asked of one more of it where only its maker is at hand; None where
    it says nothing.
    """
    if not callable(env):
        return _said_by(env)
    asked = env()
    try:
        return _said_by(asked)
    finally:
        asked.close()


def _said_by(env: Any) -> GoalRule | None:
    try:
        return goal_rule_of(env)
    except GameError:
        return None


def names() -> list[str]:
    """Every name that `make` knows here, sorted; Gymnasium ids as far as they are registered by now."""
    package = _mpe_package()
    mpe = [f"mpe/{name}" for name in _mpe_games(package)] if package else []
    gym = [f"gym/{name}" for name in gymnasium.registry]
    particle = [f"particle/{name}" for name in SCENARIOS]
    toys = [f"toy/{name}" for name in RULES]
    zoo = [f"{family}/{game.rpartition('_v')[0]}" for family in PETTINGZOO for game in _pettingzoo_games(family)]
    bodies = [f"mamujoco/{body}-{parts}" for body, confs in MAMUJOCO.items() for parts in confs]
    return sorted({*mpe, *gym, *particle, *toys, *zoo, *bodies, *SHORT, *_plugins()})


def batched(name: str) -> bool:
    """Whether the game plays all its copies at once, as tensors."""
    return name.partition("/")[0] in ("particle", "toy")


def make_gymnasium(name: str, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """The Gymnasium environment `name`; also in a worker, where nothing is registered yet."""
    _register_robotics(name)
    return gymnasium.make(name, **options)


def _mpe(name: str, options: dict[str, Any]) -> Adapted:
    package = _mpe_package()
    if package is None:
        raise GameError(f"mpe/{name} needs mpe2: pip install mpe2")
    if name not in _mpe_games(package):
        raise _unknown(f"mpe/{name}")
    module = importlib.import_module(f"{package.__name__}.{name}")
    declared, options = _split(options)
    accepted = inspect.signature(module.raw_env).parameters
    strange = options.keys() - accepted.keys()
    if strange:
        raise GameError(f"mpe/{name} takes no option {sorted(strange)}; it takes {', '.join(sorted(accepted))}")
    known: dict[str, Any] = {
        "name": f"mpe/{name}",
        "frames": HIDES_VELOCITIES.get(name, 1),
        "episode_limit": options.get("max_cycles", accepted["max_cycles"].default),
        "terminates": bool(options.get("terminate_on_success", False)),
        **_mpe_structure(name, options.get("N", 3), continuous=bool(options.get("continuous_actions", False))),
    }
    return partial(module.parallel_env, **options), Declaration(**(known | declared))


def _mpe_structure(name: str, agents: int, *, continuous: bool) -> dict[str, Any]:
    """Vectors, symmetries and known columns of an mpe2 game, where there is a game of ours that is equal to it."""
    if name == "simple_spread_v3":
        spec = game_spec(Spread(agents=agents), continuous=continuous)
    elif name == "simple_speaker_listener_v4":
        spec = game_spec(SpeakerListener(), continuous=continuous)
    else:
        return {}
    return {"vectors": spec.vectors, "symmetries": spec.symmetries, "known": spec.known}


def _pettingzoo(name: str, options: dict[str, Any]) -> Adapted:
    family, _, wanted = name.partition("/")
    module = wanted.replace("-v", "_v")
    found = [game for game in _pettingzoo_games(family) if module in (game, game.rpartition("_v")[0])]
    if not found:
        raise _unknown(name)
    game = found[-1]
    declared, options = _split(options)
    dies = game.rpartition("_v")[0] in DIES
    known: dict[str, Any] = {"name": name} | ({"acting_varies": True} if dies else {})
    try:
        make_pettingzoo(family, game, options).close()  # what is missing is told here, and not by a worker
    except ImportError as error:
        if error.name is None:
            raise GameError(f"{name} cannot be imported: {error}") from error
        raise GameError(f"{name} needs {error.name}, which is not installed: pip install presage[games]") from error
    return partial(make_pettingzoo, family, game, options), Declaration(**(known | declared))


def make_pettingzoo(family: str, game: str, options: dict[str, Any]) -> Any:
    """A game of PettingZoo, such as `sisl`, `pursuit_v5`: the parallel one if there is one, else the one in turns."""
    stem, _, version = game.rpartition("_v")
    if hasattr(pettingzoo, "make"):
        registered = importlib.import_module("pettingzoo.env_registry.registration")
        identifier = f"{family}/{stem}-v{version}"
        kind = "parallel" if identifier in registered.parallel_registry else "aec"
        return pettingzoo.make(kind, identifier, **options)
    module = importlib.import_module(f"pettingzoo.{family}.{game}")
    make_env = getattr(module, "parallel_env", None) or module.env
    return make_env(**options)


def _pettingzoo_games(family: str) -> list[str]:
    """The games of a family as modules are called, `pursuit_v5` for example, without importing them."""
    folder = Path(str(pettingzoo.__file__)).parent / family
    return sorted(path.stem for path in folder.glob("*_v*.py") if path.stem.rpartition("_v")[2].isdigit())


def _mamujoco(rest: str, options: dict[str, Any]) -> Adapted:
    body, _, parts = rest.partition("-")
    if parts not in MAMUJOCO.get(body, ()):
        raise _unknown(f"mamujoco/{rest}")
    declared, options = _split(options)
    known: dict[str, Any] = {"name": f"mamujoco/{rest}", "terminates": body not in NEVER_TERMINATES}
    return partial(make_mamujoco, body, parts, options), Declaration(**(known | declared))


def make_mamujoco(body: str, parts: str, options: dict[str, Any]) -> Any:
    """A body of multi-agent MuJoCo whose joints are shared out among agents."""
    module = importlib.import_module("gymnasium_robotics")
    return module.mamujoco_v1.parallel_env(scenario=body, agent_conf=parts, **options)


def _gymnasium(name: str, options: dict[str, Any], called: str = "") -> Adapted:
    _register_robotics(name)
    try:
        spec = gymnasium.spec(name)
    except gymnasium.error.UnregisteredEnv as error:
        raise _unknown(f"gym/{name}") from error
    except gymnasium.error.DeprecatedEnv as error:
        raise GameError(f"gym/{name}: {error}") from error
    declared, options = _split(options)
    kind = spec.name.removesuffix("Dense")
    maze = kind.partition("_")[0]
    known: dict[str, Any] = {
        "name": called or f"gym/{name}",
        "terminates": kind not in NEVER_TERMINATES and not (maze in MAZES and options.get("continuing_task", True)),
        "achieved": ACHIEVED.get(kind, ACHIEVED.get(maze)),
        "goal_rule": _goal_rule(name, options) if kind.startswith(GOALS) else None,
    }
    return partial(make_gymnasium, name, options), Declaration(**(known | declared))


def _goal_rule(name: str, options: dict[str, Any]) -> GoalRule | None:
    """The rule of a goal environment, read off one that is made for it."""
    env = make_gymnasium(name, options)
    rule = goal_rule_of(env)
    env.close()
    return rule


def _particle(name: str, copies: int, workers: int, options: dict[str, Any]) -> Game:
    if workers:
        raise GameError(f"particle/{name} plays all copies at once as tensors; workers={workers} must be 0")
    own = {field.name for field in fields(SCENARIOS[name])}  # type: ignore[arg-type]  # they are dataclasses
    accepted = own | inspect.signature(ParticleGame).parameters.keys() - {"scenario", "copies"}
    strange = options.keys() - accepted
    if strange:
        raise GameError(f"particle/{name} takes no option {sorted(strange)}; it takes {', '.join(sorted(accepted))}")
    scenario = SCENARIOS[name](**{key: value for key, value in options.items() if key in own})
    return ParticleGame(scenario, copies, **{key: value for key, value in options.items() if key not in own})


def _toy(name: str, copies: int, workers: int, options: dict[str, Any]) -> BatchedGame:
    if workers:
        raise GameError(f"toy/{name} plays all copies at once as tensors; workers={workers} must be 0")
    try:
        rules = RULES[name](**options)
    except TypeError as error:
        raise GameError(f"toy/{name} does not take these options: {error}") from error
    return BatchedGame(rules, copies)


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is declared about the game, and the rest."""
    declared = {key: value for key, value in options.items() if key in DECLARED}
    return declared, {key: value for key, value in options.items() if key not in DECLARED}


def _mpe_package() -> ModuleType | None:
    """The particle games' package: mpe2, or the older `pettingzoo.mpe` (PettingZoo up to 1.25)."""
    for package in ("mpe2", "pettingzoo.mpe"):
        try:
            return importlib.import_module(package)
        except ImportError:
            continue
    return None


def _mpe_games(package: ModuleType) -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return [name for name in found if name.rpartition("_v")[2].isdigit()]


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _register_robotics(name: str) -> None:
    """Register gymnasium-robotics' environments where `name` is not known without them."""
    if name in gymnasium.registry or ":" in name:
        return
    try:
        robotics = importlib.import_module("gymnasium_robotics")
    except ImportError:
        return
    gymnasium.register_envs(robotics)


def _unknown(name: str) -> GameError:
    close = get_close_matches(name, names(), n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(map(repr, close))}?" if close else "presage.envs.registry.names() lists them"
    return GameError(f"no game is called {name!r}; {advice}")
