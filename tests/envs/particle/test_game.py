from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from presage.common.game import AgentSpec, Game, GameError, Rows, View, episode_seed
from presage.envs.particle import (
    Adversary,
    CollectTreasure,
    Formation,
    Line,
    ParticleGame,
    Scenario,
    SpeakerListener,
    Spread,
    Tag,
    WorldComm,
    WorldState,
    game_spec,
)
from presage.envs.particle.parity import SCENARIOS, Mpe2Game, joint_actions, mixed_states, named

every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
every_kind = pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
EXACT = torch.float64


def play(game: ParticleGame, steps: int, seed: int = 0) -> list[Rows]:
    """The rows of `steps` steps of random play."""
    return [game.step(joint_actions(game.spec, seed + t, game.copies))[0] for t in range(steps)]


def equal(first: Rows | View, second: Rows | View) -> bool:
    return all(torch.equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))


def gap(found: Tensor, expected: Any) -> float:
    return float(np.abs(found.numpy() - expected).max())


@every_kind
@every_scenario
def test_one_step_from_any_state_is_that_of_mpe2(scenario: Scenario, continuous: bool) -> None:
    copies = 80
    game = ParticleGame(scenario, copies, dtype=EXACT, continuous=continuous)
    game.reset(0)
    state = mixed_states(scenario, 1, copies)
    view = game.place(state)
    chance = game.chance() if scenario.chances else [None] * copies
    rows, _ = game.step(act := joint_actions(game.spec, 2, copies))
    reference = Mpe2Game(scenario, continuous=continuous)
    for row in range(copies):
        reference.write(state, row)
        assert gap(view.obs[row], reference.observation()) <= 1e-12
        next_obs, reward, terminated, _ = reference.step(game.spec, act[row], chance[row])
        assert rows.terminated[row].tolist() == [terminated] * game.spec.n
        assert gap(rows.next_obs[row], next_obs) <= 1e-12
        assert gap(rows.reward[row], reward) <= 1e-12


@every_kind
@every_scenario
def test_whole_episodes_are_those_of_mpe2(scenario: Scenario, continuous: bool) -> None:
    copies = 3
    game = ParticleGame(scenario, copies, dtype=EXACT, continuous=continuous)
    view = game.reset(11)
    start = game.world_state()
    acts = [joint_actions(game.spec, t, copies) for t in range(25)]
    played, chances = [], []
    for act in acts:
        chances.append(game.chance())
        rows, after = game.step(act)
        played.append(rows)
        assert torch.equal(rows.obs, view.obs)
        view = after
    reference = Mpe2Game(scenario, continuous=continuous)
    for row in range(copies):
        reference.write(start, row)
        assert gap(played[0].obs[row], reference.observation()) <= 1e-9
        for t, rows in enumerate(played):
            chance = chances[t][row] if scenario.chances else None
            next_obs, reward, terminated, truncated = reference.step(game.spec, acts[t][row], chance)
            assert gap(rows.next_obs[row], next_obs) <= 1e-9
            assert gap(rows.reward[row], reward) <= 1e-9
            assert bool(rows.truncated[row]) is truncated
            assert rows.step[row] == t
            assert rows.terminated[row].tolist() == [terminated] * game.spec.n
            if terminated:
                break


@every_scenario
def test_float32_game_shows_what_mpe2_shows(scenario: Scenario) -> None:
    single, double = (ParticleGame(scenario, 64, dtype=dtype) for dtype in (torch.float32, EXACT))
    torch.testing.assert_close(single.reset(4).obs.double(), double.reset(4).obs, rtol=0, atol=2e-7)
    for rows, exact in zip(play(single, 25), play(double, 25), strict=True):
        assert rows.next_obs.dtype == rows.reward.dtype == torch.float32
        torch.testing.assert_close(rows.next_obs.double(), exact.next_obs, rtol=0, atol=1e-4)


@every_kind
@every_scenario
def test_spec_is_that_of_the_parallel_environment(scenario: Scenario, continuous: bool) -> None:
    env = Mpe2Game(scenario, continuous=continuous).env
    edges = np.cumsum([0, *(env.observation_space(name).shape[0] for name in env.possible_agents)])
    expected = tuple(
        AgentSpec.from_space(name, range(edges[i], edges[i + 1]), env.action_space(name))
        for i, name in enumerate(env.possible_agents)
    )
    spec = game_spec(scenario, continuous=continuous)
    assert spec.agents == expected
    assert spec.obs_dim == edges[-1]
    assert (spec.frames, spec.episode_limit, spec.goal_dim) == (2 if isinstance(scenario, Adversary) else 1, 25, 0)
    assert spec.terminates == getattr(scenario, "terminate_on_success", False)
    assert not spec.acting_varies
    assert not spec.legal_varies


@every_scenario
def test_episodes_follow_each_other_by_themselves(scenario: Scenario) -> None:
    game = ParticleGame(scenario, 8, episode_limit=4)
    assert isinstance(game, Game)
    first = game.reset(3)
    for t in range(11):
        rows, view = game.step(joint_actions(game.spec, t, 8))
        over = t % 4 == 3
        assert rows.truncated.tolist() == [over] * 8
        assert rows.step.tolist() == [t % 4] * 8
        assert torch.equal(rows.next_obs, view.obs) is not over
    assert not torch.equal(first.obs, rows.obs)


@every_scenario
def test_an_episode_does_not_depend_on_what_was_played_before(scenario: Scenario) -> None:
    games = [ParticleGame(scenario, 8, episode_limit=3) for _ in range(2)]
    starts = []
    for k, game in enumerate(games):
        game.reset(5)
        views = [game.step(joint_actions(game.spec, 100 * k + t, 8))[1] for t in range(6)]
        starts.append((views[2].obs, views[5].obs))
    assert torch.equal(starts[0][0], starts[1][0])
    assert torch.equal(starts[0][1], starts[1][1])
    assert not torch.equal(starts[0][0], starts[0][1])


@every_scenario
def test_a_copy_does_not_depend_on_how_many_there_are(scenario: Scenario) -> None:
    starts = [ParticleGame(scenario, copies).reset(6).obs for copies in (2, 3, 500)]
    assert torch.equal(starts[0], starts[1][:2])
    assert torch.equal(starts[1], starts[2][:3])


def test_same_seed_same_play_and_other_seed_other_play() -> None:
    game = ParticleGame(Spread(), 4)
    runs = []
    for seed in (1, 1, 2):
        game.reset(seed)
        runs.append(play(game, 30))
    assert all(equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0].obs, runs[2][0].obs)


@every_kind
@every_scenario
def test_restored_game_goes_on_exactly(scenario: Scenario, continuous: bool) -> None:
    game = ParticleGame(scenario, 4, continuous=continuous)
    game.reset(9)
    play(game, 31)
    saved = game.state()
    expected = play(game, 60, seed=70)
    fresh = ParticleGame(scenario, 4, continuous=continuous)
    view = fresh.restore(saved)
    assert torch.equal(view.obs, expected[0].obs)
    assert all(equal(a, b) for a, b in zip(play(fresh, 60, seed=70), expected, strict=True))


def test_state_of_another_game_is_refused() -> None:
    game = ParticleGame(Spread(), 4)
    game.reset(0)
    play(game, 7)
    for other in (
        ParticleGame(SpeakerListener(), 4),
        ParticleGame(Spread(), 5),
        ParticleGame(Spread(agents=2), 4),
        ParticleGame(Spread(), 4, dtype=EXACT),
    ):
        with pytest.raises(GameError, match="the saved state is"):
            other.restore(game.state())
    with pytest.raises(GameError, match="at step 7; this game's last 7 steps"):
        ParticleGame(Spread(), 4, episode_limit=7).restore(game.state())


@every_scenario
def test_starts_are_uniform_and_at_rest(scenario: Scenario) -> None:
    game = ParticleGame(scenario, 20_000)
    game.reset(0)
    state = game.world_state()
    halves = {Tag: 0.9, WorldComm: 0.9, Formation: 0.5, CollectTreasure: 0.95}
    landmarks = state.landmarks[:, :0] if isinstance(scenario, Line) else state.landmarks  # in line, along a direction
    for place, half in ((state.position, 1.0), (landmarks, halves.get(type(scenario), 1.0))):
        assert (place.abs() <= half).all()
        assert (place.mean(0).abs() < 0.02).all()
        assert ((place.square().mean(0) - half**2 / 3).abs() < 0.02).all()
    assert state.velocity.abs().max() == 0
    assert state.message.count_nonzero() == 0


def test_the_ends_of_a_line_are_as_far_apart_as_in_mpe2_and_on_the_screen() -> None:
    first, second = Line().draw(5_000, torch.Generator().manual_seed(0)).landmarks.unbind(1)
    torch.testing.assert_close((second - first).norm(dim=1), torch.full((5_000,), 1.25, dtype=EXACT))
    assert first.abs().max() <= 0.25
    assert second.abs().max() < 1.0
    angle = torch.atan2(*(second - first).unbind(1))
    assert torch.histc(angle, 8, -math.pi, math.pi).min() > 300


def test_first_episode_is_drawn_from_its_seed() -> None:
    game = ParticleGame(SpeakerListener(), 6, dtype=EXACT)
    game.reset(17)
    drawn = SpeakerListener().draw(6, torch.Generator().manual_seed(episode_seed(17, 0, 0)))
    assert all(torch.equal(getattr(game.world_state(), f.name), getattr(drawn, f.name)) for f in fields(drawn))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda act: act * 0.5, "agent_0.*one-hot of 5"),
        (lambda act: torch.zeros_like(act), "agent_0.*one-hot of 5"),
        (lambda act: act.index_fill(1, torch.tensor([12, 13]), 1.0), "agent_2.*one-hot of 5"),
        (lambda act: act.roll(1, 1), "one-hot of 5"),
        (lambda act: act * float("nan"), "one-hot of 5"),
        (lambda act: act[:, :-1], "shape"),
        (lambda act: act[:-1], "3 joint actions for 4 copies"),
    ],
)
def test_actions_that_are_not_one_hot_are_refused(change: Any, message: str) -> None:
    game = ParticleGame(Spread(), 4)
    game.reset(0)
    act = torch.zeros(4, 15)
    act[:, [0, 9, 12]] = 1.0
    act[2, [0, 4]] = torch.tensor([0.0, 1.0])
    game.step(act)
    with pytest.raises(GameError, match=message):
        game.step(change(act))


@pytest.mark.parametrize("value", [1.01, -2.0, float("nan")])
def test_box_actions_outside_the_bounds_are_refused(value: float) -> None:
    game = ParticleGame(Spread(), 2, continuous=True)
    game.reset(0)
    act = torch.ones(2, 15)
    game.step(act)
    act[1, 7] = value
    with pytest.raises(GameError, match="agent_1' in row 1"):
        game.step(act)


def test_misuse_is_refused() -> None:
    with pytest.raises(GameError, match="copies=0"):
        ParticleGame(Spread(), 0)
    with pytest.raises(GameError, match="episode_limit=0"):
        ParticleGame(Spread(), 1, episode_limit=0)
    game = ParticleGame(Spread(), 2)
    with pytest.raises(GameError, match="reset"):
        game.step(torch.zeros(2, 15))
    game.reset(0)
    state = game.world_state()
    with pytest.raises(GameError, match="3 rows; this game has 2 copies"):
        game.place(WorldState(**{f.name: getattr(state, f.name)[[0, 1, 1]] for f in fields(state)}))
    with pytest.raises(GameError, match=r"landmarks has shape \(2, 2, 2\)"):
        game.place(replace(state, landmarks=state.landmarks[:, :2]))


def test_rows_hold_no_graph() -> None:
    game = ParticleGame(Spread(), 2, continuous=True)
    game.reset(0)
    rows, view = game.step(torch.zeros(2, 15, requires_grad=True))
    assert not any(value.requires_grad for value in (rows.act, rows.next_obs, rows.reward, view.obs))
