"""Games by name, and from an environment of one's own."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import gymnasium
from pettingzoo import AECEnv, ParallelEnv

from presage.common.game import Game, GameError, GoalRule
from presage.envs.batched import BatchedGame
from presage.envs.goal_rules import goal_rule_of
from presage.envs.lane import Declaration
from presage.envs.particle import SCENARIOS, ParticleGame, SpeakerListener, Spread, game_spec
from presage.envs.toy import RULES
from presage.envs.vector import VectorGame

GROUP = "presage.games"
"""entry points `NAME = module:factory` of other packages, each called as `factory(copies, workers=0, **options)`"""

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

DECLARED = frozenset(field.name for field in fields(Declaration))


def make(name: str, copies: int, workers: int = 0, **options: Any) -> Game:
    """A game by its name.

    Args:
        name: `mpe/simple_spread_v3` and every other game of mpe2, `gym/Pendulum-v1` and every other Gymnasium id,
            `particle/spread` and every other name of `presage.envs.particle.SCENARIOS`, or a name that another package
            registers.
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
    if family == "mpe":
        return _mpe(rest, copies, workers, options)
    if family == "gym":
        return _gymnasium(rest, copies, workers, options)
    if family == "particle" and rest in SCENARIOS:
        return _particle(rest, copies, workers, options)
    if family == "toy" and rest in RULES:
        return _toy(rest, copies, workers, options)
    raise _unknown(name)


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
        return VectorGame(lambda: env, 1, 0, Declaration(**declared))
    if not callable(env):
        raise GameError(f"expected an environment, or a function or class that builds one, got {env!r}")
    return VectorGame(env, copies, workers, Declaration(**declared))


def names() -> list[str]:
    """Every name that `make` knows here, sorted; Gymnasium ids as far as they are registered by now."""
    package = _mpe_package()
    mpe = [f"mpe/{name}" for name in _mpe_games(package)] if package else []
    gym = [f"gym/{name}" for name in gymnasium.registry]
    particle = [f"particle/{name}" for name in SCENARIOS]
    toys = [f"toy/{name}" for name in RULES]
    return sorted({*mpe, *gym, *particle, *toys, *_plugins()})


def make_gymnasium(name: str, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """The Gymnasium environment `name`; also in a worker, where nothing is registered yet."""
    _register_robotics(name)
    return gymnasium.make(name, **options)


def _mpe(name: str, copies: int, workers: int, options: dict[str, Any]) -> VectorGame:
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
        **_mpe_structure(name, options.get("N", 3)),
    }
    return VectorGame(partial(module.parallel_env, **options), copies, workers, Declaration(**(known | declared)))


def _mpe_structure(name: str, agents: int) -> dict[str, Any]:
    """Vectors and symmetries of an mpe2 game, where there is a game of ours that is equal to it."""
    if name == "simple_spread_v3":
        spec = game_spec(Spread(agents=agents))
    elif name == "simple_speaker_listener_v4":
        spec = game_spec(SpeakerListener())
    else:
        return {}
    return {"vectors": spec.vectors, "symmetries": spec.symmetries}


def _gymnasium(name: str, copies: int, workers: int, options: dict[str, Any]) -> VectorGame:
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
        "name": f"gym/{name}",
        "terminates": kind not in NEVER_TERMINATES,
        "achieved": ACHIEVED.get(kind, ACHIEVED.get(maze)),
        "goal_rule": _goal_rule(name, options) if kind.startswith(GOALS) else None,
    }
    return VectorGame(partial(make_gymnasium, name, options), copies, workers, Declaration(**(known | declared)))


def _goal_rule(name: str, options: dict[str, Any]) -> GoalRule | None:
    """The rule of a goal environment, read off one that is made for it."""
    env = make_gymnasium(name, options)
    rule = goal_rule_of(env)
    env.close()
    return rule


def _particle(name: str, copies: int, workers: int, options: dict[str, Any]) -> Game:
    if workers:
        raise GameError(f"particle/{name} plays all copies at once as tensors; workers={workers} must be 0")
    own = {field.name for field in fields(SCENARIOS[name])}  # type: ignore[arg-type]
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
