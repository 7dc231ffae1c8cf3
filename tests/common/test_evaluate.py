from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from torch import Tensor

from presage.common.evaluate import Evaluation, RandomActor, evaluate, play, record, renew
from presage.common.game import AgentSpec, Game, GameError, GameSpec, Head, Rows, View, Window

AGENTS = tuple(
    AgentSpec(name=name, obs=(0, 1, 2), heads=(Head(kind="box", size=1),), low=(-1.0,), high=(1.0,))
    for name in ("one", "two")
)
SPEC = GameSpec(name="script", agents=AGENTS, obs_dim=3, terminates=True)


class ScriptedGame:
    """Episode j of copy c lasts `lengths[c][j]` steps. Agent one earns c + 1 a step, agent two its own action.

    The observation is (copy, episode, step); even episodes end by termination of both agents, odd ones by truncation.
    """

    def __init__(self, lengths: list[list[int]]) -> None:
        self.spec = SPEC
        self.copies = len(lengths)
        self.seeds: list[int] = []
        self._lengths = lengths

    def _view(self) -> View:
        copy = torch.arange(self.copies)
        return View.of(self.spec, torch.stack([copy, self._episode, self._step], dim=1).float())

    def reset(self, seed: int) -> View:
        self.seeds.append(seed)
        self._episode = torch.zeros(self.copies, dtype=torch.int64)
        self._step = torch.zeros(self.copies, dtype=torch.int64)
        return self._view()

    def step(self, act: Tensor) -> tuple[Rows, View]:
        view, step = self._view(), self._step.clone()
        reward = torch.stack([torch.arange(self.copies) + 1.0, act[:, 1]], dim=1)
        self._step += 1
        after = self._view()
        wanted = torch.tensor(
            [row[min(int(j), len(row) - 1)] for row, j in zip(self._lengths, self._episode, strict=True)]
        )
        over = self._step >= wanted
        even = self._episode % 2 == 0
        rows = Rows.of(
            self.spec, view, act, reward, after, (over & even)[:, None].expand(-1, 2), over & ~even, step
        )  # fmt: skip
        self._step[over] = 0
        self._episode[over] += 1
        return rows, self._view()

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> View:
        return self._view()

    def render(self, copy: int) -> np.ndarray:
        picture = np.zeros((8, 8, 3), dtype=np.uint8)
        picture[:, : int(self._step[copy]) + 1] = (60 * int(self._episode[copy]), 200, 50)
        return picture

    def close(self) -> None:
        pass


class CountingActor:
    """Both agents answer how many steps it remembers of this episode, over 100; with an rng, minus that."""

    def init(self, window: Window) -> tuple[Tensor, None]:
        assert window.obs.shape == (len(window.now), 1, SPEC.obs_dim)
        assert bool(window.valid.all())
        assert not bool(window.act.any())
        assert torch.equal(window.obs[:, -1], window.now.obs)
        return window.now.obs[:, 2].clone(), None

    def step(
        self, carry: tuple[Tensor, None], view: View, rng: torch.Generator | None
    ) -> tuple[tuple[Tensor, None], Tensor]:
        count = carry[0]
        sign = 1.0 if rng is None else -1.0
        return (count + 1, None), (sign * count / 100)[:, None].expand(-1, 2)


LENGTHS = [[2, 5, 1, 9], [4, 1, 3, 9], [1, 1, 6, 9]]


def by_hand(each: int) -> np.ndarray:
    """(E, 2) returns of the first episodes of every copy under the counting actor."""
    return np.array(
        [[(c + 1) * length, sum(range(length)) / 100] for c in range(3) for length in LENGTHS[c][:each]], dtype=float
    )


@pytest.mark.parametrize("each", [1, 2, 3])
def test_returns_and_lengths_are_those_of_the_first_episodes_of_every_copy(each: int) -> None:
    game = ScriptedGame(LENGTHS)
    found = evaluate(game, CountingActor(), 3 * each, seed=17)
    np.testing.assert_allclose(found.returns, by_hand(each), atol=1e-6)
    np.testing.assert_array_equal(found.lengths, [length for row in LENGTHS for length in row[:each]])
    np.testing.assert_allclose(found.mean_returns, by_hand(each).mean(axis=1), atol=1e-6)
    assert found.mean_return == pytest.approx(by_hand(each).mean())
    assert game.seeds == [17]


def test_the_same_seed_gives_the_same_evaluation() -> None:
    game = ScriptedGame(LENGTHS)
    first, second = (evaluate(game, CountingActor(), 6, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.returns, second.returns)


def test_short_episodes_are_not_over_represented() -> None:
    found = evaluate(ScriptedGame([[1], [50]]), CountingActor(), 4, seed=0)
    assert found.lengths.tolist() == [1, 1, 50, 50]


def test_actions_are_greedy_unless_an_rng_is_given() -> None:
    game = ScriptedGame(LENGTHS)
    greedy = evaluate(game, CountingActor(), 3, seed=0)
    sampled = evaluate(game, CountingActor(), 3, seed=0, rng=torch.Generator())
    np.testing.assert_array_equal(sampled.returns[:, 1], -greedy.returns[:, 1])
    assert greedy.returns[:, 1].any()


def test_measures_are_taken_from_the_last_transition_of_each_episode() -> None:
    found = evaluate(
        ScriptedGame(LENGTHS), CountingActor(), 6, seed=0,
        measures={"terminated": lambda rows: rows.terminated.all(dim=1), "episode": lambda rows: rows.obs[:, 1]},
    )  # fmt: skip
    assert found.measures["terminated"].tolist() == [1, 0] * 3
    assert found.measures["episode"].tolist() == [0, 1] * 3
    assert found.metrics()["eval/terminated"] == 0.5
    assert found.per_episode()["episode"] == [0, 1] * 3


def test_metrics_are_tagged_by_agent() -> None:
    found = Evaluation(
        agents=("one", "two"), returns=np.array([[1.0, 3.0], [2.0, 6.0]]), lengths=np.array([10.0, 20.0])
    )
    assert found.metrics() == {
        "eval/mean_reward": 3.0, "eval/mean_ep_length": 15.0, "eval/mean_reward/one": 1.5, "eval/mean_reward/two": 4.5,
    }  # fmt: skip
    assert found.per_episode() == {"return": [2.0, 4.0], "length": [10.0, 20.0]}


@pytest.mark.parametrize("episodes", [0, 4, -3])
def test_episodes_that_copies_cannot_share_are_refused(episodes: int) -> None:
    with pytest.raises(GameError, match=f"{episodes} episodes cannot be shared equally by 3 copies"):
        evaluate(ScriptedGame(LENGTHS), CountingActor(), episodes, seed=0)


class ForgetfulGame(ScriptedGame):
    """Ends its episodes without starting the next one."""

    def step(self, act: Tensor) -> tuple[Rows, View]:
        rows, _ = super().step(act)
        self._step = rows.step.long() + 1
        return rows, self._view()


def test_a_game_that_does_not_start_over_is_refused() -> None:
    with pytest.raises(GameError, match="copy 2 of 'script' is at step 1 of its episode, not 0"):
        evaluate(ForgetfulGame(LENGTHS), CountingActor(), 6, seed=0)


def test_renew_takes_the_rows_that_ended_from_the_fresh_carry() -> None:
    old, new = torch.arange(6.0).reshape(3, 2), -torch.ones(3, 2)
    where = torch.tensor([False, True, False])
    found = renew((old, (old[:, 0], None)), (new, (new[:, 0], None)), where)
    assert found[0].tolist() == [[0, 1], [-1, -1], [4, 5]]
    assert found[1][0].tolist() == [0, -1, 4]
    assert found[1][1] is None
    assert renew(None, None, where) is None


@pytest.mark.parametrize("fresh", [torch.zeros(3, 4), (torch.zeros(3, 2),), None], ids=["shape", "tuple", "none"])
def test_carries_made_differently_are_refused(fresh: object) -> None:
    with pytest.raises(GameError, match=r"remembers a tensor \(3, 2\) after a step"):
        renew(torch.zeros(3, 2), fresh, torch.tensor([True, False, True]))


def mixed_spec() -> GameSpec:
    return GameSpec(
        name="mixed", obs_dim=1,
        agents=(
            AgentSpec(name="chooser", obs=(0,), heads=(Head(kind="discrete", size=3),)),
            AgentSpec(name="mover", obs=(0,), heads=(Head(kind="box", size=2),), low=(-1.0,) * 2, high=(1.0,) * 2),
        ),
    )  # fmt: skip


def test_random_actor_is_uniform_over_what_is_legal() -> None:
    spec = mixed_spec()
    legal = torch.ones(4000, spec.act_dim, dtype=torch.bool)
    legal[:, 1] = False
    acting = torch.ones(4000, 2, dtype=torch.bool)
    acting[0] = False
    view = View.of(spec, torch.zeros(4000, 1), legal=legal, acting=acting)
    _, act = RandomActor(spec).step(None, view, torch.Generator().manual_seed(0))
    spec.check_action(act, acting)
    np.testing.assert_allclose(act[:, :3].mean(dim=0), [0.5, 0.0, 0.5], atol=0.03)
    np.testing.assert_allclose(act[:, 3:].mean(dim=0), [0.0, 0.0], atol=0.04)
    np.testing.assert_allclose(act[:, 3:].var(dim=0), [1 / 3, 1 / 3], atol=0.02)


def test_random_actor_needs_an_rng() -> None:
    with pytest.raises(ValueError, match="no greedy action; pass an rng"):
        evaluate(ScriptedGame(LENGTHS), RandomActor(SPEC), 3, seed=0)


def test_play_goes_on_past_the_ends_of_episodes() -> None:
    played = play(ScriptedGame([[2, 3]]), CountingActor(), seed=0)
    rows_and_ends = [next(played) for _ in range(5)]
    assert [bool(over[0]) for _, over in rows_and_ends] == [False, True, False, False, True]
    assert [int(rows.step[0]) for rows, _ in rows_and_ends] == [0, 1, 0, 1, 2]
    assert [float(rows.act[0, 0]) for rows, _ in rows_and_ends] == pytest.approx([0.0, 0.01, 0.0, 0.01, 0.02])


def test_a_recording_has_one_frame_per_env_step_of_the_first_episode(tmp_path: Path) -> None:
    path = tmp_path / "report" / "episode.gif"
    total = record(ScriptedGame([[6, 2], [1, 1]]), CountingActor(), 0, path)
    frames = imageio.imread(path, index=None)
    assert frames.shape == (6, 8, 8, 3)
    green = (frames[:, 0, :, 1] > 100).sum(axis=1)  # the bar that `render` draws is one longer at each step
    assert green.tolist() == [1, 2, 3, 4, 5, 6]
    assert total == pytest.approx((6 * 1.0 + 0.15) / 2)


def test_the_scripted_game_is_a_game() -> None:
    assert isinstance(ScriptedGame(LENGTHS), Game)
