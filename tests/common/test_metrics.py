import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # ships no types
    EventAccumulator,
)
from tensorboard.summary.writer import event_file_writer  # type: ignore[import-untyped]  # ships no types

from presage.common.metrics import EVENTS_FOLDER, METRICS_FILE, MetricLog, read_metrics, series, without_times


@pytest.fixture(autouse=True)
def _the_count_of_files_gets_a_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads files by name, the second first and the process's count last: 10 would come before 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(env steps, value) of every scalar that TensorBoard would show."""
    found = EventAccumulator(str(folder / EVENTS_FOLDER))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def write(log: MetricLog, first: int, last: int) -> None:
    for step in range(first, last):
        log.write(100 * step, {"train/loss": 0.5**step, "time/fps": float(step)})


def test_a_line_is_json_and_reads_back_bit_for_bit(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        log.write(5, {"train/loss": torch.tensor(0.1), "eval/mean_reward/agent_0": np.float64(1 / 3), "model/nll": 2})
    line = json.loads((tmp_path / METRICS_FILE).read_text())
    assert line == {
        "env_steps": 5, "train/loss": float(torch.tensor(0.1)), "eval/mean_reward/agent_0": 1 / 3, "model/nll": 2.0,
    }  # fmt: skip
    assert read_metrics(tmp_path / METRICS_FILE) == [line]


def test_events_carry_the_same_numbers(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        write(log, 1, 4)
    assert events(tmp_path, "train/loss") == [(100, 0.5), (200, 0.25), (300, 0.125)]


def test_a_resumed_log_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with MetricLog(whole) as log:
        write(log, 0, 8)
    with MetricLog(cut) as log:
        write(log, 0, 5)
        position = log.position()
        write(log, 5, 7)  # past the checkpoint, then killed
    with (cut / METRICS_FILE).open("ab") as file:
        file.write(b'{"env_steps": 700, "train/lo')
    with MetricLog(cut, position=position) as log:
        assert len(read_metrics(cut / METRICS_FILE)) == 5
        write(log, 5, 8)
    assert (cut / METRICS_FILE).read_bytes() == (whole / METRICS_FILE).read_bytes()
    assert events(cut, "train/loss") == events(whole, "train/loss")


def test_truncating_an_open_log_goes_on_from_there(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        write(log, 0, 2)
        position = log.position()
        write(log, 2, 5)
        log.truncate(position)
        assert log.position() == position
        log.write(150, {"train/loss": 7.0})
    assert series(read_metrics(tmp_path / METRICS_FILE), "train/loss")[0].tolist() == [0, 100, 150]
    assert events(tmp_path, "train/loss") == [(0, 1.0), (100, 0.5), (150, 7.0)]


def test_truncating_to_nothing_starts_over(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        write(log, 0, 3)
    with MetricLog(tmp_path, position=0) as log:
        log.write(10, {"train/loss": 3.0})
    assert read_metrics(tmp_path / METRICS_FILE) == [{"env_steps": 10, "train/loss": 3.0}]
    assert events(tmp_path, "train/loss") == [(10, 3.0)]


def test_a_new_run_does_not_write_into_an_old_one(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        write(log, 0, 1)
    with pytest.raises(FileExistsError, match="resume that run, or choose another folder"):
        MetricLog(tmp_path, tensorboard=False)


def test_a_position_that_does_not_fit_the_file_is_refused(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        write(log, 0, 2)
        position = log.position()
        with pytest.raises(ValueError, match=f"has {position} bytes and cannot be cut at {position + 1}"):
            log.truncate(position + 1)
        with pytest.raises(ValueError, match=f"no end of a line at byte {position - 1}"):
            log.truncate(position - 1)


def test_numbers_that_are_not_finite_become_null_and_warn_once_per_tag(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        with pytest.warns(RuntimeWarning, match="train/loss is nan at env step 1"):
            log.write(1, {"train/loss": math.nan, "train/entropy": 1.0})
        log.write(2, {"train/loss": math.nan})  # a second warning would be an error here
        with pytest.warns(RuntimeWarning, match="train/entropy is inf"):
            log.write(3, {"train/entropy": math.inf})
    assert '"train/loss": null' in (tmp_path / METRICS_FILE).read_text().splitlines()[0]
    steps, values = series(read_metrics(tmp_path / METRICS_FILE), "train/loss")
    assert steps.tolist() == [1, 2]
    assert np.isnan(values).all()
    assert math.isnan(events(tmp_path, "train/loss")[0][1])


@pytest.mark.parametrize("tag", ["loss", "Train/loss", "train/", "train/a b", "/loss"])
def test_tags_need_a_family(tmp_path: Path, tag: str) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log, pytest.raises(ValueError, match="family/name"):
        log.write(0, {tag: 1.0})


def test_values_must_be_one_number(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        for value in (torch.zeros(2), np.zeros(2), "high", None):
            with pytest.raises(TypeError, match="train/loss takes one number"):
                log.write(0, {"train/loss": value})
    assert read_metrics(tmp_path / METRICS_FILE) == []


def test_env_steps_never_go_back(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        log.write(10, {"train/loss": 1.0})
        log.write(10, {"eval/mean_reward": 1.0})
        with pytest.raises(ValueError, match="env_steps=9 goes back behind 10"):
            log.write(9, {"train/loss": 1.0})
        position = log.position()
    resumed = MetricLog(tmp_path, position=position, tensorboard=False)
    with resumed, pytest.raises(ValueError, match="env_steps=9 goes back behind 10"):
        resumed.write(9, {"train/loss": 1.0})


@pytest.mark.parametrize("bad", ["[1, 2]", '{"train/loss": 1.0}', "nonsense"])
def test_a_broken_line_that_is_not_the_last_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / METRICS_FILE
    path.write_text('{"env_steps": 0}\n' + bad + '\n{"env_steps": 2}\n')
    with pytest.raises(ValueError, match="line 2, is not a record"):
        read_metrics(path)


def test_without_times_drops_that_family_alone(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        log.write(3, {"time/fps": 9.0, "train/time_constant": 2.0})
    assert without_times(read_metrics(tmp_path / METRICS_FILE)) == [{"env_steps": 3, "train/time_constant": 2.0}]


def test_series_of_an_unknown_tag_is_empty() -> None:
    steps, values = series([{"env_steps": 1, "train/loss": 2.0}], "train/entropy")
    assert steps.shape == values.shape == (0,)
