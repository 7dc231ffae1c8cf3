from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from presage.common.game import (
    ALL_AGENTS,
    AgentSpec,
    GameError,
    GameSpec,
    Head,
    Rows,
    View,
    concatenate,
    episode_seed,
    row_widths,
)


def bounds(shape: tuple[int, ...], rng: np.random.Generator) -> spaces.Box:
    low = rng.uniform(-5.0, 5.0, shape).astype(np.float32)
    return spaces.Box(low, low + rng.uniform(0.1, 5.0, shape).astype(np.float32))


@st.composite
def action_spaces(draw: st.DrawFn) -> spaces.Space[Any]:
    kind = draw(st.sampled_from(["discrete", "several", "binary", "box"]))
    if kind == "discrete":
        return spaces.Discrete(draw(st.integers(1, 6)), start=draw(st.integers(-3, 3)))
    if kind == "several":
        heads = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(-2, 2)), min_size=1, max_size=4))
        return spaces.MultiDiscrete([size for size, _ in heads], start=[start for _, start in heads])
    if kind == "binary":
        return spaces.MultiBinary(draw(st.integers(1, 4)))
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=0, max_size=3)))
    return bounds(shape, np.random.default_rng(draw(st.integers(0, 2**16))))


def game(*action: spaces.Space[Any], **flags: Any) -> GameSpec:
    """A game of agents that see two numbers each."""
    agents = tuple(AgentSpec.from_space(f"agent_{i}", [2 * i, 2 * i + 1], space) for i, space in enumerate(action))
    return GameSpec(name="test", agents=agents, obs_dim=2 * len(action), **flags)


MIXED = game(spaces.Discrete(3), spaces.Box(-2.0, 4.0, (2,)), spaces.MultiDiscrete([2, 4]))


@given(action_spaces(), st.integers(0, 2**16))
def test_an_action_survives_the_way_into_a_slice_and_back(space: spaces.Space[Any], seed: int) -> None:
    agent = AgentSpec.from_space("agent", [], space)
    space.seed(seed)
    action = space.sample()
    slice_ = agent.from_env(action)
    assert slice_.shape == (agent.width,)
    assert slice_.dtype == np.float32
    back = agent.to_env(slice_)
    if agent.discrete:
        assert np.array_equal(back, action)
        assert slice_.sum() == len(agent.heads)
        assert set(slice_.tolist()) <= {0.0, 1.0}
    else:
        assert np.allclose(back, action, atol=1e-5)
        assert np.abs(slice_).max() <= 1.0 + 1e-6
    assert space.contains(back)


@given(action_spaces(), st.integers(0, 2**16))
def test_a_slice_survives_the_way_into_an_action_and_back(space: spaces.Space[Any], seed: int) -> None:
    spec = game(space)
    rng = torch.Generator().manual_seed(seed)
    everyone = torch.ones(1, 1, dtype=torch.bool)
    slice_ = spec.random_action(everyone, torch.ones(1, spec.act_dim, dtype=torch.bool), rng)[0].numpy()
    back = spec.agents[0].from_env(spec.agents[0].to_env(slice_))
    # The numbers of a box pass through float32 in the environment's units, whose spacing its bounds set.
    assert np.allclose(back, slice_, atol=0.0 if spec.discrete else 1e-4)


def test_actions_in_the_environments_numbers() -> None:
    discrete = AgentSpec.from_space("a", [], spaces.Discrete(3, start=5))
    assert discrete.to_env(np.array([0.0, 0.0, 1.0])) == 7
    assert discrete.from_env(6).tolist() == [0.0, 1.0, 0.0]
    several = AgentSpec.from_space("a", [], spaces.MultiDiscrete([2, 3], start=[0, -1]))
    assert several.to_env(np.array([0.0, 1.0, 1.0, 0.0, 0.0])).tolist() == [1, -1]
    assert several.from_env(np.array([0, 1])).tolist() == [1.0, 0.0, 0.0, 0.0, 1.0]
    binary = AgentSpec.from_space("a", [], spaces.MultiBinary(2))
    assert binary.to_env(np.array([0.0, 1.0, 1.0, 0.0])).tolist() == [1, 0]
    box = AgentSpec.from_space("a", [], spaces.Box(-2.0, 4.0, (1, 2)))
    assert box.to_env(np.array([-1.0, 0.0])).tolist() == [[-2.0, 1.0]]
    assert box.to_env(np.array([3.0, -3.0])).tolist() == [[4.0, -2.0]]
    assert box.from_env(np.array([[4.0, -0.5]])).tolist() == [1.0, -0.5]


@pytest.mark.parametrize(
    ("space", "action"), [(spaces.Discrete(3), 3), (spaces.Discrete(3, start=2), 1), (spaces.MultiBinary(2), [0, 2])]
)
def test_an_action_outside_its_space_is_refused(space: spaces.Space[Any], action: Any) -> None:
    with pytest.raises(GameError, match="is outside"):
        AgentSpec.from_space("a", [], space).from_env(action)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-np.inf, 1.0, (2,)), "unbounded action space"),
        (spaces.Tuple((spaces.Discrete(2),)), "supported are Discrete"),
        (spaces.MultiDiscrete(np.array([[2, 3], [2, 3]])), "supported are Discrete"),
    ],
)
def test_unsupported_action_spaces_are_refused(space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(GameError, match=message):
        AgentSpec.from_space("a", [], space)


def test_joint_actions_by_name() -> None:
    actions = {"agent_0": 2, "agent_1": np.array([4.0, -2.0]), "agent_2": np.array([1, 3])}
    act = MIXED.from_env(actions)
    assert act.tolist() == [0, 0, 1, 1, -1, 0, 1, 0, 0, 0, 1]
    back = MIXED.to_env(act)
    assert back["agent_0"] == 2
    assert back["agent_1"].tolist() == [4.0, -2.0]
    assert back["agent_2"].tolist() == [1, 3]
    assert MIXED.from_env({"agent_0": 1}).tolist() == [0, 1] + [0] * 9
    with pytest.raises(GameError, match="has no agent 'nobody'; its agents are agent_0, agent_1, agent_2"):
        MIXED.from_env({"nobody": 0})


def test_slices_and_heads_cover_the_joint_action() -> None:
    assert MIXED.act == (slice(0, 3), slice(3, 5), slice(5, 11))
    assert [(i, head.kind, where) for i, head, where in MIXED.heads] == [
        (0, "discrete", slice(0, 3)), (1, "box", slice(3, 5)), (2, "discrete", slice(5, 7)),
        (2, "discrete", slice(7, 11)),
    ]  # fmt: skip
    assert (MIXED.n, MIXED.act_dim, MIXED.discrete) == (3, 11, False)
    assert MIXED.obs == ((0, 1), (2, 3), (4, 5))
    assert MIXED.index("agent_1") == MIXED.index(1) == 1
    with pytest.raises(GameError, match=r"has agents 0\.\.2, got 3"):
        MIXED.index(3)


@given(st.lists(action_spaces(), min_size=1, max_size=4), st.booleans(), st.integers(1, 4), st.integers(0, 2))
def test_a_spec_survives_json(action: list[spaces.Space[Any]], flag: bool, frames: int, goals: int) -> None:
    agents = tuple(AgentSpec.from_space(f"agent_{i}", [0, 1], space, range(goals)) for i, space in enumerate(action))
    spec = GameSpec(
        name="test", agents=agents, obs_dim=2, goal_dim=goals, achieved=tuple(range(goals)), frames=frames,
        episode_limit=25 if flag else None, terminates=flag, acting_varies=not flag, legal_varies=flag,
    )  # fmt: skip
    assert GameSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert GameSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agents": ()}, "has no agents"),
        ({"frames": 0}, "frames=0 must be >= 1"),
        ({"agents": (AgentSpec(name="a", obs=(), heads=()),) * 2}, r"agent names \['a', 'a'\] are not unique"),
        ({"agents": (AgentSpec(name="a", obs=(0, 2), heads=()),)}, r"reads indices \[2\] outside 0..1"),
        ({"achieved": (0,), "goal_dim": 2}, "1 achieved indices for goal_dim=2"),
    ],
)
def test_contradictions_in_a_spec_are_refused(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"name": "g", "agents": (AgentSpec(name="a", obs=(0,), heads=()),), "obs_dim": 2}
    GameSpec(**good)
    with pytest.raises(GameError, match=message):
        GameSpec(**(good | changes))


def test_contradictions_in_an_agent_are_refused() -> None:
    with pytest.raises(GameError, match="mixes discrete and box heads"):
        AgentSpec(name="a", obs=(), heads=(Head(kind="discrete", size=2), Head(kind="box", size=1)))
    with pytest.raises(GameError, match="width 2 needs as many bounds, got 1 lower and 2 upper"):
        AgentSpec(name="a", obs=(), heads=(Head(kind="box", size=2),), low=(0.0,), high=(1.0, 1.0))
    with pytest.raises(GameError, match="size=0"):
        Head(kind="discrete", size=0)


def random_flags(spec: GameSpec, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Who acts, and what is legal: at least one entry of every head."""
    rng = torch.Generator().manual_seed(seed)
    acting = torch.rand(rows, spec.n, generator=rng) < 0.6
    legal = torch.ones(rows, spec.act_dim, dtype=torch.bool)
    for _, head, where in spec.heads:
        if head.kind == "discrete":
            allowed = torch.rand(rows, head.size, generator=rng) < 0.5
            allowed[torch.arange(rows), torch.randint(head.size, (rows,), generator=rng)] = True
            legal[:, where] = allowed
    return acting, legal


@given(st.lists(action_spaces(), min_size=1, max_size=3), st.integers(0, 2**16))
def test_random_actions_are_legal_and_pass_the_check(action: list[spaces.Space[Any]], seed: int) -> None:
    spec = game(*action)
    acting, legal = random_flags(spec, 6, seed)
    act = spec.random_action(acting, legal, torch.Generator().manual_seed(seed))
    spec.check_action(act, acting)
    assert not (act != 0)[~legal].any()
    for i, where in enumerate(spec.act):
        assert not act[~acting[:, i], where].any()


def test_random_actions_are_uniform_over_what_is_legal() -> None:
    rows = 20_000
    legal = torch.ones(rows, MIXED.act_dim, dtype=torch.bool)
    legal[:, 1] = False
    acting = torch.ones(rows, 3, dtype=torch.bool)
    act = MIXED.random_action(acting, legal, torch.Generator().manual_seed(0))
    mean = act.mean(0)
    # Four standard errors of a frequency near 1/2, and of the mean of a uniform draw from [-1, 1].
    assert torch.allclose(mean[:3], torch.tensor([0.5, 0.0, 0.5]), atol=4 * 0.5 / rows**0.5)
    assert torch.allclose(mean[7:], torch.full((4,), 0.25), atol=4 * 0.5 / rows**0.5)
    assert torch.allclose(mean[3:5], torch.zeros(2), atol=4 * 3**-0.5 / rows**0.5)
    assert torch.allclose(act[:, 3:5].var(0), torch.full((2,), 1 / 3), atol=0.02)


GOOD = [0.0, 1.0, 0.0, 0.5, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("change", "agent"),
    [
        ({1: 0.0}, "agent_0"), ({0: 1.0}, "agent_0"), ({1: 0.5, 0: 0.5}, "agent_0"), ({1: 2.0, 0: -1.0}, "agent_0"),
        ({3: 1.1}, "agent_1"), ({4: float("nan")}, "agent_1"), ({5: 0.0}, "agent_2"), ({10: 1.0}, "agent_2"),
        ({1: float("nan")}, "agent_0"),
    ],
)  # fmt: skip
def test_bad_actions_are_refused_by_name_and_row(change: dict[int, float], agent: str) -> None:
    act = torch.tensor([GOOD, GOOD])
    MIXED.check_action(act)
    for column, value in change.items():
        act[1, column] = value
    with pytest.raises(GameError, match=f"action of agent '{agent}' in row 1"):
        MIXED.check_action(act)


def test_an_agent_that_is_not_acting_must_write_zeros() -> None:
    act, acting = torch.tensor([GOOD]), torch.tensor([[True, False, True]])
    with pytest.raises(GameError, match=r"'agent_1' in row 0 is \[0.5, -1.0\]"):
        MIXED.check_action(act, acting)
    act[0, 3:5] = 0.0
    MIXED.check_action(act, acting)
    with pytest.raises(GameError, match=r"'agent_2' in row 0 .* one-hot of 2, or zeros"):
        MIXED.check_action(act, torch.tensor([[True, False, False]]))
    with pytest.raises(GameError, match=r"shape \(B, 11\), got \(1, 10\)"):
        MIXED.check_action(act[:, :10])


def rows_of(spec: GameSpec, size: int, seed: int) -> Rows:
    rng = torch.Generator().manual_seed(seed)
    columns = {}
    for name, (shape, dtype) in row_widths(spec).items():
        numbers = torch.randint(0, 2 if dtype == torch.bool else 100, (size, *shape), generator=rng)
        columns[name] = numbers.to(dtype)
    return Rows(**columns)


GOALS = GameSpec(
    name="goals", agents=(AgentSpec(name="a", obs=(0, 1), heads=(Head(kind="discrete", size=2),), goal=(0,)),),
    obs_dim=2, goal_dim=1, achieved=(1,),
)  # fmt: skip


def test_rows_are_cut_joined_and_seen_without_mixing_columns() -> None:
    rows = rows_of(GOALS, 5, 0)
    both = concatenate([rows[:2], rows[2:]])
    for name in row_widths(GOALS):
        assert torch.equal(getattr(both, name), getattr(rows, name))
    assert len(rows[torch.tensor([True, False, True, False, False])]) == 2
    assert torch.equal(rows.view.legal, rows.legal)
    assert torch.equal(rows.next_view.obs, rows.next_obs)
    assert torch.equal(rows.next_view.legal, rows.next_legal)
    assert torch.equal(rows.next_view.acting, rows.next_acting)
    assert torch.equal(rows.next_view.achieved, rows.next_achieved)
    again = Rows.of(
        GOALS, rows.view, rows.act, rows.reward, rows.next_view, rows.terminated, rows.truncated, rows.step, rows.ego
    )
    for name, (shape, dtype) in row_widths(GOALS).items():
        assert torch.equal(getattr(again, name), getattr(rows, name))
        assert getattr(again, name).shape == (5, *shape)
        assert getattr(again, name).dtype == dtype
    changed = rows.with_(reward=rows.reward + 1)
    assert torch.equal(changed.reward, rows.reward + 1)
    assert changed.obs is rows.obs


def test_rows_serve_all_agents_unless_told_otherwise() -> None:
    rows = rows_of(GOALS, 3, 0)
    made = Rows.of(GOALS, rows.view, rows.act, rows.reward, rows.next_view, rows.terminated, rows.truncated, rows.step)
    assert made.ego.tolist() == [ALL_AGENTS] * 3


def test_a_view_of_an_observation_reads_the_achieved_goal_from_it() -> None:
    obs = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    view = View.of(GOALS, obs)
    assert view.achieved.tolist() == [[2.0], [4.0]]
    assert view.desired.tolist() == [[0.0], [0.0]]
    assert view.acting.all()
    assert view.legal.shape == (2, 2)
    assert view.legal.all()
    given_ = View.of(GOALS, obs, desired=torch.tensor([[5.0], [6.0]]), acting=torch.zeros(2, 1, dtype=torch.bool))
    assert given_[1:].desired.tolist() == [[6.0]]
    assert not given_.acting.any()


def test_episode_seeds_differ_in_each_of_their_three_parts_and_never_change() -> None:
    seeds = {episode_seed(s, c, e) for s in range(6) for c in range(6) for e in range(6)}
    assert len(seeds) == 6**3
    assert all(0 <= seed < 2**31 for seed in seeds)
    expected = np.random.SeedSequence((3, 1, 4)).generate_state(1, dtype=np.uint32)[0] // 2
    assert episode_seed(3, 1, 4) == expected
