"""PettingZoo's own games through our adapters, against the same games played in PettingZoo's own way."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from presage.common.game import GameError, Rows, View
from presage.envs.conformance import check_conformance
from presage.envs.registry import environment, from_env, make
from tests.envs.probes import AGENTS, ClockGame

DEADLY: dict[str, Any] = {"max_cycles": 200, "spawn_delay": 2, "max_zombies": 40}
"""options under which knights and archers soon die"""

GAMES: dict[str, dict[str, Any]] = {
    "sisl/multiwalker": {"max_cycles": 60}, "sisl/pursuit": {"max_cycles": 30},
    "butterfly/knights_archers_zombies": DEADLY, "classic/tictactoe": {}, "classic/connect_four": {},
    "classic/leduc_holdem": {}, "classic/rps": {}, "mamujoco/HalfCheetah-2x3": {"max_episode_steps": 30},
    "mamujoco/Ant-2x4": {"max_episode_steps": 30}, "mamujoco/Hopper-3x1": {},
}  # fmt: skip


@pytest.mark.parametrize("name", GAMES)
def test_a_game_is_what_its_environment_is(name: str) -> None:
    game = make(name, 1, **GAMES[name])
    assert check_conformance(partial(environment, name, **GAMES[name]), game, episodes=3) == []
    game.close()


def test_somebody_dies_while_others_go_on() -> None:
    """Or the check of deaths on knights, archers and zombies would check nothing."""
    game = make("butterfly/knights_archers_zombies", 1, **DEADLY)
    view, rng = game.reset(0), torch.Generator().manual_seed(0)
    alone = False
    for _ in range(130):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        alone = alone or bool(rows.acting.any() and not rows.acting.all())
    assert alone
    game.close()


class Broken:
    """A game that does one thing wrong."""

    def __init__(self, game: Any, how: str) -> None:
        self._game, self._how, self.spec, self.copies = game, how, game.spec, game.copies

    def reset(self, seed: int) -> View:
        view: View = self._game.reset(seed)
        return view

    def step(self, act: torch.Tensor) -> tuple[Rows, View]:
        rows, view = self._game.step(act)
        if self._how == "rewards":
            rows = rows.with_(reward=rows.reward.roll(1, 1))
        elif self._how == "next":
            rows = rows.with_(next_obs=rows.next_obs.roll(1, 1))
        elif self._how == "late":
            rows = rows.with_(next_obs=rows.obs)
        elif self._how == "ends":
            rows = rows.with_(terminated=~rows.terminated)
        return rows, view


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("rewards", "is paid"),
        ("next", "other numbers after a step"),
        ("late", "other numbers after a step"),
        ("ends", "is terminated in the game"),
    ],
)
def test_faults_are_found_in_a_parallel_game(how: str, message: str) -> None:
    def make_env() -> ClockGame:
        return ClockGame(dict.fromkeys(AGENTS, 5), dict.fromkeys(AGENTS, "truncated"))

    assert check_conformance(make_env, from_env(make_env)) == []
    assert any(message in fault for fault in check_conformance(make_env, Broken(from_env(make_env), how)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("how", "message"), [("rewards", "add up"), ("next", "other numbers after a step")])
def test_faults_are_found_in_a_game_of_turns(how: str, message: str) -> None:
    game = make("classic/tictactoe", 1)
    found = check_conformance(partial(environment, "classic/tictactoe"), Broken(game, how))  # type: ignore[arg-type]
    assert any(message in fault for fault in found)


def test_names_without_their_version_and_with_it_are_the_same_game() -> None:
    names = [make(name, 1).spec.obs_dim for name in ("sisl/pursuit", "sisl/pursuit_v5", "sisl/pursuit-v5")]
    assert len(set(names)) == 1
    with pytest.raises(GameError, match="no game is called 'sisl/pursit'; did you mean 'sisl/pursuit'"):
        make("sisl/pursit", 1)
    with pytest.raises(GameError, match="no game is called 'mamujoco/Ant-9x9'; did you mean 'mamujoco/Ant-"):
        make("mamujoco/Ant-9x9", 1)


@pytest.mark.parametrize(
    ("name", "terminates"), [("fetch/push", False), ("maze/point-large", True), ("hand/reach", False)]
)
def test_goal_worlds_have_short_names(name: str, terminates: bool) -> None:
    game = make(name, 1)
    assert game.spec.name == name
    assert game.spec.terminates is terminates
    assert game.goal_rule is not None  # type: ignore[attr-defined]
    game.close()
