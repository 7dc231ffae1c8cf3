"""What each toy world says is best, against looking at everything or a formula of its own."""

from __future__ import annotations

from itertools import product
from typing import Literal

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from presage.common.game import Rows, View
from presage.envs.batched import BatchedGame, Rules
from presage.envs.toy import (
    RULES,
    BitFlip,
    GridMaze,
    LinearQuadratic,
    MatrixGame,
    MixedMatrixGame,
    PointMass,
    PredatorPrey,
    TabularGame,
    TrafficJunction,
    TwoQuadratics,
    World2D,
    central,
    climb,
    cycle,
    four_rooms,
    low_rank,
    penalty,
    random_maze,
    rock_paper_scissors,
    two_state_pennies,
)


def one_hot(choices: list[int], sizes: list[int]) -> Tensor:
    """One joint action of discrete agents."""
    return torch.cat([torch.eye(size)[choice] for choice, size in zip(choices, sizes, strict=True)])


@pytest.mark.parametrize(
    ("rules", "best", "joint"),
    [
        (MatrixGame("climb", climb()), 11.0, (0, 0)),
        (MatrixGame("penalty", penalty(-50.0)), 10.0, (0, 0)),
        (MatrixGame("rock_paper_scissors", rock_paper_scissors()), 0.0, (0, 0)),
        (MatrixGame("cycle", cycle()), 2.5, (0, 1)),
    ],
    ids=["climb", "penalty", "rps", "cycle"],
)
def test_tables_are_paid_as_they_are(rules: MatrixGame, best: float, joint: tuple[int, int]) -> None:
    sizes = [agent.width for agent in rules.spec.agents]
    every = list(product(*map(range, sizes)))
    game = BatchedGame(rules, len(every))
    view = game.reset(0)
    assert view.obs.tolist() == [[1.0, 1.0]] * len(every)
    rows, _ = game.step(torch.stack([one_hot(list(choice), sizes) for choice in every]))
    for choice, paid in zip(every, rows.reward.tolist(), strict=True):
        assert paid == [rules.payoffs[i][choice] for i in range(2)]
    assert rows.terminated.all()
    assert not rows.truncated.any()
    assert rules.optimum() == (best, joint)
    assert rows.reward.mean(1).max() == best


def test_one_agent_for_all_is_paid_as_they_are_on_average() -> None:
    payoffs = rock_paper_scissors() + np.arange(9.0).reshape(3, 3)
    one = MatrixGame("one", central(payoffs))
    assert [agent.width for agent in one.spec.agents] == [9]
    rows, _ = _played(BatchedGame(one, 9), torch.eye(9))
    assert rows.reward[:, 0].tolist() == payoffs.mean(0).reshape(-1).tolist()
    assert one.optimum() == (8.0, (8,))


def _played(game: BatchedGame, act: Tensor) -> tuple[Rows, View]:
    game.reset(0)
    return game.step(act)


def test_climb_punishes_whoever_goes_for_the_best_alone() -> None:
    mean = climb()[0].mean(1)
    assert mean.argmax() == 2  # against a uniform partner the best choice is the one that leads away from the optimum


def test_best_answers_of_the_cycle_go_round_and_even_choices_cannot_be_bettered() -> None:
    row, column = cycle()
    assert row.tolist() == [[0, 3], [1, 2]]
    assert column.tolist() == [[3, 2], [0, 1]]
    for a, b in product(range(2), range(2)):
        assert row[1 - a, b] > row[a, b] or column[a, 1 - b] > column[a, b]
    assert (row @ [0.5, 0.5]).tolist() == [1.5, 1.5]
    assert ([0.5, 0.5] @ column).tolist() == [1.5, 1.5]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.integers(0, 50))
def test_mixed_strategies_are_paid_on_average(chances: list[float], seed: int) -> None:
    payoffs = np.random.default_rng(seed).normal(size=(3, 2, 2, 2))
    rules = MixedMatrixGame("mixed", payoffs)
    act = torch.tensor([[2 * chance - 1 for chance in chances]], dtype=torch.float32)
    paid = rules.rewards(torch.ones(1, 1), act, torch.ones(1, 1))[0]
    expected = np.zeros(3)
    for joint in product(range(2), repeat=3):
        likely = np.prod([p if k == 0 else 1 - p for p, k in zip(chances, joint, strict=True)])
        expected += likely * payoffs.reshape(3, 8)[:, 4 * joint[0] + 2 * joint[1] + joint[2]]
    np.testing.assert_allclose(paid, expected, atol=1e-5)


def test_mixed_strategies_are_chances_in_environment_units() -> None:
    rules = MixedMatrixGame("cycle", cycle())
    assert [agent.to_env(np.array([x])).tolist() for agent, x in zip(rules.spec.agents, (-1.0, 0.5), strict=True)] == [
        [0.0], [0.75],
    ]  # fmt: skip
    game = BatchedGame(rules, 1)
    rows, _ = _played(game, torch.tensor([[1.0, -1.0]]))
    assert rows.reward.tolist() == [[3.0, 2.0]]  # the first choice against the second
    assert rows.terminated.all()


@pytest.mark.parametrize(("form", "at_five", "at_origin"), [("paper", 0.0, -4.444444), ("code", 0.0, -13.333333)])
def test_two_quadratics_are_paid_as_in_the_paper_or_as_in_the_code(
    form: Literal["paper", "code"], at_five: float, at_origin: float
) -> None:
    rules = TwoQuadratics(form=form)
    points = torch.tensor([[-5.0, -5.0], [0.0, 0.0], [5.0, 5.0]])
    torch.testing.assert_close(rules.payoff(points), torch.tensor([at_five, at_origin, 10.0]), rtol=0, atol=1e-4)
    rows, _ = _played(BatchedGame(rules, 3), points / 10)
    assert torch.equal(rows.reward, rules.payoff(points)[:, None].expand(3, 2))
    assert rules.spec.agents[0].to_env(np.array([0.5])).tolist() == [5.0]


@settings(deadline=None, max_examples=50)
@given(st.floats(-10, 10), st.floats(-10, 10))
def test_two_quadratics_are_the_larger_of_two_formulas(a: float, b: float) -> None:
    for form, lower in (("paper", 0.8 * (-(((a + 5) / 3) ** 2) - ((b + 5) / 3) ** 2)),
                        ("code", 0.8 * (-((a + 5) ** 2) / 3 - (b + 5) ** 2 / 3))):  # fmt: skip
        rules = RULES["two_quadratics"](form=form)
        assert isinstance(rules, TwoQuadratics)
        found = float(rules.payoff(torch.tensor([a, b], dtype=torch.float64)))
        assert found == pytest.approx(max(lower, 10 - (a - 5) ** 2 - (b - 5) ** 2))
        assert found <= rules.optimum()[0]
        assert float(rules.payoff(torch.tensor(rules.optimum()[1]))) == rules.optimum()[0]


def test_the_lower_hill_is_the_best_answer_to_itself() -> None:
    """Neither agent alone has a reason to leave it, nor has a small step of both."""
    rules = TwoQuadratics()
    others = torch.linspace(-10, 10, 401)
    alone = torch.stack([others, torch.full_like(others, -5.0)], 1)
    assert float(others[rules.payoff(alone).argmax()]) == pytest.approx(-5.0)
    near = torch.cartesian_prod(torch.linspace(-6, -4, 21), torch.linspace(-6, -4, 21))
    assert float(rules.payoff(near).max()) == pytest.approx(0.0, abs=1e-5)


def test_moves_of_a_longer_episode_are_independent_and_only_truncated() -> None:
    game = BatchedGame(TwoQuadratics(episode_limit=25), 2)
    game.reset(0)
    for step in range(1, 26):
        rows, _ = game.step(torch.full((2, 2), 0.5))
        assert rows.reward.tolist() == [[10.0, 10.0]] * 2
        assert not rows.terminated.any()
        assert bool(rows.truncated.all()) == (step == 25)
    one = BatchedGame(TwoQuadratics(), 2)
    rows, _ = _played(one, torch.zeros(2, 2))
    assert rows.terminated.all()
    assert not rows.truncated.any()


@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 3), st.integers(0, 20))
def test_low_rank_payoffs_have_that_rank(agents: int, actions: int, rank: int, seed: int) -> None:
    table = low_rank(agents, actions, rank, seed)
    assert table.shape == (agents,) + (actions,) * agents
    unfolded = [np.moveaxis(table[0], i, 0).reshape(actions, -1) for i in range(agents)]
    assert max(np.linalg.matrix_rank(part, tol=1e-8) for part in unfolded) <= rank
    best, joint = MatrixGame("low_rank", table).optimum()
    assert best == pytest.approx(table[0].max())
    assert best == pytest.approx(table[0][joint])


def test_two_state_pennies_follow_their_tables_and_are_worth_nothing() -> None:
    payoffs, transitions, start = two_state_pennies((1.0, 2.0), stay=0.7)
    game = BatchedGame(TabularGame("pennies", payoffs, transitions, start, episode_limit=20), 5_000)
    view, counts, total = game.reset(0), torch.zeros(2, 2), torch.zeros(5_000)
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        act = game.spec.random_action(view.acting, view.legal, rng)
        rows, view = game.step(act)
        alike = (act[:, :2] * act[:, 2:]).sum(1)
        stake = rows.obs @ torch.tensor([1.0, 2.0])
        assert torch.equal(rows.reward[:, 0], stake * (2 * alike - 1))
        assert torch.equal(rows.reward.sum(1), torch.zeros(5_000))
        total += rows.reward[:, 0]
        counts += rows.obs.T @ rows.next_obs
    np.testing.assert_allclose(counts / counts.sum(1, keepdim=True), [[0.7, 0.3], [0.7, 0.3]], atol=0.01)
    assert abs(float(total.mean())) < 4 * float(total.std()) / 5_000**0.5
    # Whatever one side does, an even partner makes it worth 0 in either state.
    assert np.allclose(payoffs[0].mean(2), 0.0)
    assert np.allclose(payoffs[0].mean(1), 0.0)


def best_by_search(rules: Rules, state: Tensor, depth: int) -> float:
    """The best return within `depth` steps of a game of one agent with one discrete head, by trying everything."""
    width = rules.spec.act_dim
    if depth == 0:
        return 0.0
    act = torch.eye(width)
    before = state.expand(width, -1)
    after = rules.move(before, act, None)
    reward = rules.rewards(before, act, after)[:, 0]
    over = rules.ends(before, act, after)[:, 0] if rules.spec.terminates else torch.zeros(width, dtype=torch.bool)
    return max(
        float(reward[k]) + (0.0 if over[k] else best_by_search(rules, after[k], depth - 1)) for k in range(width)
    )


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4), st.integers(0, 50))
def test_bit_flips_optimum_is_that_of_a_search(bits: int, seed: int) -> None:
    rules = BitFlip(bits)
    state = rules.draw(1, torch.Generator().manual_seed(seed))
    expected = best_by_search(rules, state[0], bits)
    assert float(rules.optimum(state[:, :bits], state[:, bits:])[0]) == expected


@given(st.integers(1, 6), st.integers(0, 100))
def test_a_random_maze_has_one_way_between_any_two_cells(size: int, seed: int) -> None:
    walls = random_maze(size, seed)
    cells = int((~walls).sum())
    grid = nx.grid_2d_graph(*walls.shape)
    grid.remove_nodes_from([tuple(cell) for cell in np.argwhere(walls)])
    assert nx.is_tree(grid)
    assert cells == grid.number_of_nodes() == 2 * size * size - 1


@pytest.mark.parametrize("walls", [four_rooms(), random_maze(5, 3)], ids=["four_rooms", "maze"])
def test_distances_of_a_maze_are_those_of_networkx_and_are_walked(walls: np.ndarray) -> None:
    rules = GridMaze(walls)
    grid = nx.grid_2d_graph(*walls.shape)
    grid.remove_nodes_from([tuple(cell) for cell in np.argwhere(walls)])
    lengths = dict(nx.all_pairs_shortest_path_length(grid))
    for a, b in product(range(0, len(rules.cells), 7), range(0, len(rules.cells), 5)):
        assert rules.distances[a, b] == lengths[tuple(rules.cells[a])][tuple(rules.cells[b])]
    # A walker that always steps to the neighbour nearest to its goal arrives after as many steps as were promised.
    game = BatchedGame(rules, 60)
    view = game.reset(0)
    promised = rules.steps_to_goal(view.obs, view.desired)
    done, steps = torch.zeros(60, dtype=torch.bool), torch.zeros(60)
    start = game._playing()
    for _ in range(int(promised.max())):
        tried = [rules.move(start, torch.eye(4)[k].expand(60, -1), None) for k in range(4)]
        ahead = torch.stack([rules.steps_to_goal(state[:, :2], state[:, 2:]) for state in tried])
        start = torch.stack(tried)[ahead.argmin(0), torch.arange(60)]
        steps += ~done
        done |= (start[:, :2] == start[:, 2:]).all(1)
    moved = promised > 0
    assert done[moved].all()
    assert torch.equal(steps[moved], promised[moved])


def test_four_rooms_are_those_of_the_paper() -> None:
    walls = four_rooms()
    assert walls.shape == (11, 11)
    for door in ((2, 5), (5, 1), (6, 8), (9, 5)):
        assert not walls[door]
    assert four_rooms(3).shape == (33, 33)
    closed = walls.copy()
    for door in ((2, 5), (5, 1), (6, 8), (9, 5)):
        closed[door] = True
    grid = nx.grid_2d_graph(11, 11)
    grid.remove_nodes_from([tuple(cell) for cell in np.argwhere(closed)])
    assert nx.number_connected_components(grid) == 4


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 1.5), st.integers(0, 30))
def test_world_2d_promises_the_fewest_steps(epsilon: float, seed: int) -> None:
    rules = World2D(epsilon=epsilon, spread=True)
    state = rules.draw(64, torch.Generator().manual_seed(seed))
    promised = rules.steps_to_goal(state[:, :2], state[:, 2:])
    first = torch.full((64,), -1)
    for t in range(22):
        apart = torch.hypot(*(state[:, 2:] - state[:, :2]).unbind(1))
        first = torch.where((first < 0) & (apart <= epsilon), t, first)
        state = rules.move(state, (state[:, 2:] - state[:, :2]).clamp(-1.0, 1.0), None)
    assert torch.equal(first, promised)  # heading straight along both axes is as fast as promised, never faster


def test_point_masss_optimum_is_reached_and_not_beaten() -> None:
    rules = PointMass()
    game = BatchedGame(rules, 200)
    start = game.reset(1).obs
    promised = rules.optimum(start)
    best = torch.zeros(200)
    view = game.reset(1)
    for _ in range(25):
        rows, view = game.step((-view.obs / rules.STEP).clamp(-1.0, 1.0))
        best += rows.reward[:, 0]
    torch.testing.assert_close(best, promised, atol=1e-4, rtol=1e-4)
    rng, view, other = torch.Generator().manual_seed(0), game.reset(1), torch.zeros(200)
    for _ in range(25):
        noise = 0.3 * torch.randn(view.obs.shape, generator=rng)
        rows, view = game.step((-view.obs / rules.STEP + noise).clamp(-1.0, 1.0))
        other += rows.reward[:, 0]
    assert (other <= promised + 1e-4).all()


def test_the_linear_systems_optimum_is_what_its_best_policy_gets_and_nothing_else() -> None:
    rules = LinearQuadratic()
    gains, _ = rules.riccati()

    def played(scale: float) -> Tensor:
        game = BatchedGame(rules, 20_000)
        view, total = game.reset(3), torch.zeros(20_000)
        start = view.obs
        for gain in gains:
            push = -scale * (view.obs @ torch.as_tensor(gain, dtype=torch.float32).T)
            assert push.abs().max() <= rules.most  # the formula holds where no bound is met
            rows, view = game.step(push / rules.most)
            total += rows.reward[:, 0]
        return total - rules.optimum(start)

    best, weaker = played(1.0), played(0.8)
    assert abs(float(best.mean())) < 4 * float(best.std()) / 20_000**0.5
    assert float(weaker.mean()) < -0.001


def test_cars_arrive_when_they_should_and_overlap_where_they_meet() -> None:
    rules = TrafficJunction(1, speed=0.25)
    game = BatchedGame(rules, 600)
    view = game.reset(0)
    route = view.obs[:, 6:9].argmax(1)
    arrival = torch.full((600,), -1)
    for t in range(12):
        rows, view = game.step(torch.ones(600, 1))
        assert (rows.reward <= 20.0).all()
        arrival = torch.where((arrival < 0) & (rows.reward[:, 0] > 0), t + 1, arrival)
    # 2.3, 1.7 and 2 at 0.25 a step
    assert torch.equal(arrival, torch.tensor([10, 7, 8])[route])
    two = TrafficJunction(2)
    crossing = torch.tensor([[[0.0, 2.0, 0.9, 5.0, 0.0], [1.0, 2.0, 1.1, 5.0, 0.0]]])
    places = two.places(crossing)[0]
    torch.testing.assert_close(places, torch.tensor([[0.15, -0.1], [-0.1, 0.15]]))
    assert not two.overlaps(crossing).any()
    meeting = torch.tensor([[[0.0, 2.0, 1.15, 5.0, 0.0], [1.0, 2.0, 0.85, 5.0, 0.0]]])
    assert two.overlaps(meeting).all()
    after = two.move(meeting, -torch.ones(1, 2), torch.zeros(1, 4))
    torch.testing.assert_close(two.rewards(meeting, torch.zeros(1, 2), after), torch.full((1, 2), -10.06))


def test_every_way_leads_out_by_the_road_of_its_route() -> None:
    rules = TrafficJunction(1)
    exits = {0: [-1.0, 0.15], 1: [1.0, -0.15], 2: [0.15, 1.0]}
    for entry, route in product(range(4), range(3)):
        length = [2.3, 1.7, 2.0][route]
        state = torch.tensor([[[float(entry), float(route), length, 9.0, 0.0]]])
        x, y = exits[route]
        turned = torch.tensor(np.round([[np.cos(a) * x - np.sin(a) * y, np.sin(a) * x + np.cos(a) * y]
                                        for a in [entry * np.pi / 2]], 6))  # fmt: skip
        torch.testing.assert_close(rules.places(state)[0].double(), turned, atol=1e-5, rtol=0)


def test_predators_catch_together_and_the_prize_grows() -> None:
    rules = PredatorPrey(2, prey=2, needed=2, episode_limit=10)
    game = BatchedGame(rules, 1)
    game.reset(0)
    state = torch.tensor([[0.0, 0.0, 0.5, 0.0, 0.25, 0.0, 0.28, 0.0, 1.0, 1.0, 1.0, 0.0]])
    game.inject(state)
    rows, view = game.step(torch.zeros(1, 4))
    assert rows.reward.tolist() == [[0.0, 0.0]]  # the second one touches nothing
    rows, view = game.step(torch.tensor([[0.7, 0.0, -0.7, 0.0]]))  # to 0.14 and 0.36: both touch both prey
    assert rows.reward.tolist() == [[2.0, 2.0]]
    assert view.obs[0, -1] == 2.0  # the prize of the next ones
    assert view.obs[0, -3:-1].tolist() == [1.0, 1.0]  # which are there already
    assert not torch.allclose(view.obs[0, 4:8], state[0, 4:8])
