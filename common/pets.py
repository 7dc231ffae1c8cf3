"""Probabilistic ensembles with trajectory sampling (PETS; Chua, Calandra, McAllister, Levine 2018, 1805.12114): learn a
probabilistic ensemble, and act by planning in it, anew at every env step.

No policy is learned. One agent or several: a plan is one for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig, RewardRule, TerminationRule
from presage.common.evaluate import first_window, renew
from presage.common.fit import FitConfig
from presage.common.game import Carry, GameError, GameSpec, GoalRule, Kernel, Rows, View
from presage.common.learner_state import self_saving
from presage.common.ledger import Ledger
from presage.common.method import Metrics, Pursuer
from presage.common.model_predictive import PlanningActor
from presage.common.planning import CEM, ICEM
from presage.common.propagation import EnsembleKernel, Propagation
from presage.common.replay import Replay
from presage.common.streams import Streams
from presage.common.worlds import GivenWorld, LearnedWorld

PROPAGATION: Mapping[str, Propagation] = {
    "TSinf": "fixed", "TS1": "fresh", "E": "mean", "DS": "mixture", "MM": "moments",
}  # fmt: skip
"""the paper's names for who answers for a particle: one member for a whole plan, a fresh one at every step, the mean, a
Gaussian with the moments of the members' mixture, and the same, refitted to all particles of a plan"""


@dataclass(frozen=True, kw_only=True)
class PETSConfig:
    """PETS's numbers; env steps count over all copies of the game."""

    planner: Literal["cem", "icem"] = "cem"
    """how plans are searched: the paper's cross-entropy method, or its improved form, which needs far fewer plans"""
    cem: CEM = field(default_factory=CEM)
    """numbers of the cross-entropy method"""
    icem: ICEM = field(default_factory=ICEM)
    """numbers of the improved one"""
    sampling: Literal["TSinf", "TS1", "E", "DS", "MM"] = "TSinf"
    """how particles go through the ensemble"""
    particles: int = 20
    """times that each plan is imagined; >= 1"""
    risk: float = 0.0
    """standard deviations over particles that are taken from what a plan is worth; 0 as in the paper"""
    discount: float = 1.0
    """gamma of imagined returns, in [0, 1]; 1 as in the paper"""
    warmup_steps: int = 200
    """env steps of random actions before the first fit: an episode in the paper; >= 1"""
    fit_every: int = 200
    """env steps between two fits: an episode in the paper; >= 1"""
    replay_capacity: int = 100_000
    """real rows kept; >= 1"""
    model: Literal["ensemble", "true"] = "ensemble"
    """plan in a learned ensemble, or in the game's own dynamics where it offers them"""
    rewards: Literal["learned", "given"] = "learned"
    """learn rewards with the dynamics, or take the rule that the game's own dynamics offer, as the paper does"""
    ensemble: EnsembleConfig = field(default_factory=lambda: EnsembleConfig(members=5, elites=5))
    """the networks of the learned world; the paper has five members, all of which imagine"""
    fit: FitConfig = field(default_factory=FitConfig)
    """how they are fitted"""

    def __post_init__(self) -> None:
        low = {"particles": self.particles, "warmup_steps": self.warmup_steps, "fit_every": self.fit_every,
               "replay_capacity": self.replay_capacity}  # fmt: skip
        for name, value in low.items():
            if value < 1:
                raise ValueError(f"{name}={value} must be >= 1")
        if not 0 <= self.discount <= 1 or self.risk < 0:
            raise ValueError(f"discount={self.discount} must lie in [0, 1] and risk={self.risk} be >= 0")
        if self.rewards not in ("learned", "given"):
            raise ValueError(f"rewards={self.rewards!r} must be 'learned' or 'given'")
        if self.sampling not in PROPAGATION:
            raise ValueError(f"sampling={self.sampling!r} must be one of {', '.join(map(repr, PROPAGATION))}")
        if self.sampling == "MM" and self.particles < 2:
            raise ValueError(
                f"sampling='MM' fits a Gaussian to a plan's particles; particles={self.particles} must be >= 2"
            )
        if self.risk and self.particles < 2:
            raise ValueError(f"risk={self.risk} compares a plan's particles; particles={self.particles} must be >= 2")

    @classmethod
    def paper(cls) -> PETSConfig:
        """The numbers of the authors' cart-pole (released code): 400 plans of 25 steps, five iterations, 20 particles,
        networks of 3 x 500, rewards that are given; five passes over the rows a fit.
        """
        return cls(
            rewards="given",
            cem=CEM(horizon=25, population=400, elites=40, iterations=5, smoothing=0.1),
            ensemble=EnsembleConfig(
                members=5, elites=5, hidden=(500, 500, 500), outcome_hidden=(200, 200), linear_skip=False,
                normalise_targets=False, geometry=False,
            ),
            fit=FitConfig(
                loss="likelihood", learning_rate=1e-3, batch_size=32, weight_decay=(1e-4, 2.5e-4, 2.5e-4, 5e-4),
                bootstrap=True, renamings=0,
            ),
        )  # fmt: skip

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> PETS:  # fmt: skip
        """PETS on a game; see `presage.common.method.Method`.

        Raises:
            GameError: the true dynamics or a rule for rewards are asked for and the game does not offer them; or what
                is legal, or who acts, varies.
        """
        return PETS(spec, self, streams, device, true_kernel=true_kernel)


class PETS(nn.Module):
    """A model, a planner in it, and when to fit; what a run trains."""

    checkpoint_skip = ("ledger", "metrics", "memory", "actor", "on_phase")
    """saved apart, or made again"""

    pursuit: Pursuer | None = None
    """plans are for the game's own goals"""

    def __init__(
        self, spec: GameSpec, config: PETSConfig, streams: Streams, device: torch.device, *,
        true_kernel: Kernel | None = None, reward: RewardRule | None = None, terminates: TerminationRule | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            true_kernel: the game's own dynamics, for `config.model="true"` or, if they have a method `reward` that is a
                rule, for `config.rewards="given"`.
            reward, terminates: rules that give rewards and ends, as in the paper, instead of learning them.

        Raises:
            GameError: as for `PETSConfig.build`.
        """
        super().__init__()
        if config.rewards == "given" and reward is None and config.model == "ensemble":
            reward = getattr(true_kernel, "reward", None)
            if reward is None:
                raise GameError(
                    f"{spec.name!r} offers no rule for its rewards; use rewards='learned', or pass reward=..."
                )
        self.spec, self.config, self.device = spec, config, device
        self.world: LearnedWorld | GivenWorld
        if config.model == "true":
            if true_kernel is None:
                raise GameError(f"{spec.name!r} offers no true dynamics to plan in; use model='ensemble'")
            self.policy: nn.Module = nn.Module()  # nothing is learned
            self.world, kernel = GivenWorld(true_kernel), true_kernel
        else:
            ensemble = DynamicsEnsemble(
                spec, config.ensemble, streams("ensemble", "cpu"), reward=reward, terminates=terminates
            ).to(device)
            self.policy = ensemble
            self.world = LearnedWorld(ensemble, config.fit, streams("holdout"))
            kernel = EnsembleKernel(ensemble, PROPAGATION[config.sampling], config.particles)
        self.actor = PlanningActor(
            spec, kernel, config.cem if config.planner == "cem" else config.icem,
            particles=config.particles, risk=config.risk, discount=config.discount,
        )  # fmt: skip
        self.memory = ExplorationMemory(self.actor, device)
        self.act_rng, self.fit_rng = streams("act"), streams("fit")
        self.ledger = Ledger(spec.n, device=device)
        self.env_steps = 0
        self.next_fit = config.warmup_steps
        self.metrics: Metrics = {}
        self.on_phase: Callable[[str], None] | None = None

    imagined = None
    """plans are imagined and forgotten"""

    @property
    def replay_capacity(self) -> int:
        """Real rows kept."""
        return self.config.replay_capacity

    @property
    def persistent(self) -> dict[str, Any]:
        """Parts that save themselves."""
        return self_saving({"ledger": self.ledger, "memory": self.memory}, self.world)

    def explore(self, view: View) -> Tensor:
        """Joint actions `(C, A)`: uniform while warming up, then the first ones of the best plans found."""
        if self.env_steps < self.config.warmup_steps:
            return self.spec.random_action(view.acting, view.legal, self.act_rng)
        return self.memory.step(view, self.act_rng)

    def learn(self, replay: Replay, rows: Rows) -> None:
        """Take note of `rows`, which were just inserted into `replay`, and fit the model where it is time."""
        self.env_steps += len(rows)
        self.ledger.add_real_steps(rows.acting)
        self.memory.forget(rows.truncated | rows.terminated.all(1))
        if self.env_steps >= self.next_fit:
            self.next_fit = (self.env_steps // self.config.fit_every + 1) * self.config.fit_every
            if self.on_phase is not None:
                self.on_phase("fit")
            self.metrics |= self.world.fit(replay, self.fit_rng)

    def losses(self) -> Metrics:
        """Nothing is updated between fits."""
        return {}


class ExplorationMemory:
    """What a planner remembers of the open episodes of C copies, renewed where one ended; it saves itself."""

    def __init__(self, actor: PlanningActor, device: torch.device) -> None:
        self.actor, self.device = actor, device
        self._carry: Carry = None
        self._ended: Tensor | None = None

    def step(self, view: View, rng: torch.Generator) -> Tensor:
        """Joint actions `(C, A)`."""
        if self._carry is None or self._ended is None:
            self._carry = self.actor.init(first_window(self.actor.spec, view))
        elif bool(self._ended.any()):
            self._carry = renew(self._carry, self.actor.init(first_window(self.actor.spec, view)), self._ended)
        self._ended = torch.zeros(len(view), dtype=torch.bool, device=view.obs.device)
        self._carry, act = self.actor.step(self._carry, view, rng)
        return act

    def forget(self, ended: Tensor) -> None:
        """Note in which copies an episode has ended `(C,)`."""
        if self._ended is not None:
            self._ended = self._ended | ended

    def state(self) -> dict[str, Any]:
        """Tensors from which `restore` continues exactly."""
        if self._carry is None or self._ended is None:
            return {}
        return {"carry": [part.cpu() for part in self._carry], "ended": self._ended.cpu()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        if not state:
            self._carry = self._ended = None
            return
        self._carry = tuple(part.to(self.device) for part in state["carry"])
        self._ended = state["ended"].to(self.device)
