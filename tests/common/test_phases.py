import pytest

from presage.common.phases import PHASES, PhaseClock


def test_seconds_go_to_the_phase_they_were_spent_in() -> None:
    now, heard = [0.0], list[str]()
    clock = PhaseClock(heard.append, clock=lambda: now[0])
    for phase, seconds in (("collection", 1.0), ("fit", 5.0), ("update", 0.5), ("collection", 2.0), ("update", 0.25)):
        clock(phase)
        now[0] += seconds
    assert heard == ["collection", "fit", "update", "collection", "update"]
    found = clock.metrics(env_steps=35)
    assert found == {f"time/{phase}": 0.0 for phase in PHASES} | {
        "time/collection": 3.0, "time/fit": 5.0, "time/update": 0.75, "time/fps": 4.0,
    }  # fmt: skip
    now[0] += 2.0  # still updating
    assert clock.metrics(env_steps=1) == {f"time/{phase}": 0.0 for phase in PHASES} | {
        "time/update": 2.0, "time/fps": 0.5,
    }  # fmt: skip


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match="phase='sleep' must be one of collection"):
        PhaseClock()("sleep")
