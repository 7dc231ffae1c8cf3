from pathlib import Path

import pytest
import torch

from presage.common.circumstances import Circumstances
from presage.common.game import Rows, View
from presage.common.parts import Parts
from presage.common.replay import Replay
from presage.common.run_folder import RunError, RunFolder, require_empty
from presage.common.scenario import CONFIG_FILE, DRAFT
from tests.common.tiny_runs import PARTICLE, scenario


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", scenario())


def filled(rows: int) -> Replay:
    """Rows whose first observation counts them, in blocks of two."""
    spec = Parts.of(scenario()).training_game(PARTICLE).spec
    replay = Replay(spec, 8, 1, block_rows=2)
    obs = torch.zeros(rows, spec.obs_dim)
    obs[:, 0] = torch.arange(rows)
    view = View.of(spec, obs)
    flags = torch.zeros(rows, spec.n, dtype=torch.bool)
    step = torch.zeros(rows)
    replay.extend(
        Rows.of(spec, view, torch.zeros(rows, spec.act_dim), torch.zeros(rows, spec.n), view, flags, flags[:, 0], step)
    )
    return replay


def blocks(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in (folder.replay / "real").iterdir())


def test_what_is_saved_comes_back(folder: RunFolder) -> None:
    folder.save(5, {"env_steps": 5}, {"real": filled(6)}, keep=1)
    tree = folder.newest()
    assert tree is not None
    assert tree["env_steps"] == 5
    back = filled(0)
    folder.load_replays(tree, {"real": back})
    assert back.rows(back.all()).obs[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_blocks_live_as_long_as_a_kept_checkpoint_lists_them(folder: RunFolder) -> None:
    replay, more = filled(3), filled(1)
    folder.save(1, {}, {"real": replay}, keep=2)
    first = blocks(folder)
    assert len(first) == 2
    (folder.replay / "real" / ".block_9.partial").write_text("left by a kill")
    replay.extend(more.rows(more.all()))
    folder.save(2, {}, {"real": replay}, keep=2)
    second = blocks(folder)
    assert set(first) < set(second)
    assert len(second) == 3
    replay.extend(more.rows(more.all()))
    folder.save(3, {}, {"real": replay}, keep=2)
    # the first checkpoint is gone, and with it the half block that only it listed
    assert set(first) - set(blocks(folder)) == {first[1]}
    assert len(blocks(folder)) == 3
    assert folder.newest() is not None


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere is no run folder: it does not exist"):
        RunFolder(tmp_path / "nowhere")
    with pytest.raises(RunError, match=f"it has no {CONFIG_FILE}"):
        RunFolder(tmp_path)


def test_only_an_empty_place_takes_a_new_run(tmp_path: Path, folder: RunFolder) -> None:
    require_empty(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / DRAFT).write_text("killed before it began")
    require_empty(tmp_path / "empty")
    with pytest.raises(RunError, match=r"not empty \(resume it with: presage resume"):
        require_empty(folder.path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        require_empty(tmp_path / "file")
    with pytest.raises(RunError, match="holds other files"):
        require_empty(tmp_path)


def test_a_run_without_checkpoints_has_no_newest(folder: RunFolder) -> None:
    assert folder.newest() is None
    assert not folder.has_checkpoints


def test_the_lock_ends_with_its_block(folder: RunFolder) -> None:
    for _ in range(2):
        with folder.locked(), pytest.raises(RunError, match="another process is training"), folder.locked():
            pass


def test_sittings_add_up(folder: RunFolder) -> None:
    here = Circumstances.here(torch.device("cpu"), 4)
    folder.add_sitting(here, 0, "presage train tiny", [])
    folder.add_sitting(here, 40, "presage resume run", ["threads 1 (here 2)"])
    text = (folder.path / "sittings.yaml").read_text()
    assert text.index("presage train tiny") < text.index("from_env_step: 40") < text.index("threads 1 (here 2)")
