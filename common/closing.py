"""The end of a run: what it is held against, its best policy once more, a recorded episode, and the report."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from presage.common.devices import GameOnDevice
from presage.common.episodic_replay import episodic
from presage.common.evaluate import Evaluation, RandomActor, evaluate, record
from presage.common.game import Actor, GameError
from presage.common.goal_report import GOALS_FILE, GoalPoints, plot_goals
from presage.common.marl_eval import EVALUATION_FILE, RANDOM, REFERENCE, write_evaluations
from presage.common.model_report import MODEL_FILE, model_report, plot_model
from presage.common.report import GOALS_PICTURE, MODEL_PICTURE, PICTURE_FILE, report
from presage.common.run_folder import RunError, RunFolder
from presage.common.training import Training
from presage.common.worlds import LearnedWorld

ABSOLUTE_SHARE = 10
"""how many times as many episodes the best policy is evaluated on; Gorsane et al. 2022"""

_log = logging.getLogger(__name__)


def conclude(training: Training, folder: RunFolder) -> str:
    """Write `evaluation.json` with all levels, the recorded episode and the report; returns the report's table.

    Raises:
        RunError: the report cannot be made of what was measured.
    """
    results = [training.result(best_again(training).per_episode())]
    results += [training.level(name, found) for name, found in levels(training).items()]
    write_evaluations(folder.path / EVALUATION_FILE, results)
    record_episode(training, folder.report / PICTURE_FILE)
    report_model(training, folder.report)
    report_goals(training, folder.report)
    try:
        report([folder.path], folder.report)
    except ValueError as error:  # such as returns that are not finite
        raise RunError(f"the run in {folder.path} is done, but its report cannot be made: {error}") from error
    return (folder.report / "table.txt").read_text(encoding="utf-8")


def levels(training: Training) -> dict[str, Evaluation]:
    """What a random actor and the game's scripted reference, if any, reach on the evaluation's episodes."""
    scenario, spec, game = training.scenario, training.spec, training.evaluation_game
    episodes, seed, rule = scenario.evaluation_episodes, scenario.evaluation_seed, training.game.goal_rule
    rng = training.streams("random level")
    found = {RANDOM: evaluate(game, RandomActor(spec), episodes, seed, rng=rng, goal_rule=rule)}
    if training.parts.reference is not None:
        reference: Actor = training.parts.reference(spec, scenario.game.options)
        found[REFERENCE] = evaluate(game, reference, episodes, seed, goal_rule=rule)
    return found


def best_again(training: Training) -> Evaluation:
    """The policy of the best evaluation, on more episodes, of another seed than that which chose it."""
    scenario = training.scenario
    with parameters(training.trainee.policy, training.best["policy"]):
        return evaluate(
            training.evaluation_game, training.trainee.actor, ABSOLUTE_SHARE * scenario.evaluation_episodes,
            scenario.evaluation_seed + 1, goal_rule=training.game.goal_rule,
        )  # fmt: skip


@contextmanager
def parameters(policy: nn.Module, state: Mapping[str, Any]) -> Iterator[None]:
    """Within the block the policy has the parameters in `state`."""
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    policy.load_state_dict(state)
    try:
        yield
    finally:
        policy.load_state_dict(before)


def report_model(training: Training, folder: Path) -> None:
    """What the learned model, if any, knows on rows that it was not fitted to: numbers and a figure."""
    world = training.trainee.world
    if not isinstance(world, LearnedWorld) or not world.fitter.fits:
        return
    found, points = model_report(world.ensemble, training.replay, world.held_out(training.replay))
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found.to_plain(), indent=2, allow_nan=False) + "\n"
    (folder / MODEL_FILE).write_text(text, encoding="utf-8")
    plot_model(found, points, folder / MODEL_PICTURE)


def report_goals(training: Training, folder: Path) -> None:
    """Where the goals of a game of goals lay, in the newest rows: numbers and a figure."""
    rule = training.game.goal_rule
    if rule is None or not len(training.replay):
        return
    points = GoalPoints.of(episodic(training.replay), rule)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(points.report().to_plain(), indent=2, allow_nan=False) + "\n"
    (folder / GOALS_FILE).write_text(text, encoding="utf-8")
    plot_goals(points, folder / GOALS_PICTURE)


def record_episode(training: Training, path: Path) -> None:
    """A GIF of the trained agents, where the game draws itself; where drawing fails, a warning says why."""
    try:
        game = training.parts.picture_game(training.scenario.game)
        if game is None:
            return
        try:
            record(GameOnDevice(game, training.device), training.trainee.actor, training.scenario.evaluation_seed, path)
        finally:
            game.close()
    except NotImplementedError:  # gymnasium's own answer where an environment does not draw
        return
    except Exception as error:  # drawing needs libraries and displays that training does not; it must not cost a run
        reason = str(error) if isinstance(error, GameError) else f"{type(error).__name__}: {error}"
        _log.warning("no episode was recorded: %s", reason)
