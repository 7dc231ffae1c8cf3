from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from mpe2 import simple_adversary_v3, simple_speaker_listener_v4, simple_spread_v3, simple_tag_v3
from torch import Tensor

from presage.common.game import Game, GameError, Rows, View, episode_seed, row_widths
from presage.envs.lane import Declaration
from presage.envs.registry import from_env
from presage.envs.vector import VectorGame
from tests.envs.probes import all_end

MPE = {
    "spread": simple_spread_v3.parallel_env,
    "tag": simple_tag_v3.parallel_env,
    "adversary": simple_adversary_v3.parallel_env,
    "speaker_listener": simple_speaker_listener_v4.parallel_env,
}


def seen(view: View) -> tuple[Tensor, Tensor]:
    return view.acting, view.legal


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", MPE)
def test_rows_of_mpe_are_those_of_a_plain_pettingzoo_loop(name: str, continuous: bool) -> None:
    make_env = partial(MPE[name], max_cycles=4, continuous_actions=continuous)
    game = VectorGame(make_env, 2, declared=Declaration(terminates=False))
    rng = torch.Generator().manual_seed(1)
    view, envs = game.reset(9), [make_env() for _ in range(2)]
    agents = envs[0].possible_agents
    assert game.spec.names == tuple(agents)
    assert isinstance(game, Game)

    def joint(observations: dict[str, Any]) -> list[float]:
        numbers: list[float] = np.concatenate([observations[agent] for agent in agents]).tolist()
        return numbers

    shown = [env.reset(seed=episode_seed(9, copy, 0))[0] for copy, env in enumerate(envs)]
    for t in range(10):
        act = game.spec.random_action(*seen(view), rng)
        rows, view = game.step(act)
        for copy, env in enumerate(envs):
            assert rows.obs[copy].tolist() == joint(shown[copy])
            chosen = {}
            for i, agent in enumerate(agents):
                part = act[copy, game.spec.act[i]]
                # mpe2's continuous actions lie in [0, 1], ours in [-1, 1].
                chosen[agent] = ((part.double() + 1) / 2).float().numpy() if continuous else int(part.argmax())
            shown[copy], rewards, terminations, truncations, _ = env.step(chosen)
            assert rows.next_obs[copy].tolist() == joint(shown[copy])
            assert rows.reward[copy].tolist() == [np.float32(rewards[agent]) for agent in agents]
            assert rows.terminated[copy].tolist() == [terminations[agent] for agent in agents] == [False] * len(agents)
            assert rows.truncated[copy].item() is all(truncations.values()) is (t % 4 == 3)
            if t % 4 == 3:
                shown[copy] = env.reset(seed=episode_seed(9, copy, t // 4 + 1))[0]
            assert view.obs[copy].tolist() == joint(shown[copy])
        assert rows.step.tolist() == [t % 4] * 2


def test_agents_read_and_write_their_own_slices() -> None:
    game = VectorGame(MPE["tag"], 1)
    assert [len(agent.obs) for agent in game.spec.agents] == [16, 16, 16, 14]
    assert [k for agent in game.spec.agents for k in agent.obs] == list(range(62))
    assert [(part.start, part.stop) for part in game.spec.act] == [(0, 5), (5, 10), (10, 15), (15, 20)]


def test_rows_have_the_shapes_and_dtypes_of_the_contract() -> None:
    game = from_env(partial(all_end, 3, "terminated"), copies=2)
    view = game.reset(0)
    for _ in range(4):
        rows, view = game.step(game.spec.random_action(*seen(view), torch.Generator()))
        for name, (shape, dtype) in row_widths(game.spec).items():
            column = getattr(rows, name)
            assert (column.shape, column.dtype) == ((2, *shape), dtype), name


def test_an_earlier_row_keeps_its_numbers_when_the_game_goes_on() -> None:
    game = VectorGame(MPE["spread"], 2)
    rng = torch.Generator().manual_seed(0)
    view, act = game.reset(0), torch.zeros(0)
    kept: list[tuple[Rows, dict[str, Tensor]]] = []
    for _ in range(30):
        act = game.spec.random_action(*seen(view), rng)
        rows, view = game.step(act)
        act.zero_()  # a caller that uses its action tensor again does not change what was stored
        kept.append((rows, {f.name: getattr(rows, f.name).clone() for f in fields(rows)}))
    for rows, copies in kept:
        assert all(torch.equal(getattr(rows, name), column) for name, column in copies.items())
        game.spec.check_action(rows.act)


def test_an_episode_depends_on_seed_copy_and_number_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    alone, several = VectorGame(MPE["spread"], 1), VectorGame(MPE["spread"], 3)
    view, views = alone.reset(4), several.reset(4)
    assert len({tuple(row.tolist()) for row in views.obs}) == 3
    for _ in range(60):
        act = several.spec.random_action(*seen(views), rng)
        rows, view = alone.step(act[:1])
        more, views = several.step(act)
        assert torch.equal(rows.next_obs[0], more.next_obs[0])
        assert torch.equal(view.obs[0], views.obs[0])
    assert not torch.equal(alone.reset(5).obs, alone.reset(4).obs)
    assert torch.equal(alone.reset(4).obs, several.reset(4).obs[:1])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (torch.zeros(1, 15), r"action of agent 'agent_0' in row 0 is .* one-hot of 5"),
        (torch.zeros(2, 15), "has 1 copies, got 2 rows"),
        (torch.zeros(1, 14), r"shape \(B, 15\), got \(1, 14\)"),
        (torch.full((1, 15), float("nan")), "'agent_0' in row 0"),
    ],
)
def test_a_wrong_action_is_refused(act: Tensor, message: str) -> None:
    game = VectorGame(MPE["spread"], 1)
    game.reset(0)
    with pytest.raises(GameError, match=message):
        game.step(act)


@pytest.mark.parametrize("number", [1.5, -1.1, float("nan"), float("inf")])
def test_a_box_action_outside_its_bounds_is_refused(number: float) -> None:
    game = VectorGame(partial(MPE["spread"], continuous_actions=True), 1)
    game.reset(0)
    act = torch.zeros(1, 15)
    act[0, 7] = number
    with pytest.raises(GameError, match=r"action of agent 'agent_1' in row 0 is .* must be in \[-1, 1\]"):
        game.step(act)


def test_a_game_is_reset_before_it_is_played() -> None:
    game = VectorGame(MPE["spread"], 1)
    with pytest.raises(GameError, match=r"call reset\(seed\) before playing"):
        game.step(torch.zeros(1, 15))
    with pytest.raises(GameError, match=r"call reset\(seed\) before saving"):
        game.state()


def test_copies_and_workers_are_bounded() -> None:
    with pytest.raises(GameError, match="copies=0 must be at least 1"):
        VectorGame(MPE["spread"], 0)
    with pytest.raises(GameError, match=r"workers=3 must lie in 0..copies=2"):
        VectorGame(MPE["spread"], 2, workers=3)
    with pytest.raises(GameError, match="episode_limit=0 must be at least one"):
        from_env(MPE["spread"], episode_limit=0)


def test_copies_must_be_of_one_game() -> None:
    sizes = iter([2, 3])
    make_env: Callable[[], Any] = lambda: simple_spread_v3.parallel_env(N=next(sizes))  # noqa: E731
    with pytest.raises(GameError, match="copy 1 of 'simple_spread_v3' differs in its agents or spaces from 0"):
        VectorGame(make_env, 2)


def test_what_is_no_environment_is_refused_by_type() -> None:
    with pytest.raises(GameError, match=r"must be a pettingzoo.ParallelEnv.*of type builtins.dict"):
        VectorGame(dict, 1)


def test_a_copy_is_drawn() -> None:
    game = from_env(partial(all_end, 3, "truncated"), copies=2)
    view = game.reset(0)
    game.step(game.spec.random_action(*seen(view), torch.Generator()))
    frame = game.render(1)
    assert frame.shape == (4, 6, 3)
    assert frame.dtype == np.uint8
    assert (frame == 1).all()
    with pytest.raises(GameError, match=r"has copies 0..1, got 2"):
        game.render(2)


def test_an_environment_that_draws_nothing_is_told_how_to_build_it() -> None:
    game = VectorGame(partial(MPE["spread"], render_mode=None), 1)
    game.reset(0)
    with pytest.warns(UserWarning, match="without specifying"), pytest.raises(GameError, match="render_mode='rgb_arr"):
        game.render()
    drawn = VectorGame(partial(MPE["spread"], render_mode="rgb_array"), 1)
    drawn.reset(0)
    assert drawn.render().shape == (700, 700, 3)
