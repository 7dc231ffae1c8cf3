"""Env steps to a return: AORPO beside its baselines and its limit, every arm with the same sweep of update-to-data
ratios and, where a study names some, of lengths of the warm-up.

1. Sweep: every arm and ratio, then every arm and warm-up at the arm's ratio, on tuning seeds and tuning episodes; a run
   ends once it has held the threshold for two evaluations. An arm's setting is the one with fewest env steps to the
   threshold, then with the best last return.
2. Measure: every arm at its own setting on other seeds and other evaluation episodes, to the end of its budget.
3. Report: interquartile means over seeds with intervals, steps to the threshold, ratios, queries and lengths.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.claims import Aim, write
from benchmarks.long_runs import EPISODES, TUNING_EPISODES, Curve, Curves, train_curve, work_through
from presage.common import plugins
from presage.common.curves import SeedCurves, gap_closed, steps_ratio, steps_to
from presage.common.evaluate import RandomActor, evaluate
from presage.common.parts import Parts
from presage.common.report import plot_curves
from presage.common.scenario import Scenario
from presage.common.streams import streams
from presage.marl.aorpo import AORPOConfig

RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""updates per env step that every arm is swept over"""
TUNING_SEEDS, SEEDS = (100,), (0, 1, 2, 3, 4)
EVALUATED = 64
"""episodes of an evaluation"""
SHARE = 0.6
"""of the gap between the random policy and the scripted reference: the threshold"""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One game's comparison."""

    name: str
    """of the claims file"""
    arms: Mapping[str, Scenario[Any]]
    """by label; "AORPO", "MASAC" and "perfect model" are compared by name"""
    steps: Mapping[str, int]
    """env steps of a run, by arm; runs of the sweep end earlier where they hold the threshold"""
    evaluate_every: int
    """env steps between two evaluations"""
    borrowed: Mapping[str, str]
    """arms that take another arm's ratio instead of a sweep of their own (ablations)"""
    aims: Mapping[str, Aim]
    """by figure"""
    warmups: Sequence[int] = ()
    """env steps of random play that every arm is swept over; ratios are swept at the first. None: the scenarios' own"""
    notes: str = ""
    """what was tried and found"""

    @property
    def kept(self) -> Curves:
        """The curves of finished runs."""
        return Curves(self.name)

    def levels(self, episodes_seed: int) -> tuple[float, float]:
        """Returns of the random policy (over eight draws of its actions) and of the scripted reference on the very
        episodes that runs are evaluated on.
        """
        key = f"levels/{episodes_seed}"
        if key not in self.kept.read():
            scenario = self.arms["AORPO"]
            parts = Parts.of(scenario)
            game = parts.evaluation_game(scenario.game, EVALUATED)
            rng = streams(episodes_seed)("random")
            drawn = [evaluate(game, RandomActor(game.spec), EVALUATED, episodes_seed, rng=rng) for _ in range(8)]
            random = float(np.mean([found.mean_return for found in drawn]))
            if parts.reference is None:
                raise ValueError(f"{scenario.name} names no scripted reference to measure the gap against")
            scripted = parts.reference(game.spec, scenario.game.options)
            self.kept.keep(
                key, {"random": random, "reference": evaluate(game, scripted, EVALUATED, episodes_seed).mean_return}
            )
        found = self.kept.read()[key]
        return found["random"], found["reference"]

    def threshold(self, episodes_seed: int) -> float:
        """The return at which `SHARE` of the gap is closed."""
        random, reference = self.levels(episodes_seed)
        return random + SHARE * (reference - random)


def study(
    name: str, task: str, steps: int, baseline_steps: int, evaluate_every: int, warmups: Sequence[int] = (),
    notes: str = "",
) -> Study:  # fmt: skip
    """AORPO, its baselines, its limit and its ablations on one task.

    Args:
        name: of the claims file. task: what the scenarios' names begin with. steps, baseline_steps: env steps of the
            model-based and of the model-free arms. evaluate_every: env steps between two evaluations. warmups: as the
            field of that name.
    """
    scenarios = {
        label: plugins.load("scenario", f"{task}_{method}")
        for label, method in (("AORPO", "aorpo"), ("MASAC", "masac"), ("independent SAC", "isac"),
                              ("perfect model", "aorpo_perfect"))
    }  # fmt: skip
    aorpo = scenarios["AORPO"]
    for label, rule in (("ask always", "ask_always"), ("uniform", "uniform")):
        scenarios[label] = replace(aorpo, method=replace(aorpo.method, rule=rule))
    scenarios["conditional"] = replace(aorpo, method=replace(aorpo.method, policy="predictions"))
    scenarios["coordinates"] = replace(aorpo, method=of_coordinates(aorpo.method))
    free, swept = ("MASAC", "independent SAC"), ("AORPO", "MASAC", "independent SAC", "perfect model")
    return Study(
        name=name, arms=scenarios, steps={arm: baseline_steps if arm in free else steps for arm in scenarios},
        evaluate_every=evaluate_every, borrowed={arm: "AORPO" for arm in scenarios if arm not in swept},
        aims={
            "steps_ratio_to_masac": Aim(op="<=", value=0.45), "gap_closed": Aim(op=">=", value=SHARE),
            "steps_ratio_to_perfect_model": Aim(op="<=", value=1.25),
            "queries_ratio_to_ask_always": Aim(op="<=", value=0.5),
        },
        warmups=warmups, notes=notes,
    )  # fmt: skip


def of_coordinates(method: AORPOConfig) -> AORPOConfig:
    """AORPO as it was before its learned rewards were found to be what it lacked: they are read from all coordinates of
    a transition, without the lengths of vectors, and no row is learned from under other names.
    """
    ensemble = replace(method.ensemble, reward_input="transition", geometry=False)
    return replace(method, ensemble=ensemble, fit=replace(method.fit, renamings=0))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an arm is swept over."""

    ratio: float
    """updates per env step"""
    warmup: int | None
    """env steps of random play; None: the scenario's own"""

    def __str__(self) -> str:
        return f"{self.ratio:g}" if self.warmup is None else f"{self.ratio:g}/{self.warmup}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run."""

    study: Study
    arm: str
    setting: Setting
    seed: int
    tuning: bool

    @property
    def key(self) -> str:
        """Its name among the finished runs."""
        return f"{'sweep' if self.tuning else 'measure'}/{self.arm}/{self.setting}/{self.seed}"

    @property
    def steps(self) -> int:
        """Its budget of env steps."""
        return self.study.steps[self.arm]

    def scenario(self) -> Scenario[Any]:
        """The arm's scenario with this run's numbers, on one thread of the CPU."""
        base = self.study.arms[self.arm]
        loop = replace(base.method.loop, updates_per_step=self.setting.ratio)
        if self.setting.warmup is not None:
            loop = replace(loop, warmup_steps=self.setting.warmup)
        return replace(
            base, method=replace(base.method, loop=loop), steps=self.steps, seed=self.seed, threads=1, device="cpu",
            evaluate_every=self.study.evaluate_every, checkpoint_every=4 * self.study.evaluate_every,
            keep_checkpoints=1, evaluation_episodes=EVALUATED,
            evaluation_seed=TUNING_EPISODES if self.tuning else EPISODES,
        )  # fmt: skip

    def run(self) -> Curve:
        """Run it, or go on with it, to its end."""
        enough = self.study.threshold(TUNING_EPISODES) if self.tuning else float("inf")
        return train_curve(self.scenario(), self.study.kept.folder(self.key), enough)


def sweep(study: Study, arm: str) -> list[Setting]:
    """What an arm is tried with on the tuning seeds, as far as known: warm-ups follow once its ratio is chosen."""
    ratios = [Setting(ratio=ratio, warmup=study.warmups[0] if study.warmups else None) for ratio in RATIOS]
    found = best_of(study, arm, ratios)
    return ratios if found is None else ratios + [replace(found, warmup=warmup) for warmup in study.warmups[1:]]


def best_of(study: Study, arm: str, settings: Sequence[Setting]) -> Setting | None:
    """The setting with fewest env steps to the threshold on the tuning seeds, None while a run is missing."""
    done, threshold = study.kept.read(), study.threshold(TUNING_EPISODES)
    scores = {}
    for setting in settings:
        keys = [Job(study=study, arm=arm, setting=setting, seed=s, tuning=True).key for s in TUNING_SEEDS]
        if not done.keys() >= set(keys):
            return None
        found = []
        for curve in (done[key] for key in keys):
            good = np.asarray(curve["returns"]) >= threshold
            stays = np.flatnonzero(good[:-1] & good[1:])
            reached = curve["env_steps"][stays[0]] if len(stays) else float("inf")
            found.append((reached, -float(np.mean(curve["returns"][-2:]))))
        scores[setting] = tuple(np.mean(found, axis=0))
    return min(scores, key=lambda setting: scores[setting])


def best(study: Study, arm: str) -> Setting | None:
    """The setting that an arm is measured at, None while its sweep is not complete."""
    arm = study.borrowed.get(arm, arm)
    return best_of(study, arm, sweep(study, arm))


def jobs_of(study: Study, arms: Sequence[str]) -> list[Job]:
    """What can be run by now: runs of the sweep first, then the measured ones."""
    swept = [arm for arm in arms if arm not in study.borrowed]
    jobs = [
        Job(study=study, arm=arm, setting=setting, seed=seed, tuning=True)
        for arm in swept for setting in sweep(study, arm) for seed in TUNING_SEEDS
    ]  # fmt: skip
    for seed in SEEDS:
        for arm in arms:
            setting = best(study, arm)
            if setting is not None:
                jobs.append(Job(study=study, arm=arm, setting=setting, seed=seed, tuning=False))
    return jobs


def report(study: Study) -> None:
    """Figures and the curve's picture from the measured runs that are there."""
    done, rng = study.kept.read(), np.random.default_rng(0)
    random, reference = study.levels(EPISODES)
    threshold = random + SHARE * (reference - random)
    curves: dict[str, SeedCurves] = {}
    figures: dict[str, float] = {"random": random, "reference": reference, "threshold": threshold}
    queries: dict[str, float] = {}
    for arm in study.arms:
        setting = best(study, arm)
        if setting is None:
            continue
        keys = [Job(study=study, arm=arm, setting=setting, seed=s, tuning=False).key for s in SEEDS]
        runs = [done[key] for key in keys if key in done]
        if len(runs) < 2:
            continue
        name = arm.lower().replace(" ", "_").replace("-", "_")
        curves[arm] = SeedCurves.align([(r["env_steps"], r["returns"]) for r in runs])
        reached = steps_to(curves[arm], threshold)
        band = curves[arm].band(rng)
        if setting.warmup is not None:
            figures[f"{name}_warmup"] = setting.warmup
        figures |= {f"{name}_updates_per_step": setting.ratio, f"{name}_seeds": len(runs),
                    f"{name}_steps": reached.steps, f"{name}_reached": float(reached.reached),
                    f"{name}_budget": float(curves[arm].steps[-1]),
                    f"{name}_gap_closed": float(gap_closed(band.value[-1], random, reference)),
                    f"{name}_gap_closed_low": float(gap_closed(band.low[-1], random, reference)),
                    f"{name}_gap_closed_high": float(gap_closed(band.high[-1], random, reference))}  # fmt: skip
        at = np.mean([np.interp(reached.steps, r["env_steps"], r["queries"]) for r in runs])
        queries[arm] = figures[f"{name}_queries"] = float(at)
        if all(r["lengths"] for r in runs):  # modelled steps of a branch by agent, from the first imagining on
            known = [length for r in runs for length in r["lengths"] if None not in length]
            figures |= {f"{name}_length_{j}": float(mean) for j, mean in enumerate(np.mean(known, axis=0))}
    for key, baseline in (("masac", "MASAC"), ("perfect_model", "perfect model"), ("isac", "independent SAC")):
        if "AORPO" in curves and baseline in curves:
            found = steps_ratio(curves[baseline], curves["AORPO"], threshold, rng)
            figures |= {f"steps_ratio_to_{key}": found.value, f"steps_ratio_to_{key}_low": found.low,
                        f"steps_ratio_to_{key}_high": found.high}  # fmt: skip
    if "AORPO" in curves:
        for bound in ("", "_low", "_high"):
            figures[f"gap_closed{bound}"] = figures[f"aorpo_gap_closed{bound}"]
    if queries.get("ask always"):
        figures["queries_ratio_to_ask_always"] = queries["AORPO"] / queries["ask always"]
    absent = sorted(study.aims.keys() - figures.keys())
    if absent:
        raise SystemExit(f"nothing to report yet: too few finished runs for {', '.join(absent)}")
    path = write(
        study.name, figures=figures, aims=study.aims, seeds=list(SEEDS),
        made=study.kept.made(), depends=study.kept.depends(), notes=f"{study.notes} {study.kept.origin()}",
    )  # fmt: skip
    plot_curves(
        {arm: curve.band(rng) for arm, curve in curves.items()}, path.with_suffix(".png"),
        levels={"random": random, "scripted reference": reference, f"{SHARE:.0%} of the gap": threshold},
    )  # fmt: skip
    print(path.read_text())


def command(study: Study) -> None:
    """The command line of one study."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{study.name}", description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="*", default=list(study.arms), help="what to run; all by default")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--hours", type=float, default=4.0, help="start no run after this")
    parser.add_argument("--report-only", action="store_true", help="read the finished runs alone")
    options = parser.parse_args()
    if not options.report_only:
        for episodes in (TUNING_EPISODES, EPISODES):
            study.levels(episodes)
        work_through(study.kept, lambda: jobs_of(study, options.arms), options.processes, options.hours)
    report(study)
