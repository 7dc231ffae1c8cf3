"""LIAM: actor-critic beside a memory that learns to tell what the others see and do from what the agent itself does.

Papoudakis, Christianos, Albrecht 2021, "Agent Modelling under Partial Observability for Deep Reinforcement Learning"
(NeurIPS 2021, 2006.09447); numbers and shapes are those of the released code.

At every step of an episode

    z_t = encoder(o_t, a_{t-1}; what it remembers)          a_t ~ pi(. | o_t, z_t),   V(o_t, z_t)
    L_ED = mean_t [ 0.5 || o_hat_t - o_t^{-1} ||^2 - sum_j log pi_hat_j(a_t^j | z_t) ]        encoder and decoder
    L_RL = mean_t [ c_V (R_t - V)^2 - (R_t - V) log pi(a_t) - c_H H ]                         policy and value alone

with o^{-1} and a^j what the others observe and do: labels, which `presage.marl.opponents.against` puts behind what the
agent reads; nobody needs them to act. No gradient of L_RL reaches the encoder, and none of L_ED the policy.

What differs from the code: a step that a limit cuts looks ahead by the value of what it ended in, where the code takes
nothing to follow; and what is remembered of returns is brought up to date once for all that was collected, not chunk by
chunk.

Shape suffixes: T time, C game copies, Z of the embedding, H of what is remembered, J opponents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from presage.common import heads
from presage.common.actor_critic import (
    ActorCriticConfig,
    ActorCriticNetwork,
    ReturnScale,
    actor_critic_loss,
    entropy,
    value_targets,
)
from presage.common.game import GameError, GameSpec, GoalRule, Head, Kernel, View
from presage.common.on_policy import Chunk, Kept, Memory, OnPolicy, OnPolicyConfig, side_by_side
from presage.common.streams import Streams
from presage.marl.opponents.against import Hidden
from presage.marl.opponents.liam_networks import (
    Classifier,
    Decoder,
    Encoder,
    EncodingConfig,
    described,
    heads_of,
    reconstruction_errors,
)

Model = Literal["liam", "none", "full", "identity"]
Paper = Literal["predator-prey", "foraging", "double speaker-listener"]


@dataclass(frozen=True, kw_only=True)
class LIAMConfig:
    """What the memory learns to tell, and the numbers of learning it and of learning to act."""

    model: Model = "liam"
    """what the embedding is learned by: reconstruction of what the others see and do (`liam`); nothing but the agent's
    own rewards, the lower bound (`none`, NAM in the paper); reconstruction by an encoder that is shown the others'
    observations and past actions, also to act, the upper bound (`full`, FIAM); or telling who they are (`identity`,
    CBAM)"""
    labels: Hidden = field(default_factory=Hidden)
    """where the joint observation tells of the others: `Against(...).hidden`; `none` can do without"""
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    """of the encoder and what learns it"""
    hidden: tuple[int, ...] = (128, 128)
    """widths of the layers that policy and value share"""
    numbers: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    """of the loss of policy and value"""
    loop: OnPolicyConfig = field(default_factory=OnPolicyConfig)
    """how much is collected"""

    def __post_init__(self) -> None:
        if self.model not in get_args(Model):
            raise ValueError(f"model={self.model!r} must be one of {', '.join(map(repr, get_args(Model)))}")
        told = self.labels
        own = {"none": [], "identity": [told.identity]}
        if not all(own.get(self.model, [told.observations, told.actions])):
            raise ValueError(
                f"model={self.model!r} learns from labels that labels={told} does not name; take them from "
                "presage.marl.opponents.against.Against(...).hidden"
            )

    @classmethod
    def paper(cls, task: Paper, labels: Hidden, model: Model = "liam") -> LIAMConfig:
        """The numbers of the authors' code for one of their tasks; all of them play ten copies.

        The encoder of their `full` is not in the code; it is made like that of `liam` here.
        """
        numbers, loop = ActorCriticConfig(), OnPolicyConfig(collect_steps=50, chunk=5)
        if task == "foraging":
            numbers = replace(numbers, entropy_weight=0.001)
        elif task == "double speaker-listener":
            numbers, loop = replace(numbers, value_weight=0.25), replace(loop, collect_steps=25)
        elif task != "predator-prey":
            raise ValueError(f"task={task!r} must be one of {', '.join(map(repr, get_args(Paper)))}")
        return cls(model=model, labels=labels, numbers=numbers, loop=loop)

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> OnPolicy:  # fmt: skip
        """LIAM on a game of one agent; see `presage.common.method.Method`.

        Raises:
            GameError: the game has several agents, or not the columns that are named.
        """
        learner = LIAM(spec, self, streams("learner", "cpu"), streams("update"), device=device)
        return OnPolicy(spec, self.loop, learner, streams, device)


class LIAMPolicy(nn.Module):
    """What acts: encoder, and policy and value behind it."""

    def __init__(self, spec: GameSpec, config: LIAMConfig, rng: torch.Generator) -> None:
        """
        Args:
            rng: draws the weights, on the CPU.

        Raises:
            GameError: as `LIAMConfig.build` has it.
        """
        super().__init__()
        if spec.n != 1:
            raise GameError(
                f"LIAM plays one agent, {spec.name!r} has {spec.n}; put the others behind "
                "presage.marl.opponents.against.Against"
            )
        told, agent = config.labels, spec.agents[0]
        named = [*told.observations, *told.actions, *told.identity]
        strange = [k for k in named if not 0 <= k < spec.obs_dim or k in agent.obs]
        if strange:
            raise GameError(
                f"labels name {strange} of {spec.name!r}, which are read by its agent or outside "
                f"0..{spec.obs_dim - 1}; name columns that nobody reads"
            )
        self.spec, self.own = spec, list(agent.obs)
        self.shown = list(told.observations) if config.model == "full" else []
        """columns that the encoder reads beside the agent's own"""
        self.seen_done = list(told.actions) if config.model == "full" else []
        """columns of what the others do, which it reads a step later"""
        self.done_width = agent.width + len(self.seen_done)
        self.encoder = Encoder(len(self.own) + len(self.shown) + self.done_width, config.encoding, rng)
        self.actor_critic = ActorCriticNetwork(
            len(self.own) + config.encoding.embedding, config.hidden, agent.heads, rng
        )
        self.through = config.model == "none"
        """whether gradients of policy and value reach the encoder"""

    def reads(self, obs: Tensor, before: Tensor) -> Tensor:
        """What the encoder reads `(..., w)` of joint observations `(..., O)`, after what was done `(..., a)`."""
        return torch.cat([obs[..., self.own], obs[..., self.shown], before], -1)

    def done(self, obs: Tensor, act: Tensor) -> Tensor:
        """What the encoder will read of this step in the next one: `act (..., A)`, and what it may know of others'."""
        return torch.cat([act, obs[..., self.seen_done]], -1)

    def judge(self, obs: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """What describes the action `(..., p)`, and the value `(...)`."""
        known = embedding if self.through else embedding.detach()
        found: tuple[Tensor, Tensor] = self.actor_critic(torch.cat([obs[..., self.own], known], -1))
        return found


class LIAM(nn.Module):
    """The learner: what acts, what tells of the others, and an optimiser for each loss."""

    checkpoint_skip = ("metrics",)
    """made again by every update"""

    def __init__(
        self, spec: GameSpec, config: LIAMConfig, init_rng: torch.Generator, rng: torch.Generator, *,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: a game of one agent. config: the numbers. init_rng: draws initial weights, on the CPU.
            rng: draws what the entropy of box actions is estimated by, on `device`.

        Raises:
            GameError: as `LIAMConfig.build` has it.
        """
        super().__init__()
        self.spec, self.config, self.rng = spec, config, rng
        self.policy = LIAMPolicy(spec, config, init_rng).to(device)
        told = config.labels
        self.others: tuple[Head, ...] = ()
        """what the others do, as one action; where that is decoded"""
        self.teller: Decoder | Classifier | None = None
        if config.model == "identity":
            self.teller = Classifier(len(told.identity), config.encoding, init_rng).to(device)
        elif config.model != "none":
            self.others = heads_of(told.choices, len(told.actions))
            self.teller = Decoder(len(told.observations), described(self.others), config.encoding, init_rng).to(device)
        self.scale = ReturnScale().to(device)
        acting: list[nn.Module] = [self.policy.actor_critic]
        telling: list[nn.Module] = [self.policy.encoder]
        if self.teller is None:
            acting, telling = acting + telling, []
        else:
            telling.append(self.teller)
        self.optimiser = torch.optim.Adam(_parameters(acting), lr=config.numbers.learning_rate)
        self.teller_optimiser = (
            torch.optim.Adam(_parameters(telling), lr=config.encoding.learning_rate) if telling else None
        )
        self.metrics: dict[str, Tensor] = {}
        """of the last update: both losses by their parts, the policy's entropy in nats, and how often the likeliest of
        the others' choices, or of them, is right"""

    # ---------------------------------------------------------------- acting

    def begin(self, rows: int) -> Memory:
        """Output and cell of the encoder's units, and what was done before: nothing yet."""
        output, cell = self.policy.encoder.begin(rows)
        return output, cell, output.new_zeros(rows, self.policy.done_width)

    def act(self, memory: Memory, view: View, rng: torch.Generator | None) -> tuple[Memory, Tensor, Kept]:
        """See `presage.common.on_policy.OnPolicyLearner`."""
        policy, agent = self.policy, self.spec.agents[0]
        output, cell = policy.encoder.look(policy.reads(view.obs, memory[2]), (memory[0], memory[1]))
        parameters, _ = policy.judge(view.obs, policy.encoder.embed(output))
        legal = view.legal if self.spec.legal_varies and agent.discrete else None
        act = heads.answer(agent.heads, parameters, legal, rng)[0] * view.acting
        return (output, cell, policy.done(view.obs, act)), act, {}

    def told(self, memory: Memory, act: Tensor) -> Memory:
        """The memory with `act (C, A)` as what the agent did."""
        output, cell, done = memory
        return output, cell, torch.cat([act, done[:, act.shape[1] :]], 1)

    # -------------------------------------------------------------- learning

    def update(self, chunks: Sequence[Chunk]) -> None:
        """One step of both optimisers for every chunk, towards targets that were set before the first of them."""
        with torch.no_grad():
            whole, policy = side_by_side(chunks), self.policy
            rows, (output, cell) = whole.rows, self.remembered(whole)
            _, value = policy.judge(rows.obs, policy.encoder.embed(output))
            read = policy.reads(rows.next_obs, policy.done(rows.obs, rows.act)).flatten(0, 1)
            ahead, _ = policy.encoder.look(read, (output.flatten(0, 1), cell.flatten(0, 1)))
            _, next_value = policy.judge(rows.next_obs, policy.encoder.embed(ahead.view(output.shape)))
            targets = value_targets(
                self.config.numbers,
                self.scale,
                rows.reward,
                value[..., None],
                next_value[..., None],
                rows.terminated,
                whole.over,
            )
        for chunk, target in zip(chunks, targets.chunk(len(chunks), 1), strict=True):
            self._descend(chunk, target)

    def remembered(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Output and cell of the encoder's units after each step of a chunk, `(T, C, H)` each."""
        rows, policy = chunk.rows, self.policy
        output, cell, done = chunk.memory
        before = chunk.before(done, policy.done(rows.obs, rows.act))
        return policy.encoder.along(policy.reads(rows.obs, before), (output, cell), chunk.first)

    def _descend(self, chunk: Chunk, target: Tensor) -> None:
        embedding = self.policy.encoder.embed(self.remembered(chunk)[0])
        self.optimiser.zero_grad()
        loss, self.metrics = self.acting_loss(chunk, embedding, target)
        torch.autograd.backward(loss)
        if self.teller is not None and self.teller_optimiser is not None:
            self.teller_optimiser.zero_grad()
            told, parts = self.telling_loss(chunk, embedding)
            torch.autograd.backward(told)
            self.metrics |= parts
            nn.utils.clip_grad_norm_(self.teller.parameters(), self.config.encoding.gradient_clip)
        nn.utils.clip_grad_norm_(self.policy.encoder.parameters(), self.config.encoding.gradient_clip)
        nn.utils.clip_grad_norm_(self.policy.actor_critic.parameters(), self.config.numbers.gradient_clip)
        self.optimiser.step()
        if self.teller_optimiser is not None:
            self.teller_optimiser.step()

    def acting_loss(self, chunk: Chunk, embedding: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_RL and its parts.

        Args:
            embedding: `(T, C, Z)`, whose gradients are kept off where the encoder learns by the other loss.
            target: `(T, C, 1)` R.
        """
        rows, agent = chunk.rows, self.spec.agents[0]
        parameters, value = self.policy.judge(rows.obs, embedding)
        legal = rows.legal if self.spec.legal_varies and agent.discrete else None
        return actor_critic_loss(
            self.config.numbers, heads.log_prob(agent.heads, parameters, rows.act, legal),
            entropy(agent.heads, parameters, legal, self.rng), value, target[..., 0], rows.acting[..., 0],
        )  # fmt: skip

    def telling_loss(self, chunk: Chunk, embedding: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_ED, or the cross-entropy of who the others are, and its parts; `embedding (T, C, Z)`."""
        obs, told = chunk.rows.obs, self.config.labels
        if isinstance(self.teller, Classifier):
            logits, who = self.teller(embedding), obs[..., list(told.identity)]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), who.flatten(0, 1))
            right = logits.argmax(-1) == who.argmax(-1)
            return loss, {"identity_loss": loss.detach(), "identity_accuracy": right.float().mean()}
        assert self.teller is not None
        decoded = self.teller(embedding)
        observed, act = obs[..., list(told.observations)], obs[..., list(told.actions)]
        sees, does = reconstruction_errors(self.others, decoded, observed, act)
        parts = {"observation_loss": sees.detach().mean(), "action_loss": does.detach().mean()}
        if told.choices:
            expected, chosen = (torch.split(part, list(told.choices), -1) for part in (decoded[1], act))
            right = torch.stack([one.argmax(-1) == two.argmax(-1) for one, two in zip(expected, chosen, strict=True)])
            parts["action_accuracy"] = right.float().mean()
        return (sees + does).mean(), parts


def _parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]
