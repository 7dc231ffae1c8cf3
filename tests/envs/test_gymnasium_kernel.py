import dataclasses

import gymnasium
import numpy as np
import pytest
import torch

from presage.common import plugins
from presage.common.evaluate import first_window
from presage.common.game import GameError
from presage.envs.gymnasium_kernel import GymnasiumKernel
from presage.envs.registry import make


@pytest.mark.parametrize(
    ("name", "kernel"), [("Pendulum-v1", "pendulum"), ("InvertedPendulum-v5", "inverted_pendulum")]
)
def test_it_plays_on_as_the_game_does(name: str, kernel: str) -> None:
    copies, steps = 16, 30
    game, rng = make(f"gym/{name}", copies), torch.Generator().manual_seed(0)
    true = plugins.load("kernel", kernel)(game.spec, {}, torch.device("cpu"))
    view, ended = game.reset(0), 0
    for _ in range(steps):
        act = game.spec.random_action(view.acting, view.legal, rng)
        _, outcome = true.step(true.init(first_window(game.spec, view), torch.zeros(copies), rng), view, act, rng)
        rows, view = game.step(act)
        torch.testing.assert_close(outcome.after.obs, rows.next_obs, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(outcome.reward, rows.reward, atol=1e-4, rtol=1e-5)
        assert torch.equal(outcome.terminated, rows.terminated)
        ended += int(rows.terminated.sum())
    assert (ended > copies) == game.spec.terminates  # the pendulum never ends, the inverted one again and again
    game.close()


def test_branches_of_several_steps_are_those_of_the_environment() -> None:
    game = make("gym/Pendulum-v1", 3)
    true = plugins.load("kernel", "pendulum")(game.spec, {}, torch.device("cpu"))
    view, rng = game.reset(5), torch.Generator().manual_seed(1)
    acts = [game.spec.random_action(view.acting, view.legal, rng) for _ in range(10)]
    carry, imagined = true.init(first_window(game.spec, view), torch.zeros(3), rng), view
    for act in acts:
        carry, outcome = true.step(carry, imagined, act, rng)
        imagined = outcome.after
    for copy in range(3):
        env = gymnasium.make("Pendulum-v1").unwrapped
        env.reset(seed=0)
        obs = view.obs[copy].double().numpy()
        env.state = np.array([np.arctan2(obs[1], obs[0]), obs[2]])  # type: ignore[attr-defined]
        for act in acts:
            seen, *_ = env.step(game.spec.agents[0].to_env(act[copy].numpy()))
        np.testing.assert_allclose(imagined.obs[copy].numpy(), seen, atol=1e-4)
    game.close()


def test_games_of_goals_are_not_put_back() -> None:
    env = gymnasium.make("Pendulum-v1").unwrapped
    spec = make("gym/Pendulum-v1", 1).spec
    GymnasiumKernel(spec, env, lambda env, obs: None)
    with pytest.raises(GameError, match="'gym/Pendulum-v1' has goals of 2 numbers"):
        GymnasiumKernel(dataclasses.replace(spec, goal_dim=2), env, lambda env, obs: None)
