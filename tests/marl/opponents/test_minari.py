"""Minari's own datasets, made here: episodes come as they were written, by id and by folder. Skipped without Minari."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from presage.common.cli import main
from presage.common.game import GameError
from presage.marl.opponents.record import Record
from presage.marl.opponents.sources import from_minari

minari: Any = pytest.importorskip("minari", reason="an extra: pip install presage[minari]")
pytest.importorskip("h5py", reason="Minari's datasets are HDF5")
EpisodeBuffer: Any = importlib.import_module("minari.data_collector").EpisodeBuffer

ID = "tests/walk-v0"
SEEN = spaces.Dict({"place": spaces.Box(-10, 10, (2,), dtype=np.float32), "light": spaces.Discrete(3)})


def walk(rng: np.random.Generator) -> tuple[Any, list[int]]:
    """Seven observations and six actions: right where the light is 1, and left otherwise."""
    lights = rng.integers(3, size=7)
    actions = [int(light == 1) for light in lights[:-1]]
    places = np.stack([np.cumsum([0, *(2 * action - 1 for action in actions)]), np.arange(7) / 2], 1)
    return {"place": places.astype(np.float32), "light": lights}, actions


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Any, list[int]]]]:
    """The folder of a dataset of 12 walks, and the walks."""
    home, rng = tmp_path_factory.mktemp("minari"), np.random.default_rng(0)
    walks = [walk(rng) for _ in range(12)]
    buffers = [
        EpisodeBuffer(
            observations=seen, actions=np.array(done), rewards=[0.0] * 6, terminations=[False] * 6,
            truncations=[False] * 5 + [True], infos={},
        )
        for seen, done in walks
    ]  # fmt: skip
    # Minari warns of datasets that name no environment
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch.setenv("MINARI_DATASETS_PATH", str(home))
        minari.create_dataset_from_buffers(
            ID, buffers, observation_space=SEEN, action_space=spaces.Discrete(2), algorithm_name="by the light",
            author="tests", author_email="none", code_permalink="none", description="walks",
        )  # fmt: skip
    return home / ID, walks


@pytest.fixture(autouse=True)
def here(written: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(written[0].parents[1]))
    monkeypatch.chdir(tmp_path)


def test_episodes_come_as_they_were_written(written: tuple[Path, list[tuple[Any, list[int]]]]) -> None:
    folder, walks = written
    wanted = Record.of(minari.load_dataset(ID))
    for seen, done in walks:
        for t, action in enumerate(done):
            shown = {"place": seen["place"][t], "light": seen["light"][t]}
            wanted.add({"agent": shown}, {"agent": action}, over=t == 5)
    for source in (ID, folder, folder / "data", minari.load_dataset(ID)):
        record = from_minari(source)
        assert record.step.tolist() == [*range(6)] * 12
        np.testing.assert_array_equal(record.moments().view.obs.numpy(), wanted.moments().view.obs.numpy())
        np.testing.assert_array_equal(record.moments().act.numpy(), wanted.moments().act.numpy())


@pytest.mark.parametrize("name", ["id", "folder"])
def test_the_agent_of_a_dataset_is_judged(
    name: str, written: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    source = ID if name == "id" else str(written[0])
    numbers = ["--model.hidden", "16", "--model.learning-rate", "0.01", "--model.patience", "300"]
    assert main(["opponents", "fit", source, "--out", "model", *numbers]) == 0
    _, head, line, _ = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["agent", "agent"]
    found = dict(zip(head.split(), line.split(), strict=True))
    assert float(found["nll"]) < 0.1, "the light says all; knowing nothing is ln 2 = 0.693"
    assert found["accuracy"] == "1.000"
    assert main(["opponents", "evaluate", "model", source]) == 0
    assert "was fitted to most of these moments" in capsys.readouterr().err


def test_what_is_no_dataset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GameError, match=r"'tests/run-v0' is no run, no file and no Minari dataset here; .*download"):
        from_minari("tests/run-v0")
    with pytest.raises(GameError, match="'what is this' is no run, no file and no Minari dataset here"):
        from_minari("what is this")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.json").write_text("{}")
    with pytest.raises(GameError, match=r"the Minari dataset in .* cannot be read"):
        from_minari(tmp_path)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(GameError, match=r'needs minari: pip install "presage\[minari\]"'):
        from_minari(ID)
