"""Success against env steps on pushing a block: MapGo beside hindsight, by `benchmarks.goal_curves`."""

from __future__ import annotations

import numpy as np

from benchmarks.claims import imported, write
from benchmarks.goal_curves import Arm, Study
from benchmarks.long_runs import Curves, command_line
from presage.common.report import plot_curves

STEPS = 300_000
KEPT = Curves("fetch_push")
STUDY = Study(
    name="fetch_push", kept=KEPT, evaluate_every=10_000, ratios=(0.1, 0.25, 0.5), seeds=(0, 1, 2),
    arms={"HER": Arm(scenario="fetch_push_her", steps=STEPS), "MapGo": Arm(scenario="fetch_push_mapgo", steps=STEPS)},
)  # fmt: skip


def report() -> None:
    """Figures and a picture from the finished runs."""
    rng, curves = np.random.default_rng(0), STUDY.curves()
    found = STUDY.figures(curves, rng)
    figures = {"env_steps": float(STEPS)}
    for arm in ("her", "mapgo"):
        figures |= {f"success_{arm}{end}": found[f"fetch_push_{arm}_success{end}"] for end in ("", "_low", "_high")}
        figures[f"updates_per_step_{arm}"] = found[f"fetch_push_{arm}_updates_per_step"]
    bands = {arm: curve.band(rng) for arm, curve in curves.items()}
    plot_curves(bands, KEPT.path.parent.parent / "fetch_push.png", y_label="goals reached")
    write(
        "fetch_push", figures=figures, seeds=list(STUDY.seeds), made=KEPT.made(), depends=imported(), aims={},
        notes=f"Success: goals reached at the end of an episode, interquartile mean over seeds. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, STUDY.jobs, report)
