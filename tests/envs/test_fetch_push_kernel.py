"""FetchPush as a kernel, against the environment itself: on random play, and on play that pushes the block."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.evaluate import first_window
from presage.common.game import GameError, Rows, View
from presage.envs.fetch_push_kernel import STATE, FetchPushKernel
from presage.envs.goal_rules import DistanceRule, goal_rule_of
from presage.envs.registry import environment, make

COPIES, STEPS, FRAMES = 8, 60, 51
RULE = DistanceRule(threshold=0.05, reward_type="penalty")
ENV = cache(lambda: environment("fetch/push").unwrapped)
NOBODY = torch.zeros(0)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pushing(view: View, rng: torch.Generator) -> Tensor:
    """Actions `(B, 4)` that bring the hand down behind the block, as seen from the goal, and then go for the goal."""
    hand, block = view.obs[:, :3], view.obs[:, 3:6]
    way = torch.nn.functional.normalize((view.desired - block)[:, :2])
    behind = torch.cat([block[:, :2] - 0.07 * way, torch.full((len(view), 1), 0.43)], 1)
    there = (hand - behind).norm(dim=1, keepdim=True) < 0.03
    along = ((hand - block)[:, :2] * way).sum(1, keepdim=True)
    astray = ((hand - block)[:, :2] - along * way).norm(dim=1, keepdim=True) > 0.03
    over = torch.cat([behind[:, :2], torch.full((len(view), 1), 0.52)], 1)
    above = (hand[:, :2] - behind[:, :2]).norm(dim=1, keepdim=True) < 0.02
    before = ~astray & (along < -0.03)
    through = torch.cat([block[:, :2] + 0.05 * way, behind[:, 2:]], 1)
    target = torch.where(there | (before & (hand[:, 2:] < 0.45)), through, torch.where(above, behind, over))
    moves = (target - hand) / 0.05 + 0.2 * torch.randn(len(view), 3, generator=rng)
    return torch.cat([moves, torch.zeros(len(view), 1)], 1).clamp(-1.0, 1.0)


@cache
def played() -> tuple[EpisodicReplay, Rows]:
    """An episode of every copy and the start of another, half of the copies at random and half pushing; and their rows,
    by time, then copy.
    """
    game, rng = make("fetch/push", COPIES, frames=FRAMES), generator(0)
    replay, view = EpisodicReplay(game.spec, COPIES * STEPS, COPIES), game.reset(0)
    for _ in range(STEPS):
        chance = game.spec.random_action(view.acting, view.legal, rng)
        rows, view = game.step(torch.cat([chance[: COPIES // 2], pushing(view, rng)[COPIES // 2 :]]))
        replay.extend(rows)
    return replay, replay.rows(replay.all())


def kernel(**given: Any) -> FetchPushKernel:
    return FetchPushKernel(played()[0].spec, ENV(), given.pop("rule", RULE), **given)


def states(kernel: FetchPushKernel, places: Tensor, *, after: bool = False) -> Tensor:
    """Where the rows at `places (B,)` among all rows begin, or end."""
    replay, _ = played()
    window = replay.window(replay.all()[places], FRAMES, after=after)
    found: Tensor = kernel.init(window, NOBODY, generator(0))
    return found


@pytest.mark.parametrize("after", [False, True])
def test_states_show_what_was_seen(after: bool) -> None:
    env, rows = ENV(), played()[1][::3]
    found = states(kernel(), torch.arange(0, COPIES * STEPS, 3), after=after)
    for state, seen in zip(found, rows.next_obs if after else rows.obs, strict=True):
        mujoco.mj_setState(env.model, env.data, state.numpy(), STATE)
        mujoco.mj_forward(env.model, env.data)
        np.testing.assert_allclose(env._get_obs()["observation"], seen.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 5])
def test_branches_follow_the_game(steps: int) -> None:
    _, rows = played()
    later = COPIES * (steps - 1)
    begin = ((rows.step <= 50 - steps) & (torch.arange(len(rows)) < len(rows) - later)).nonzero().squeeze(1)
    true, at = kernel(), begin
    carry, view = states(true, begin), rows[begin].view
    for _ in range(steps):
        carry, outcome = true.step(carry, view, rows.act[at], generator(0))
        view, at = outcome.after, at + COPIES
    last = rows[begin + later]
    apart, moved = 1e3 * (view.obs - last.next_obs), 1e3 * (last.next_obs - rows.obs[begin])  # millimetres
    hand, block, shift = (part.norm(dim=1) for part in (apart[:, :3], apart[:, 3:6], moved[:, 3:6]))
    pushed = shift > 5.0
    assert int(pushed.sum()) > 50
    assert float(hand.max()) < 0.1
    error = torch.maximum(hand, block)[pushed]
    assert float(error.quantile(0.98)) < 0.01  # a block that stands on its edge may fall to the other side
    assert torch.equal(outcome.reward, last.reward)


def test_from_the_environments_own_state_it_is_the_environment() -> None:
    env, true, rng = environment("fetch/push"), kernel(), np.random.default_rng(0)
    shown, _ = env.reset(seed=1)
    raw: Any = env.unwrapped
    state = np.empty((1, mujoco.mj_stateSize(raw.model, STATE)))
    mujoco.mj_getState(raw.model, raw.data, state[0], STATE)
    carry = torch.from_numpy(state)
    for _ in range(50):
        hand, block = shown["observation"][:3], shown["observation"][3:6]
        action = np.append((block - hand) / 0.05, 0.0) + rng.normal(size=4)
        action = action.clip(-1.0, 1.0).astype(np.float32)
        view = View.of(true.spec, torch.as_tensor(shown["observation"], dtype=torch.float64)[None])
        shown, *_ = env.step(action)
        carry, outcome = true.step(carry, view, torch.from_numpy(action)[None], generator(0))
        np.testing.assert_allclose(outcome.after.obs[0].numpy(), shown["observation"], rtol=0, atol=1e-12)
        mujoco.mj_getState(raw.model, raw.data, state[0], STATE)
        assert np.array_equal(carry.numpy(), state)


def test_what_is_remembered_changes_nothing() -> None:
    places = torch.arange(0, COPIES * STEPS, 13)
    once, again, forgetful = kernel(), kernel(), kernel(remembered=1)
    fresh, order = states(once, places), torch.randperm(len(places), generator=generator(0))
    for one in (once, again, forgetful):
        assert torch.equal(states(one, places[order]), fresh[order])


def test_the_goals_that_are_pursued_pay_and_end() -> None:
    _, rows = played()
    true = kernel(rule=replace(RULE, terminates=True))
    view, near = rows[:64].view, torch.arange(64) < 32
    view = replace(view, desired=torch.where(near[:, None], view.achieved, view.achieved + 0.2))
    carry = states(true, torch.arange(64))
    for _ in range(2):
        carry, outcome = true.step(carry, view, torch.zeros(64, 4), generator(0))
        assert torch.equal(outcome.after.desired, view.desired)
        assert torch.equal(outcome.reward[:, 0], near.float() - 1.0)
        assert torch.equal(outcome.terminated[:, 0], near)
        view = outcome.after


def test_windows_have_to_reach_back() -> None:
    replay, rows = played()
    with pytest.raises(GameError, match="give the game frames=51"):
        FetchPushKernel(make("fetch/push", 1).spec, ENV(), RULE)
    late = rows[(rows.step == 20).nonzero().squeeze(1)].view
    with pytest.raises(GameError, match="keep whole episodes in the replay"):
        kernel().init(first_window(replay.spec, late), NOBODY, generator(0))
    assert goal_rule_of(environment("fetch/push")) == RULE
