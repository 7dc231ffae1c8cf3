"""Policies that read what their opponent models expect of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from presage.common.agent import load
from presage.common.game import GameError
from presage.common.learner_state import learner_state, restore_learner
from presage.common.run import start
from presage.common.scenario import GameConfig, Scenario
from presage.common.streams import streams
from presage.envs.particle import ParticleGame, Spread, TrueKernel
from presage.marl.conditional_policy import ConditionalPolicy
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from tests.common.toy import generator
from tests.marl.sample_games import motley, random_view
from tests.marl.test_aorpo import CPU, TINY, equal, learned, masac, play

CONDITIONAL = replace(TINY, policy="predictions", model="true")


def conditional(seed: int = 0) -> ConditionalPolicy:
    spec = motley()
    models = BehaviourCloning(spec, BehaviourCloningConfig(hidden=(8,)), generator(seed))
    return ConditionalPolicy(spec, models, (8,), generator(seed + 1), generator(seed + 2))


def test_every_network_reads_its_own_view_and_its_own_models_modes_of_the_others() -> None:
    policy = conditional()
    spec, view = policy.spec, random_view(policy.spec, 5, generator(7))
    found = policy.inputs(view)
    for group, inputs in zip(policy.groups, found, strict=True):
        for place, i in enumerate(group.agents):
            predicted = policy.models.step(None, view[torch.arange(5).repeat(spec.n)], None)[1].view(spec.n, 5, -1)[i]
            others = [predicted[:, spec.act[j]] for j in range(spec.n) if j != i]
            assert torch.equal(inputs[place], torch.cat([view.obs[:, list(spec.obs[i])], *others], 1))
            assert inputs.shape[2] == len(spec.obs[i]) + spec.act_dim - spec.agents[i].width


def test_rows_of_their_own_are_those_rows_of_everybody() -> None:
    policy = conditional()
    view = random_view(policy.spec, 6, generator(8))
    rows = torch.tensor([[0, 3], [5, 1], [2, 2], [4, 0]])
    everything, own = policy.parameters_of(view), policy.parameters_of(view, rows)
    for group, every, picked in zip(policy.groups, everything, own, strict=True):
        for place, i in enumerate(group.agents):
            torch.testing.assert_close(picked[place], every[place][rows[i]])


def test_a_bank_for_fewer_egos_is_refused() -> None:
    spec = motley()
    models = BehaviourCloning(spec, BehaviourCloningConfig(hidden=(8,)), generator(0), egos=(0,))
    with pytest.raises(GameError, match="4 agents, the opponent models serve 1 egos"):
        ConditionalPolicy(spec, models, (8,), generator(0), generator(0))


def test_aorpo_trains_it_and_other_models_change_what_it_does() -> None:
    game = ParticleGame(Spread(), 4)
    method = CONDITIONAL.build(game.spec, streams(0), CPU, TrueKernel(Spread(), device=CPU))
    before = learned(method)
    play(method, game, 120)
    assert method.updates > 0
    assert not equal(before, learned(method))
    policy = masac(method).policy
    assert isinstance(policy, ConditionalPolicy)
    assert policy.models is method.opponents.models  # type: ignore[union-attr]  # AORPO of several agents has opponents
    moved = {id(p) for group in masac(method).policy_optim._optim.param_groups for p in group["params"]}
    assert not moved & {id(p) for p in policy.models.parameters()}, "the policy's gradient leaves the models alone"

    view = game.reset(3)
    parameters = policy.parameters_of(view)[0].detach().clone()
    with torch.no_grad():
        for weight in policy.models.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator(5)))
    assert not torch.equal(parameters, policy.parameters_of(view)[0])


def test_a_restored_one_goes_on_as_if_nothing_had_happened() -> None:
    kernel = TrueKernel(Spread(), device=CPU)
    one, other = (CONDITIONAL.build(ParticleGame(Spread(), 4).spec, streams(s), CPU, kernel) for s in (0, 1))
    game = ParticleGame(Spread(), 4)
    replay = play(one, game, 80)
    restore_learner(other, learner_state(one))
    other.imagined = one.imagined
    assert equal(learned(one), learned(other))
    for method in (one, other):
        for _ in range(3):
            method.improve(replay)
    assert equal(learned(one), learned(other))


def test_a_saved_run_acts_without_anything_else(tmp_path: Path) -> None:
    scenario = Scenario(
        name="conditional",
        game=GameConfig(name="particle/spread", copies=4),
        method=replace(CONDITIONAL, model="ensemble"),
        steps=80,
        evaluate_every=80,
        evaluation_episodes=2,
        checkpoint_every=80,
        threads=1,
        device="cpu",
    )
    start(scenario, tmp_path / "run")
    agent = load(tmp_path / "run")
    policy = agent.actor
    assert isinstance(policy, ConditionalPolicy)
    assert policy.models.normaliser.std.ne(1).any(), "the fitted models came with it"
    observed = {name: [0.1] * 18 for name in agent.spec.names}
    assert agent.act(observed).keys() == observed.keys()
