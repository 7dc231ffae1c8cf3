"""Studies of goals: what can be run when, which ratio an arm is measured at, and what a finished study says."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import long_runs
from benchmarks.goal_curves import TUNING_SEED, Arm, Job, Study, changed, named
from benchmarks.long_runs import Curve, Curves
from presage.common import plugins


@dataclass(frozen=True)
class Held(Curves):
    """Finished runs that lie in memory."""

    runs: dict[str, Curve] = field(default_factory=dict)

    def read(self) -> dict[str, Curve]:
        return self.runs


def curve(*success: float, returns: float = 0.0) -> Curve:
    steps = list(range(0, 100 * len(success), 100))
    return {"env_steps": steps, "success_rate": list(success), "returns": [returns] * len(success)}


def study(runs: dict[str, Curve]) -> Study:
    return Study(
        name="world", kept=Held("nothing", runs), evaluate_every=100, ratios=(1.0, 5.0), seeds=(0, 1),
        arms={"A": Arm(scenario="world_her", steps=400),
              "B, other": Arm(
                  scenario="world_mapgo", steps=200, changes={"relabelling.source": "hindsight"}, borrows="A")},
    )  # fmt: skip


SWEEP = {f"world/A/1/{TUNING_SEED}": curve(0.0, 0.5), f"world/A/5/{TUNING_SEED}": curve(0.0, 0.5, returns=1.0)}


def test_arms_are_swept_before_they_are_measured() -> None:
    assert [job.key for job in study({}).jobs()] == list(SWEEP)
    assert study({}).chosen("A") is None
    done = study(SWEEP)
    assert [done.chosen(arm) for arm in done.arms] == [5.0, 5.0]  # as successful, and better paid
    assert study({key: curve(0.0, 0.5) for key in SWEEP}).chosen("A") == 5.0  # of equals the one with most updates
    assert [job.key for job in done.jobs()][2:] == [
        f"world/{arm}/5/{seed}" for seed in (0, 1) for arm in ("A", "B, other")
    ]
    assert pickle.loads(pickle.dumps(done.jobs()[0])) == done.jobs()[0]


def test_success_is_told_of_finished_studies_alone() -> None:
    runs = {f"world/{arm}/5/{seed}": curve(0.0, 1.0 - 0.5 * seed) for arm in ("A", "B, other") for seed in (0, 1)}
    with pytest.raises(SystemExit, match="world, B, other, lacks finished runs"):
        study({key: run for key, run in (SWEEP | runs).items() if key != "world/B, other/5/1"}).curves()
    done = study(SWEEP | runs)
    figures = done.figures(done.curves(), np.random.default_rng(0))
    assert figures["world_b_other_success"] == 0.75
    assert figures["world_a_updates_per_step"] == 5.0
    assert figures["world_a_success_low"] <= 0.75 <= figures["world_a_success_high"]


def test_a_field_is_changed_wherever_it_lies() -> None:
    method = plugins.load("scenario", "world_mapgo").method
    found = changed(method, ["loop", "updates_per_step"], 9.0)
    assert found == replace(method, loop=replace(method.loop, updates_per_step=9.0))
    assert changed(method, ["model"], "true") == replace(method, model="true")
    assert named("MapGo, perfect model") == "mapgo_perfect_model"


def test_the_first_seeds_run_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_runs, "ROOT", tmp_path)
    short = Study(
        name="navigation", kept=Curves("drawn"), evaluate_every=20, ratios=(1.0,), seeds=(0, 1), episodes=2,
        arms={"A": Arm(scenario="goal_navigation_aorpo_plain", steps=40)}, ratio="aorpo.loop.updates_per_step",
    )  # fmt: skip
    for seed in short.seeds:
        found = Job(study=short, arm="A", ratio=1.0, seed=seed).run()
        assert found["env_steps"] == [0, 20, 40]
        assert len(found["success_rate"]) == 3
        assert {path.name for path in tmp_path.rglob("goals/*/*")} == {"goals.json", "goals.png", "episode.gif"}
        assert [path.name for path in tmp_path.glob("benchmarks/results/goals/*")] == ["navigation_a"]
