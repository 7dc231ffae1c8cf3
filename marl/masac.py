"""Multi-agent soft actor-critic (MASAC): soft actor-critic (Haarnoja et al. 2018, 1812.05905) for each agent, with
centralised twin critics over the joint observation and action (as MADDPG, Lowe et al. 2017) and decentralised policies.

All agents' networks of one shape are stacked: one update is a handful of batched products whatever the number of
agents. With one agent and box actions it is SAC, to rounding. `critic="own"` gives independent soft actor-critic.

Shape suffixes: B batch, N agents, g agents of a group (equal widths), K choices of a discrete action, A, O as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm, TrainingStats
from tianshou.algorithm.optim import TorchOptimizerFactory
from torch import Tensor, nn

from presage.common.game import ALL_AGENTS, AgentSpec, GameError, GameSpec, Rows, View
from presage.common.heads import (
    Group,
    answer,
    choice_log_probabilities,
    choices,
    join,
    join_agents,
    target_entropy,
)
from presage.common.networks import Activation, StackedMLP
from presage.common.one_batch import rows_of_batch
from presage.common.policy import JointPolicy

Teammates = Callable[[View, Tensor], Tensor]
"""(view of R rows, ego (R,)) -> actions (R, A) that each row's ego expects of the others (its own slice is ignored)"""


@dataclass(frozen=True, kw_only=True)
class MASACConfig:
    """The numbers of multi-agent SAC."""

    hidden: tuple[int, ...] = (128, 128)
    """widths of the hidden layers of policies and critics"""
    activation: Activation = "relu"
    """after every hidden layer"""
    learning_rate: float = 1e-3
    """Adam's step size for policies, critics and temperatures; > 0"""
    discount: float = 0.95
    """gamma, in [0, 1]"""
    target_rate: float = 0.01
    """tau: share of the critics that moves into their targets, in (0, 1]"""
    target_every: int = 1
    """updates between two moves of the targets; >= 1"""
    geometry: bool = True
    """whether policies and critics read the lengths and directions of the vectors that the game declares as well"""
    critic: Literal["joint", "own"] = "joint"
    """what an agent's critic reads: everybody's observations and actions, or its own alone (independent SAC)"""
    discrete_gradient: Literal["gumbel", "expectation"] = "gumbel"
    """discrete policies learn through straight-through Gumbel samples, or by exact expectation over the own action"""
    temperature: float | None = None
    """alpha; None learns one per agent towards the entropy target"""
    initial_temperature: float = 0.2
    """alpha at the start where it is learned; > 0"""
    entropy_target: Literal["share", "width"] = "share"
    """entropy target of discrete actions: a share of the maximum, or, as in AORPO's released code, minus the width of
    the slice, which no discrete policy can go below: alpha then falls to 0. Box actions use minus the width"""
    discrete_entropy_share: float = 0.3
    """entropy target "share" of discrete actions, of the maximum log K; in (0, 1)"""

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount={self.discount} must lie in [0, 1]")
        if not 0 < self.target_rate <= 1:
            raise ValueError(f"target_rate={self.target_rate} must lie in (0, 1]")
        if self.target_every < 1:
            raise ValueError(f"target_every={self.target_every} must be >= 1")
        if self.learning_rate <= 0 or self.initial_temperature <= 0:
            raise ValueError(
                f"learning_rate={self.learning_rate} and initial_temperature={self.initial_temperature} must be > 0"
            )
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must be >= 0, or None to learn it")
        if not 0 < self.discrete_entropy_share < 1:
            raise ValueError(f"discrete_entropy_share={self.discrete_entropy_share} must lie in (0, 1)")

    def target_of(self, agent: AgentSpec) -> float:
        """The entropy that the agent's temperature is learned towards, in nats."""
        if self.entropy_target == "width":
            return -float(agent.width)
        return target_entropy(agent.heads, self.discrete_entropy_share)


class MASAC(OffPolicyAlgorithm[JointPolicy]):
    """Soft actor-critic for every agent of a game at once; a tianshou off-policy algorithm."""

    checkpoint_skip = ("metrics",)
    """made again by every update"""

    def __init__(
        self,
        spec: GameSpec,
        config: MASACConfig,
        init_rng: torch.Generator,
        rng: torch.Generator,
        *,
        device: torch.device | str = "cpu",
        teammates: Teammates | None = None,
        policy: JointPolicy | None = None,
    ) -> None:
        """
        Args:
            spec: the game. config: the numbers.
            init_rng: draws initial weights, on the CPU. rng: draws the actions inside updates, on `device`.
            teammates: who speaks for the others in targets and policy losses: an ego's opponent models (AORPO), or
                None for the others' own current policies.
            policy: what is improved; None: policies over everybody's own observation.
        """
        super().__init__(
            policy=policy or JointPolicy(spec, config.hidden, init_rng, rng, config.activation, device, config.geometry)
        )
        self.spec, self.config, self.rng, self.teammates = spec, config, rng, teammates
        self.groups = self.policy.groups

        def width(g: Group) -> int:
            own = g.obs.shape[1] + g.act.shape[1]
            return own if config.critic == "own" else spec.obs_dim + spec.act_dim

        def vectors(g: Group) -> tuple[tuple[int, ...], ...]:
            seen = g.vectors if config.critic == "own" else spec.vectors
            return seen if config.geometry else ()

        self.critic = nn.ModuleList(
            StackedMLP(2 * len(g.agents), width(g), config.hidden, 1, init_rng, config.activation, vectors=vectors(g))
            for g in self.groups
        ).to(device)
        self.critic_old = deepcopy(self.critic)
        self.critic_old.requires_grad_(False)
        start = config.initial_temperature if config.temperature is None else max(config.temperature, 1e-30)
        self.log_alpha = nn.Parameter(torch.full((spec.n,), start, device=device).log())
        self.register_buffer(
            "target_entropy", torch.tensor([config.target_of(agent) for agent in spec.agents], device=device)
        )
        self.choices = [
            choices(g.heads).to(device) if g.discrete and config.discrete_gradient == "expectation" else None
            for g in self.groups
        ]
        """per group, every joint choice of a discrete action where the expectation over them is taken"""
        adam = TorchOptimizerFactory(torch.optim.Adam, lr=config.learning_rate, fused=True)
        self.policy_optim = self._create_optimizer(self.policy.actors, adam)
        self.critic_optim = self._create_optimizer(self.critic, adam)
        self.alpha_optim = self._create_optimizer(nn.ParameterList([self.log_alpha]), adam)
        self.updates = 0
        self.metrics: dict[str, Tensor] = {}
        """the last update's losses and temperatures, per agent, on the device"""

    target_entropy: Tensor

    @property
    def gamma(self) -> float:
        """The discount, by the name that tianshou's algorithms give it."""
        return self.config.discount

    @property
    def alpha(self) -> Tensor:
        """Temperatures `(N,)`, without gradient."""
        return self.log_alpha.detach().exp()

    # ------------------------------------------------------------ values

    def _critic_inputs(self, group: Group, obs: Tensor, act: Tensor) -> Tensor:
        """What the group's critics read of obs `(B, O)` or `(g, B, O)` and act likewise: `(B, in)` or `(g, B, in)`."""
        if self.config.critic == "own":
            return torch.cat([_own(group.obs, obs), _own(group.act, act)], -1)
        if obs.ndim < act.ndim:
            obs = obs.expand(len(act), -1, -1)
        return torch.cat([obs, act], -1)

    def _twin_values(self, critic: nn.Module, group: Group, inputs: Tensor, frozen: bool) -> Tensor:
        """Both critics of the group's agents: `(2, g, B)`."""
        values: Tensor = critic(inputs, frozen=frozen)
        return values.view(2, len(group.agents), -1)

    def _soft_values(self, critics: nn.ModuleList, rows: AgentRows, view: View, ego: Tensor) -> tuple[Tensor, Tensor]:
        """`V_i = min_m Q_i,m(s, a) - alpha_i log pi_i(a_i | o_i)` and `log pi_i`, differentiable in the policies.

        The own action is a reparametrised sample, or the critics are averaged over it exactly; the others' actions are
        what the ego expects of them, without gradient.

        Args:
            critics: the critics or their targets; no gradient reaches their weights.
            rows: which of the R rows each agent uses. view, ego: the R views and whose rows they are.

        Returns:
            (N, B) each.
        """
        answers = self._answers(rows, view)
        others = self._others(rows, view, ego, [own.sample for own in answers])
        values = []
        for group, critic, own in zip(self.groups, critics, answers, strict=True):
            obs, base = rows.of(view.obs, group.agents), rows.of(others, group.agents)
            value = self._values_against(critic, group, obs, base, own.tried)
            value = value.squeeze(2) if own.chance is None else (own.chance * value).sum(2)
            values.append(value - self.alpha[list(group.agents)][:, None] * own.log_prob)
        return join_agents(self.groups, values), join_agents(self.groups, [own.log_prob for own in answers])

    def _answers(self, rows: AgentRows, view: View) -> list[_Answers]:
        """What the agents of every group answer in their rows; the zero action, without entropy, if not acting."""
        acting = rows.of_agent(view.acting) if self.spec.acting_varies else None
        found = []
        described = self.policy.parameters_of(view, rows.index)
        for group, parameters, table in zip(self.groups, described, self.choices, strict=True):
            legal = None
            if self.spec.legal_varies and group.discrete:
                legal = _own(group.act, rows.of(view.legal, group.agents))
            # averaged: the gradient of one discrete sample's log-probability is 0 on average
            sample, log_prob = answer(group.heads, parameters, legal, self.rng, averaged=True)
            tried, chance = sample[:, :, None], None
            if table is not None:
                table = table.to(sample)
                tried = table.expand(*sample.shape[:2], -1, -1)
                chance = choice_log_probabilities(group.heads, parameters, legal, table).exp()
            if acting is not None:
                acts = acting[list(group.agents)]
                tried, log_prob = tried * acts[..., None, None], log_prob * acts
            found.append(_Answers(sample, tried, chance, log_prob))
        return found

    def _values_against(self, critic: nn.Module, group: Group, obs: Tensor, base: Tensor, tried: Tensor) -> Tensor:
        """Smaller twin value `(g, B, K)` of K own actions `tried (g, B, K, a)` with the others' actions as in `base`.

        Args:
            obs, base: `(B, O)` and `(B, A)`, or `(g, B, O)` and `(g, B, A)`.
        """
        agents, rows, count, _ = tried.shape

        def repeated(x: Tensor) -> Tensor:
            return x.expand(agents, -1, -1)[:, :, None].expand(-1, -1, count, -1).flatten(1, 2)

        place = group.act[:, None].expand(-1, rows * count, -1)
        joint = repeated(base).scatter(2, place, tried.flatten(1, 2))
        inputs = self._critic_inputs(group, repeated(obs), joint)
        return self._twin_values(critic, group, inputs, frozen=True).amin(0).view(agents, rows, count)

    @torch.no_grad()
    def _others(self, rows: AgentRows, view: View, ego: Tensor, own: list[Tensor]) -> Tensor:
        """What every agent does in each of the R rows, `(R, A)`, as its ego sees it; the own slice is not read."""
        if self.teammates is not None:
            return self.teammates(view, ego)
        if rows.index is None:  # every policy has just answered for every row
            return self.policy.silence(join(self.groups, own), view).detach()
        return self.policy.step(None, view, self.rng)[1]

    # ------------------------------------------------------------ losses

    @torch.no_grad()
    def targets(self, rows: Rows, agent_rows: AgentRows) -> Tensor:
        """`y_i = r_i + gamma (1 - terminated_i) V'_i(s')` with the target critics, (N, B)."""
        value, _ = self._soft_values(self.critic_old, agent_rows, rows.next_view, rows.ego)
        value = value.masked_fill(agent_rows.of_agent(rows.terminated), 0)
        return agent_rows.of_agent(rows.reward) + self.config.discount * value

    def critic_loss(self, rows: Rows, agent_rows: AgentRows, targets: Tensor) -> Tensor:
        """Squared errors of both critics, added; mean over rows: (N,)."""
        losses = []
        for k, group in enumerate(self.groups):
            inputs = self._critic_inputs(
                group, agent_rows.of(rows.obs, group.agents), agent_rows.of(rows.act, group.agents)
            )
            error = self._twin_values(self.critic[k], group, inputs, frozen=False) - targets[list(group.agents)]
            losses.append(error.square().mean(-1, keepdim=True).sum(0))
        return join_agents(self.groups, losses).squeeze(1)

    def policy_loss(self, rows: Rows, agent_rows: AgentRows) -> tuple[Tensor, Tensor]:
        """`-V_i(s)` and the entropy `-log pi_i`, means over the rows in which the agent acts: (N,) each.

        An agent that acts in no row has the loss 0 and an entropy on target, so that its temperature stays.
        """
        value, log_prob = self._soft_values(self.critic, agent_rows, rows.view, rows.ego)
        log_prob = log_prob.detach()
        if not self.spec.acting_varies:
            return -value.mean(1), -log_prob.mean(1)
        acts = agent_rows.of_agent(rows.acting).to(value.dtype)
        share = acts / acts.sum(1, keepdim=True).clamp_min(1)
        spread = torch.where(acts.any(1), -(log_prob * share).sum(1), self.target_entropy)
        return -(value * share).sum(1), spread

    # ------------------------------------------------------------ update

    def _update_with_batch(self, batch: Any) -> TrainingStats:
        rows = rows_of_batch(self.spec, batch, self.log_alpha.device)
        agent_rows = AgentRows.of_rows(rows, self.spec.n)
        if self.teammates is not None:  # others' answers differ from ego to ego: every ego gets rows of its own
            rows, agent_rows = agent_rows.spread(rows, self.spec.n)
        targets = self.targets(rows, agent_rows)
        critic_loss = self.critic_loss(rows, agent_rows, targets)
        self.critic_optim.step(critic_loss.sum())
        policy_loss, spread = self.policy_loss(rows, agent_rows)
        self.policy_optim.step(policy_loss.sum())
        if self.config.temperature is None:
            self.alpha_optim.step((self.log_alpha * (spread - self.target_entropy)).sum())
        self.updates += 1
        if self.updates % self.config.target_every == 0:
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.critic_old.parameters()), list(self.critic.parameters()), self.config.target_rate
                )
        self.metrics = {
            "critic_loss": critic_loss.detach(), "policy_loss": policy_loss.detach(), "entropy": spread,
            "temperature": self.alpha, "target": targets.mean(1),
        }  # fmt: skip
        return TrainingStats()


class _Answers(NamedTuple):
    """What the agents of one group answer, each in its own rows."""

    sample: Tensor
    """(g, B, a) one action"""
    tried: Tensor
    """(g, B, K, a) the actions that the critics judge: the sample alone, or every choice"""
    chance: Tensor | None
    """(g, B, K) their probabilities; None for the sample alone"""
    log_prob: Tensor
    """(g, B) of the sample for box actions, its mean over the own action for discrete ones"""


@dataclass(frozen=True)
class AgentRows:
    """Which of R rows each agent's losses use: all of them in order (`index` None), or `index (N, B)`."""

    index: Tensor | None
    length: int
    """B"""

    @classmethod
    def of_rows(cls, rows: Rows, n: int) -> AgentRows:
        """Rows without ego serve everybody; rows with one serve that agent, and every agent has equally many.

        Raises:
            GameError: the egos have different numbers of rows.
        """
        shared = rows.ego == ALL_AGENTS
        if bool(shared.all()):
            return cls(None, len(rows))
        everybody = shared.nonzero().squeeze(1)
        counts = torch.bincount(rows.ego[~shared].long(), minlength=n)
        if int(counts.min()) != int(counts.max()):
            raise GameError(f"a batch must hold equally many rows for every ego, got {counts.tolist()}")
        own = torch.argsort(rows.ego.long(), stable=True)[len(everybody) :].view(n, -1)
        index = torch.cat([everybody.expand(n, -1), own], 1)
        return cls(index, index.shape[1])

    def spread(self, rows: Rows, n: int) -> tuple[Rows, AgentRows]:
        """The same rows ego after ego, each copied for every ego that uses it: `(n B)` rows."""
        everybody = torch.arange(self.length, device=rows.obs.device).expand(n, -1)
        index = everybody if self.index is None else self.index
        ego = torch.arange(n, device=index.device, dtype=torch.int16).repeat_interleave(self.length)
        places = torch.arange(n * self.length, device=index.device).view(n, -1)
        return rows[index.reshape(-1)].with_(ego=ego), AgentRows(places, self.length)

    def of(self, x: Tensor, agents: tuple[int, ...]) -> Tensor:
        """A row quantity `(R, X)` as some agents' losses see it: `(g, B, X)`, or itself where all share the rows."""
        return x if self.index is None else x[self.index[list(agents)]]

    def of_agent(self, x: Tensor) -> Tensor:
        """A per-agent quantity `(R, N)` at each agent's own rows: `(N, B)`."""
        return x.T if self.index is None else x.T.gather(1, self.index)


def _own(index: Tensor, x: Tensor) -> Tensor:
    """Each agent's own columns `index (g, w)` of joint vectors `(B, X)` or `(g, B, X)`: `(g, B, w)`."""
    if x.ndim == 2:
        return x[:, index].transpose(0, 1)
    return x.gather(2, index[:, None].expand(-1, x.shape[1], -1))
