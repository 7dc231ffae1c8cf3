"""tianshou's SAC as it is built here: seeded, with the settings it was given, and with an actor that is its policy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tianshou.algorithm.modelfree.sac import SAC, AutoAlpha
from tianshou.data import Batch, ReplayBuffer
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor
from torch.distributions import Normal

from presage.common.game import GameError, GameSpec, Rows, View
from presage.common.learner_state import learner_state, restore_learner
from presage.common.one_batch import OneBatch
from presage.common.sac import LeanSAC, SACConfig, build_sac
from tests.common.plain_sac import plain_sac
from tests.common.toy import PLAIN, box_agent, discrete_agent, generator, random_rows, window_at

ONE = GameSpec(name="one", agents=(box_agent("a", (0, 1, 2), 2),), obs_dim=3)
CHOOSER = GameSpec(name="chooser", agents=(discrete_agent("a", (0, 1, 2), 4),), obs_dim=3)
CONFIG = SACConfig(hidden=(16, 8), learning_rate=2e-3, discount=0.9, target_rate=0.02)


def weights(seed: int) -> list[Tensor]:
    return [value.detach().clone() for value in build_sac(ONE, CONFIG, generator(seed))[0].parameters()]


def test_the_generator_decides_the_weights_and_the_global_one_plays_no_part() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = weights(0), weights(1)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert any(not torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_the_twin_critics_start_apart_and_their_targets_as_they_are() -> None:
    learner, _ = build_sac(ONE, CONFIG, generator(0))
    twins = list(zip(learner.critic.parameters(), learner.critic2.parameters(), strict=True))
    assert all(not torch.equal(one, two) for one, two in twins)
    for critic, old in ((learner.critic, learner.critic_old), (learner.critic2, learner.critic2_old)):
        assert all(torch.equal(one, two) for one, two in zip(critic.parameters(), old.parameters(), strict=True))


def test_the_numbers_arrive_where_they_belong() -> None:
    learner, _ = build_sac(ONE, CONFIG, generator(0))
    assert (learner.gamma, learner.tau, learner.n_step_return_horizon) == (0.9, 0.02, 1)
    for wrapper in (learner.policy_optim, learner.critic_optim, learner.critic2_optim):
        assert [group["lr"] for group in wrapper._optim.param_groups] == [2e-3]
    assert isinstance(learner.alpha, AutoAlpha)
    assert learner.alpha._target_entropy == -2.0
    assert learner.alpha.value == 1.0
    shapes = [tuple(value.shape) for name, value in learner.policy.named_parameters() if name.endswith("weight")]
    assert shapes == [(1, 3, 16), (1, 16, 8), (1, 8, 4)]


def test_a_given_temperature_stays_and_a_given_entropy_target_is_used() -> None:
    fixed, _ = build_sac(ONE, SACConfig(hidden=(8,), temperature=1), generator(0))
    assert not isinstance(fixed.alpha, AutoAlpha)
    assert fixed.alpha.value == 1.0
    aimed, _ = build_sac(ONE, SACConfig(hidden=(8,), target_entropy=-0.5), generator(0))
    assert isinstance(aimed.alpha, AutoAlpha)
    assert aimed.alpha._target_entropy == -0.5


def test_the_actor_is_tianshous_policy() -> None:
    learner, actor = build_sac(ONE, CONFIG, generator(0))
    obs = torch.randn(50, 3, generator=generator(1))
    view = View.of(ONE, obs)
    assert actor.init(window_at(view, 2)) is None
    batch = Batch(obs=obs, info=Batch())
    assert torch.equal(actor.step(None, view, None)[1], learner.policy(batch).act)

    torch.manual_seed(3)
    with policy_within_training_step(learner.policy):
        sampled = learner.policy(batch)
    mean, sigma = sampled.logits
    noise = torch.empty_like(mean).normal_(generator=generator(4))
    torch.testing.assert_close(actor.step(None, view, generator(4))[1], (mean + sigma * noise).tanh())


def test_the_actors_samples_follow_the_policys_distribution() -> None:
    learner, actor = build_sac(ONE, CONFIG, generator(0))
    obs = torch.tensor([[0.4, -2.0, 1.0]])
    mean, sigma = learner.policy(Batch(obs=obs, info=Batch())).logits
    _, act = actor.step(None, View.of(ONE, obs.expand(40_000, -1)), generator(5))
    for k in range(2):
        normal: Any = Normal(mean[0, k].detach(), sigma[0, k].detach())
        for at in (-0.6, 0.0, 0.5):
            wanted = float(normal.cdf(torch.tensor(at).atanh()))
            assert float((act[:, k] < at).double().mean()) == pytest.approx(wanted, abs=0.013)
    assert not act.requires_grad


@pytest.mark.parametrize("spec", [PLAIN, CHOOSER], ids=["two agents", "discrete"])
def test_games_that_it_cannot_play_are_refused(spec: GameSpec) -> None:
    with pytest.raises(GameError, match="one agent with box actions"):
        build_sac(spec, CONFIG, generator(0))


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0.0}, {"discount": 1.5}, {"target_rate": 0.0}, {"temperature": -0.1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        SACConfig(**wrong)  # type: ignore[arg-type] # one of the floats


def test_actions_lie_in_the_box_however_far_the_policy_goes() -> None:
    learner, actor = build_sac(ONE, CONFIG, generator(0))
    with torch.no_grad():
        for value in learner.policy.parameters():
            value.mul_(100)
    _, act = actor.step(None, View.of(ONE, torch.randn(64, 3, generator=generator(6))), generator(7))
    ONE.check_action(act)
    assert float(act.abs().max()) == pytest.approx(1.0)


# ---------------------------------------------------------------- the shortest way


ENDING = GameSpec(name="ending", agents=(box_agent("a", (0, 1, 2), 2),), obs_dim=3, terminates=True)


def improve(learner: SAC[Any], rows: Rows) -> Any:
    with policy_within_training_step(learner.policy):
        return learner.update(OneBatch(rows), 0)


def doubled(rows: Rows) -> Rows:
    floats = {name: value.double() for name, value in vars(rows).items() if value.dtype == torch.float32}
    return rows.with_(**floats)


def test_the_shortest_way_equals_tianshous_in_double_precision() -> None:
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        theirs = plain_sac(SAC, ENDING, CONFIG, 0.5, target_entropy=-2.0)
        torch.manual_seed(0)
        ours = plain_sac(LeanSAC, ENDING, CONFIG, 0.5, target_entropy=-2.0)
    finally:
        torch.set_default_dtype(previous)
    said = []
    for learner in (theirs, ours):
        torch.manual_seed(7)
        said.append([improve(learner, doubled(random_rows(ENDING, 32, generator(step)))) for step in range(100)])
    for (name, one), (_, two) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-9, msg=name)
    for one, two in zip(*said, strict=True):
        for figure in ("actor_loss", "critic1_loss", "critic2_loss", "alpha", "alpha_loss"):
            assert getattr(one, figure) == pytest.approx(getattr(two, figure), abs=1e-9), figure


def test_other_buffers_and_updates_outside_training_take_tianshous_way(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, _ = build_sac(ENDING, CONFIG, generator(0))
    monkeypatch.setattr(learner, "_update_with_rows", lambda rows: pytest.fail("the shortest way"))
    rows = random_rows(ENDING, 8, generator(1))
    with pytest.raises(RuntimeError, match="outside of a training step"):
        learner.update(OneBatch(rows), 0)
    columns = {"obs": rows.obs, "act": rows.act, "rew": rows.reward[:, 0], "terminated": rows.terminated[:, 0]}
    buffer = ReplayBuffer(8)
    for k in range(8):
        row = {name: value[k].numpy() for name, value in columns.items()}
        buffer.add(Batch(row, truncated=False, obs_next=rows.next_obs[k].numpy(), info={}))
    with policy_within_training_step(learner.policy):
        learner.update(buffer, 4)


def test_it_goes_on_from_its_state_to_the_bit() -> None:
    batches = [random_rows(ENDING, 16, generator(step)) for step in range(6)]
    one, _ = build_sac(ENDING, CONFIG, generator(0))
    two, _ = build_sac(ENDING, CONFIG, generator(1))
    torch.manual_seed(3)
    for rows in batches[:3]:
        improve(one, rows)
    restore_learner(two, learner_state(one))
    for learner in (one, two):
        torch.manual_seed(4)
        for rows in batches[3:]:
            improve(learner, rows)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
