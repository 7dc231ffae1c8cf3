"""Success against env steps on pushing a block: MapGo beside hindsight, by `benchmarks.goal_curves`; and MapGo in the
true dynamics, the limit for every learned model, at MapGo's own ratio and for half as long.
"""

from __future__ import annotations

from functools import partial

from benchmarks.goal_curves import Arm, Study, write_success
from benchmarks.long_runs import Curves, command_line

STEPS = 200_000
KEPT = Curves("fetch_push")
STUDY = Study(
    name="fetch_push", kept=KEPT, evaluate_every=20_000, ratios=(0.05, 0.1, 0.2), seeds=(0, 1, 2),
    arms={
        "HER": Arm(scenario="fetch_push_her", steps=STEPS),
        "MapGo": Arm(scenario="fetch_push_mapgo", steps=STEPS),
        "MapGo, perfect model": Arm(scenario="fetch_push_mapgo_perfect", steps=STEPS // 2, borrows="MapGo"),
    },
)  # fmt: skip
jobs, report = STUDY.jobs, partial(write_success, STUDY)


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
