from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from presage.common.game import Actor, GameError, GameSpec, View, Window
from presage.envs.particle import (
    GreedySpeakerListener,
    GreedySpread,
    ParticleGame,
    Scenario,
    SpeakerListener,
    Spread,
    WorldState,
)
from presage.envs.particle.greedy import cheapest_landmarks
from presage.envs.particle.parity import Mpe2Game, joint_actions
from presage.envs.particle.speaker_listener import seen_parts

GAMES: tuple[Scenario, ...] = (Spread(), SpeakerListener())
every_kind = pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])


def greedy(scenario: Scenario, *, continuous: bool = False) -> Actor:
    if isinstance(scenario, Spread):
        return GreedySpread(scenario, continuous=continuous)
    return GreedySpeakerListener(continuous=continuous)


def returns(scenario: Scenario, copies: int, *, continuous: bool = False, random: bool = False) -> Tensor:
    """Each copy's return over one episode, mean over agents."""
    game = ParticleGame(scenario, copies, dtype=torch.float64, continuous=continuous)
    actor = greedy(scenario, continuous=continuous)
    view = game.reset(21)
    total = torch.zeros(copies, dtype=torch.float64)
    for t in range(25):
        act = joint_actions(game.spec, t, copies) if random else actor.step(None, view, None)[1]
        rows, view = game.step(act)
        total += rows.reward.mean(1)
    return total


def moves(act: Tensor, first: int = 0) -> list[int]:
    """The move of each agent in one row of a discrete joint action, whose moves begin at `first`."""
    return act[0, first:].view(-1, 5).argmax(1).tolist()


def spread_view(agents: list[list[float]], landmarks: list[list[float]]) -> View:
    """What is seen of a spread game with its agents at rest."""
    game = ParticleGame(Spread(agents=len(agents)), 1)
    game.reset(0)
    where = torch.tensor([agents])
    state = WorldState(
        position=where, velocity=torch.zeros_like(where), landmarks=torch.tensor([landmarks]),
        message=torch.zeros(1, 0, 2), private=torch.zeros(1, 0),
    )  # fmt: skip
    return game.place(state)


@every_kind
@pytest.mark.parametrize("scenario", GAMES, ids=["spread", "speaker_listener"])
def test_returns_are_those_in_mpe2_itself(scenario: Scenario, continuous: bool) -> None:
    episodes = 3
    game = ParticleGame(scenario, episodes, dtype=torch.float64, continuous=continuous)
    game.reset(21)
    start, spec = game.world_state(), game.spec
    actor = greedy(scenario, continuous=continuous)
    reference = Mpe2Game(scenario, continuous=continuous)
    expected = []
    for row in range(episodes):
        reference.write(start, row)
        total, obs = 0.0, reference.observation()
        for _ in range(25):
            _, act = actor.step(None, View.of(spec, torch.from_numpy(obs)[None]), None)
            spec.check_action(act)
            obs, reward, _, _ = reference.step(spec, act[0])
            total += float(np.mean(reward))
        expected.append(total)
    assert returns(scenario, episodes, continuous=continuous).tolist() == pytest.approx(expected, abs=1e-9)


@every_kind
@pytest.mark.parametrize(
    ("scenario", "at_least", "random_below"),
    [(Spread(), -7.4, -24.0), (Spread(agents=5), -10.0, -32.0), (SpeakerListener(), -8.2, -32.0)],
    ids=["spread3", "spread5", "speaker_listener"],
)
def test_is_a_strong_reference(scenario: Scenario, at_least: float, random_below: float, continuous: bool) -> None:
    # Means over many episodes: greedy -6.9, -9.4 and -7.4, random -26, -34 and -38; here with errors below 0.4 and 1.5.
    assert returns(scenario, 400, continuous=continuous).mean() >= at_least
    assert returns(scenario, 400, continuous=continuous, random=True).mean() <= random_below


def test_agents_take_the_cheapest_landmarks() -> None:
    start = Spread(agents=4).draw(30, torch.Generator().manual_seed(2))
    orders = torch.tensor(list(permutations(range(4))))
    taken = cheapest_landmarks(start.position, start.landmarks, orders)
    for agents, landmarks, found in zip(start.position, start.landmarks, taken, strict=True):
        _, order = linear_sum_assignment((agents[:, None] - landmarks).square().sum(-1).numpy())
        assert torch.equal(found, landmarks[torch.from_numpy(order)])


def test_spread_moves_toward_landmarks_and_rests_on_them() -> None:
    view = spread_view([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], [[1.0, -0.5], [0.02, 0.0], [-2.0, 0.0]])
    _, act = GreedySpread(Spread()).step(None, view, None)
    assert moves(act) == [0, 3, 1]


def test_spread_keeps_clear_of_other_agents() -> None:
    # Mean overlaps of an agent in an episode: 0.2. Heading straight for the same landmarks costs 1.0.
    assert returns(Spread(local_ratio=1.0), 500).mean() > -0.4


def test_listener_goes_to_the_middle_and_then_where_it_was_told() -> None:
    game = ParticleGame(SpeakerListener(), 1)
    game.reset(0)
    colour = torch.tensor([[0.15, 0.65, 0.15]])
    state = WorldState(
        position=torch.zeros(1, 2, 2), velocity=torch.zeros(1, 2, 2),
        landmarks=torch.tensor([[[1.0, 0.0], [0.0, -0.7], [1.0, 0.0]]]),
        message=torch.zeros(1, 1, 3), private=colour,
    )  # fmt: skip
    view = game.place(state)
    actor = GreedySpeakerListener()
    _, act = actor.step(None, view, None)
    assert act[0, :3].tolist() == [0, 1, 0]
    assert moves(act, 3) == [2]
    _, view = game.step(act)
    _, act = actor.step(None, view, None)
    assert moves(act, 3) == [3]
    assert seen_parts(view.obs)[3].tolist() == [[0, 1, 0]]


@every_kind
@pytest.mark.parametrize("scenario", GAMES, ids=["spread", "speaker_listener"])
def test_nothing_is_remembered_and_those_not_acting_answer_zeros(scenario: Scenario, continuous: bool) -> None:
    game = ParticleGame(scenario, 6, continuous=continuous)
    view = game.reset(0)
    spec: GameSpec = game.spec
    actor = greedy(scenario, continuous=continuous)
    window = Window(
        obs=view.obs[:, None], act=torch.zeros(6, 1, spec.act_dim), valid=torch.ones(6, 1, dtype=torch.bool), now=view
    )
    assert actor.init(window) is None
    acting = torch.rand(6, spec.n, generator=torch.Generator().manual_seed(0)) < 0.5
    assert acting.any()
    assert not acting.all()
    _, everyone = actor.step(None, view, None)
    _, some = actor.step(None, View.of(spec, view.obs, acting=acting), None)
    spec.check_action(some, acting)
    for i, where in enumerate(spec.act):
        assert torch.equal(some[:, where], everyone[:, where] * acting[:, i : i + 1])


def test_more_agents_than_can_be_enumerated_are_refused() -> None:
    with pytest.raises(GameError, match="at most 5 agents, got 6"):
        GreedySpread(Spread(agents=6))
