"""Make a few runs of a long study again, and tell whether its figures still hold after a change of the code.

`python -m benchmarks.confirm NAME KEY ...`: the keys are those of the study's file in `benchmarks/results/curves/`.
Where every run comes out equal to the last digit, the study's claim names the commit of today. It takes the machine
and the torch that the runs were made with.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from benchmarks.long_runs import Curves, Job, confirm


def study_of(name: str) -> tuple[Curves, Sequence[Job], Callable[[], None]]:
    """The finished runs of a benchmark, all that it makes, and how it reports."""
    module = import_module(f"benchmarks.{name}")
    if not hasattr(module, "KEPT"):  # a study by sample_efficiency, which is loaded for those alone: runs tell theirs
        sample_efficiency = import_module("benchmarks.sample_efficiency")
        study = module.STUDY
        return study.kept, sample_efficiency.jobs_of(study, list(study.arms)), partial(sample_efficiency.report, study)
    return module.KEPT, module.jobs(), module.report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", help="the benchmark")
    parser.add_argument("keys", nargs="+", help="the runs, by the keys of the file that keeps them")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one thread each")
    options = parser.parse_args()
    kept, jobs, report = study_of(options.name)
    found = {job.key: job for job in jobs if job.key in kept.read()}
    unknown = [key for key in options.keys if key not in found]
    if unknown:
        raise SystemExit(f"no finished run {', '.join(unknown)}; there are {', '.join(sorted(found))}")
    confirm(kept, [found[key] for key in options.keys], options.processes)
    report()
