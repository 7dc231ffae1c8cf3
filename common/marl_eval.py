"""Evaluation results as the marl-eval tools read them: by environment, task, algorithm, seed and evaluation.

    {environment: {task: {algorithm: {seed_0: {step_0: {"step_count": 5000, "return": [one per episode]}, …,
                                               "absolute_metrics": {"return": [ten times as many]}}}}}}

Gorsane et al. 2022, "Towards a Standardised Performance Evaluation Protocol for Cooperative MARL"; the absolute metrics
are those of the best policy of the run, evaluated again on ten times as many episodes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVALUATION_FILE = "evaluation.json"
"""where a run folder keeps them"""
RANDOM = "random"
"""the algorithm's name under which a uniformly random actor's evaluation is kept"""
REFERENCE = "reference"
"""the algorithm's name under which the game's scripted reference is kept"""

Episodes = Mapping[str, Sequence[float]]
"""for every metric, one number per episode"""


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """The evaluations of one seed of one algorithm on one task."""

    environment: str
    task: str
    algorithm: str
    seed: int
    evaluations: Sequence[tuple[int, Episodes]] = ()
    """(env steps, what every episode gave) of each evaluation; env steps ascend"""
    absolute: Episodes = field(default_factory=dict)
    """the best policy's, on ten times as many episodes; {} where it was not evaluated again"""

    def __post_init__(self) -> None:
        steps = [env_steps for env_steps, _ in self.evaluations]
        if steps != sorted(set(steps)):
            raise ValueError(
                f"{self.algorithm!r}, seed {self.seed}: the env steps of evaluations must ascend, got {steps}"
            )


def to_marl_eval(results: Sequence[SeedResult]) -> dict[str, Any]:
    """One nested dictionary of all results, ready for JSON.

    Raises:
        ValueError: where two results are of the same environment, task, algorithm and seed.
    """
    data: dict[str, Any] = {}
    for result in results:
        seeds = (
            data.setdefault(result.environment, {}).setdefault(result.task, {}).setdefault(result.algorithm, {})
        )  # fmt: skip
        if f"seed_{result.seed}" in seeds:
            raise ValueError(
                f"there are two results of {result.algorithm!r} on {result.task!r} with seed {result.seed}"
            )
        entry: dict[str, Any] = {}
        for k, (env_steps, episodes) in enumerate(result.evaluations):
            entry[f"step_{k}"] = {"step_count": env_steps} | {name: list(v) for name, v in episodes.items()}
        if result.absolute:
            entry["absolute_metrics"] = {name: list(v) for name, v in result.absolute.items()}
        seeds[f"seed_{result.seed}"] = entry
    return data


def from_marl_eval(data: Mapping[str, Any]) -> list[SeedResult]:
    """The inverse of `to_marl_eval`; seeds may be called `seed_3`, `run_3` or `3`.

    Raises:
        ValueError: for data of another shape, with the entry at fault.
    """
    found = []
    where: tuple[str, ...] = ()
    try:
        for environment, tasks in data.items():
            for task, algorithms in tasks.items():
                for algorithm, seeds in algorithms.items():
                    for seed, entry in seeds.items():
                        where = (environment, task, algorithm, seed)
                        steps = [
                            (int(step["step_count"]), {k: list(v) for k, v in step.items() if k != "step_count"})
                            for name, step in entry.items() if name.startswith("step_")
                        ]  # fmt: skip
                        result = SeedResult(
                            environment=environment, task=task, algorithm=algorithm, seed=int(seed.rpartition("_")[2]),
                            evaluations=sorted(steps, key=lambda step: step[0]),
                            absolute=entry.get("absolute_metrics", {}),
                        )  # fmt: skip
                        found.append(result)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"after {' > '.join(where) or 'the start'} the data is not that of an evaluation file: {error!r}"
        ) from error
    return found


def write_evaluations(path: Path, results: Sequence[SeedResult]) -> None:
    """Write the results to `path`, whole or not at all: a kill in between leaves the file as it was."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(to_marl_eval(results), file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_evaluations(path: Path) -> list[SeedResult]:
    """The results in the evaluation file `path`."""
    return from_marl_eval(json.loads(path.read_text(encoding="utf-8")))
