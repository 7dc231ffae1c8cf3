"""What a scenario names, as functions: how its game is made, who plays it by a script, and its true dynamics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch

from presage.common import plugins
from presage.common.configuration import ConfigError
from presage.common.evaluate import RenderableGame
from presage.common.game import Actor, Game, GameError, GameSpec, GoalRule, Kernel
from presage.common.method import Method, Trainee
from presage.common.scenario import OWN_GAME, GameConfig, Scenario
from presage.common.streams import Streams

Options = Mapping[str, Any]
MakeReference = Callable[[GameSpec, Options], Actor]
MakeKernel = Callable[[GameSpec, Options, torch.device], Kernel]

MOST_FRAMES = 250
"""env steps of a recorded episode; a thousand pictures would take a gigabyte"""


class MakeGame(Protocol):
    """Makes a game in `copies` copies, held by `workers` processes, with the environment's own `options`."""

    def __call__(self, copies: int, workers: int = 0, **options: Any) -> Game: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The things behind a scenario's names."""

    make_game: MakeGame
    shared: bool = False
    """whether every game it makes plays one and the same environment object"""
    reference: MakeReference | None = None
    """the scripted controller that returns are held against"""

    @classmethod
    def of(cls, scenario: Scenario[Any], environment: Any = None) -> Parts:
        """The parts that are installed under the scenario's names.

        Args:
            environment: what to play instead of a game by name: a function or class that builds a PettingZoo
                ParallelEnv or AECEnv or a gymnasium.Env, or one such object, for a single copy.

        Raises:
            ConfigError: a name is unknown, or the game has none and no environment is given.
        """
        try:
            reference = plugins.load("reference", scenario.reference) if scenario.reference else None
            registry = plugins.load("registry", "games")
        except plugins.UnknownNameError as error:
            raise ConfigError(str(error)) from error
        if environment is None and scenario.game.name == OWN_GAME:
            raise ConfigError("this run plays an environment that has no name; hand it over: environment=...")
        make_game = partial(registry.make, scenario.game.name)
        if environment is not None:
            make_game = partial(registry.from_env, environment)
        shared = environment is not None and (not callable(environment) or hasattr(environment, "unwrapped"))
        return cls(make_game=make_game, shared=shared, reference=reference)

    def training_game(self, config: GameConfig) -> Game:
        """The game that experience is collected from."""
        return self.make_game(config.copies, config.workers, **config.options)

    def evaluation_game(self, config: GameConfig, episodes: int, most: int = 64) -> Game:
        """The game for evaluations of `episodes` episodes, in as many copies as share them equally, `most` at most."""
        most = 1 if self.shared else min(episodes, most)
        copies = max(k for k in range(1, most + 1) if episodes % k == 0)
        return self.make_game(copies, min(config.workers, copies), **config.options)

    def picture_game(self, config: GameConfig) -> RenderableGame | None:
        """One copy that can draw itself, None where the game does not draw."""
        limit = min(int(config.options.get("episode_limit", MOST_FRAMES)), MOST_FRAMES)
        drawn = {**config.options, "render_mode": "rgb_array", "episode_limit": limit}
        try:
            game = self.make_game(1, 0, **drawn)
        except (GameError, TypeError):  # it takes no such option; an environment of one's own may draw all the same
            game = self.make_game(1, 0, **config.options)
        if hasattr(game, "render"):
            return cast(RenderableGame, game)
        game.close()
        return None


def build(
    scenario: Scenario[Any], spec: GameSpec, streams: Streams, device: torch.device, goal_rule: GoalRule | None = None
) -> Trainee:
    """The scenario's method on a game, with the game's own dynamics where the scenario names them.

    Args:
        goal_rule: what the game's goals are worth; None where it has none, or to act alone.

    Raises:
        ConfigError: the name of the dynamics is unknown, or the method's numbers do not suit the game.
        GameError: the game does not suit the method.
    """
    try:
        make_kernel: MakeKernel | None = plugins.load("kernel", scenario.kernel) if scenario.kernel else None
        kernel = make_kernel(spec, scenario.game.options, device) if make_kernel is not None else None
        method: Method = scenario.method
        return method.build(spec, streams, device, kernel, goal_rule)
    except plugins.UnknownNameError as error:
        raise ConfigError(str(error)) from error
    except GameError:
        raise
    except ValueError as error:
        raise ConfigError(f"{scenario.algorithm} does not suit {spec.name!r}: {error}") from error
