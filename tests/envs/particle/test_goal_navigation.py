from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from presage.common.game import GameError
from presage.common.symmetry import Renamings
from presage.envs.particle import GoalNavigation, ParticleGame, ParticleParallelEnv, TrueKernel
from presage.envs.particle.parity import joint_actions
from presage.envs.registry import from_env, make
from tests.envs.particle.test_kernel import RNG, window


def test_every_agent_is_paid_for_its_own_place() -> None:
    game = make("particle/goal_navigation", 50, reward_type="distance")
    view = game.reset(0)
    rows, _ = game.step(joint_actions(game.spec, 0, 50))
    place = rows.desired.reshape(50, 3, 2)
    where = torch.stack([rows.next_obs[:, list(agent.obs)][:, 2:4] for agent in game.spec.agents], 1)
    torch.testing.assert_close(rows.next_achieved.reshape(50, 3, 2), where)
    torch.testing.assert_close(rows.reward, -(where - place).norm(dim=2))
    assert torch.equal(view.desired, rows.desired)
    assert len(set(view.desired.flatten().tolist())) == 300
    assert not rows.terminated.any()


@given(st.integers(1, 5), st.sampled_from(["penalty", "distance"]), st.integers(0, 10))
def test_relabelled_rewards_are_those_of_a_game_with_these_goals(agents: int, kind: str, seed: int) -> None:
    scenario = GoalNavigation(agents=agents, reward_type=kind, threshold=0.4)  # type: ignore[arg-type]
    game = ParticleGame(scenario, 8)
    game.reset(seed)
    state = game.world_state()
    goals = torch.rand(8, 2 * agents, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    act = joint_actions(game.spec, seed, 8)
    rows, _ = game.step(act)
    state.private[:] = goals
    other = ParticleGame(scenario, 8)
    other.reset(seed)
    other.place(state)
    relabelled = scenario.goal_rule.reward(rows.next_achieved, goals)
    assert torch.equal(relabelled, other.step(act)[0].reward)
    reached = scenario.goal_rule.success(rows.next_achieved, goals)
    if kind == "penalty":
        assert torch.equal(relabelled, reached.float() - 1)


def test_imagined_steps_keep_the_goals_of_the_branch() -> None:
    scenario = GoalNavigation(reward_type="distance")
    game = ParticleGame(scenario, 20, dtype=torch.float64)
    view = game.reset(1)
    kernel = TrueKernel(scenario, dtype=torch.float64)
    carry = kernel.init(window(game.spec, view.obs), torch.zeros(20), RNG)
    seen = view
    for t in range(10):
        act = joint_actions(game.spec, t, 20)
        rows, view = game.step(act)
        carry, outcome = kernel.step(carry, seen, act, RNG)
        seen = outcome.after
        torch.testing.assert_close(outcome.reward, rows.reward, rtol=0, atol=1e-10)
        torch.testing.assert_close(seen.obs, rows.next_obs, rtol=0, atol=1e-10)
        assert torch.equal(seen.desired, rows.desired)


def test_agents_change_places_with_their_goals() -> None:
    game = ParticleGame(GoalNavigation(), 20, dtype=torch.float64)
    game.reset(0)
    rows, _ = game.step(joint_actions(game.spec, 0, 20))
    table = Renamings(game.spec)
    assert table.count == 6
    for renaming in range(table.count):
        renamed = table.rows(rows, torch.full((20,), renaming))
        rule = game.goal_rule
        assert rule is not None
        torch.testing.assert_close(rule.reward(renamed.next_achieved, renamed.desired), renamed.reward)


def test_the_pettingzoo_view_shows_each_agent_its_goal() -> None:
    env = ParticleParallelEnv(GoalNavigation(), max_cycles=3)
    observations, _ = env.reset(seed=0)
    assert observations.keys() == set(env.possible_agents)
    for name, seen in observations.items():
        assert env.observation_space(name).contains(seen)
        np.testing.assert_array_equal(seen["achieved_goal"], seen["observation"][2:4])
    through = from_env(lambda: ParticleParallelEnv(GoalNavigation(), max_cycles=3), terminates=False, achieved=(2, 3))
    view = through.reset(0)
    assert (through.spec.goal_dim, view.desired.shape) == (6, (1, 6))
    assert torch.equal(view.achieved, view.obs[:, list(through.spec.achieved)])


def test_what_makes_no_game_is_refused() -> None:
    with pytest.raises(GameError, match=r"agents=0 >= 1 and threshold=0\.1 > 0"):
        GoalNavigation(agents=0)
    with pytest.raises(GameError, match="reward_type='dense' must be 'penalty' or 'distance'"):
        make("particle/goal_navigation", 1, reward_type="dense")
