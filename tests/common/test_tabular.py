"""Counting models and sweeps, against closed forms and the games themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from presage.common.bounds import simulation_lemma
from presage.common.game import GameError, Rows, View
from presage.common.replay import Replay
from presage.common.tabular import CountModel, Tables, prioritised_sweeping, value_iteration
from presage.envs.batched import BatchedGame
from presage.envs.registry import make
from presage.envs.toy import TabularGame, two_state_pennies


def random_game(states: int, actions: tuple[int, ...], seed: int) -> TabularGame:
    """A stochastic game of random tables."""
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.ones(states), (states, *actions))
    return TabularGame("random", rng.random((len(actions), states, *actions)), transitions, np.ones(states) / states)


def tables_of(game: TabularGame) -> Tables:
    """The game's own tables."""
    states, agents = len(game.start), len(game.payoffs)
    rewards = torch.as_tensor(game.payoffs).reshape(agents, states, -1).movedim(0, 2)
    return Tables(
        transitions=torch.as_tensor(game.transitions).reshape(states, -1, states), rewards=rewards,
        terminations=torch.zeros_like(rewards),
    )  # fmt: skip


def played(game: TabularGame, copies: int, steps: int, seed: int = 0) -> Rows:
    """Rows of random play, all at once."""
    batched = BatchedGame(game, copies)
    replay, view, rng = Replay(game.spec, copies * steps, copies), batched.reset(seed), torch.Generator()
    rng.manual_seed(seed)
    for _ in range(steps):
        rows, view = batched.step(game.spec.random_action(view.acting, view.legal, rng))
        replay.extend(rows)
    return replay.rows(replay.all())


def row(game: TabularGame, state: int, choice: int, after: int, reward: float = 0.0, over: bool = False) -> Rows:
    """One row of a game of one agent."""
    eye, spec = torch.eye(len(game.start)), game.spec
    view, then = View.of(spec, eye[state][None]), View.of(spec, eye[after][None])
    act = torch.eye(spec.act_dim)[choice][None]
    return Rows.of(
        spec, view, act, torch.tensor([[reward]]), then, torch.tensor([[over]]), torch.tensor([False]),
        torch.zeros(1),
    )  # fmt: skip


def chain(length: int) -> Tables:
    """A walk to the right whose last step pays 1 and ends; the other choice stays."""
    transitions, rewards = torch.zeros(length, 2, length).double(), torch.zeros(length, 2, 1).double()
    over = torch.zeros_like(rewards)
    for k in range(length):
        transitions[k, 0, k] = 1.0
        transitions[k, 1, min(k + 1, length - 1)] = 1.0
    rewards[length - 2, 1], over[length - 2, 1] = 1.0, 1.0
    return Tables(transitions=transitions, rewards=rewards, terminations=over)


def test_chances_are_relative_frequencies_and_even_where_nothing_was_seen() -> None:
    game = random_game(3, (2,), 0)
    model = CountModel(game.spec, unknown_reward=-1.0)
    for after, reward in ((0, 1.0), (0, 2.0), (1, 0.0), (2, 3.0)):
        model.observe(row(game, 1, 0, after, reward))
    tables = model.tables()
    assert tables.transitions[1, 0].tolist() == [0.5, 0.25, 0.25]
    assert tables.rewards[1, 0].tolist() == [1.5]
    assert tables.transitions[0, 1].tolist() == pytest.approx([1 / 3] * 3)
    assert tables.rewards[0, 1].tolist() == [-1.0]


def test_before_any_data_rmax_hopes_for_the_most_everywhere() -> None:
    model = CountModel(random_game(4, (3,), 0).spec, unknown="stay", unknown_reward=1.0, known=5)
    found = value_iteration(model.tables(), 0.9)
    assert torch.allclose(found.state, torch.full((4,), 10.0).double())


def test_rmax_tries_every_pair_often_enough() -> None:
    game = random_game(4, (2,), 1)
    model, batched = CountModel(game.spec, unknown="stay", unknown_reward=1.0, known=3), BatchedGame(game, 1)
    view, plan = batched.reset(0), value_iteration(model.tables(), 0.9).action
    for _ in range(400):
        choice = plan[view.obs.argmax(1)].argmax(1)
        rows, view = batched.step(torch.eye(2)[choice])
        if bool(model.observe(rows).any()):  # plan again only where a pair became known
            plan = value_iteration(model.tables(), 0.9).action
    assert model.visits.min() >= 3


def test_one_visit_of_every_pair_gives_a_deterministic_game_exactly() -> None:
    rng = np.random.default_rng(0)
    transitions = np.eye(5)[rng.integers(5, size=(5, 3))]
    game = TabularGame("maze", rng.random((1, 5, 3)), transitions, np.ones(5) / 5)
    model = CountModel(game.spec)
    for state, choice in np.ndindex(5, 3):
        after = int(transitions[state, choice].argmax())
        model.observe(row(game, state, choice, after, float(game.payoffs[0, state, choice])))
    found, true = model.tables(), tables_of(game)
    assert torch.equal(found.transitions, true.transitions)
    assert torch.allclose(found.rewards, true.rewards, atol=1e-7)


@pytest.mark.parametrize("actions", [(3,), (2, 3)])
def test_much_play_finds_the_tables_and_the_value_within_the_simulation_lemma(actions: tuple[int, ...]) -> None:
    game, discount = random_game(3, actions, 2), 0.8
    model = CountModel(game.spec)
    model.observe(played(game, 500, 50))
    found, true = model.tables(), tables_of(game)
    apart = float((found.transitions - true.transitions).abs().sum(2).max())
    wrong = float((found.rewards - true.rewards).abs().max())
    assert apart < 0.1
    assert wrong < 1e-6
    gap = value_iteration(found, discount).state - value_iteration(true, discount).state
    # Values of any policy differ by at most the lemma's bound, and so do the best ones.
    assert float(gap.abs().max()) <= simulation_lemma(apart / 2, wrong, discount, 1.0)


def test_the_kernel_imagines_what_was_counted() -> None:
    game = TabularGame("pennies", *two_state_pennies())
    model = CountModel(game.spec)
    replay = Replay(game.spec, 40_000, 1_000)
    rows = played(game, 1_000, 40)
    replay.extend(rows, torch.arange(1_000).repeat(40))
    assert model.fit(replay, torch.Generator()) == {"model/known_pairs": 1.0}
    assert model.fit(replay, torch.Generator()) == {"model/known_pairs": 1.0}
    assert float(model.visits.sum()) == 40_000  # a second fit counts anew
    view = View.of(game.spec, torch.eye(2).repeat(20_000, 1))
    act = torch.tensor([[1.0, 0.0, 0.0, 1.0]]).expand(40_000, -1)
    rng = torch.Generator().manual_seed(0)
    _, outcome = model.kernel.step(None, view, act, rng)
    assert torch.allclose(outcome.reward[:2], torch.tensor([[-1.0, 1.0], [-2.0, 2.0]]))
    expected = model.tables().transitions[:, 1].float()
    for state in range(2):
        assert torch.allclose(outcome.after.obs[state::2].mean(0), expected[state], atol=0.01)


def test_ends_are_counted_and_stop_the_value() -> None:
    length = 6
    found = value_iteration(chain(length), 0.5)
    assert found.state[:-1].tolist() == pytest.approx([0.5 ** (length - 2 - k) for k in range(length - 1)])


@given(st.integers(3, 12))
def test_sweeping_along_a_chain_needs_one_backup_for_every_step(length: int) -> None:
    tables = chain(length)
    found, dense = prioritised_sweeping(tables, 0.9), value_iteration(tables, 0.9)
    assert torch.allclose(found.state, dense.state)
    right = length - 1  # n states, one backup for each step to the right
    stays = sum(1 for k in range(length - 1) if float(dense.action[k, 0]) > 0)
    assert found.backups == right + stays
    assert found.backups < dense.backups


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100))
def test_both_ways_to_sweep_agree_from_any_start(seed: int) -> None:
    tables = tables_of(random_game(4, (2, 2), seed))
    dense = value_iteration(tables, 0.7)
    start = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).double()
    for begin in (None, start, dense.action):
        found = prioritised_sweeping(tables, 0.7, begin)
        assert torch.allclose(found.action, dense.action, atol=1e-8)
    assert prioritised_sweeping(tables, 0.7, dense.action, threshold=1e-8).backups == 0


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(GameError, match="cannot be counted"):
        CountModel(make("toy/point_mass", 1).spec)
    game = random_game(3, (2,), 0)
    model = CountModel(game.spec)
    bad = row(game, 0, 0, 1)
    with pytest.raises(GameError, match="no one-hot state"):
        model.observe(bad.with_(obs=torch.tensor([[0.5, 0.5, 0.0]])))
    with pytest.raises(ValueError, match="known=0"):
        CountModel(game.spec, known=0)
    with pytest.raises(ValueError, match=r"discount=1\.0"):
        value_iteration(model.tables(), 1.0)
