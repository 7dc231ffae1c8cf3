"""A game of every family is saved in the middle of its episodes and goes on exactly, by playing its actions again."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from presage.common.game import Game, Rows, View
from presage.envs.registry import make

GAMES = [
    "mpe/collect_treasure_v1", "sisl/multiwalker", "sisl/pursuit", "butterfly/knights_archers_zombies",
    "classic/leduc_holdem", "mamujoco/Hopper-3x1", "fetch/push", "hand/reach", "maze/point-large", "maze/ant-umaze",
    "gym/Pendulum-v1", "particle/collect_treasure", "toy/traffic_junction",
]  # fmt: skip


@pytest.mark.parametrize("name", GAMES)
def test_a_saved_game_goes_on_exactly(name: str) -> None:
    rng = torch.Generator().manual_seed(0)

    def play(game: Game, view: View, steps: int) -> tuple[list[Rows], View]:
        found = []
        for _ in range(steps):
            rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
            found.append(rows)
        return found, view

    game = make(name, 2)
    _, view = play(game, game.reset(5), 9)
    saved, drawn = game.state(), rng.get_state()
    expected, _ = play(game, view, 6)
    game.close()
    again = make(name, 2)
    view = again.restore(saved)
    rng.set_state(drawn)
    for rows, wanted in zip(play(again, view, 6)[0], expected, strict=True):
        assert all(torch.equal(getattr(rows, f.name), getattr(wanted, f.name)) for f in fields(Rows))
    again.close()
