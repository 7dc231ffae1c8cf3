"""ROMMEO-Q's tables against plain loops, its fixed point against value iteration, and the climbing game."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tianshou.data import Batch
from torch import Tensor

from presage.common.dyna import DynaConfig
from presage.common.game import GameError, GameSpec, Rows, View
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from presage.envs.batched import BatchedGame, Rules
from presage.envs.toy import MatrixGame, TabularGame, climb, low_rank, penalty, two_state_pennies
from presage.marl.opponents.annealing import Annealing
from presage.marl.opponents.rommeo import opponent_model, soft_value
from presage.marl.opponents.rommeo_q import ROMMEOQ, Belief, ROMMEOQConfig
from tests.common.tiny_runs import LOOP, assert_resumes, improve, played, scenario
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.sample_games import boxes, motley, one_step_rows

CPU = torch.device("cpu")
TINY = ROMMEOQConfig(loop=replace(LOOP, real_share=1.0))
UNEVEN = GameSpec(
    name="uneven", agents=(discrete_agent("a", (0, 1), 2), discrete_agent("b", (0, 1), 3),
                           discrete_agent("c", (0, 1), 2, 2)), obs_dim=2, terminates=True,
)  # fmt: skip


def learner_of(spec: GameSpec, **config: Any) -> ROMMEOQ:
    return ROMMEOQ(spec, ROMMEOQConfig(**config), generator(0))


def one_hot(*choices: tuple[int, int]) -> Tensor:
    return torch.cat([torch.eye(size)[choice] for choice, size in choices])


def uneven_rows(count: int, seed: int) -> tuple[Rows, list[tuple[int, tuple[int, int, int]]]]:
    """Random rows of the uneven game, and the state and choices of each."""
    rng = np.random.default_rng(seed)
    told = [
        (int(rng.integers(2)), (int(rng.integers(2)), int(rng.integers(3)), int(rng.integers(4)))) for _ in range(count)
    ]
    act = torch.stack([one_hot((a, 2), (b, 3), (c // 2, 2), (c % 2, 2)) for _, (a, b, c) in told])
    rows = one_step_rows(UNEVEN, torch.eye(2)[[state for state, _ in told]], act)
    reward = torch.as_tensor(rng.normal(size=(count, 3)), dtype=torch.float32)
    terminated = torch.as_tensor(rng.random((count, 3)) < 0.3)
    after = torch.eye(2)[torch.as_tensor(rng.integers(2, size=count))]
    return rows.with_(reward=reward, terminated=terminated, next_obs=after), told


# ---------------------------------------------------------------- tables


def test_every_agent_sees_the_joint_action_as_its_own_and_the_rest() -> None:
    policy = learner_of(UNEVEN).policy
    sizes = (2, 3, 4)
    number = {joint: k for k, joint in enumerate(product(*map(range, sizes)))}
    table = torch.arange(24.0).repeat(2, 1) + torch.tensor([[0.0], [100.0]])
    for agent, size in enumerate(sizes):
        found = policy.table_of(agent, table)
        assert found.shape == (2, size, 24 // size)
        left = [k for k in range(3) if k != agent]
        for state, own in product(range(2), range(size)):
            for place, rest in enumerate(product(*(range(sizes[k]) for k in left))):
                joint = list(rest)
                joint.insert(agent, own)
                assert float(found[state, own, place]) == number[tuple(joint)] + 100 * state
    rows, told = uneven_rows(50, 0)
    assert policy.joint(rows.act).tolist() == [number[joint] for _, joint in told]
    assert policy.state_of(rows.obs).tolist() == [state for state, _ in told]


@pytest.mark.parametrize("memory", [None, 7.0])
def test_priors_are_what_was_counted(memory: float | None) -> None:
    learner = learner_of(UNEVEN, memory=memory, pseudo_count=0.5)
    rows, told = uneven_rows(60, 1)
    for part in (slice(0, 13), slice(13, 20), slice(20, 60)):
        learner.count(rows[part])
    for agent, size in enumerate((2, 3, 4)):
        left = [k for k in range(3) if k != agent]
        every = list(product(*(range((2, 3, 4)[k]) for k in left)))
        expected = np.full((2, len(every)), 0.5)
        for age, (state, joint) in enumerate(reversed(told)):
            share = 1.0 if memory is None else np.exp(-age / memory)
            expected[state, every.index(tuple(joint[k] for k in left))] += share
        expected /= expected.sum(1, keepdims=True)
        np.testing.assert_allclose(learner.policy.prior(agent), expected, rtol=1e-4)
        assert learner.policy.prior(agent).shape == (2, 24 // size)


@pytest.mark.parametrize("model", ["regularised", "empirical", "averaged"])
def test_values_move_their_share_towards_the_mean_target_of_their_rows(model: Belief) -> None:
    learner = learner_of(UNEVEN, model=model, learning_rate=0.3, discount=0.8, prior_weight=2.0)
    rows, told = uneven_rows(80, 2)
    learner.count(rows)
    policy = learner.policy
    policy.values.copy_(torch.randn(policy.values.shape, generator=generator(3)))
    before = policy.values.clone()
    number = {joint: k for k, joint in enumerate(product(range(2), range(3), range(4)))}
    goals: dict[tuple[int, int, int], list[float]] = {}
    for agent in range(3):
        table, prior = policy.table_of(agent, before[agent]), policy.prior(agent)
        if model == "regularised":
            value = soft_value(table, prior, 1.0, 2.0)
        elif model == "empirical":
            value = (prior * torch.logsumexp(table, 1)).sum(1)
        else:
            value = torch.logsumexp((table * prior[:, None]).sum(2), 1)
        for row, (state, joint) in enumerate(told):
            ahead = 0.0 if rows.terminated[row, agent] else 0.8 * float(value[rows.next_obs[row].argmax()])
            goals.setdefault((agent, state, number[joint]), []).append(float(rows.reward[row, agent]) + ahead)
    improve(learner, rows)
    moved = before.clone()
    for place, wanted in goals.items():
        moved[place] += 0.3 * (float(np.mean(wanted)) - float(before[place]))
    torch.testing.assert_close(policy.values, moved, rtol=1e-4, atol=1e-5)
    assert len(goals) < moved.numel()


def test_agents_act_by_the_marginal_of_policy_and_model() -> None:
    small = np.array([[[1.0, 0.0], [0.0, 0.5]], [[1.0, 0.0], [0.0, 0.5]]])
    rules = MatrixGame("small", small)
    learner = learner_of(rules.spec)
    policy = learner.policy
    policy.values.copy_(torch.as_tensor(small).flatten(1)[:, None])
    torch.testing.assert_close(policy.chances(0)[0], torch.tensor([0.583992, 0.416008]), rtol=0, atol=1e-5)
    torch.testing.assert_close(policy.model(1)[0], torch.tensor([0.583992, 0.416008]), rtol=0, atol=1e-5)
    view = View.of(rules.spec, torch.ones(4_000, 2))
    act = policy.step(policy.init(None), view, generator(0))[1]  # type: ignore[arg-type]
    rules.spec.check_action(act)
    share = act[:, [0, 2]].mean(0)
    torch.testing.assert_close(share, torch.tensor([0.584, 0.584]), rtol=0, atol=4 * (0.25 / 4000) ** 0.5)
    assert policy.step(None, view[:1], None)[1].tolist() == [[1.0, 0.0, 1.0, 0.0]]
    asked = policy(Batch(obs=np.ones((1, 2)), info={}))
    assert asked.act.tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_repeated_updates_end_at_the_fixed_point_of_a_game_of_two_states() -> None:
    payoffs, transitions, first = two_state_pennies((1.0, 2.0), stay=0.7)
    spec = TabularGame("pennies", payoffs, transitions, first).spec
    learner = learner_of(spec, learning_rate=0.5, discount=0.6, temperature=Annealing(end=0.5), prior_weight=3.0)
    # each of 10 rows of a pair leads on by its chance, 7 or 3 of 10
    told = [
        (s, a, b, t) for s, a, b, k in product(range(2), range(2), range(2), range(10)) for t in [0 if k < 7 else 1]
    ]
    act = torch.stack([one_hot((a, 2), (b, 2)) for _, a, b, _ in told])
    states = torch.tensor([s for s, *_ in told])
    rows = one_step_rows(spec, torch.eye(2)[states], act).with_(
        reward=torch.tensor([payoffs[:, s, a, b].tolist() for s, a, b, _ in told], dtype=torch.float32),
        next_obs=torch.eye(2)[[t for *_, t in told]], terminated=torch.zeros(len(told), 2, dtype=torch.bool),
    )  # fmt: skip
    learner.count(rows[states == 0][:15])  # an uneven prior
    for _ in range(60):
        improve(learner, rows)
    for agent in range(2):
        prior, values = learner.policy.prior(agent).double(), torch.zeros(2, 2, 2).double()
        pays = torch.as_tensor(payoffs[agent] if agent == 0 else payoffs[1].swapaxes(1, 2))
        for _ in range(60):
            value = torch.stack([soft_value(values[s], prior[s], 0.5, 3.0) for s in range(2)])
            values = pays + 0.6 * (0.7 * value[0] + 0.3 * value[1])
        found = learner.policy.table_of(agent, learner.policy.values[agent])
        torch.testing.assert_close(found.double(), values, rtol=0, atol=1e-4)
        torch.testing.assert_close(
            learner.policy.model(agent)[0].double(), opponent_model(values[0], prior[0], 0.5, 3.0), rtol=0, atol=1e-4
        )


def test_the_temperature_is_part_of_the_policy() -> None:
    learner = learner_of(UNEVEN, temperature=Annealing(end=1.0, extra=4.0, rate=0.5))
    rows, _ = uneven_rows(5, 0)
    assert learner.policy.alpha == 5.0
    for _ in range(3):
        improve(learner, rows)
    assert learner.policy.alpha == pytest.approx(1 + 4 * np.exp(-1.5))
    other = learner_of(UNEVEN)
    other.policy.load_state_dict(learner.policy.state_dict())
    assert other.policy.alpha == learner.policy.alpha


# ---------------------------------------------------------------- learning


def learned(rules: Rules, model: Belief, seed: int, steps: int = 250) -> ROMMEOQ:
    method = ROMMEOQConfig(model=model)
    dyna = method.build(rules.spec, streams(seed), CPU)
    played(dyna, BatchedGame(rules, 1), steps, seed=seed)
    assert isinstance(dyna.learner, ROMMEOQ)
    return dyna.learner


def paid(rules: MatrixGame, learner: ROMMEOQ) -> float:
    return float(rules.rewards(*(learner.policy.step(None, View.of(rules.spec, torch.ones(1, 2)), None)[1],) * 3)[0, 0])


def test_it_climbs_where_those_who_believe_what_they_see_do_not() -> None:
    rules = MatrixGame("climb", climb())
    learners = [learned(rules, "regularised", seed) for seed in range(3)]
    assert [paid(rules, learner) for learner in learners] == [11.0] * 3
    for learner in learners:
        assert min(float(learner.policy.chances(agent)[0, 0]) for agent in range(2)) > 0.95
        assert float(learner.policy.model(0)[0, 0]) > 0.95
    for model in ("empirical", "averaged"):
        assert max(paid(rules, learned(rules, model, seed)) for seed in range(2)) <= 7.0


def test_a_joint_action_learner_answers_the_average_over_what_it_has_seen() -> None:
    rules = MatrixGame("climb", climb())
    policy = learner_of(rules.spec, model="averaged", temperature=Annealing(end=2.0)).policy
    policy.values.copy_(torch.as_tensor(climb()).flatten(1)[:, None])
    policy.counts.copy_(torch.tensor([[0.0, 1, 2, 3, 0, 0, 4, 0, 5]]))
    for agent, seen in enumerate(([7.0, 1, 7], [3.0, 3, 9])):
        prior = (torch.tensor(seen) + 1) / (sum(seen) + 3)
        table = torch.as_tensor(climb()[agent] if agent == 0 else climb()[1].T).float()
        torch.testing.assert_close(policy.prior(agent)[0], prior)
        torch.testing.assert_close(policy.chances(agent)[0], ((table @ prior) / 2).softmax(0))


def test_it_agrees_on_one_of_two_best_joint_actions() -> None:
    rules = MatrixGame("penalty", penalty(-20.0))
    assert [paid(rules, learned(rules, "regularised", seed)) for seed in range(2)] == [10.0] * 2


def test_three_agents_with_unequal_choices_learn_together() -> None:
    payoffs = low_rank(agents=3, actions=3, seed=1)[:, :2]
    rules = MatrixGame("three", 20 * payoffs)
    learner = learned(rules, "regularised", 0, steps=600)
    greedy = learner.policy.step(None, View.of(rules.spec, torch.ones(1, 3)), None)[1]
    best, joint = rules.optimum()
    assert float(rules.rewards(greedy, greedy, greedy)[0, 0]) == pytest.approx(best)
    assert [part.argmax().item() for part in torch.split(greedy[0], [2, 3, 3])] == list(joint)


# ---------------------------------------------------------------- as a method


def test_every_row_is_counted_once_and_the_same_seed_gives_the_same_tables() -> None:
    rules = MatrixGame("climb", climb())
    first, again, other = (learned(rules, "regularised", seed, steps=150) for seed in (0, 0, 1))
    assert float(first.policy.counts.sum()) == 150
    assert torch.equal(first.policy.counts, again.policy.counts)
    assert torch.equal(first.policy.values, again.policy.values)
    assert not torch.equal(first.policy.counts, other.policy.counts)


@pytest.mark.parametrize("name", ["toy/climb", "toy/two_state_pennies"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"episode_limit": 5} if "pennies" in name else {}
    assert_resumes(scenario(replace(TINY, memory=30.0), GameConfig(name=name, copies=4, options=options)), tmp_path)


def test_what_does_not_suit_is_refused() -> None:
    for spec in (boxes(flags=False), motley(), GameSpec(name="one", agents=(discrete_agent("a", (0,), 2),), obs_dim=1)):
        with pytest.raises(GameError, match=f"{spec.name!r} is another kind of game"):
            learner_of(spec)
    mixed = GameSpec(name="pair", agents=(box_agent("a", (0,), 1), discrete_agent("b", (0,), 2)), obs_dim=1)
    with pytest.raises(GameError, match="For box actions take ROMMEO-AC"):
        learner_of(mixed)
    with pytest.raises(GameError, match="'uneven' is no one-hot state"):
        learner_of(UNEVEN).policy.state_of(torch.ones(2, 2))
    unlike = GameSpec(name="unlike", agents=(discrete_agent("a", (0,), 2), discrete_agent("b", (1,), 2)), obs_dim=2)
    learner = learner_of(unlike)
    learner.count(one_step_rows(unlike, torch.ones(1, 2), torch.tensor([[1.0, 0, 1, 0]])))
    with pytest.raises(GameError, match="see unlike things, and they change"):
        learner.policy.state_of(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="model='faithful' must be 'regularised', 'empirical' or 'averaged'"):
        ROMMEOQConfig(model="faithful")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"loop.real_share=0\.5 must be 1"):
        ROMMEOQConfig(loop=DynaConfig(real_share=0.5))
    with pytest.raises(ValueError, match="learning_rate=2 must lie in"):
        ROMMEOQConfig(learning_rate=2)
    for name in ("prior_weight", "pseudo_count", "memory"):
        with pytest.raises(ValueError, match=f"{name}=0 must be > 0"):
            ROMMEOQConfig(**{name: 0})  # type: ignore[arg-type]
    with pytest.raises(GameError, match="rows of single egos"):
        improve(learner_of(UNEVEN), uneven_rows(3, 0)[0].with_(ego=torch.zeros(3, dtype=torch.int16)))
