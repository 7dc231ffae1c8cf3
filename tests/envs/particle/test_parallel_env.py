from __future__ import annotations

import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test, parallel_seed_test

from presage.common.game import GameError
from presage.envs.particle import SCENARIOS, ParticleParallelEnv, Scheduling, Simple, Spread, Tag

every_scenario = pytest.mark.parametrize("name", sorted(SCENARIOS))
every_kind = pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])


@every_kind
@every_scenario
def test_it_keeps_pettingzoos_contract(name: str, continuous: bool) -> None:
    def make() -> ParticleParallelEnv:
        return ParticleParallelEnv(SCENARIOS[name](), continuous_actions=continuous, max_cycles=10)

    parallel_api_test(make(), num_cycles=30)
    parallel_seed_test(make, num_cycles=20)


def test_its_numbers_are_the_games() -> None:
    env = ParticleParallelEnv(Tag(), max_cycles=5, render_mode="rgb_array")
    observations, infos = env.reset(seed=3)
    assert infos == {name: {} for name in env.possible_agents}
    game = env.world_game
    rng = torch.Generator().manual_seed(0)
    for t in range(5):
        before = game._view
        act = game.spec.random_action(before.acting, before.legal, rng)
        assert np.array_equal(np.concatenate([observations[name] for name in env.agents]), before.obs[0])
        assert np.array_equal(env.state(), before.obs[0])
        observations, rewards, terminations, truncations, _ = env.step(game.spec.to_env(act[0].numpy()))
        assert list(rewards) == list(game.spec.names)
        assert set(truncations.values()) == {t == 4}
        assert not any(terminations.values())
    assert env.agents == []
    with pytest.raises(GameError, match=r"'tag' is over; call reset\(\)"):
        env.step({})
    env.reset()
    with pytest.raises(GameError, match=r"each of adversary_0, .*; check \['agent_0'\]"):
        env.step(dict.fromkeys(env.agents[:-1], 0))
    with pytest.raises(GameError, match=r"agent 'agent_0': action 5 is outside 0\.\.4"):
        env.step(dict.fromkeys(env.agents, 5) | dict.fromkeys(env.agents[:-1], 0))


def test_episodes_without_a_seed_differ_and_follow_from_the_last_one() -> None:
    env = ParticleParallelEnv(Simple())
    runs = []
    for _ in range(2):
        runs.append([env.reset(seed=4)[0]["agent_0"], env.reset()[0]["agent_0"], env.reset()[0]["agent_0"]])
    assert np.array_equal(runs[0], runs[1])
    assert len({tuple(row) for row in np.round(runs[0], 6).tolist()}) == 3


def test_success_terminates() -> None:
    env = ParticleParallelEnv(Tag(good=1, adversaries=1, obstacles=0, terminate_on_success=True), max_cycles=200)
    env.reset(seed=0)
    state = env.world_game.world_state()
    state.position[:] = torch.tensor([[0.0, 0.0], [0.1, 0.0]])
    env.world_game.place(state)
    _, rewards, terminations, truncations, _ = env.step(dict.fromkeys(env.agents, 0))
    assert terminations == {"adversary_0": True, "agent_0": True}
    assert not any(truncations.values())
    assert rewards["adversary_0"] == 10.0
    assert env.agents == []


def test_pictures_show_bodies_where_they_are() -> None:
    env = ParticleParallelEnv(Simple(), render_mode="rgb_array")
    env.reset(seed=0)
    state = env.world_game.world_state()
    state.position[:], state.landmarks[:] = torch.tensor([0.5, 0.5]), torch.tensor([-0.5, -0.5])
    env.world_game.place(state)
    picture = env.render()
    assert picture is not None
    assert picture.dtype == np.uint8
    side = len(picture)
    right, left = round(side * (0.5 + 0.5 / 2.5)), round(side * (0.5 - 0.5 / 2.5))
    assert tuple(picture[left, right]) == (214, 69, 65)  # up and to the right: the agent
    assert tuple(picture[right, left]) == (176, 182, 190)  # down and to the left: the landmark
    assert tuple(picture[5, 5]) == (255, 255, 255)
    assert ParticleParallelEnv(Simple()).render() is None
    with pytest.raises(GameError, match="render_mode='human' must be 'rgb_array' or None"):
        ParticleParallelEnv(Simple(), render_mode="human")


def test_words_and_far_bodies_are_drawn() -> None:
    env = ParticleParallelEnv(Scheduling(), render_mode="rgb_array")
    env.reset(seed=0)
    env.step({"agent_0": np.array([0, 2, 1]), "agent_1": 0, "agent_2": 0})
    picture = env.render()
    assert picture is not None
    cells = picture[-8, 8 + 14 * np.arange(6), 0]
    assert cells.tolist() == [230, 230, 0, 230, 0, 230]
    far = ParticleParallelEnv(Spread(), render_mode="rgb_array")
    far.reset(seed=0)
    state = far.world_game.world_state()
    state.position[0, 0], state.position[0, 1] = torch.tensor([30.0, 0.0]), torch.tensor([-999.0, -999.0])
    far.world_game.place(state)
    assert far.render() is not None
