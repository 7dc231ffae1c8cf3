"""One game of every family goes on where it was saved; the benchmark tries all of them."""

import pytest

from benchmarks.resume_games import resumes

FAMILIES = (
    "particle/spread", "particle/scheduling", "toy/maze", "mpe/simple_speaker_listener_v4", "sisl/pursuit",
    "butterfly/knights_archers_zombies", "classic/leduc_holdem", "mamujoco/Ant-2x4", "fetch/push", "hand/reach",
    "maze/point-umaze", "gym/Pendulum-v1",
)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_game_goes_on_as_if_nothing_had_been(name: str) -> None:
    assert resumes(name) == "exact"
