"""Advantage actor-critic with or without a memory, for any game: each agent learns by itself, from what it observes.

A2C (the synchronous form of Mnih et al. 2016, 1602.01783). Agents of equal shape share one network, which is told whose
turn it is to answer by a one-hot vector where they are several (independent actor-critics with shared parameters).

Shape suffixes: T time, C game copies, B rows, N agents, g agents of a group, H width of what is remembered, w numbers
read, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
from presage.common.game import GameSpec, GoalRule, Kernel, View
from presage.common.heads import Group, groups_of, join, join_agents
from presage.common.on_policy import Chunk, Kept, Memory, OnPolicy, OnPolicyConfig, side_by_side
from presage.common.recurrent import StackedGRU
from presage.common.streams import Streams


@dataclass(frozen=True, kw_only=True)
class A2CConfig:
    """The networks, and the numbers of learning and collecting."""

    hidden: tuple[int, ...] = (128, 128)
    """widths of the trunk's layers"""
    memory: int = 0
    """H, numbers that a gated recurrent unit before the trunk remembers of what was seen and done; 0: no memory"""
    numbers: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    """of the loss"""
    loop: OnPolicyConfig = field(default_factory=OnPolicyConfig)
    """how much is collected"""

    def __post_init__(self) -> None:
        if self.memory < 0:
            raise ValueError(f"memory={self.memory} must be >= 0")

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> OnPolicy:  # fmt: skip
        """A2C on a game; see `presage.common.method.Method`."""
        learner = A2C(spec, self, streams("learner", "cpu"), streams("update"), device=device)
        return OnPolicy(spec, self.loop, learner, streams, device)


class GroupNetwork(nn.Module):
    """The network of a group of agents: a trunk with a policy and a value, behind a memory where there is one."""

    def __init__(self, group: Group, config: A2CConfig, rng: torch.Generator) -> None:
        super().__init__()
        self.agents, self.width = len(group.agents), group.act.shape[1]
        inputs = group.obs.shape[1] + (self.agents if self.agents > 1 else 0)
        self.unit = StackedGRU(1, inputs + self.width, config.memory, rng) if config.memory else None
        self.actor_critic = ActorCriticNetwork(inputs + config.memory, config.hidden, group.heads, rng)

    def begin(self, rows: int) -> Memory:
        """`(B, g, H)` remembered, and `(B, g, a)` done before; () without a memory."""
        if self.unit is None:
            return ()
        blank = self.unit.begin(rows * self.agents).view(rows, self.agents, -1)
        return blank, blank.new_zeros(rows, self.agents, self.width)

    def reads(self, seen: Tensor) -> Tensor:
        """Observations `(..., g, w)` with whose they are."""
        if self.agents == 1:
            return seen
        whose = torch.eye(self.agents, device=seen.device).expand(*seen.shape[:-1], -1)
        return torch.cat([seen, whose], -1)

    def look(self, read: Tensor, done: Tensor, memory: Tensor) -> Tensor:
        """What is remembered `(B, g, H)` after what `reads` returned `(B, g, in)`, `done (B, g, a)` before it."""
        assert self.unit is not None
        x = torch.cat([read, done], -1).flatten(0, 1)
        found = self.unit.step(x, memory.reshape(1, -1, memory.shape[-1]))
        return found.view(memory.shape)

    def forward(self, read: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """What describes actions `(..., g, p)`, and values `(..., g)`."""
        found: tuple[Tensor, Tensor] = self.actor_critic(read if memory is None else torch.cat([read, memory], -1))
        return found


class A2C(nn.Module):
    """The learner: networks for all agents, and one optimiser."""

    checkpoint_skip = ("metrics",)
    """made again by every update"""

    def __init__(
        self, spec: GameSpec, config: A2CConfig, init_rng: torch.Generator, rng: torch.Generator, *,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. config: the numbers. init_rng: draws initial weights, on the CPU.
            rng: draws what the entropy of box actions is estimated by, on `device`.
        """
        super().__init__()
        self.spec, self.config, self.rng = spec, config, rng
        self.groups = groups_of(spec, device)
        self.policy = nn.ModuleList(GroupNetwork(group, config, init_rng) for group in self.groups).to(device)
        self.scale = ReturnScale().to(device)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=config.numbers.learning_rate)
        self.metrics: dict[str, Tensor] = {}
        """of the last update: losses, the policies' entropy in nats"""

    def _networks(self) -> list[tuple[Group, GroupNetwork]]:
        return [(g, n) for g, n in zip(self.groups, self.policy, strict=True) if isinstance(n, GroupNetwork)]

    # ---------------------------------------------------------------- acting

    def begin(self, rows: int) -> Memory:
        """Group after group, what is remembered and what was done before."""
        return tuple(part for _, network in self._networks() for part in network.begin(rows))

    def act(self, memory: Memory, view: View, rng: torch.Generator | None) -> tuple[Memory, Tensor, Kept]:
        """See `presage.common.on_policy.OnPolicyLearner`."""
        kept, acts, place = list(memory), [], 0
        for group, network in self._networks():
            read, known = network.reads(view.obs[:, group.obs]), None
            if network.unit is not None:
                kept[place] = known = network.look(read, memory[place + 1], memory[place])
                place += 2
            parameters, _ = network(read, known)
            legal = view.legal[:, group.act] if self.spec.legal_varies and group.discrete else None
            acts.append(heads.answer(group.heads, parameters, legal, rng)[0].transpose(0, 1))
        act = join(self.groups, acts)
        if self.spec.acting_varies:
            widths = torch.tensor([agent.width for agent in self.spec.agents], device=act.device)
            act = act * view.acting.repeat_interleave(widths, 1)
        return self.told(tuple(kept), act), act, {}

    def told(self, memory: Memory, act: Tensor) -> Memory:
        """The memory with `act (C, A)` as what was done."""
        if not memory:
            return memory
        return tuple(
            part for k, group in enumerate(self.groups) for part in (memory[2 * k], act[:, group.act])
        )  # fmt: skip

    # -------------------------------------------------------------- learning

    def update(self, chunks: Sequence[Chunk]) -> None:
        """One step of Adam for every chunk, towards targets that were set before the first of them."""
        with torch.no_grad():
            whole = side_by_side(chunks)
            found = self._unrolled(whole)
            value, ahead = (join_agents_last(self.groups, [part[k] for part in found]) for k in (1, 2))
            rows = whole.rows
            targets = value_targets(
                self.config.numbers, self.scale, rows.reward, value, ahead, rows.terminated, whole.over
            )
        for chunk, target in zip(chunks, targets.chunk(len(chunks), 1), strict=True):
            self._descend(chunk, target)

    def _unrolled(self, chunk: Chunk, *, ahead: bool = True) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per group, along the chunk: what describes actions `(T, C, g, p)`, values `(T, C, g)`, and where `ahead`
        those of the observations that the steps ended in.
        """
        rows, found, place = chunk.rows, [], 0
        for group, network in self._networks():
            read, known = network.reads(rows.obs[..., group.obs]), None
            if network.unit is not None:
                done = chunk.before(chunk.memory[place + 1], rows.act[..., group.act])
                memory, steps = chunk.memory[place], []
                for t, begins in enumerate(chunk.first):
                    memory = network.look(read[t], done[t], memory.masked_fill(begins[:, None, None], 0.0))
                    steps.append(memory)
                known = torch.stack(steps)
                place += 2
            parameters, value = network(read, known)
            later = value
            if ahead:
                then = network.reads(rows.next_obs[..., group.obs])
                if known is not None:
                    flat = (x.flatten(0, 1) for x in (then, rows.act[..., group.act], known))
                    known = network.look(*flat).view(known.shape)
                later = network(then, known)[1]
            found.append((parameters, value, later))
        return found

    def _descend(self, chunk: Chunk, target: Tensor) -> None:
        rows, log_prob, spread = chunk.rows, [], []
        found = self._unrolled(chunk, ahead=False)
        for group, (parameters, _, _) in zip(self.groups, found, strict=True):
            legal = rows.legal[..., group.act] if self.spec.legal_varies and group.discrete else None
            log_prob.append(heads.log_prob(group.heads, parameters, rows.act[..., group.act], legal))
            spread.append(entropy(group.heads, parameters, legal, self.rng))
        value = join_agents_last(self.groups, [own for _, own, _ in found])
        own = [join_agents_last(self.groups, parts) for parts in (log_prob, spread)]
        loss, self.metrics = actor_critic_loss(self.config.numbers, own[0], own[1], value, target, rows.acting)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        for network in self.policy:
            nn.utils.clip_grad_norm_(network.parameters(), self.config.numbers.gradient_clip)
        self.optimiser.step()


def join_agents_last(groups: Sequence[Group], parts: Sequence[Tensor]) -> Tensor:
    """A per-agent quantity `(..., N)` from one `(..., g)` for each group."""
    return join_agents(groups, [part.movedim(-1, 0) for part in parts]).movedim(0, -1)
