"""MASAC agent by agent and choice by choice with ordinary torch layers: the oracle of its tests."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from presage.common.game import ALL_AGENTS, Rows, View
from presage.marl.masac import MASAC
from tests.common.toy import generator
from tests.marl.sample_games import by_head, stack


class Loop:
    """MASAC's targets and losses agent by agent and choice by choice, with ordinary layers."""

    def __init__(self, learner: MASAC, seed: int) -> None:
        self.learner, self.spec, self.config = learner, learner.spec, learner.config
        self.rng, self.alpha = generator(seed), learner.alpha
        self.actors: dict[int, nn.Sequential] = {}
        self.critics: dict[int, list[nn.Sequential]] = {}
        self.old: dict[int, list[nn.Sequential]] = {}
        self.place: dict[int, tuple[int, int]] = {}
        for k, group in enumerate(learner.groups):
            size = len(group.agents)
            for p, agent in enumerate(group.agents):
                self.place[agent] = k, p
                self.actors[agent] = stack(learner.policy.actors, k).member(p)
                self.critics[agent] = [stack(learner.critic, k).member(m * size + p) for m in range(2)]
                self.old[agent] = [stack(learner.critic_old, k).member(m * size + p) for m in range(2)]

    def draw(self, size: int) -> dict[int, list[Tensor]]:
        """The noise of all agents' actions in `size` rows, per head, in the learner's order."""
        noise: dict[int, list[Tensor]] = {agent: [] for agent in self.actors}
        for group in self.learner.groups:
            for head in group.heads:
                empty = torch.empty(len(group.agents), size, head.size, dtype=torch.float64)
                drawn = empty.normal_ if head.kind == "box" else empty.exponential_
                for agent, part in zip(group.agents, drawn(generator=self.rng), strict=True):
                    noise[agent].append(part)
        return noise

    def distribution(self, agent: int, view: View) -> list[Tensor]:
        """Log-probabilities of every head, or the mean and the standard deviation."""
        numbers = self.actors[agent](view.obs[:, list(self.spec.obs[agent])])
        if not self.spec.agents[agent].discrete:
            mean, log_sigma = numbers.chunk(2, 1)
            return [mean, log_sigma.clamp(-20, 2).exp()]
        places = [place for owner, _, place in self.spec.heads if owner == agent]
        parts = by_head(self.spec.agents[agent], numbers)
        found = []
        for part, place in zip(parts, places, strict=True):
            legal = view.legal[:, place]
            weight = (part - part.amax(1, keepdim=True)).exp() * legal
            chance = weight / weight.sum(1, keepdim=True)
            found.append(torch.where(legal, torch.where(legal, chance, 1.0).log(), -1e9))
        return found

    def sample(self, agent: int, view: View, noise: list[Tensor]) -> tuple[Tensor, Tensor]:
        """One action, with the straight-through or the reparametrised gradient, and its (mean) log-probability."""
        parts = self.distribution(agent, view)
        if self.spec.agents[agent].discrete:
            acts = []
            for log_chance, drawn in zip(parts, noise, strict=True):
                soft = (log_chance - drawn.log()).softmax(1)
                hard = nn.functional.one_hot(soft.argmax(1), soft.shape[1])
                acts.append(hard + soft - soft.detach())
            return torch.cat(acts, 1), sum_of((log_chance.exp() * log_chance).sum(1) for log_chance in parts)
        mean, sigma = parts
        raw = mean + sigma * noise[0]
        act = raw.tanh()
        normal = -0.5 * noise[0] ** 2 - sigma.log() - 0.5 * math.log(2 * math.pi)
        return act, (normal - (1 - act**2 + 2.0**-23).log()).sum(1)

    def samples_of(self, view: View) -> Tensor:
        """All agents' samples at `view`, zeros for idle ones."""
        noise = self.draw(len(view))
        acts = [self.sample(j, view, noise[j])[0].detach() * view.acting[:, [j]] for j in range(self.spec.n)]
        return torch.cat(acts, 1)

    def q(self, agent: int, critic: nn.Sequential, obs: Tensor, act: Tensor) -> Tensor:
        if self.config.critic == "own":
            obs, act = obs[:, list(self.spec.obs[agent])], act[:, self.spec.act[agent]]
        value: Tensor = critic(torch.cat([obs, act], 1)).squeeze(1)
        return value

    def value(
        self, agent: int, critics: list[nn.Sequential], view: View, others: Tensor, noise: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The agent's soft value in its rows, and the log-probability in it."""
        acts, own = view.acting[:, agent], self.spec.act[agent]
        act, log_prob = self.sample(agent, view, noise)
        log_prob = log_prob * acts

        def smaller(mine: Tensor) -> Tensor:
            joint = others.clone()
            joint[:, own] = mine * acts[:, None]
            return torch.minimum(*(self.q(agent, critic, view.obs, joint) for critic in critics))

        if self.spec.agents[agent].discrete and self.config.discrete_gradient == "expectation":
            parts = self.distribution(agent, view)
            value = torch.zeros(len(view), dtype=torch.float64)
            for choice in itertools.product(*(range(part.shape[1]) for part in parts)):
                eyes = [torch.eye(part.shape[1])[c] for part, c in zip(parts, choice, strict=True)]
                chance = sum_of(part[:, c] for part, c in zip(parts, choice, strict=True)).exp()
                value = value + chance * smaller(torch.cat(eyes).expand(len(view), -1).double())
        else:
            value = smaller(act)
        return value - float(self.alpha[agent]) * log_prob, log_prob

    def values(
        self, critics: dict[int, list[nn.Sequential]], rows: Rows, view: View
    ) -> list[tuple[Tensor, Tensor, Rows]]:
        """Per agent: soft values and log-probabilities in its rows, and those rows."""
        n = self.spec.n
        lists = [[*where(rows.ego == ALL_AGENTS), *where(rows.ego == agent)] for agent in range(n)]
        noise = self.draw(len(lists[0]))
        if self.learner.teammates is None:
            everybody = self.samples_of(view) if bool((rows.ego != ALL_AGENTS).any()) else None
        found = []
        for agent, mine in enumerate(lists):
            seen = view[mine]
            if self.learner.teammates is not None:
                others = self.learner.teammates(seen, torch.full((len(mine),), agent))
            elif everybody is not None:
                others = everybody[mine]
            else:
                acts = [self.sample(j, seen, noise[j])[0].detach() * seen.acting[:, [j]] for j in range(n)]
                others = torch.cat(acts, 1)
            value, log_prob = self.value(agent, critics[agent], seen, others, noise[agent])
            found.append((value, log_prob, rows[mine]))
        return found

    def targets(self, rows: Rows) -> Tensor:
        found = []
        for agent, (value, _, mine) in enumerate(self.values(self.old, rows, rows.next_view)):
            future = torch.where(mine.terminated[:, agent], 0.0, value)
            found.append(mine.reward[:, agent] + self.config.discount * future)
        return torch.stack(found).detach()

    def critic_losses(self, rows: Rows, targets: Tensor) -> list[Tensor]:
        found = []
        for agent, target in enumerate(targets):
            mine = rows[[*where(rows.ego == ALL_AGENTS), *where(rows.ego == agent)]]
            errors = [self.q(agent, critic, mine.obs, mine.act) - target for critic in self.critics[agent]]
            found.append((errors[0] ** 2).mean() + (errors[1] ** 2).mean())
        return found

    def policy_losses(self, rows: Rows) -> tuple[list[Tensor], list[Tensor]]:
        losses, entropies = [], []
        for agent, (value, log_prob, mine) in enumerate(self.values(self.critics, rows, rows.view)):
            acts = where(mine.acting[:, agent])
            losses.append(-value[acts].mean())
            entropies.append(-log_prob[acts].mean().detach())
        return losses, entropies


def where(mask: Tensor) -> list[int]:
    return [k for k, flag in enumerate(mask.tolist()) if flag]


def sum_of(parts: Any) -> Tensor:
    total: Tensor = sum(parts, torch.zeros(()))
    return total
