"""The engine of a run: collect, learn, evaluate and save; it may be killed at any instant."""

from __future__ import annotations

import logging
import math
import random
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor

from presage.common.circumstances import Circumstances
from presage.common.devices import GameOnDevice, choose_device
from presage.common.episodes import EpisodeLog
from presage.common.episodic_replay import EpisodicReplay, episodic
from presage.common.evaluate import Evaluation, evaluate
from presage.common.game import GameError, View
from presage.common.learner_state import learner_state, restore_learner
from presage.common.marl_eval import EVALUATION_FILE, Episodes, SeedResult, write_evaluations
from presage.common.memory import keep_freed_memory
from presage.common.method import Metrics
from presage.common.metrics import QUERIES, MetricLog
from presage.common.parts import Parts, build
from presage.common.phases import OnPhase, PhaseClock
from presage.common.progress import Progress
from presage.common.random_state import global_random_state, restore_global_random_state
from presage.common.replay import Replay
from presage.common.run_folder import RunError, RunFolder
from presage.common.scenario import OWN_GAME, Scenario
from presage.common.stopping import stoppable
from presage.common.streams import streams
from presage.common.tree import Tree

_log = logging.getLogger(__name__)


class Training:
    """One run: its game, its method, what was collected and learned, and where it all is saved.

    Same scenario, device, threads and library versions: same numbers, whether or not it was interrupted and restored.
    """

    folder: RunFolder
    """where `run` writes; likewise the two below"""
    log: MetricLog
    progress: Progress

    def __init__(self, scenario: Scenario[Any], parts: Parts, on_phase: OnPhase | None = None) -> None:
        """Make everything and start the first episodes; nothing is written yet.

        Args:
            scenario: the numbers. parts: the things behind its names.
            on_phase: called with each of `presage.common.phases.PHASES` as it begins.

        Raises:
            GameError: the game cannot be made, breaks its contract, or does not suit the method.
            DeviceError: the device is not there.
        """
        self.scenario, self.parts = scenario, parts
        self.device = choose_device(scenario.device)
        if scenario.threads is not None:
            torch.set_num_threads(scenario.threads)
        keep_freed_memory()
        seed_globally(scenario.seed)
        self.streams = streams(scenario.seed, self.device)
        self.game = GameOnDevice(parts.training_game(scenario.game), self.device)
        self.spec = self.game.spec
        self.evaluation_game = GameOnDevice(
            parts.evaluation_game(scenario.game, scenario.evaluation_episodes), self.device
        )
        if self.spec.goal_dim and self.game.goal_rule is None:
            raise GameError(
                f"{self.spec.name!r} has goals, and how they are paid for is not known: let the environment hold "
                "`goal_rule`, an object with the methods of presage.common.game.GoalRule"
            )
        self.trainee = build(scenario, self.spec, self.streams, self.device, self.game.goal_rule)
        capacity = max(self.game.copies, self.trainee.replay_capacity)
        kind = EpisodicReplay if self.spec.goal_dim else Replay
        self.replay: Replay = kind(self.spec, capacity, self.game.copies, device=self.device)
        self.episodes = EpisodeLog(self.game.copies, self.device)
        self.history: list[tuple[int, dict[str, list[float]]]] = []
        """env steps of every evaluation, and what its episodes gave"""
        self.best: dict[str, Any] = {"return": -math.inf, "policy": {}}
        """the policy's parameters at its best evaluation"""
        self._next_evaluation, self._next_checkpoint = 0, scenario.checkpoint_every
        self._saved_at = self._logged_at = -1
        self._last_losses: Metrics = {}
        self._metrics_position = 0
        self.clock = PhaseClock(on_phase)
        self.trainee.on_phase = self.clock
        self.view: View = self.game.reset(scenario.seed)

    @property
    def env_steps(self) -> int:
        """Env steps made so far."""
        return int(self.trainee.env_steps)

    # ------------------------------------------------------------------ loop

    def run(self, folder: RunFolder) -> int | None:
        """Go on until the scenario's env steps are made, or a signal asks to stop: then its number is returned.

        Either way the last thing done is a checkpoint.
        """
        self.folder = folder
        progress = Progress(self.scenario.steps, done=min(self.env_steps, self.scenario.steps), stream=sys.stderr)
        log = MetricLog(folder.path, position=self._metrics_position)
        with stoppable() as stop, log as self.log, closing(progress) as self.progress:
            while not stop.asked:
                if self.env_steps >= self._next_evaluation or self.finished:
                    self.evaluate()
                if self.env_steps >= self._next_checkpoint:
                    self.save()
                if self.finished:
                    break
                self.step()
            self.save()
        return stop.signal

    @property
    def finished(self) -> bool:
        """Whether all env steps are made."""
        return self.env_steps >= self.scenario.steps

    def step(self) -> None:
        """One env step in every copy of the game, and what is to be learned by then."""
        self.clock("collection")
        pursuit = self.trainee.pursuit
        view = self.view if pursuit is None else pursuit.aim(self.view, episodic(self.replay))
        rows, self.view = self.game.step(self.trainee.explore(view))
        self.episodes.add(rows)
        rows = rows if pursuit is None else pursuit.rows(rows)
        self.replay.extend(rows)
        try:
            self.trainee.learn(self.replay, rows)
        except GameError:
            raise
        except ValueError as error:  # numbers that contradict each other only once there are rows
            raise RunError(f"learning fails at env step {self.env_steps}: {error}") from error
        self.progress.update(min(self.env_steps, self.scenario.steps))

    # ------------------------------------------------------------ evaluation

    def evaluate(self) -> None:
        """Play the evaluation's episodes, unless that was done at this env step, and log all metrics."""
        if self.history and self.history[-1][0] == self.env_steps:
            return
        self.clock("evaluation")
        found = self._play()
        self.history.append((self.env_steps, found.per_episode()))
        if found.mean_return > self.best["return"]:
            self.best = {"return": found.mean_return, "policy": self._policy_state()}
        self._next_evaluation = (self.env_steps // self.scenario.evaluate_every + 1) * self.scenario.evaluate_every
        write_evaluations(self.folder.path / EVALUATION_FILE, [self.result()])
        made = self.env_steps - max(self._logged_at, 0)
        self._logged_at = self.env_steps
        values = found.metrics() | self.episodes.metrics() | self._queries() | self._losses() | self.trainee.metrics
        values |= self.clock.metrics(made)
        self.log.write(self.env_steps, {_tag(name): value for name, value in values.items()})
        self.progress.evaluated(min(self.env_steps, self.scenario.steps), found.mean_return)

    def _play(self) -> Evaluation:
        episodes, seed, rule = self.scenario.evaluation_episodes, self.scenario.evaluation_seed, self.game.goal_rule

        def play() -> Evaluation:
            return evaluate(self.evaluation_game, self.trainee.actor, episodes, seed, goal_rule=rule)

        if not self.parts.shared:
            return play()
        before = self.game.state()  # the one environment plays its open episode again afterwards
        found = play()
        if self._restore_game(before):
            _log.warning("after the evaluation the open episode did not play again; training starts its next one")
        return found

    def result(self, absolute: Episodes | None = None) -> SeedResult:
        """All evaluations so far, as evaluation files keep them."""
        return self._seed_result(self.scenario.algorithm, self.history, absolute or {})

    def level(self, name: str, found: Evaluation) -> SeedResult:
        """The evaluation of somebody whom the run is held against, likewise."""
        return self._seed_result(name, [(0, found.per_episode())], {})

    def _seed_result(
        self, algorithm: str, evaluations: Sequence[tuple[int, Episodes]], absolute: Episodes
    ) -> SeedResult:  # fmt: skip
        game = self.scenario.game
        task = self.spec.name if game.name == OWN_GAME else game.task
        return SeedResult(
            environment=game.environment, task=task, algorithm=algorithm, seed=self.scenario.seed,
            evaluations=evaluations, absolute=absolute,
        )  # fmt: skip

    def _queries(self) -> Metrics:
        """Opponent queries so far, in total and for every pair."""
        if self.spec.n == 1:
            return {}
        ledger, names = self.trainee.ledger, self.spec.names
        pairs = {
            f"{QUERIES}/{names[ego]}/{names[agent]}": float(count)
            for ego, row in zip(ledger.egos, ledger.queries.tolist(), strict=True)
            for agent, count in enumerate(row) if agent != ego
        }  # fmt: skip
        return {QUERIES: float(ledger.opponent_queries)} | pairs

    def _losses(self) -> Metrics:
        """The losses of the last update, also where that was before the run was interrupted."""
        return self.trainee.losses() or self._last_losses

    # ----------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write a checkpoint, unless that was done at this env step."""
        if self._saved_at == self.env_steps:
            return
        self.clock("checkpoint")
        self._next_checkpoint = (self.env_steps // self.scenario.checkpoint_every + 1) * self.scenario.checkpoint_every
        self._metrics_position = self.log.position()
        self.folder.save(self.env_steps, self.state(), self._replays(), self.scenario.keep_checkpoints)
        self._saved_at = self.env_steps

    def state(self) -> dict[str, Tree]:
        """Everything but the replays, as plain data and tensors."""
        return {
            "learner": learner_state(self.trainee),
            "policy": self._policy_state(),
            "best": self.best,
            "spec": self.spec.to_json(),
            "persistent": {name: part.state() for name, part in self.trainee.persistent.items()},
            "latest": dict(self.trainee.metrics),
            "losses": self._losses(),
            "game": self.game.state(),
            "episodes": self.episodes.state(),
            "history": self.history,
            "schedule": [self._next_evaluation, self._next_checkpoint, self._logged_at, self._metrics_position],
            "random": global_random_state(),
            "circumstances": self.circumstances().to_plain(),
            "env_steps": self.env_steps,
        }

    def restore(self, tree: Tree, folder: RunFolder) -> list[int]:
        """Continue from what `state` and the replays in `folder` hold.

        Returns:
            copies of the game whose open episode does not play again and is given up: the numbers then differ from
            those of an uninterrupted run.
        """
        restore_learner(self.trainee, tree["learner"])
        self.best = tree["best"]
        for name, part in self.trainee.persistent.items():
            part.restore(tree["persistent"][name])
        self.trainee.metrics = dict(tree["latest"])
        self._last_losses = dict(tree["losses"])
        self.episodes.restore(tree["episodes"])
        self.history = [(int(env_steps), episodes) for env_steps, episodes in tree["history"]]
        self._next_evaluation, self._next_checkpoint, self._logged_at, self._metrics_position = tree["schedule"]
        self._saved_at = self.env_steps
        folder.load_replays(tree, self._replays())
        lost = self._restore_game(tree["game"])
        restore_global_random_state(tree["random"])
        return lost

    def circumstances(self) -> Circumstances:
        """What the numbers depend on here, besides the scenario."""
        return Circumstances.here(self.device, self.game.copies)

    def close(self) -> None:
        """Free the games."""
        self.game.close()
        self.evaluation_game.close()

    def _replays(self) -> dict[str, Replay]:
        imagined = self.trainee.imagined
        return {"real": self.replay} | ({} if imagined is None else {"imagined": imagined})

    def _policy_state(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.trainee.policy.state_dict().items()}

    def _restore_game(self, state: Mapping[str, Any]) -> list[int]:
        """Put the game back; copies whose open episode does not play again start their next one, and are returned."""
        try:
            self.view = self.game.restore(state)
        except GameError as error:
            boundary: Mapping[str, Any] | None = getattr(error, "boundary", None)
            if boundary is None:
                raise
            lost: Sequence[int] = getattr(error, "copies", ())
            self.view = self.game.restore(boundary)
            self.episodes.drop(lost)
            if self.trainee.pursuit is not None:
                self.trainee.pursuit.drop(lost)
            return list(lost)
        return []


def seed_globally(seed: int) -> None:
    """Seed the streams that tianshou, numpy and environments may draw from behind our back."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _tag(name: str) -> str:
    """A metric tag that the log takes, whatever an agent is called."""
    return re.sub(r"[^A-Za-z0-9_.+/-]", "_", name)
