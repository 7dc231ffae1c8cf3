"""Multi-agent deep deterministic policy gradients (MADDPG; Lowe, Wu, Tamar, Harb, Abbeel, Mordatch 2017, 1706.02275):
for each agent a deterministic policy over its own observation, and a critic over the joint observation and the joint
action, for which the others are no moving target.

    L(theta_i) = E[ (Q_i(x, a_1, ..., a_N) - y_i)^2 ],  y_i = r_i + gamma Q_i'(x', a_1', ..., a_N'),  a_j' = mu_j'(o_j')

and mu_i climbs Q_i in its own action, beside what the others did. One-hot actions are drawn by the Gumbel-max trick and
pass gradients on as a Gumbel-softmax does. With one agent and box actions it is DDPG, to rounding; `critic="own"` gives
independent DDPG.

With `policies="inferred"` an agent asks its own models of the others in place of their target policies:

    y_i = r_i + gamma Q_i'(x', pi_i1'(o_1'), ..., mu_i'(o_i'), ..., pi_iN'(o_N'))                               (Eq. 8)

The paper feeds them to Q as log-probabilities, undrawn, while the replay holds actions, so that the critic is asked for
what it was never taught. (The released code has no models; there actions are soft Gumbel samples wherever a critic
reads them. Here they are one-hot: games take choices.) So critics read others' one-hot actions in one of two ways,
`critic_input`, in data and in targets alike:

* "actions": what was done, and draws in targets. Rewards and next states depend on nothing else, so that old rows stay
  true: the reason for a joint critic.
* "probabilities": what the others' present policies, or the models of them, say of the row's observations, undrawn as
  in the paper. Targets are less noisy; but what others did is not told, and values are averages over it, as if it were
  what they would do today. Rows much older than the policies make them wrong.

An agent's own action is told in both, and box actions are numbers in both.

Agents are updated at once and on the same rows; in the released code one after the other, each on a batch of its own.

Shape suffixes: R rows, B rows of each agent (R where all share them), N agents, g agents of a group, A joint action, a
own action.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm, TrainingStats
from tianshou.algorithm.optim import TorchOptimizerFactory
from torch import Tensor, nn

from presage.common import heads
from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import GameError, GameSpec, GoalRule, Kernel, Rows, View
from presage.common.heads import Group, join, join_agents
from presage.common.method import Metrics
from presage.common.networks import StackedMLP
from presage.common.one_batch import rows_of_batch
from presage.common.streams import Streams
from presage.marl.deterministic_policy import DeterministicPolicy
from presage.marl.fresh_rows import FreshRows
from presage.marl.gradients import hold_gradients
from presage.marl.masac import AgentRows
from presage.marl.off_policy import OffPolicyConfig
from presage.marl.opponents.annealing import Annealing
from presage.marl.opponents.policy_inference import PolicyInference, PolicyInferenceConfig
from presage.marl.opponents.predicted import Predicted

Policies = Literal["true", "inferred"]
"""whom targets ask what others do: their target policies, or the ego's models of them"""


def _loop() -> DynaConfig:
    return DynaConfig(real_share=1.0, batch_size=256, updates_per_step=1.0, warmup_steps=1_000)


@dataclass(frozen=True, kw_only=True)
class MADDPGConfig(OffPolicyConfig):
    """MADDPG for all agents of a game; the defaults learn from fewer env steps than the paper's numbers do."""

    hidden: tuple[int, ...] = (64, 64)
    """widths of the hidden layers of policies and critics"""
    gradient_clip: float | None = 0.5
    """most that the norm of a weight's or bias's gradient can be, in every network by itself; > 0, None: no limit"""
    noise: Annealing = Annealing(end=0.1)  # noqa: RUF009 - it is frozen
    """standard deviation of what is added to box actions in [-1, 1] where they explore"""
    critic: Literal["joint", "own"] = "joint"
    """what an agent's critic reads: everybody's observations and actions, or its own alone (independent DDPG)"""
    critic_input: Literal["actions", "probabilities"] = "actions"
    """as what critics read the others' one-hot actions; see the module"""
    policies: Policies = "true"
    """whom targets ask what others do: their target policies, or the ego's models of them (policy inference)"""
    inference: PolicyInferenceConfig = field(default_factory=PolicyInferenceConfig)
    """of these models; not read with `policies="true"`"""
    loop: DynaConfig = field(default_factory=_loop)
    """how much is collected and updated; what it says of fitting and imagining is not read"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise ValueError(f"gradient_clip={self.gradient_clip} must be > 0, or None for no limit")
        known = {"critic": ("joint", "own"), "critic_input": ("actions", "probabilities"),
                 "policies": ("true", "inferred")}  # fmt: skip
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(map(repr, choices))}")
        if self.critic == "own" and (self.policies == "inferred" or self.critic_input == "probabilities"):
            raise ValueError(
                f"critic='own' reads nothing of the others, for policies={self.policies!r} and "
                f"critic_input={self.critic_input!r} to tell; take critic='joint', or 'true' and 'actions'"
            )

    @classmethod
    def paper(cls, policies: Policies = "true") -> MADDPGConfig:
        """The numbers of the released code (https://github.com/openai/maddpg): an update every 100 env steps, once 1024
        episodes of 25 env steps are there. Until then play is random here, and by the first policies there.
        """
        loop = DynaConfig(
            real_share=1.0, batch_size=1_024, updates_per_step=0.01, warmup_steps=1_024 * 25, symmetries=False,
            replay_capacity=1_000_000,
        )  # fmt: skip
        return cls(
            learning_rate=1e-2, geometry=False, policies=policies, loop=loop,
            inference=PolicyInferenceConfig(geometry=False),
        )  # fmt: skip

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """MADDPG on a game; see `presage.common.method.Method`.

        Raises:
            GameError: policies are to be inferred in a game of one agent.
        """
        learner = MADDPG(spec, self, streams("learner", "cpu"), streams("update"), device=device)
        kind = Dyna if learner.models is None else Inferring
        return kind(spec, self.loop, learner, learner.policy, streams, device=device)


class Inferring(FreshRows):
    """`Dyna` on real rows, whose models of the others see the newest ones before every update."""

    learner: MADDPG

    def losses(self) -> Metrics:
        """As of any learner, and how far the models are off, `opponent/<agent>/*`."""
        return super().losses() | self.learner.inference_metrics()


class MADDPG(OffPolicyAlgorithm[DeterministicPolicy]):
    """Policies and critics of all agents at once, and the models that they keep; a tianshou off-policy algorithm.

    Rows may serve all agents, or single egos, equally many each, as `Dyna` imagines them.
    """

    checkpoint_skip = ("metrics", "inferred")
    """made again by every update"""
    box: Tensor
    """(A) bool: columns of the joint action that are numbers"""

    def __init__(
        self, spec: GameSpec, config: MADDPGConfig, init_rng: torch.Generator, rng: torch.Generator, *,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. config: the numbers.
            init_rng: draws initial weights, on the CPU. rng: draws the actions inside updates, on `device`.

        Raises:
            GameError: policies are to be inferred in a game of one agent.
        """
        shape = (config.activation, config.geometry)
        super().__init__(policy=DeterministicPolicy(spec, config.hidden, init_rng, rng, *shape, device))
        self.spec, self.config, self.rng, self.groups = spec, config, rng, self.policy.groups
        self.policy.noise.fill_(config.noise.at(0))
        own = config.critic == "own"
        self.critic = nn.ModuleList(
            StackedMLP(
                len(g.agents), g.obs.shape[1] + g.act.shape[1] if own else spec.obs_dim + spec.act_dim, config.hidden,
                1, init_rng, config.activation, vectors=(g.vectors if own else spec.vectors) if config.geometry else (),
            )
            for g in self.groups
        ).to(device)  # fmt: skip
        self.critic_old = deepcopy(self.critic).requires_grad_(False)
        self.actors_old = deepcopy(self.policy.actors).requires_grad_(False)
        inferred = config.policies == "inferred"
        self.models = PolicyInference(spec, config.inference, init_rng, device=device) if inferred else None
        """what every agent takes the others to play; None where it is told"""
        numbers = [not agent.discrete for agent in spec.agents for _ in range(agent.width)]
        self.register_buffer("box", torch.tensor(numbers, device=device))
        adam = TorchOptimizerFactory(torch.optim.Adam, lr=config.learning_rate, fused=True)
        self.policy_optim = self._create_optimizer(self.policy.actors, adam)
        self.critic_optim = self._create_optimizer(self.critic, adam)
        self.updates = 0
        self.metrics: dict[str, Tensor] = {}
        """the last update's losses, per agent, on the device"""
        self.inferred: dict[str, Tensor] = {}
        """of the models on the newest rows, before they learned from them: (N, N) by (ego, agent)"""

    @property
    def gamma(self) -> float:
        """The discount, by the name that tianshou's algorithms give it."""
        return self.config.discount

    # ------------------------------------------------------------ what critics read

    @torch.no_grad()
    def read(self, act: Tensor, view: View, agent_rows: AgentRows, *, target: bool = False) -> list[Tensor]:
        """What the critics of each group read where everybody does `act`: `(B, A)`, or `(g, B, A)` where they differ.

        Args:
            act, view: `(R, A)` and R views. agent_rows: which of them each agent uses.
            target: ask the target policies, or the target copies of the models.
        """
        done = [agent_rows.of(act, group.agents) for group in self.groups]
        drawn = self.config.critic_input == "actions"
        if self.config.critic == "own" or (drawn and not (target and self.models is not None)):
            return done
        if self.models is None:
            numbers = self.policy.numbers(view, self.actors_old if target else None)
            told = join(self.groups, self.policy.chances(view, numbers))
            found = [agent_rows.of(told, group.agents) for group in self.groups]
        else:
            every = torch.arange(agent_rows.length, device=act.device).expand(self.spec.n, -1)
            index = every if agent_rows.index is None else agent_rows.index
            rng = self.rng if drawn else None
            told = self.models.joint(view[index.reshape(-1)], old=target, rng=rng).view(*index.shape, -1)
            found = [told[list(group.agents)] for group in self.groups]
        if self.models is None or not target:  # box actions are known; only models have to say what they will be
            found = [torch.where(self.box, mine, others) for mine, others in zip(done, found, strict=True)]
        own = [_own(group.act, mine) for group, mine in zip(self.groups, done, strict=True)]
        return [with_own(group, others, mine) for group, others, mine in zip(self.groups, found, own, strict=True)]

    def judged(self, critic: nn.Module, group: Group, obs: Tensor, act: Tensor, *, frozen: bool = False) -> Tensor:
        """Values of a group's critics, `(g, B)`.

        Args:
            obs, act: `(B, O)` and `(B, A)`, or `(g, B, O)` and `(g, B, A)`. frozen: keep gradients off the weights.
        """
        if self.config.critic == "own":
            obs, act = _own(group.obs, obs), _own(group.act, act)
        elif obs.ndim < act.ndim:
            obs = obs.expand(len(act), -1, -1)
        value: Tensor = critic(torch.cat([obs, act], -1), frozen=frozen)
        return value.squeeze(-1)

    # ------------------------------------------------------------ losses

    @torch.no_grad()
    def targets(self, rows: Rows, agent_rows: AgentRows) -> Tensor:
        """`y_i` of what target policies would do next, by the target critics; Eq. 8 with models: (N, B)."""
        view = rows.next_view
        act = join(self.groups, self.policy.actions(view, self.policy.numbers(view, self.actors_old), self.rng))
        read = self.read(act, view, agent_rows, target=True)
        values = [
            self.judged(critic, group, agent_rows.of(view.obs, group.agents), own, frozen=True)
            for group, critic, own in zip(self.groups, self.critic_old, read, strict=True)
        ]
        value = join_agents(self.groups, values).masked_fill(agent_rows.of_agent(rows.terminated), 0)
        return agent_rows.of_agent(rows.reward) + self.config.discount * value

    def critic_loss(self, rows: Rows, agent_rows: AgentRows, read: list[Tensor], targets: Tensor) -> Tensor:
        """Squared errors, means over rows: (N,).

        Args:
            read: of what was done.
        """
        values = [
            self.judged(critic, group, agent_rows.of(rows.obs, group.agents), own)
            for group, critic, own in zip(self.groups, self.critic, read, strict=True)
        ]
        return (join_agents(self.groups, values) - targets).square().mean(1)

    def policy_loss(self, rows: Rows, agent_rows: AgentRows, read: list[Tensor]) -> Tensor:
        """`-Q_i` at the own action of today beside what the others did, and shrinkage; means over the rows in which the
        agent acts, 0 where it acts in none: (N,).

        Args:
            read: of what was done.
        """
        numbers = self.policy.numbers(rows.view, rows=agent_rows.index)
        acts, losses = self.policy.actions(rows.view, numbers, self.rng, rows=agent_rows.index), []
        found = zip(self.groups, self.critic, numbers, acts, read, strict=True)
        for group, critic, raw, own, others in found:
            obs = agent_rows.of(rows.obs, group.agents)
            value = self.judged(critic, group, obs, with_own(group, others, own), frozen=True)
            losses.append(self.config.shrinkage * raw.square().mean(2) - value)
        loss = join_agents(self.groups, losses)
        if not self.spec.acting_varies:
            return loss.mean(1)
        acting = agent_rows.of_agent(rows.acting).to(loss.dtype)
        return (loss * acting).sum(1) / acting.sum(1).clamp_min(1)

    # ------------------------------------------------------------ update

    @property
    def newest(self) -> int:
        """Rows that the models learn from at a time."""
        return self.config.inference.window

    def follow(self, rows: Rows) -> None:
        """One step of the models on the newest rows, and how far they were off before it.

        Raises:
            GameError: there are no models.
        """
        if self.models is None:
            raise GameError("policies='true' has no models to follow the others by; take policies='inferred'")
        found = self.models.learn(rows.view, rows.act, self.rng)
        self.inferred = {"nll": found.nll, "entropy": found.entropy, **self._compared(rows.view, found.told)}

    @torch.no_grad()
    def _compared(self, view: View, told: Predicted) -> dict[str, Tensor]:
        """How far the models are off what the policies would do now, means over B rows `view` in which the agent acts,
        NaN where there are none: the Kullback-Leibler divergence of one-hot actions from what models expect, in nats,
        and the root mean square of the difference between box actions and the modes of models.
        """
        numbers, n = self.policy.numbers(view), self.spec.n
        acts = view.acting.T.to(view.obs.dtype)
        share = acts / acts.sum(1, keepdim=True)
        divergence, error = (share.new_full((n, n), torch.nan) for _ in range(2))
        for group, own, part in zip(self.groups, numbers, told.parts, strict=True):
            agents, size = list(group.agents), (len(group.agents), n, len(view), -1)
            expected = part.parameters[:, :, 0].reshape(size)
            weight = share[agents][:, None]
            if group.discrete:
                legal = self.policy.part(group, own, view).legal
                allowed = None if legal is None else legal[:, None]
                apart = heads.divergence(group.heads, own[:, None], expected, allowed)
                divergence[:, agents] = (apart * weight).sum(2).T
            else:
                apart = (part.mode().view(size) - own.tanh()[:, None]).square().mean(3)
                error[:, agents] = (apart * weight).sum(2).sqrt().T
        return {"divergence": divergence, "error": error}

    def inference_metrics(self) -> Metrics:
        """How far the models were off, `opponent/<agent>/*`: means over the egos that model it; {} before the first
        update.
        """
        found: Metrics = {}
        for name, of_pairs in self.inferred.items():
            for j, agent in enumerate(self.spec.names):
                others = of_pairs[torch.arange(self.spec.n, device=of_pairs.device) != j, j]
                if not bool(others.isnan().any()):
                    found[f"opponent/{agent}/{name}"] = float(others.mean())
        return found

    def _descend(self, optimiser: OffPolicyAlgorithm.Optimizer, networks: nn.Module, loss: Tensor) -> None:
        optimiser._optim.zero_grad()
        torch.autograd.backward(loss.sum())
        hold_gradients(networks.parameters(), self.config.gradient_clip)
        optimiser._optim.step()

    def _update_with_batch(self, batch: Any) -> TrainingStats:
        if self.models is not None and not self.models.updates:
            raise GameError(
                "the models of the others have learned nothing yet: call follow(rows) with the newest rows before "
                "every update, or let MADDPGConfig.build put the loop together"
            )
        rows = rows_of_batch(self.spec, batch, self.policy.noise.device)
        agent_rows = AgentRows.of_rows(rows, self.spec.n)
        targets = self.targets(rows, agent_rows)
        read = self.read(rows.act, rows.view, agent_rows)
        critic_loss = self.critic_loss(rows, agent_rows, read, targets)
        self._descend(self.critic_optim, self.critic, critic_loss)
        policy_loss = self.policy_loss(rows, agent_rows, read)
        self._descend(self.policy_optim, self.policy.actors, policy_loss)
        rate = self.config.target_rate
        with torch.no_grad():
            for old, new in ((self.critic_old, self.critic), (self.actors_old, self.policy.actors)):
                torch._foreach_lerp_(list(old.parameters()), list(new.parameters()), rate)
        if self.models is not None:
            self.models.move_targets(rate)
        self.metrics = {
            "critic_loss": critic_loss.detach(), "policy_loss": policy_loss.detach(), "target": targets.mean(1),
        }  # fmt: skip
        if not self.spec.discrete:
            self.metrics["noise"] = self.policy.noise.clone()
        self.updates += 1
        self.policy.noise.fill_(self.config.noise.at(self.updates))
        return TrainingStats()


def with_own(group: Group, act: Tensor, own: Tensor) -> Tensor:
    """Joint actions `(B, A)` or `(g, B, A)` with each agent's own slice `(g, B, a)` in its place: `(g, B, A)`."""
    place = group.act[:, None].expand(-1, own.shape[1], -1)
    return act.expand(len(own), -1, -1).scatter(2, place, own)


def _own(index: Tensor, x: Tensor) -> Tensor:
    """Each agent's own columns `index (g, w)` of joint vectors `(B, X)` or `(g, B, X)`: `(g, B, w)`."""
    if x.ndim == 2:
        return x[:, index].transpose(0, 1)
    return x.gather(2, index[:, None].expand(-1, x.shape[1], -1))
