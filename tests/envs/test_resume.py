from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import gymnasium
import pettingzoo
import pytest
import torch
from mpe2 import simple_spread_v3
from torch import Tensor

from presage.common.game import GameError, Rows
from presage.envs.registry import from_env, make
from presage.envs.vector import ReplayError, VectorGame
from tests.envs.probes import AGENTS, ClockGame, Forgetful, all_end

GAMES: dict[str, Callable[[], VectorGame]] = {
    "mpe": lambda: from_env(partial(simple_spread_v3.parallel_env, max_cycles=10), 3, terminates=False),
    "mujoco": lambda: from_env(partial(gymnasium.make, "InvertedPendulum-v5"), 3),
    "turns": lambda: from_env(partial(pettingzoo.make, "aec", "classic/tictactoe-v3"), 3),
    "deaths": lambda: from_env(
        partial(ClockGame, dict(zip(AGENTS, (2, 9, 5), strict=True)), dict.fromkeys(AGENTS, "terminated")),
        2,
        acting_varies=True,
    ),
}


def equal(first: Any, second: Any) -> bool:
    return all(torch.equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))


def play(game: VectorGame, view: Any, steps: int, rng: torch.Generator) -> tuple[list[Rows], Any]:
    found = []
    for _ in range(steps):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        found.append(rows)
    return found, view


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """The state after its numbers went through JSON and its tensors through copies."""
    plain = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
    tensors = {key: value.clone() for key, value in state.items() if isinstance(value, Tensor)}
    loaded: dict[str, Any] = json.loads(json.dumps(plain))
    return loaded | tensors


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("steps", [0, 4, 17])
def test_a_resumed_game_is_the_uninterrupted_one_bit_for_bit(name: str, steps: int) -> None:
    game, rng = GAMES[name](), torch.Generator().manual_seed(steps)
    _, view = play(game, game.reset(11), steps, rng)
    saved, noise = through_json(game.state()), rng.get_state()
    expected, last = play(game, view, 15, rng)

    resumed = GAMES[name]()
    resumed.reset(0)
    seen = resumed.restore(saved)
    assert equal(seen, view)
    again = resumed.state()
    assert all(
        torch.equal(again[key], value) if isinstance(value, Tensor) else again[key] == value
        for key, value in saved.items()
    )
    rng.set_state(noise)
    found, end = play(resumed, seen, 15, rng)
    assert all(equal(*pair) for pair in zip(found, expected, strict=True))
    assert equal(end, last)


def test_the_saved_state_holds_the_open_episodes_actions_alone() -> None:
    game, rng = GAMES["mpe"](), torch.Generator().manual_seed(0)
    rows, _ = play(game, game.reset(2), 13, rng)
    state = game.state()
    assert state["episodes"] == [1, 1, 1]
    assert state["lengths"] == [3, 3, 3]
    assert torch.equal(state["actions"].reshape(3, 3, -1), torch.stack([row.act for row in rows[10:]], dim=1))


def test_a_game_that_does_not_replay_says_so_and_resumes_at_the_episodes_boundary() -> None:
    game = from_env(Forgetful, 2, terminates=False)
    rng = torch.Generator().manual_seed(0)
    play(game, game.reset(0), 3, rng)
    saved = game.state()
    resumed = from_env(Forgetful, 2, terminates=False)
    with pytest.raises(ReplayError, match=r"copy 0: obs differ after 3 actions.*episode boundary only") as refusal:
        resumed.restore(saved)
    assert refusal.value.copies == (0, 1)
    with pytest.raises(GameError, match=r"call reset\(seed\)"):
        resumed.step(torch.zeros(2, 2))
    view = resumed.restore(refusal.value.boundary)
    assert resumed.state()["episodes"] == [1, 1]
    assert resumed.state()["lengths"] == [0, 0]
    rows, _ = play(resumed, view, 1, rng)
    assert rows[0].step.tolist() == [0, 0]


def test_only_the_copies_that_do_not_replay_lose_their_episode() -> None:
    game, rng = GAMES["mpe"](), torch.Generator().manual_seed(0)
    _, view = play(game, game.reset(2), 4, rng)
    saved = game.state()
    saved["obs"][1, 0] += 1.0
    with pytest.raises(ReplayError, match="copy 1: obs differ after 4 actions") as refusal:
        game.restore(saved)
    assert refusal.value.copies == (1,)
    kept = game.restore(refusal.value.boundary)
    assert torch.equal(kept.obs[0], view.obs[0])
    assert torch.equal(kept.obs[2], view.obs[2])
    fresh = GAMES["mpe"]()
    first = fresh.reset(2)
    for _ in range(10):
        _, first = fresh.step(fresh.spec.random_action(first.acting, first.legal, rng))
    assert torch.equal(kept.obs[1], first.obs[1])  # the first view of episode 1
    assert game.state()["episodes"] == [0, 1, 0]


@pytest.mark.parametrize(
    ("ends", "message"), [(2, "the episode ended after 2 of 3 actions"), (1, "the episode ended after 1 of 3")]
)
def test_an_episode_that_ends_early_does_not_replay(ends: int, message: str) -> None:
    game = from_env(partial(all_end, 9, "terminated"))
    play(game, game.reset(0), 3, torch.Generator())
    with pytest.raises(ReplayError, match=message):
        from_env(partial(all_end, ends, "terminated")).restore(game.state())


def test_a_state_of_another_game_is_refused() -> None:
    game = make("mpe/simple_spread_v3", 2)
    game.reset(0)
    for other in (make("mpe/simple_spread_v3", 3), make("mpe/simple_tag_v3", 2)):
        with pytest.raises(GameError, match=r"the saved state is of \(game, \(copies, O\), A\)"):
            other.restore(game.state())
