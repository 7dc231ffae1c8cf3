"""MASAC against tianshou's SAC, against a loop over agents, and on rows whose effect is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from tianshou.algorithm.modelfree.sac import SAC
from torch import Tensor, nn

from presage.common.game import ALL_AGENTS, GameError, GameSpec, Rows, View, concatenate
from presage.common.learner_state import learner_state, restore_learner
from presage.common.networks import StackedLinear
from presage.common.policy import JointPolicy
from presage.marl.masac import MASAC, AgentRows, MASACConfig, Teammates
from tests.common.plain_sac import plain_sac, python_returns
from tests.common.tiny_runs import improve
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.masac_loop import Loop, where
from tests.marl.sample_games import (
    Egos,
    motley,
    one_step_rows,
    random_rows,
    random_view,
    stack,
)

Gradient = Literal["gumbel", "expectation"]
Critic = Literal["joint", "own"]


def agent_rows(learner: MASAC, rows: Rows) -> tuple[Rows, AgentRows]:
    """The rows as an update sees them, and which of them each agent uses."""
    found = AgentRows.of_rows(rows, learner.spec.n)
    return found.spread(rows, learner.spec.n) if learner.teammates is not None else (rows, found)


def parameters(learner: MASAC) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learner.parameters()]


# ---------------------------------------------------------------- tianshou's SAC


def layers(network: Any) -> list[StackedLinear]:
    return [layer for layer in network.layers if isinstance(layer, StackedLinear)]


def copy_into(network: nn.Module, index: int, linears: Sequence[nn.Linear]) -> None:
    """Write the weights of plain layers into network `index` of a stacked one."""
    for layer, linear in zip(layers(network), linears, strict=True):
        with torch.no_grad():
            layer.weight[index].copy_(linear.weight.T)
            layer.bias[index, 0].copy_(linear.bias)


def linears_of(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def test_one_agent_equals_tianshou_sac_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    python_returns(monkeypatch)
    spec = GameSpec(name="one", agents=(box_agent("a", range(5), 3),), obs_dim=5, terminates=True)
    config = MASACConfig(hidden=(32, 16), learning_rate=3e-3, discount=0.97, target_rate=0.02)
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        sac = plain_sac(SAC, spec, config, config.initial_temperature, target_entropy=-3.0)
        ours = MASAC(spec, config, generator(1), generator(7)).double()
    finally:
        torch.set_default_dtype(previous)
    *body, mean, log_sigma = linears_of(sac.policy.actor)
    head = nn.Linear(16, 6, dtype=torch.float64)
    head.weight.data = torch.cat([mean.weight, log_sigma.weight])
    head.bias.data = torch.cat([mean.bias, log_sigma.bias])
    copy_into(ours.policy.actors[0], 0, [*body, head])
    for stacks in (ours.critic, ours.critic_old):
        for index, critic in enumerate((sac.critic, sac.critic2)):
            copy_into(stacks[0], index, linears_of(critic))

    torch.manual_seed(7)  # tianshou draws from the global generator what ours draws from its own
    for step in range(100):
        rows = random_rows(spec, 32, seed=step, dtype=torch.float64)
        for learner in (sac, ours):
            improve(learner, rows)
    for index, critic in enumerate((sac.critic, sac.critic2)):
        for layer, linear in zip(layers(ours.critic[0]), linears_of(critic), strict=True):
            torch.testing.assert_close(layer.weight[index], linear.weight.T, rtol=0, atol=1e-9)
    for layer, linear in zip(layers(ours.policy.actors[0])[:-1], body, strict=True):
        torch.testing.assert_close(layer.weight[0], linear.weight.T, rtol=0, atol=1e-9)
    last = layers(ours.policy.actors[0])[-1].weight[0]
    torch.testing.assert_close(last, torch.cat([mean.weight, log_sigma.weight]).T, rtol=0, atol=1e-9)
    assert float(ours.alpha[0]) == pytest.approx(sac.alpha.value, abs=1e-9)


# ---------------------------------------------------------------- a loop over agents


def scripted_teammates(spec: GameSpec) -> Teammates:
    """Another joint policy for every ego, greedy: what an ego's opponent models would say."""
    models = [JointPolicy(spec, (8,), generator(100 + ego), generator(0)).double() for ego in range(spec.n)]

    def speak(view: View, ego: Tensor) -> Tensor:
        acts = torch.zeros(len(view), spec.act_dim, dtype=torch.float64)
        for number in set(ego.tolist()):
            rows = ego == number
            acts[rows] = models[number].step(None, view[rows], None)[1]
        return acts

    return speak


def built(
    spec: GameSpec, seed: int = 0, teammates: Teammates | None = None, dtype: torch.dtype = torch.float64, **config: Any
) -> MASAC:
    learner = MASAC(
        spec, MASACConfig(**({"hidden": (12, 8)} | config)), generator(seed), generator(seed + 1), teammates=teammates
    )
    with torch.no_grad():  # one temperature each, and targets that differ from the critics
        learner.log_alpha.add_(torch.linspace(-0.5, 0.5, spec.n))
        for parameter in learner.critic_old.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(seed + 2)))
    return learner.to(dtype)


def assert_gradients(stacked: nn.ModuleList, loop: Loop, plain: dict[int, list[nn.Sequential]]) -> None:
    """The gradient of every network in the stacks is that of the plain one."""
    for agent, (k, p) in loop.place.items():
        network, size = stack(stacked, k), len(loop.learner.groups[k].agents)
        for m, member in enumerate(plain[agent]):
            for layer, linear in zip(layers(network), linears_of(member), strict=True):
                assert layer.weight.grad is not None
                assert linear.weight.grad is not None
                torch.testing.assert_close(layer.weight.grad[m * size + p], linear.weight.grad.T)


@pytest.mark.parametrize("egos", ["none", "own", "mixed"])
@pytest.mark.parametrize("models", [False, True], ids=["policies", "models"])
@pytest.mark.parametrize("gradient", ["gumbel", "expectation"])
@pytest.mark.parametrize("critic", ["joint", "own"])
def test_targets_losses_and_gradients_equal_a_loop_over_agents(
    critic: Critic, gradient: Gradient, models: bool, egos: Egos
) -> None:
    spec = motley()
    learner = built(
        spec, teammates=scripted_teammates(spec) if models else None, critic=critic, discrete_gradient=gradient
    )
    rows = random_rows(spec, 40, seed=3, dtype=torch.float64, egos=egos)
    seen, used = agent_rows(learner, rows)

    learner.rng.manual_seed(11)
    targets = learner.targets(seen, used)
    loop = Loop(learner, seed=11)
    expected = loop.targets(rows)
    assert targets.shape == (spec.n, 40 if egos == "none" else 16 if egos == "mixed" else 10)
    torch.testing.assert_close(targets, expected)

    losses = learner.critic_loss(seen, used, targets)
    plain = loop.critic_losses(rows, expected)
    torch.testing.assert_close(losses, torch.stack(plain))
    torch.autograd.backward(losses.sum())
    torch.autograd.backward(plain)
    assert_gradients(learner.critic, loop, loop.critics)

    learner.zero_grad()
    losses, entropies = learner.policy_loss(seen, used)
    plain, spreads = loop.policy_losses(rows)
    torch.testing.assert_close(losses, torch.stack(plain))
    torch.testing.assert_close(entropies, torch.stack(spreads))
    torch.autograd.backward(losses.sum())
    torch.autograd.backward(plain)
    assert_gradients(learner.policy.actors, loop, {agent: [actor] for agent, actor in loop.actors.items()})
    assert all(parameter.grad is None for parameter in learner.critic.parameters())


@pytest.mark.parametrize("models", [False, True], ids=["policies", "models"])
def test_an_update_descends_on_these_losses(models: bool) -> None:
    spec = motley()
    learner = built(spec, teammates=scripted_teammates(spec) if models else None, learning_rate=1e-4)
    rows = random_rows(spec, 40, seed=3, dtype=torch.float64, egos="mixed")
    learner.rng.manual_seed(11)
    loop = Loop(learner, seed=11)
    targets = loop.targets(rows)
    losses = torch.stack(loop.critic_losses(rows, targets))
    improve(learner, rows)
    torch.testing.assert_close(learner.metrics["target"], targets.mean(1))
    torch.testing.assert_close(learner.metrics["critic_loss"], losses.detach())
    after = Loop(learner, seed=0)
    assert bool((torch.stack(after.critic_losses(rows, targets)) < losses).all())
    # policies and temperatures before the update, critics after theirs
    after.actors, after.alpha, after.rng = loop.actors, loop.alpha, loop.rng
    before, entropies = after.policy_losses(rows)
    torch.testing.assert_close(learner.metrics["policy_loss"], torch.stack(before).detach())
    torch.testing.assert_close(learner.metrics["entropy"], torch.stack(entropies))


def test_a_policy_loss_by_expectation_is_the_mean_over_samples() -> None:
    spec = motley(flags=False)
    rows = random_rows(spec, 1, seed=5, dtype=torch.float64)
    exact, sampled = (
        built(spec, teammates=scripted_teammates(spec), discrete_gradient=gradient)
        for gradient in ("expectation", "gumbel")
    )
    losses = exact.policy_loss(*agent_rows(exact, rows))[0]
    seen, used = agent_rows(sampled, concatenate([rows] * 20_000))
    values = sampled._soft_values(sampled.critic, used, seen.view, seen.ego)[0].detach()
    for agent in (agent for agent in range(spec.n) if spec.agents[agent].discrete):
        error = float(values[agent].std()) / math.sqrt(20_000)
        assert error > 1e-5
        assert float(values[agent].mean()) == pytest.approx(-float(losses[agent].detach()), abs=4 * error)


# ---------------------------------------------------------------- flags


def test_an_idle_agent_has_the_zero_action_and_no_entropy_at_the_next_state() -> None:
    spec = motley()
    for gradient in ("gumbel", "expectation"):
        learner = built(spec, discrete_gradient=gradient, discount=1.0)
        rows = random_rows(spec, 30, seed=1, dtype=torch.float64)
        nobody = torch.zeros_like(rows.next_acting)
        rows = rows.with_(next_acting=nobody, reward=torch.zeros_like(rows.reward), terminated=nobody)
        targets = learner.targets(*agent_rows(learner, rows))
        loop = Loop(learner, seed=0)
        zeros = torch.zeros(30, spec.act_dim, dtype=torch.float64)
        for agent in range(spec.n):
            values = torch.minimum(*(loop.q(agent, critic, rows.next_obs, zeros) for critic in loop.old[agent]))
            torch.testing.assert_close(targets[agent], values.detach())


def test_an_agent_that_never_acts_leaves_its_policy_and_temperature_alone() -> None:
    spec = motley()
    learner = built(spec)
    rows = random_rows(spec, 30, seed=1, dtype=torch.float64)
    acting = rows.acting.clone()
    acting[:, 0] = False
    before = Loop(learner, seed=0)
    alpha = learner.alpha.clone()
    improve(learner, rows.with_(acting=acting))
    after = Loop(learner, seed=0)
    unchanged = [same(before.actors[agent], after.actors[agent]) for agent in range(spec.n)]
    assert unchanged == [True, False, False, False]
    assert (learner.alpha == alpha).tolist() == [True, False, False, False]
    assert not same(before.critics[0][0], after.critics[0][0])  # its value goes on
    assert float(learner.metrics["policy_loss"][0]) == 0


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_idle_rows_enter_no_policy_loss() -> None:
    spec = motley()
    learner = built(spec, teammates=scripted_teammates(spec))
    rows = random_rows(spec, 30, seed=1, dtype=torch.float64)
    busy = [*where(rows.acting[:, 2])]
    learner.rng.manual_seed(4)
    seen, used = agent_rows(learner, rows)
    loss = learner.policy_loss(seen, used)[0][2]
    idle = ~rows.acting[:, [2]]
    changed = rows.with_(obs=torch.where(idle, 9.0, rows.obs))
    learner.rng.manual_seed(4)
    seen, used = agent_rows(learner, changed)
    assert 0 < len(busy) < 30
    assert torch.equal(learner.policy_loss(seen, used)[0][2], loss)


@pytest.mark.parametrize("gradient", ["gumbel", "expectation"])
def test_a_single_legal_choice_is_taken_for_certain(gradient: Gradient) -> None:
    spec = motley()
    # a large temperature: an illegal entry's log-probability must not reach the value through 0 times infinity
    learner = built(spec, discrete_gradient=gradient, temperature=50.0)
    rows = random_rows(spec, 20, seed=2, dtype=torch.float64)
    legal = torch.zeros_like(rows.next_legal)
    forced = torch.zeros(20, spec.act_dim, dtype=torch.float64)
    for _, head, place in spec.heads:
        legal[:, place] = head.kind == "box"
        if head.kind == "discrete":
            legal[:, place.stop - 1] = True
            forced[:, place.stop - 1] = 1
    flags = torch.zeros_like(rows.next_acting)
    acting = torch.tensor([agent.discrete for agent in spec.agents]).expand(20, -1)
    rows = rows.with_(next_legal=legal, terminated=flags, next_acting=acting)
    targets = learner.targets(*agent_rows(learner, rows))
    loop = Loop(learner, seed=0)
    for agent in where(acting[0]):
        value = torch.minimum(*(loop.q(agent, critic, rows.next_obs, forced) for critic in loop.old[agent]))
        torch.testing.assert_close(targets[agent], (rows.reward[:, agent] + 0.95 * value).detach())


def test_termination_stops_the_bootstrap_of_its_agent_and_truncation_stops_none() -> None:
    spec = motley()
    learner = built(spec, teammates=scripted_teammates(spec))
    rows = random_rows(spec, 30, seed=1, dtype=torch.float64)

    def targets(rows: Rows) -> Tensor:
        learner.rng.manual_seed(0)
        return learner.targets(*agent_rows(learner, rows))

    found = targets(rows)
    assert torch.equal(targets(rows.with_(truncated=torch.ones(30, dtype=torch.bool))), found)
    assert torch.equal(found == rows.reward.T, rows.terminated.T)
    second = torch.zeros_like(rows.terminated)
    second[:, 1] = True
    moved = targets(rows.with_(terminated=second))
    alive = ~rows.terminated.T
    assert torch.equal(moved[1], rows.reward[:, 1])
    assert torch.equal(moved[0][alive[0]], found[0][alive[0]])


def test_a_changed_reward_moves_the_target_of_its_agent() -> None:
    spec = motley()
    learner = built(spec, teammates=scripted_teammates(spec))
    rows = random_rows(spec, 30, seed=1, dtype=torch.float64)
    more = rows.reward.clone()
    more[:, 3] += 100
    found = []
    for changed in (rows, rows.with_(reward=more)):
        learner.rng.manual_seed(0)
        found.append(learner.targets(*agent_rows(learner, changed)))
    moved = found[1] - found[0]
    torch.testing.assert_close(moved, torch.tensor([0.0, 0, 0, 100])[:, None].expand(-1, 30).double())


# ---------------------------------------------------------------- egos


@pytest.mark.parametrize("models", [False, True], ids=["policies", "models"])
def test_rows_of_another_ego_change_nothing_for_this_agent(models: bool) -> None:
    spec = motley()
    rows = random_rows(spec, 50, seed=2, dtype=torch.float64, egos="mixed")
    other = random_rows(spec, 50, seed=9, dtype=torch.float64)
    theirs = rows.ego == 2
    changed = Rows(
        **{
            name: torch.where(theirs.view(-1, *[1] * (value.ndim - 1)), getattr(other, name), value)
            for name, value in vars(rows).items()
            if name != "ego"
        },
        ego=rows.ego,
    )
    learners = [built(spec, teammates=scripted_teammates(spec) if models else None) for _ in range(2)]
    for learner, batch in zip(learners, (rows, changed), strict=True):
        improve(learner, batch)
    one, two = (Loop(learner, seed=0) for learner in learners)
    assert [same(one.actors[agent], two.actors[agent]) for agent in range(4)] == [True, True, False, True]
    for m in range(2):
        assert [same(one.critics[agent][m], two.critics[agent][m]) for agent in range(4)] == [True, True, False, True]
    assert (learners[0].alpha == learners[1].alpha).tolist() == [True, True, False, True]


def test_rows_for_everybody_and_rows_of_one_ego_are_told_apart() -> None:
    spec = motley()
    rows = random_rows(spec, 10, seed=0, egos="mixed")
    found = AgentRows.of_rows(rows, 4)
    assert found.length == 4
    assert found.index is not None
    for agent in range(4):
        assert found.index[agent].tolist() == [*where(rows.ego == ALL_AGENTS), *where(rows.ego == agent)]
    spread, places = found.spread(rows, 4)
    assert spread.ego.tolist() == [agent for agent in range(4) for _ in range(4)]
    assert torch.equal(spread.obs, rows.obs[found.index.flatten()])
    assert torch.equal(places.of_agent(spread.reward), found.of_agent(rows.reward))
    everybody = AgentRows.of_rows(random_rows(spec, 10, seed=0), 4)
    assert everybody.index is None
    assert everybody.length == 10


def test_unequal_numbers_of_rows_are_refused() -> None:
    spec = motley()
    rows = random_rows(spec, 9, seed=0, egos="own")
    with pytest.raises(GameError, match=r"equally many rows for every ego, got \[3, 2, 2, 2\]"):
        improve(built(spec), rows)
    with pytest.raises(GameError, match=r"got \[4, 0, 0, 0\]"):
        AgentRows.of_rows(random_rows(spec, 4, seed=0).with_(ego=torch.zeros(4, dtype=torch.int16)), 4)


# ---------------------------------------------------------------- targets of the critics, temperature


def test_targets_follow_the_critics_at_their_rate_and_pace() -> None:
    spec = motley()
    learner = built(spec, target_rate=0.25, target_every=3)
    for step in range(1, 7):
        old = [parameter.clone() for parameter in learner.critic_old.parameters()]
        improve(learner, random_rows(spec, 20, seed=step, dtype=torch.float64))
        for before, now, critic in zip(old, learner.critic_old.parameters(), learner.critic.parameters(), strict=True):
            expected = before + 0.25 * (critic - before) if step % 3 == 0 else before
            torch.testing.assert_close(now, expected)


def bandit(rewards: Tensor, copies: int = 8) -> Rows:
    """One-step episodes of one agent whose every action is tried equally often."""
    acts = torch.eye(len(rewards)).repeat(copies, 1)
    rows = one_step_rows(bandit_spec(len(rewards)), torch.ones(len(acts), 1), acts)
    return rows.with_(reward=(acts @ rewards)[:, None])


def bandit_spec(actions: int) -> GameSpec:
    return GameSpec(name="bandit", agents=(discrete_agent("a", (0,), actions),), obs_dim=1, terminates=True)


def bandit_learner(**config: Any) -> MASAC:
    return MASAC(bandit_spec(5), MASACConfig(**({"hidden": (16,)} | config)), generator(0), generator(1))


def chances(learner: MASAC) -> Tensor:
    return learner.policy.parameters_of(View.of(learner.spec, torch.ones(1, 1)))[0].detach().flatten().softmax(0)


def test_the_released_entropy_target_lets_the_temperature_fall() -> None:
    learner = bandit_learner(
        learning_rate=0.01, initial_temperature=1.0, entropy_target="width", discrete_gradient="expectation"
    )
    assert learner.target_entropy.tolist() == [-5.0]
    found = {}
    for update in range(1, 501):
        improve(learner, bandit(torch.zeros(5)))
        found[update] = float(learner.alpha[0])
    assert [found[k] for k in (100, 300, 500)] == pytest.approx([math.exp(-k) for k in (1, 3, 5)], rel=0.02)


def test_a_learned_temperature_brings_the_entropy_to_its_target() -> None:
    rewards = torch.linspace(0, 1, 5)

    def entropy(chance: Tensor) -> float:
        return -float((chance * chance.log()).sum())

    low, high = 1e-3, 10.0  # the soft-optimal policy softmax(r / alpha) has half the maximum entropy at one alpha
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy((rewards / middle).softmax(0)) < 0.5 * math.log(5) else (low, middle)
    learner = bandit_learner(learning_rate=0.02, discrete_entropy_share=0.5, discrete_gradient="expectation")
    for _ in range(300):
        improve(learner, bandit(rewards))
    assert float(learner.metrics["entropy"][0]) == pytest.approx(0.5 * math.log(5), rel=0.02)
    assert float(learner.alpha[0]) == pytest.approx(low, rel=0.05)
    torch.testing.assert_close(chances(learner), (rewards / low).softmax(0), rtol=0, atol=0.02)


@pytest.mark.parametrize("gradient", ["gumbel", "expectation"])
def test_entropy_alone_makes_the_policy_uniform(gradient: Gradient) -> None:
    learner = bandit_learner(learning_rate=0.03, temperature=1.0, discrete_gradient=gradient)
    with torch.no_grad():
        layers(learner.policy.actors[0])[-1].bias[0, 0, 0] += 4
    assert float(chances(learner)[0]) > 0.9
    for _ in range(80):
        improve(learner, bandit(torch.zeros(5)))
    torch.testing.assert_close(chances(learner), torch.full((5,), 0.2), rtol=0, atol=0.05)


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("gradient", ["gumbel", "expectation"])
def test_two_agents_find_the_best_cell_of_a_matrix_game(gradient: Gradient) -> None:
    payoff = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0], [6.0, 1.0, 4.0]])
    agents = (discrete_agent("row", (0,), 3), discrete_agent("column", (0,), 3))
    spec = GameSpec(name="matrix", agents=agents, obs_dim=1, terminates=True)
    cells = torch.tensor(list(itertools.product(range(3), range(3)))).repeat(8, 1)
    acts = torch.cat([torch.eye(3)[cells[:, agent]] for agent in range(2)], 1)
    rows = one_step_rows(spec, torch.ones(len(acts), 1), acts)
    rows = rows.with_(reward=payoff[cells[:, 0], cells[:, 1]][:, None].expand(-1, 2))
    config = MASACConfig(hidden=(32,), learning_rate=0.02, discrete_gradient=gradient, temperature=0.1)
    learner = MASAC(spec, config, generator(0), generator(1))
    for _ in range(150):
        improve(learner, rows)
    greedy = learner.policy.step(None, View.of(spec, torch.ones(1, 1)), None)[1]
    assert greedy.tolist() == [[0, 0, 1, 1, 0, 0]]
    loop = Loop(learner, seed=0)
    for agent, critic in itertools.product(range(2), range(2)):
        torch.testing.assert_close(
            loop.q(agent, loop.critics[agent][critic], rows.obs, rows.act), rows.reward[:, 0], rtol=0, atol=0.3
        )


def test_two_agents_find_the_optimum_of_a_quadratic() -> None:
    spec = GameSpec(name="bowl", agents=(box_agent("a", (0,), 1), box_agent("b", (1,), 1)), obs_dim=2, terminates=True)
    config = MASACConfig(hidden=(32, 32), activation="silu", learning_rate=0.01, temperature=0.005)
    learner = MASAC(spec, config, generator(1), generator(2))
    rng = generator(3)

    def best(obs: Tensor) -> Tensor:
        return obs * torch.tensor([0.6, -0.4])

    for _ in range(250):
        obs, act = (torch.rand(2, 128, 2, generator=rng) * 2 - 1).unbind()
        off = act - best(obs)  # the reward couples the agents: x^2 + x y + y^2
        reward = -off.square().sum(1) - off.prod(1)
        improve(learner, one_step_rows(spec, obs, act).with_(reward=reward[:, None].expand(-1, 2)))
    probe = torch.rand(200, 2, generator=rng) * 2 - 1
    found = learner.policy.step(None, View.of(spec, probe), None)[1]
    assert float((found - best(probe)).abs().mean()) < 0.04
    assert float((found - best(probe)).abs().max()) < 0.1


# ---------------------------------------------------------------- repeatability


def trained(steps: Sequence[int], learner: MASAC) -> MASAC:
    for step in steps:
        improve(learner, random_rows(learner.spec, 30, seed=step, dtype=torch.float64, egos="mixed"))
    return learner


def test_the_same_seed_gives_the_same_parameters() -> None:
    first, again, other = (trained(range(4), built(motley(), seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(parameters(first), parameters(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(parameters(first), parameters(other), strict=True))


def test_a_restored_learner_goes_on_bit_for_bit() -> None:
    def fresh(seed: int) -> MASAC:
        return built(motley(), seed, scripted_teammates(motley()), target_every=2)

    whole = trained(range(3), fresh(0))
    saved = learner_state(whole)
    resumed = fresh(5)
    restore_learner(resumed, saved)
    trained(range(3, 6), whole)
    trained(range(3, 6), resumed)
    assert all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(resumed), strict=True))
    assert all(torch.equal(whole.metrics[name], value) for name, value in resumed.metrics.items())
    probe = random_view(whole.spec, 20, generator(0), torch.float64)
    answers = [learner.policy.step(None, probe, learner.rng)[1] for learner in (whole, resumed)]
    assert torch.equal(*answers)


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MASACConfig(discount=1.1), "discount=1.1"),
        (lambda: MASACConfig(target_rate=0.0), "target_rate=0.0"),
        (lambda: MASACConfig(target_every=0), "target_every=0"),
        (lambda: MASACConfig(learning_rate=-1.0), "learning_rate=-1.0"),
        (lambda: MASACConfig(initial_temperature=0.0), "initial_temperature=0.0"),
        (lambda: MASACConfig(temperature=-0.1), "temperature=-0.1"),
        (lambda: MASACConfig(discrete_entropy_share=1.0), "discrete_entropy_share=1.0"),
    ],
)
def test_contradictions_are_named(build: Callable[[], MASACConfig], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_entropy_targets_by_agent() -> None:
    agents = motley().agents
    share = MASACConfig(discrete_entropy_share=0.5)
    assert [share.target_of(agent) for agent in agents] == pytest.approx(
        [0.5 * math.log(4), -2, 0.5 * math.log(4), 0.5 * math.log(6)]
    )
    assert [MASACConfig(entropy_target="width").target_of(agent) for agent in agents] == [-4, -2, -4, -5]
