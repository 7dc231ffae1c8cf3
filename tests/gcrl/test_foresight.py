"""Foresight: goals are where the present policy would get to; closed forms, and rollouts coded apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameError, GameSpec, Outcome, Rows, View, Window
from presage.common.networks import StackedMLP
from presage.common.propagation import EnsembleKernel
from presage.envs.goal_rules import DistanceRule
from presage.gcrl.foresight import Foresight, ForesightConfig
from presage.gcrl.hindsight import Hindsight, Shares
from tests.common.toy import assert_same_rows, box_agent, generator

ROWS, LENGTH = 40, 20
"""of the replay, in episodes of `LENGTH`"""


@dataclass(frozen=True)
class Near:
    """-1 until the own goal is less than a tenth away; episodes end there where asked."""

    ends: bool = False

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.success(achieved, desired).to(achieved.dtype) - 1.0

    def terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.success(achieved, desired) & self.ends

    def success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return (achieved - desired).abs() < 0.1


class Moves:
    """A kernel that adds the action, and ends where it is told to."""

    def __init__(self, bent: float = 0.0, ends_at: float = float("inf")) -> None:
        self.bent, self.ends_at = bent, ends_at

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> None:
        assert torch.equal(window.obs[:, -1], window.now.obs)

    def step(self, carry: None, view: View, act: Tensor, rng: torch.Generator) -> tuple[None, Outcome]:
        obs = view.obs + act + self.bent * view.obs.sin()
        after = replace(view, obs=obs, achieved=obs)
        return None, Outcome(after=after, reward=torch.zeros_like(obs), terminated=obs.abs() > self.ends_at)


class Approaches:
    """A policy that goes a part of the way to the goal, with noise where it explores."""

    def __init__(self, gain: float = 0.5, noise: float = 0.0) -> None:
        self.gain, self.noise = gain, noise

    def init(self, window: Window) -> None:
        return None

    def step(self, carry: None, view: View, rng: torch.Generator | None) -> tuple[None, Tensor]:
        act = self.gain * (view.desired - view.obs)
        return None, act if rng is None else act + self.noise * torch.randn(act.shape, generator=rng)


class Bends:
    """A kernel of random weights that moves three numbers, and counts its steps in a fourth."""

    def __init__(self, world: StackedMLP) -> None:
        self.world = world

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> None:
        return None

    def step(self, carry: None, view: View, act: Tensor, rng: torch.Generator) -> tuple[None, Outcome]:
        moved = self.world(torch.cat([view.obs[:, :3], act], 1))[0]
        obs = view.obs + torch.cat([moved, torch.ones(len(act), 1)], 1)
        never = torch.zeros(len(act), 1, dtype=torch.bool)
        return None, Outcome(after=replace(view, obs=obs, achieved=obs), reward=never.float(), terminated=never)


class Follows:
    """A policy of random weights that reads its goal."""

    def __init__(self, policy: StackedMLP) -> None:
        self.policy = policy

    def init(self, window: Window) -> None:
        return None

    def step(self, carry: None, view: View, rng: torch.Generator | None) -> tuple[None, Tensor]:
        return None, self.policy(torch.cat([view.obs[:, :3], view.desired[:, :3]], 1))[0].tanh()


SPACE = GameSpec(
    name="space", agents=(box_agent("a", range(4), 2, range(4)),), obs_dim=4, goal_dim=4, achieved=(0, 1, 2, 3)
)


def networks(seed: int) -> tuple[StackedMLP, StackedMLP]:
    """The weights of a world and of a policy in it."""
    rng = generator(seed)
    world, policy = (StackedMLP(1, width, (16,), out, rng, init="preserving") for width, out in ((5, 3), (6, 2)))
    return world.requires_grad_(False), policy.requires_grad_(False)


def spec_of(agents: int = 1, terminates: bool = False) -> GameSpec:
    every = tuple(range(agents))
    return GameSpec(
        name="line", agents=tuple(box_agent(f"a{i}", (i,), 1, (i,)) for i in every), obs_dim=agents, goal_dim=agents,
        achieved=every, terminates=terminates,
    )  # fmt: skip


def replay_of(spec: GameSpec, seed: int = 0) -> EpisodicReplay:
    """Episodes of random places, so that every outcome is another."""
    rng, replay = generator(seed), EpisodicReplay(spec, ROWS, 1)
    place = torch.randn(ROWS + 1, spec.obs_dim, generator=rng)
    step = torch.arange(ROWS) % LENGTH
    desired = torch.randn(2, spec.goal_dim, generator=rng).repeat_interleave(LENGTH, 0)
    view, after = (View.of(spec, at, desired=desired) for at in (place[:-1], place[1:]))
    never = torch.zeros(ROWS, spec.n, dtype=torch.bool)
    replay.extend(
        Rows.of(
            spec, view, torch.zeros(ROWS, spec.act_dim), -torch.ones(ROWS, spec.n), after, never, step == LENGTH - 1,
            step,
        )
    )  # fmt: skip
    return replay


def relabelled(
    config: ForesightConfig, index: Tensor | None = None, *, agents: int = 1, seed: int = 0, kernel: Any = None,
    actor: Any = None, rule: Near | None = None, terminates: bool = False, **options: Any,
) -> tuple[Foresight, Rows, Rows]:  # fmt: skip
    """Stored rows, and the same under foreseen goals."""
    spec = spec_of(agents, terminates)
    replay = replay_of(spec)
    index = torch.arange(ROWS) if index is None else index
    rows = replay.rows(index)
    foresight = Foresight(spec, rule or Near(), kernel or Moves(), actor or Approaches(), config, **options)
    return foresight, rows, foresight(replay, index, rows, generator(seed))


@pytest.mark.parametrize("steps", range(1, 11))
def test_goals_of_a_linear_world_have_a_closed_form(steps: int) -> None:
    config = ForesightConfig(length=steps, steps="uniform", pursued="kept", greedy=True)
    seen = set()
    for seed in range(30):
        _, rows, found = relabelled(config, seed=seed)
        apart = (found.desired - rows.desired) / (rows.next_obs - rows.desired)
        power = (apart.log() / torch.tensor(0.5).log()).round()
        assert torch.allclose(found.desired, rows.desired + 0.5**power * (rows.next_obs - rows.desired), atol=1e-6)
        seen |= set(power.flatten().tolist())
    assert seen == set(range(1, steps + 1))


@pytest.mark.parametrize("seed", range(3))
def test_every_row_gets_the_goal_of_its_own_number_of_steps(seed: int) -> None:
    (world, policy), replay, index = networks(seed), replay_of(SPACE, seed), torch.arange(ROWS)
    config = ForesightConfig(length=6, steps="uniform", shortest=0, pursued="kept", greedy=True)
    foresight = Foresight(SPACE, DistanceRule(threshold=0.1), Bends(world), Follows(policy), config)
    rows = replay.rows(index)
    goals = foresight(replay, index, rows, generator(seed)).desired
    steps = (goals - rows.next_obs)[:, 3].round().long()
    assert set(steps.tolist()) == set(range(7))
    for row, many in enumerate(steps.tolist()):
        place = rows.next_obs[row]
        for _ in range(many):
            act = policy(torch.cat([place[:3], rows.desired[row, :3]])[None])[0, 0].tanh()
            moved = world(torch.cat([place[:3], act])[None])[0, 0]
            assert float(moved.norm()) > 1e-3  # so that one step more or less shows
            place = place + torch.cat([moved, torch.ones(1)])
        torch.testing.assert_close(goals[row], place, atol=1e-5, rtol=0)


def test_the_own_outcome_is_a_goal_where_no_step_is_asked_for() -> None:
    config = ForesightConfig(length=0, steps="uniform", shortest=0)
    _, rows, found = relabelled(config)
    assert torch.equal(found.desired, rows.next_achieved)
    assert (found.reward == 0).all()


def test_no_length_is_hindsight() -> None:
    size = 20_000
    index = torch.full((size,), 12)
    _, rows, found = relabelled(ForesightConfig(length=0), index)
    spec = spec_of()
    replay = replay_of(spec)
    theirs = Hindsight(spec, Near(), Shares(keep=0.0))(replay, index, rows, generator(1))
    (values, ours), (same, others) = (torch.unique(x.desired, return_counts=True) for x in (found, theirs))
    assert torch.equal(values, same)
    assert chisquare(ours, others).pvalue > 1e-3


@pytest.mark.parametrize(("step", "shortest"), [(0, 1), (0, 0), (15, 1), (15, 0)])
def test_as_many_goals_are_foreseen_as_later_rows_are_near(step: int, shortest: int) -> None:
    size, ahead = 20_000, LENGTH - step
    foresight, _, _ = relabelled(ForesightConfig(length=8, shortest=shortest), torch.full((size,), step))
    expected = min(8 + 1 - shortest, ahead) / ahead
    assert float(foresight.metrics["goal/foreseen_share"]) == pytest.approx(expected, abs=0.012)


def test_rewards_follow_the_goals_and_nothing_else_changes() -> None:
    foresight, rows, found = relabelled(ForesightConfig(length=5, shortest=0), rule=Near(ends=True), terminates=True)
    reached = (found.next_achieved - found.desired).abs() < 0.1
    assert torch.equal(found.reward, reached.float() - 1)
    assert torch.equal(found.terminated, reached)
    assert_same_rows(found.with_(desired=rows.desired, reward=rows.reward, terminated=rows.terminated), rows)
    assert 0 < float(foresight.metrics["goal/reached_share"]) == float(reached.double().mean())


def test_goals_follow_the_present_policy_and_hindsight_does_not() -> None:
    (world, policy), replay, index = networks(0), replay_of(SPACE), torch.arange(ROWS)
    rows, rule, config = replay.rows(index), DistanceRule(threshold=0.1), ForesightConfig(length=5, steps="uniform")
    foresight, hindsight = Foresight(SPACE, rule, Bends(world), Follows(policy), config), Hindsight(SPACE, rule)

    def goals() -> tuple[Tensor, Tensor]:
        later = hindsight(replay, index, rows, generator(0))
        return foresight(replay, index, rows, generator(0)).desired, later.desired

    (foreseen, later), weights = goals(), [weight.clone() for weight in policy.parameters()]
    for weight in policy.parameters():
        weight.mul_(-1.0)
    assert not (foreseen == goals()[0]).all(1).any()
    assert torch.equal(goals()[1], later)
    for weight, before in zip(policy.parameters(), weights, strict=True):
        weight.copy_(before)
    assert torch.equal(goals()[0], foreseen)
    assert not torch.equal(later, rows.desired)


def test_exploration_is_drawn_row_by_row() -> None:
    config = ForesightConfig(length=1, steps="uniform")
    _, _, found = relabelled(config, torch.full((50,), 3), actor=Approaches(0.0, noise=1.0))
    assert len(set(found.desired.flatten().tolist())) == 50


def test_a_branch_stays_where_its_episode_ends() -> None:
    config = ForesightConfig(length=6, steps="uniform", greedy=True)
    kernel = Moves(bent=0.9, ends_at=1.0)
    _, rows, found = relabelled(config, kernel=kernel, actor=Approaches(0.0), terminates=True)
    place, alive, places = rows.next_obs, torch.ones(ROWS, 1, dtype=torch.bool), []
    for _ in range(6):
        place = torch.where(alive, place + 0.9 * place.sin(), place)
        alive &= place.abs() <= 1.0
        places.append(place)
    distance = (torch.stack(places) - found.desired).abs()
    assert float(distance.min(0).values.max()) < 1e-6
    assert float((torch.stack(places)[0] - found.desired).abs().max()) > 0.1


def test_goals_out_of_bounds_give_way_to_hindsight() -> None:
    config = ForesightConfig(length=3, steps="uniform", low=(-0.5,), high=(0.5,), greedy=True)
    foresight, _, found = relabelled(config, actor=Approaches(-1.0))
    outcomes = {round(x, 5) for x in replay_of(spec_of()).rows(torch.arange(ROWS)).next_achieved.flatten().tolist()}
    outside = found.desired.abs() > 0.5
    assert {round(x, 5) for x in found.desired[outside].tolist()} <= outcomes
    assert 0 < float(foresight.metrics["goal/foreseen_share"]) < 1


def test_doubted_steps_end_a_branch() -> None:
    def doubt(view: View, act: Tensor) -> Tensor:
        return view.obs[:, 0].abs()

    config = ForesightConfig(length=4, steps="uniform", shortest=1, pursued="kept", greedy=True, trusted=0.5)
    _, rows, found = relabelled(config, doubt=doubt)
    most = rows.next_obs[:, 0].abs().quantile(0.5)
    stays = rows.next_obs[:, 0].abs() > most
    assert torch.equal(found.desired[stays], rows.next_achieved[stays])
    assert not torch.isclose(found.desired[~stays], rows.next_achieved[~stays]).any()


def test_agents_have_goals_of_their_own_from_one_rollout() -> None:
    config = ForesightConfig(length=4, steps="uniform", pursued="kept", greedy=True, keep=0.25)
    _, rows, found = relabelled(config, agents=3)
    kept = found.desired == rows.desired
    assert kept.sum(0).tolist() == [ROWS // 4] * 3
    apart = ((found.desired - rows.desired) / (rows.next_obs - rows.desired)).log() / torch.tensor(0.5).log()
    power = apart.round()
    assert torch.allclose(apart[~kept], power[~kept], atol=1e-3)
    both = ~kept[:, 0] & ~kept[:, 1]
    assert (power[both, 0] != power[both, 1]).any()


def test_a_learned_ensemble_is_imagined_in() -> None:
    spec = spec_of(2)
    ensemble = DynamicsEnsemble(spec, EnsembleConfig(members=3, elites=2, hidden=(16,)), generator(0))
    kernel: Callable[..., Any] = EnsembleKernel(ensemble)  # type: ignore[assignment]
    _, rows, found = relabelled(ForesightConfig(length=3), agents=2, kernel=kernel)
    assert found.desired.isfinite().all()
    assert not torch.equal(found.desired, rows.desired)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length": -1}, "length=-1 must be >= 0"),
        ({"shortest": 2}, "shortest=2 must be 0 or 1"),
        ({"steps": "all"}, "steps='all' must be one of"),
        ({"pursued": "past"}, "pursued='past' must be one of"),
        ({"steps": "uniform", "length": 0}, "needs length=0 >= shortest=1"),
        ({"keep": 1.5}, r"keep=1\.5 must lie in"),
        ({"trusted": 1.0}, r"trusted=1\.0 must lie in"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ForesightConfig(**wrong)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="needs to know how far the model is off"):
        Foresight(spec_of(), Near(), Moves(), Approaches(), ForesightConfig(trusted=0.9))
    with pytest.raises(GameError, match=r"low=\(0\.0, 0\.0\) must have one number for each of the 1 entries"):
        Foresight(spec_of(), Near(), Moves(), Approaches(), ForesightConfig(low=(0.0, 0.0)))
