"""The nine MPE games: how well a trained team is predicted, and what the prediction is worth to one who learns against
it.

For every game and seed:

1. A team is trained by multi-agent SAC; it then plays as its policies sample, so that the truth is known.
2. Behaviour cloning is fitted to episodes of the team, in half of which one agent, the ego, moves at random: once as
   models read what the others observe, and once as the ego itself can be told, from what the ego observes.
3. The ego learns anew by SAC against the team, on what it observes alone ("no_model"); on that and what the second
   model expects of the others at that moment ("model"); and on that and the moves that the others have settled on
   ("oracle").

`simple` has one agent, who is predicted from outside, and no other to learn against. Gains are in standard deviations
of the returns of single episodes without a model. Nothing is tuned; the games are `presage.envs.particle`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.claims import Aim, write
from benchmarks.long_runs import EPISODES, Curve, Curves, command_line, train_curve
from presage.common.evaluate import RandomActor
from presage.common.game import Game, GameSpec
from presage.common.intervals import mean, score_interval
from presage.common.parts import Parts
from presage.common.report import COLOURS
from presage.common.scenario import OWN_GAME, GameConfig, Scenario
from presage.common.training import Training
from presage.envs.registry import make
from presage.marl.model_free import ModelFreeConfig
from presage.marl.opponents.against import Against
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from presage.marl.opponents.fitting import Fitted, fit
from presage.marl.opponents.foretold import Foretold
from presage.marl.opponents.levels import levels
from presage.marl.opponents.policies import Stated, Team
from presage.marl.opponents.pools import Opponent, Pool, seats
from presage.marl.opponents.record import Record
from presage.scenarios.particle_models import model_free

GAMES = {
    "simple": "agent_0", "adversary": "agent_0", "crypto": "eve_0", "push": "agent_0", "reference": "agent_0",
    "speaker_listener": "listener_0", "spread": "agent_0", "tag": "adversary_0", "world_comm": "adversary_0",
}  # fmt: skip
"""who learns against the rest, by game"""
ARMS = ("no_model", "model", "oracle")
SEEDS = (0, 1, 2)
TEAM_STEPS, EGO_STEPS, COPIES = 4_000, 8_000, 20
RECORDED = 2_560
"""episodes that models are fitted to and judged by"""
KEPT = Curves("opponent_games")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A game and a seed: a team, models of it, and egos against it, on one thread of the CPU."""

    game: str
    seed: int

    @property
    def key(self) -> str:
        """Its name among the finished ones."""
        return f"{self.game}/{self.seed}"

    def run(self) -> Curve:
        """Do all of it; runs that a try before this one has finished are read."""
        folder, ego = KEPT.folder(self.key), GAMES[self.game]
        team = self._scenario(
            "team", model_free("joint", 1.0), TEAM_STEPS, game=GameConfig(name=f"particle/{self.game}", copies=COPIES)
        )  # fmt: skip
        trained = train_curve(team, folder / "team")
        pool = levels([folder / "team"])
        last = pool.opponents[-1]
        record, stated = played(pool.spec, self.game, ego, last, self.seed), last.actor
        assert isinstance(stated, Stated)
        models = {
            sees: fit(record, BehaviourCloningConfig(sees=sees, window=10**9, passes=60, patience=4), ego=ego,
                      seed=self.seed, truth=stated.predicted)
            for sees in ("opponent", "own")
        }  # fmt: skip
        found: Curve = {"team_return": trained["returns"][-1]}
        for sees, fitted in models.items():
            found |= {f"{name}_{sees}": value for name, value in quality(pool.spec, fitted).items()}
        seconds = trained["seconds"]
        if pool.spec.n > 1:
            model = models["own"].model
            assert isinstance(model, BehaviourCloning)
            for arm in ARMS:
                curve = self._learned(arm, folder / arm, Pool(pool.spec, [last]), model)
                found |= {f"{name}_{arm}": curve[name] for name in ("env_steps", "returns", "deviation")}
                seconds += curve["seconds"]
        same = {name: trained[name] for name in ("commit", "machine")}
        return {**found, "outcome": found["kl_opponent"], "seconds": round(seconds, 1), **same}

    def _scenario(self, name: str, method: ModelFreeConfig, steps: int, game: GameConfig) -> Scenario[ModelFreeConfig]:
        return Scenario(
            name=name, game=game, method=method, steps=steps, seed=self.seed, threads=1, device="cpu",
            evaluate_every=steps // 4, checkpoint_every=steps // 4, keep_checkpoints=1, evaluation_episodes=256,
            evaluation_seed=EPISODES,
        )  # fmt: skip

    def _learned(self, arm: str, path: Path, pool: Pool, model: BehaviourCloning) -> Curve:
        """A run of the ego."""
        scenario = self._scenario(
            arm, model_free("own", 0.5), EGO_STEPS, game=GameConfig(name=OWN_GAME, copies=COPIES)
        )  # fmt: skip

        def game(copies: int, workers: int = 0, **options: Any) -> Game:
            against = Against(make(f"particle/{self.game}", copies), GAMES[self.game], pool)
            if arm == "no_model":
                return against
            return Foretold(against, model if arm == "model" else "moves")

        return train_curve(scenario, path, finish=deviation, parts=Parts(make_game=game))


def played(spec: GameSpec, game: str, ego: str, team: Opponent, seed: int) -> Record:
    """Episodes of the team, and then as many in which the ego moves at random."""
    record, inner = Record(spec), make(f"particle/{game}", 64)
    rng = torch.Generator().manual_seed(seed)
    record.play(inner, team.actor, RECORDED // 2, seed, rng=rng)
    others = Team(spec, seats(spec, ego, RandomActor(spec), team.actor)) if spec.n > 1 else team.actor
    record.play(inner, others, RECORDED // 2, 1_000 + seed, rng=rng)
    inner.close()
    return record


def quality(spec: GameSpec, fitted: Fitted) -> Mapping[str, float]:
    """Means over those that are predicted, divergence by head of their actions."""
    judged = fitted.assessment.qualities
    heads = [len(spec.agents[spec.index(one.agent)].heads) for one in judged]
    kl = [(one.divergence or 0.0) / count for one, count in zip(judged, heads, strict=True)]
    return {
        "kl": float(np.mean(kl)), "accuracy": float(np.mean([one.accuracy or 0.0 for one in judged])),
        "best_accuracy": float(np.mean([one.best_accuracy or 0.0 for one in judged])),
        "calibration_error": float(np.mean([one.calibration_error for one in judged])),
    }  # fmt: skip


def deviation(training: Training) -> dict[str, float]:
    """How much the returns of single episodes of the last evaluation differ."""
    _, episodes = training.history[-1]
    return {"deviation": float(np.std(episodes["return"]))}


def jobs() -> list[Job]:
    """All of them, seed by seed."""
    return [Job(game=game, seed=seed) for seed in SEEDS for game in GAMES]


def report() -> None:
    """Figures and a picture from what is finished."""
    done, rng, figures = KEPT.read(), np.random.default_rng(0), dict[str, float]()
    gains: dict[str, dict[str, tuple[float, float, float]]] = {"model": {}, "oracle": {}}
    scores: dict[str, list[list[float]]] = {"kl": [], "model": [], "oracle": []}

    def add(name: str, values: list[float] | list[list[float]], **numbers: Any) -> tuple[float, float, float]:
        found = score_interval(np.array(values).T, rng, **numbers)
        figures.update({name: found.value, f"{name}_low": found.low, f"{name}_high": found.high})
        return found.value, found.low, found.high

    for game in GAMES:
        runs = [done[key] for key in (f"{game}/{seed}" for seed in SEEDS) if key in done]
        if len(runs) < len(SEEDS):
            raise SystemExit(f"nothing to report yet: {game} lacks seeds")
        for sees in ("opponent", "own"):
            add(f"{game}_kl_{sees}", [run[f"kl_{sees}"] for run in runs])
            for name in ("accuracy", "best_accuracy", "calibration_error"):
                figures[f"{game}_{name}_{sees}"] = float(np.mean([run[f"{name}_{sees}"] for run in runs]))
        scores["kl"].append([run["kl_opponent"] for run in runs])
        if "returns_model" not in runs[0]:
            continue
        for arm in ARMS:
            add(f"{game}_return_{arm}", [run[f"returns_{arm}"][-1] for run in runs])
        for arm in gains:
            gained = [(run[f"returns_{arm}"][-1] - run["returns_no_model"][-1]) / run["deviation_no_model"]
                      for run in runs]  # fmt: skip
            gains[arm][game] = add(f"{game}_gain_{arm}", gained)
            scores[arm].append(gained)
    for name, what in (("mean_kl", "kl"), ("mean_gain_over_no_model", "model"), ("mean_gain_of_oracle", "oracle")):
        add(name, scores[what], statistic=mean)
    _draw(gains, KEPT.path.parent.parent / "opponent_games.png")
    write(
        "opponent_games", figures={"games": float(len(scores["kl"])), **figures}, seeds=list(SEEDS), made=KEPT.made(),
        depends=KEPT.depends(), aims={"games": Aim(op=">=", value=9.0)},
        notes="Divergences in nats per head. By game: interquartile means over seeds; over games: means. Gains: "
        "returns of the last evaluation, 256 episodes, over their standard deviation without a model, "
        f"{len(gains['model'])} games. {KEPT.origin()}",
    )  # fmt: skip


def _draw(gains: Mapping[str, Mapping[str, tuple[float, float, float]]], path: Path) -> None:
    """Gains by game, a dot and an interval for each."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axvline(0, color="0.6", linewidth=1)
    labels = {"model": "told what a model expects", "oracle": "told the moves"}
    for shift, colour, (arm, by_game) in zip((-0.12, 0.12), COLOURS, gains.items(), strict=False):
        value, low, high = np.array(list(by_game.values())).T
        axes.errorbar(
            value, np.arange(len(by_game)) + shift, xerr=[value - low, high - value],
            fmt="o", markersize=4, color=colour, label=labels[arm],
        )  # fmt: skip
        axes.set_yticks(np.arange(len(by_game)), list(by_game))
    axes.set_xlabel("gain in return over no model, standard deviations of an episode")
    axes.invert_yaxis()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    command_line(__doc__, KEPT, jobs, report)
