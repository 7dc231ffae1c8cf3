from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from presage.common.game import GameError
from presage.envs.particle import ParticleGame, Spread, WorldState
from presage.envs.particle.parity import joint_actions, world_state

CORNERS = torch.tensor([[0.8, 0.8], [-0.8, 0.8], [0.0, -0.8]], dtype=torch.float64)


def covering(agents: Tensor) -> WorldState:
    """Agents `(3, 2)` at rest, landmarks far apart."""
    return WorldState(
        position=agents[None],
        velocity=torch.zeros(1, 3, 2),
        landmarks=CORNERS[None],
        message=torch.zeros(1, 0, 2),
        private=torch.zeros(1, 0),
    )


def stay(game: ParticleGame) -> Tensor:
    act = torch.zeros(game.copies, game.spec.act_dim)
    act[:, ::5] = 1.0
    return act


@pytest.mark.parametrize(("reward", "expected"), [("mpe2", 0.0), ("original", -3.0)])
def test_covered_landmarks_cost_nothing_but_the_original_self_collision(reward: Any, expected: float) -> None:
    scenario = Spread(reward=reward)
    game = ParticleGame(scenario, 1, dtype=torch.float64)
    game.reset(0)
    game.place(covering(CORNERS[[2, 0, 1]]))
    for _ in range(25):
        rows, _ = game.step(stay(game))
        assert rows.reward.tolist() == [[expected] * 3]
    assert rows.truncated.all()


def test_one_overlapping_pair() -> None:
    near = CORNERS.clone()
    near[1] = near[0] - torch.tensor(
        [0.2, 0.0], dtype=torch.float64
    )  # agents 0 and 1 overlap; landmark 1 is 1.4 from agent 1
    for scenario, expected in (
        (Spread(), [-0.5 - 0.7, -0.5 - 0.7, -0.7]),
        (Spread(local_ratio=1.0), [-1.0, -1.0, 0.0]),
        (Spread(local_ratio=0.25), [-0.25 - 1.05, -0.25 - 1.05, -1.05]),
        (Spread(reward="original"), [-(3 + 2) - 3 * 1.4] * 3),
    ):
        game = ParticleGame(scenario, 1, dtype=torch.float64)
        game.reset(0)
        game.place(covering(near))
        rows, _ = game.step(stay(game))  # from rest nothing has moved yet
        assert rows.reward[0].tolist() == pytest.approx(expected, abs=1e-12)


def original_reward(agents: list[list[float]], landmarks: list[list[float]]) -> float:
    """The original particle world, agent by agent: distances, and a collision with every agent, itself included."""
    total = 0.0
    for one in agents:
        total -= sum(min(math.dist(other, landmark) for other in agents) for landmark in landmarks)
        total -= sum(math.dist(one, other) < 0.3 for other in agents)
    return total


@pytest.mark.parametrize("agents", [1, 2, 3, 4])
def test_original_reward_is_the_sum_over_agents(agents: int) -> None:
    scenario = Spread(agents=agents, reward="original")
    game = ParticleGame(scenario, 50, dtype=torch.float64)
    game.reset(0)
    game.place(world_state(scenario, 3, 50, spread=0.3))
    rows, _ = game.step(joint_actions(game.spec, 4, 50))
    after = game.world_state()
    expected = [
        original_reward(position, marks)
        for position, marks in zip(after.position.tolist(), after.landmarks.tolist(), strict=True)
    ]
    assert rows.reward.shape == (50, agents)
    for i in range(agents):
        assert rows.reward[:, i].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("agents", [1, 2, 5])
def test_state_behind_an_observation(agents: int) -> None:
    scenario = Spread(agents=agents)
    game = ParticleGame(scenario, 20, dtype=torch.float64)
    game.reset(0)
    state = world_state(scenario, 5, 20, spread=0.7)
    found = scenario.reconstruct(game.place(state).obs)
    torch.testing.assert_close(found.position, state.position, rtol=0, atol=0)
    torch.testing.assert_close(found.velocity, state.velocity, rtol=0, atol=0)
    torch.testing.assert_close(found.landmarks, state.landmarks, rtol=0, atol=1e-15)


def test_contradictions_are_refused() -> None:
    bad: Any = "sum"
    with pytest.raises(GameError, match="agents=0"):
        Spread(agents=0)
    with pytest.raises(GameError, match=r"local_ratio=1\.5"):
        Spread(local_ratio=1.5)
    with pytest.raises(GameError, match="'sum'"):
        Spread(reward=bad)
    with pytest.raises(GameError, match=r"local_ratio=0\.2 has no meaning"):
        replace(Spread(reward="original"), local_ratio=0.2)
