"""Env steps to success: MapGo beside hindsight, by `benchmarks.goal_curves`.

In the 2D world also: foresight without imagined rows, imagined rows with hindsight for the real ones, branches without
hindsight of their own (as published), and the world itself in place of a learned one.
"""

from __future__ import annotations

import numpy as np

from benchmarks.claims import Aim, write
from benchmarks.goal_curves import Arm, Job, Study, named
from benchmarks.long_runs import Curves, command_line
from presage.common.curves import SeedCurves, steps_ratio, steps_to
from presage.common.intervals import interquartile_mean
from presage.common.report import plot_curves

KEPT = Curves("mapgo_goals")
STUDIES = (
    Study(
        name="world", kept=KEPT, evaluate_every=100, ratios=(1.0, 5.0, 10.0), seeds=(0, 1, 2),
        arms={
            "HER": Arm(scenario="world_her", steps=12_000),
            "MapGo": Arm(scenario="world_mapgo", steps=4_000),
            "MapGo as published": Arm(
                scenario="world_mapgo", steps=4_000, changes={"relabelling.branch_hindsight": 0.0}, borrows="MapGo"
            ),
            "foresight alone": Arm(
                scenario="world_mapgo", steps=12_000, changes={"loop.real_share": 1.0}, borrows="HER"
            ),
            "hindsight for real rows": Arm(
                scenario="world_mapgo", steps=4_000, changes={"relabelling.source": "hindsight"}, borrows="MapGo"
            ),
            "MapGo, perfect model": Arm(scenario="world_mapgo_perfect", steps=4_000, borrows="MapGo"),
        },
    ),
    Study(
        name="fetch_reach", kept=KEPT, evaluate_every=50, ratios=(1.0, 2.0, 5.0), seeds=(0, 1, 2),
        arms={"HER": Arm(scenario="fetch_reach_her", steps=5_000),
              "MapGo": Arm(scenario="fetch_reach_mapgo", steps=5_000)},
    ),
    Study(
        name="point_maze", kept=KEPT, evaluate_every=5_000, ratios=(0.25, 0.5, 1.0), seeds=(0, 1, 2),
        arms={"HER": Arm(scenario="point_maze_her", steps=100_000),
              "MapGo": Arm(scenario="point_maze_mapgo", steps=50_000)},
    ),
)  # fmt: skip
THRESHOLDS = {"world": 0.95, "fetch_reach": 0.95, "point_maze": None}
"""success to reach and to keep, by study; None: what hindsight itself comes to, its mean over the last fifth of its
evaluations; it stands in for 0.8, which no run of the maze held"""


def jobs() -> list[Job]:
    """What can be run by now, study after study."""
    return [job for study in STUDIES for job in study.jobs()]


def final_success(curves: SeedCurves) -> float:
    """Over the last fifth of the evaluations, the interquartile mean over seeds, on average."""
    last = curves.returns[:, -max(1, curves.returns.shape[1] // 5) :]
    return float(interquartile_mean(last, axis=0).mean())


def report() -> None:
    """Figures and pictures from the finished runs."""
    rng, figures = np.random.default_rng(0), dict[str, float]()
    for study in STUDIES:
        curves = study.curves()
        threshold = THRESHOLDS[study.name] or final_success(curves["HER"])
        figures |= study.figures(curves, rng) | {f"{study.name}_threshold": threshold}
        for arm, curve in curves.items():
            reached = steps_to(curve, threshold)
            figures |= {f"{study.name}_{named(arm)}_steps": reached.steps,
                        f"{study.name}_{named(arm)}_reached": float(reached.reached)}  # fmt: skip
        ratio = steps_ratio(curves["MapGo"], curves["HER"], threshold, rng)
        name = f"steps_ratio_to_her_{study.name}"
        figures |= {name: 1 / ratio.value, f"{name}_low": 1 / ratio.high, f"{name}_high": 1 / ratio.low}
        bands = {arm: curve.band(rng) for arm, curve in curves.items()}
        plot_curves(bands, KEPT.path.parent.parent / f"mapgo_{study.name}.png", y_label="goals reached")
    figures["fetch_reach_success_5000"] = figures["fetch_reach_mapgo_success"]
    aims = {f"steps_ratio_to_her_{study.name}": Aim(op="<=", value=0.33) for study in STUDIES}
    write(
        "mapgo_goals", figures=figures, seeds=sorted({seed for study in STUDIES for seed in study.seeds}),
        made=KEPT.made(), depends=KEPT.depends(),
        aims={**aims, "fetch_reach_success_5000": Aim(op=">=", value=0.98)},
        notes="Success: goals reached at the end of an episode, interquartile mean over seeds. A threshold that is not "
        "reached counts with the arm's budget, and its ratio is a bound; that of the maze is what hindsight comes to "
        f"over the last fifth of its evaluations. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
