"""The replay against lists of rows: insertion, sampling, looking back, and blocks on disk."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from presage.common import checkpoint
from presage.common.checkpoint import CheckpointError
from presage.common.game import ALL_AGENTS, GameError, GameSpec, Rows, concatenate
from presage.common.replay import Replay
from presage.envs.particle.rules import game_spec
from presage.envs.particle.spread import Spread
from tests.common.toy import PLAIN, REACHING, VARIED, assert_same_rows, box_agent, generator, random_rows

SPECS = {spec.name: spec for spec in (PLAIN, VARIED, REACHING)}


@dataclass
class Lists:
    """What a replay should hold: for every lane, all rows ever inserted, of which the last `slots` count."""

    lanes: int
    slots: int
    per_ego: bool = False
    inserted: list[list[Rows]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inserted = [[] for _ in range(self.lanes)]

    def extend(self, rows: Rows, lane: Sequence[int]) -> None:
        for k, place in enumerate(lane):
            row = rows[k : k + 1]
            if self.per_ego:
                row = row.with_(ego=torch.tensor([place], dtype=torch.int16))
            self.inserted[place].append(row)

    def held(self) -> list[tuple[int, int]]:
        """(time, lane) of every row that is held, by time, then lane."""
        places = (
            (time, lane)
            for lane, rows in enumerate(self.inserted)
            for time in range(max(0, len(rows) - self.slots), len(rows))
        )
        return sorted(places)

    def rows(self, places: Sequence[tuple[int, int]]) -> Rows:
        return concatenate([self.inserted[lane][time] for time, lane in places])


def fill(replay: Replay, lists: Lists, counts: Sequence[Any], rng: torch.Generator) -> None:
    """Insert rows into both: an int is so many rows of every lane at once, a list names each row's lane."""
    for count in counts:
        lane = list(range(replay.lanes)) * count if isinstance(count, int) else list(count)
        rows = random_rows(replay.spec, len(lane), rng)
        replay.extend(rows, None if isinstance(count, int) else torch.tensor(lane, dtype=torch.int64))
        lists.extend(rows, lane)


@st.composite
def histories(draw: st.DrawFn) -> tuple[GameSpec, int, int, list[Any]]:
    """A spec, lanes, capacity, and insertions that may wrap around, overfill and leave lanes uneven."""
    lanes = draw(st.integers(1, 4))
    capacity = draw(st.integers(lanes, 8 * lanes + 3))
    insertion = st.integers(0, 12) | st.lists(st.integers(0, lanes - 1), max_size=30)
    return SPECS[draw(st.sampled_from(sorted(SPECS)))], lanes, capacity, draw(st.lists(insertion, max_size=6))


@given(histories(), st.booleans(), st.integers(0, 40))
def test_holds_the_newest_rows_of_every_lane(
    history: tuple[GameSpec, int, int, list[Any]], per_ego: bool, count: int
) -> None:
    spec, lanes, capacity, insertions = history
    replay = Replay(spec, capacity, lanes, per_ego=per_ego)
    lists = Lists(lanes, capacity // lanes, per_ego)
    fill(replay, lists, insertions, generator(0))

    held = lists.held()
    assert len(replay) == len(held)
    assert replay.filled == [sum(lane == k for _, lane in held) for k in range(lanes)]
    if not held:
        assert len(replay.all()) == 0
        return
    assert_same_rows(replay.rows(replay.all()), lists.rows(held))

    share = -(-count // lanes)
    newest = [
        (time, lane)
        for time, lane in held
        if time >= len(lists.inserted[lane]) - share
    ]  # fmt: skip
    newest = newest[max(0, len(newest) - count) :]
    found = replay.latest(count)
    assert len(found) == len(newest)
    if newest:
        assert_same_rows(replay.rows(found), lists.rows(newest))

    complete = [(time, lane) for time, lane in held if all((time, other) in held for other in range(lanes))]
    index, first = replay.complete()
    assert len(index) == len(complete)
    if complete:
        assert first == complete[0][0]
        assert_same_rows(replay.rows(index), lists.rows(complete))


def test_takes_thousands_of_rows_at_once() -> None:
    rng = generator(1)
    replay, lists = Replay(PLAIN, 3_000, 3), Lists(3, 1_000)
    fill(replay, lists, [torch.randint(3, (5_000,), generator=rng).tolist()], rng)
    assert_same_rows(replay.rows(replay.all()), lists.rows(lists.held()))


def test_rows_come_out_in_tensors_of_their_own() -> None:
    replay, lists = Replay(VARIED, 6, 2), Lists(2, 3)
    fill(replay, lists, [3], generator(2))
    taken = replay.rows(replay.all())
    for name in ("obs", "act", "reward", "next_obs", "acting", "terminated", "legal", "achieved", "desired", "step"):
        getattr(taken, name).zero_()
    assert_same_rows(replay.rows(replay.all()), lists.rows(lists.held()))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_columns_that_never_vary_take_no_memory(spec: GameSpec) -> None:
    n, a, o, g = spec.n, spec.act_dim, spec.obs_dim, spec.goal_dim
    numbers = 2 * o + a + n + g + (0 if spec.achieved else 2 * g)
    flags = 1 + n * spec.terminates + 2 * n * spec.acting_varies + 2 * a * spec.legal_varies
    assert Replay(spec, 100, 1).nbytes == 100 * (4 * numbers + flags + 4)


def test_a_million_rows_of_spread_fit_into_a_gigabyte() -> None:
    spec = game_spec(Spread())
    assert (spec.obs_dim, spec.act_dim, spec.n) == (54, 15, 3)
    assert Replay(spec, 1_000_000, 1).nbytes <= 10**9


def test_clear_forgets_everything() -> None:
    replay, lists = Replay(PLAIN, 8, 2), Lists(2, 4)
    fill(replay, lists, [3], generator(3))
    replay.clear()
    assert len(replay) == 0
    lists = Lists(2, 4)
    fill(replay, lists, [[1, 1, 0]], generator(4))
    assert_same_rows(replay.rows(replay.all()), lists.rows(lists.held()))


@pytest.mark.parametrize(
    ("rows", "lane", "said"),
    [
        (3, None, "3 rows cannot be shared evenly by 2 lanes"),
        (2, [0, 2], "lane 2"),
    ],
)
def test_rows_that_do_not_fit_the_lanes_are_refused(rows: int, lane: list[int] | None, said: str) -> None:
    replay = Replay(PLAIN, 8, 2)
    with pytest.raises(GameError, match=said):
        replay.extend(random_rows(PLAIN, rows, generator(0)), None if lane is None else torch.tensor(lane))
    assert len(replay) == 0


def test_rows_of_another_game_are_refused() -> None:
    with pytest.raises(GameError, match=r"\(3, 1\) do not belong to game 'plain'"):
        Replay(PLAIN, 8, 1).extend(random_rows(REACHING, 1, generator(0)))


@pytest.mark.parametrize(("capacity", "lanes"), [(0, 1), (3, 4), (5, 0)])
def test_a_replay_without_room_is_refused(capacity: int, lanes: int) -> None:
    with pytest.raises(ValueError, match=f"capacity={capacity}, lanes={lanes}"):
        Replay(PLAIN, capacity, lanes)


# ------------------------------------------------------------------- sampling


def numbered(insertions: Sequence[Any], lanes: int, slots: int) -> tuple[Replay, Lists]:
    replay, lists = Replay(PLAIN, slots * lanes, lanes), Lists(lanes, slots)
    fill(replay, lists, insertions, generator(5))
    return replay, lists


def chances(drawn: Tensor, held: Rows) -> Tensor:
    """How often each held row (K) was drawn, by its first observation; every drawn row must be held."""
    match = drawn[:, None] == held.obs[None, :, 0]
    assert bool((match.sum(1) == 1).all())
    return match.double().mean(0)


@pytest.mark.parametrize("insertions", [[4], [7], [2, [0, 0, 0, 2]], [7, [1, 1]]], ids=str)
def test_samples_are_uniform_over_all_rows_held(insertions: list[Any]) -> None:
    replay, lists = numbered(insertions, 3, 5)
    held = lists.rows(lists.held())
    count = 40_000
    found = chances(replay.rows(replay.sample(count, generator(6))).obs[:, 0], held)
    share = 1 / len(held)
    assert float((found - share).abs().max()) < 5 * (share / count) ** 0.5


@pytest.mark.parametrize("insertions", [[4], [2, [0, 0, 0, 2]], [7, [1, 1]]], ids=str)
def test_samples_of_lanes_are_equally_many_of_each_and_uniform_within(insertions: list[Any]) -> None:
    replay, lists = numbered(insertions, 3, 5)
    count = 20_000
    drawn = replay.rows(replay.sample_lanes(count, generator(7))).obs[:, 0].view(3, count)
    for lane in range(3):
        held = lists.rows([place for place in lists.held() if place[1] == lane])
        share = 1 / len(held)
        assert float((chances(drawn[lane], held) - share).abs().max()) < 5 * (share / count) ** 0.5


@pytest.mark.parametrize("insertions", [[4], [2, [0, 0, 0, 2]], [7, [1, 1]]], ids=str)
def test_samples_of_the_newest_rows_are_uniform_over_them(insertions: list[Any]) -> None:
    replay, lists = numbered(insertions, 3, 5)
    count, newest = 20_000, 2
    drawn = replay.rows(replay.sample_lanes(count, generator(7), newest)).obs[:, 0].view(3, count)
    for lane in range(3):
        held = lists.rows([place for place in lists.held() if place[1] == lane][-newest:])
        share = 1 / len(held)
        assert float((chances(drawn[lane], held) - share).abs().max()) < 5 * (share / count) ** 0.5
    with pytest.raises(ValueError, match="newest=0 must be >= 1"):
        replay.sample_lanes(1, generator(0), 0)


def test_the_same_generator_draws_the_same_rows() -> None:
    replay, _ = numbered([4], 3, 5)
    one, two = generator(8), generator(8)
    assert torch.equal(replay.sample(50, one), replay.sample(50, two))
    assert torch.equal(replay.sample_lanes(50, one), replay.sample_lanes(50, two))


def test_an_empty_replay_or_lane_cannot_be_sampled() -> None:
    replay = Replay(PLAIN, 8, 2)
    with pytest.raises(GameError, match="'plain' is empty"):
        replay.sample(1, generator(0))
    replay.extend(random_rows(PLAIN, 1, generator(0)), torch.tensor([0]))
    with pytest.raises(GameError, match="lane 1"):
        replay.sample_lanes(1, generator(0))


# -------------------------------------------------------------------- windows


@st.composite
def episodes(draw: st.DrawFn) -> tuple[int, int, int, list[int]]:
    """Lanes, slots, env steps played, and lengths of the episodes that follow each other in every lane."""
    return (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 25)),
        draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)),
    )


@given(episodes(), st.integers(1, 7), st.booleans())
def test_windows_look_back_to_the_start_of_the_episode_and_no_further(
    game: tuple[int, int, int, list[int]], length: int, after: bool
) -> None:
    lanes, slots, steps, lengths = game
    # every lane plays the same lengths, each beginning with another one
    clocks = [[t for size in (lengths[k:] + lengths[:k]) * steps for t in range(size)] for k in range(lanes)]
    replay, lists = Replay(PLAIN, lanes * slots, lanes), Lists(lanes, slots)
    rng = generator(9)
    for time in range(steps):
        step = [clock[time] for clock in clocks]
        rows = random_rows(PLAIN, lanes, rng).with_(step=torch.tensor(step, dtype=torch.int32))
        obs = rows.obs.clone()
        for lane, now in enumerate(step):
            if now:  # observations chain within an episode
                obs[lane] = lists.inserted[lane][-1].next_obs[0]
        rows = rows.with_(obs=obs)
        replay.extend(rows)
        lists.extend(rows, range(lanes))

    places = lists.held()
    found = replay.window(replay.all(), length, after=after)
    for k, (time, lane) in enumerate(places):
        row = lists.inserted[lane][time]
        oldest = max(time - int(row.step), len(lists.inserted[lane]) - slots, 0)
        past = [lists.inserted[lane][t] for t in range(oldest, time + 1)]
        seen = [(r.obs[0], r.act[0]) for r in past]
        if after:
            seen.append((row.next_obs[0], torch.zeros_like(row.act[0])))
        seen = seen[-length:]
        seen[-1] = (seen[-1][0], torch.zeros_like(seen[-1][1]))
        missing = length - len(seen)
        first = seen[0][0]
        assert found.valid[k].tolist() == [False] * missing + [True] * len(seen)
        assert torch.equal(found.obs[k], torch.stack([first] * missing + [obs for obs, _ in seen]))
        blank = torch.zeros_like(row.act[0])
        assert torch.equal(found.act[k], torch.stack([blank] * missing + [act for _, act in seen]))
    rows = replay.rows(replay.all())
    assert torch.equal(found.now.obs, rows.next_obs if after else rows.obs)


def test_a_window_of_no_view_is_refused() -> None:
    replay, _ = numbered([2], 1, 5)
    with pytest.raises(GameError, match="length=0"):
        replay.window(replay.all(), 0)


def test_windows_carry_the_flags_and_goals_of_their_last_view() -> None:
    replay = Replay(VARIED, 4, 1)
    rows = random_rows(VARIED, 4, generator(10))
    replay.extend(rows)
    for after, view in ((False, rows.view), (True, rows.next_view)):
        now = replay.window(replay.all(), 3, after=after).now
        for name in ("obs", "acting", "legal", "achieved", "desired"):
            assert torch.equal(getattr(now, name), getattr(view, name)), (after, name)


# ---------------------------------------------------------------------- blocks


def same_replay(one: Replay, two: Replay) -> None:
    assert one.totals == two.totals
    if len(one):
        assert_same_rows(one.rows(one.all()), two.rows(two.all()))
        assert torch.equal(one.sample(20, generator(0)), two.sample(20, generator(0)))


@given(histories(), st.integers(1, 5), st.integers(0, 5))
def test_a_loaded_replay_is_the_saved_one_and_goes_on_like_it(
    history: tuple[GameSpec, int, int, list[Any]], block_rows: int, cut: int
) -> None:
    spec, lanes, capacity, insertions = history
    one, two = (Replay(spec, capacity, lanes, block_rows=block_rows) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        fill(one, Lists(lanes, capacity // lanes), insertions[:cut], generator(11))
        one.save(Path(folder))
        fill(one, Lists(lanes, capacity // lanes), insertions[cut:], generator(12))
        saved = json.loads(json.dumps(one.save(Path(folder))))
        two.load(Path(folder), saved)
        same_replay(one, two)
        for replay in (one, two):
            fill(replay, Lists(lanes, capacity // lanes), [2], generator(13))
        same_replay(one, two)
        three = Replay(spec, capacity, lanes, block_rows=block_rows)
        three.load(Path(folder), two.save(Path(folder)))
        same_replay(one, three)


def test_every_bit_of_a_row_survives() -> None:
    strange = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45, 3.4e38])
    rows = random_rows(PLAIN, 5, generator(14)).with_(reward=strange[:, None].repeat(1, 2))
    one, two = Replay(PLAIN, 5, 1), Replay(PLAIN, 5, 1)
    one.extend(rows)
    with tempfile.TemporaryDirectory() as folder:
        two.load(Path(folder), one.save(Path(folder)))
    bits = two.rows(two.all()).reward.contiguous().view(torch.int32)
    assert torch.equal(bits, rows.reward.view(torch.int32))


@given(st.integers(1, 3), st.integers(2, 12), st.integers(1, 4), st.integers(0, 30), st.integers(1, 30))
def test_only_blocks_that_changed_are_written_again(
    lanes: int, slots: int, block_slots: int, before: int, more: int
) -> None:
    replay, lists = Replay(PLAIN, lanes * slots, lanes, block_rows=block_slots * lanes), Lists(lanes, slots)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(replay, lists, [before], generator(15))
        old = replay.save(folder)["files"]
        times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert sorted(times) == sorted(old)
        fill(replay, lists, [more], generator(16))
        new = replay.save(folder)["files"]
        changed = {time % slots // block_slots for time in range(before, before + more)}
        for block, file in enumerate(new):
            assert (block >= len(old) or file != old[block]) == (block in changed)
        assert all((folder / file).stat().st_mtime_ns == time for file, time in times.items())
        assert {path.name for path in folder.iterdir()} == {*old, *new}


def test_saving_twice_writes_nothing(tmp_path: Path) -> None:
    replay, _ = numbered([4], 3, 5)
    first = replay.save(tmp_path)
    assert replay.save(tmp_path) == first


def test_each_folder_gets_all_blocks(tmp_path: Path) -> None:
    replay, _ = numbered([4], 3, 5)
    replay.save(tmp_path / "one")
    saved = replay.save(tmp_path / "two")
    other = Replay(PLAIN, 15, 3)
    other.load(tmp_path / "two", saved)
    same_replay(replay, other)


def test_a_file_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    replay, _ = numbered([4], 3, 5)
    (tmp_path / replay.save(tmp_path)["files"][0]).unlink()
    other = Replay(PLAIN, 15, 3)
    other.load(tmp_path, replay.save(tmp_path))
    same_replay(replay, other)


def test_a_replay_that_went_back_to_an_older_checkpoint_saves_its_own_rows(tmp_path: Path) -> None:
    replay, lists = Replay(PLAIN, 8, 1, block_rows=2), Lists(1, 8)
    fill(replay, lists, [3], generator(17))
    older = replay.save(tmp_path)
    fill(replay, lists, [3], generator(18))
    replay.save(tmp_path)
    replay.load(tmp_path, older)
    fill(replay, lists, [3], generator(19))  # as many rows as before, but others
    other = Replay(PLAIN, 8, 1, block_rows=2)
    other.load(tmp_path, replay.save(tmp_path))
    same_replay(replay, other)


SIDEWAYS = GameSpec(name="sideways", agents=(box_agent("a", (0,), 4), box_agent("b", (0,), 3)), obs_dim=2)


@pytest.mark.parametrize(
    "other",
    [
        Replay(PLAIN, 16, 2),
        Replay(PLAIN, 8, 1),
        Replay(PLAIN, 8, 2, block_rows=4),
        Replay(VARIED, 8, 2),
        Replay(SIDEWAYS, 8, 2),  # rows as wide as PLAIN's, with other columns
    ],
    ids=["capacity", "lanes", "blocks", "flags", "columns"],
)
def test_a_replay_of_another_layout_is_refused(other: Replay, tmp_path: Path) -> None:
    replay = Replay(PLAIN, 8, 2)
    replay.extend(random_rows(PLAIN, 4, generator(20)))
    with pytest.raises(GameError, match=r"config\.yaml"):
        other.load(tmp_path, replay.save(tmp_path))
    assert len(other) == 0


def break_block(path: Path, how: str, other: Path) -> None:
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    else:
        path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("how", ["missing", "truncated", "of another size"])
def test_a_damaged_block_is_refused_before_anything_changes(how: str, tmp_path: Path) -> None:
    replay, reader = Replay(PLAIN, 5, 1, block_rows=2), Replay(PLAIN, 5, 1, block_rows=2)
    replay.extend(random_rows(PLAIN, 5, generator(21)))
    saved = replay.save(tmp_path)
    held = random_rows(PLAIN, 4, generator(22))
    reader.extend(held)
    break_block(tmp_path / saved["files"][1], how, tmp_path / saved["files"][2])
    with pytest.raises(GameError, match=saved["files"][1]):
        reader.load(tmp_path, saved)
    assert_same_rows(reader.rows(reader.all()), held)


def test_a_list_of_files_that_cannot_hold_the_rows_is_refused(tmp_path: Path) -> None:
    replay, _ = numbered([4], 3, 5)
    saved = replay.save(tmp_path) | {"files": []}
    with pytest.raises(GameError, match="0 files cannot hold rows"):
        Replay(PLAIN, 15, 3).load(tmp_path, saved)


def test_a_flipped_bit_is_found_by_the_checkpoint_that_lists_the_block(tmp_path: Path) -> None:
    replay, _ = numbered([4], 3, 5)
    saved = replay.save(tmp_path / "replay")
    files = [tmp_path / "replay" / name for name in saved["files"]]
    checkpoint.save(tmp_path / "step_000000001", {"replay": saved}, kind="test", version=1, external=files)
    reader = Replay(PLAIN, 15, 3)
    reader.load(tmp_path / "replay", checkpoint.load(tmp_path / "step_000000001")["replay"])
    same_replay(replay, reader)
    content = bytearray(files[0].read_bytes())
    content[-1] ^= 1
    files[0].write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=files[0].name):
        checkpoint.load(tmp_path / "step_000000001")


def test_a_kill_while_saving_leaves_no_file_under_a_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, lists = Replay(PLAIN, 9, 1, block_rows=3), Lists(1, 9)
    fill(replay, lists, [4], generator(23))
    saved = replay.save(tmp_path)
    fill(replay, lists, [4], generator(24))
    written = 0

    def killed(tensors: dict[str, Tensor], path: Path) -> None:
        nonlocal written
        save_file(tensors, path)
        written += 1
        if written == 2:
            path.write_bytes(path.read_bytes()[:20])
            raise KeyboardInterrupt

    monkeypatch.setattr("presage.common.replay.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        replay.save(tmp_path)
    monkeypatch.undo()
    complete = list(tmp_path.glob("block_*.safetensors"))
    assert len(complete) == len(saved["files"]) + 1
    for path in complete:
        assert load_file(path)["numbers"].shape == (1, 3, 13)
    earlier = Replay(PLAIN, 9, 1, block_rows=3)
    earlier.load(tmp_path, saved)  # what the last checkpoint lists is whole
    assert earlier.totals == [4]
    again = Replay(PLAIN, 9, 1, block_rows=3)
    again.load(tmp_path, replay.save(tmp_path))
    same_replay(replay, again)


def test_rows_of_each_ego_carry_its_number() -> None:
    real, imagined = Replay(PLAIN, 4, 2), Replay(PLAIN, 4, 2, per_ego=True)
    for replay in (real, imagined):
        replay.extend(random_rows(PLAIN, 4, generator(25)))
    assert real.rows(real.all()).ego.tolist() == [ALL_AGENTS] * 4
    assert imagined.rows(imagined.all()).ego.tolist() == [0, 1, 0, 1]
