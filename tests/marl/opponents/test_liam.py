"""LIAM: whose gradient reaches what, what is seen when, and that a hidden partner is found out and answered."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from presage.common.a2c import A2CConfig
from presage.common.actor_critic import ActorCriticConfig
from presage.common.evaluate import evaluate
from presage.common.game import Game, GameError, GameSpec, Rows, View
from presage.common.heads import log_prob
from presage.common.learner_state import learner_state
from presage.common.on_policy import Chunk, OnPolicy, OnPolicyConfig
from presage.common.replay import Replay
from presage.common.streams import streams
from presage.envs.batched import BatchedGame
from presage.envs.toy import Soccer
from presage.envs.toy.soccer import ACTION, TYPE
from presage.marl.opponents.against import Against, Hidden
from presage.marl.opponents.liam import LIAM, LIAMConfig, Model
from presage.marl.opponents.liam_networks import Decoder, Encoder, EncodingConfig, heads_of, reconstruction_errors
from presage.marl.opponents.policies import linear, uniform
from presage.marl.opponents.pools import Opponent, Pool
from tests.common.toy import LinearGame, box_agent, discrete_agent, generator, random_rows
from tests.marl.opponents.matching import BEST, GUESSING, LENGTH, SHOWN, matching

CPU = torch.device("cpu")
LABELS = matching(1).hidden
QUICK = ActorCriticConfig(learning_rate=1e-2)
SMALL = LIAMConfig(
    labels=LABELS, encoding=EncodingConfig(embedding=4, memory=16, hidden=(16,), learning_rate=1e-2), hidden=(32,),
    numbers=QUICK, loop=OnPolicyConfig(collect_steps=LENGTH, chunk=LENGTH),
)  # fmt: skip
LOOP = OnPolicyConfig(collect_steps=6, chunk=3)
NOBODY: dict[str, Any] = {"labels": Hidden(), "model": "none"}
every_model = pytest.mark.parametrize("model", get_args(Model))


def learner(model: Model = "liam", game: Against | None = None, **numbers: Any) -> LIAM:
    game = game or matching(4)
    config = replace(SMALL, model=model, labels=game.hidden, **numbers)
    found: LIAM = config.build(game.spec, streams(0), CPU).learner
    return found


def trained(config: Any, game: Game, steps: int, seed: int = 0) -> OnPolicy:
    trainee: OnPolicy = config.build(game.spec, streams(seed), CPU)
    replay, view = Replay(game.spec, game.copies, game.copies), game.reset(seed)
    while trainee.env_steps < steps:
        rows, view = game.step(trainee.explore(view))
        trainee.learn(replay, rows)
    return trainee


@cache
def taught(model: Model) -> OnPolicy:
    return trained(replace(SMALL, model=model), matching(16), 20_000)


def mean_return(trainee: OnPolicy) -> float:
    """Against both partners equally often."""
    return evaluate(matching(64, "in turn"), trainee.actor, 64, 7).mean_return


def chunk_of(config: LIAM, time: int = 5, copies: int = 3, seed: int = 5) -> Chunk:
    """Random steps, in which an episode of the second copy begins at the third one."""
    rng = generator(seed)
    flat = random_rows(config.spec, time * copies, rng)
    rows = Rows(**{name: part.view(time, copies, *part.shape[1:]) for name, part in vars(flat).items()})
    labels = config.config.labels
    if labels.choices:
        drawn = torch.cat([torch.eye(k)[torch.randint(k, (time, copies), generator=rng)] for k in labels.choices], 2)
        rows.obs[..., list(labels.actions)] = drawn
    if labels.identity:
        who = torch.randint(len(labels.identity), (time, copies), generator=rng)
        rows.obs[..., list(labels.identity)] = torch.eye(len(labels.identity))[who]
    step = torch.arange(1, time + 1, dtype=torch.int32)[:, None].repeat(1, copies)
    step[2:, 1] = torch.arange(time - 2, dtype=torch.int32)
    memory = tuple(torch.randn(part.shape, generator=rng) for part in config.begin(copies))
    return Chunk(rows=rows.with_(step=step), memory=memory, kept={})


def graded(module: nn.Module) -> list[bool]:
    return [parameter.grad is not None and bool(parameter.grad.any()) for parameter in module.parameters()]


# ------------------------------------------------------------------ equations


def test_the_loss_by_hand() -> None:
    """Observations (1, 2) where (0, 0) is told, and a choice of which a quarter is expected."""
    own = heads_of((4,), 4)
    decoded = torch.zeros(1, 2), torch.zeros(1, 4)
    sees, does = reconstruction_errors(own, decoded, torch.tensor([[1.0, 2.0]]), torch.eye(4)[:1])
    assert float(sees) == 2.5
    assert float(does) == pytest.approx(1.386294, abs=1e-6)
    nobody = reconstruction_errors(own, decoded, torch.zeros(1, 2), torch.zeros(1, 4))[1]
    assert float(nobody) == 0.0, "nobody chose"
    box, numbers = heads_of((), 2), torch.tensor([[0.1, -0.2, -1.0, -1.0]])
    act = torch.tensor([[0.3, 0.4]])
    told = reconstruction_errors(box, (torch.zeros(1, 2), numbers), torch.zeros(1, 2), act)[1]
    assert torch.equal(told, -log_prob(box, numbers, act))


def test_units_are_torchs_own() -> None:
    encoder = Encoder(5, EncodingConfig(embedding=3, memory=6), generator(0))
    peer = nn.LSTM(5, 6)
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(peer, f"{name}_l0").copy_(getattr(encoder.units, name))
    read = torch.randn(4, 2, 5, generator=generator(1))
    output, cell = encoder.along(read, encoder.begin(2), torch.zeros(4, 2, dtype=torch.bool))
    wanted, (_, last) = peer(read)
    torch.testing.assert_close(output, wanted)
    torch.testing.assert_close(cell[-1], last[0])
    again = Encoder(5, EncodingConfig(embedding=3, memory=6), generator(0))
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), again.parameters(), strict=True))
    assert float(encoder.units.weight_ih.detach().abs().max()) <= 6**-0.5


def test_a_decoder_tells_both() -> None:
    sees, does = Decoder(7, 4, EncodingConfig(embedding=3, hidden=(8,)), generator(0))(torch.zeros(2, 5, 3))
    assert (sees.shape, does.shape) == ((2, 5, 7), (2, 5, 4))


# ------------------------------------------------------- whose gradient reaches what


@every_model
def test_no_gradient_of_acting_reaches_the_encoder_and_none_of_telling_the_policy(model: Model) -> None:
    found = learner(model)
    chunk = chunk_of(found)
    policy = found.policy
    embedding = policy.encoder.embed(found.remembered(chunk)[0])
    torch.autograd.backward(found.acting_loss(chunk, embedding, torch.ones(5, 3, 1))[0], retain_graph=True)
    assert all(graded(policy.actor_critic))
    assert any(graded(policy.encoder)) == (model == "none"), "the lower bound alone learns by rewards"
    if model != "none":
        assert all(parameter.grad is None for parameter in policy.encoder.parameters())
        assert found.teller is not None
        assert all(parameter.grad is None for parameter in found.teller.parameters())
        policy.zero_grad()
        torch.autograd.backward(found.telling_loss(chunk, embedding)[0])
        assert all(parameter.grad is None for parameter in policy.actor_critic.parameters())
        assert all(graded(found.teller))
        assert all(graded(policy.encoder))


@every_model
def test_each_optimiser_moves_what_its_loss_is_of(model: Model) -> None:
    found = learner(model)
    optimisers = [optimiser for optimiser in (found.optimiser, found.teller_optimiser) if optimiser is not None]
    moved = [{id(p) for group in optimiser.param_groups for p in group["params"]} for optimiser in optimisers]
    networks = {"acts": found.policy.actor_critic, "reads": found.policy.encoder, "tells": found.teller}
    parts = {name: {id(p) for p in network.parameters()} for name, network in networks.items() if network is not None}
    if model == "none":
        assert moved == [parts["acts"] | parts["reads"]]
    else:
        assert moved == [parts["acts"], parts["reads"] | parts["tells"]]


def test_gradients_are_clipped_network_by_network(monkeypatch: pytest.MonkeyPatch) -> None:
    found, clipped = learner(), []
    real = nn.utils.clip_grad_norm_

    def noted(parameters: Any, limit: float) -> Tensor:
        own = list(parameters)
        clipped.append((len(own), limit))
        return real(own, limit)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", noted)
    found._descend(chunk_of(found), torch.ones(5, 3, 1))
    networks = [n for n in (found.teller, found.policy.encoder, found.policy.actor_critic) if n is not None]
    assert clipped == [(len(list(network.parameters())), 0.5) for network in networks]


# --------------------------------------------------------------- what is seen when


def columns(chunk: Chunk, where: tuple[int, ...], t: int, value: float) -> Chunk:
    """The chunk with other numbers in columns of what was seen before step t."""
    obs = chunk.rows.obs.clone()
    obs[t, :, list(where)] = value
    return replace(chunk, rows=chunk.rows.with_(obs=obs))


@every_model
def test_the_encoder_is_told_of_an_action_a_step_later(model: Model) -> None:
    found = learner(model)
    chunk = chunk_of(found)
    act = chunk.rows.act.clone()
    act[1] = act[1].flip(-1)
    was, now = found.remembered(chunk)[0], found.remembered(replace(chunk, rows=chunk.rows.with_(act=act)))[0]
    assert torch.equal(was[:2], now[:2])
    changed = (was[2] != now[2]).any(1)
    assert changed.tolist() == [True, False, True], "of the second copy an episode begins there"


@every_model
def test_labels_are_read_by_the_upper_bound_alone(model: Model) -> None:
    found = learner(model)
    chunk = chunk_of(found)
    was = found.remembered(chunk)[0]
    for name, first in (("observations", 1), ("actions", 2), ("identity", 5)):
        now = found.remembered(columns(chunk, getattr(LABELS, name), 1, math.nan))[0]
        touched = now.isnan().any(-1).any(-1)
        if model == "full" and first < 5:
            assert not bool(touched[:first].any())
            assert bool(touched[first].any())
        else:
            assert torch.equal(was, now), name


@every_model
def test_hidden_columns_are_not_needed_to_act(model: Model) -> None:
    found = learner(model)
    game = matching(4)
    view, memory = game.reset(0), found.begin(4)
    blind = replace(view, obs=view.obs.clone())
    blind.obs[:, len(game.spec.obs[0]) :] = math.nan
    for _ in range(3):
        memory, act, _ = found.act(memory, blind, None)
    finite = all(bool(part.isfinite().all()) for part in memory)
    assert finite == (model != "full")
    if finite:
        assert torch.equal(act.sum(1), torch.ones(4))


@every_model
def test_what_is_unrolled_is_what_was_remembered_while_acting(model: Model) -> None:
    """Step by step through a chunk, in which one copy's episode begins."""
    found = learner(model)
    chunk = chunk_of(found)
    along, memory = found.remembered(chunk), chunk.memory
    for t in range(5):
        if t == 2:
            fresh = found.begin(3)
            where = torch.tensor([[False], [True], [False]])
            memory = tuple(torch.where(where, new, old) for new, old in zip(fresh, memory, strict=True))
        memory = found.act(memory, chunk.rows.view[t], None)[0]
        torch.testing.assert_close(along[0][t], memory[0])
        torch.testing.assert_close(along[1][t], memory[1])
        memory = found.told(memory, chunk.rows.act[t])
    assert all(not bool(part.any()) for part in found.begin(3))


def test_targets_look_ahead_with_what_is_remembered_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    found, given = learner(), dict[str, Tensor]()

    def noted(numbers: Any, scale: Any, reward: Tensor, value: Tensor, ahead: Tensor, *rest: Any) -> Tensor:
        given.update(value=value, ahead=ahead)
        return torch.zeros_like(value)

    monkeypatch.setattr("presage.marl.opponents.liam.value_targets", noted)
    chunk = chunk_of(found)
    obs = chunk.rows.next_obs.clone()
    obs[:-1] = chunk.rows.obs[1:]
    chunk = replace(chunk, rows=chunk.rows.with_(next_obs=obs))
    found.update([chunk])
    goes_on = ~chunk.first[1:]
    torch.testing.assert_close(given["ahead"][:-1][goes_on], given["value"][1:][goes_on])


# -------------------------------------------------------------------- learning


@pytest.mark.parametrize("model", ["liam", "full", "identity"])
def test_it_answers_a_partner_of_a_hidden_kind(model: Model) -> None:
    assert mean_return(taught(model)) > BEST - 0.3


def test_without_a_memory_nobody_can() -> None:
    found = mean_return(trained(A2CConfig(hidden=(32,), numbers=QUICK, loop=SMALL.loop), matching(16), 20_000))
    assert found < GUESSING + 0.3


def test_embeddings_tell_the_kind_once_it_was_shown() -> None:
    """A linear probe guesses before that, and is right from then on."""
    trainee, game = taught("liam"), matching(256, "in turn")
    found, view, memory = trainee.learner, game.reset(3), trainee.learner.begin(256)
    embeddings = []
    with torch.no_grad():
        for _ in range(LENGTH):
            memory, act, _ = found.act(memory, view, generator(0))
            embeddings.append(found.policy.encoder.embed(memory[0]).double())
            _, view = game.step(act)
    kind = (torch.arange(256) % 2).double() * 2 - 1
    right = []
    for z in embeddings:
        known = torch.cat([z, torch.ones(256, 1, dtype=torch.float64)], 1)
        weights = torch.linalg.lstsq(known[:128], kind[:128, None], driver="gelsd").solution
        right.append(float(((known[128:] @ weights)[:, 0].sign() == kind[128:]).double().mean()))
    assert abs(right[0] - 0.5) < 0.16
    assert min(right[SHOWN:]) > 0.99


def test_same_seed_same_numbers() -> None:
    small = replace(SMALL, loop=LOOP)
    states = [learner_state(trained(small, matching(4), 96, seed))["tensors"] for seed in (0, 0, 1)]
    first, again, other = states
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


@every_model
def test_metrics_are_told(model: Model) -> None:
    told = trained(replace(SMALL, model=model, loop=LOOP), matching(4), 48).losses()
    own = {
        "none": set(), "identity": {"identity_loss", "identity_accuracy"},
    }.get(model, {"observation_loss", "action_loss", "action_accuracy"})  # fmt: skip
    assert {name.removeprefix("train/") for name in told} == {"actor_loss", "critic_loss", "entropy"} | own
    assert all(math.isfinite(value) for value in told.values())


# ------------------------------------------------------------------ other games


def test_box_actions_on_both_sides() -> None:
    spec = GameSpec(name="pair", agents=(box_agent("ego", (0, 1), 2), box_agent("b", (1, 2), 1)), obs_dim=3)
    game = Against(
        LinearGame(spec, 4, limit=5), 0, Pool(spec, [Opponent(name="l", actor=linear(spec, generator(0)))])
    )  # fmt: skip
    config = replace(SMALL, labels=game.hidden, loop=LOOP)
    told = trained(config, game, 240).losses()
    assert "train/action_accuracy" not in told
    assert told["train/action_loss"] < 3.0


def test_it_learns_from_labels_of_any_game() -> None:
    rules = Soccer(episode_limit=6)
    labels = Hidden(observations=TYPE, actions=ACTION, choices=(5,))
    told = trained(replace(SMALL, labels=labels, loop=LOOP), BatchedGame(rules, 4), 48).losses()
    assert 0.0 <= told["train/action_accuracy"] <= 1.0


def test_agents_that_may_not_do_everything() -> None:
    agents = (discrete_agent("ego", (0, 1), 3), discrete_agent("b", (1, 2), 2))
    spec = GameSpec(name="masked", agents=agents, obs_dim=3, legal_varies=True)
    pool = Pool(spec, [Opponent(name="u", actor=uniform(spec))])
    inner = LinearGame(spec, 4)
    own = Against(inner, 0, pool)
    found = learner(game=own)
    legal = torch.tensor([[True, False, True]]).expand(4, -1)
    view = View.of(own.spec, torch.randn(4, own.spec.obs_dim), legal=legal)
    for seed in range(20):
        act = found.act(found.begin(4), view, generator(seed))[1]
        assert not bool(act[:, 1].any())
        assert torch.equal(act.sum(1), torch.ones(4))


def test_games_that_do_not_suit_are_refused() -> None:
    game = matching(2)
    with pytest.raises(GameError, match=r"LIAM plays one agent, 'matching' has 2; put the others behind"):
        replace(SMALL, **NOBODY).build(game.game.spec, streams(0), CPU)
    with pytest.raises(GameError, match=r"labels name \[0\] of 'matching against 2', which are read by its agent"):
        replace(SMALL, labels=replace(LABELS, observations=(0,))).build(game.spec, streams(0), CPU)
    with pytest.raises(GameError, match=r"labels name \[99\]"):
        replace(SMALL, labels=replace(LABELS, observations=(99,))).build(game.spec, streams(0), CPU)
    assert replace(SMALL, **NOBODY).build(game.spec, streams(0), CPU).learner.teller_optimiser is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"model": "lima"}, "model='lima' must be one of 'liam', 'none', 'full', 'identity'"),
     ({"labels": Hidden()}, "model='liam' learns from labels that labels="),
     ({"labels": replace(LABELS, identity=()), "model": "identity"}, "model='identity' learns from labels")],
)  # fmt: skip
def test_contradictions_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **wrong)
    with pytest.raises(ValueError, match="embedding=0 and memory=128 must be >= 1"):
        EncodingConfig(embedding=0)
    with pytest.raises(ValueError, match="learning_rate=0"):
        EncodingConfig(learning_rate=0.0)


def test_the_papers_numbers() -> None:
    hunted, foraging, speakers = (
        LIAMConfig.paper(task, LABELS) for task in ("predator-prey", "foraging", "double speaker-listener")
    )  # fmt: skip
    for config in (hunted, foraging, speakers):
        assert (config.encoding.embedding, config.encoding.memory, config.hidden) == (20, 128, (128, 128))
        assert (config.numbers.learning_rate, config.encoding.learning_rate) == (3e-4, 7e-4)
        assert (config.numbers.discount, config.numbers.trace, config.numbers.gradient_clip) == (0.99, 0.95, 0.5)
        assert config.loop.chunk == 5
    assert [c.numbers.entropy_weight for c in (hunted, foraging, speakers)] == [0.01, 0.001, 0.01]
    assert [c.numbers.value_weight for c in (hunted, foraging, speakers)] == [1.0, 1.0, 0.25]
    assert [c.loop.collect_steps for c in (hunted, foraging, speakers)] == [50, 50, 25]
    with pytest.raises(ValueError, match="task='soccer' must be one of 'predator-prey', 'foraging'"):
        LIAMConfig.paper("soccer", LABELS)  # type: ignore[arg-type]
