from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from presage.common.game import AgentSpec, GameError, GameSpec
from presage.envs.actions import ActionReader

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4, start=-2),
    "box": spaces.Box(np.array([[-3.0, 0.0]], np.float32), np.array([[5.0, 0.1]], np.float32)),
    "several": spaces.MultiDiscrete([2, 3], start=[1, 0]),
    "binary": spaces.MultiBinary(2),
    "bounded": spaces.Box(-1.0, 1.0, (3,)),
}


def game(*names: str, acting_varies: bool = True, legal_varies: bool = False) -> GameSpec:
    agents = tuple(AgentSpec.from_space(name, [0], SPACES[name]) for name in names)
    return GameSpec(name="mixed", agents=agents, obs_dim=1, acting_varies=acting_varies, legal_varies=legal_varies)


MIXES = [tuple(SPACES), ("discrete", "binary"), ("box", "bounded"), ("several",), ("bounded",)]


@given(st.sampled_from(MIXES), st.integers(1, 5), st.integers(0, 2**31))
def test_all_copies_at_once_read_as_row_by_row(names: tuple[str, ...], copies: int, seed: int) -> None:
    spec, rng = game(*names), torch.Generator().manual_seed(seed)
    acting = torch.rand(copies, spec.n, generator=rng) < 0.7
    act = spec.random_action(acting, torch.ones(copies, spec.act_dim, dtype=torch.bool), rng).numpy()
    read = ActionReader(spec).read(act)
    assert len(read) == copies
    for row, actions in zip(act, read, strict=True):
        for agent, where, action in zip(spec.agents, spec.act, actions, strict=True):
            expected = agent.to_env(row[where])
            assert type(action) is type(expected)
            assert np.array_equal(action, expected)
            assert np.asarray(action).dtype == np.asarray(expected).dtype


@given(st.sampled_from(MIXES), st.booleans(), st.integers(0, 2**31), st.data())
def test_it_refuses_what_the_spec_refuses(names: tuple[str, ...], varies: bool, seed: int, data: Any) -> None:
    spec, rng = game(*names, acting_varies=varies), torch.Generator().manual_seed(seed)
    acting = (torch.rand(2, spec.n, generator=rng) < 0.5) | torch.tensor(not varies)
    legal = torch.ones(2, spec.act_dim, dtype=torch.bool)
    act = spec.random_action(acting, legal, rng)
    row, column = data.draw(st.integers(0, 1)), data.draw(st.integers(0, spec.act_dim - 1))
    act[row, column] = data.draw(st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, float("nan"), float("inf"), 1.0 + 1e-7]))
    refused = None
    try:
        spec.check_action(act, acting)
    except GameError as error:
        refused = str(error)
    reader = ActionReader(spec)
    if refused is None:
        reader.check(act.numpy(), acting.numpy(), legal.numpy())
    else:
        with pytest.raises(GameError) as found:
            reader.check(act.numpy(), acting.numpy(), legal.numpy())
        assert str(found.value) == refused


def test_an_illegal_choice_is_named() -> None:
    spec = game("discrete", "box", "several", legal_varies=True)
    act = np.array([[0, 1, 0, 0, 0.5, 0.5, 1, 0, 0, 0, 1]], dtype=np.float32)
    everyone, legal = np.ones((1, 3), dtype=np.bool_), np.ones((1, 11), dtype=np.bool_)
    ActionReader(spec).check(act, everyone, legal)
    legal[0, 10] = False
    with pytest.raises(GameError, match=r"'several' in copy 0 chose entry 4 .* legal are \[0, 1, 2, 3\]"):
        ActionReader(spec).check(act, everyone, legal)
