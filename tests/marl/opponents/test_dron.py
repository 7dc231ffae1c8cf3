"""DRON as a learner: its loss against a plain one, its special cases step by step, runs that stop and go on, and a game
of two moods that only a model of the opponent can win.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from presage.common.agent import load
from presage.common.dqn import DQNConfig, LeanDQN
from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import AgentSpec, GameError, GameSpec, Head, Rows, View
from presage.common.learner_state import learner_state, restore_learner
from presage.common.metrics import METRICS_FILE, read_metrics
from presage.common.one_batch import OneBatch
from presage.common.replay import Replay
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from presage.envs.batched import BatchedGame, Rules
from presage.envs.toy.soccer import ACTION, OPPONENT, STATE, TYPE
from presage.marl.opponents.dron import DRON, CentredRMSProp, DRONConfig, Network
from tests.common.tiny_runs import LOOP, assert_resumes, scenario
from tests.common.toy import PLAIN, discrete_agent, generator, random_rows

CPU = torch.device("cpu")
SPEC = GameSpec(name="moves", agents=(discrete_agent("a", range(7), 3),), obs_dim=10, terminates=True)
"""columns 7 to 9 are labels"""
SMALL = DRONConfig(
    state=(0, 1, 2, 3), opponent=(4, 5, 6), label=(7, 8, 9), opponent_hidden=5, experts=2, falling=10,
    dqn=DQNConfig(hidden=(8, 6), target_every=3, target_rate=1.0, discount=0.9, random_share=0.5),
    loop=replace(LOOP, real_share=1.0),
)  # fmt: skip
NETWORKS: list[Network] = ["mixture", "concat", "joined", "pooled"]


def of(network: Network, **changes: Any) -> DRONConfig:
    """The small configuration with another network, and a label where that can have one."""
    label = SMALL.label if network in ("mixture", "concat") else ()
    return replace(SMALL, **({"network": network, "label": label} | changes))


def learner_of(config: DRONConfig, seed: int = 0) -> DRON:
    found = config.build(SPEC, streams(seed), CPU).learner
    assert isinstance(found, DRON)
    return found


def labelled(size: int, rng: torch.Generator) -> Rows:
    """Random rows whose last three columns are one-hot."""
    rows = random_rows(SPEC, size, rng)

    def label(obs: Tensor) -> Tensor:
        chosen = torch.nn.functional.one_hot(torch.randint(3, (size,), generator=rng), 3)
        return torch.cat([obs[:, :7], chosen.float()], 1)

    return rows.with_(obs=label(rows.obs), next_obs=label(rows.next_obs), reward=3 * rows.reward)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_loss_is_that_of_clipped_errors_and_weighed_labels(network: Network) -> None:
    learner, rows = learner_of(of(network, label_weight=0.3)), labelled(30, generator(1))
    with torch.no_grad():
        judged, aims = learner.policy.model.judge(rows.obs), learner.targets(rows)
    total, errors = 0.0, []
    for k in range(30):
        error = float(aims[k] - judged.values[k, int(rows.act[k].argmax())])
        total += (error**2 / 2 if abs(error) < 1 else abs(error) - 0.5) / 30
        errors.append(error)
        if judged.logits is not None:
            logits = judged.logits[k].double()
            total += -0.3 * float((logits - logits.exp().sum().log())[int(rows.obs[k, 7:].argmax())]) / 30
    assert max(map(abs, errors)) > 1, "some errors have to be cut"
    assert learner.loss(rows).item() == pytest.approx(total, rel=1e-5)
    wanted = {"loss", *(["gate_entropy"] if network == "mixture" else [])}
    assert learner.metrics.keys() == wanted | ({"label_loss", "label_accuracy"} if judged.logits is not None else set())
    if judged.logits is not None:
        right = (judged.logits.argmax(1) == rows.obs[:, 7:].argmax(1)).float().mean()
        assert float(learner.metrics["label_accuracy"]) == float(right)
    if judged.gate is not None:
        entropy = -sum(float((row * row.log()).sum()) for row in judged.gate) / 30
        assert float(learner.metrics["gate_entropy"]) == pytest.approx(entropy, rel=1e-5)


def test_the_slope_of_a_value_is_its_error_held_to_one() -> None:
    learner, rows = learner_of(of("pooled")), labelled(20, generator(1))
    judge, seen = learner.policy.model.judge, []

    def keep(obs: Tensor) -> Any:
        judged = judge(obs)
        judged.values.retain_grad()
        seen.append(judged.values)
        return judged

    learner.policy.model.judge = keep
    torch.autograd.backward(learner.loss(rows))
    values = seen[0]
    assert values.grad is not None
    delta = learner.targets(rows) - (values * rows.act).sum(1)
    torch.testing.assert_close(values.grad, -delta.clamp(-1.0, 1.0).detach()[:, None] * rows.act / 20)


def test_squares_all_the_way_are_half_of_the_plain_learners_loss() -> None:
    learner, rows = learner_of(of("joined", error_limit=float("inf"))), labelled(20, generator(1))
    torch.testing.assert_close(2 * learner.loss(rows), LeanDQN.loss(learner, rows))


@pytest.mark.parametrize("network", NETWORKS)
def test_labels_never_reach_values_targets_or_actions(network: Network) -> None:
    dyna, rows = of(network).build(SPEC, streams(0), CPU), labelled(30, generator(1))
    hidden = torch.cat([torch.zeros(7), torch.full((3,), torch.nan)])
    spoiled = rows.with_(obs=rows.obs + hidden, next_obs=rows.next_obs + hidden)
    learner = dyna.learner
    assert isinstance(learner, DRON)
    for one, two in ((rows.obs, spoiled.obs), (rows.next_obs, spoiled.next_obs)):
        assert torch.equal(learner.policy.model(one)[0], learner.policy.model(two)[0])
        for seed in (None, 5):
            rngs = [None if seed is None else generator(seed) for _ in range(2)]
            acts = [dyna.actor.step(None, View.of(SPEC, o), rng)[1] for o, rng in zip((one, two), rngs, strict=True)]
            assert torch.equal(*acts)
    assert torch.equal(learner.targets(rows), learner.targets(spoiled))
    learner.loss(spoiled)
    value_loss = learner.metrics["loss"]
    learner.loss(rows)
    assert torch.equal(value_loss, learner.metrics["loss"])
    blind = learner_of(of(network, label=()))
    assert torch.equal(blind.loss(spoiled), blind.loss(rows))


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_one_expert_learns_as_plain_q_learning_does(optimiser: Any) -> None:
    one = learner_of(of("mixture", experts=1, label=(), optimiser=optimiser))
    plain = learner_of(of("pooled", optimiser=optimiser))
    rng = generator(1)
    for _ in range(10):
        rows = labelled(16, rng)
        told = [learner.update(OneBatch(rows), None).get_loss_stats_dict() for learner in (one, plain)]
        assert told[0] == told[1]
        assert torch.equal(one.policy.model(rows.obs)[0], plain.policy.model(rows.obs)[0])


def test_an_extra_head_learns_the_label_and_its_weight_counts() -> None:
    changes: dict[str, Any] = {"optimiser": "adam", "dqn": replace(SMALL.dqn, learning_rate=1e-2)}
    for network, weight, knows in (("mixture", 1.0, True), ("concat", 1.0, True), ("concat", 0.0, False)):
        learner, rng = learner_of(of(network, label_weight=weight, **changes)), generator(1)  # type: ignore[arg-type]
        for _ in range(150):
            rows = labelled(64, rng)
            shown = torch.nn.functional.one_hot(rows.obs[:, 4:7].argmax(1), 3).float()
            learner.update(OneBatch(rows.with_(obs=torch.cat([rows.obs[:, :7], shown], 1))), None)
        assert (float(learner.metrics["label_accuracy"]) > 0.85) == knows


def test_the_optimiser_is_its_formula() -> None:
    rng = generator(0)
    weights = [torch.nn.Parameter(torch.randn(3, generator=rng)), torch.nn.Parameter(torch.randn(2, generator=rng))]
    unused = torch.nn.Parameter(torch.ones(2))
    optimiser = CentredRMSProp([*weights, unused], lr=0.1, smoothing=0.8, floor=0.02)
    plain = [w.detach().double().tolist() for w in weights]
    means, squares = ([[0.0] * len(row) for row in plain] for _ in range(2))
    for _ in range(5):
        for i, w in enumerate(weights):
            w.grad = torch.randn(w.shape, generator=rng)
            for j, slope in enumerate(w.grad.tolist()):
                means[i][j] = 0.8 * means[i][j] + 0.2 * slope
                squares[i][j] = 0.8 * squares[i][j] + 0.2 * slope**2
                plain[i][j] -= 0.1 * slope / (squares[i][j] - means[i][j] ** 2 + 0.02) ** 0.5
        optimiser.step()
    for w, wanted in zip(weights, plain, strict=True):
        np.testing.assert_allclose(w.detach().numpy(), wanted, rtol=1e-4)
    assert unused.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="without a closure"):
        optimiser.step(lambda: 0.0)
    with pytest.raises(ValueError, match=r"lr=0\.0 and floor=1\.0 must be > 0"):
        CentredRMSProp(weights, 0.0, floor=1.0)


def test_means_of_64_rows_move_weights_as_the_codes_sums_do() -> None:
    moved = []
    for scale, floor in ((1.0, None), (64.0, 0.01)):
        weight = torch.nn.Parameter(torch.ones(4))
        optimiser = CentredRMSProp([weight], 5e-4, **({} if floor is None else {"floor": floor}))
        rng = generator(0)
        for _ in range(20):
            weight.grad = scale * 0.01 * torch.randn(4, generator=rng)
            optimiser.step()
        moved.append(weight.detach())
    torch.testing.assert_close(*moved, rtol=1e-5, atol=1e-8)


def test_exploration_falls_as_the_learner_learns() -> None:
    dyna = of("pooled", last_random_share=0.1).build(SPEC, streams(0), CPU)
    learner: Any = dyna.learner
    for updates, share in ((0, 0.5), (5, 0.3), (10, 0.1), (1_000, 0.1)):
        learner.updates = updates
        assert learner.random_share == pytest.approx(share)
        view = View.of(SPEC, torch.ones(20_000, 10))
        greedy, act = dyna.actor.step(None, view, None)[1], dyna.actor.step(None, view, generator(1))[1]
        assert float((act != greedy).any(1).float().mean()) == pytest.approx(share * 2 / 3, abs=0.015)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_a_restored_learner_goes_on_exactly_and_seeds_decide(network: Network, optimiser: Any) -> None:
    config, rng = of(network, optimiser=optimiser), generator(1)
    learner, twin, stranger = learner_of(config), learner_of(config), learner_of(config, seed=7)
    batches = [OneBatch(labelled(16, rng)) for _ in range(9)]
    for batch in batches[:4]:
        learner.update(batch, None)
        twin.update(batch, None)
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters(), twin.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(learner.parameters(), stranger.parameters(), strict=True))
    restore_learner(stranger, learner_state(learner))
    for batch in batches[4:]:
        for each in (learner, stranger):
            each.update(batch, None)
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters(), stranger.parameters(), strict=True))
    assert learner.random_share == stranger.random_share == pytest.approx(0.5 - 0.4 * 0.9)


SOCCER = GameConfig(name="toy/soccer", copies=4, options={"episode_limit": 6})


@pytest.mark.parametrize(
    ("network", "label", "optimiser"),
    [("mixture", TYPE, "rmsprop"), ("concat", ACTION, "adam"), ("joined", (), "rmsprop"), ("pooled", (), "adam")],
)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, network: Network, label: tuple[int, ...], optimiser: Any
) -> None:
    method = replace(SMALL, network=network, state=STATE, opponent=OPPONENT, label=label, optimiser=optimiser)
    whole = assert_resumes(scenario(method, SOCCER), tmp_path)
    told = read_metrics(whole / METRICS_FILE)[-1].keys()
    assert {"train/loss", "eval/mean_reward"} <= told
    assert ("train/label_accuracy" in told) == bool(label)
    agent = load(whole)
    assert int(agent.act(np.zeros(40, dtype=np.float32))) in range(5)


class Moods(Rules):
    """One step: a bit is shown, and which of two moods the opponent is in; doing as the bit says pays 1 in one mood,
    and doing the other thing in the other. Whoever does not see the mood gets a half at best.
    """

    spec = GameSpec(
        name="moods",
        agents=(AgentSpec(name="agent", obs=(0, 1, 2, 3), heads=(Head(kind="discrete", size=2),)),),
        obs_dim=6, episode_limit=1, terminates=True,
    )  # fmt: skip
    device, dtype = CPU, torch.float32

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        return (torch.rand(copies, 2, generator=rng) < 0.5).float()

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        return state

    def see(self, state: Tensor) -> dict[str, Tensor]:
        bit, mood = state.unbind(1)
        return {"obs": torch.stack([bit, 1 - bit, mood, 1 - mood, mood, 1 - mood], 1)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return (act[:, 1] == (before[:, 0] != before[:, 1]).float()).float()[:, None]

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return torch.ones(len(act), 1, dtype=torch.bool)


def trained(config: DRONConfig) -> Dyna:
    rules = Moods()
    dyna = config.build(rules.spec, streams(0), CPU)
    game, replay = BatchedGame(rules, 16), Replay(rules.spec, 4_000, 16)
    view = game.reset(0)
    while dyna.updates < 500:
        rows, view = game.step(dyna.explore(view))
        replay.extend(rows)
        dyna.learn(replay, rows)
    return dyna


@pytest.mark.parametrize(("network", "label"), [("mixture", (4, 5)), ("concat", ()), ("joined", ()), ("pooled", ())])
def test_only_a_model_of_the_opponent_plays_to_both_moods(network: Network, label: tuple[int, ...]) -> None:
    dyna = trained(
        DRONConfig(
            network=network, state=(0, 1), opponent=(2, 3), label=label, experts=2, opponent_hidden=16,
            optimiser="adam",
            dqn=DQNConfig(hidden=(16, 16), learning_rate=1e-2, target_every=50, target_rate=1.0, random_share=0.3),
            loop=DynaConfig(real_share=1.0, batch_size=64, warmup_steps=160, updates_per_step=1 / 8),
        )
    )  # fmt: skip
    game = BatchedGame(Moods(), 400)
    view = game.reset(9)
    rows, _ = game.step(dyna.actor.step(None, view, None)[1])
    best = 0.5 if network == "pooled" else 1.0
    assert float(rows.reward.mean()) == pytest.approx(best, abs=0.06 if network == "pooled" else 0.0)
    assert dyna.losses().get("train/label_accuracy", 1.0) == 1.0


def test_the_defaults_are_the_authors_numbers() -> None:
    config = DRONConfig()
    assert (config.dqn.discount, config.dqn.learning_rate, config.optimiser) == (0.9, 5e-4, "rmsprop")
    assert config.dqn.target_every / config.loop.updates_per_step == 10_000
    assert config.falling / config.loop.updates_per_step == 500_000
    assert (config.dqn.random_share, config.last_random_share) == (0.3, 0.1)
    assert (config.loop.batch_size, config.loop.warmup_steps, config.loop.replay_capacity) == (64, 1_000, 100_000)
    assert config.label_weight * config.loop.batch_size == 1


def test_columns_are_those_that_the_agent_reads_unless_named() -> None:
    assert DRONConfig(opponent=(4, 6), label=(8, 9)).columns(SPEC) == ((0, 1, 2, 3, 5), (4, 6))
    assert DRONConfig(network="pooled").columns(SPEC) == (tuple(range(7)), ())
    assert DRONConfig(state=(3, 0), opponent=(6,)).columns(SPEC) == ((3, 0), (6,))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"network": "moe"}, "network='moe' must be one of 'mixture', 'concat', 'joined', 'pooled'"),
        ({"optimiser": "sgd"}, "optimiser='sgd' must be 'rmsprop' or 'adam'"),
        ({"experts": 0}, "experts=0 must be >= 1"),
        ({"opponent_hidden": 0}, "opponent_hidden=0 must be >= 1"),
        ({"falling": 0}, "falling=0 must be >= 1"),
        ({"dqn": DQNConfig(hidden=())}, r"dqn.hidden=\(\) must have a layer that reads the state"),
        ({"network": "concat", "dqn": DQNConfig(hidden=(8,))}, r"dqn.hidden=\(8,\).* for 'concat' one behind it"),
        ({"label_weight": -0.1}, r"label_weight=-0\.1 must be >= 0"),
        ({"error_limit": 0.0}, r"error_limit=0\.0 > 0"),
        ({"last_random_share": 1.5}, r"last_random_share=1\.5 must lie in \[0, 1\]"),
        ({"loop": DynaConfig(real_share=0.5)}, r"loop.real_share=0\.5 must be 1"),
        ({"network": "pooled", "label": (3,)}, r"network='pooled' has no extra head for label=\(3,\)"),
        ({"opponent": (1, 2), "label": (2, 3)}, r"columns \[2\] are named twice"),
    ],
)
def test_contradictions_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DRONConfig(**numbers)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({}, r"network='mixture' needs columns of 'moves' that tell of the state and of the opponent"),
        ({"opponent": (7,)}, r"opponent: columns \[7\] of 'moves' are not among what the agent reads"),
        ({"state": (0, 9), "opponent": (1,)}, r"state: columns \[9\] of 'moves'"),
        ({"opponent": (1,), "label": (10, 11)}, r"label: columns \[10, 11\] of 'moves' are not among 0\.\.9"),
        ({"opponent": tuple(range(7))}, r"got state=\(\) and opponent=\(0, 1, 2, 3, 4, 5, 6\)"),
    ],
)
def test_columns_that_a_game_lacks_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(GameError, match=message):
        DRONConfig(**numbers).build(SPEC, streams(0), CPU)


def test_games_that_it_cannot_play_are_refused() -> None:
    with pytest.raises(GameError, match="one agent that makes a single choice"):
        DRONConfig(network="pooled").build(PLAIN, streams(0), CPU)
