import io

import pytest

from presage.common.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_away_from_a_terminal_each_evaluation_is_one_line() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(20_000, stream=stream, clock=clock)
    clock.seconds = 10.0
    progress.update(3_000)
    assert stream.getvalue() == ""
    progress.evaluated(5_000, -12.345)
    progress.close()
    assert stream.getvalue() == "5,000/20,000 env steps  return -12.35  500 env steps/s  00:30 left\n"


def test_steps_of_the_run_that_is_resumed_count_in_no_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(20_000, done=10_000, stream=stream, clock=clock)
    clock.seconds = 10.0
    progress.evaluated(15_000, 1.0)
    assert "500 env steps/s  00:10 left" in stream.getvalue()


def test_before_the_first_step_the_time_left_is_unknown() -> None:
    stream = io.StringIO()
    Progress(100, stream=stream, clock=Clock()).evaluated(0, 1.0)
    assert stream.getvalue() == "0/100 env steps  return 1.00  0 env steps/s  ? left\n"


def test_on_a_terminal_there_is_a_bar_with_the_return() -> None:
    stream = Terminal()
    progress = Progress(1_000, done=100, stream=stream)
    progress.evaluated(600, -3.5)
    progress.close()
    assert "600/1000" in stream.getvalue()
    assert "return -3.50" in stream.getvalue()
    assert "env steps/s" in stream.getvalue()


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="done=101"):
        Progress(100, done=101)
    with pytest.raises(ValueError, match="total be > 0"):
        Progress(0)
    progress = Progress(100, stream=io.StringIO())
    progress.update(50)
    with pytest.raises(ValueError, match="env_steps=49 goes back behind 50"):
        progress.update(49)
