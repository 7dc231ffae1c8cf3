"""Online models of others' policies against closed forms, against policies that are known, and on what they may see."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import GameError, GameSpec, View
from presage.common.ledger import Ledger
from presage.common.rollout import Answerers, branch_rollouts
from presage.envs.batched import BatchedGame, RulesKernel
from presage.envs.toy import TwoQuadratics
from presage.marl.opponents.assessment import assess
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.policies import Stated, linear, uniform
from presage.marl.opponents.policy_inference import PolicyInference, PolicyInferenceConfig
from presage.marl.opponents.record import Record
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.sample_games import motley, random_rows, random_view, stack

DICE = GameSpec(name="dice", agents=(discrete_agent("me", (0,), 2), discrete_agent("dice", (1,), 3)), obs_dim=2)
"""what is seen is a 1, so that a model without hidden layers is a table"""
COINS = replace(DICE, agents=(DICE.agents[0], discrete_agent("coin", (1,), 2)))


def models(spec: GameSpec, seed: int = 0, egos: Any = None, **config: Any) -> PolicyInference:
    numbers: dict[str, Any] = {"hidden": (16,), **config}
    return PolicyInference(spec, PolicyInferenceConfig(**numbers), generator(seed), egos=egos)


def tabular(spec: GameSpec, bonus: float, rate: float = 0.05) -> PolicyInference:
    table = models(spec, egos=(0,), hidden=(), entropy_bonus=bonus, learning_rate=rate, gradient_clip=None)
    return table.double()


def counted(*counts: int) -> tuple[Tensor, Tensor]:
    """What was seen, and as often as that each of the other's actions; I always do the same."""
    other = torch.eye(len(counts), dtype=torch.float64).repeat_interleave(torch.tensor(counts), 0)
    mine = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(len(other), -1)
    return torch.ones(len(other), 2, dtype=torch.float64), torch.cat([mine, other], 1)


def chances(bank: PolicyInference) -> list[float]:
    """Of the other's actions."""
    found = bank.predicted(torch.ones(1, 2, dtype=torch.float64)).probabilities(1)[0]
    return found[0].tolist()


# ---------------------------------------------------------------- Eq. 7


@pytest.mark.parametrize(
    ("bonus", "expected"),
    [
        (0.0, (0.7, 0.2, 0.1)),
        (1e-3, (0.699689, 0.200161, 0.100150)),
        (0.1, (0.67004, 0.21483, 0.11513)),
        (1.0, (0.51446, 0.27389, 0.21165)),
    ],
)
def test_a_table_recovers_counts_but_for_the_bias_of_the_bonus(bonus: float, expected: tuple[float, ...]) -> None:
    bank = tabular(DICE, bonus)
    for _ in range(300):
        bank.learn(*counted(7, 2, 1))
    assert chances(bank) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("bonus", "expected"), [(0.1, 0.878904), (1.0, 0.713488)])
def test_the_bonus_makes_a_biased_coin_fairer(bonus: float, expected: float) -> None:
    bank = tabular(COINS, bonus)
    for _ in range(300):
        bank.learn(*counted(9, 1))
    assert chances(bank)[0] == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=3), st.lists(st.floats(-3, 3), min_size=3, max_size=3),
       st.floats(0, 2))  # fmt: skip
def test_the_gradient_is_that_of_eq_7(counts: list[int], logits: list[float], bonus: float) -> None:
    bank = tabular(DICE, bonus)
    place = 1  # of the other's table: groups are in order of first appearance
    weight, bias = stack(bank.networks, place).weights()[0]
    with torch.no_grad():
        weight.zero_()
        bias[0, 0] = torch.tensor(logits, dtype=torch.float64)
    found = bank.learn(*counted(*counts))
    p = [count / sum(counts) for count in counts]
    z = [math.exp(logit) for logit in logits]
    q = [x / sum(z) for x in z]
    entropy = -sum(x * math.log(x) for x in q)
    assert float(found.nll[0, 1]) == pytest.approx(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    assert float(found.entropy[0, 1]) == pytest.approx(entropy)
    assert bias.grad is not None
    expected = [b - a + bonus * b * (math.log(b) + entropy) for a, b in zip(p, q, strict=True)]
    assert bias.grad[0, 0].tolist() == pytest.approx(expected, abs=1e-12)


def test_of_an_opponent_that_always_does_the_same_a_model_becomes_sure_whatever_the_bonus() -> None:
    found = []
    for bonus in (0.0, 1e-3, 0.1):
        bank = tabular(COINS, bonus)
        told = [float(bank.learn(*counted(1, 0)).entropy[0, 1]) for _ in range(300)]
        assert told[-1] < 0.05 < told[0]
        found.append(told[-1])
    assert 0 < found[0] < found[1] < found[2]


def test_it_is_as_sure_as_one_over_lambda_allows() -> None:
    """Where the slope of Eq. 7 vanishes, logits are `1 / (lambda q)` apart: at the paper's lambda 1000."""
    bonus, apart = 0.1, 10.0
    for _ in range(20):
        apart = (1 + math.exp(-apart)) / bonus
    slopes = []
    for logit in (apart - 0.5, apart, apart + 0.5):
        bank = tabular(COINS, bonus)
        weight, bias = stack(bank.networks, 0).weights()[0]  # of both agents: they are alike
        with torch.no_grad():
            weight.zero_()
            bias[1, 0] = torch.tensor([logit, 0.0], dtype=torch.float64)
        bank.learn(*counted(1, 0))
        assert bias.grad is not None
        slopes.append(float(bias.grad[1, 0, 0]))
    assert slopes[0] < -1e-8
    assert slopes[1] == pytest.approx(0, abs=1e-12)
    assert slopes[2] > 1e-8


# ---------------------------------------------------------------- opponents whose policies are known


TRIO = GameSpec(
    name="trio", obs_dim=4,
    agents=(discrete_agent("a", (0, 1), 3), discrete_agent("b", (1, 2, 3), 4), discrete_agent("c", (3,), 2, 2)),
)  # fmt: skip


def recorded(spec: GameSpec, actor: Stated, size: int, seed: int) -> Record:
    record = Record(spec)
    view = View.of(spec, torch.randn(size, spec.obs_dim, generator=generator(seed)))
    act = actor.step(None, view, generator(seed + 1))[1]
    record.extend_moments(Moments(view=view, act=act), [size])
    return record


@pytest.mark.parametrize("bonus", [0.0, 1e-3])
def test_frozen_policies_are_recovered_from_their_newest_actions(bonus: float) -> None:
    others, rng = linear(TRIO, generator(3)), generator(0)
    bank = models(TRIO, hidden=(32, 32), entropy_bonus=bonus, learning_rate=2e-3, egos=(0, 2))
    for _ in range(400):
        view = View.of(TRIO, torch.randn(128, TRIO.obs_dim, generator=rng))
        bank.learn(view.obs, others.step(None, view, rng)[1])
    judged = assess(bank, recorded(TRIO, others, 4_000, 7), truth=others.predicted)
    assert {(quality.ego, quality.agent) for quality in judged.qualities} == {
        ("a", "b"), ("a", "c"), ("c", "a"), ("c", "b")
    }  # fmt: skip
    assert judged.worst_divergence < 0.01
    before = assess(models(TRIO), recorded(TRIO, others, 4_000, 7), truth=others.predicted)
    assert before.worst_divergence > 0.1


def test_noisy_numbers_are_recovered_with_their_noise() -> None:
    spec = GameSpec(name="two", agents=(box_agent("a", (0, 1), 2), box_agent("b", (1,), 1)), obs_dim=2)
    others, rng = linear(spec, generator(3), deviation=0.4), generator(0)
    bank = models(spec, learning_rate=5e-3, gradient_clip=None)
    for _ in range(500):
        view = View.of(spec, torch.randn(128, 2, generator=rng))
        bank.learn(view, others.step(None, view, rng)[1], rng)
    judged = assess(bank, recorded(spec, others, 2_000, 7), truth=others.predicted)
    assert judged.worst_divergence < 0.02


def test_models_follow_policies_that_change() -> None:
    first, second, rng = linear(TRIO, generator(3)), linear(TRIO, generator(4)), generator(0)
    bank, found = models(TRIO, learning_rate=5e-3), []
    for others in (first, second):
        for _ in range(250):
            view = View.of(TRIO, torch.randn(128, TRIO.obs_dim, generator=rng))
            bank.learn(view, others.step(None, view, rng)[1])
        record = recorded(TRIO, second, 2_000, 7)
        found.append(assess(bank, record, truth=second.predicted).worst_divergence)
    assert found[0] > 0.5
    assert found[1] < 0.05


# ---------------------------------------------------------------- answers


def test_a_model_reads_what_its_agent_observes_and_nothing_else() -> None:
    spec = motley()
    bank = models(spec)
    view = random_view(spec, 5, generator(0))
    several = view[torch.arange(5).repeat(spec.n)]
    for column in range(spec.obs_dim):
        hidden = several.obs.clone()
        hidden[:, column] = torch.nan
        told = bank.predicted(replace(several, obs=hidden))
        for agent, who in enumerate(spec.agents):
            numbers = told.probabilities(agent)[0] if who.discrete else told.parts[1].parameters
            assert bool(numbers.isnan().all()) == (column in who.obs)
            assert bool(numbers.isnan().any()) == (column in who.obs)
    hidden = view.obs.clone()
    hidden[:, 5] = torch.nan  # driver and guard observe it, scout and speaker do not
    act, twin = spec.random_action(view.acting, view.legal, generator(1)), models(spec)
    bank.learn(view, act, generator(2))
    twin.learn(replace(view, obs=hidden), act, generator(2))
    for k, group in enumerate(bank.groups):
        for p, agent in enumerate(group.agents):
            for ego in range(spec.n):
                one, two = (stack(each.networks, k).member(ego * len(group.agents) + p) for each in (bank, twin))
                alike = all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
                assert alike == (agent in (0, 3))


def test_every_ego_asks_its_own_model_of_every_agent() -> None:
    spec = motley()
    bank = models(spec, egos=("guard", "scout")).double()
    assert bank.ego == (2, 0)
    rows = random_rows(spec, 2 * 6, seed=1, dtype=torch.float64)
    found = bank.log_prob(rows.view, rows.act)
    assert found.shape == (12, 4)
    modes = bank.step(bank.init(None), rows.view, None)[1]  # type: ignore[arg-type]
    spec.check_action(modes, rows.acting)
    spec.check_action(bank.step(None, rows.view, generator(0))[1], rows.acting)
    for k, group in enumerate(bank.groups):
        for ego in range(2):
            for p, agent in enumerate(group.agents):
                mine = slice(6 * ego, 6 * ego + 6)
                network = stack(bank.networks, k).member(ego * len(group.agents) + p)
                numbers = network(rows.obs[mine, list(spec.obs[agent])])
                told = bank.predicted(rows.view)[mine].parts[k].parameters[p, :, 0]
                torch.testing.assert_close(told, numbers)


def test_vectors_of_probabilities_are_those_of_the_distributions() -> None:
    spec = motley()
    bank = models(spec)
    view = random_view(spec, 8 * spec.n, generator(0))
    told, vector = bank.predicted(view), bank.joint(view)
    for agent, who in enumerate(spec.agents):
        expected = torch.cat(told.probabilities(agent), 1) if who.discrete else told.mode()[:, spec.act[agent]]
        torch.testing.assert_close(vector[:, spec.act[agent]], expected * view.acting[:, [agent]])
    discrete = [k for i, agent in enumerate(spec.agents) if agent.discrete for k in range(*spec.act[i].indices(99))]
    assert not bool((vector[:, discrete] > 0)[~view.legal[:, discrete]].any())
    one = View.of(spec, torch.randn(1, spec.obs_dim, generator=generator(1)))[torch.zeros(8_000, dtype=torch.int64)]
    drawn = bank.joint(one, rng=generator(2))
    spec.check_action(drawn)
    for ego in range(spec.n):
        mine = slice(2_000 * ego, 2_000 * ego + 2_000)
        torch.testing.assert_close(drawn[mine].mean(0), bank.joint(one)[2_000 * ego], rtol=0, atol=0.05)


def test_bare_observations_are_those_of_a_game_where_everybody_acts() -> None:
    rng = generator(0)
    obs = torch.randn(6, 4, generator=rng)
    act = uniform(TRIO).step(None, View.of(TRIO, obs), rng)[1]
    one, two = models(TRIO), models(TRIO)
    one.learn(obs, act)
    two.learn(View.of(TRIO, obs), act)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(one.joint(obs), two.joint(View.of(TRIO, obs)))
    with pytest.raises(GameError, match="7 rows cannot be shared evenly by 3 egos"):
        one.joint(torch.zeros(7, 4))


def test_rows_in_which_an_agent_idles_are_ignored() -> None:
    spec = motley()
    rows = random_rows(spec, 40, seed=0)
    widths = torch.tensor([agent.width for agent in spec.agents])
    idle = (~rows.acting).repeat_interleave(widths, 1)
    other = spec.random_action(torch.ones_like(rows.acting), rows.legal, generator(9))
    banks = [models(spec), models(spec)]
    for bank, act in zip(banks, (rows.act, torch.where(idle, other, rows.act)), strict=True):
        bank.learn(rows.view, act, generator(1))
    assert all(torch.equal(a, b) for a, b in zip(*(bank.parameters() for bank in banks), strict=True))
    never = rows.acting.clone()
    never[:, 1] = False
    found = banks[0].learn(replace(rows.view, acting=never), rows.act, generator(1))
    assert found.nll.isnan().tolist() == found.entropy.isnan().tolist() == [[False, True, False, False]] * 4


def test_targets_come_nearer_by_their_share_and_answer_when_asked() -> None:
    bank, rng = models(TRIO).double(), generator(0)
    obs = torch.randn(30, 4, generator=rng, dtype=torch.float64)
    act = uniform(TRIO).step(None, View.of(TRIO, obs), rng)[1].double()
    assert torch.equal(bank.joint(obs), bank.joint(obs, old=True))
    before = [parameter.clone() for parameter in bank.networks_old.parameters()]
    bank.learn(obs, act)
    assert torch.equal(bank.joint(obs, old=True), models(TRIO).double().joint(obs))
    assert not torch.equal(bank.joint(obs), bank.joint(obs, old=True))
    bank.move_targets(0.25)
    for was, now, leader in zip(before, bank.networks_old.parameters(), bank.networks.parameters(), strict=True):
        torch.testing.assert_close(now, was + 0.25 * (leader - was))


def test_it_answers_for_others_in_imagination() -> None:
    rules = TwoQuadratics(episode_limit=5)
    bank, kept = models(rules.spec, hidden=()), []
    weight, bias = stack(bank.networks, 0).weights()[0]
    with torch.no_grad():
        weight.zero_()
        bias[:, 0] = torch.tensor([2.0, -20.0])  # tanh 2 but for very little
    branch_rollouts(
        rules.spec, RulesKernel(rules), Answerers(policy=uniform(rules.spec), models=bank),
        first_window(rules.spec, BatchedGame(rules, 6).reset(0)), torch.tensor([0, 0, 0, 1, 1, 1]),
        torch.tensor([[[0, 0], [1, 1]], [[1, 1], [0, 0]]], dtype=torch.int8), generator(2),
        lambda rows, branch: kept.append(rows), Ledger(2),
    )  # fmt: skip
    for rows in kept:
        others = torch.where(rows.ego[:, None] == torch.arange(2), torch.nan, rows.act)
        torch.testing.assert_close(others.nansum(1), torch.full((6,), 2.0).tanh(), rtol=0, atol=1e-4)


# ---------------------------------------------------------------- repeatability, refusals


def test_the_same_seed_learns_alike_and_what_is_saved_goes_on() -> None:
    spec = motley()

    def taught(bank: PolicyInference, steps: range) -> PolicyInference:
        for step in steps:
            rows = random_rows(spec, 30, seed=step)
            bank.learn(rows.view, rows.act, generator(step))
            bank.move_targets(0.1)
        return bank

    def same(one: PolicyInference, two: PolicyInference) -> bool:
        return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))

    whole, again, other = taught(models(spec), range(3)), taught(models(spec), range(3)), models(spec, seed=9)
    assert same(whole, again)
    assert not same(whole, other)
    other.restore(whole.state())
    assert same(taught(whole, range(3, 6)), taught(other, range(3, 6)))
    assert other.updates == 6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PolicyInferenceConfig(learning_rate=0), "learning_rate=0 must be > 0"),
        (lambda: PolicyInferenceConfig(entropy_bonus=-1), "entropy_bonus=-1 >= 0"),
        (lambda: PolicyInferenceConfig(gradient_clip=0), "gradient_clip=0 must be > 0, or None"),
        (lambda: PolicyInferenceConfig(window=0), "window=0 must be >= 1"),
    ],
)
def test_contradictions_are_named(build: Callable[[], PolicyInferenceConfig], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_what_does_not_suit_is_refused() -> None:
    alone = replace(DICE, agents=DICE.agents[:1])
    with pytest.raises(GameError, match="'dice' has 1, play one of more"):
        models(alone)
    with pytest.raises(GameError, match="no agent 'you'"):
        models(DICE, egos=("you",))
    rows = random_rows(motley(), 6, seed=0)
    with pytest.raises(GameError, match=r"entropy_bonus=0\.001 of box actions is estimated by draws; pass rng"):
        models(motley()).learn(rows.view, rows.act)
    assert models(motley(), entropy_bonus=0.0).learn(rows.view, rows.act).entropy[0].isnan().tolist() == [
        False, True, False, False
    ]  # fmt: skip
