"""Rows under other names: what moves where, what a fit and an update make of it, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from presage.common.dyna import DynaConfig
from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import ALL_AGENTS, GameError, GameSpec, Symmetry, View, Window
from presage.common.replay import Replay
from presage.common.streams import streams
from presage.common.symmetry import Renamings
from presage.marl.model_free import ModelFreeConfig
from tests.common.toy import box_agent, discrete_agent, generator, random_rows

SWAP = Symmetry(obs=(2, 3, 0, 1, 4), act=(2, 3, 0, 1, 4, 5, 6), agents=(1, 0, 2), goal=(1, 0, 2))
"""the first two agents change places with all that is theirs; the third stays"""
SPEC = GameSpec(
    name="twins", obs_dim=5, goal_dim=3, acting_varies=True, legal_varies=True, terminates=True, symmetries=(SWAP,),
    agents=(
        discrete_agent("a", (0, 1), 2), discrete_agent("b", (2, 3), 2), discrete_agent("c", (4,), 3),
    ),
)  # fmt: skip


def test_a_renaming_moves_every_column_of_its_own() -> None:
    rows = random_rows(SPEC, 8, generator(0)).with_(ego=torch.tensor([0, 1, 2, -1] * 2, dtype=torch.int16))
    chosen = torch.tensor([1] * 7 + [0])
    found = Renamings(SPEC).rows(rows, chosen)
    for k in range(8):
        swap = SWAP if chosen[k] else Symmetry(range(5), range(7), range(3), range(3))  # type: ignore[arg-type]  # orders all the same
        for name, places in (("obs", swap.obs), ("next_obs", swap.obs), ("act", swap.act), ("legal", swap.act),
                             ("next_legal", swap.act), ("reward", swap.agents), ("acting", swap.agents),
                             ("next_acting", swap.agents), ("terminated", swap.agents), ("achieved", swap.goal),
                             ("next_achieved", swap.goal), ("desired", swap.goal)):  # fmt: skip
            assert torch.equal(getattr(found, name)[k], getattr(rows, name)[k][list(places)]), name
    assert found.ego.tolist() == [1, 0, 2, -1, 1, 0, 2, -1]
    assert torch.equal(found.truncated, rows.truncated)
    assert torch.equal(found.step, rows.step)


@given(seed=st.integers(0, 1000), size=st.integers(1, 20))
def test_the_inverse_renaming_gives_the_rows_back(seed: int, size: int) -> None:
    cycle = Symmetry(obs=(1, 2, 0), act=(2, 3, 4, 5, 0, 1), agents=(1, 2, 0))
    back = Symmetry(obs=(2, 0, 1), act=(4, 5, 0, 1, 2, 3), agents=(2, 0, 1))
    agents = tuple(box_agent(f"a{i}", (i,), 2) for i in range(3))
    spec = GameSpec(name="ring", agents=agents, obs_dim=3, symmetries=(cycle, back))
    rng = generator(seed)
    rows = random_rows(spec, size, rng).with_(ego=torch.randint(-1, 3, (size,), generator=rng).to(torch.int16))
    table = Renamings(spec)
    chosen = table.draw(size, rng)
    inverse = torch.tensor([0, 2, 1])[chosen]
    again = table.rows(table.rows(rows, chosen), inverse)
    for name, value in vars(rows).items():
        assert torch.equal(getattr(again, name), value), name


def test_windows_are_renamed_step_by_step() -> None:
    rng = generator(0)
    rows = random_rows(SPEC, 4, rng)
    window = Window(
        obs=torch.randn(4, 3, 5, generator=rng), act=torch.randn(4, 3, 7, generator=rng),
        valid=torch.ones(4, 3, dtype=torch.bool), now=rows.view,
    )  # fmt: skip
    found = Renamings(SPEC).window(window, torch.ones(4, dtype=torch.long))
    assert torch.equal(found.obs, window.obs[..., list(SWAP.obs)])
    assert torch.equal(found.act, window.act[..., list(SWAP.act)])
    assert torch.equal(found.now.acting, rows.acting[:, list(SWAP.agents)])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"obs": (0, 0, 1, 2, 3)}, r"obs=\(0, 0, 1, 2, 3\) must be an order of 0\.\.4"),
        ({"goal": ()}, r"goal=\(\) must be an order of 0\.\.2"),
        ({"agents": (2, 1, 0)}, "takes agent 0's place from agent 2"),
        ({"act": (0, 1, 2, 3, 4, 5, 6)}, r"come from that one's, 2\.\.3, got \(0, 1\)"),
    ],
)
def test_what_is_no_renaming_is_refused(changed: dict[str, tuple[int, ...]], named: str) -> None:
    with pytest.raises(GameError, match=named):
        replace(SPEC, symmetries=(replace(SWAP, **changed),))


def test_a_spec_keeps_its_symmetries_through_plain_data() -> None:
    found = GameSpec.from_json(SPEC.to_json())
    assert found == SPEC
    assert found.symmetries[0].agents == SWAP.agents


def mirrored() -> GameSpec:
    """Two agents that each see one number."""
    swap = Symmetry(obs=(1, 0), act=(1, 0), agents=(1, 0))
    return GameSpec(
        name="mirror", agents=(box_agent("a", (0,), 1), box_agent("b", (1,), 1)), obs_dim=2, symmetries=(swap,)
    )


def test_a_fit_learns_what_it_saw_under_another_name_only() -> None:
    """Agent a was seen below zero and b above it: a renamed ensemble knows both sides of both."""
    spec, rng = mirrored(), generator(0)
    side = torch.rand(400, 2, generator=rng) * torch.tensor([-1.0, 1.0])
    rows = random_rows(spec, 400, rng).with_(obs=side, next_obs=side, reward=torch.sin(4 * side))
    other = random_rows(spec, 200, rng).with_(obs=-side[:200], next_obs=-side[:200], reward=torch.sin(-4 * side[:200]))
    error = {}
    for renamings in (0, 1):
        config = EnsembleConfig(members=2, elites=2, hidden=(16,), outcome_hidden=(32,))
        ensemble = DynamicsEnsemble(spec, config, generator(1))
        fit = FitConfig(max_updates=1200, learning_rate=1e-2, patience=12, renamings=renamings)
        report = EnsembleFitter(ensemble, fit, generator(2)).fit(rows, generator(3))
        assert report.held_out_rows == 80, "renamed copies are for training alone"
        assert report.train_rows == 320 * (1 + renamings)
        found = ensemble.predict(other.view, other.act).reward_mean.mean(0)
        error[renamings] = float((found - other.reward).square().mean() / other.reward.var())
    assert error[1] < 0.2
    assert error[0] > 3 * error[1]


def test_learners_see_renamed_rows_unless_told_otherwise_and_every_ego_equally_many() -> None:
    spec = replace(SPEC, goal_dim=0, symmetries=(replace(SWAP, goal=()),), acting_varies=False, legal_varies=False)
    rows = random_rows(spec, 64, generator(0))
    replay = Replay(spec, 64, 1)
    replay.extend(rows)
    known = {tuple(row) for row in rows.obs.tolist()}
    for symmetries in (True, False):
        loop = DynaConfig(real_share=1.0, batch_size=64, symmetries=symmetries)
        method = ModelFreeConfig(loop=loop).build(spec, streams(0), torch.device("cpu"))
        mixed = method.mix(replay)
        foreign = [tuple(row) not in known for row in mixed.obs.tolist()]
        assert any(foreign) == symmetries
        assert (mixed.ego == ALL_AGENTS).all()
        assert {tuple(row) for row in mixed.obs.tolist()} <= known | {
            tuple(row) for row in rows.obs[:, list(SWAP.obs)].tolist()
        }


def test_a_view_keeps_its_dtype_and_device() -> None:
    view = View.of(SPEC, torch.zeros(3, 5, dtype=torch.float64))
    assert Renamings(SPEC).view(view, torch.tensor([0, 1, 1])).obs.dtype == torch.float64
