"""The prey's game: what it is shown, what it is paid; and predators that run after whom they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import GameError, View
from presage.envs.particle import ParticleGame, TrueKernel, WorldState
from presage.envs.particle.greedy import DIRECTIONS
from presage.envs.particle.hunted import UNSEEN, Hunted
from presage.envs.particle.hunters import RULES, Hunters, Packs
from presage.envs.particle.rules import game_spec

FAR = ((-0.8, 0.8), (0.8, 0.8), (-0.8, -0.8))
"""predators out of everybody's way"""


def state(scenario: Hunted, agents: list[tuple[float, float]], velocity: Tensor | None = None) -> WorldState:
    world = scenario.world
    return WorldState(
        position=torch.tensor([agents], dtype=torch.float64),
        velocity=torch.zeros(1, 4, 2, dtype=torch.float64) if velocity is None else velocity[None].double(),
        landmarks=torch.tensor([[(0.5, -0.5), (-0.1, 0.4)]], dtype=torch.float64),
        message=torch.zeros(1, 0, 0), private=torch.zeros(1, world.private),
    )  # fmt: skip


def placed(agents: list[tuple[float, float]], velocity: Tensor | None = None, sight: float = 0.5) -> View:
    scenario = Hunted(sight=sight)
    game = ParticleGame(scenario, 1, dtype=torch.float64)
    game.reset(0)
    return game.place(state(scenario, agents, velocity))


def paid(predators: list[tuple[float, float]], prey: tuple[float, float]) -> list[float]:
    scenario = Hunted()
    rules = ParticleGame(scenario, 1, dtype=torch.float64).rules
    found: list[float] = scenario.rewards(rules.pack(state(scenario, [*predators, prey])))[0].tolist()
    return found


def test_the_prey_is_paid_for_the_company_of_exactly_one() -> None:
    near = [(0.0, 0.27), (0.27, 0.0), (0.0, -0.27)]
    for company, worth in ((0, 0.0), (1, 1.0), (2, -1.0), (3, -1.0)):
        predators = [*near[:company], *FAR[company:]]
        reward = paid(predators, (0.0, 0.0))
        far = sum((x * x + y * y) ** 0.5 for x, y in predators)
        assert reward == pytest.approx([-worth - 0.1 * far] * 3 + [worth])
    assert paid([(0.0, 0.29), *FAR[1:]], (0.0, 0.0))[3] == 0.0, "too far for company"


@pytest.mark.parametrize(("place", "cost"), [((0.98, 0.0), 0.0), ((1.0, 0.0), -10.0), ((0.2, -1.0), -10.0)])
def test_outside_costs_ten(place: tuple[float, float], cost: float) -> None:
    assert paid([(-0.8, 0.5), (-0.8, 0.6), (-0.8, 0.7)], place)[3] == cost


def test_walls_push_back_by_how_far_they_are_overlapped() -> None:
    scenario, world = Hunted(), Hunted().world
    at = [(1.25, 0.0), (1.2, -1.4), (-1.33, 1.23), (0.0, 0.0)]
    before = state(scenario, at, torch.tensor([[0.5, 0.1]] * 4))
    packed = world.pack(before, device="cpu", dtype=torch.float64)
    after = world.unpack(scenario.happen(packed, torch.zeros(1, 1)))
    assert torch.equal(after.position, before.position)
    assert torch.equal(after.landmarks, before.landmarks)
    push = 10.0 * torch.tensor([[0.02, 0.0], [0.0, -0.17], [-0.1, 0.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(after.velocity, before.velocity - push)


def test_nobody_gets_far_and_bodies_in_a_corner_stay_apart() -> None:
    """Everybody runs into one corner, and out of it again."""
    game = ParticleGame(Hunted(), 32, episode_limit=100)
    game.reset(0)
    farthest = 0.0
    for step in range(80):
        game.step(torch.eye(5)[[2 + 2 * (step % 2)] * 4].flatten().expand(32, -1))
        farthest = max(farthest, float(game.world_state().position.amax()))
    now = game.world_state().position
    assert bool(now.isfinite().all())
    assert float(now.mean()) > 0.9
    assert 1.2 < farthest < 1.45
    for _ in range(19):
        game.step(torch.eye(5)[[1] * 4].flatten().expand(32, -1))
    assert float(game.world_state().position[..., 0].mean()) < 0.3


def test_the_prey_does_not_see_far_and_predators_see_everything() -> None:
    agents = [(0.5, 0.5), (0.51, 0.0), (-0.3, -0.6), (0.0, 0.0)]
    scenario, seen, all_seen = Hunted(), placed(agents).obs[0], placed(agents, sight=float("inf")).obs[0]
    spec = game_spec(scenario)
    hunters, prey = [k for i in range(3) for k in spec.obs[i]], list(spec.obs[3])
    assert torch.equal(seen[hunters], all_seen[hunters])
    assert [len(spec.obs[i]) for i in range(4)] == [16, 16, 16, 14]
    own = seen[prey].tolist()
    assert own[:4] == [0.0] * 4
    assert own[4:8] == [0.5, -0.5, -0.1, 0.4], "landmarks at the edge of sight, and within it"
    assert own[8:] == [0.5, 0.5, UNSEEN, UNSEEN, UNSEEN, UNSEEN], "predators: far away in x, and in y"
    assert all_seen[prey].tolist()[8:] == [0.5, 0.5, 0.51, 0.0, -0.3, -0.6]


def test_imagined_steps_are_the_game_itself() -> None:
    scenario = Hunted()
    game, rng = ParticleGame(scenario, 20, dtype=torch.float64, episode_limit=9), torch.Generator().manual_seed(0)
    kernel, view = TrueKernel(scenario, dtype=torch.float64), game.reset(0)
    for _ in range(20):
        act = game.spec.random_action(view.acting, view.legal, rng)
        _, outcome = kernel.step(kernel.init(first_window(game.spec, view), torch.zeros(20), rng), view, act, rng)
        rows, view = game.step(act)
        torch.testing.assert_close(outcome.after.obs, rows.next_obs)
        torch.testing.assert_close(outcome.reward, rows.reward)


def test_renamed_rows_are_rows_of_the_game() -> None:
    """Sight hides the same from the prey, whatever its predators and obstacles are called."""
    scenario = Hunted()
    spec = game_spec(scenario)
    assert len(spec.symmetries) == 11
    game, rng = ParticleGame(scenario, 16, dtype=torch.float64), torch.Generator().manual_seed(1)
    view = game.reset(3)
    act = spec.random_action(view.acting, view.legal, rng)
    rows, _ = game.step(act)
    kernel = TrueKernel(scenario, dtype=torch.float64)
    for symmetry in spec.symmetries:
        renamed = replace(view, obs=rows.obs[:, symmetry.obs])
        carry = kernel.init(first_window(spec, renamed), torch.zeros(16), rng)
        _, outcome = kernel.step(carry, renamed, act[:, symmetry.act], rng)
        torch.testing.assert_close(outcome.after.obs, rows.next_obs[:, symmetry.obs])
        torch.testing.assert_close(outcome.reward, rows.reward[:, symmetry.agents])


def test_starts_are_uniform_and_at_rest() -> None:
    found = ParticleGame(Hunted(), 4_000)
    found.reset(1)
    now = found.world_state()
    assert not bool(now.velocity.any())
    for place in (now.position, now.landmarks):
        assert 0.89 < float(place.abs().amax()) <= 0.9
        assert float(place.mean().abs()) < 0.02


def test_games_that_do_not_suit_are_refused() -> None:
    with pytest.raises(GameError, match=r"good=2, sight=0.5 > 0"):
        Hunted(good=2)
    with pytest.raises(GameError, match=r"sight=0.0 > 0"):
        Hunted(sight=0.0)
    with pytest.raises(GameError, match=r"outside=-1.0 >= 0"):
        Hunted(outside=-1.0)
    with pytest.raises(GameError, match=r"3 predators by rules=\('prey', 'pray', 'still'\)"):
        Hunters(Hunted(), ("prey", "pray", "still"))
    with pytest.raises(GameError, match=r"2 predators by rules"):
        Hunters(Hunted(adversaries=2), ("prey", "prey", "still"))


# ------------------------------------------------------------------- predators

AGENTS = [(0.0, 0.0), (0.3, -0.2), (-0.7, 0.1), (0.1, 0.6)]
"""three predators and the prey"""
MOVES = dict(zip(("nothing", "left", "right", "down", "up"), range(5), strict=True))


@pytest.mark.parametrize(
    ("rule", "move"),
    [("prey", "up"), ("farthest", "left"), ("nearest", "right"), ("other", "right"), ("ahead", "right"),
     ("together", "up"), ("still", "nothing")],
)  # fmt: skip
def test_the_first_predator_runs_after_whom_it_says(rule: str, move: str) -> None:
    """The others are at (0.3, -0.2) and (-0.7, 0.1), and the prey at (0.1, 0.6), which goes to the right quickly."""
    velocity = torch.zeros(4, 2)
    velocity[3, 0] = 1.2
    view = placed(AGENTS, velocity, sight=float("inf"))
    act = Hunters(Hunted(), (rule, "still", "still")).step(None, view, None)[1][0].view(4, 5)
    assert torch.equal(act.sum(1), torch.ones(4, dtype=act.dtype))
    assert int(act[0].argmax()) == MOVES[move]
    assert act[1:].argmax(1).tolist() == [0, 0, 0]


def test_pushes_lead_where_they_are_meant_to() -> None:
    """Every rule but those that go nowhere brings a predator nearer to whom it runs after."""
    for k, (x, y) in enumerate([(-0.5, 0.1), (0.5, 0.1), (0.1, -0.5), (0.1, 0.5)]):
        view = placed([(0.0, 0.0), (-0.8, -0.8), (0.8, -0.8), (x, y)], sight=float("inf"))
        act = Hunters(Hunted(), ("prey", "prey", "prey")).step(None, view, None)[1][0].view(4, 5)
        assert int(act[0].argmax()) == k + 1
        way = torch.tensor(DIRECTIONS)[k + 1]
        assert float(way @ torch.tensor([x, y])) > 0.4


def test_each_predator_looks_from_where_it_stands() -> None:
    view = placed(AGENTS, sight=float("inf"))
    act = Hunters(Hunted(), ("nearest",) * 3).step(None, view, None)[1][0].view(4, 5)
    assert [int(k) for k in act[:3].argmax(1)] == [MOVES["right"], MOVES["left"], MOVES["right"]]


def test_between_prey_and_the_predator_nearest_to_it() -> None:
    """That one goes straight for the prey; the others for the middle between the two."""
    agents = [(0.0, 0.0), (0.0, 0.5), (-0.7, 0.1), (0.8, 0.5)]
    act = Hunters(Hunted(), ("together",) * 3).step(None, placed(agents, sight=float("inf")), None)[1][0].view(4, 5)
    # of (0.4, 0.5) the first sees more height than width, the second one height alone
    assert [int(k) for k in act[:3].argmax(1)] == [MOVES["up"], MOVES["right"], MOVES["right"]]


def test_chance_is_passed_in() -> None:
    view = placed(AGENTS, sight=float("inf"))
    view = view[torch.zeros(2_000, dtype=torch.int64)]
    hunters = Hunters(Hunted(), ("other", "prey", "still"))
    first, again = (hunters.step(None, view, torch.Generator().manual_seed(3))[1] for _ in range(2))
    assert torch.equal(first, again)
    share = first[:, :5].mean(0)
    assert abs(float(share[MOVES["right"]]) - 0.5) < 0.05
    assert abs(float(share[MOVES["left"]]) - 0.5) < 0.05
    assert len(RULES) == 7


def test_sets_together_run_as_each_does_alone() -> None:
    sets = [("farthest", "still", "prey"), ("nearest", "ahead", "other"), ("together", "together", "nearest")]
    game = ParticleGame(Hunted(), 60, dtype=torch.float64)
    view, who = game.reset(1), torch.arange(60) % 3
    act = Packs(Hunted(), sets)(view, who, None)
    for k, rules in enumerate(sets):
        assert torch.equal(act[who == k], Hunters(Hunted(), rules).step(None, view[who == k], None)[1])
    assert len(torch.unique(act, dim=0)) > 10


def test_no_sets_are_refused() -> None:
    with pytest.raises(GameError, match="no sets of predators"):
        Packs(Hunted(), [])
