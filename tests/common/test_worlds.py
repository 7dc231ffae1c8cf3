"""What a learned world hands to its fitter, and that a given one fits nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import Rows, Window
from presage.common.replay import Replay
from presage.common.worlds import GivenWorld, LearnedWorld
from tests.common.toy import PLAIN, LinearGame, assert_same_rows, generator, random_rows

TINY = EnsembleConfig(members=2, elites=1, hidden=(8,), outcome_hidden=(8,))


def played(game: LinearGame, steps: int, capacity: int) -> tuple[Replay, list[Rows]]:
    replay, rng = Replay(game.spec, capacity, game.copies), generator(0)
    view, made = game.reset(1), []
    for _ in range(steps):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        replay.extend(rows)
        made.append(rows)
    return replay, made


class Spy:
    """Stands in for the fitter's `fit` and keeps what it was given."""

    def __init__(self) -> None:
        self.rows: Rows | None = None
        self.options: dict[str, Any] = {}

    def __call__(self, rows: Rows, rng: torch.Generator, **options: Any) -> Spy:
        self.rows, self.options = rows, options
        return self

    def metrics(self) -> dict[str, float]:
        return {"rmse": 0.5}


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(("steps", "capacity"), [(30, 200), (30, 40)], ids=["all held", "some forgotten"])
def test_rows_are_given_by_time_then_lane_with_their_place_in_history(
    frames: int, steps: int, capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(PLAIN, frames=frames)
    replay, made = played(LinearGame(spec, copies=2, limit=7), steps, capacity)
    world = LearnedWorld(DynamicsEnsemble(spec, TINY, generator(0)), FitConfig(), generator(1))
    spy = Spy()
    monkeypatch.setattr(world.fitter, "fit", spy)
    assert world.fit(replay, generator(2)) == {"model/rmse": 0.5}

    first = max(0, steps - capacity // 2)
    wanted = Rows(**{name: torch.cat([getattr(rows, name) for rows in made[first:]]) for name in vars(made[0])})
    assert spy.rows is not None
    assert_same_rows(spy.rows, wanted)
    assert (spy.options["lanes"], spy.options["first"]) == (2, first)
    window = spy.options["window"]
    if frames == 1:
        assert window is None
    else:
        assert isinstance(window, Window)
        assert window.obs.shape == (len(wanted), frames, spec.obs_dim)
        assert torch.equal(window.now.obs, wanted.obs)


def test_members_without_noise_have_no_distance_in_probability() -> None:
    replay, _ = played(LinearGame(PLAIN, copies=2), 30, 200)
    rows, window = replay.rows(replay.complete()[0]), replay.window(replay.complete()[0], 1)
    for config, known in ((replace(TINY, elites=2), True), (replace(TINY, elites=2, noise="none"), False)):
        world = LearnedWorld(DynamicsEnsemble(PLAIN, config, generator(0)), FitConfig(), generator(1))
        assert (world.doubt(window, rows.act) is not None) == known


def test_lanes_out_of_step_give_the_rows_that_all_of_them_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    replay, rows = Replay(PLAIN, 20, 2), random_rows(PLAIN, 11, generator(3))
    replay.extend(rows, torch.tensor([0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0]))
    world = LearnedWorld(DynamicsEnsemble(PLAIN, TINY, generator(0)), FitConfig(), generator(1))
    spy = Spy()
    monkeypatch.setattr(world.fitter, "fit", spy)
    world.fit(replay, generator(2))
    assert spy.rows is not None
    assert_same_rows(spy.rows, rows[torch.tensor([0, 1, 2, 3, 4, 8])])


def test_it_fits_as_the_fitter_does_on_its_own() -> None:
    replay, made = played(LinearGame(PLAIN, copies=2, limit=7), 40, 200)
    config = FitConfig(max_updates=20, evaluate_every=10, batch_size=16, holdout_stretch=3)
    one, two = (DynamicsEnsemble(PLAIN, TINY, generator(0)) for _ in range(2))
    found = LearnedWorld(one, config, generator(1)).fit(replay, generator(2))
    rows = Rows(**{name: torch.cat([getattr(rows, name) for rows in made]) for name in vars(made[0])})
    report = EnsembleFitter(two, config, generator(1)).fit(rows, generator(2), lanes=2)
    assert found == {f"model/{name}": value for name, value in report.metrics().items()}
    for mine, other in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_given_world_is_its_kernel_and_fits_nothing() -> None:
    ensemble = DynamicsEnsemble(PLAIN, TINY, generator(0))
    kernel = LearnedWorld(ensemble, FitConfig(), generator(1)).kernel
    world = GivenWorld(kernel)
    before = [value.detach().clone() for value in ensemble.parameters()]
    assert world.kernel is kernel
    assert world.fit(Replay(PLAIN, 4, 1), generator(0)) == {}
    assert all(torch.equal(old, new) for old, new in zip(before, ensemble.parameters(), strict=True))
