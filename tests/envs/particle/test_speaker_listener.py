from __future__ import annotations

import pytest
import torch

from presage.envs.particle import ParticleGame, SpeakerListener, WorldState
from presage.envs.particle.parity import world_state
from presage.envs.particle.speaker_listener import goal_mask, seen_parts


def test_both_pay_for_the_squared_distance_to_the_goal_alone() -> None:
    game = ParticleGame(SpeakerListener(), 3, dtype=torch.float64)
    game.reset(0)
    listener, marks = [0.5, -0.25], [[0.5, 0.75], [-0.5, -0.25], [0.0, 0.0]]
    colour = torch.full((3, 3), 0.15, dtype=torch.float64)
    game.place(
        WorldState(
            position=torch.tensor([[9.0, 9.0], listener], dtype=torch.float64).expand(3, 2, 2),
            velocity=torch.zeros(3, 2, 2),
            landmarks=torch.tensor(marks, dtype=torch.float64).expand(3, 3, 2),
            message=torch.zeros(3, 1, 3),
            private=colour + 0.5 * torch.eye(3, dtype=torch.float64),
        )
    )
    act = torch.zeros(3, 8)
    act[:, [2, 3]] = 1.0
    rows, _ = game.step(act)
    for goal, squared in enumerate([1.0, 1.0, 0.3125]):
        assert rows.reward[goal].tolist() == pytest.approx([-squared, -squared], abs=1e-15)


def test_a_word_is_heard_one_step_later_and_once() -> None:
    game = ParticleGame(SpeakerListener(), 3)
    view = game.reset(1)
    heard = [seen_parts(view.obs)[3]]
    for t in range(4):
        act = torch.zeros(3, 8)
        act[torch.arange(3), (torch.arange(3) + t) % 3] = 1.0
        act[:, 3] = 1.0
        heard.append(seen_parts(game.step(act)[1].obs)[3])
    assert heard[0].abs().max() == 0
    for t in range(4):
        assert heard[t + 1].argmax(1).tolist() == [t % 3, (1 + t) % 3, (2 + t) % 3]
        assert heard[t + 1].sum() == 3


def test_every_goal_is_drawn_equally_often_and_shown_to_the_speaker() -> None:
    game = ParticleGame(SpeakerListener(), 30_000)
    shown = seen_parts(game.reset(2).obs)[0]
    goals = goal_mask(shown)
    assert goals.sum(1).eq(1).all()
    assert (goals.double().mean(0) - 1 / 3).abs().max() < 0.01
    assert torch.equal(shown, torch.where(goals, 0.65, 0.15))


def test_state_behind_an_observation_has_the_listener_at_the_origin() -> None:
    scenario = SpeakerListener()
    state = world_state(scenario, 6, 40, spread=1.0)
    game = ParticleGame(scenario, 40, dtype=torch.float64)
    game.reset(0)
    found = scenario.reconstruct(game.place(state).obs)
    assert torch.equal(found.landmarks, state.landmarks - state.position[:, 1:])
    assert torch.equal(found.velocity, state.velocity)
    assert torch.equal(found.message, state.message)
    assert torch.equal(found.private, state.private)
    assert found.position[:, 1].abs().max() == 0
