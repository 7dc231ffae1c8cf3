"""A game behind gymnasium's door, against the game itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from presage.common.game import GameError, GameSpec, Rows, View
from presage.common.joint_env import JointEnv
from tests.common.toy import PLAIN, REACHING, VARIED, LinearGame, box_agent, generator

ONE = GameSpec(name="one", agents=(box_agent("a", (0, 1, 2), 2),), obs_dim=3, terminates=True)


@pytest.mark.parametrize("spec", [ONE, PLAIN], ids=lambda spec: spec.name)
def test_it_plays_what_the_game_plays(spec: GameSpec) -> None:
    game, env = LinearGame(spec, limit=3, bound=0.6), JointEnv(LinearGame(spec, limit=3, bound=0.6))
    rng = generator(0)
    view = game.reset(7)
    obs, info = env.reset(seed=7)
    ends = []
    for _ in range(60):
        assert np.array_equal(obs, view.obs[0].numpy())
        assert obs.dtype == np.float32
        act = spec.random_action(view.acting, view.legal, rng)
        rows, view = game.step(act)
        after, reward, terminated, truncated, info = env.step(act[0].numpy())
        assert info == {}
        assert np.array_equal(after, rows.next_obs[0].numpy())
        assert np.array_equal(np.atleast_1d(reward), rows.reward[0].numpy())
        assert isinstance(reward, float) == (spec.n == 1)
        assert (terminated, truncated) == (bool(rows.terminated[0].all()), bool(rows.truncated[0]))
        ends.append((terminated, truncated))
        obs = env.reset()[0] if terminated or truncated else after
    assert (False, True) in ends
    assert ((True, False) in ends) == spec.terminates


@pytest.mark.filterwarnings(r"ignore:.*Box observation space m\w+ value is -?infinity")  # a game states no bounds
def test_it_passes_gymnasiums_checker() -> None:
    check_env(JointEnv(LinearGame(ONE)), skip_render_check=True)


class Reusing(LinearGame):
    """Writes what it returns into the same tensors again and again, as a game may."""

    def __init__(self, spec: GameSpec) -> None:
        super().__init__(spec)
        self._shown, self._after, self._paid = torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, spec.n)

    def reset(self, seed: int) -> View:
        return View.of(self.spec, self._shown.copy_(super().reset(seed).obs))

    def step(self, act: Tensor) -> tuple[Rows, View]:
        rows, view = super().step(act)
        self._shown.copy_(view.obs)
        return rows.with_(next_obs=self._after.copy_(rows.next_obs), reward=self._paid.copy_(rows.reward)), view


def test_arrays_do_not_change_when_the_game_goes_on() -> None:
    env = JointEnv(Reusing(PLAIN))
    obs, _ = env.reset(seed=0)
    kept = obs.copy()
    after, reward, *_ = env.step(env.action_space.sample())
    kept_after, kept_reward = after.copy(), np.array(reward)
    env.step(env.action_space.sample())
    assert np.array_equal(obs, kept)
    assert np.array_equal(after, kept_after)
    assert np.array_equal(reward, kept_reward)


class OneGoes(LinearGame):
    """The first agent's end is not the others'."""

    def step(self, act: Tensor) -> tuple[Rows, View]:
        rows, view = super().step(act)
        return rows.with_(terminated=torch.tensor([[True, False]])), view


def test_an_episode_is_not_over_while_an_agent_goes_on() -> None:
    env = JointEnv(OneGoes(PLAIN, limit=3))
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_seeds_decide_and_resets_go_on_from_them() -> None:
    env = JointEnv(LinearGame(ONE, limit=2))
    first = env.reset(seed=3)[0]
    again = env.reset()[0]  # nothing was played: another episode all the same
    assert not np.array_equal(first, again)
    assert np.array_equal(env.reset(seed=3)[0], first)
    assert np.array_equal(env.reset()[0], again)
    env.step(np.zeros(2, dtype=np.float32))
    assert not np.array_equal(env.reset()[0], again)


def test_playing_without_an_open_episode_is_refused() -> None:
    env = JointEnv(LinearGame(ONE, limit=1))
    act = np.zeros(2, dtype=np.float32)
    with pytest.raises(GameError, match="call reset"):
        env.step(act)
    env.reset(seed=0)
    assert env.step(act)[3]
    with pytest.raises(GameError, match="call reset"):
        env.step(act)


def test_actions_that_the_game_does_not_know_are_refused() -> None:
    env = JointEnv(LinearGame(PLAIN))
    env.reset(seed=0)
    with pytest.raises(GameError, match="one-hot"):
        env.step(np.full(5, 0.3, dtype=np.float32))


@pytest.mark.parametrize(("spec", "copies"), [(ONE, 2), (VARIED, 1), (REACHING, 1)], ids=["copies", "flags", "goals"])
def test_games_that_do_not_fit_are_refused(spec: GameSpec, copies: int) -> None:
    with pytest.raises(GameError, match="in 2 copies" if copies > 1 else "turns, deaths, illegal actions or goals"):
        JointEnv(LinearGame(spec, copies))


def test_closing_it_closes_the_game() -> None:
    game = LinearGame(ONE)
    JointEnv(game).close()
    assert torch.equal(game._clock, torch.zeros(0, dtype=torch.int64))
