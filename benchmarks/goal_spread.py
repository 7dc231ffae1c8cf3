"""AORPO with goals on goal navigation: foresight goals, hindsight goals and neither, by `benchmarks.goal_curves`.

Success is the share of episodes at whose end every agent stands at its own place.
"""

from __future__ import annotations

import numpy as np

from benchmarks.claims import imported, write
from benchmarks.goal_curves import Arm, Study
from benchmarks.long_runs import Curves, command_line
from presage.common.report import plot_curves

STEPS = 4_000
KEPT = Curves("goal_spread")
STUDY = Study(
    name="goal_navigation", kept=KEPT, evaluate_every=250, ratios=(1.0, 2.0, 5.0), seeds=(0, 1, 2),
    ratio="aorpo.loop.updates_per_step",
    arms={
        "foresight": Arm(scenario="goal_navigation_aorpo", steps=STEPS),
        "hindsight": Arm(scenario="goal_navigation_aorpo_hindsight", steps=STEPS),
        "plain": Arm(scenario="goal_navigation_aorpo_plain", steps=STEPS),
    },
)  # fmt: skip


def report() -> None:
    """Figures and a picture from the finished runs."""
    rng, curves = np.random.default_rng(0), STUDY.curves()
    found, figures = STUDY.figures(curves, rng), dict[str, float]()
    for arm in STUDY.arms:
        figures |= {
            f"success_{arm}{end}": found[f"goal_navigation_{arm}_success{end}"] for end in ("", "_low", "_high")
        }
        figures[f"updates_per_step_{arm}"] = found[f"goal_navigation_{arm}_updates_per_step"]
    bands = {arm: curve.band(rng) for arm, curve in curves.items()}
    plot_curves(bands, KEPT.path.parent.parent / "goal_spread.png", y_label="all goals reached")
    write(
        "goal_spread", figures=figures, seeds=list(STUDY.seeds), made=KEPT.made(), depends=imported(), aims={},
        notes=f"Interquartile means over seeds after {STEPS} env steps. {KEPT.origin()}",
    )  # fmt: skip


if __name__ == "__main__":
    command_line(__doc__, KEPT, STUDY.jobs, report)
