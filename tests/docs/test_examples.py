"""The examples run as a user's own files would: from the installed package, in a folder with a `common` and an `envs`
of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
FILES = sorted(path.name for path in EXAMPLES.glob("*.py"))
PEER = "stable_baselines3"
OWN = "raise ImportError(\"the user's own folder was imported in place of presage's\")\n"


def peer() -> Path | None:
    """Where Stable-Baselines3 lies: here, or in the environment that `make peers` builds for it."""
    spec = importlib.util.find_spec(PEER)
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0])
    return next((ROOT / ".peers" / "sb3").glob(f"lib/python*/site-packages/{PEER}"), None)


def test_there_is_an_example_for_every_loop() -> None:
    guide = (ROOT / "docs" / "opponents.md").read_text(encoding="utf-8")
    assert len(FILES) == 4
    assert all(f"(examples/{name})" in guide for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_an_example_ends_in_a_judged_model(name: str, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / name, tmp_path)
    for folder in ("common", "envs", "marl", "scenarios"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(OWN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    if PEER in (EXAMPLES / name).read_text(encoding="utf-8"):
        found = peer()
        if found is None:
            pytest.skip("Stable-Baselines3 is neither installed nor in .peers/sb3: make peers")
        beside = tmp_path / "peer"  # that package alone; whatever it needs is here already
        beside.mkdir()
        (beside / PEER).symlink_to(found)
        environment["PYTHONPATH"] = str(beside)
    command = [sys.executable, name]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, *lines = (line.split() for line in done.stdout.splitlines())
    assert head[:3] == ["ego", "agent", "nll"]
    assert len({line[1] for line in lines}) == len(lines) >= 2
    assert all(line[0] == "agent_0" and float(line[2]) < 1.6 for line in lines), done.stdout  # ln 5 is 1.609
