"""Checkpoints: exact to the bit, refused with one sentence whatever is broken, and never half there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from presage.common import checkpoint
from presage.common.checkpoint import CheckpointError
from presage.common.tree import Tree
from tests.common.trees import TREES, identical

FILES = ("manifest.json", "manifest.sha256", "tensors.safetensors", "tree.json")
TREE: Tree = {
    "step": 12345,
    "rng": {"state": 2**127 + 5, "inc": -(2**64)},
    "loss": [float("nan"), float("inf"), -0.0, 0.1],
    "weights": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "mask": np.array([True, False]),
}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_a_tree_comes_back_to_the_bit_from_disk(tree: Tree, no_sync: None, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one", tree, kind="test", version=1)
    assert identical(checkpoint.load(tmp_path / "one", kind="test", version=1), tree)


def test_loaded_numbers_are_the_ones_written_down_here(tmp_path: Path) -> None:
    quiet, signalling = (
        struct.unpack(">d", bytes.fromhex(bits))[0] for bits in ("fff8000000abcdef", "7ff0000000000001")
    )
    payload = torch.tensor([0x7FC12345, 0x7F812345], dtype=torch.int32).view(torch.float32)
    tree = {"floats": [quiet, signalling, -0.0, 5e-324], "payload": payload, "big": 2**128 - 1, "huge": 10**5000}
    checkpoint.save(tmp_path / "one", tree, kind="test", version=1)
    found = checkpoint.load(tmp_path / "one")
    assert [struct.pack(">d", number).hex() for number in found["floats"]] == [
        "fff8000000abcdef", "7ff0000000000001", "8000000000000000", "0000000000000001",
    ]  # fmt: skip
    assert found["payload"].view(torch.int32).tolist() == [0x7FC12345, 0x7F812345]
    assert found["big"] == 2**128 - 1
    assert found["huge"] == 10**5000


def test_views_of_one_storage_come_back_apart(tmp_path: Path) -> None:
    base = torch.arange(8)
    parameter = torch.nn.Parameter(torch.ones(2))
    tree = {"base": base, "same": base, "part": base[2:4], "parameter": parameter, "expanded": torch.ones(1).expand(3)}
    checkpoint.save(tmp_path / "one", tree, kind="test", version=1)
    found = checkpoint.load(tmp_path / "one")
    found["base"].zero_()
    assert found["same"].tolist() == list(range(8))
    assert found["part"].tolist() == [2, 3]
    assert found["expanded"].tolist() == [1, 1, 1]
    assert type(found["parameter"]) is torch.Tensor
    assert not found["parameter"].requires_grad
    assert base.tolist() == list(range(8))


def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*one: the tree holds a set at 'a/1'"):
        checkpoint.save(tmp_path / "one", {"a": [1, {2}]}, kind="test", version=1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk: where a test stops the process and not the machine, that changes nothing."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A valid checkpoint with one external file."""
    segment = tmp_path / "replay" / "000.bin"
    segment.parent.mkdir()
    segment.write_bytes(bytes(range(256)))
    folder = checkpoint.step_folder(tmp_path / "checkpoints", 12345)
    checkpoint.save(folder, TREE, kind="run", version=3, external=[segment])
    return folder


def refusal(folder: Path, **wanted: Any) -> str:
    """The one sentence with which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder, **wanted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_is_four_plain_files_which_standard_tools_check(saved: Path) -> None:
    assert saved.name == "step_000012345"
    assert sorted(path.name for path in saved.iterdir()) == sorted(FILES)
    manifest = json.loads((saved / "manifest.json").read_text())
    assert (manifest["format"], manifest["kind"], manifest["version"]) == (1, "run", 3)
    for name, record in (manifest["files"] | manifest["external"]).items():
        raw = (saved / name).read_bytes()
        assert record == {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    assert list(manifest["external"]) == ["../../replay/000.bin"]
    digest = hashlib.sha256((saved / "manifest.json").read_bytes()).hexdigest()
    assert (saved / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"
    assert set(manifest["written_by"]) == {"presage", "torch", "numpy", "python"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0.0, 0.5, -1])
def test_a_truncated_file_is_refused(no_sync: None, saved: Path, name: str, left: float) -> None:
    size = (saved / name).stat().st_size
    os.truncate(saved / name, size - 1 if left < 0 else int(size * left))
    message = refusal(saved)
    assert str(saved) in message
    assert "damaged at" in message


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_byte_is_refused(no_sync: None, saved: Path, name: str) -> None:
    good = (saved / name).read_bytes()
    offsets = {0, 1, 7, 8, len(good) // 3, len(good) // 2, len(good) - 2, len(good) - 1}
    for offset in sorted(offsets):
        for flip in (0x01, 0x20, 0x80):
            bad = bytearray(good)
            bad[offset] ^= flip
            (saved / name).write_bytes(bad)
            message = refusal(saved)
            assert "damaged at" in message
            assert "SHA-256" in message
    (saved / name).write_bytes(good)
    assert identical(checkpoint.load(saved), TREE)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(no_sync: None, saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert name in refusal(saved)


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_external_file_is_refused_by_name(no_sync: None, saved: Path, damage: str) -> None:
    segment = saved.parent.parent / "replay" / "000.bin"
    match damage:
        case "missing":
            segment.unlink()
        case "truncated":
            os.truncate(segment, 255)
        case "flipped":
            segment.write_bytes(bytes(range(255)) + b"x")
    message = refusal(saved)
    assert "damaged at ../../replay/000.bin" in message
    assert checkpoint.latest(saved.parent) is None


def reseal(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and sign it again, as a foreign writer could."""
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  manifest.json\n")


def test_another_format_is_refused_with_the_version_to_use(saved: Path) -> None:
    reseal(saved, lambda manifest: manifest.update(format=2, written_by={"presage": "9.9"}, unknown="field"))
    assert "is in format 2, this presage reads format 1; load it with presage 9.9" in refusal(saved)


def test_another_kind_or_version_is_refused(saved: Path) -> None:
    assert "of kind 'run', expected 'learner'" in refusal(saved, kind="learner")
    assert "of version 3, expected 4" in refusal(saved, kind="run", version=4)
    assert identical(checkpoint.load(saved, kind="run", version=3), TREE)


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest.pop("kind"),
        lambda manifest: manifest.pop("format"),
        lambda manifest: manifest.update(files=[1]),
        lambda manifest: manifest["files"].pop("tree.json"),
        lambda manifest: manifest["files"].update({"../../replay/000.bin": {"bytes": 1, "sha256": ""}}),
        lambda manifest: manifest["external"].update({"a\0b": {"bytes": 1, "sha256": ""}}),
        lambda manifest: manifest["external"].update(replay={"bytes": 1}),
        lambda manifest: manifest["external"].update({".": {"bytes": 4096, "sha256": ""}}),
    ],
)
def test_a_foreign_manifest_is_refused(no_sync: None, saved: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    reseal(saved, edit)
    assert "damaged at" in refusal(saved)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        '{"$tensor":"x"}',
        '{"$what":1}',
        '{"$float":"0"}',
        '{"$dict":[1]}',
        '{"$array":{"$int":"0x1"}}',
    ],
)
def test_a_foreign_tree_is_refused(no_sync: None, saved: Path, text: str) -> None:
    (saved / "tree.json").write_text(text)
    record = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    reseal(saved, lambda manifest: manifest["files"].update({"tree.json": record}))
    assert "not written by presage" in refusal(saved)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    assert "that is a file" in refusal(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    assert "is not a checkpoint" in refusal(tmp_path / "folder")


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_save_never_replaces_what_is_no_checkpoint(tmp_path: Path, place: str) -> None:
    precious = tmp_path / "mine" if place == "file" else tmp_path / "mine" / "thesis.tex"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("precious")
    with pytest.raises(CheckpointError, match="not replaced"):
        checkpoint.save(tmp_path / "mine", TREE, kind="run", version=1)
    assert precious.read_text() == "precious"


def test_a_save_replaces_an_older_one_and_an_empty_folder(saved: Path) -> None:
    checkpoint.save(saved, {"new": 1}, kind="run", version=3)
    assert checkpoint.load(saved) == {"new": 1}
    (saved.parent / "empty").mkdir()
    checkpoint.save(saved.parent / "empty", {"new": 2}, kind="run", version=3)
    assert checkpoint.load(saved.parent / "empty") == {"new": 2}
    assert sorted(path.name for path in saved.parent.iterdir()) == ["empty", saved.name]


def test_a_disk_that_refuses_leaves_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            checkpoint.save(saved, {"new": 1}, kind="run", version=3)
    assert identical(checkpoint.load(saved), TREE)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_missing_external_file_is_refused_at_save(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"000\.bin does not exist"):
        checkpoint.save(tmp_path / "one", {}, kind="run", version=1, external=[tmp_path / "000.bin"])
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_may_move_and_be_reached_through_a_link(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for part in ("checkpoints", "replay"):
        shutil.move(tmp_path / part, tmp_path / "deep" / "er" / part)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er" / "checkpoints")
    assert identical(checkpoint.load(tmp_path / "link" / saved.name), TREE)
    segment = tmp_path / "deep" / "er" / "replay" / "000.bin"
    assert checkpoint.referenced(tmp_path / "link") == {segment.resolve()}
    checkpoint.save(tmp_path / "link" / "step_2", {}, kind="run", version=1, external=[segment])
    assert checkpoint.load(tmp_path / "deep" / "er" / "checkpoints" / "step_2") == {}


def test_an_external_file_is_read_once_per_process_unless_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    record = checkpoint._record

    def counting(path: Path) -> checkpoint.FileRecord:
        reads.append(path.name)
        return record(path)

    monkeypatch.setattr(checkpoint, "_record", counting)
    segment = tmp_path / "000.bin"
    segment.write_bytes(b"one")
    for step in range(3):
        checkpoint.save(tmp_path / f"step_{step}", {}, kind="run", version=1, external=[segment])
    assert reads.count("000.bin") == 1
    segment.write_bytes(b"three")
    checkpoint.save(tmp_path / "step_3", {}, kind="run", version=1, external=[segment])
    assert reads.count("000.bin") == 2
    assert checkpoint.load(tmp_path / "step_3") == {}
    assert "damaged at ../000.bin" in refusal(tmp_path / "step_2")


def fill(folder: Path, *steps: int) -> None:
    """Checkpoints that each list one external file of their own and one in common."""
    for step in steps:
        segments = [folder / "replay" / name for name in ("common", f"own_{step}")]
        segments[0].parent.mkdir(exist_ok=True)
        for segment in segments:
            if not segment.exists():
                segment.write_text(segment.name)
        checkpoint.save(checkpoint.step_folder(folder, step), {"step": step}, kind="run", version=1, external=segments)


def test_latest_is_the_newest_that_verifies(no_sync: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoint.latest(tmp_path / "nothing") is None
    fill(tmp_path, 5, 999_999_999, 1_000_000_000)
    (tmp_path / "step_none").mkdir()
    (tmp_path / "step_2000000000").mkdir()
    assert checkpoint.latest(tmp_path) == tmp_path / "step_1000000000"
    assert "step_2000000000 is not a checkpoint" in caplog.text
    raw = bytearray((tmp_path / "step_1000000000" / "tree.json").read_bytes())
    raw[-2] ^= 1
    (tmp_path / "step_1000000000" / "tree.json").write_bytes(raw)
    assert checkpoint.latest(tmp_path) == tmp_path / "step_999999999"
    (tmp_path / "replay" / "own_999999999").unlink()
    assert checkpoint.latest(tmp_path) == tmp_path / "step_000000005"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 3)])
def test_prune_keeps_the_newest_complete_ones_and_their_external_files(
    damage: Callable[[Path], None], no_sync: None, tmp_path: Path
) -> None:
    fill(tmp_path, 1, 2, 3, 4, 5)
    damage(tmp_path / "step_000000004" / "tensors.safetensors")
    deleted = checkpoint.prune(tmp_path, keep=2)
    assert [path.name for path in deleted] == ["step_000000002", "step_000000001"]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["replay", "step_000000003", "step_000000004", "step_000000005"]
    named = {(tmp_path / "replay" / name).resolve() for name in ("common", "own_3", "own_4", "own_5")}
    assert checkpoint.referenced(tmp_path) == named
    assert checkpoint.prune(tmp_path, keep=2) == []
    with pytest.raises(CheckpointError, match="keep=0"):
        checkpoint.prune(tmp_path, keep=0)


SAVING_IN_A_LOOP = """
import itertools, os, sys
from pathlib import Path
import torch
from presage.common import checkpoint
torch.set_num_threads(1)
folder = Path(sys.argv[1])
for line in sys.stdin:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        print("dead", flush=True)
        continue
    print(os.getpid(), flush=True)
    for step in itertools.count(int(line)):
        tree = {"step": step, "weights": torch.full((20_000,), step)}
        checkpoint.save(folder / "best", tree, kind="policy", version=1)
        checkpoint.save(checkpoint.step_folder(folder, step), tree, kind="run", version=1)
        checkpoint.prune(folder)
        print(step, flush=True)
"""


def test_a_process_killed_at_random_times_always_leaves_a_folder_that_loads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arguments = [sys.executable, "-c", SAVING_IN_A_LOOP, str(tmp_path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None
        step = 0
        for _ in range(10):
            requests.write(f"{step}\n")
            victim = int(answers.readline())
            reached = [int(answers.readline())]
            time.sleep(float(rng.uniform(0.0, 0.05)))
            os.kill(victim, signal.SIGKILL)
            reached += [int(line) for line in iter(answers.readline, "dead\n")]
            best = checkpoint.load(tmp_path / "best")
            newest = checkpoint.latest(tmp_path)
            assert newest is not None
            run = checkpoint.load(newest)
            assert best["step"] - run["step"] in (0, 1)
            assert run["step"] - max(reached) in (0, 1)
            for tree in (best, run):
                assert torch.equal(tree["weights"], torch.full((20_000,), tree["step"]))
            step = max(reached) + 1
        requests.close()
    checkpoint.save(tmp_path / "best", {}, kind="policy", version=1)
    fill(tmp_path, 10**6)
    assert not list(tmp_path.glob(".*"))
