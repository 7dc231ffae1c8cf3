"""Branched rollouts with stubs that say who they are, against the table and against counting loops."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from presage.common.answers import Answer
from presage.common.game import ALL_AGENTS, Carry, GameError, GameSpec, Outcome, Rows, View, Window
from presage.common.ledger import Ledger
from presage.common.rollout import Answerers, branch_rollouts
from tests.common.toy import box_agent, generator, window_at

SPEC = GameSpec(name="three", agents=tuple(box_agent(name, (0, 1), 1) for name in "abc"), obs_dim=2, terminates=True)
NEVER_ENDS = replace(SPEC, terminates=False)
TURNS = replace(SPEC, acting_varies=True)


@dataclass
class Says:
    """Answers with one number for everybody who acts, and keeps what it was shown."""

    number: float
    remembers: bool = False
    shown: list[View] = field(default_factory=list)
    carries: list[Carry] = field(default_factory=list)

    def init(self, window: Window) -> Carry:
        return torch.zeros(len(window)) if self.remembers else None

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        assert rng is not None
        self.shown.append(view)
        self.carries.append(carry)
        return (None if carry is None else carry + 1), self.number * view.acting.float()


@dataclass
class Counts:
    """A world whose observation is (branch, step); branch r ends after `lives[r]` steps, for agent `whose[r]` or all.

    Agents act as `acting (R, H + 1, N)` says.
    """

    spec: GameSpec
    lives: list[int]
    acting: Tensor
    whose: list[int] | None = None
    sizes: list[int] = field(default_factory=list)

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        return 0

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        self.sizes.append(len(view))
        after = View.of(self.spec, view.obs + torch.tensor([0.0, 1.0]), acting=self.acting[:, carry + 1])
        over = torch.tensor(self.lives) == carry + 1
        terminated = over[:, None].expand(-1, 3).clone()
        if self.whose is not None:
            terminated &= torch.arange(3) == torch.tensor(self.whose)[:, None]
        reward = 10 * view.obs[:, :1] + act
        return carry + 1, Outcome(after=after, reward=reward, terminated=terminated)


@dataclass
class Rollout:
    """What one call of the generator did."""

    rows: list[Rows]
    running: Tensor
    queries: Tensor


def run(
    spec: GameSpec, kernel: Counts, table: Tensor, starts: int, answerers: Answerers, ego: Tensor | None = None
) -> Rollout:
    """Branches numbered in `obs[:, 0]`; `starts` for each of three egos unless `ego` says otherwise."""
    if ego is None:
        ego = torch.arange(3).repeat_interleave(starts)
    obs = torch.stack([torch.arange(len(ego)).float(), torch.zeros(len(ego))], 1)
    window = window_at(View.of(spec, obs, acting=kernel.acting[:, 0]), spec.act_dim)
    rows: list[Rows] = []
    ledger = Ledger(spec.n)

    def store(part: Rows, branch: Tensor) -> None:
        assert torch.equal(part.obs[:, 0].long(), branch)
        rows.append(part)

    running = branch_rollouts(spec, kernel, answerers, window, ego, table, generator(0), store, ledger)
    return Rollout(rows, running, ledger.queries)


def everybody(rows: int, horizon: int) -> Tensor:
    return torch.ones(rows, horizon + 1, 3, dtype=torch.bool)


def switching(lengths: Tensor, horizon: int) -> Tensor:
    """The table in which the model of agent j answers for ego i while u < lengths[i, j], then j itself."""
    table = torch.empty(3, 3, horizon, dtype=torch.int8)
    for i in range(3):
        for j in range(3):
            for u in range(horizon):
                who = Answer.POLICY if i == j else Answer.MODEL if u < int(lengths[i, j]) else Answer.REAL
                table[i, j, u] = int(who)
    return table


def parts(remembers: bool = False) -> Answerers:
    return Answerers(policy=Says(0.5), models=Says(0.0), real=Says(1.0, remembers=remembers))


def test_opponents_switch_from_model_to_real_after_their_lengths() -> None:
    lengths = torch.tensor([[0, 5, 2], [5, 0, 2], [2, 5, 0]])
    found = run(NEVER_ENDS, Counts(NEVER_ENDS, [99] * 12, everybody(12, 5)), switching(lengths, 5), 4, parts())
    acts = torch.stack([rows.act for rows in found.rows], 2)  # (R, A, H)
    assert acts[0].tolist() == [[0.5] * 5, [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]]
    assert acts[4].tolist() == [[0, 0, 0, 0, 0], [0.5] * 5, [0, 0, 1, 1, 1]]
    assert acts[8].tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0.5] * 5]
    assert torch.equal(acts, acts[[0, 4, 8]].repeat_interleave(4, 0))
    assert found.queries.tolist() == [[0, 0, 12], [0, 0, 12], [12, 0, 0]]  # M (k - n_j)
    assert found.running.tolist() == [12] * 5


@st.composite
def branches(draw: st.DrawFn) -> dict[str, Any]:
    """Lengths, lives and turns of three egos' branches."""
    starts, horizon = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    size = 3 * starts
    return {
        "starts": starts,
        "horizon": horizon,
        "lengths": torch.tensor(draw(st.lists(st.integers(0, horizon), min_size=9, max_size=9))).view(3, 3),
        "lives": draw(st.lists(st.integers(1, horizon + 1), min_size=size, max_size=size)),
        "acting": torch.rand(size, horizon + 1, 3, generator=generator(draw(st.integers(0, 99)))) < 0.7,
    }


@given(branches(), st.booleans())
def test_exactly_those_are_asked_whose_turn_it_is_in_branches_that_run(case: dict[str, Any], remembers: bool) -> None:
    starts, horizon, lives, acting = case["starts"], case["horizon"], case["lives"], case["acting"]
    table = switching(case["lengths"], horizon)
    answerers = parts(remembers)
    kernel = Counts(TURNS, lives, acting)
    found = run(TURNS, kernel, table, starts, answerers)

    queries = torch.zeros(3, 3, dtype=torch.int64)
    asked_at: list[list[int]] = [[] for _ in range(horizon)]
    stored = [[r for r in range(3 * starts) if u < lives[r]] for u in range(horizon)]
    for u in range(horizon):
        for k, r in enumerate(stored[u]):
            row, ego = found.rows[u][k : k + 1], r // starts
            wanted = []
            for j in range(3):
                who = int(table[ego, j, u])
                acts = bool(acting[r, u, j])
                if who == Answer.REAL and acts:
                    queries[ego, j] += 1
                    asked_at[u].append(r)
                wanted.append({Answer.POLICY: 0.5, Answer.MODEL: 0.0, Answer.REAL: 1.0}[Answer(who)] * acts)
            assert row.act[0].tolist() == wanted
            assert row.reward[0].tolist() == pytest.approx([10 * r + number for number in wanted])
            assert row.obs[0].tolist() == [r, u]
            assert row.next_obs[0].tolist() == [r, u + 1]
            assert row.acting[0].tolist() == acting[r, u].tolist()
            assert row.next_acting[0].tolist() == acting[r, u + 1].tolist()
            assert row.terminated[0].tolist() == [lives[r] == u + 1] * 3
            assert (int(row.ego), int(row.step), bool(row.truncated)) == (ego, u, False)
    assert torch.equal(found.queries, queries)
    assert [len(rows) for rows in found.rows] == found.running.tolist() == [len(branch) for branch in stored]
    assert kernel.sizes == [3 * starts] * horizon  # shapes stay fixed whoever has ended

    assert isinstance(answerers.real, Says)
    if remembers:  # it sees every step of every branch, asked or not
        assert [len(view) for view in answerers.real.shown] == [3 * starts] * horizon
        assert [carry.tolist() for carry in answerers.real.carries] == [[u] * 3 * starts for u in range(horizon)]
    else:
        shown = [sorted(view.obs[:, 0].int().tolist()) for view in answerers.real.shown]
        assert shown == [sorted(set(rows)) for rows in asked_at if rows]


def test_rows_of_a_branch_chain() -> None:
    lives = [3, 9, 1, 9, 2, 9]
    found = run(SPEC, Counts(SPEC, lives, everybody(6, 4)), switching(torch.zeros(3, 3), 4), 2, parts())
    for earlier, later in zip(found.rows, found.rows[1:], strict=False):
        goes_on = ~earlier.terminated.all(1)
        assert torch.equal(earlier.next_obs[goes_on], later.obs)
        assert torch.equal(earlier.ego[goes_on], later.ego)
    assert found.running.tolist() == [6, 5, 4, 3]


def test_a_branch_ends_with_its_ego_and_not_with_another_agent() -> None:
    # branch r belongs to ego r; agents 0, 2 and 2 terminate after one step
    kernel = Counts(SPEC, [1, 1, 1], everybody(3, 3), whose=[0, 2, 2])
    found = run(SPEC, kernel, switching(torch.zeros(3, 3), 3), 1, parts())
    assert [rows.ego.tolist() for rows in found.rows] == [[0, 1, 2], [1], [1]]
    assert found.queries.tolist() == [[0, 1, 1], [3, 0, 3], [1, 1, 0]]


def test_steps_after_every_branch_has_ended_store_nothing() -> None:
    found = run(SPEC, Counts(SPEC, [1, 1, 1], everybody(3, 3)), switching(torch.zeros(3, 3), 3), 1, parts())
    assert [len(rows) for rows in found.rows] == [3, 0, 0]
    assert found.queries.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_without_real_opponents_the_policies_answer_for_themselves_and_count() -> None:
    lengths = torch.tensor([[0, 1, 2], [0, 0, 3], [3, 3, 0]])
    policy = Says(0.5)
    found = run(
        NEVER_ENDS, Counts(NEVER_ENDS, [9] * 6, everybody(6, 3)), switching(lengths, 3), 2,
        Answerers(policy=policy, models=Says(0.0)),
    )  # fmt: skip
    acts = torch.stack([rows.act for rows in found.rows], 2)
    assert acts[0].tolist() == [[0.5, 0.5, 0.5], [0.0, 0.5, 0.5], [0.0, 0.0, 0.5]]
    assert acts[2].tolist() == [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0]]
    assert found.queries.tolist() == [[0, 4, 2], [6, 0, 0], [0, 0, 0]]
    assert [len(view) for view in policy.shown] == [6, 6, 6]  # nobody is asked twice


def test_joint_branches_are_answered_by_the_policies_alone_and_serve_everybody() -> None:
    answerers = parts()
    kernel = Counts(SPEC, [2, 9], everybody(2, 3))
    found = run(SPEC, kernel, torch.zeros(1, 3, 3, dtype=torch.int8), 2, answerers, torch.full((2,), ALL_AGENTS))
    assert [rows.ego.tolist() for rows in found.rows] == [[ALL_AGENTS] * 2, [ALL_AGENTS] * 2, [ALL_AGENTS]]
    assert all(bool((rows.act == 0.5).all()) for rows in found.rows)
    assert found.queries.sum() == 0
    assert isinstance(answerers.models, Says)
    assert isinstance(answerers.real, Says)
    assert answerers.models.shown == answerers.real.shown == []


def test_joint_branches_end_when_the_last_agent_has() -> None:
    kernel = Counts(SPEC, [1, 1], everybody(2, 3), whose=[0, 1])
    found = run(
        SPEC, kernel, torch.zeros(1, 3, 3, dtype=torch.int8), 2, parts(), torch.full((2,), ALL_AGENTS)
    )  # fmt: skip
    assert found.running.tolist() == [2, 2, 2]


def test_a_table_that_wants_models_is_refused_without_any() -> None:
    with pytest.raises(GameError, match="pass `models`"):
        run(
            SPEC, Counts(SPEC, [9] * 3, everybody(3, 2)), switching(torch.ones(3, 3), 2), 1,
            Answerers(policy=Says(0.5), real=Says(1.0)),
        )  # fmt: skip


def test_a_horizon_of_zero_imagines_nothing() -> None:
    found = run(SPEC, Counts(SPEC, [9] * 3, everybody(3, 0)), switching(torch.zeros(3, 3), 0), 1, parts())
    assert found.rows == []
    assert found.running.tolist() == []
