from __future__ import annotations

import importlib
import os
import subprocess
import sys
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import gymnasium
import mpe2.all_modules
import numpy as np
import pytest
import torch
from mpe2 import simple_spread_v3, simple_tag_v3
from torch import Tensor

from presage.common.game import Game, GameError, View
from presage.common.known_columns import KnownRule
from presage.envs import registry
from presage.envs.particle import ParticleGame, Spread
from presage.envs.registry import ACHIEVED, NEVER_TERMINATES, from_env, make, names
from presage.envs.vector import VectorGame
from tests.envs.probes import TurnGame, all_end


@pytest.mark.parametrize("name", sorted(mpe2.all_modules.mpe_environments))
def test_every_game_of_mpe2_is_played_by_its_name(name: str) -> None:
    game = make(name, copies=2, max_cycles=2)
    spec = game.spec
    assert spec.name == name
    assert (spec.episode_limit, spec.terminates, spec.acting_varies) == (2, False, False)
    env = mpe2.all_modules.mpe_environments[name].parallel_env()
    assert spec.names == tuple(env.possible_agents)
    assert [len(agent.obs) for agent in spec.agents] == [env.observation_space(a).shape[0] for a in spec.names]
    assert [agent.width for agent in spec.agents] == [env.action_space(a).n for a in spec.names]
    view = game.reset(0)
    played = [game.step(spec.random_action(view.acting, view.legal, torch.Generator()))[0] for _ in range(2)]
    assert [rows.truncated.tolist() for rows in played] == [[False] * 2, [True] * 2]


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", ["simple_spread_v3", "simple_speaker_listener_v4"])
def test_what_is_known_of_mpe2s_games_is_true_of_them(name: str, continuous: bool) -> None:
    game = make(f"mpe/{name}", copies=4, continuous_actions=continuous)
    rule, rng = KnownRule(game.spec, True), torch.Generator().manual_seed(0)
    assert len(rule.columns) > 0
    view = game.reset(0)
    for _ in range(30):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        found = rule(torch.full_like(rows.obs, torch.nan), rows.view, rows.act)
        torch.testing.assert_close(found[:, rule.columns], rows.next_obs[:, rule.columns], rtol=0, atol=1e-6)


def test_one_frame_of_adversary_does_not_determine_the_next_and_two_do() -> None:
    frames = {}
    for name in ("simple_adversary_v3", "simple_push_v3"):
        game = make(f"mpe/{name}", copies=8, continuous_actions=True)
        rng, view = torch.Generator().manual_seed(0), game.reset(0)
        rows = []
        for _ in range(25):
            row, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
            rows.append(row)
        one = torch.cat([torch.cat([row.obs, row.act], 1) for row in rows[1:]]).double()
        before = torch.cat([torch.cat([row.obs, row.act], 1) for row in rows[:-1]]).double()
        aim = torch.cat([row.next_obs - row.obs for row in rows[1:]]).double()
        errors = []
        for known in (one, torch.cat([one, before], 1)):
            known = torch.cat([known, torch.ones(len(known), 1, dtype=torch.float64)], 1)
            fit = torch.linalg.lstsq(known, aim, driver="gelsd").solution
            errors.append(float((known @ fit - aim).square().mean() / aim.square().mean()))
        frames[name] = 1 if errors[0] < 0.05 else 2
        assert frames[name] == game.spec.frames, errors
    assert frames == {"simple_adversary_v3": 2, "simple_push_v3": 1}


def test_options_reach_the_environment_and_declarations_the_spec() -> None:
    game = make("mpe/simple_spread_v3", 1, N=4, continuous_actions=True, terminate_on_success=True, frames=2)
    assert game.spec.n == 4
    assert not game.spec.discrete
    assert game.spec.terminates
    assert game.spec.frames == 2
    with pytest.raises(GameError, match=r"mpe/simple_spread_v3 takes no option \['agents'\]; it takes N, benchmark_d"):
        make("mpe/simple_spread_v3", 1, agents=4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mpe/simple_spred_v3", "no game is called 'mpe/simple_spred_v3'; did you mean 'mpe/simple_spread_v3'"),
        ("gym/Pendulm-v1", "did you mean 'gym/Pendulum-v1'"),
        ("gym/FetchReach-v9", "did you mean 'gym/FetchReach-v4'"),
        ("gym/nowhere/Pendulum-v1", "no game is called 'gym/nowhere/Pendulum-v1'"),
        ("particle/spred", "did you mean 'particle/spread'"),
        ("qqqqqqqq", r"no game is called 'qqqqqqqq'; presage.envs.registry.names\(\) lists them"),
        ("gym/Taxi-v3", "gym/Taxi-v3: .*deprecated.*Taxi-v4"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(name: str, message: str) -> None:
    with pytest.raises(GameError, match=message):
        make(name, 1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name in ("mpe2", "pettingzoo.mpe", "gymnasium_robotics"):
            raise ImportError(name)
        return found(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(GameError, match="mpe/simple_spread_v3 needs mpe2: pip install mpe2"):
        make("mpe/simple_spread_v3", 1)
    assert "gym/Pendulum-v1" in names()
    assert not any(name.startswith("mpe/") for name in names())


def test_mpe_is_found_in_an_older_pettingzoo(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = importlib.import_module, []

    def older(name: str, package: str | None = None) -> Any:
        asked.append(name)
        if name == "mpe2":
            raise ImportError(name)
        return found(name.replace("pettingzoo.mpe", "mpe2"), package)

    monkeypatch.setattr(importlib, "import_module", older)
    package = registry._mpe_package()
    assert package is not None
    assert asked == ["mpe2", "pettingzoo.mpe"]


def test_names_lists_what_make_makes() -> None:
    listed = names()
    assert {"mpe/simple_spread_v3", "gym/CartPole-v1", "particle/spread", "particle/speaker_listener"} <= set(listed)
    assert listed == sorted(set(listed))


def test_particle_games_take_their_scenarios_and_their_own_options() -> None:
    game = make("particle/spread", 5, agents=2, episode_limit=7, continuous=True)
    assert isinstance(game, ParticleGame)
    assert isinstance(game, Game)
    assert game.spec == ParticleGame(Spread(agents=2), 5, episode_limit=7, continuous=True).spec
    assert make("particle/speaker_listener", 1).spec.names == ("speaker_0", "listener_0")
    with pytest.raises(GameError, match=r"particle/spread takes no option \['N'\]; it takes agents, continuous"):
        make("particle/spread", 1, N=3)
    with pytest.raises(GameError, match="workers=2 must be 0"):
        make("particle/spread", 4, workers=2)


def third_party(copies: int, workers: int = 0, *, length: int = 3) -> VectorGame:
    return from_env(partial(all_end, length, "truncated"), copies, workers, name="lab/clock")


def test_another_package_registers_a_game(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("lab/clock", f"{__name__}:third_party", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints([point]).select(group=group))
    game = make("lab/clock", 2, length=1)
    assert (game.spec.name, game.copies) == ("lab/clock", 2)
    view = game.reset(0)
    rows, _ = game.step(game.spec.random_action(view.acting, view.legal, torch.Generator()))
    assert rows.truncated.all()
    assert "lab/clock" in names()
    with pytest.raises(GameError, match="did you mean 'lab/clock'"):
        make("lab/clok", 1)


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Pendulum-v1", "FetchPush-v4", "HandReach-v3", "Reacher-v5"])
def test_what_is_said_never_to_terminate_does_not_under_random_play(name: str) -> None:
    game = make(f"gym/{name}", 1)
    assert not game.spec.terminates
    rng, view = torch.Generator().manual_seed(0), game.reset(0)
    for _ in range(game.spec.episode_limit or 0 if "Hand" in name or "Fetch" in name else 60):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        assert not rows.terminated.any()


def test_the_registrys_tables_name_environments_that_exist() -> None:
    make("gym/FetchReach-v4", 1)
    kinds = {spec.name.removesuffix("Dense").partition("_")[0] for spec in gymnasium.registry.values()}
    assert kinds >= NEVER_TERMINATES
    assert ACHIEVED.keys() <= kinds


@pytest.mark.parametrize("name", ["FetchPush-v4", "FetchSlideDense-v4", "HandReach-v3", "PointMaze_UMaze-v3"])
def test_the_achieved_goal_lies_where_the_registry_says(name: str) -> None:
    game = make(f"gym/{name}", 1)
    env = gymnasium.make(name).unwrapped
    assert game.spec.obs_dim == env.observation_space["observation"].shape[0]  # type: ignore[index] # a Dict space
    rng, view = torch.Generator().manual_seed(0), game.reset(0)
    for _ in range(3):  # the adapter compares the two at every step
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
    assert not torch.equal(rows.achieved, rows.desired)


def test_the_ant_mazes_position_is_appended() -> None:
    game = make("gym/AntMaze_UMaze-v5", 1)
    assert game.spec.achieved == (game.spec.obs_dim - 2, game.spec.obs_dim - 1)
    assert game.spec.agents[0].obs == tuple(range(game.spec.obs_dim))


def seen(view: View) -> tuple[Tensor, Tensor]:
    return view.acting, view.legal


def test_an_environment_of_ones_own_is_told_by_its_type() -> None:
    parallel = from_env(simple_tag_v3.parallel_env, 2)
    turns = from_env(simple_tag_v3.env)
    single = from_env(partial(gymnasium.make, "CartPole-v1"), terminates=True)
    assert (parallel.spec.n, turns.spec.n, single.spec.n) == (4, 4, 1)
    assert [game.spec.acting_varies for game in (parallel, turns, single)] == [False, True, False]
    assert single.spec.episode_limit == 500
    assert parallel.spec.name == "simple_tag_v3"


def test_turns_of_a_parallel_game_carry_its_rewards() -> None:
    turns, together = from_env(simple_spread_v3.env), from_env(simple_spread_v3.parallel_env)
    view, other = turns.reset(0), together.reset(0)
    rng = torch.Generator().manual_seed(0)
    for _ in range(4):
        act = together.spec.random_action(*seen(other), rng)
        rows, other = together.step(act)
        brought = torch.zeros(1, 3)
        for part in together.spec.act:
            own = torch.zeros_like(act)
            own[:, part] = act[:, part]
            row, view = turns.step(own)
            brought += row.reward
        assert torch.equal(brought, rows.reward)
        assert torch.equal(view.obs, other.obs)


def test_one_environment_object_is_one_copy_in_this_process() -> None:
    env = all_end(2, "truncated")
    game = from_env(env)
    view = game.reset(0)
    game.step(game.spec.random_action(*seen(view), torch.Generator()))
    assert len(env.received) == 1
    with pytest.raises(GameError, match=r"copies=2, workers=0 need a function or class"):
        from_env(env, 2)
    with pytest.raises(GameError, match=r"copies=1, workers=1 need a function or class"):
        from_env(TurnGame({}), 1, workers=1)


def test_what_cannot_serve_is_refused() -> None:
    with pytest.raises(GameError, match="expected an environment, or a function or class that builds one, got 3"):
        from_env(3)
    with pytest.raises(GameError, match=r"unknown \['episode_limits'\]; what can be declared is achieved, acting_v"):
        from_env(simple_tag_v3.parallel_env, episode_limits=3)
    with pytest.raises(GameError, match=r"achieved=.*but no agent of 'simple_tag_v3' has a goal"):
        from_env(simple_tag_v3.parallel_env, achieved=(0,))
    with pytest.raises(GameError, match="unbounded action space"):
        from_env(partial(Unbounded))


class Unbounded(gymnasium.Env[np.ndarray, np.ndarray]):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))


def test_mujoco_draws_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")
    registry.environment("gym/CartPole-v1").close()
    assert "MUJOCO_GL" not in os.environ
    registry.environment("gym/CartPole-v1", render_mode="rgb_array").close()
    assert os.environ["MUJOCO_GL"] == "egl"
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    registry.environment("gym/CartPole-v1", render_mode="rgb_array").close()
    assert os.environ["MUJOCO_GL"] == "osmesa"


@pytest.mark.parametrize("name", ["fetch/reach", "maze/point-medium"])
def test_goal_worlds_are_drawn(name: str) -> None:
    try:
        importlib.import_module("mujoco.egl").GLContext(8, 8).free()
    except Exception as error:  # whichever part of the graphics libraries is missing
        pytest.skip(f"this machine cannot draw by EGL: {error}")
    code = f"""
from presage.envs import registry
game = registry.make({name!r}, copies=1, render_mode="rgb_array")
game.reset(0)
assert game.render(0).std() > 10
game.close()
"""
    bare = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL")}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=bare)
