from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from presage.common.configuration import ConfigError
from presage.common.dyna import Dyna
from presage.common.game import GameSpec, Kernel
from presage.common.scenario import (
    CONFIG_FILE,
    GameConfig,
    read_scenario,
    scenario_from_plain,
    scenario_to_plain,
    write_scenario,
)
from presage.common.streams import Streams
from tests.common.tiny_runs import AORPO, MBPO, MODEL_FREE, MPE, scenario


@dataclass(frozen=True, kw_only=True)
class Homemade:
    size: int = 3

    def build(self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None) -> Dyna:
        raise NotImplementedError


@pytest.mark.parametrize(("method", "name"), [(AORPO, "aorpo"), (MBPO, "mbpo"), (MODEL_FREE, "masac")])
def test_a_scenario_survives_its_file(tmp_path: Path, method: Any, name: str) -> None:
    written = scenario(method, MPE, threads=2, reference="greedy_spread")
    write_scenario(tmp_path, written)
    assert read_scenario(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_FILE]
    data = yaml.safe_load((tmp_path / CONFIG_FILE).read_text())
    assert data["method"]["class"] == name
    assert written.algorithm == name
    assert replace(written, label="ours").algorithm == "ours"


def test_a_method_without_a_name_is_read_with_its_class() -> None:
    written = scenario(Homemade(size=4))
    data = scenario_to_plain(written)
    assert scenario_from_plain(data, Homemade) == written
    assert written.algorithm == "Homemade"
    with pytest.raises(ConfigError, match="not installed under a name; hand its class over: method=Homemade"):
        scenario_from_plain(data)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps=0 must be >= 1"),
        ({"evaluate_every": 0}, "evaluate_every=0"),
        ({"checkpoint_every": -1}, "checkpoint_every=-1"),
        ({"threads": 0}, "threads=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 7, "evaluation_seed": 7}, "seed=7 is the evaluation_seed too"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        scenario(**change)


@pytest.mark.parametrize(("copies", "workers"), [(0, 0), (2, 3), (2, -1)])
def test_impossible_copies_are_refused(copies: int, workers: int) -> None:
    with pytest.raises(ConfigError, match=f"{copies if copies < 1 else workers}"):
        GameConfig(copies=copies, workers=workers)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [", "is not YAML"),
        ("just text", "must be a mapping whose `method` names its `class`"),
        ("method: {class: aorpo, loop: {batch_sze: 3}}", "method.loop.batch_sze is no setting of DynaConfig; did you"),
        ("method: {class: aropo}", "no method is called 'aropo'; did you mean 'aorpo'"),
        ("name: x\nstep: 5\nmethod: {class: aorpo}", "step is no setting of Scenario; did you mean 'steps'"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_its_fault(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(ConfigError, match=f"config.yaml.*{sentence}"):
        read_scenario(tmp_path)


def test_tasks_differ_by_their_options() -> None:
    assert MPE.environment == "mpe"
    assert MPE.task == "simple_spread_v3 (N=2, max_cycles=5)"
    assert GameConfig(name="gym/Pendulum-v1").task == "Pendulum-v1"
    assert GameConfig().task == "own"
