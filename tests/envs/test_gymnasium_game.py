from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import gymnasium_robotics
import numpy as np
import pytest
import torch
from gymnasium import spaces

from presage.common.game import GameError, episode_seed
from presage.envs.registry import from_env, make
from tests.envs.probes import Answers

gymnasium.register_envs(gymnasium_robotics)


@pytest.mark.parametrize(
    ("name", "steps", "ends"), [("CartPole-v1", 60, "terminated"), ("Pendulum-v1", 210, "truncated")]
)
def test_rows_are_those_of_a_plain_gymnasium_loop(name: str, steps: int, ends: str) -> None:
    game = make(f"gym/{name}", copies=2)
    rng = torch.Generator().manual_seed(0)
    view, envs, episodes = game.reset(5), [gymnasium.make(name) for _ in range(2)], [0, 0]
    shown = [env.reset(seed=episode_seed(5, copy, 0))[0] for copy, env in enumerate(envs)]
    ended = 0
    for _ in range(steps):
        act = game.spec.random_action(view.acting, view.legal, rng)
        rows, view = game.step(act)
        for copy, env in enumerate(envs):
            assert rows.obs[copy].tolist() == shown[copy].astype(np.float32).tolist()
            action = game.spec.agents[0].to_env(act[copy].numpy())
            shown[copy], reward, terminated, truncated, _ = env.step(action)
            assert rows.next_obs[copy].tolist() == shown[copy].astype(np.float32).tolist()
            assert rows.reward[copy].item() == np.float32(reward)
            assert rows.terminated[copy].item() is terminated
            assert rows.truncated[copy].item() is truncated
            if terminated or truncated:
                ended += 1
                assert {"terminated": terminated, "truncated": truncated}[ends]
                episodes[copy] += 1
                shown[copy] = env.reset(seed=episode_seed(5, copy, episodes[copy]))[0]
            assert view.obs[copy].tolist() == shown[copy].astype(np.float32).tolist()
    assert ended >= 2
    assert game.spec.terminates is (ends == "terminated")
    assert game.spec.names == ("agent",)


@pytest.mark.parametrize("declared", [True, False], ids=["where-declared", "appended"])
def test_goals_are_those_of_the_goal_environment(declared: bool) -> None:
    make_env = partial(gymnasium.make, "FetchReach-v4")
    game = make("gym/FetchReach-v4", 1) if declared else from_env(make_env)
    assert (game.spec.obs_dim, game.spec.goal_dim) == (10 if declared else 13, 3)
    assert game.spec.achieved == ((0, 1, 2) if declared else (10, 11, 12))
    assert game.spec.agents[0].goal == (0, 1, 2)
    env = make_env()
    view, rng = game.reset(1), torch.Generator().manual_seed(0)
    seen: dict[str, Any] = env.reset(seed=episode_seed(1, 0, 0))[0]
    for _ in range(3):
        act = game.spec.random_action(view.acting, view.legal, rng)
        rows, view = game.step(act)
        before, (seen, reward, *_) = seen, env.step(game.spec.agents[0].to_env(act[0].numpy()))
        assert rows.obs[0, :10].tolist() == before["observation"].astype(np.float32).tolist()
        assert rows.achieved[0].tolist() == before["achieved_goal"].astype(np.float32).tolist()
        assert rows.next_achieved[0].tolist() == seen["achieved_goal"].astype(np.float32).tolist()
        assert rows.desired[0].tolist() == before["desired_goal"].astype(np.float32).tolist()
        assert rows.next_obs[0, list(game.spec.achieved)].tolist() == rows.next_achieved[0].tolist()
        assert rows.reward[0].item() == reward
    assert game.spec.episode_limit == 50


def test_a_wrong_place_of_the_achieved_goal_is_found() -> None:
    game = from_env(partial(gymnasium.make, "FetchReach-v4"), achieved=(1, 2, 3))
    with pytest.raises(GameError, match=r"does not hold the achieved goal .* at indices \[1, 2, 3\]"):
        game.reset(0)


NESTED = spaces.Dict(
    {
        "place": spaces.Discrete(3, start=2),
        "pair": spaces.Tuple((spaces.Box(-1.0, 1.0, (2, 2)), spaces.MultiBinary(2))),
        "two": spaces.MultiDiscrete([2, 3]),
    }
)


@pytest.mark.parametrize(
    ("space", "value", "numbers"),
    [
        (spaces.Box(-9.0, 9.0, (2, 2)), np.array([[1, 2], [3, 4]]), [1, 2, 3, 4]),
        (spaces.Box(0, 255, (1, 2), np.uint8), np.array([[7, 255]], np.uint8), [7, 255]),
        (spaces.Discrete(4, start=-1), 1, [0, 0, 1, 0]),
        (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
        (
            NESTED,
            {"place": 4, "pair": (np.array([[1, 2], [3, 4]]), np.array([0, 1], np.int8)), "two": np.array([0, 1])},
            # Gymnasium orders the keys: pair, place, two.
            [1, 2, 3, 4, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0],
        ),
        (
            spaces.Dict({"observation": spaces.Box(-1.0, 1.0, (2,)), "action_mask": spaces.MultiBinary(2)}),
            {"observation": np.array([0.5, 0.25]), "action_mask": np.array([1, 1], np.int8)},
            [0.5, 0.25],
        ),
    ],
    ids=["box", "bytes", "discrete", "binary", "multi-discrete", "nested", "masked"],
)
def test_observations_of_every_space_are_flattened(space: spaces.Space[Any], value: Any, numbers: list[float]) -> None:
    game = from_env(partial(Answers, space, (value, {}), (value, 1.5, False, True, {})))
    view = game.reset(0)
    assert view.obs.tolist() == [numbers]
    rows, _ = game.step(torch.tensor([[0.0, 1.0]]))
    assert rows.next_obs.tolist() == [numbers]
    assert rows.reward.tolist() == [[1.5]]


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (spaces.Discrete(3), 3, r"'agent' was shown 3; its space is Discrete\(3\)"),
        (NESTED, {"place": 4}, "'agent' was shown .*its space is Dict"),
        (spaces.Tuple((spaces.Discrete(2),)), (0, 1), r"'agent' was shown \(0, 1\)"),
        (spaces.Box(-1.0, 1.0, (2,)), np.zeros(3), r"shape \(3,\); its space says \(2,\)"),
        (spaces.Box(-1.0, 1.0, (2,)), np.array([np.nan, 0.0]), r"'agent' in copy 0 observes \[nan, 0.0\]"),
        (
            spaces.Dict({"observation": spaces.Discrete(2), "action_mask": spaces.MultiBinary(2)}),
            {"observation": 1},
            "which has no 'action_mask'",
        ),
        (
            spaces.Dict({"observation": spaces.Discrete(2), "action_mask": spaces.MultiBinary(2)}),
            {"observation": 1, "action_mask": np.zeros(2)},
            "'agent' is to act, and its action mask leaves it no legal action",
        ),
        (
            spaces.Dict({"observation": spaces.Discrete(2), "action_mask": spaces.MultiBinary(3)}),
            {"observation": 1, "action_mask": np.ones(3)},
            "its action mask has 3 entries; its action has 2",
        ),
    ],
)
def test_what_does_not_fit_its_space_is_refused(space: spaces.Space[Any], value: Any, message: str) -> None:
    with pytest.raises(GameError, match=message):
        from_env(partial(Answers, space, (value, {}))).reset(0)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Graph(spaces.Discrete(2), None), "observes Graph.*which has no fixed width"),
        (spaces.Sequence(spaces.Discrete(2)), "which has no fixed width"),
        (
            spaces.Dict(
                {
                    "observation": spaces.Discrete(2),
                    "achieved_goal": spaces.Box(-1.0, 1.0, (2,)),
                    "desired_goal": spaces.Box(-1.0, 1.0, (3,)),
                }
            ),
            "its achieved goal has 2 numbers, its desired 3",
        ),
    ],
)
def test_a_space_without_a_width_is_refused(space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(GameError, match=message):
        from_env(partial(Answers, space, None))


def test_an_answer_of_the_old_api_is_named() -> None:
    game = from_env(partial(Answers, spaces.Discrete(2), (0, {}), (0, 1.0, False, {})))
    game.reset(0)
    with pytest.raises(GameError, match=r"step of 'Answers' returned 4 values; it must return 5: \(observation, rew"):
        game.step(torch.tensor([[1.0, 0.0]]))
    with pytest.raises(GameError, match="reset of 'Answers' returned a int; it must return 2"):
        from_env(partial(Answers, spaces.Discrete(2), 0)).reset(0)


def test_a_mask_in_the_info_is_told_and_must_be_declared() -> None:
    allowed = {"action_mask": np.array([0, 1], np.int8)}
    make_env = partial(Answers, spaces.Discrete(2), (0, allowed), (0, 1.0, False, False, {}))
    view = from_env(make_env, legal_varies=True).reset(0)
    assert view.legal.tolist() == [[False, True]]
    with pytest.raises(GameError, match="pass legal_varies=True"):
        from_env(make_env).reset(0)


def test_a_terminated_agents_empty_mask_leaves_everything_legal() -> None:
    space = spaces.Dict({"observation": spaces.Discrete(2), "action_mask": spaces.MultiBinary(2)})
    first = {"observation": 0, "action_mask": np.array([0, 1], np.int8)}
    last = {"observation": 1, "action_mask": np.array([0, 0], np.int8)}
    for terminated in (True, False):
        game = from_env(partial(Answers, space, (first, {}), (last, 0.0, terminated, not terminated, {})))
        game.reset(0)
        rows, view = game.step(torch.tensor([[0.0, 1.0]]))
        assert rows.legal.tolist() == [[False, True]]
        assert rows.next_legal.tolist() == [[True, True]]
        assert view.legal.tolist() == [[False, True]]
