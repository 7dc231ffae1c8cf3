"""AORPO: lengths from fitted errors, queries counted by hand, and whose answers reach the update."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from presage.common.configuration import from_plain, to_plain
from presage.common.dyna import Dyna, DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.game import ALL_AGENTS, Carry, GameError, GameSpec, Outcome, Rows, View, Window
from presage.common.propagation import EnsembleKernel
from presage.common.replay import Replay
from presage.common.schedules import LengthRamp
from presage.common.streams import streams
from presage.common.worlds import LearnedWorld
from presage.envs.particle import ParticleGame, SpeakerListener, Spread, TrueKernel
from presage.marl.aorpo import AdaptiveOpponents, AORPOConfig
from presage.marl.lengths import LengthRule, Switch
from presage.marl.masac import MASAC, MASACConfig
from presage.marl.opponents.behaviour_cloning import BehaviourCloningConfig
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.sample_games import motley, one_step_rows, random_rows, random_view

CPU = torch.device("cpu")
HORIZON = 4
LOOP = DynaConfig(
    batch_size=16, updates_per_step=0.1, warmup_steps=40, fit_every=40, rollout_every=40, rollout_starts=6,
    horizon=LengthRamp(start_epoch=0, end_epoch=0, start=HORIZON, end=HORIZON), replay_capacity=400, kept_rollouts=2,
)  # fmt: skip
TINY = AORPOConfig(
    learner=MASACConfig(hidden=(8,)), loop=LOOP,
    ensemble=EnsembleConfig(members=2, elites=1, hidden=(8,), outcome_hidden=(8,)),
    fit=FitConfig(max_updates=4, evaluate_every=2, batch_size=8),
    opponents=BehaviourCloningConfig(hidden=(8,), passes=2, window=200),
)  # fmt: skip


def play(method: Dyna, game: ParticleGame, steps: int) -> Replay:
    """`steps` env steps of a new game; the replay that they filled."""
    replay = Replay(game.spec, method.config.replay_capacity, game.copies)
    view = game.reset(0)
    for _ in range(steps // game.copies):
        rows, view = game.step(method.explore(view))
        replay.extend(rows)
        method.learn(replay, rows)
    return replay


def filled(spec: GameSpec, rows: Rows) -> Replay:
    replay = Replay(spec, len(rows), 1)
    replay.extend(rows)
    return replay


def adaptive(method: Dyna) -> AdaptiveOpponents:
    assert isinstance(method.opponents, AdaptiveOpponents)
    return method.opponents


def masac(method: Dyna) -> MASAC:
    assert isinstance(method.learner, MASAC)
    return method.learner


def learned(method: Dyna) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in method.learner.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------- errors and lengths


def four_opponents(size: int = 800) -> tuple[GameSpec, Rows]:
    """One that mostly copies what it sees, one that does so less often, a dice, and one that moves as it sees."""
    spec = GameSpec(
        name="four", obs_dim=4, acting_varies=True,
        agents=(*(discrete_agent(name, (k,), 3) for k, name in enumerate("abc")), box_agent("d", (3,), 1)),
    )  # fmt: skip
    rng = generator(0)
    seen = torch.randint(3, (size, 4), generator=rng)
    dice = torch.randint(3, (size, 3), generator=rng)
    noisy = torch.rand(size, 3, generator=rng) < torch.tensor([0.15, 0.4, 1.0])
    choice = torch.where(noisy, dice, seen[:, :3])
    push = 0.2 * seen[:, 3:] + 0.1 * torch.randn(size, 1, generator=rng)
    acts = torch.cat([nn.functional.one_hot(choice, 3).flatten(1), push.clamp(-0.9, 0.9)], 1)
    return spec, one_step_rows(spec, seen.float(), acts.float())


Fitted = tuple[AdaptiveOpponents, Replay]


def opponents_of(spec: GameSpec, seed: int = 0, **config: Any) -> AdaptiveOpponents:
    models = BehaviourCloningConfig(hidden=(16,), learning_rate=0.01, passes=8, window=1000)
    return AdaptiveOpponents(replace(TINY, opponents=models, **config), spec, streams(seed), CPU)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    spec, rows = four_opponents()
    opponents, replay = opponents_of(spec), filled(spec, rows)
    opponents.fit(replay, generator(1))
    return opponents, replay


def test_errors_are_those_of_the_fit(fitted: Fitted) -> None:
    opponents, replay = fitted
    again = opponents_of(opponents.spec)
    found = again.models.fit(replay.rows(replay.latest(1000)), generator(1))
    for ego, agent in itertools.product(range(4), range(4)):
        nll, accuracy = float(found.nll[ego, agent]), float(found.accuracy[ego, agent])
        error = math.sqrt(nll / 2) if agent < 3 else 1 - accuracy  # half the mean absolute error of a box action
        assert float(opponents.errors[ego, agent]) == pytest.approx(error, rel=1e-5)
        assert float(opponents.accuracies[ego, agent]) == accuracy
    ranked = opponents.errors[0, [0, 1, 2]].tolist()
    assert ranked == sorted(ranked)
    assert ranked[2] == pytest.approx(math.sqrt(math.log(3) / 2), abs=0.05)


def floor(x: float) -> int:
    return math.floor(x + 1e-6)


@pytest.mark.parametrize("rule", ["error_ratio", "accuracy_ratio", "accuracy_ratio_squared", "uniform", "ask_always"])
@pytest.mark.parametrize("horizon", [0, 1, 14])
def test_lengths_follow_from_the_fitted_scores(fitted: Fitted, rule: LengthRule, horizon: int) -> None:
    opponents = fitted[0]
    opponents.rule = rule
    found = opponents.lengths(horizon)
    for ego in range(4):
        others = [agent for agent in range(4) if agent != ego]
        errors = {agent: float(opponents.errors[ego, agent]) for agent in others}
        right = {agent: float(opponents.accuracies[ego, agent]) for agent in others}
        for agent in others:
            share = right[agent] / max(right.values())
            expected = {
                "error_ratio": floor(horizon * min(errors.values()) / errors[agent]),
                "accuracy_ratio": floor(horizon * share),
                "accuracy_ratio_squared": floor(horizon * share**2),
                "uniform": horizon,
                "ask_always": 0,
            }
            assert int(found[ego, agent]) == expected[rule]
        assert int(found[ego, ego]) == 0
    if rule == "error_ratio" and horizon == 14:
        assert len(set(found[3, :3].tolist())) == 3


@pytest.mark.parametrize("switch", ["paper", "official"])
def test_the_table_lets_the_models_answer_for_their_lengths(fitted: Fitted, switch: Switch) -> None:
    opponents = fitted[0]
    opponents.rule, opponents.switch = "error_ratio", switch
    lengths, table = opponents.lengths(7), opponents.table(7)
    for ego, agent, step in itertools.product(range(4), range(4), range(7)):
        modelled = int(lengths[ego, agent]) - (switch == "official")
        expected = 0 if agent == ego else 1 if step < modelled else 2
        assert int(table[ego, agent, step]) == expected


@pytest.mark.parametrize("rule", ["error_ratio", "accuracy_ratio", "uniform", "ask_always"])
def test_before_the_first_fit_everybody_is_asked(rule: LengthRule) -> None:
    opponents = opponents_of(motley(), rule=rule)
    assert opponents.lengths(5).tolist() == [[0] * 4] * 4


def test_an_opponent_that_never_acted_is_asked_and_shortens_nobody_elses_length() -> None:
    spec, rows = four_opponents()
    acting = rows.acting.clone()
    acting[:, 0] = False
    opponents = opponents_of(spec)
    metrics = opponents.fit(filled(spec, rows.with_(acting=acting)), generator(1))
    assert opponents.errors.isnan().tolist() == [[True, False, False, False]] * 4
    lengths = opponents.lengths(7)
    assert lengths[:, 0].tolist() == [0, 0, 0, 0]
    assert lengths.amax(1).tolist() == [7, 7, 7, 7]
    assert math.isnan(metrics["opponent/a/error"])


def test_an_opponent_that_switches_loses_length_within_one_window() -> None:
    agents = tuple(discrete_agent(name, (k,), 3) for k, name in enumerate(("ego", "steady", "fickle")))
    spec = GameSpec(name="three", agents=agents, obs_dim=3)
    rng = generator(0)
    replay = Replay(spec, 1000, 1)

    def act(size: int, shift: int) -> None:
        obs = torch.randint(3, (size, 3), generator=rng)
        choice = (obs + torch.tensor([0, 0, shift])) % 3
        wrong = torch.rand(size, 3, generator=rng) < 0.1  # so that no error is 0, and their ratio is settled
        choice = torch.where(wrong, torch.randint(3, (size, 3), generator=rng), choice)
        replay.extend(one_step_rows(spec, obs.float(), nn.functional.one_hot(choice, 3).flatten(1).float()))

    opponents = opponents_of(spec)
    found = []
    for size, shift in ((1000, 0), (500, 1), (500, 1)):
        act(size, shift)
        opponents.fit(replay, generator(1))
        found.append((opponents.lengths(10)[0, 1:].tolist(), float(opponents.errors[0, 2])))
    before, during, after = found
    assert during[1] > 1.3 * before[1]
    assert during[0] == [10, pytest.approx(6, abs=2)]
    assert during[0][1] < min(before[0][1], after[0][1])
    assert min(*before[0], *after[0]) >= 7


def test_metrics_are_means_over_the_egos_that_model_an_agent(fitted: Fitted) -> None:
    opponents, replay = fitted
    again = opponents_of(opponents.spec)
    metrics = again.fit(replay, generator(1))
    for agent, name in enumerate("abcd"):
        others = [ego for ego in range(4) if ego != agent]
        assert metrics[f"opponent/{name}/error"] == pytest.approx(float(again.errors[others, agent].mean()))
        assert metrics[f"opponent/{name}/accuracy"] == pytest.approx(float(again.accuracies[others, agent].mean()))
    assert 1 <= metrics["opponent/passes"] <= 8


# ---------------------------------------------------------------- the ledger


@pytest.mark.parametrize(
    ("rule", "switch"),
    [("error_ratio", "paper"), ("error_ratio", "official"), ("uniform", "paper"), ("ask_always", "paper")],
)
@pytest.mark.parametrize("agents", [2, 3])
def test_the_ledger_of_a_run_equals_a_count_by_hand(rule: LengthRule, switch: Switch, agents: int) -> None:
    scenario = SpeakerListener() if agents == 2 else Spread()
    game = ParticleGame(scenario, 4)
    method = replace(TINY, rule=rule, switch=switch).build(game.spec, streams(3), CPU)
    opponents = adaptive(method)
    lengths: list[list[list[int]]] = []
    method.on_phase = lambda phase: lengths.append(opponents.lengths(HORIZON).tolist()) if phase == "rollout" else None
    play(method, game, 120)

    assert len(lengths) == 3  # at 40, 80 and 120 env steps
    expected = [[0] * agents for _ in range(agents)]
    for imagining, ego, agent in itertools.product(lengths, range(agents), range(agents)):
        if agent != ego:
            length = imagining[ego][agent]
            modelled = length if switch == "paper" else max(length - 1, 0)
            expected[ego][agent] += 6 * (HORIZON - modelled)
    ledger = method.ledger
    assert ledger.queries.tolist() == expected
    assert ledger.env_steps == 120
    assert ledger.seen.tolist() == [[120 * (ego != agent) for agent in range(agents)] for ego in range(agents)]
    if rule == "uniform":
        assert ledger.opponent_queries == 0
    if rule == "ask_always":
        assert ledger.opponent_queries == 3 * 6 * HORIZON * agents * (agents - 1)


def test_one_agent_has_no_opponents_and_asks_nobody() -> None:
    spec = GameSpec(name="one", agents=(box_agent("a", (0, 1), 1),), obs_dim=2, terminates=True)
    method = TINY.build(spec, streams(0), CPU)
    replay = Replay(spec, 400, 4)
    for step in range(20):
        rows = random_rows(spec, 4, seed=step)
        replay.extend(rows)
        method.learn(replay, rows)
    assert method.opponents is None
    assert masac(method).teammates is None
    assert method.imagined is not None
    assert 0 < len(method.imagined) <= 2 * 6 * HORIZON
    assert set(method.imagined.rows(method.imagined.all()).ego.tolist()) == {ALL_AGENTS}
    assert method.ledger.opponent_samples == 0
    assert method.updates == 4  # one in ten of the 44 env steps from the 37th on


# ---------------------------------------------------------------- whose answers reach the update


def test_the_learner_hears_the_opponent_models() -> None:
    spec = motley()
    method = TINY.build(spec, streams(0), CPU)
    opponents = adaptive(method)
    view = random_view(spec, 12, generator(1))
    ego = torch.arange(4).repeat_interleave(3)
    opponents.rng.manual_seed(5)
    teammates = masac(method).teammates
    assert teammates is not None
    assert torch.equal(teammates(view, ego), opponents.models.step(None, view, generator(5))[1])


@pytest.mark.parametrize("others", ["models", "policies"])
def test_noise_in_place_of_an_opponent_model_changes_the_update(others: Literal["models", "policies"]) -> None:
    spec = motley(flags=False)
    replay = filled(spec, random_rows(spec, 200, seed=0))
    found = []
    for noise in (0.0, 1.0):
        method = replace(TINY, others=others, opponents=BehaviourCloningConfig(answer="greedy")).build(
            spec, streams(0), CPU
        )
        with torch.no_grad():
            for parameter in adaptive(method).models.networks.parameters():
                parameter.add_(noise * torch.randn(parameter.shape, generator=generator(1)))
        method.improve(replay)
        found.append(learned(method))
    assert equal(*found) == (others == "policies")


def test_an_egos_models_change_its_own_update_alone() -> None:
    spec = motley(flags=False)
    replay = filled(spec, random_rows(spec, 200, seed=0))
    moved = []
    for noise in (0.0, 1.0):
        method = replace(TINY, opponents=BehaviourCloningConfig(answer="greedy")).build(spec, streams(0), CPU)
        with torch.no_grad():
            for group, network in zip(adaptive(method).models.groups, adaptive(method).models.networks, strict=True):
                size = len(group.agents)
                for parameter in network.parameters():  # the models of ego 1
                    parameter[size : 2 * size].add_(noise * torch.randn(parameter[:size].shape, generator=generator(1)))
        method.improve(replay)
        metrics = masac(method).metrics
        moved.append(torch.stack([metrics["policy_loss"], metrics["critic_loss"]]))
    assert (moved[0] != moved[1]).any(0).tolist() == [False, True, False, False]


def test_an_opponent_model_answers_in_imagination() -> None:
    game = ParticleGame(SpeakerListener(), 4)
    kernel = TrueKernel(SpeakerListener())
    method = replace(TINY, model="true", rule="uniform", opponents=BehaviourCloningConfig(answer="greedy")).build(
        game.spec, streams(0), CPU, kernel
    )
    replay = play(method, game, 80)
    opponents, imagined = adaptive(method), method.imagined
    assert imagined is not None
    imagined.clear()
    method.imagine(replay)
    rows = imagined.rows(imagined.all())
    rows = rows[torch.argsort(rows.ego, stable=True)]
    expected = opponents.models.step(None, rows.view, None)[1]
    assert len(rows) == 2 * 6 * HORIZON
    for ego, other in ((0, 1), (1, 0)):
        mine, where = rows.ego == ego, game.spec.act[other]
        assert torch.equal(rows.act[mine][:, where], expected[mine][:, where])


def test_the_true_world_is_imagined_as_it_is() -> None:
    game = ParticleGame(Spread(), 4)
    kernel = TrueKernel(Spread())
    method = replace(TINY, model="true").build(game.spec, streams(0), CPU, kernel)
    play(method, game, 80)
    assert method.imagined is not None
    rows = method.imagined.rows(method.imagined.all())
    assert len(rows) == 3 * 6 * HORIZON * 2
    assert sorted(set(rows.ego.tolist())) == [0, 1, 2]
    window = Window(
        obs=rows.obs[:, None], act=torch.zeros(len(rows), 1, game.spec.act_dim), valid=torch.ones(len(rows), 1),
        now=rows.view,
    )  # fmt: skip
    carry = kernel.init(window, rows.ego, generator(0))
    outcome = kernel.step(carry, rows.view, rows.act, generator(0))[1]
    torch.testing.assert_close(outcome.after.obs, rows.next_obs, rtol=0, atol=1e-4)
    torch.testing.assert_close(outcome.reward, rows.reward, rtol=0, atol=1e-3)
    game.spec.check_action(rows.act)


def test_a_game_without_true_dynamics_is_refused() -> None:
    with pytest.raises(GameError, match="'motley' offers no true dynamics to imagine in; use model='ensemble'"):
        replace(TINY, model="true").build(motley(), streams(0), CPU)


def test_propagation_is_reached_from_the_configuration() -> None:
    game = ParticleGame(Spread(agents=2), 4)
    method = replace(TINY, propagation="mixture").build(game.spec, streams(0), CPU)
    play(method, game, 80)
    assert method.updates > 0
    assert isinstance(method.world, LearnedWorld)
    assert isinstance(method.world.kernel, EnsembleKernel)
    assert method.world.kernel.propagation == "mixture"


def test_without_imagination_there_is_no_world() -> None:
    method = replace(TINY, loop=replace(LOOP, real_share=1.0)).build(motley(), streams(0), CPU)
    assert method.world is None
    assert method.imagined is None


# ---------------------------------------------------------------- a whole run


class Matrix:
    """A one-step game whose payoff, common to both agents, is a table; the true world of itself."""

    payoff = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0], [6.0, 1.0, 4.0]])
    spec = GameSpec(
        name="matrix", agents=(discrete_agent("row", (0,), 3), discrete_agent("column", (0,), 3)), obs_dim=1,
        terminates=True,
    )  # fmt: skip

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        return None

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        paid = torch.einsum("br,rc,bc->b", act[:, :3], self.payoff, act[:, 3:])
        reward = paid[:, None].expand(-1, 2)
        return None, Outcome(after=view, reward=reward, terminated=torch.ones(len(act), 2, dtype=torch.bool))


def test_aorpo_finds_the_best_cell_of_a_matrix_game_that_it_mostly_imagines() -> None:
    world = Matrix()
    loop = replace(
        LOOP, batch_size=64, warmup_steps=30, rollout_every=4, rollout_starts=32, real_share=0.1, updates_per_step=1.0,
        horizon=LengthRamp(start_epoch=0, end_epoch=0, start=1, end=1),
    )  # fmt: skip
    learner = MASACConfig(hidden=(32,), learning_rate=0.02, temperature=0.3)
    method = replace(TINY, model="true", loop=loop, learner=learner).build(world.spec, streams(0), CPU, world)
    replay = Replay(world.spec, 400, 1)
    view = View.of(world.spec, torch.ones(1, 1))
    for _ in range(150):
        act = method.explore(view)
        outcome = world.step(None, view, act, generator(0))[1]
        truncated = torch.zeros(1, dtype=torch.bool)
        rows = Rows.of(world.spec, view, act, outcome.reward, view, outcome.terminated, truncated, torch.zeros(1))
        replay.extend(rows)
        method.learn(replay, rows)
    assert method.actor.step(None, view, None)[1].tolist() == [[0, 0, 1, 1, 0, 0]]
    assert method.updates == 121  # one for every env step from the 30th on


def test_the_same_seed_gives_the_same_run() -> None:
    found = []
    for seed in (0, 0, 1):
        game = ParticleGame(SpeakerListener(), 4)
        method = TINY.build(game.spec, streams(seed), CPU)
        play(method, game, 100)
        found.append([*learned(method), *adaptive(method).parameters(), adaptive(method).errors])
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


# ---------------------------------------------------------------- the released code's choices


def test_the_official_numbers() -> None:
    official = AORPOConfig.official()
    assert (official.rule, official.switch, official.others) == ("accuracy_ratio", "official", "models")
    learner, loop, models = official.learner, official.loop, official.opponents
    assert official.policy == "predictions"
    declared = (learner.geometry, models.geometry, official.ensemble.geometry, loop.symmetries, official.fit.renamings)
    assert not any(declared), "the released code knows nothing of a game's structure"
    assert (learner.learning_rate, learner.discount, learner.target_rate) == (0.01, 0.95, 0.001)
    assert (learner.initial_temperature, learner.entropy_target, learner.temperature) == (1.0, "width", None)
    # G = 20 updates every 100 env steps, and one move of the targets with them
    assert loop.updates_per_step * loop.rollout_every == learner.target_every == 20
    assert (loop.batch_size, loop.rollout_starts, loop.real_share, loop.fit_every) == (1024, 1024, 0.5, 3750)
    assert (models.hidden, models.learning_rate, models.entropy_bonus) == ((64, 64), 5e-4, 0.1)
    assert (models.window, models.batch_size, models.patience, models.answer) == (3072, 3072, 5, "greedy")
    assert models.batch_size >= models.window  # one gradient step a pass
    assert (official.ensemble.members, official.ensemble.elites, official.ensemble.target) == (8, 8, "absolute")
    assert (official.fit.batch_size, official.fit.gradient_clip) == (4096, 200)
    assert official.fit.weight_decay == (1e-4, 2.5e-4, 2.5e-4, 5e-4)
    assert from_plain(AORPOConfig, to_plain(official)) == official
    agents = MASAC(motley(), learner, generator(0), generator(0))
    assert agents.target_entropy.tolist() == [-4, -2, -4, -5]


def test_the_official_horizon_is_the_released_one() -> None:
    ramp = AORPOConfig.official().loop.horizon
    events = 7_500 // 100  # an evaluation at every imagining
    horizon, ends = ramp.start, []
    for event in range(30 * events):
        horizon = ramp.at(event // events, horizon)
        if (event + 1) % events == 0:
            ends.append(horizon)
    assert [ends[epoch] for epoch in (6, 7, 8, 9, 11, 14, 24, 25)] == [1, 6, 9, 11, 12, 13, 14, 15]


def test_a_small_official_run() -> None:
    official = AORPOConfig.official()
    scaled = replace(
        official,
        loop=replace(
            official.loop,
            batch_size=16,
            warmup_steps=100,
            fit_every=50,
            rollout_starts=5,
            replay_capacity=400,
        ),
        ensemble=replace(official.ensemble, members=2, elites=2, hidden=(8,)),
        fit=replace(official.fit, max_updates=2, batch_size=8),
        opponents=replace(official.opponents, passes=2),
    )
    game = ParticleGame(Spread(), 4)
    method = scaled.build(game.spec, streams(0), CPU)
    play(method, game, 300)
    assert method.updates == 40  # one in five of the 204 env steps from the 97th on
    # every imagining is one step long, at which the official switch asks the best modelled opponent too
    assert method.ledger.queries.tolist() == [[3 * 5 * (ego != agent) for agent in range(3)] for ego in range(3)]
    assert torch.all(masac(method).alpha < math.exp(-0.01 * 40 * 0.9))


@pytest.mark.parametrize("field", ["rule", "switch", "others", "model"])
def test_configurations_with_unknown_words_are_refused(field: str) -> None:
    plain = to_plain(TINY) | {field: "unknown"}
    build: Callable[[], AORPOConfig] = lambda: from_plain(AORPOConfig, plain)  # noqa: E731
    with pytest.raises(ValueError, match=f"{field}='unknown' must be one of"):
        build()
