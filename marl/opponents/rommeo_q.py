"""ROMMEO-Q: the regularised opponent model of `presage.marl.opponents.rommeo`, for games of finitely many states and
joint actions (Tian et al. 2019, 1905.08087).

    Q_i(s, a, a-)  moves towards  r_i + gamma V_i(s'),        P_i(a- | s) = C(s, a-) / C(s),

with V, pi and rho by their closed forms and C counted from what everybody did. With `model="empirical"` an agent
answers the prior itself, each of its actions for itself: the paper's ablation. With `model="averaged"` it answers what
its actions are worth on average over the prior: the joint action learner (JAL) of Claus and Boutilier 1998.

A game has one state where nobody sees anything that changes, or as many as the one-hot observation that all agents see.

Shape suffixes: B rows, N agents, S states, A action, C = prod K joint actions (the last agent's choice varies fastest),
K an agent's choices, J = C / K those of all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm, Policy, TrainingStats
from tianshou.data import Batch
from torch import Tensor

from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import Carry, GameError, GameSpec, GoalRule, Kernel, Rows, View, Window
from presage.common.heads import choices
from presage.common.one_batch import rows_of_batch
from presage.common.policy import joint_action_space
from presage.common.streams import Streams
from presage.marl.opponents.annealing import Annealing
from presage.marl.opponents.rommeo import (
    best_answer_values,
    conditional_policy,
    marginal_policy,
    opponent_model,
    soft_value,
)
from presage.marl.opponents.seats import check_rows

Belief = Literal["regularised", "empirical", "averaged"]
"""what an agent answers: its biased model of the others, what it has seen them do, or the average over that"""


def _real_rows() -> DynaConfig:
    return DynaConfig(real_share=1.0, batch_size=32, warmup_steps=100, updates_per_step=1.0)


@dataclass(frozen=True, kw_only=True)
class ROMMEOQConfig:
    """ROMMEO-Q for all agents of a small game."""

    model: Belief = "regularised"
    """"empirical" is the paper's ablation, "averaged" the joint action learner"""
    learning_rate: float = 0.1
    """share of the way that a value moves to its target in an update, in (0, 1]"""
    discount: float = 0.95
    """gamma, in [0, 1]"""
    temperature: Annealing = Annealing(end=1.0)  # noqa: RUF009 - it is frozen
    """alpha, the weight of the policy's entropy, in units of reward; its end > 0"""
    prior_weight: float = 1.0
    """beta, the weight of the model's divergence from the prior, in units of reward; > 0"""
    pseudo_count: float = 1.0
    """what every joint choice of the others counts before anything was seen; > 0"""
    memory: float | None = None
    """rows after which one counts e times less in the prior; > 0. None, as in the paper: all count alike"""
    loop: DynaConfig = field(default_factory=_real_rows)
    """how much is collected and updated; what it says of fitting and imagining is not read"""

    def __post_init__(self) -> None:
        if self.model not in get_args(Belief):
            raise ValueError(f"model={self.model!r} must be 'regularised', 'empirical' or 'averaged'")
        if self.loop.real_share != 1:
            raise ValueError(
                f"loop.real_share={self.loop.real_share} must be 1: nothing is imagined with biased models"
            )
        if not 0 < self.learning_rate <= 1 or not 0 <= self.discount <= 1:
            raise ValueError(
                f"learning_rate={self.learning_rate} must lie in (0, 1], discount={self.discount} in [0, 1]"
            )
        memory = 1.0 if self.memory is None else self.memory
        positive = {"temperature.end": self.temperature.end, "prior_weight": self.prior_weight,
                    "pseudo_count": self.pseudo_count, "memory": memory}  # fmt: skip
        for name, value in positive.items():
            if value <= 0:
                raise ValueError(f"{name}={value} must be > 0")

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """ROMMEO-Q on a game; see `presage.common.method.Method`.

        Raises:
            GameError: the game has one agent, box actions, turns, illegal actions or goals.
        """
        learner = ROMMEOQ(spec, self, streams("update"), device=device)
        return Counted(spec, self.loop, learner, learner.policy, streams, device=device)


class Counted(Dyna):
    """`Dyna` on real rows, whose learner counts every one of them once."""

    learner: ROMMEOQ

    def _count(self, rows: Rows) -> None:
        super()._count(rows)
        self.learner.count(rows)


class TabularPolicy(Policy):
    """Every agent's values of all joint actions, what all were seen to do, and how it acts by them; an `Actor`."""

    checkpoint_skip = ("_choices",)
    """made from the spec"""
    values: Tensor
    """(N, S, C) Q"""
    counts: Tensor
    """(S, C) how often each joint action was taken"""
    temperature: Tensor
    """() alpha; follows the learner's updates"""
    seen: Tensor
    """(O) what is seen in a game of one state; NaN before the first row"""

    def __init__(self, spec: GameSpec, config: ROMMEOQConfig, rng: torch.Generator, device: torch.device | str) -> None:
        super().__init__(joint_action_space(spec), action_scaling=False, action_bound_method=None)
        if spec.n < 2 or not spec.discrete or spec.acting_varies or spec.legal_varies or spec.goal_dim:
            raise GameError(
                f"ROMMEO-Q takes two or more agents that always act, among discrete actions that are always legal, and "
                f"no goals; {spec.name!r} is another kind of game. For box actions take ROMMEO-AC"
            )
        self.spec, self.config, self.rng = spec, config, rng
        every = tuple(range(spec.obs_dim))
        self.states = spec.obs_dim if all(agent.obs == every for agent in spec.agents) else 1
        self.sizes = [math.prod(head.size for head in agent.heads) for agent in spec.agents]
        self._choices = [choices(agent.heads).to(device) for agent in spec.agents]
        self.register_buffer("values", torch.zeros(spec.n, self.states, math.prod(self.sizes), device=device))
        self.register_buffer("counts", torch.zeros(self.states, math.prod(self.sizes), device=device))
        self.register_buffer("temperature", torch.tensor(config.temperature.at(0), device=device))
        self.register_buffer("seen", torch.full((spec.obs_dim,), torch.nan, device=device))

    @staticmethod
    def _compile() -> None:
        """Nothing: tianshou compiles its return kernels here, for seconds; this learner calls none of them."""

    def state_of(self, obs: Tensor) -> Tensor:
        """The numbers `(B,)` of the states behind joint observations `(B, O)`.

        Raises:
            GameError: an observation is none of finitely many.
        """
        if self.states == 1:
            if bool((obs != torch.where(self.seen.isnan(), obs[0], self.seen)).any()):
                raise GameError(
                    f"the agents of {self.spec.name!r} see unlike things, and they change; ROMMEO-Q takes games in "
                    "which all see one state as a one-hot vector, or nothing that changes"
                )
            return torch.zeros(len(obs), dtype=torch.int64, device=obs.device)
        if not bool((((obs == 0) | (obs == 1)).all(1) & (obs.sum(1) == 1)).all()):
            raise GameError(f"a joint observation of {self.spec.name!r} is no one-hot state; ROMMEO-Q takes no others")
        return obs.argmax(1)

    @property
    def alpha(self) -> float:
        """The present temperature."""
        return float(self.temperature)

    def joint(self, act: Tensor) -> Tensor:
        """The numbers `(B,)` of joint actions `(B, A)`."""
        number = torch.zeros(len(act), dtype=torch.int64, device=act.device)
        for where, table in zip(self.spec.act, self._choices, strict=True):
            own = (act[:, None, where] == table).all(2).long().argmax(1)
            number = number * len(table) + own
        return number

    def table_of(self, agent: int, joint: Tensor) -> Tensor:
        """A quantity of joint actions `(..., C)` as the agent sees it: `(..., K, J)`, all others' choices in order."""
        before = joint.shape[:-1]
        own = joint.reshape(*before, *self.sizes).movedim(len(before) + agent, len(before))
        return own.reshape(*before, self.sizes[agent], -1)

    def prior(self, agent: int) -> Tensor:
        """P of what all others do, `(S, J)`: the one thing here that predicts them."""
        counted = self.table_of(agent, self.counts).sum(-2) + self.config.pseudo_count
        return counted / counted.sum(-1, keepdim=True)

    def model(self, agent: int) -> Tensor:
        """What the agent answers, `(S, J)`: rho*, or the prior."""
        prior = self.prior(agent)
        if self.config.model != "regularised":
            return prior
        values = self.table_of(agent, self.values[agent])
        return opponent_model(values, prior, self.alpha, self.config.prior_weight)

    def soft_values(self) -> Tensor:
        """V of every agent and state, `(N, S)`."""
        found = []
        for agent in range(self.spec.n):
            values, prior = self.table_of(agent, self.values[agent]), self.prior(agent)
            if self.config.model == "averaged":
                found.append(best_answer_values(self._averaged(agent), self.alpha).squeeze(-1))
            elif self.config.model == "empirical":
                found.append((prior * best_answer_values(values, self.alpha)).sum(-1))
            else:
                found.append(soft_value(values, prior, self.alpha, self.config.prior_weight))
        return torch.stack(found)

    def chances(self, agent: int) -> Tensor:
        """The agent's chances `(S, K)` of its choices: pi* averaged over its model, or pi* of the average."""
        if self.config.model == "averaged":
            return conditional_policy(self._averaged(agent), self.alpha).squeeze(-1)
        return marginal_policy(self.table_of(agent, self.values[agent]), self.model(agent), self.alpha)

    def _averaged(self, agent: int) -> Tensor:
        """What the agent's choices are worth on average over its prior, `(S, K, 1)`."""
        return self.table_of(agent, self.values[agent]) @ self.prior(agent)[..., None]

    def init(self, window: Window) -> Carry:
        """Nothing: the policy is memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`; the most likely choices where rng is None."""
        state, acts = self.state_of(view.obs), []
        for agent, table in enumerate(self._choices):
            chance = self.chances(agent)[state]
            chosen = chance.argmax(1) if rng is None else torch.multinomial(chance, 1, generator=rng)[:, 0]
            acts.append(table[chosen])
        return carry, torch.cat(acts, 1)

    def forward(self, batch: Any, state: Any = None, **kwargs: Any) -> Batch:
        """tianshou's door: samples within a training step, greedy outside."""
        obs = torch.as_tensor(batch.obs, dtype=torch.float32, device=self.values.device)
        rng = self.rng if self.is_within_training_step else None
        return Batch(act=self.step(None, View.of(self.spec, obs), rng)[1], state=state)


class ROMMEOQ(OffPolicyAlgorithm[TabularPolicy]):
    """Tables of all agents, improved together; a tianshou off-policy algorithm."""

    checkpoint_skip = ("metrics",)
    """made again by every update"""

    def __init__(
        self, spec: GameSpec, config: ROMMEOQConfig, rng: torch.Generator, *, device: torch.device | str = "cpu"
    ) -> None:
        """
        Args:
            spec: the game. config: the numbers. rng: draws actions when tianshou's collector asks, on `device`.
        """
        super().__init__(policy=TabularPolicy(spec, config, rng, device))
        self.spec, self.config = spec, config
        self.updates = 0
        self.metrics: dict[str, Tensor] = {}
        """the last update's errors and values, per agent, on the device"""

    @property
    def gamma(self) -> float:
        """The discount, by the name that tianshou's algorithms give it."""
        return self.config.discount

    def count(self, rows: Rows) -> None:
        """Count what was done in rows that were not counted before, oldest first."""
        policy, size = self.policy, len(rows)
        policy.seen.copy_(rows.obs[0].where(policy.seen.isnan(), policy.seen))
        share = torch.ones(size, device=policy.counts.device)
        if self.config.memory is not None:
            policy.counts *= math.exp(-size / self.config.memory)
            share = torch.exp((torch.arange(size, device=share.device) - (size - 1)) / self.config.memory)
        policy.counts.index_put_((policy.state_of(rows.obs), policy.joint(rows.act)), share, accumulate=True)

    def targets(self, rows: Rows) -> Tensor:
        """`y_i = r_i + gamma (1 - terminated_i) V_i(s')`, (N, B)."""
        value = self.policy.soft_values()[:, self.policy.state_of(rows.next_obs)]
        return rows.reward.T + self.config.discount * value.masked_fill(rows.terminated.T, 0)

    @torch.no_grad()
    def _update_with_batch(self, batch: Any) -> TrainingStats:
        policy = self.policy
        rows = rows_of_batch(self.spec, batch, policy.values.device)
        check_rows(rows, "ROMMEO-Q")
        place = policy.state_of(rows.obs) * policy.values.shape[2] + policy.joint(rows.act)
        values = policy.values.flatten(1)
        targets = self.targets(rows)
        errors = targets - values[:, place]
        total = torch.zeros_like(values).index_add_(1, place, errors)
        visits = torch.zeros_like(values[0]).index_add_(0, place, torch.ones_like(errors[0]))
        values += self.config.learning_rate * total / visits.clamp_min(1)  # the mean over rows of the same pair
        self.updates += 1
        policy.temperature.fill_(self.config.temperature.at(self.updates))
        self.metrics = {
            "critic_error": errors.abs().mean(1), "target": targets.mean(1), "temperature": policy.temperature.clone(),
        }  # fmt: skip
        return TrainingStats()
