"""A2C: recalls what a memory alone can tell, learns box and masked actions, and can be stopped at any instant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from presage.common.a2c import A2CConfig
from presage.common.actor_critic import ActorCriticConfig
from presage.common.evaluate import evaluate
from presage.common.game import AgentSpec, Game, GameSpec, Head, Rows
from presage.common.learner_state import learner_state
from presage.common.on_policy import Chunk, OnPolicy, OnPolicyConfig
from presage.common.replay import Replay
from presage.common.run import resume, start
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from presage.envs.batched import BatchedGame, Rules
from presage.envs.toy import PointMass
from tests.common.tiny_runs import PARTICLE, Interrupted, differences, interrupt, scenario
from tests.common.toy import PLAIN, VARIED, LinearGame, discrete_agent, random_rows

CPU = torch.device("cpu")
LOOP = OnPolicyConfig(collect_steps=10, chunk=5)
QUICK = ActorCriticConfig(learning_rate=1e-2)
TINY = A2CConfig(hidden=(8,), memory=4, loop=OnPolicyConfig(collect_steps=6, chunk=3))


class Recall(Rules):
    """One of two lights is shown at first; at the last of `length` env steps it is to be named, for a reward of 1."""

    def __init__(self, length: int = 3, agents: int = 1) -> None:
        self.device, self.dtype, self.length = torch.device("cpu"), torch.float32, length
        self.spec = GameSpec(
            name="recall", obs_dim=3 * agents, terminates=True,
            agents=tuple(discrete_agent(f"a{i}", range(3 * i, 3 * i + 3), 2) for i in range(agents)),
        )  # fmt: skip

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        lights = torch.randint(2, (copies, self.spec.n), generator=rng).float()
        return torch.cat([torch.zeros(copies, 1), lights], 1)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        return torch.cat([state[:, :1] + 1, state[:, 1:]], 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        shown = (state[:, :1] == 0).float()
        time = (state[:, :1] / self.length).expand(-1, self.spec.n)
        parts = torch.stack([shown * (1 - state[:, 1:]), shown * state[:, 1:], time], 2)
        return {"obs": parts.flatten(1)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        named = act.view(len(act), -1, 2)[..., 1]
        return (named == before[:, 1:]).float() * self.ends(before, act, after)

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return (after[:, :1] == self.length).expand(-1, self.spec.n)


def trained(config: A2CConfig, game: Game, steps: int, seed: int = 0) -> OnPolicy:
    trainee = config.build(game.spec, streams(seed), CPU)
    replay, view = Replay(game.spec, game.copies, game.copies), game.reset(seed)
    while trainee.env_steps < steps:
        rows, view = game.step(trainee.explore(view))
        trainee.learn(replay, rows)
    return trainee


def mean_return(trainee: OnPolicy, game: Game) -> float:
    return evaluate(game, trainee.actor, 4 * game.copies, 7).mean_return


@pytest.mark.parametrize("agents", [1, 2])
def test_it_recalls_with_a_memory_and_guesses_without(agents: int) -> None:
    rules, found = Recall(agents=agents), {}
    loop = OnPolicyConfig(collect_steps=6, chunk=3)
    for memory in (0, 16):
        config = A2CConfig(hidden=(32,), memory=memory, numbers=QUICK, loop=loop)
        found[memory] = mean_return(trained(config, BatchedGame(rules, 16), 20_000), BatchedGame(rules, 64))
    assert found[16] > 0.97
    assert found[0] < 0.7


def test_it_learns_box_actions() -> None:
    rules = PointMass(episode_limit=15)
    config = A2CConfig(hidden=(32,), numbers=QUICK, loop=LOOP)
    best = float(rules.optimum(BatchedGame(rules, 64).reset(7).obs).mean())
    before = mean_return(config.build(rules.spec, streams(0), CPU), BatchedGame(rules, 64))
    found = mean_return(trained(config, BatchedGame(rules, 32), 60_000), BatchedGame(rules, 64))
    assert before < 2.5 * best
    assert found > 1.4 * best


class Forbidden(Rules):
    """Of three choices the best one is not allowed, and the agent is asked in every other step alone."""

    def __init__(self) -> None:
        self.device, self.dtype = torch.device("cpu"), torch.float32
        agent = AgentSpec(name="a", obs=(0,), heads=(Head(kind="discrete", size=3),), start=(0,))
        self.spec = GameSpec(
            name="forbidden", agents=(agent,), obs_dim=1, episode_limit=4, acting_varies=True, legal_varies=True
        )

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        return torch.zeros(copies, 1)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        return state + 1

    def see(self, state: Tensor) -> dict[str, Tensor]:
        legal = torch.tensor([True, True, False]).expand(len(state), -1)
        return {"obs": state / 4, "legal": legal, "acting": state % 2 == 0}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return act @ torch.tensor([[0.0], [1.0], [5.0]])


def test_it_does_what_is_allowed_and_nothing_where_it_is_not_asked() -> None:
    rules = Forbidden()
    config = A2CConfig(hidden=(16,), memory=4, numbers=QUICK, loop=OnPolicyConfig(collect_steps=8, chunk=4))
    trainee = trained(config, BatchedGame(rules, 16), 6_000)  # the game refuses anything else
    assert mean_return(trainee, BatchedGame(rules, 16)) == 2.0
    assert 0.0 <= float(trainee.learner.metrics["entropy"]) <= 0.7, "over two choices, where it is asked"


@pytest.mark.parametrize("spec", [PLAIN, VARIED])
def test_what_is_unrolled_is_what_was_done_step_by_step(spec: GameSpec) -> None:
    """Memories are those of acting, also across episodes; and what lies ahead is the value of the next observation."""
    config = A2CConfig(hidden=(8,), memory=4)
    learner = config.build(spec, streams(3), CPU).learner
    rng = torch.Generator().manual_seed(5)
    time, copies = 5, 3
    flat = random_rows(spec, time * copies, rng)
    rows = Rows(**{name: part.view(time, copies, *part.shape[1:]) for name, part in vars(flat).items()})
    step = torch.arange(1, time + 1, dtype=torch.int32)[:, None].repeat(1, copies)
    step[2:, 1] = torch.arange(3, dtype=torch.int32)
    rows = rows.with_(step=step)
    memory = tuple(torch.randn(part.shape, generator=rng) for part in learner.begin(copies))
    found = learner._unrolled(Chunk(rows=rows, memory=memory, kept={}))
    for t in range(time):
        if t == 2:
            fresh = learner.begin(copies)
            memory = tuple(torch.where(torch.tensor([0, 1, 0]).view(3, 1, 1) > 0, f, m)
                           for f, m in zip(fresh, memory, strict=True))  # fmt: skip
        place = 0
        for k, (group, network) in enumerate(learner._networks()):
            own = network.look(network.reads(rows.obs[t][:, group.obs]), memory[place + 1], memory[place])
            parameters, value = network(network.reads(rows.obs[t][:, group.obs]), own)
            torch.testing.assert_close(found[k][0][t], parameters)
            torch.testing.assert_close(found[k][1][t], value)
            then = network.reads(rows.next_obs[t][:, group.obs])
            ahead = network(then, network.look(then, rows.act[t][:, group.act], own))[1]
            torch.testing.assert_close(found[k][2][t], ahead)
            place += 2
        memory = learner.told(learner.act(memory, rows.view[t], None)[0], rows.act[t])


def test_same_seed_same_numbers() -> None:
    states = [
        learner_state(trained(TINY, LinearGame(PLAIN, copies=4, limit=5), 96, seed))["tensors"] for seed in (0, 0, 1)
    ]
    first, again, other = states
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


@pytest.mark.parametrize("game", [PARTICLE, GameConfig(name="toy/point_mass", copies=4, options={"episode_limit": 5})])
@pytest.mark.parametrize(("phase", "occurrence"), [("collection", 13), ("update", 2), ("checkpoint", 2)])
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, game: GameConfig, phase: str, occurrence: int
) -> None:
    monkeypatch.setattr("presage.common.run.conclude", lambda training, folder: "a table")
    run: Any = scenario(TINY, game)
    start(run, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(run, tmp_path / "stopped", on_phase=interrupt(phase, occurrence))
    resume(tmp_path / "stopped")
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


def test_contradictions_are_named() -> None:
    with pytest.raises(ValueError, match="memory=-1"):
        A2CConfig(memory=-1)
