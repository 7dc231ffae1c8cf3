"""Collecting for on-policy learners: what was remembered where, what is handed over, and what is continued from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from presage.common.game import GameSpec, Rows, View, Window
from presage.common.on_policy import (
    Chunk,
    Collection,
    Kept,
    Memory,
    MemoryActor,
    OnPolicy,
    OnPolicyConfig,
    side_by_side,
)
from presage.common.replay import Replay
from presage.common.streams import streams
from presage.envs.batched import BatchedGame
from presage.envs.toy import PointMass
from tests.common.toy import assert_same_rows, discrete_agent, generator

CPU = torch.device("cpu")
LOOP = OnPolicyConfig(collect_steps=6, chunk=3)


class Counting(nn.Module):
    """Remembers how many views of the episode it saw, and what was done in the last one; acts at random."""

    checkpoint_skip = ("metrics", "given")

    def __init__(self, spec: GameSpec) -> None:
        super().__init__()
        self.spec, self.policy = spec, nn.Module()
        self.metrics: dict[str, Tensor] = {}
        self.given: list[Sequence[Chunk]] = []

    def begin(self, rows: int) -> Memory:
        return torch.zeros(rows, 1), torch.zeros(rows, self.spec.act_dim)

    def act(self, memory: Memory, view: View, rng: torch.Generator | None) -> tuple[Memory, Tensor, Kept]:
        act = torch.zeros(len(view), self.spec.act_dim)
        if rng is not None:
            act = self.spec.random_action(view.acting, view.legal, rng)
        seen = memory[0] + 1
        return (seen, act), act, {"seen": seen, "done": memory[1]}

    def told(self, memory: Memory, act: Tensor) -> Memory:
        return memory[0], act

    def update(self, chunks: Sequence[Chunk]) -> None:
        copied = []
        for chunk in chunks:
            rows = Rows(**{f.name: getattr(chunk.rows, f.name).clone() for f in fields(Rows)})
            copied.append(replace(chunk, rows=rows))
        self.given.append(copied)


def collected(rules: PointMass, copies: int, steps: int) -> tuple[list[Rows], Counting]:
    """Every step's rows, and the learner that was handed them."""
    game, learner = BatchedGame(rules, copies), Counting(rules.spec)
    trainee, view, played = OnPolicy(rules.spec, LOOP, learner, streams(0), CPU), game.reset(0), []
    replay = Replay(rules.spec, copies, copies)
    for _ in range(steps):
        rows, view = game.step(trainee.explore(view))
        trainee.learn(replay, rows)
        played.append(rows)
    return played, learner


def test_chunks_hold_what_was_played_and_what_was_remembered_before_it() -> None:
    played, learner = collected(PointMass(episode_limit=4), 2, 13)
    assert [len(chunks) for chunks in learner.given] == [2, 2]
    for place, chunk in enumerate(chunk for chunks in learner.given for chunk in chunks):
        for t in range(3):
            step = 3 * place + t
            assert_same_rows(chunk.rows[t], played[step])
            seen, clock = float(chunk.kept["seen"][t, 0]), step % 4
            assert seen == clock + 1, "a new episode began with nothing remembered"
            assert bool(chunk.first[t].all()) == (clock == 0)
            assert bool(chunk.over[t].all()) == (clock == 3)
        start = float(chunk.memory[0][0])
        assert start == (3 * place) % 4


def test_what_was_done_before_is_told_and_nothing_at_an_episode_s_start() -> None:
    _, learner = collected(PointMass(episode_limit=4), 2, 12)
    for chunks in learner.given:
        for chunk in chunks:
            assert torch.equal(chunk.before(chunk.memory[1], chunk.rows.act), chunk.kept["done"])


def test_chunks_side_by_side_are_the_same_chunks() -> None:
    _, learner = collected(PointMass(episode_limit=4), 2, 6)
    chunks = learner.given[0]
    whole = side_by_side(chunks)
    for k, chunk in enumerate(chunks):
        assert torch.equal(whole.rows.obs[:, 2 * k : 2 * k + 2], chunk.rows.obs)
        assert torch.equal(whole.memory[0][2 * k : 2 * k + 2], chunk.memory[0])
        assert torch.equal(whole.kept["seen"][:, 2 * k : 2 * k + 2], chunk.kept["seen"])


def test_an_episode_that_was_given_up_ends_where_the_next_one_begins() -> None:
    _, learner = collected(PointMass(episode_limit=4), 2, 6)
    chunk = learner.given[0][0]
    step = chunk.rows.step.clone()
    step[1, 0] = 0
    found = replace(chunk, rows=chunk.rows.with_(step=step)).over
    assert found.tolist() == [[True, False], [False, False], [False, False]]


@pytest.mark.parametrize("steps", [0, 2, 3, 5, 6, 8])
def test_it_continues_exactly_from_the_middle_of_a_collection(steps: int) -> None:
    rules = PointMass(episode_limit=4)
    found = []
    for interrupted in (False, True):
        game, learner, rng = BatchedGame(rules, 2), Counting(rules.spec), generator(0)
        collection, view = Collection(learner, LOOP, CPU), game.reset(0)
        given: list[Chunk] = []
        for step in range(14):
            if interrupted and step == steps:
                state = collection.state()
                collection = Collection(learner, LOOP, CPU)
                collection.restore(state)
            rows, view = game.step(collection.act(view, rng))
            if collection.add(rows):
                learner.update(collection.take())
                given += learner.given[-1]
        found.append(given)
    assert len(found[0]) == len(found[1]) == 4
    for one, two in zip(*found, strict=True):
        assert_same_rows(one.rows, two.rows)
        assert all(torch.equal(a, b) for a, b in zip(one.memory, two.memory, strict=True))
        assert one.kept.keys() == two.kept.keys()
        assert all(torch.equal(one.kept[name], two.kept[name]) for name in one.kept)


def test_the_actor_looks_at_the_window_s_earlier_views() -> None:
    spec = GameSpec(name="two", agents=(discrete_agent("a", (0,), 2),), obs_dim=1)
    obs, act = torch.zeros(2, 3, 1), torch.eye(2)[torch.tensor([[0, 1, 0], [0, 1, 0]])]
    valid = torch.tensor([[True, True, True], [False, True, True]])
    window = Window(obs=obs, act=act * valid[..., None], valid=valid, now=View.of(spec, obs[:, -1]))
    seen, done = MemoryActor(spec, Counting(spec)).init(window)
    assert seen.tolist() == [[2.0], [1.0]]
    assert done.tolist() == [[0.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize(("steps", "chunk"), [(5, 2), (0, 1), (4, 0)])
def test_contradictions_are_named(steps: int, chunk: int) -> None:
    with pytest.raises(ValueError, match=rf"collect_steps={steps} must be a multiple of chunk={chunk}"):
        OnPolicyConfig(collect_steps=steps, chunk=chunk)
