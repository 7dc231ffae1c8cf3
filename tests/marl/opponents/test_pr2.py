"""PR2's closed forms against sums and integrals, its losses agent by agent, and samplers that learn a known density."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tianshou.data import Batch
from torch import Tensor, nn

from presage.common.dyna import DynaConfig
from presage.common.game import GameError, GameSpec, View
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from presage.envs.batched import BatchedGame
from presage.envs.toy import TwoQuadratics
from presage.marl.opponents.annealing import Annealing
from presage.marl.opponents.pr2 import (
    PR2,
    PR2Config,
    marginal_value,
    reaction_model,
    sampled_marginal_value,
    soft_target,
)
from presage.marl.opponents.stein import stein_direction
from tests.common.tiny_runs import LOOP, assert_resumes, improve, played, scenario
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.sample_games import boxes, one_step_rows, random_rows, random_view
from tests.marl.seat_loop import SeatLoop

CPU = torch.device("cpu")
TINY = PR2Config(hidden=(8,), particles=6, value_samples=4, loop=replace(LOOP, real_share=1.0))
PAIR = GameSpec(name="pair", agents=(box_agent("a", (0,), 1), box_agent("b", (0,), 1)), obs_dim=1, terminates=True)


# ---------------------------------------------------------------- closed forms


def test_reference_numbers() -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    rows = torch.tensor([[0.731059, 0.268941], [0.377541, 0.622459]]).double()
    torch.testing.assert_close(reaction_model(values), rows, rtol=0, atol=1e-6)
    torch.testing.assert_close(marginal_value(values), torch.tensor([1.313262, 0.974077]).double(), rtol=0, atol=1e-6)


numbers = st.lists(st.floats(-5, 5), min_size=4, max_size=4)


@settings(deadline=None, max_examples=50)
@given(numbers, st.floats(0.1, 4), st.integers(0, 100))
def test_the_reaction_is_what_soft_value_is_made_of(values: list[float], temperature: float, seed: int) -> None:
    q = torch.tensor(values, dtype=torch.float64)
    rho, value = reaction_model(q, temperature), float(marginal_value(q, temperature))
    assert value == pytest.approx(temperature * math.log(sum(math.exp(x / temperature) for x in values)))
    for chance, x in zip(rho.tolist(), values, strict=True):
        assert chance == pytest.approx(math.exp((x - value) / temperature))

    def worth(chances: Tensor) -> float:
        return float((chances * q).sum() - temperature * torch.xlogy(chances, chances).sum())

    assert worth(rho) == pytest.approx(value)
    other = torch.randn(4, generator=generator(seed), dtype=torch.float64).softmax(0)
    assert worth(other) <= value + 1e-9


def test_targets_stop_at_ends() -> None:
    found = soft_target(torch.tensor([1.0, 2.0]), torch.tensor([False, True]), torch.tensor([10.0, 10.0]), 0.9)
    assert found.tolist() == [10.0, 2.0]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_samples_estimate_the_integral_and_alpha_multiplies_all_of_its_logarithm(temperature: float) -> None:
    grid = torch.linspace(-1, 1, 2_001, dtype=torch.float64)
    x, y = torch.meshgrid(grid, grid, indexing="ij")
    integral = torch.trapezoid(torch.trapezoid(torch.exp((x - y * x) / temperature), grid), grid)
    drawn = torch.rand(400_000, 2, generator=generator(0), dtype=torch.float64) * 2 - 1
    values = drawn[:, 0] - drawn[:, 1] * drawn[:, 0]
    found = float(sampled_marginal_value(values, 2.0, temperature))
    assert found == pytest.approx(temperature * float(integral.log()), abs=0.01)
    few = sampled_marginal_value(values.view(-1, 4), 2.0, temperature)
    assert float(few.mean()) < found  # few samples miss the best


def test_the_released_codes_constant_is_not_inherited() -> None:
    values, alpha = torch.randn(16, generator=generator(0)).double(), 0.1
    released = alpha * torch.logsumexp(values / alpha, 0) - math.log(16) + math.log(2)
    assert float(released - sampled_marginal_value(values, 1.0, alpha)) == pytest.approx(-1.87, abs=0.005)


def test_bad_temperatures_are_refused() -> None:
    for form in (reaction_model, marginal_value):
        with pytest.raises(ValueError, match="temperature=0 must be > 0"):
            form(torch.zeros(2), 0)
    with pytest.raises(ValueError, match="temperature=-1 must be > 0"):
        sampled_marginal_value(torch.zeros(2), 1.0, -1)


# ---------------------------------------------------------------- a loop over agents


def built(spec: GameSpec, seed: int = 0, **config: Any) -> PR2:
    own: dict[str, Any] = {"hidden": (12, 8), "temperature": Annealing(end=0.7), "particles": 7, "value_samples": 5}
    learner = PR2(spec, PR2Config(**(own | config)), generator(seed), generator(seed + 1))
    with torch.no_grad():  # targets that differ
        for network in (learner.critic_old, learner.actors_old):
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(seed + 2)))
    return learner.double()


class Loop(SeatLoop):
    """The learner agent by agent, with plain networks; the draws are the learner's."""

    def __init__(self, learner: PR2) -> None:
        stacks = {"actor": learner.policy.actors, "actor_old": learner.actors_old, "critic": learner.critic,
                  "old": learner.critic_old, "marginal": learner.marginal,
                  "reaction": learner.reactions.networks}  # fmt: skip
        super().__init__(learner, stacks)

    def q(self, name: str, agent: int, *parts: Tensor) -> Tensor:
        value: Tensor = self.networks[name, agent](torch.cat(parts, 1)).squeeze(1)
        return value

    def act(self, name: str, agent: int, view: View) -> Tensor:
        found: Tensor = self.networks[name, agent](self.own(agent, view.obs)).tanh() * view.acting[:, [agent]]
        return found

    def draws(self, count: int, rows: int, kind: str, seed: int) -> list[Tensor]:
        rng = generator(seed)
        found = [torch.empty(len(s.agents), rows, count, s.rest_width, dtype=torch.float64) for s in self.seats]
        return [x.uniform_(-1, 1, generator=rng) if kind == "uniform" else x.normal_(generator=rng) for x in found]

    def reaction(self, agent: int, obs: Tensor, act: Tensor, noise: Tensor) -> Tensor:
        found: Tensor = self.networks["reaction", agent](torch.cat([self.own(agent, obs), act, noise], 1))
        return found


@pytest.mark.parametrize("flags", [True, False], ids=["turns", "everybody"])
def test_targets_and_critic_losses_are_the_papers_agent_by_agent(flags: bool) -> None:
    spec = boxes(flags=flags)
    learner, rows = built(spec), random_rows(boxes(flags=flags), 20, seed=3, dtype=torch.float64)
    loop, view = Loop(learner), rows.next_view
    learner.rng.manual_seed(11)
    targets = learner.targets(rows)
    uniform = loop.draws(5, 20, "uniform", 11)
    joint, marginal = learner.critic_losses(rows, targets)
    for agent in range(spec.n):
        k, p = loop.place[agent]
        act, mask = loop.act("actor_old", agent, view), loop.mask(agent, view)
        each = [loop.q("old", agent, view.obs, act, uniform[k][p][:, s] * mask) for s in range(5)]
        mean = sum((x / 0.7).exp() for x in each) / 5
        assert isinstance(mean, Tensor)
        value = 0.7 * (mean * 2.0 ** mask.sum(1)).log()
        expected = rows.reward[:, agent] + 0.95 * torch.where(rows.terminated[:, agent], 0.0, value)
        torch.testing.assert_close(targets[agent], expected.detach())
        own, rest = rows.act[:, spec.act[agent]], loop.rest(agent, rows.act)
        error = loop.q("critic", agent, rows.obs, own, rest) - targets[agent]
        torch.testing.assert_close(joint[agent], 0.5 * (error**2).mean())
        error = loop.q("marginal", agent, rows.obs, own) - targets[agent]
        torch.testing.assert_close(marginal[agent], 0.5 * (error**2).mean())


@pytest.mark.parametrize("flags", [True, False], ids=["turns", "everybody"])
def test_samplers_go_where_the_stein_direction_points(flags: bool) -> None:
    spec = boxes(flags=flags)
    learner, rows = built(spec), random_rows(boxes(flags=flags), 6, seed=3, dtype=torch.float64)
    loop = Loop(learner)
    learner.rng.manual_seed(11)
    losses = learner.reaction_loss(rows)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    noise = loop.draws(7, 6, "normal", 11)
    for agent in range(spec.n):
        k, p = loop.place[agent]
        own, mask = rows.act[:, spec.act[agent]], loop.mask(agent, rows.view)
        particles = [loop.reaction(agent, rows.obs, own, noise[k][p][:, s]) for s in range(7)]
        scores = []
        for u in particles[3:]:
            place = u.detach().requires_grad_()
            density = loop.q("critic", agent, rows.obs, own, place.tanh() * mask) - loop.q(
                "marginal", agent, rows.obs, own
            )
            log_density = density / 0.7 + torch.log(1 - place.tanh() ** 2).sum(1)
            scores.append(torch.autograd.grad(log_density.sum(), place)[0])
        moved = torch.stack(particles[:3], 1)
        direction = stein_direction(torch.stack(particles[3:], 1), torch.stack(scores, 1), moved)
        torch.testing.assert_close(losses[agent], -(direction * moved).sum(2).mean())
        loop.networks["reaction", agent].zero_grad()
        torch.autograd.backward(moved, grad_tensors=-direction / (6 * 3))  # the chain rule, by hand
        loop.assert_gradients("reaction", agent, learner.reactions.networks)
    assert all(x.grad is None for part in (learner.critic, learner.marginal, learner.policy) for x in part.parameters())


@pytest.mark.parametrize(("average", "smoothed"), [("soft", False), ("plain", False), ("soft", True)])
def test_policies_climb_the_average_over_reactions_to_what_they_do(average: Any, smoothed: bool) -> None:
    spec = boxes()
    learner, rows = (
        built(spec, average=average, smoothed=smoothed, shrinkage=0.3, noise=Annealing(end=0.5)),
        random_rows(spec, 20, seed=3, dtype=torch.float64),
    )
    loop, rng = Loop(learner), generator(11)
    learner.rng.manual_seed(11)
    losses = learner.policy_loss(rows)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    widths = [(len(s.agents), 20, s.own_width) for s in loop.seats]
    explored = [torch.empty(size, dtype=torch.float64).normal_(generator=rng) if smoothed else None for size in widths]
    noise = [torch.empty(len(s.agents), 20, 5, s.rest_width, dtype=torch.float64).normal_(generator=rng)
             for s in loop.seats]  # fmt: skip
    for agent in range(spec.n):
        k, p = loop.place[agent]
        act, mask = loop.act("actor", agent, rows.view), loop.mask(agent, rows.view)
        own = explored[k]
        if own is not None:
            act = (act + 0.5 * own[p]).clamp(-1, 1) * rows.view.acting[:, [agent]]
        drawn = [loop.reaction(agent, rows.obs, act, noise[k][p][:, s]).detach().tanh() * mask for s in range(5)]
        values = torch.stack([loop.q("critic", agent, rows.obs, act, rest) for rest in drawn])
        worth = 0.7 * (values / 0.7).exp().mean(0).log() if average == "soft" else values.mean(0)
        raw = loop.networks["actor", agent](loop.own(agent, rows.obs))
        loss = (0.15 * (raw**2).mean(1) - worth).mean()
        torch.testing.assert_close(losses[agent], loss)
        loss.backward()
        loop.assert_gradients("actor", agent, learner.policy.actors)
    parts = (learner.critic, learner.marginal, learner.reactions)
    assert all(x.grad is None for part in parts for x in part.parameters())


def test_an_update_descends_moves_targets_at_their_rate_and_quietens() -> None:
    spec = boxes()
    learner = built(spec, learning_rate=1e-4, target_rate=0.25, noise=Annealing(end=0.1, extra=0.4, rate=0.5))
    rows = random_rows(spec, 40, seed=3, dtype=torch.float64)
    learner.rng.manual_seed(5)
    targets = learner.targets(rows)
    before = [loss.detach() for loss in learner.critic_losses(rows, targets)]
    old = [[x.clone() for x in part.parameters()] for part in (learner.critic_old, learner.actors_old)]
    learner.rng.manual_seed(5)
    improve(learner, rows)
    for was, now in zip(before, learner.critic_losses(rows, targets), strict=True):
        assert bool((now < was).all())
    for parts, follower, leader in zip(
        old, (learner.critic_old, learner.actors_old), (learner.critic, learner.policy.actors), strict=True
    ):
        for was, target, network in zip(parts, follower.parameters(), leader.parameters(), strict=True):
            torch.testing.assert_close(target, was + 0.25 * (network - was))
    assert float(learner.policy.noise) == pytest.approx(0.1 + 0.4 * math.exp(-0.5))
    seed = learner.rng.get_state()
    loss = learner.policy_loss(rows)
    learner.policy_optim.step(loss.sum())
    learner.rng.set_state(seed)
    assert bool((learner.policy_loss(rows) < loss).all())


# ---------------------------------------------------------------- what is known


class Given(nn.Module):
    """Critics that are a formula of (obs, a, a-) for two agents."""

    def __init__(self, formula: Any) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, inputs: Tensor, *, frozen: bool = False) -> Tensor:
        found: Tensor = self.formula(inputs[..., 1], inputs[..., 2])[..., None]
        return found


def test_a_sampler_learns_the_reaction_to_a_quadratic() -> None:
    """rho* is then normal around half the own action, but for the box."""
    learner = PR2(PAIR, PR2Config(hidden=(32,), temperature=Annealing(end=0.2)), generator(0), generator(1))
    learner.critic = nn.ModuleList([Given(lambda a, b: -4 * (b - 0.5 * a) ** 2)])
    rng = generator(2)
    for _ in range(500):
        act = torch.rand(64, 2, generator=rng) * 2 - 1
        loss = learner.reaction_loss(one_step_rows(PAIR, torch.ones(64, 1), act))
        learner.reaction_optim.step(loss.sum())
    probe = torch.linspace(-0.8, 0.8, 5)[None, :, None].expand(2, -1, -1)
    drawn = learner.reactions.sample(torch.ones(5, 1), [probe], 2_000, rng)[0].detach().tanh()
    torch.testing.assert_close(drawn.mean(2)[..., 0], 0.5 * probe[..., 0], rtol=0, atol=0.06)
    spread = (0.2 / 8) ** 0.5
    torch.testing.assert_close(drawn.std(2)[..., 0], torch.full((2, 5), spread), rtol=0.25, atol=0)


def test_a_policy_finds_the_best_action_against_its_best_reaction() -> None:
    """`Q = -(a - 0.6)^2 - (b + a)^2`: if the other answers `b = -a`, a = 0.6 is best; against b = 0 it would be 0.3."""
    learner = PR2(PAIR, PR2Config(hidden=(32,), temperature=Annealing(end=0.02)), generator(0), generator(1))
    learner.critic = nn.ModuleList([Given(lambda a, b: -((a - 0.6) ** 2) - (b + a) ** 2)])
    rng = generator(2)
    for _ in range(400):
        act = torch.rand(64, 2, generator=rng) * 2 - 1
        rows = one_step_rows(PAIR, torch.ones(64, 1), act)
        learner.reaction_optim.step(learner.reaction_loss(rows).sum())
        learner.policy_optim.step(learner.policy_loss(rows).sum())
    greedy = learner.policy.step(None, View.of(PAIR, torch.ones(1, 1)), None)[1]
    torch.testing.assert_close(greedy, torch.full((1, 2), 0.6), rtol=0, atol=0.08)


@pytest.mark.parametrize("smoothed", [True, False])
def test_noise_that_shrinks_leads_to_a_hill_that_no_slope_tells_of(smoothed: bool) -> None:
    """A steep hill at 0.7 of height 1, and a wide one at -0.6 whose slope reaches as far as 0.25."""
    config = PR2Config(
        hidden=(32,), temperature=Annealing(end=0.02), noise=Annealing(end=0.02, extra=0.5, rate=0.05, wait=200),
        smoothed=smoothed, shrinkage=0.05,
    )  # fmt: skip
    learner = PR2(PAIR, config, generator(0), generator(1))
    with torch.no_grad():  # begin in the middle
        for parameter in learner.policy.actors.parameters():
            parameter.mul_(0.3)
    learner.critic = nn.ModuleList([Given(
        lambda a, b: torch.maximum(1 - 8 * (a - 0.7) ** 2, -((a + 0.6) ** 2)) - (b + a) ** 2
    )])  # fmt: skip
    rng = generator(2)
    for step in range(400):
        act = torch.rand(64, 2, generator=rng) * 2 - 1
        rows = one_step_rows(PAIR, torch.ones(64, 1), act)
        learner.reaction_optim.step(learner.reaction_loss(rows).sum())
        learner.policy_optim.step(learner.policy_loss(rows).sum())
        learner.policy.noise.fill_(config.noise.at(step))
    greedy = learner.policy.step(None, View.of(PAIR, torch.ones(1, 1)), None)[1]
    torch.testing.assert_close(greedy, torch.full((1, 2), 0.7 if smoothed else -0.6), rtol=0, atol=0.1)


# ---------------------------------------------------------------- acting


def test_actions_are_noisy_where_they_explore_and_stay_in_their_box() -> None:
    spec = boxes()
    policy = built(spec).policy
    view = random_view(spec, 4_000, generator(4), torch.float64)
    view = replace(view, obs=view.obs[:1].expand(4_000, -1))
    policy.noise.fill_(0.05)
    greedy, noisy = policy.step(None, view, None)[1], policy.step(policy.init(None), view, generator(0))[1]  # type: ignore[arg-type]
    loop = Loop(built(spec))
    for agent in range(spec.n):
        torch.testing.assert_close(greedy[:, spec.act[agent]], loop.act("actor", agent, view))
    for act in (greedy, noisy):
        spec.check_action(act, view.acting)
    acts = view.acting.repeat_interleave(torch.tensor([1, 2, 1]), 1)
    assert float((noisy - greedy)[acts].std()) == pytest.approx(0.05, rel=0.05)
    policy.noise.fill_(30.0)
    spec.check_action(policy.step(None, view, generator(0))[1], view.acting)
    asked = built(boxes(flags=False)).float().policy
    act = asked(Batch(obs=view.obs[:3].numpy(), info={})).act
    assert torch.equal(act, asked.step(None, View.of(boxes(flags=False), view.obs[:3].float()), None)[1])


def test_nothing_that_is_biased_gives_probabilities_of_what_others_do() -> None:
    learner = built(boxes())
    assert not any(hasattr(part, "log_prob") for part in (learner, learner.policy, learner.reactions))


# ---------------------------------------------------------------- as a method


def test_the_same_seed_gives_the_same_parameters() -> None:
    def found(seed: int) -> list[Tensor]:
        rules = TwoQuadratics()
        dyna = TINY.build(rules.spec, streams(seed), CPU)
        played(dyna, BatchedGame(rules, 4), 60, seed=seed)
        return list(dyna.learner.parameters())

    first, again, other = (found(seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    "game",
    [
        GameConfig(name="toy/two_quadratics", copies=4, options={"episode_limit": 5}),
        GameConfig(name="toy/cycle", copies=4, options={"mixed": True}),
    ],
    ids=["two_quadratics", "cycle"],
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, game: GameConfig) -> None:
    assert_resumes(scenario(TINY, game), tmp_path)


def test_what_does_not_suit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loop.real_share=0\.5 must be 1"):
        PR2Config(loop=DynaConfig(real_share=0.5))
    with pytest.raises(ValueError, match="learning_rate=0 must be > 0"):
        PR2Config(learning_rate=0)
    with pytest.raises(ValueError, match="target_rate=0 in"):
        PR2Config(target_rate=0)
    with pytest.raises(ValueError, match="shrinkage=-1 must be >= 0"):
        PR2Config(shrinkage=-1)
    with pytest.raises(ValueError, match="average='hard' must be 'soft' or 'plain'"):
        PR2Config(average="hard")  # type: ignore[arg-type]
    for numbers in ({"value_samples": 0}, {"particles": 3, "moved_share": 0.9}, {"moved_share": 0.0}):
        with pytest.raises(ValueError, match="must move at least one and leave at least two"):
            PR2Config(**numbers)
    mixed = replace(PAIR, agents=(box_agent("a", (0,), 1), discrete_agent("b", (0,), 2)))
    with pytest.raises(GameError, match="PR2-AC takes box actions, but b of 'pair'"):
        PR2Config().build(mixed, streams(0), CPU)
    with pytest.raises(GameError, match="rows of single egos"):
        improve(built(boxes()), random_rows(boxes(), 6, seed=0, dtype=torch.float64, egos="own"))
