"""Dyna (Sutton 1990) around any tianshou off-policy algorithm: fit a model of the world, imagine branches, and improve
the learner on a mix of real and imagined rows. One agent makes it MBPO's loop, several make it AORPO's.

It is an off-policy algorithm itself, so that tianshou's `OffPolicyTrainer` can run it; presage's own training calls
`learn` after every step of collection. Without a model it draws real rows alone: the model-free baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm, Policy, TrainingStats
from tianshou.data import ReplayBuffer
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor

from presage.common.answers import Answer
from presage.common.episodic_replay import episodic
from presage.common.game import ALL_AGENTS, Actor, GameSpec, Kernel, Rows, View, Window, concatenate
from presage.common.learner_metrics import learner_metrics
from presage.common.learner_state import self_saving
from presage.common.ledger import Ledger
from presage.common.live_terms import LiveTerms
from presage.common.method import Metrics, Pursuer
from presage.common.one_batch import OneBatch
from presage.common.relabel import BranchRelabeller, Relabeller
from presage.common.replay import Replay
from presage.common.rollout import Answerers, OpponentModels, branch_rollouts
from presage.common.schedules import LengthRamp
from presage.common.symmetry import Renamings
from presage.common.tianshou_rows import BufferReader


@dataclass(frozen=True, kw_only=True)
class DynaConfig:
    """When to fit, how far to imagine and what to learn from; env steps count over all copies of the game."""

    batch_size: int = 256
    """rows of an update for each agent; >= 1"""
    updates_per_step: float = 0.5
    """update-to-data ratio: updates per env step; > 0. Under tianshou's trainer its own setting holds instead"""
    warmup_steps: int = 1_000
    """env steps before the first fit and update, with random actions in presage's own collection; >= 1"""
    real_share: float = 0.5
    """share of real rows in a batch, in [0, 1]; 1 never imagines"""
    replay_capacity: int = 1_000_000
    """real rows kept; >= 1"""
    fit_every: int = 500
    """env steps between two fits of the model; >= 1"""
    rollout_every: int = 100
    """env steps between two imaginings; >= 1"""
    rollout_starts: int = 256
    """real states that each ego branches from at each imagining; >= 1"""
    horizon: LengthRamp = LengthRamp(start_epoch=0, end_epoch=0, start=5, end=5)  # noqa: RUF009 - it is frozen
    """imagined steps of a branch, over epochs of `epoch_steps`"""
    epoch_steps: int = 1_000
    """env steps of one epoch of the horizon's ramp; >= 1"""
    symmetries: bool = True
    """show the learner every row under a random one of the renamings that the game declares to change nothing"""
    kept_rollouts: int = 20
    """imaginings that a batch is drawn from, the newest ones; >= 1"""

    def __post_init__(self) -> None:
        low = {"batch_size": self.batch_size, "warmup_steps": self.warmup_steps, "fit_every": self.fit_every,
               "replay_capacity": self.replay_capacity, "rollout_every": self.rollout_every,
               "rollout_starts": self.rollout_starts, "epoch_steps": self.epoch_steps,
               "kept_rollouts": self.kept_rollouts}  # fmt: skip
        for name, value in low.items():
            if value < 1:
                raise ValueError(f"{name}={value} must be >= 1")
        if self.updates_per_step <= 0:
            raise ValueError(f"updates_per_step={self.updates_per_step} must be > 0")
        if not 0 <= self.real_share <= 1:
            raise ValueError(f"real_share={self.real_share} must lie in [0, 1]")
        if self.real_share < 1 and max(self.horizon.start, self.horizon.end) < 1:
            raise ValueError(f"real_share={self.real_share} imagines, which needs a horizon >= 1, got {self.horizon}")


MEASURED = 256
"""branch starts at which policy and model are compared with what they were"""


class World(Protocol):
    """A model of the world that can be fitted: a learned ensemble, or the true game, which has nothing to fit."""

    @property
    def kernel(self) -> Kernel:
        """What to imagine in."""
        ...

    def fit(self, replay: Replay, rng: torch.Generator) -> Metrics:
        """Fit to the real rows of `replay`; what came of it by metric tag."""
        ...

    def doubt(self, window: Window, act: Tensor) -> Tensor | None:
        """How far the model may be off at each situation, a total variation `(B,)`; None where it cannot tell."""
        ...


class Opponents(Protocol):
    """Who plays the others in imagination: models with errors, and the rule that turns errors into lengths."""

    @property
    def models(self) -> OpponentModels:
        """They answer where the table says MODEL."""
        ...

    def fit(self, replay: Replay, rng: torch.Generator) -> Metrics:
        """Fit the models to the newest real rows."""
        ...

    def table(self, horizon: int) -> Tensor:
        """(N, N, horizon) int8: who answers for each agent at each step of each ego's branches."""
        ...


class Dyna(OffPolicyAlgorithm[Policy]):
    """The model-based wrapper: collects nothing, but fits, imagines and improves on the rows it is given."""

    checkpoint_skip = ("replay", "imagined", "ledger", "metrics", "_reader", "on_phase", "stats", "relabel", "aims",
                       "branch_relabel")  # fmt: skip
    """saved apart, or made again by the next step"""

    def __init__(
        self,
        spec: GameSpec,
        config: DynaConfig,
        learner: OffPolicyAlgorithm[Any],
        actor: Actor,
        rng: Callable[[str], torch.Generator],
        *,
        world: World | None = None,
        opponents: Opponents | None = None,
        real_opponents: Actor | None = None,
        relabel: Relabeller | None = None,
        aims: Relabeller | None = None,
        branch_relabel: BranchRelabeller | None = None,
        pursuit: Pursuer | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            spec: the game. config: the numbers.
            learner: the tianshou algorithm that is improved. actor: its policies, which also answer in imagination.
            rng: a generator on the device for each named stream: "act", "fit", "imagine", "sample".
            world: what to imagine in; needed where `real_share` < 1.
            opponents: models of the others, for one branch per ego; None: all agents of a branch answer by `actor` and
                its rows serve all of them.
            real_opponents: who is asked where the table says so; None: `actor`.
            relabel: gives the real rows of an update their goals; None: those that were pursued. A world that it looks
                into is fitted even where nothing is imagined.
            aims: likewise the real states that are branched from.
            branch_relabel: gives imagined rows other goals than those that their branches pursued.
            pursuit: gives episodes their goals; None: they are the game's own.

        Raises:
            ValueError: the configuration imagines, but there is no world; or the learner wants returns over several
                steps, which a mix of rows does not have.
        """
        if config.real_share < 1 and world is None:
            raise ValueError(
                f"real_share={config.real_share} imagines, but there is no world; pass one, or real_share=1"
            )
        steps = getattr(learner, "n_step_return_horizon", 1)
        if steps != 1:
            raise ValueError(f"the learner's n_step_return_horizon={steps} must be 1: rows of a mix have no successors")
        super().__init__(policy=learner.policy)
        self.spec, self.config, self.learner, self.actor = spec, config, learner, actor
        self.world = world if config.real_share < 1 or relabel is not None else None
        self.relabel, self.aims, self.branch_relabel, self.pursuit = relabel, aims, branch_relabel, pursuit
        self.opponents = opponents
        self.answerers = Answerers(policy=actor, models=opponents.models if opponents else None, real=real_opponents)
        self.device = torch.device(device)
        self.act_rng, self.fit_rng, self.imagine_rng, self.sample_rng = (
            rng(name) for name in ("act", "fit", "imagine", "sample")
        )
        self.ledger = Ledger(spec.n, device=device)
        egos = spec.n if opponents else 1
        longest = max(config.horizon.start, config.horizon.end)
        rows = egos * config.rollout_starts * longest * config.kept_rollouts
        self.imagined = (
            Replay(spec, rows, egos, device=device, per_ego=opponents is not None) if config.real_share < 1 else None
        )
        self.renamings = Renamings(spec, device) if config.symmetries and spec.symmetries else None
        gamma, compared = getattr(learner, "gamma", None), getattr(actor, "divergence", None)
        self.terms = LiveTerms(learner.policy, gamma) if self.world and gamma is not None and compared else None
        """of the bound; None where nothing is imagined, or where policies cannot be compared"""
        self.env_steps = 0
        self.updates = 0
        self.horizon = config.horizon.start
        """imagined steps of the latest branches"""
        self.debt = 0.0
        """updates owed: a fraction that has not made up a whole one yet"""
        self.next_fit = self.next_rollout = config.warmup_steps
        self.metrics: Metrics = {}
        """the latest of every quantity, by metric tag"""
        self.stats: TrainingStats | None = None
        """what the learner said of its last update; None before the first"""
        self.on_phase: Callable[[str], None] | None = None
        """called with "fit", "rollout" or "update" as each begins"""
        self._reader: BufferReader | None = None

    @property
    def persistent(self) -> dict[str, Any]:
        """Parts that save themselves: those that `learner_state` leaves out."""
        return self_saving({"ledger": self.ledger, "relabel": self.relabel}, self.world)

    @property
    def replay_capacity(self) -> int:
        """Real rows kept."""
        return self.config.replay_capacity

    def losses(self) -> Metrics:
        """What the learner said of its last update, by metric tag; {} before the first."""
        told: Mapping[str, Tensor] = getattr(self.relabel, "metrics", {})
        goals = {name: float(value) for name, value in told.items()} if self.updates else {}
        return learner_metrics(self.spec, self.learner, self.stats) | goals

    # ---------------------------------------------------------------- acting

    def explore(self, view: View) -> Tensor:
        """Joint actions `(C, A)` for collection: uniform while warming up, then the policies' samples."""
        if self.env_steps < self.config.warmup_steps:
            return self.spec.random_action(view.acting, view.legal, self.act_rng)
        act = self.actor.step(None, view, self.act_rng)[1]
        return act if self.pursuit is None else self.pursuit.explore(view, act)

    # -------------------------------------------------------------- learning

    def learn(self, replay: Replay, rows: Rows) -> None:
        """Take note of `rows`, which were just inserted into `replay`, and do all that is due by now."""
        self._count(rows)
        if self.env_steps < self.config.warmup_steps:
            return
        self.prepare(replay)
        self.debt += self.config.updates_per_step * len(rows)
        while self.debt >= 1 - 1e-9:
            self.debt -= 1
            self.improve(replay)

    def _count(self, rows: Rows) -> None:
        self.env_steps += len(rows)
        self.ledger.add_real_steps(rows.acting)
        if self.pursuit is not None:
            self.metrics |= self.pursuit.metrics

    def prepare(self, replay: Replay) -> None:
        """Fit the model and imagine, where it is time."""
        if self.world is None:
            return
        if self.env_steps >= self.next_fit:
            self.next_fit = self._after(self.next_fit, self.config.fit_every)
            self._begin("fit")
            self.metrics |= self.world.fit(replay, self.fit_rng)
        if self.env_steps >= self.next_rollout:
            self.next_rollout = self._after(self.next_rollout, self.config.rollout_every)
            if self.opponents is not None:
                self._begin("fit")
                self.metrics |= self.opponents.fit(replay, self.fit_rng)
            self.imagine(replay)

    def _after(self, due: int, every: int) -> int:
        """The first of the times `due`, `due + every`, ... that is still to come."""
        return due + ((self.env_steps - due) // every + 1) * every

    @torch.no_grad()
    def imagine(self, replay: Replay) -> None:
        """Branch from real states and store the imagined rows, each with its ego."""
        if self.world is None or self.imagined is None:
            return
        self._begin("rollout")
        horizon = self.horizon = self.config.horizon.at(self.env_steps // self.config.epoch_steps, self.horizon)
        egos, starts = self.imagined.lanes, self.config.rollout_starts
        index = replay.sample(egos * starts, self.imagine_rng)
        window = replay.window(index, self.spec.frames)
        if self.aims is not None:
            aimed = self.aims(episodic(replay), index, replay.rows(index), self.imagine_rng)
            window = replace(window, now=replace(window.now, desired=aimed.desired))
        if self.opponents is None:
            ego = torch.full((starts,), ALL_AGENTS, device=self.device)
            table = torch.zeros(1, self.spec.n, horizon, dtype=torch.int8, device=self.device)
        else:
            ego = torch.arange(egos, device=self.device).repeat_interleave(starts)
            table = self.opponents.table(horizon)
            modelled = (table == Answer.MODEL.value).sum((0, 2)) / max(egos - 1, 1)  # mean over the egos that model it
            names = zip(self.spec.names, modelled.tolist(), strict=True)
            self.metrics |= {f"opponent/{name}/rollout_len": steps for name, steps in names}
        if self.terms is not None:
            some = window[: min(len(window), MEASURED)]
            act = self.actor.step(self.actor.init(some), some.now, None)[1]
            self.metrics |= self.terms.measure(
                self.policy, self.actor.divergence, some.now, self.world.doubt(some, act)  # type: ignore[attr-defined]  # LiveTerms need an actor that has it
            )  # fmt: skip
        imagined = self.imagined

        steps: list[tuple[Rows, Tensor]] = []

        def keep(rows: Rows) -> None:
            imagined.extend(rows, rows.ego.long().clamp_min(0))

        def store(rows: Rows, branch: Tensor) -> None:
            if self.branch_relabel is None:
                keep(rows)
            else:
                steps.append((rows, branch))

        branch_rollouts(
            self.spec, self.world.kernel, self.answerers, window, ego, table, self.imagine_rng, store, self.ledger
        )
        if self.branch_relabel is not None:
            for rows in self.branch_relabel(steps, self.imagine_rng):
                keep(rows)
        self.metrics["model/rollout_len"] = float(horizon)

    def mix(self, replay: Replay) -> Rows:
        """The rows of one update: real ones for everybody, then imagined ones, equally many for each ego."""
        size = self.config.batch_size
        if self.imagined is None or self.horizon == 0 or min(self.imagined.filled) == 0:
            return self._renamed(self._real(replay, size), size)
        real = round(self.config.real_share * size)
        share = size - real
        newest = self.config.rollout_starts * self.horizon * self.config.kept_rollouts
        index = self.imagined.sample_lanes(share, self.sample_rng, newest)
        imagined = self._renamed(self.imagined.rows(index), share)
        if real == 0:
            return imagined
        return concatenate([self._renamed(self._real(replay, real), real), imagined])

    def _real(self, replay: Replay, size: int) -> Rows:
        """Real rows, under the goals that they are to be learned from."""
        index = replay.sample(size, self.sample_rng)
        rows = replay.rows(index)
        return rows if self.relabel is None else self.relabel(episodic(replay), index, rows, self.sample_rng)

    def _renamed(self, rows: Rows, size: int) -> Rows:
        """Rows under random renamings; `size` of them are drawn and serve every ego, whose rows stay equally many."""
        if self.renamings is None or size == 0:
            return rows
        chosen = self.renamings.draw(size, self.sample_rng)
        return self.renamings.rows(rows, chosen.repeat(len(rows) // size))

    def improve(self, replay: Replay) -> TrainingStats:
        """One update of the learner on a fresh mix."""
        self._begin("update")
        with policy_within_training_step(self.policy):
            stats = self.learner.update(OneBatch(self.mix(replay)), 0)
        self.updates += 1
        self.stats = stats
        return stats

    def _begin(self, phase: str) -> None:
        if self.on_phase is not None:
            self.on_phase(phase)

    # ----------------------------------------------------- under tianshou

    def update(self, buffer: ReplayBuffer, sample_size: int | None) -> TrainingStats:
        """tianshou's door: read what its collector added to `buffer`, do what is due, and make one update.

        Nothing is updated before `config.warmup_steps`. `sample_size` is not read: the batch is `config.batch_size`
        rows of the mix.

        Raises:
            RuntimeError: episodes are to be given goals, which tianshou's collector does not do.
        """
        if self.pursuit is not None:
            raise RuntimeError("a source of goals works in presage's own training; leave it out under tianshou's")
        if self._reader is None:
            self._reader = BufferReader(self.spec, buffer, self.config.replay_capacity, self.device)
        for rows in self._reader.new_rows(buffer):
            self._count(rows)
        if self.env_steps < self.config.warmup_steps:
            return TrainingStats()
        self.prepare(self._reader.replay)
        return self.improve(self._reader.replay)

    def _update_with_batch(self, batch: Any) -> TrainingStats:
        return self.learner._update_with_batch(batch)
