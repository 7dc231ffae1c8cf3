"""SOM: inference in closed form and against plain loops, roles and memories step by step, what each agent may know,
runs that stop and go on, and a game that only those win who find out the other's goal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from presage.common.actor_critic import ActorCriticConfig
from presage.common.agent import load
from presage.common.evaluate import evaluate, renew
from presage.common.game import Actor, AgentSpec, Carry, GameError, GameSpec, Head, Rows, View, Window
from presage.common.metrics import METRICS_FILE, read_metrics
from presage.common.on_policy import Chunk, OnPolicy, OnPolicyConfig
from presage.common.replay import Replay
from presage.common.run import resume, start
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from presage.envs.batched import BatchedGame, Rules
from presage.envs.toy import Coins
from presage.marl.opponents.policies import Team
from presage.marl.opponents.som import SOM, Other, SOMConfig, belief, goal_measures, infer, track_goals
from presage.marl.opponents.som_networks import RoleNetwork
from tests.common.tiny_runs import Interrupted, differences, interrupt, scenario
from tests.common.toy import box_agent, discrete_agent, generator

CPU = torch.device("cpu")
BOARD: dict[str, Any] = {"height": 2, "width": 4, "coins": 1, "episode_limit": 6}
RULES = Coins(**BOARD)
TINY = SOMConfig(
    hidden=(12, 8), memory=6, steps=3, rate=0.7, loop=OnPolicyConfig(collect_steps=8, chunk=4)
)  # fmt: skip
OTHERS: list[Other] = ["inferred", "true", "none", "predictor"]


def learner_of(config: SOMConfig = TINY, spec: GameSpec = RULES.spec, seed: int = 0, device: Any = CPU) -> SOM:
    found = config.build(spec, streams(seed), device).learner
    assert isinstance(found, SOM)
    return found


# ---------------------------------------------------------------- inference


@pytest.mark.parametrize(("rate", "wanted"), [(0.1, (0.20622, 0.58756, 0.20622)), (1.0, (0.05651, 0.88698, 0.05651))])
def test_goals_of_a_policy_in_closed_form(rate: float, wanted: tuple[float, float, float]) -> None:
    """A policy whose logits are four times the goals, and that was seen to take action 1."""
    zeta = infer(lambda goal: (4 * goal).log_softmax(-1)[:, 1], torch.zeros(2, 3), steps=10, rate=rate)
    torch.testing.assert_close(belief(zeta), torch.tensor([wanted] * 2), rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 5), st.floats(0.01, 2.0), st.floats(0.3, 3.0))
def test_each_row_goes_down_its_own_slope(seed: int, steps: int, rate: float, temperature: float) -> None:
    """Against the derivative of softmax policies, worked out by hand, row by row."""
    rng = np.random.default_rng(seed)
    weight, zeta, did = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), rng.integers(4, size=5)
    logits = torch.as_tensor(weight)

    def log_prob(goal: Tensor) -> Tensor:
        found: Tensor = (goal @ logits.T).log_softmax(-1)[torch.arange(5), torch.as_tensor(did)]
        return found

    found = infer(log_prob, torch.as_tensor(zeta), steps=steps, rate=rate, temperature=temperature)
    for row in range(5):
        z = zeta[row].copy()
        for _ in range(steps):
            goal = np.exp(z / temperature - (z / temperature).max())
            goal /= goal.sum()
            chance = np.exp(weight @ goal)
            chance /= chance.sum()
            by_goal = weight.T @ (chance - np.eye(4)[did[row]])
            z -= rate * goal * (by_goal - goal @ by_goal) / temperature
        np.testing.assert_allclose(found[row], z, atol=1e-9)


def test_policies_stay_as_they_are_to_the_bit() -> None:
    network = RoleNetwork(5, 3, (Head(kind="discrete", size=4),), generator(0), hidden=(8,), memory=6)
    before = {name: parameter.clone() for name, parameter in network.state_dict().items()}
    memory, state = torch.randn(7, 6, generator=generator(1)), torch.randn(7, 5, generator=generator(2))
    kept, zeta = memory.clone(), torch.zeros(7, 3)

    def log_prob(goal: Tensor) -> Tensor:
        found: Tensor = network(network.read(state), goal, torch.ones(7, 3), memory)[0].log_softmax(-1)[:, 2]
        return found

    with torch.no_grad():
        found = infer(log_prob, zeta)
        assert (log_prob(belief(found)) > log_prob(belief(zeta))).all()
    assert all(torch.equal(before[name], parameter) for name, parameter in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(memory, kept)
    assert torch.equal(zeta, torch.zeros(7, 3))
    assert not found.requires_grad
    assert not zeta.requires_grad


def test_whoever_did_nothing_tells_nothing() -> None:
    weigh = torch.tensor([1.0, 0.0])
    zeta = infer(lambda goal: (4 * goal).log_softmax(-1)[:, 1] * weigh, torch.ones(2, 3))
    assert zeta[1].tolist() == [1.0, 1.0, 1.0]
    assert zeta[0, 1] > 1


def test_beliefs_with_noise_choose_goals_by_their_chances() -> None:
    zeta = torch.tensor([1.0, 0.0, -0.5]).repeat(40_000, 1)
    drawn = belief(zeta, 0.05, generator(0))
    torch.testing.assert_close(drawn.sum(1), torch.ones(40_000))
    share = torch.nn.functional.one_hot(drawn.argmax(1), 3).float().mean(0)
    torch.testing.assert_close(share, zeta[0].softmax(0), atol=0.01, rtol=0)
    assert float(drawn.amax(1).mean()) > 0.95, "nearly one-hot when cold"


def test_measures_of_what_is_believed() -> None:
    zeta = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 4.0]])
    goal = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    found = goal_measures(zeta, goal, 2.0)
    odds = [1 / (1 + np.exp(-k)) for k in (1.0, -1.0, 0.0, 2.0)]
    assert float(found["goal_accuracy"]) == 0.75
    assert float(found["goal_surprise"]) == pytest.approx(-np.mean(np.log(odds)), rel=1e-5)
    entropy = np.mean([-p * np.log(p) - (1 - p) * np.log(1 - p) for p in odds])
    assert float(found["goal_entropy"]) == pytest.approx(entropy, rel=1e-5)


# ---------------------------------------------------------------- one network, two roles


def steps_of(learner: SOM, copies: int = 3, steps: int = 14) -> Iterator[dict[str, Any]]:
    """What a learner sees, remembers, does and keeps along some episodes; "begins" where one does."""
    game, rng = BatchedGame(RULES, copies), generator(4)
    view, memory = game.reset(1), learner.begin(copies)
    begins = torch.ones(copies, dtype=torch.bool)
    for _ in range(steps):
        before = memory
        with torch.no_grad():
            memory, act, kept = learner.act(before, view, rng)
        seen = view
        rows, view = game.step(act)
        yield {"view": seen, "before": before, "after": memory, "act": act, "kept": kept, "rows": rows,
               "begins": begins}  # fmt: skip
        begins = rows.truncated | rows.terminated.all(1)
        memory = renew(learner.told(memory, act), learner.begin(copies), begins)


def plain_network(
    network: RoleNetwork, state: Tensor, own: Tensor, other: Tensor, memory: Tensor
) -> tuple[Tensor, ...]:
    """One row through the network, layer by layer: logits, value, memory."""

    def apply(layer: Any, x: Tensor) -> Tensor:
        found: Tensor = x @ layer.weight[0] + layer.bias[0, 0]
        return found

    x = nn.functional.elu(apply(network.state, state) + apply(network.goals, torch.cat([own, other])))
    for layer in network.layers:
        x = nn.functional.elu(apply(layer, x))
    assert network.unit is not None
    cell = nn.GRUCell(len(x), len(memory))
    for name, mine in (("weight_ih", "read"), ("weight_hh", "kept")):
        getattr(cell, name).data = network.unit.get_parameter(mine)[0].T
    for name, mine in (("bias_ih", "read_bias"), ("bias_hh", "kept_bias")):
        getattr(cell, name).data = network.unit.get_parameter(mine)[0, 0]
    memory = cell(x[None], memory[None])[0]
    found = apply(network.heads, memory)
    return found[:-1], found[-1], memory


def test_each_agent_watches_the_other_in_its_place_and_acts_on_what_it_believes() -> None:
    """Zeta, both memories and the policies, against a loop over agents and steps with a network of plain layers."""
    learner = learner_of()
    state, goal = learner.places.state, learner.places.goal
    copy, agents, moved = 1, range(2), 0
    own, other, zeta = ([torch.zeros(size) for _ in agents] for size in (6, 6, 3))
    last: dict[str, Any] | None = None
    for step in steps_of(learner):
        obs = step["view"].obs[copy]
        if bool(step["begins"][copy]):
            own, other, zeta = ([torch.zeros(size) for _ in agents] for size in (6, 6, 3))
            last = None
        for i in agents:
            mine = obs[goal[i]]
            if last is not None:
                then = last["view"].obs[copy][state[1 - i]]
                did = last["act"][copy].view(2, 5)[1 - i]
                for _ in range(3 if did.any() else 0):
                    free = zeta[i].clone().requires_grad_()
                    logits, _, _ = plain_network(learner.policy, then, free.softmax(0), mine, other[i])
                    (slope,) = torch.autograd.grad(-(logits.log_softmax(0) @ did), free)
                    zeta[i] = zeta[i] - 0.7 * slope
                    moved += 1
                other[i] = plain_network(learner.policy, then, zeta[i].softmax(0), mine, other[i])[2].detach()
            _, _, own[i] = plain_network(learner.policy, obs[state[i]], mine, zeta[i].softmax(0), own[i].detach())
            torch.testing.assert_close(step["after"][0][copy, i], own[i])
            torch.testing.assert_close(step["after"][1][copy, i], other[i])
            torch.testing.assert_close(step["after"][2][copy, i], zeta[i])
            torch.testing.assert_close(step["kept"]["belief"][copy, i], zeta[i].softmax(0))
        last = step
    assert moved == 3 * (14 - 3), "one agent moves in each of 14 env steps, of which the last of an episode is unseen"


def test_memory_in_the_others_place_goes_on_by_one_step_however_many_inference_takes() -> None:
    few, many = (learner_of(replace(TINY, steps=steps, rate=1e-12)) for steps in (1, 9))
    for one, other in zip(steps_of(few), steps_of(many), strict=True):
        torch.testing.assert_close(one["after"], other["after"], rtol=0, atol=1e-6)


def chunk_of(learner: SOM, copies: int = 3, steps: int = 14) -> tuple[Chunk, list[dict[str, Any]]]:
    """Some steps as a chunk, the first two left out, and all that was found on the way."""
    told = list(steps_of(learner, copies, steps))
    part = told[2:]
    rows = Rows(**{name: torch.stack([getattr(step["rows"], name) for step in part]) for name in vars(part[0]["rows"])})
    kept = {name: torch.stack([step["kept"][name] for step in part]) for name in part[0]["kept"]}
    return Chunk(rows=rows, memory=part[0]["before"], kept=kept), told


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("memory", [0, 6])
def test_what_is_unrolled_is_what_was_done_step_by_step(other: Other, memory: int) -> None:
    learner = learner_of(replace(TINY, other=other, memory=memory))
    chunk, told = chunk_of(learner)
    with torch.no_grad():
        x, own = learner._unrolled(chunk)
    assert int(chunk.first.sum()) == 6
    for t, step in enumerate(told[2:]):
        torch.testing.assert_close(own[t], step["after"][0])
        obs = step["view"].obs
        read = learner.policy.read(obs[:, learner.places.state])
        wanted = learner.policy.embed(read, obs[:, learner.places.goal], step["kept"]["belief"])
        torch.testing.assert_close(x[t], wanted)


@pytest.mark.parametrize("other", OTHERS)
def test_values_ahead_are_of_what_is_seen_believed_and_remembered_then(other: Other) -> None:
    learner = learner_of(replace(TINY, other=other))
    chunk, told = chunk_of(learner)
    cut = chunk.rows.terminated.clone()
    rows = chunk.rows.with_(truncated=cut.all(-1), terminated=torch.zeros_like(cut))  # as if the limit only cut
    chunk = replace(chunk, rows=rows)
    with torch.no_grad():
        x, own = learner._unrolled(chunk)
        value = learner.policy.answer(x, own)[1]
        found = learner._values_ahead(chunk, own, value)
        for t, step in enumerate(told[2:]):
            memory, _, _ = learner.act(step["after"], rows[t].next_view, None)
            then = rows[t].next_view.obs
            believed = learner._believed(then, memory[2] if other == "inferred" else torch.zeros(3, 2, 3), None)
            read = learner.policy.read(then[:, learner.places.state])
            wanted = learner.policy(read, then[:, learner.places.goal], believed, step["after"][0])[1]
            torch.testing.assert_close(found[t], wanted)
    assert int(chunk.over.sum()) == 6
    assert not bool(rows.truncated[-1].all())


def test_nothing_is_asked_of_the_end_of_an_episode() -> None:
    learner = learner_of()
    chunk, _ = chunk_of(learner, steps=12)
    assert bool(chunk.rows.terminated[-1].all())
    with torch.no_grad():
        x, own = learner._unrolled(chunk)
        found = learner._values_ahead(chunk, own, learner.policy.answer(x, own)[1])
    assert found[-1].tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("other", OTHERS)
def test_nobody_is_told_of_the_others_goal_but_by_the_upper_bound(other: Other) -> None:
    """An agent's answers, with the columns of the other's goal spoiled all along."""
    learner = learner_of(replace(TINY, other=other))
    hidden = torch.zeros(RULES.spec.obs_dim)
    hidden[list(RULES.goals[1])] = torch.nan
    memory = spoiled = learner.begin(3)
    with torch.no_grad():
        for step in steps_of(learner, steps=6):
            memory, act, kept = learner.act(memory, step["view"], None)
            dark = replace(step["view"], obs=step["view"].obs + hidden)
            spoiled, blind, dim = learner.act(spoiled, dark, None)
            same = torch.equal(kept["belief"][:, 0], dim["belief"][:, 0]) and torch.equal(
                memory[0][:, 0], spoiled[0][:, 0]
            )
            assert same == (other != "true")
            if other != "true":
                assert torch.equal(act[:, :5], blind[:, :5])
                assert dim["belief"][:, 0].isfinite().all()


def test_what_a_policy_is_told() -> None:
    for other in OTHERS:
        for step in steps_of(learner_of(replace(TINY, other=other)), steps=2):
            told, obs = step["kept"]["belief"], step["view"].obs
            if other == "true":
                assert torch.equal(told[:, 0], obs[:, list(RULES.goals[1])])
                assert torch.equal(told[:, 1], obs[:, list(RULES.goals[0])])
            elif other != "inferred" or bool(step["begins"].all()):
                torch.testing.assert_close(told, torch.full((3, 2, 3), 1 / 3))


class Stubborn:
    """Does the same thing all the time."""

    def __init__(self, move: int) -> None:
        self.act = torch.nn.functional.one_hot(torch.tensor(move), 5).float().repeat(2)

    def init(self, window: Window) -> Carry:
        return None

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        return None, self.act * view.acting.repeat_interleave(5, 1)


def test_beliefs_follow_what_the_other_did_whoever_it_is() -> None:
    trainee = TINY.build(RULES.spec, streams(0), CPU)
    beliefs = []
    for move in (3, 4):
        other: Actor = Stubborn(move)
        team = Team(RULES.spec, {"agent_0": trainee.actor, "agent_1": other})
        game = BatchedGame(RULES, 4)
        view = game.reset(2)
        window = Window(obs=view.obs[:, None], act=torch.zeros(4, 1, 10), valid=torch.ones(4, 1).bool(), now=view)
        carry = team.init(window)
        for _ in range(4):
            carry, act = team.step(carry, view, None)
            _, view = game.step(act)
        beliefs.append(carry[team.actors.index(trainee.actor)][2][:, 0])
    assert (beliefs[0] != beliefs[1]).any(1).all()


def test_the_predictors_loss_is_that_of_what_the_other_did() -> None:
    learner = learner_of(replace(TINY, other="predictor", predictor_weight=0.5))
    chunk, _ = chunk_of(learner)
    with torch.no_grad():
        x, own = learner._unrolled(chunk)
        logits = learner.policy.predict(x, own)
    total, count = 0.0, 0
    for t in range(12):
        for copy in range(3):
            for i in range(2):
                did = chunk.rows.act[t, copy].view(2, 5)[1 - i]
                if did.any():
                    total -= float(logits[t, copy, i].log_softmax(0)[int(did.argmax())])
                    count += 1
    learner.update([chunk])
    assert float(learner.metrics["predictor_loss"]) == pytest.approx(total / count, rel=1e-5)
    assert count == 36


# ---------------------------------------------------------------- learning


class Naming(Rules):
    """Two agents with different goals take turns, twice each: first to name one's own goal, then to name the other's.
    Each right name pays both 1. What was named is shown in columns that policies need not read.
    """

    def __init__(self, goals: int = 3) -> None:
        self.device, self.dtype, self.goals = CPU, torch.float32, goals
        self.acted, self.own = tuple(range(4, 4 + 2 * goals)), tuple(range(4 + 2 * goals, 4 + 4 * goals))
        done, own = ((part[:goals], part[goals:]) for part in (self.acted, self.own))
        agents = tuple(
            AgentSpec(
                name=name, obs=(i, 1 - i, 2, 3, *done[i], *done[1 - i], *own[i]),
                heads=(Head(kind="discrete", size=goals),),
            )
            for i, name in enumerate("ab")
        )  # fmt: skip
        self.spec = GameSpec(
            name="naming", agents=agents, obs_dim=4 + 4 * goals, episode_limit=4, terminates=True, acting_varies=True
        )

    # A state is (B, 5): both goals, what each did last, from 1, and the time.

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        goal = torch.randint(self.goals, (copies,), generator=rng)
        other = (goal + torch.randint(1, self.goals, (copies,), generator=rng)) % self.goals
        return torch.stack([goal, other, *[torch.zeros_like(goal)] * 3], 1).float()

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        apart = act.view(-1, 2, self.goals)
        done = (apart.argmax(2) + 1) * (apart.sum(2) > 0)
        return torch.cat([state[:, :2], done.float(), state[:, 4:] + 1], 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        time = state[:, 4].long()
        turn, late = torch.nn.functional.one_hot(time % 2, 2), torch.nn.functional.one_hot((time > 1).long(), 2)
        done = torch.nn.functional.one_hot(state[:, 2:4].long(), self.goals + 1)[:, :, 1:].flatten(1)
        goals = torch.nn.functional.one_hot(state[:, :2].long(), self.goals).flatten(1)
        return {"obs": torch.cat([turn, late, done, goals], 1).float(), "acting": turn > 0}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        own, other = before[:, :2], before[:, :2].flip(1)
        wanted = torch.where(before[:, 4:] < 2, own, other)
        right = (act.view(-1, 2, self.goals) * torch.nn.functional.one_hot(wanted.long(), self.goals)).sum((1, 2))
        return right[:, None].expand(-1, 2)

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return (after[:, 4:] == 4).expand(-1, 2)


def trained(other: Other, updates: int = 150, seed: int = 0, **changes: Any) -> OnPolicy:
    rules = Naming()
    config = SOMConfig(
        other=other, goals=rules.own, acted=rules.acted, reads_acted=False, hidden=(32, 32), memory=0,
        steps=2, rate=2.0, numbers=ActorCriticConfig(learning_rate=5e-3, entropy_weight=0.5, discount=0.0),
        loop=OnPolicyConfig(collect_steps=4, chunk=4),
    )  # fmt: skip
    trainee = replace(config, **changes).build(rules.spec, streams(seed), CPU)
    game, replay = BatchedGame(rules, 32), Replay(rules.spec, 32, 32)
    view = game.reset(seed)
    while trainee.updates < updates:
        rows, view = game.step(trainee.explore(view))
        trainee.learn(replay, rows)
    return trainee


def paid(trainee: OnPolicy) -> float:
    return evaluate(BatchedGame(Naming(), 100), trainee.actor, 200, 9).mean_return


def test_only_who_finds_out_the_others_goal_names_it() -> None:
    """All four names pay 4; whoever has to guess is right with one of two at best, twice."""
    inferring, told, blind = (trained(other) for other in ("inferred", "true", "none"))
    assert paid(inferring) == 4.0
    assert paid(told) == 4.0
    assert paid(blind) == pytest.approx(3.0, abs=0.2)
    track = track_goals(inferring.learner, BatchedGame(Naming(), 300), 5)
    assert track.returns.tolist() == [4.0] * 300
    assert track.accuracy.shape == (4,)
    assert track.accuracy[0] == pytest.approx(1 / 3, abs=0.08)  # nothing seen: all alike
    assert track.accuracy[2] == track.accuracy[3] == 1.0  # both have named their own
    assert 0.5 < track.accuracy[1] < 0.8  # one of them has
    assert track.surprise[0] == pytest.approx(np.log(3), rel=1e-5)
    assert track.entropy[3] < track.entropy[0]
    assert "return 4.00; goals right" in str(track)
    assert float(inferring.learner.metrics["goal_accuracy_at_end"]) > 0.95


def test_goals_are_found_out_with_noise_as_well() -> None:
    assert paid(trained("inferred", relaxation="gumbel", temperature=0.5)) > 3.5


def test_same_seed_same_numbers() -> None:
    first, again, other = (trained("inferred", 6, seed, relaxation="gumbel") for seed in (0, 0, 1))
    pairs = list(zip(first.policy.parameters(), again.policy.parameters(), other.policy.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


# ---------------------------------------------------------------- as a method


@pytest.mark.parametrize("other", OTHERS)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, other: Other) -> None:
    method = replace(TINY, other=other, relaxation="gumbel" if other == "inferred" else "softmax")
    tiny = scenario(method, GameConfig(name="toy/coins", copies=4, options=BOARD))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(tiny, whole)
    with pytest.raises(Interrupted):
        start(tiny, cut, on_phase=interrupt("collection", 17))
    resume(cut)
    assert differences(whole, cut) == []
    told = read_metrics(whole / METRICS_FILE)[-1].keys()
    assert {"train/actor_loss", "train/critic_loss", "train/entropy", "eval/mean_reward"} <= told
    assert ("train/goal_accuracy" in told) == ("train/goal_surprise_at_end" in told) == (other == "inferred")
    assert ("train/predictor_loss" in told) == (other == "predictor")


def test_a_run_acts_for_whoever_is_shown_what_both_observe(tmp_path: Path) -> None:
    start(scenario(TINY, GameConfig(name="toy/coins", copies=4, options=BOARD)), tmp_path / "run")
    agent = load(tmp_path / "run")
    learner = agent.actor.learner  # type: ignore[attr-defined]
    game = BatchedGame(RULES, 1)
    view, memory = game.reset(3), learner.begin(1)
    for _ in range(6):
        memory, act, _ = learner.act(memory, view, None)
        shown = {a.name: view.obs[0, list(a.obs)].numpy() for a in game.spec.agents}
        chosen = agent.act(shown)
        turn = int(view.acting[0].long().argmax())
        assert int(act[0].view(2, 5)[turn].argmax()) == chosen[f"agent_{turn}"]
        _, view = game.step(act)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"other": "guess"}, "other='guess' must be one of 'inferred', 'true', 'none', 'predictor'"),
        ({"relaxation": "hard"}, "relaxation='hard' 'softmax' or 'gumbel'"),
        ({"steps": 0}, "steps=0 must be >= 1"),
        ({"rate": 0.0}, r"rate=0\.0"),
        ({"temperature": -1.0}, r"temperature=-1\.0"),
        ({"predictor_weight": 0.0}, r"predictor_weight=0\.0 > 0"),
    ],
)
def test_contradictions_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SOMConfig(**numbers)


GOALS = RULES.goals[0] + RULES.goals[1]
ONE = GameSpec(name="one", agents=(discrete_agent("a", (0,), 2),), obs_dim=1)
UNLIKE = GameSpec(
    name="unlike", agents=(discrete_agent("a", (0, 1), 2), discrete_agent("b", (0, 2), 3)), obs_dim=3
)  # fmt: skip
OPEN = GameSpec(
    name="open", agents=(discrete_agent("a", (0, 1, 2), 2), discrete_agent("b", (0, 1, 2), 2)), obs_dim=3
)  # fmt: skip
HALF = GameSpec(
    name="half", agents=(discrete_agent("a", (0, 1), 2), discrete_agent("b", (0, 2, 3), 2)), obs_dim=4
)  # fmt: skip
BOXES = GameSpec(name="boxes", agents=(box_agent("a", (0, 1), 1), box_agent("b", (0, 2), 1)), obs_dim=3)


@pytest.mark.parametrize(
    ("spec", "numbers", "message"),
    [
        (ONE, {}, "SOM takes two agents with the same actions.*'one' has 1 agents"),
        (UNLIKE, {}, "SOM takes two agents with the same actions"),
        (RULES.spec, {"goals": GOALS[:5]}, "must be columns of 'coins' .* as many for that of the second"),
        (RULES.spec, {"acted": RULES.acted[:3]}, "must name the 10 columns of 'coins'"),
        (RULES.spec, {"goals": GOALS[3:] + GOALS[:3]}, "agent 'agent_0' of 'coins' does not see"),
        (OPEN, {"other": "none"}, r"goals=\(\) must be columns of 'open'"),
        (BOXES, {}, r"acted=\(\) must name the 2 columns of 'boxes'.* other='inferred' cannot do without"),
        (OPEN, {"goals": (1, 2), "other": "none"}, r"agent 'a' of 'open' sees the other's goal, columns \[2\]"),
        (HALF, {"goals": (1, 2), "other": "none"}, r"agent 'a' of 'half' does not see the columns \[3\]"),
        (BOXES, {"other": "predictor"}, "other='predictor' takes discrete actions; 'boxes'"),
    ],
)
def test_games_that_do_not_show_what_it_takes_are_refused(
    spec: GameSpec, numbers: dict[str, Any], message: str
) -> None:
    with pytest.raises(GameError, match=message):
        SOMConfig(**numbers).build(spec, streams(0), CPU)


def test_columns_are_those_that_the_game_tells_of_unless_named() -> None:
    found, named = (
        learner_of(config).places for config in (TINY, replace(TINY, goals=GOALS, acted=RULES.acted))
    )  # fmt: skip
    assert found.goal.tolist() == named.goal.tolist() == [list(goal) for goal in RULES.goals]
    assert found.acted.flatten().tolist() == named.acted.flatten().tolist() == list(RULES.acted)
    blind = learner_of(replace(TINY, reads_acted=False)).places
    assert set(found.state[0].tolist()) - set(blind.state[0].tolist()) == set(RULES.acted)
    assert not set(GOALS) & set(found.state.flatten().tolist())


def test_goals_are_tracked_of_those_who_infer_them() -> None:
    with pytest.raises(GameError, match="this one has other='none'"):
        track_goals(learner_of(replace(TINY, other="none")), BatchedGame(RULES, 2), 0)
    with pytest.raises(GameError, match=r"its own game 'coins'; .* the game is 'naming'"):
        track_goals(learner_of(), BatchedGame(Naming(), 2), 0)
