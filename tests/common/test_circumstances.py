from pathlib import Path

import pytest
import torch

from presage.common import circumstances
from presage.common.circumstances import Circumstances, CircumstancesError, digest, installed, source_folders

HERE = Circumstances(device="cpu", threads=1, copies=1, versions={"torch": "2.0", "numpy": "2"})


@pytest.mark.parametrize("versions", [{"torch": "1.0", "numpy": "2"}, {"numpy": "2"}])
def test_versions_that_differ_are_named(versions: dict[str, str]) -> None:
    saved = Circumstances(device="cpu", threads=1, copies=1, versions=versions)
    wanted = f"torch {versions.get('torch', 'none')} (here 2.0)"
    with pytest.raises(CircumstancesError) as refused:
        saved.check(HERE)
    assert wanted in str(refused.value)
    assert "numpy" not in str(refused.value)
    assert saved.check(HERE, anyway=True) == [wanted]


def test_equal_circumstances_are_accepted_also_after_a_trip_through_plain_data() -> None:
    here = Circumstances.here(torch.device("cpu"), 4)
    assert Circumstances(**here.to_plain()).check(here) == []
    assert here.versions["torch"] == str(torch.__version__)


@pytest.mark.parametrize(("device", "copies"), [("cuda", 1), ("cpu", 2)])
def test_device_and_copies_never_change(device: str, copies: int) -> None:
    saved = Circumstances(device=device, threads=1, copies=copies, versions=HERE.versions)
    with pytest.raises(CircumstancesError, match=rf"made on {device} with {copies} copies"):
        saved.check(HERE, anyway=True)


def test_the_source_is_told_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "inner" / "b.py").write_text("y = 1\n")
    first = digest([tmp_path])
    (tmp_path / "notes.txt").write_text("not code")
    assert digest([tmp_path]) == first
    assert len(first) == 12
    (tmp_path / "inner" / "b.py").write_text("y = 2\n")
    second = digest([tmp_path])
    (tmp_path / "inner" / "b.py").rename(tmp_path / "inner" / "c.py")
    assert len({first, second, digest([tmp_path])}) == 3


def test_presage_s_own_source_is_part_of_the_versions() -> None:
    assert Path(circumstances.__file__).parent in source_folders()
    assert [folder.name for folder in source_folders()] == ["common", "envs", "marl", "gcrl"]
    assert len(installed(())["source"]) == 12
