"""AORPO: multi-agent model-based policy optimisation with adaptive opponent-wise rollouts (Zhang, Wang, Shen, Zhou,
IJCAI 2021, 2105.03363).

Every agent is an ego with its own policy, critics and opponent models. It imagines branches in a dynamics model of the
joint state; in them each opponent j is played by the ego's model of it for the first `n_j` steps,

    n_j = floor(k min_l error_l / error_j),

and asked itself (at the cost of one opponent query a step) for the rest of the k steps. Policies and critics are
multi-agent SAC's, whose losses take the others' actions from the opponent models as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm
from torch import Tensor, nn

from presage.common.dyna import Dyna, DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.game import Actor, GameError, GameSpec, GoalRule, Kernel, Rows, View
from presage.common.mbpo import build_world
from presage.common.method import Metrics
from presage.common.propagation import Propagation
from presage.common.replay import Replay
from presage.common.schedules import LengthRamp
from presage.common.streams import Streams
from presage.marl.conditional_policy import ConditionalPolicy
from presage.marl.lengths import LengthRule, Switch, error_from_nll, other_agents, rollout_lengths, who_answers
from presage.marl.masac import MASAC, MASACConfig
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig


@dataclass(frozen=True, kw_only=True)
class AORPOConfig:
    """AORPO's parts."""

    learner: MASACConfig = field(default_factory=MASACConfig)
    """policies, critics and temperatures"""
    loop: DynaConfig = field(default_factory=DynaConfig)
    """when to fit, how far to imagine, what to learn from"""
    model: Literal["ensemble", "true"] = "ensemble"
    """imagine in a learned ensemble, or in the game's own dynamics where it offers them (the limit)"""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    """the networks of the learned world"""
    fit: FitConfig = field(default_factory=FitConfig)
    """how they are fitted"""
    propagation: Propagation = "fresh"
    """which of them answers for a row; see `EnsembleKernel`, whose "moments" are for plans alone"""
    opponents: BehaviourCloningConfig = field(default_factory=BehaviourCloningConfig)
    """the opponent models"""
    rule: LengthRule = "error_ratio"
    """how errors turn into lengths; errors of one-hot and of box actions are in units of their own, so that in a game
    with both kinds of agents an accuracy rule or "uniform" is the fairer choice"""
    switch: Switch = "paper"
    """whether the model answers while u < n, or, as in the released code, while u + 1 < n"""
    others: Literal["models", "policies"] = "models"
    """who speaks for the others in targets and policy losses: the ego's opponent models, or their own policies"""
    policy: Literal["own", "predictions"] = "own"
    """what policies read: their own observation, or, as in the released code, also what their opponent models expect of
    the others, for which everybody's observation is needed when acting"""

    @classmethod
    def official(cls) -> AORPOConfig:
        """The choices of AORPO's released code (commit 6310b67) for its cooperative navigation task.

        Lengths from accuracies, one more query a branch, greedy opponent models of the newest 3072 rows, a horizon that
        is fed back into its own formula, a temperature that falls to 0, targets that move once in 20 updates.

        Left out on purpose, being faults: the query count that is short by a factor of starts over agents; relaxed
        log-probabilities, multiplied over heads; variances taken for standard deviations; rewards standardised twice,
        by two statistics, then times 5; batch normalisation that counts on in target networks; early stopping of the
        dynamics by one sample of one member, and of the opponents by accuracy and across egos; temperature and policy
        updated before the critics, against a greedy next action.

        What no option says: one ensemble per ego (one is shared), clipped gradients of learners and opponent models,
        2.5 imaginings kept (here 3), one pass between two looks at held-out rows, and a warm-up in which untrained
        policies act (here random actions) and learn a little.
        """
        return cls(
            learner=MASACConfig(
                geometry=False, hidden=(64, 64), learning_rate=0.01, discount=0.95, target_rate=0.001, target_every=20,
                initial_temperature=1.0, entropy_target="width",
            ),
            loop=DynaConfig(
                symmetries=False, batch_size=1024, updates_per_step=0.2, warmup_steps=37_500, real_share=0.5,
                replay_capacity=1_000_000,
                fit_every=3_750, rollout_every=100, rollout_starts=1024, epoch_steps=7_500, kept_rollouts=3,
                horizon=LengthRamp(start_epoch=5, end_epoch=25, start=1, end=15, feedback=True),
            ),
            ensemble=EnsembleConfig(
                members=8, elites=8, hidden=(512, 512, 512), linear_skip=False, target="absolute",
                normalise_targets=False, reward_input="joint", geometry=False,
            ),
            fit=FitConfig(
                renamings=0, batch_size=4096, weight_decay=(1e-4, 2.5e-4, 2.5e-4, 5e-4), gradient_clip=200.0,
                max_holdout=200_000,
                holdout_stretch=1, loss="likelihood", learning_rate=1e-3, bootstrap=True,
            ),
            opponents=BehaviourCloningConfig(
                geometry=False, learning_rate=5e-4, entropy_bonus=0.1, window=3072, batch_size=3072, passes=51,
                patience=5, answer="greedy",
            ),
            rule="accuracy_ratio",
            switch="official",
            policy="predictions",
        )  # fmt: skip

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None, single: tuple[OffPolicyAlgorithm[Any], Actor] | None = None,
    ) -> Dyna:  # fmt: skip
        """AORPO on a game; with one agent there is no opponent, and this is MBPO's loop around single-agent MASAC.

        Args:
            single: for a game of one agent, an algorithm and its policy to be improved instead, such as tianshou's SAC
                (`presage.common.sac.build_sac`).

        Raises:
            GameError: `single` is given and the game has several agents.
        """
        if single is not None and spec.n > 1:
            raise GameError(f"{spec.name!r} has {spec.n} agents; `single` learns for one alone, leave it out")
        masac, opponents = self.learners(spec, streams, device)
        learner, actor = single or (masac, masac.policy)
        world = None
        if self.loop.real_share < 1:
            world = build_world(
                spec, self.model, self.ensemble, self.fit, streams, device, true_kernel, self.propagation, goal_rule
            )
        return Dyna(spec, self.loop, learner, actor, streams, world=world, opponents=opponents, device=device)

    def learners(
        self, spec: GameSpec, streams: Streams, device: torch.device
    ) -> tuple[MASAC, AdaptiveOpponents | None]:
        """What learns on a game: policies and critics, and the models of opponents, None for one agent."""
        opponents = AdaptiveOpponents(self, spec, streams, device) if spec.n > 1 else None
        teammates = opponents.speak if opponents is not None and self.others == "models" else None
        init_rng, rng, numbers = streams("learner", "cpu"), streams("update"), self.learner
        policy = None
        if opponents is not None and self.policy == "predictions":
            policy = ConditionalPolicy(
                spec, opponents.models, numbers.hidden, init_rng, rng, numbers.activation, device, numbers.geometry
            )
        return MASAC(spec, numbers, init_rng, rng, device=device, teammates=teammates, policy=policy), opponents


class AdaptiveOpponents(nn.Module):
    """Every ego's opponent models, their held-out errors, and the lengths that follow from them."""

    errors: Tensor
    """(N, N) by (ego, agent); NaN before the first fit, and where the agent acted in none of the held-out rows"""
    accuracies: Tensor
    """likewise"""

    def __init__(self, config: AORPOConfig, spec: GameSpec, streams: Streams, device: torch.device) -> None:
        super().__init__()
        self.spec, self.rule, self.switch = spec, config.rule, config.switch
        self.models = BehaviourCloning(spec, config.opponents, streams("opponents", "cpu"), device=device)
        self.rng = streams("teammates")
        self.opponents = other_agents(spec.n).to(device)
        for name in ("errors", "accuracies"):
            self.register_buffer(name, torch.full((spec.n, spec.n), float("nan"), device=device))

    def fit(self, replay: Replay, rng: torch.Generator) -> Metrics:
        """Fit the models to the newest real rows and take their errors on those held out."""
        return self.fit_rows(replay.rows(replay.latest(self.models.config.window)), rng)

    def fit_rows(self, rows: Rows, rng: torch.Generator) -> Metrics:
        """Fit the models to `rows`, newest last, and take their errors on those held out.

        They are `sqrt(NLL / 2)` of one-hot actions, and half the mean absolute error of box actions.
        """
        found = self.models.fit(rows, rng)
        discrete = torch.tensor([agent.discrete for agent in self.spec.agents], device=found.nll.device)
        unknown = found.nll.isnan()
        of_discrete = error_from_nll(torch.where(discrete & ~unknown, found.nll, 0.0))
        self.errors.copy_(torch.where(discrete, of_discrete, 1 - found.accuracy).masked_fill(unknown, torch.nan))
        self.accuracies.copy_(found.accuracy)
        metrics: Metrics = {"opponent/passes": float(found.passes)}
        for j, agent in enumerate(self.spec.agents):
            others = self.opponents[:, j]
            metrics[f"opponent/{agent.name}/nll"] = float(found.nll[others, j].mean())
            metrics[f"opponent/{agent.name}/accuracy"] = float(found.accuracy[others, j].mean())
            metrics[f"opponent/{agent.name}/entropy"] = float(found.entropy[others, j].mean())
            metrics[f"opponent/{agent.name}/error"] = float(self.errors[others, j].mean())
        return metrics

    def lengths(self, horizon: int) -> Tensor:
        """(N, N) int64: steps for which each ego's model of each agent answers; 0 where its error is not known."""
        scores = self.accuracies if self.rule.startswith("accuracy") else self.errors
        return rollout_lengths(self.rule, horizon, scores, self.opponents & ~scores.isnan())

    def table(self, horizon: int) -> Tensor:
        """(N, N, horizon) int8: who answers for each agent at each step of each ego's branches."""
        return who_answers(self.lengths(horizon), horizon, self.switch)

    def speak(self, view: View, ego: Tensor) -> Tensor:
        """What each row's ego expects of the others, `(R, A)`, for the learner's losses; rows are ego-major."""
        return self.models.step(None, view, self.rng)[1]
