"""AORPO with goals on goal navigation: foresight goals, hindsight goals and neither, by `benchmarks.goal_curves`.

Success is the share of episodes at whose end every agent stands at its own place.
"""

from __future__ import annotations

from functools import partial

from benchmarks.goal_curves import Arm, Study, write_success
from benchmarks.long_runs import Curves, command_line

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
jobs, report = STUDY.jobs, partial(write_success, STUDY, "all goals reached")


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
