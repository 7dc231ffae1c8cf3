from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from presage.common.game import GameError, GameSpec, View, Window
from presage.common.known_columns import KnownRule
from presage.common.symmetry import Renamings
from presage.envs.particle import (
    Adversary,
    CollectTreasure,
    Crypto,
    Formation,
    Line,
    ParticleGame,
    Scenario,
    SpeakerListener,
    Spread,
    Tag,
    TrueKernel,
    WorldComm,
)
from presage.envs.particle.parity import SCENARIOS, Mpe2Game, joint_actions, named, world_state
from presage.envs.particle.rules import game_spec

every_scenario = pytest.mark.parametrize("scenario", [*SCENARIOS, Spread(reward="original")], ids=named)
RNG = torch.Generator()


def window(spec: GameSpec, obs: Tensor) -> Window:
    """A window at an episode's start."""
    rows, frames = len(obs), spec.frames
    valid = torch.zeros(rows, frames, dtype=torch.bool, device=obs.device)
    valid[:, -1] = True
    act = obs.new_zeros(rows, frames, spec.act_dim)
    return Window(obs=obs[:, None].expand(-1, frames, -1), act=act, valid=valid, now=View.of(spec, obs))


class Played(TrueKernel):
    """Leaves to chance what the game did."""

    numbers: Tensor

    def chance(self, rows: int, rng: torch.Generator) -> Tensor:
        return self.numbers


def window_after(spec: GameSpec, before: Tensor, act: Tensor, obs: Tensor) -> Window:
    """A window at `obs`, one step after `before`."""
    first = window(spec, obs)
    if spec.frames == 1:
        return first
    chosen, valid = torch.stack([act, torch.zeros_like(act)], 1), torch.ones(len(obs), 2, dtype=torch.bool)
    return Window(obs=torch.stack([before, obs], 1), act=chosen, valid=valid, now=first.now)


@pytest.mark.parametrize("continuous", [False, True])
@every_scenario
def test_imagined_steps_are_the_game_itself(scenario: Scenario, continuous: bool) -> None:
    rows = 40
    game = ParticleGame(scenario, rows, dtype=torch.float64, continuous=continuous)
    game.reset(0)
    game.place(world_state(scenario, 7, rows, spread=0.4))
    kernel = Played(scenario, dtype=torch.float64, continuous=continuous)
    first, view = game.step(joint_actions(game.spec, 99, rows))
    going = ~first.terminated[:, 0]
    ego = torch.zeros(rows, dtype=torch.int16)
    carry = kernel.init(window_after(game.spec, first.obs, first.act, first.next_obs), ego, RNG)
    for t in range(15):
        act = joint_actions(game.spec, t, rows)
        if isinstance(scenario, CollectTreasure):  # the order of treasures is not observed: start from the state itself
            carry = game.world_state()
            carry = scenario.world.pack(carry, device="cpu", dtype=torch.float64).T
        kernel.numbers = game.chance()
        played, view = game.step(act)
        carry, outcome = kernel.step(carry, view, act, RNG)
        torch.testing.assert_close(outcome.after.obs[going], played.next_obs[going], rtol=0, atol=1e-10)
        torch.testing.assert_close(outcome.reward[going], played.reward[going], rtol=0, atol=1e-10)
        assert torch.equal(outcome.terminated[going], played.terminated[going])
        assert outcome.terminated.shape == (rows, game.spec.n)
        going &= ~played.terminated[:, 0]


def test_treasures_are_told_from_what_is_seen() -> None:
    """But for their order, which nobody sees; where none is about to appear, a step from there is one of the game."""
    scenario, rows = CollectTreasure(), 400
    game = ParticleGame(scenario, rows, dtype=torch.float64)
    game.reset(0)
    state = world_state(scenario, 3, rows, spread=0.5)
    view = game.place(state)
    whole = (state.landmarks > -2).all(2).all(1)
    act = joint_actions(game.spec, 0, rows)
    played, _ = game.step(act)
    kernel = TrueKernel(scenario, dtype=torch.float64)
    _, outcome = kernel.step(kernel.init(window(game.spec, view.obs), torch.zeros(rows), RNG), view, act, RNG)
    torch.testing.assert_close(outcome.after.obs[whole], played.next_obs[whole], rtol=0, atol=1e-10)
    torch.testing.assert_close(outcome.reward[whole], played.reward[whole], rtol=0, atol=1e-10)
    assert played.reward[whole].max() > 4  # something was picked up or delivered


def test_velocities_follow_from_two_views_alone() -> None:
    kernel = TrueKernel(Adversary())
    short = window(replace(kernel.spec, frames=1), torch.zeros(2, kernel.spec.obs_dim))
    with pytest.raises(GameError, match="'adversary' needs windows of 2 joint observations"):
        kernel.init(short, torch.zeros(2), RNG)
    with pytest.raises(GameError, match="shows no velocities"):
        Adversary().reconstruct(torch.zeros(2, kernel.spec.obs_dim))


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if not s.chances], ids=named)
def test_imagines_from_what_mpe2_shows(scenario: Scenario) -> None:
    reference = Mpe2Game(scenario)
    kernel = TrueKernel(scenario)
    observations, _ = reference.env.reset(seed=3)
    acts = joint_actions(kernel.spec, 8, 24)

    def joint() -> Tensor:
        return torch.from_numpy(np.concatenate([observations[name] for name in kernel.spec.names]))[None]

    branches: list[tuple[Tensor, int]] = []
    before, chosen, ego = joint(), torch.zeros(1, kernel.spec.act_dim), torch.zeros(1, dtype=torch.int16)
    for t, act in enumerate(acts):
        now = joint()
        start = window_after(kernel.spec, before, chosen, now) if t else window(kernel.spec, now)
        branches.append((kernel.init(start, ego, RNG), 0))
        before, chosen = now, act[None]
        observations, rewards, terminated, _, _ = reference.env.step(kernel.spec.to_env(act.numpy()))
        paid = torch.tensor([[rewards[name] for name in kernel.spec.names]], dtype=torch.float32)
        # Every branch so far, whatever its age, takes the played action and arrives where the game does.
        for b, (carry, age) in enumerate(branches):
            carry, outcome = kernel.step(carry, View.of(kernel.spec, now), act[None], RNG)
            branches[b] = (carry, age + 1)
            tolerance = 1e-5 if age < 5 else 1e-3
            torch.testing.assert_close(outcome.after.obs, joint(), rtol=0, atol=tolerance)
            torch.testing.assert_close(outcome.reward, paid, rtol=0, atol=tolerance)
            assert outcome.terminated.tolist() == [[terminated[name] for name in kernel.spec.names]]
        if any(terminated.values()):
            break


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if not s.chances], ids=named)
def test_rows_of_a_carry_can_be_chosen(scenario: Scenario) -> None:
    game = ParticleGame(scenario, 30)
    kernel = TrueKernel(scenario)
    view = game.reset(1)
    act = joint_actions(game.spec, 9, 30)
    carry = kernel.init(window(kernel.spec, view.obs), torch.zeros(30, dtype=torch.int16), RNG)
    chosen = torch.tensor([3, 17, 4, 4])
    _, everywhere = kernel.step(carry, view, act, RNG)
    _, some = kernel.step(carry[chosen], view[chosen], act[chosen], RNG)
    assert torch.equal(some.after.obs, everywhere.after.obs[chosen])
    assert torch.equal(some.reward, everywhere.reward[chosen])


ON_DEVICE = [s for s in SCENARIOS if not s.chances and s != Line(agents=6, terminate_on_success=True)]
"""generators have no meta device, and assignments of many agents are solved on the CPU"""


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("scenario", [*ON_DEVICE, Spread(reward="original")], ids=named)
def test_nothing_leaves_the_device(scenario: Scenario, continuous: bool) -> None:
    # The meta device computes shapes alone, and refuses arithmetic with tensors of another device as a GPU does.
    kernel = TrueKernel(scenario, device="meta", continuous=continuous)
    obs = torch.zeros(4, kernel.spec.obs_dim, device="meta")
    act = torch.zeros(4, kernel.spec.act_dim, device="meta")
    carry = kernel.init(window(kernel.spec, obs), torch.zeros(4, dtype=torch.int16), RNG)
    carry, outcome = kernel.step(carry, View.of(kernel.spec, obs), act, RNG)
    for value in (carry, outcome.after.obs, outcome.reward, outcome.terminated):
        assert value.device.type == "meta"
    assert outcome.after.obs.shape == obs.shape
    assert outcome.reward.shape == (4, kernel.spec.n)


def test_observations_of_another_game_are_refused() -> None:
    kernel = TrueKernel(SpeakerListener())
    with pytest.raises(GameError, match=r"'speaker_listener'.*14.*got 54"):
        kernel.init(window(kernel.spec, torch.zeros(2, 54)), torch.zeros(2, dtype=torch.int16), RNG)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(
    ("scenario", "renamings"),
    [
        (Spread(), 35),
        (Spread(agents=2), 3),
        (Spread(reward="original"), 35),
        (Spread(agents=4), 63),
        (Spread(agents=6), 35),
        (SpeakerListener(), 5),
        (Tag(), 11),
        (Adversary(), 3),
        (Formation(), 23),
        (Line(agents=6), 5),
        (WorldComm(), 47),
    ],
    ids=str,
)
def test_renamed_rows_are_rows_of_the_game(scenario: Scenario, renamings: int, continuous: bool) -> None:
    """What the game makes of a renamed view and action is what it made of the plain ones, renamed."""
    rows = 30
    game = ParticleGame(scenario, rows, dtype=torch.float64, continuous=continuous)
    assert len(set(game.spec.symmetries)) == renamings
    game.reset(0)
    game.place(world_state(scenario, 7, rows, spread=0.4))
    table = Renamings(game.spec)
    kernel = TrueKernel(scenario, dtype=torch.float64, continuous=continuous)
    earlier, played = [game.step(joint_actions(game.spec, t, rows))[0] for t in range(4)][-2:]
    for renaming in range(table.count):
        before, renamed = (table.rows(step, torch.full((rows,), renaming)) for step in (earlier, played))
        game.spec.check_action(renamed.act)
        start = window_after(game.spec, before.obs, before.act, renamed.obs)
        carry = kernel.init(start, renamed.ego, RNG)
        _, outcome = kernel.step(carry, renamed.view, renamed.act, RNG)
        torch.testing.assert_close(outcome.after.obs, renamed.next_obs, rtol=0, atol=1e-10)
        torch.testing.assert_close(outcome.reward, renamed.reward, rtol=0, atol=1e-10)


@pytest.mark.parametrize("continuous", [False, True])
@every_scenario
def test_known_columns_are_what_the_rule_says(scenario: Scenario, continuous: bool) -> None:
    rows = 20
    game = ParticleGame(scenario, rows, continuous=continuous)
    game.reset(3)
    rule = KnownRule(game.spec, True)
    for t in range(6):
        played, _ = game.step(joint_actions(game.spec, t, rows))
        found = rule(torch.full_like(played.obs, torch.nan), played.view, played.act)
        at = rule.columns
        assert torch.equal(found[:, at], played.next_obs[:, at])


def test_what_is_said_and_what_never_changes_is_known() -> None:
    scenarios = (SpeakerListener(), Spread(), Crypto(), WorldComm())
    known = {type(scenario): [column.column for column in game_spec(scenario).known] for scenario in scenarios}
    assert known[SpeakerListener] == [0, 1, 2, 11, 12, 13]
    assert known[Spread] == [14, 15, 16, 17, 32, 33, 34, 35, 50, 51, 52, 53], "the words of silent agents: zeros"
    assert len(known[Crypto]) == 20, "who only talks is all known"
    assert not known[WorldComm], "some numbers are hidden, and nobody says which"
