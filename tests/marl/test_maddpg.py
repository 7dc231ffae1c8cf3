"""MADDPG against DDPG, against a loop over agents and models, and on games whose optimum is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tianshou.algorithm.modelfree.ddpg import ContinuousDeterministicPolicy
from tianshou.data import Batch
from torch import Tensor

from presage.common.agent import load
from presage.common.ddpg import DDPGConfig, build_ddpg
from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import GameError, GameSpec, Rows, View
from presage.common.learner_state import learner_state, restore_learner
from presage.common.metrics import METRICS_FILE, read_metrics
from presage.common.replay import Replay
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from presage.common.worlds import GivenWorld
from presage.envs.batched import BatchedGame, Rules, RulesKernel
from presage.envs.toy import MatrixGame, TwoQuadratics
from presage.marl.aorpo import AdaptiveOpponents
from presage.marl.fresh_rows import FreshRows
from presage.marl.maddpg import MADDPG, Inferring, MADDPGConfig
from presage.marl.masac import AgentRows
from presage.marl.opponents.annealing import Annealing
from presage.marl.opponents.policy_inference import PolicyInferenceConfig
from tests.common.tiny_runs import AORPO, LOOP, PARTICLE, assert_resumes, improve, played, scenario
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.maddpg_loop import Loop
from tests.marl.sample_games import Egos, boxes, motley, one_step_rows, random_rows, random_view, stack

CPU = torch.device("cpu")
ARMS: dict[str, dict[str, Any]] = {
    "true": {},
    "true_probabilities": {"critic_input": "probabilities"},
    "inferred": {"policies": "inferred"},
    "inferred_probabilities": {"policies": "inferred", "critic_input": "probabilities"},
    "own": {"critic": "own"},
}
TINY = MADDPGConfig(
    hidden=(8,), loop=replace(LOOP, real_share=1.0), inference=PolicyInferenceConfig(hidden=(8,), window=8)
)


def built(spec: GameSpec, seed: int = 0, **config: Any) -> MADDPG:
    own: dict[str, Any] = {"hidden": (12, 8), "inference": PolicyInferenceConfig(hidden=(10,), entropy_bonus=0.05)}
    learner = MADDPG(spec, MADDPGConfig(**(own | config)), generator(seed), generator(seed + 1))
    moved = [learner.critic_old, learner.actors_old]
    if learner.models is not None:
        moved.append(learner.models.networks_old)
    with torch.no_grad():  # targets that differ
        for network in moved:
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(seed + 2)))
    return learner.double()


def collected(method: MADDPGConfig, rules: Rules, *, copies: int, steps: int) -> Dyna:
    dyna = method.build(rules.spec, streams(0), CPU)
    played(dyna, BatchedGame(rules, copies), steps)
    return dyna


def parameters(learner: MADDPG) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learner.parameters()]


# ---------------------------------------------------------------- DDPG


def test_one_agent_with_box_actions_is_ddpg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ContinuousDeterministicPolicy, "_compile", staticmethod(lambda: None))  # takes too long
    spec = GameSpec(name="one", agents=(box_agent("a", range(5), 3),), obs_dim=5, terminates=True)
    numbers = DDPGConfig(
        hidden=(16, 8), learning_rate=3e-3, critic_rate=3e-3, discount=0.97, target_rate=0.02, target_every=1,
        action_penalty=0.0,
    )  # fmt: skip
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        compare_with_ddpg(spec, numbers)
    finally:
        torch.set_default_dtype(previous)


def compare_with_ddpg(spec: GameSpec, numbers: DDPGConfig) -> None:
    theirs = build_ddpg(spec, numbers, generator(1))[0]
    config = MADDPGConfig(
        hidden=(16, 8), learning_rate=3e-3, discount=0.97, target_rate=0.02, shrinkage=0.0, gradient_clip=None
    )
    ours = MADDPG(spec, config, generator(1), generator(2))
    for step in range(50):
        rows = random_rows(spec, 32, seed=step, dtype=torch.float64)
        for learner in (theirs, ours):
            improve(learner, rows)
    pairs = ((ours.policy.actors, theirs.policy.actor), (ours.critic, theirs.critic),
             (ours.actors_old, theirs.actor_old), (ours.critic_old, theirs.critic_old))  # fmt: skip
    for mine, other in pairs:
        for one, two in zip(mine.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


# ---------------------------------------------------------------- a loop over agents


@pytest.mark.parametrize("egos", ["none", "mixed"])
@pytest.mark.parametrize("flags", [True, False], ids=["flags", "plain"])
@pytest.mark.parametrize("arm", ARMS)
def test_updates_equal_a_loop_over_agents_and_models(arm: str, flags: bool, egos: Egos) -> None:
    spec = motley(flags=flags)
    learner = built(spec, gradient_clip=0.02, shrinkage=0.3, **ARMS[arm])
    learner.rng.manual_seed(11)
    loop = Loop(learner, seed=11)
    for step in range(3):
        newest = random_rows(spec, 15, seed=100 + step, dtype=torch.float64)
        rows = random_rows(spec, 30, seed=step, dtype=torch.float64, egos=egos)
        if learner.models is not None:
            nll, entropy = loop.follow(newest)
            learner.follow(newest)
            for (ego, agent), value in nll.items():
                assert float(learner.inferred["nll"][ego, agent]) == pytest.approx(value)
                assert float(learner.inferred["entropy"][ego, agent]) == pytest.approx(entropy[ego, agent])
        targets, critic_losses, policy_losses = loop.update(rows)
        improve(learner, rows)
        torch.testing.assert_close(learner.metrics["target"], torch.stack(targets).mean(1))
        torch.testing.assert_close(learner.metrics["critic_loss"], torch.stack(critic_losses).detach())
        torch.testing.assert_close(learner.metrics["policy_loss"], torch.stack(policy_losses).detach())
    after = Loop(learner, seed=0)
    for name in ("actors", "actors_old", "critics", "critics_old", "models", "models_old"):
        found, expected = getattr(after, name), getattr(loop, name)
        assert found.keys() == expected.keys()
        for key, network in found.items():
            for one, two in zip(network.parameters(), expected[key].parameters(), strict=True):
                torch.testing.assert_close(one, two)


def test_gradients_are_held_network_by_network_and_part_by_part() -> None:
    spec = boxes(flags=False)
    rows = random_rows(spec, 30, seed=1, dtype=torch.float64)
    rows = rows.with_(reward=rows.reward * torch.tensor([1e3, 1e-3, 1e-3]))  # one agent has far larger errors
    learner = built(spec, gradient_clip=0.1)
    improve(learner, rows)
    norms = [gradient(parameter).flatten(1).norm(dim=1).tolist() for parameter in stack(learner.critic, 0).parameters()]
    held, small = zip(*norms, strict=True)
    assert held == pytest.approx([0.1] * 6)
    assert max(small) < 0.1


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


# ---------------------------------------------------------------- flags


def test_termination_stops_the_bootstrap_of_its_agent_and_truncation_stops_none() -> None:
    spec = motley()
    rows = random_rows(spec, 30, seed=1, dtype=torch.float64)
    learner = built(spec, policies="inferred")

    def targets(rows: Rows) -> Tensor:
        learner.rng.manual_seed(0)
        return learner.targets(rows, AgentRows.of_rows(rows, spec.n))

    found = targets(rows)
    assert torch.equal(targets(rows.with_(truncated=torch.ones(30, dtype=torch.bool))), found)
    assert torch.equal(found == rows.reward.T, rows.terminated.T)


def test_an_agent_that_never_acts_keeps_its_policy_and_is_not_modelled() -> None:
    spec = motley()
    learner = built(spec, policies="inferred")
    rows = random_rows(spec, 30, seed=1, dtype=torch.float64)
    acting = rows.acting.clone()
    acting[:, 0] = False
    before = Loop(learner, seed=0)
    learner.follow(rows.with_(acting=acting))
    improve(learner, rows.with_(acting=acting))
    after = Loop(learner, seed=0)

    def same(name: str, key: Any) -> bool:
        one, two = getattr(before, name)[key], getattr(after, name)[key]
        return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))

    assert [same("actors", agent) for agent in range(4)] == [True, False, False, False]
    assert not same("critics", 0)  # its value goes on
    assert {key for key in before.models if same("models", key)} == {(ego, 0) for ego in range(4)}
    assert not any(tag.startswith("opponent/scout") for tag in learner.inference_metrics())
    assert float(learner.metrics["policy_loss"][0]) == 0


# ---------------------------------------------------------------- what is read


def test_critics_read_one_kind_of_thing_in_data_and_in_targets() -> None:
    spec = motley(flags=False)
    rows = random_rows(spec, 20, seed=1, dtype=torch.float64)
    shared = AgentRows.of_rows(rows, spec.n)
    one_hot = [k for _, head, where in spec.heads if head.kind == "discrete" for k in range(where.start, where.stop)]
    for arm in ("true", "inferred"):
        for name, settings in ((arm, ARMS[arm]), ("probabilities", ARMS[f"{arm}_probabilities"])):
            learner = built(spec, **settings)
            for target in (False, True):
                read = learner.read(rows.act, rows.view, shared, target=target)
                for group, own in zip(learner.groups, read, strict=True):
                    each = own.expand(len(group.agents), -1, -1)
                    for agent, act in zip(group.agents, each, strict=True):
                        others = [k for k in one_hot if not spec.act[agent].start <= k < spec.act[agent].stop]
                        certain = bool(((act[:, others] == 0) | (act[:, others] == 1)).all())
                        assert certain == (name == arm)
                        assert torch.equal(act[:, spec.act[agent]], rows.act[:, spec.act[agent]])
                        if not (target and learner.models is not None):
                            assert torch.equal(act[:, learner.box], rows.act[:, learner.box])


def test_only_inferred_policies_are_asked_where_policies_are_inferred() -> None:
    spec = motley(flags=False)
    rows = random_rows(spec, 20, seed=1, dtype=torch.float64)
    shared = AgentRows.of_rows(rows, spec.n)
    for settings in (ARMS["inferred"], ARMS["inferred_probabilities"]):
        one, two = built(spec, **settings), built(spec, **settings)
        place = {agent: (k, p) for k, g in enumerate(two.groups) for p, agent in enumerate(g.agents)}
        with torch.no_grad():  # everybody but the guard plays otherwise
            for actors in (two.policy.actors, two.actors_old):
                for agent in (0, 1, 3):
                    k, p = place[agent]
                    for parameter in stack(actors, k).parameters():
                        parameter[p] += 1.0
        found = []
        for learner in (one, two):
            learner.rng.manual_seed(3)
            read = learner.read(rows.act, rows.view, shared)
            found.append((learner.targets(rows, shared), learner.policy_loss(rows, shared, read)))
        guard = spec.index("guard")
        for mine, other in zip(*found, strict=True):
            assert torch.equal(mine[guard], other[guard])
            assert not torch.equal(mine[0], other[0])


def test_an_agent_acts_on_its_own_observation_alone() -> None:
    spec = motley()
    policy = built(spec).policy
    view = random_view(spec, 12, generator(0), torch.float64)
    for column in range(spec.obs_dim):
        other = view.obs.clone()
        other[:, column] = torch.nan
        for group, own in zip(policy.groups, policy.numbers(replace(view, obs=other)), strict=True):
            for agent, numbers in zip(group.agents, own, strict=True):
                assert bool(numbers.isnan().any()) == (column in spec.obs[agent])


# ---------------------------------------------------------------- acting


def test_actions_are_noisy_numbers_and_draws_by_logits_where_they_explore() -> None:
    spec = motley(flags=False)
    learner = built(spec, noise=Annealing(end=0.05, extra=0.4, rate=0.5))
    policy, loop = learner.policy, Loop(learner, seed=0)
    assert float(policy.noise) == pytest.approx(0.45)
    policy.noise.fill_(0.05)
    one = random_view(spec, 1, generator(4), torch.float64)
    view = one[torch.zeros(6_000, dtype=torch.int64)]
    greedy, found = policy.step(None, view, None)[1], policy.step(None, view, generator(0))[1]
    for act in (greedy, found):
        spec.check_action(act)
    for agent in range(spec.n):
        own, numbers = found[:, spec.act[agent]], loop.actors[agent](loop.seen(agent, one)).detach()
        if spec.agents[agent].discrete:
            chances = loop.chances(agent, numbers, one)[0]
            torch.testing.assert_close(own.mean(0), chances, rtol=0, atol=0.03)
        else:
            torch.testing.assert_close(greedy[:1, spec.act[agent]], numbers.tanh())
            assert float((own - numbers.tanh()).std()) == pytest.approx(0.05, rel=0.05)
    improve(learner, random_rows(spec, 10, seed=0, dtype=torch.float64))
    assert float(policy.noise) == pytest.approx(0.05 + 0.4 * math.exp(-0.5))
    asked = built(spec).float().policy
    act = asked(Batch(obs=view.obs[:3].numpy(), info={})).act
    assert torch.equal(act, asked.step(None, View.of(spec, view.obs[:3].float()), None)[1])


def test_who_does_not_act_answers_zeros_and_nothing_illegal_is_done() -> None:
    spec = motley()
    policy = built(spec).policy
    policy.noise.fill_(30.0)
    view = random_view(spec, 500, generator(4), torch.float64)
    for rng in (None, generator(0)):
        act = policy.step(policy.init(None), view, rng)[1]  # type: ignore[arg-type]
        spec.check_action(act, view.acting)
        discrete = torch.tensor([agent.discrete for agent in spec.agents for _ in range(agent.width)])
        assert not bool((act[:, discrete] > 0)[~view.legal[:, discrete]].any())


# ---------------------------------------------------------------- divergence of the models


def test_divergences_are_those_of_the_present_policies() -> None:
    spec = motley()
    learner = built(spec, policies="inferred")
    rows = random_rows(spec, 40, seed=3, dtype=torch.float64)
    loop = Loop(learner, seed=0)
    learner.follow(rows)
    metrics = learner.inference_metrics()
    for agent, name in enumerate(spec.names):
        busy = rows.acting[:, agent]
        own = loop.actors[agent](loop.seen(agent, rows.view)).detach()
        off = []
        for ego in range(spec.n):
            numbers = loop.models[ego, agent](loop.seen(agent, rows.view)).detach()
            if spec.agents[agent].discrete:
                pairs = zip(*(loop.log_chances(agent, x, rows.view) for x in (own, numbers)), strict=True)
                apart = sum((p.exp() * (p - q)).sum(1) for p, q in pairs)
                assert isinstance(apart, Tensor)
                value, kind = float(apart[busy].mean()), "divergence"
            else:
                apart = ((own.tanh() - numbers.chunk(2, 1)[0].tanh()) ** 2).mean(1)
                value, kind = float(apart[busy].mean().sqrt()), "error"
            assert float(learner.inferred[kind][ego, agent]) == pytest.approx(value)
            if ego != agent:
                off.append(value)
        assert metrics[f"opponent/{name}/{kind}"] == pytest.approx(sum(off) / len(off))
        other = {"divergence": "error", "error": "divergence"}[kind]
        assert f"opponent/{name}/{other}" not in metrics


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("arm", ARMS)
def test_two_agents_find_the_best_cell_of_a_matrix_game(arm: str) -> None:
    payoff = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0], [6.0, 1.0, 4.0]])
    game = MatrixGame("matrix", payoff.expand(2, -1, -1).double().numpy())
    loop = DynaConfig(real_share=1.0, batch_size=64, warmup_steps=64, updates_per_step=0.25)
    method = MADDPGConfig(
        hidden=(32,), loop=loop, inference=PolicyInferenceConfig(hidden=(16,), window=64), **ARMS[arm]
    )
    dyna = collected(method, game, copies=8, steps=1_000)
    greedy = dyna.actor.step(None, View.of(game.spec, torch.ones(1, 2)), None)[1]
    assert greedy.tolist() == [[0, 0, 1, 1, 0, 0]]
    if arm == "true":  # values of everything, also of what is no longer done
        cells = torch.tensor(list(itertools.product(range(3), range(3))))
        acts = torch.cat([torch.eye(3)[cells[:, agent]] for agent in range(2)], 1)
        learner: Any = dyna.learner
        values = learner.judged(learner.critic[0], learner.groups[0], torch.ones(9, 2), acts)
        torch.testing.assert_close(values, payoff.flatten().expand(2, -1), rtol=0, atol=0.7)


@pytest.mark.parametrize("arm", ["true", "inferred"])
def test_two_agents_find_the_optimum_of_a_quadratic(arm: str) -> None:
    spec = GameSpec(name="bowl", agents=(box_agent("a", (0,), 1), box_agent("b", (1,), 1)), obs_dim=2, terminates=True)
    config = MADDPGConfig(hidden=(32, 32), activation="silu", shrinkage=0.0, **ARMS[arm])
    learner = MADDPG(spec, config, generator(1), generator(2))
    rng = generator(3)

    def best(obs: Tensor) -> Tensor:
        return obs * torch.tensor([0.6, -0.4])

    for _ in range(300):
        obs, act = (torch.rand(2, 128, 2, generator=rng) * 2 - 1).unbind()
        off = act - best(obs)  # the reward couples the agents: x^2 + x y + y^2
        rows = one_step_rows(spec, obs, act).with_(reward=(-off.square().sum(1) - off.prod(1))[:, None].expand(-1, 2))
        if learner.models is not None:
            learner.follow(rows)
        improve(learner, rows)
    probe = torch.rand(200, 2, generator=rng) * 2 - 1
    found = learner.policy.step(None, View.of(spec, probe), None)[1]
    assert float((found - best(probe)).abs().mean()) < 0.06


# ---------------------------------------------------------------- repeatability


def trained(steps: range, learner: MADDPG) -> MADDPG:
    for step in steps:
        if learner.models is not None:
            learner.follow(random_rows(learner.spec, 20, seed=50 + step, dtype=torch.float64))
        improve(learner, random_rows(learner.spec, 30, seed=step, dtype=torch.float64, egos="mixed"))
    return learner


@pytest.mark.parametrize("arm", ARMS)
def test_the_same_seed_gives_the_same_parameters_and_a_restored_learner_goes_on(arm: str) -> None:
    def fresh(seed: int) -> MADDPG:
        return built(motley(), seed, noise=Annealing(end=0.1, extra=0.3), **ARMS[arm])

    whole, again, resumed = trained(range(3), fresh(0)), trained(range(3), fresh(0)), fresh(5)
    assert all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(resumed), strict=True))
    restore_learner(resumed, learner_state(whole))
    trained(range(3, 6), whole)
    trained(range(3, 6), resumed)
    assert all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(resumed), strict=True))
    assert whole.metrics.keys() == resumed.metrics.keys()
    assert all(torch.equal(whole.metrics[name], value) for name, value in resumed.metrics.items())
    probe = random_view(whole.spec, 20, generator(0), torch.float64)
    answers = [learner.policy.step(None, probe, learner.rng)[1] for learner in (whole, resumed)]
    assert torch.equal(*answers)


QUADRATICS = GameConfig(name="toy/two_quadratics", copies=4, options={"episode_limit": 5})


@pytest.mark.parametrize(
    ("arm", "game"),
    [*((arm, PARTICLE) for arm in ARMS), ("inferred", QUADRATICS)],
    ids=[*ARMS, "numbers"],
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, arm: str, game: GameConfig) -> None:
    whole = assert_resumes(scenario(replace(TINY, **ARMS[arm]), game), tmp_path)
    last = read_metrics(whole / METRICS_FILE)[-1]
    assert {"train/critic_loss/agent_0", "train/policy_loss/agent_1"} <= last.keys()
    kind = "error" if game is QUADRATICS else "divergence"
    for name in ("nll", "entropy", kind):
        assert (f"opponent/agent_1/{name}" in last) == ("inferred" in arm)
    assert load(whole).spec.n == 2


# ---------------------------------------------------------------- as a method


def test_models_see_the_newest_rows_before_every_update() -> None:
    rules = TwoQuadratics()
    dyna = collected(replace(TINY, policies="inferred"), rules, copies=4, steps=24)
    assert isinstance(dyna, Inferring)
    assert isinstance(dyna, FreshRows)
    models = dyna.learner.models
    assert models is not None
    assert models.updates == dyna.updates == dyna.learner.updates
    seen: list[Tensor] = []
    dyna.learner.follow = lambda rows: seen.append(rows.act)  # type: ignore[method-assign]
    replay, act = Replay(dyna.spec, 1_000, 4), torch.linspace(-1, 1, 40)[:, None].expand(-1, 2)
    replay.extend(one_step_rows(dyna.spec, torch.ones(40, 2), act))
    dyna.improve(replay)
    assert torch.equal(seen[0], act[-8:])
    assert type(collected(TINY, rules, copies=4, steps=24)) is Dyna


def test_it_learns_from_branches_that_single_egos_imagined() -> None:
    rules = TwoQuadratics(episode_limit=5)
    learner = MADDPG(rules.spec, replace(TINY, policies="inferred"), generator(0), generator(1))
    dyna = FreshRows(
        rules.spec, LOOP, learner, learner.policy, streams(0), world=GivenWorld(RulesKernel(rules)),
        opponents=AdaptiveOpponents(AORPO, rules.spec, streams(0), CPU),
    )  # fmt: skip
    before = parameters(learner)
    replay = played(dyna, BatchedGame(rules, 4), 60)
    assert set(dyna.mix(replay).ego.tolist()) == {-1, 0, 1}
    assert learner.updates == dyna.updates > 0
    after = parameters(learner)
    assert all(bool(now.isfinite().all()) for now in after)
    assert not any(torch.equal(was, now) for was, now in zip(before, after, strict=True) if was.ndim > 1)


@pytest.mark.parametrize("policies", ["true", "inferred"])
def test_the_papers_numbers_are_at_hand(policies: Any) -> None:
    paper = MADDPGConfig.paper(policies)
    assert (paper.learning_rate, paper.target_rate, paper.discount, paper.hidden) == (0.01, 0.01, 0.95, (64, 64))
    assert (paper.gradient_clip, paper.shrinkage, paper.activation) == (0.5, 1e-3, "relu")
    assert (paper.loop.batch_size, paper.loop.replay_capacity, 1 / paper.loop.updates_per_step) == (1_024, 10**6, 100)
    models = paper.inference
    assert (models.entropy_bonus, models.hidden, models.learning_rate, models.window) == (1e-3, (64, 64), 0.01, 1_024)
    few = replace(paper, loop=replace(paper.loop, batch_size=8, warmup_steps=100))
    assert collected(few, TwoQuadratics(), copies=4, steps=396).updates == 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MADDPGConfig(loop=DynaConfig(real_share=0.5)), r"loop.real_share=0\.5 must be 1"),
        (lambda: MADDPGConfig(learning_rate=0), "learning_rate=0 must be > 0"),
        (lambda: MADDPGConfig(discount=2), r"discount=2 must lie in \[0, 1\]"),
        (lambda: MADDPGConfig(target_rate=0), "target_rate=0 in"),
        (lambda: MADDPGConfig(shrinkage=-1), "shrinkage=-1 must be >= 0"),
        (lambda: MADDPGConfig(gradient_clip=0), "gradient_clip=0 must be > 0, or None"),
        (lambda: MADDPGConfig(policies="guessed"), "policies='guessed' must be one of 'true', 'inferred'"),  # type: ignore[arg-type]
        (lambda: MADDPGConfig(critic_input="logits"), "critic_input='logits' must be one of 'actions'"),  # type: ignore[arg-type]
        (lambda: MADDPGConfig(critic="twin"), "critic='twin' must be one of 'joint', 'own'"),  # type: ignore[arg-type]
        (lambda: MADDPGConfig(critic="own", policies="inferred"), "critic='own' reads nothing of the others"),
        (lambda: MADDPGConfig(critic="own", critic_input="probabilities"), "critic='own' reads nothing of the others"),
    ],
)
def test_contradictions_are_named(build: Callable[[], MADDPGConfig], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_what_does_not_suit_is_refused() -> None:
    alone = GameSpec(name="alone", agents=(discrete_agent("a", (0,), 2),), obs_dim=1)
    with pytest.raises(GameError, match="'alone' has 1, play one of more"):
        MADDPGConfig(policies="inferred").build(alone, streams(0), CPU)
    rows = random_rows(motley(), 8, seed=0, dtype=torch.float64)
    with pytest.raises(GameError, match="have learned nothing yet"):
        improve(built(motley(), policies="inferred"), rows)
    with pytest.raises(GameError, match="policies='true' has no models"):
        built(motley()).follow(rows)
    with pytest.raises(GameError, match=r"equally many rows for every ego, got \[3, 2, 2, 2\]"):
        improve(built(motley()), random_rows(motley(), 9, seed=0, dtype=torch.float64, egos="own"))
