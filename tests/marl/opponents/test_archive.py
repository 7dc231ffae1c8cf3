"""Archives of one's own are read as a loop would have recorded them, and whatever is wrong in one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from presage.common.game import GameError
from presage.marl.opponents.archive import from_arrays, from_file
from presage.marl.opponents.record import Record

M = 6
SHAPES: dict[str, tuple[int, ...]] = {"one": (2,), "two": (2, 2), "three": (1,)}


def arrays(**changed: Any) -> dict[str, Any]:
    """Two episodes of three agents, one of every kind of action; None takes an array out."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        "lengths": [4, 2],
        "observations/one": rng.normal(size=(M, 2)), "actions/one": [0, 1, 2, 0, 1, 2], "choices/one": 3,
        "observations/two": rng.normal(size=(M, 2, 2)), "actions/two": [[0, 1]] * M, "choices/two": [2, 4],
        "observations/three": np.arange(M), "actions/three": rng.uniform(-2, 4, (M, 1)), "low/three": [-2.0],
        "high/three": [4.0],
    }  # fmt: skip
    return {name: value for name, value in (found | changed).items() if value is not None}


class Spaces:
    """The same agents as an environment states them."""

    possible_agents = tuple(SHAPES)

    def observation_space(self, name: str) -> spaces.Space[Any]:
        return spaces.Box(-np.inf, np.inf, SHAPES[name])

    def action_space(self, name: str) -> spaces.Space[Any]:
        return {
            "one": spaces.Discrete(3), "two": spaces.MultiDiscrete([2, 4]), "three": spaces.Box(-2, 4, (1,)),
        }[name]  # fmt: skip


def test_an_archive_is_what_a_loop_would_have_recorded(tmp_path: Path) -> None:
    given = arrays(who=["red", "blue"], name="trio")
    np.savez(tmp_path / "mine.npz", **given)
    found = from_file(tmp_path / "mine.npz")
    loop = Record.of(Spaces(), name="trio")
    for t in range(M):
        seen = {name: np.reshape(given[f"observations/{name}"][t], SHAPES[name]) for name in SHAPES}
        done = {name: given[f"actions/{name}"][t] for name in SHAPES}
        loop.add(seen, done, over=t in (3, 5), who="red" if t < 4 else "blue")
    assert found.spec == loop.spec
    for one, two in zip(vars(found.moments().view).values(), vars(loop.moments().view).values(), strict=True):
        assert torch.equal(one, two)
    torch.testing.assert_close(found.moments().act, loop.moments().act)
    assert found.step.tolist() == loop.step.tolist() == [0, 1, 2, 3, 0, 1]
    assert [found.names[k] for k in found.who.tolist()] == ["red"] * 4 + ["blue"] * 2


def test_turns_and_legal_choices_are_read() -> None:
    legal = np.ones((M, 3), dtype=np.bool_)
    legal[1] = [False, True, True]
    turns = np.arange(M) % 2 == 1
    given = arrays(**{"acting/one": turns, "legal/one": legal, "actions/one": [9, 1, 9, 0, 9, 2]})
    record = from_arrays(given)
    assert record.spec.acting_varies
    assert record.spec.legal_varies
    assert record.moments().view.acting[:, 0].tolist() == turns.tolist()
    assert record.moments().view.acting[:, 1:].all()
    assert record.moments().view.legal[:, :3].tolist() == legal.tolist()
    assert record.moments().act[:, :3].argmax(1)[torch.from_numpy(turns)].tolist() == [1, 0, 2]
    assert not bool(record.moments().act[::2, :3].any())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 5), st.randoms())
def test_whole_numbers_come_back(lengths: list[int], choices: int, random: Any) -> None:
    done = [random.randrange(choices) for _ in range(sum(lengths))]
    record = from_arrays(
        {"lengths": lengths, "observations/a": np.zeros((len(done), 0)), "actions/a": done, "choices/a": choices}
    )
    assert record.moments().act.argmax(1).tolist() == done
    assert record.episode.tolist() == [k for k, length in enumerate(lengths) for _ in range(length)]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"lengths": None}, "are no episodes; give lengths"),
    ({"lengths": [4, 3]}, r"lengths must be >= 1 and sum to the moments .* they sum to 7"),
    ({"lengths": [6, 0]}, "lengths must be >= 1"),
    ({"lengths": [3.0, 3.0]}, "lengths is of float64; it must hold whole numbers"),
    ({"action/one": [0] * M}, "no array is called 'action/one'; did you mean 'actions/one'"),
    ({"actions/one": None}, "actions/one is missing"),
    ({"choices/one": None}, "agent 'one' has nothing to say what it can do; give choices/one for whole numbers"),
    ({"high/three": None}, r"agent 'three' has \['low'\] to say what it can do"),
    ({"low/one": [0.0]}, r"agent 'one' has \['choices', 'low'\]"),
    ({"choices/one": 2}, "agent 'one': action .*2.* is outside 0..1"),
    ({"choices/one": 0}, "choices/one=0 must be one number >= 1"),
    ({"choices/one": [3]}, r"choices/one=\[3\] must be one number >= 1 for actions \(M,\)"),
    ({"choices/two": 2}, r"actions/two is of shape \(6, 2\)"),
    ({"actions/one": [0.0] * M}, "actions/one is of float64; it must hold whole numbers"),
    ({"actions/one": [0] * 5}, "observations of shape .* and 5 actions"),
    ({"actions/three": [[5.0]] * M}, r"agent 'three' did \[5.0\] in moment 0, which is illegal then, or outside Box"),
    ({"actions/three": [[np.nan]] * M}, "agent 'three' did"),
    ({"actions/three": [0.0] * M}, r"actions/three of shape \(6,\) must be \(M, a\)"),
    ({"low/three": [5.0]}, "with low < high"),
    ({"observations/one": np.full((M, 2), np.nan)}, "observations/one of float64 .* must be finite numbers"),
    ({"observations/one": ["a"] * M}, "observations/one of <U1 .* must be finite numbers"),
    ({"acting/one": [1] * M}, r"acting of agent 'one' must be bool of shape \(6,\), got int64"),
    ({"legal/one": np.ones((M, 2), dtype=np.bool_)}, r"legal of agent 'one' must be bool of shape \(6, 3\)"),
    ({"legal/one": np.tile([True, True, False], (M, 1))}, "agent 'one' did 2 in moment 2, which is illegal then"),
    ({"who": ["a"]}, "1 names for 2 episodes"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "sentence"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_named(changed: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    given = arrays(**changed)
    with pytest.raises(GameError, match=sentence):
        from_arrays(given)
    np.savez(tmp_path / "mine.npz", **given)
    with pytest.raises(GameError, match=rf"mine.npz: .*{sentence}"):
        from_file(tmp_path / "mine.npz")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(GameError, match=r"notes.txt is no NumPy archive; write one with Record.save"):
        from_file(tmp_path / "notes.txt")
    np.savez(tmp_path / "objects.npz", lengths=np.array([object()]))
    with pytest.raises(GameError, match=r"objects.npz cannot be read \(Object arrays cannot be loaded"):
        from_file(tmp_path / "objects.npz")
    np.savez_compressed(tmp_path / "broken.npz", **arrays())
    content = bytearray((tmp_path / "broken.npz").read_bytes())
    content[100:110] = bytes(10)
    (tmp_path / "broken.npz").write_bytes(bytes(content))
    with pytest.raises(GameError, match=r"broken.npz cannot be read"):
        from_file(tmp_path / "broken.npz")


def test_a_saved_record_is_known_again(tmp_path: Path) -> None:
    record = from_arrays(arrays())
    record.save(tmp_path / "saved.npz")
    assert torch.equal(from_file(tmp_path / "saved.npz").moments().act, record.moments().act)
