from __future__ import annotations

import pytest

from presage.marl.opponents.annealing import Annealing


def test_annealing_falls_to_its_end() -> None:
    released = Annealing(end=0.1, extra=500.0)
    assert released.at(0) == 500.1
    assert released.at(90) == pytest.approx(0.1617, abs=1e-4)
    late = Annealing(end=1.0, extra=2.0, rate=0.5, wait=4)
    assert [late.at(k) for k in (0, 4)] == [3.0, 3.0]
    assert late.at(6) == pytest.approx(1 + 2 / 2.718281828)
    assert Annealing(end=0.3).at(10**6) == 0.3
    with pytest.raises(ValueError, match=r"end=-1, extra=0.0 and wait=0 must be >= 0 and rate=0\.1 > 0"):
        Annealing(end=-1)
    with pytest.raises(ValueError, match="rate=0 > 0"):
        Annealing(end=1.0, rate=0)
