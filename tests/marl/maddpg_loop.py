"""MADDPG agent by agent and model by model, with ordinary torch layers and optimisers: the oracle of its tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from presage.common.game import ALL_AGENTS, Rows, View
from presage.marl.maddpg import MADDPG
from tests.common.toy import generator
from tests.marl.sample_games import by_head, stack

Networks = dict[int, nn.Sequential]


class Loop:
    """The learner's networks one by one. It draws what the learner draws, from a generator of the same seed."""

    def __init__(self, learner: MADDPG, seed: int) -> None:
        self.spec, self.config, self.groups = learner.spec, learner.config, learner.groups
        self.rng = generator(seed)
        place = {agent: (k, p) for k, g in enumerate(self.groups) for p, agent in enumerate(g.agents)}

        def taken(networks: nn.ModuleList) -> Networks:
            return {agent: stack(networks, k).member(p) for agent, (k, p) in place.items()}

        self.actors, self.actors_old = taken(learner.policy.actors), taken(learner.actors_old)
        self.critics, self.critics_old = taken(learner.critic), taken(learner.critic_old)
        self.models: dict[tuple[int, int], nn.Sequential] = {}
        self.models_old: dict[tuple[int, int], nn.Sequential] = {}
        if learner.models is not None:
            for found, networks in (
                (self.models, learner.models.networks),
                (self.models_old, learner.models.networks_old),
            ):
                for agent, (k, p) in place.items():
                    for ego in range(self.spec.n):
                        found[ego, agent] = stack(networks, k).member(ego * len(self.groups[k].agents) + p)
        rate = self.config.learning_rate
        self.steps = {id(net): torch.optim.Adam(net.parameters(), lr=rate)
                      for nets in (self.actors, self.critics) for net in nets.values()}  # fmt: skip
        rate = self.config.inference.learning_rate
        self.steps |= {id(net): torch.optim.Adam(net.parameters(), lr=rate) for net in self.models.values()}

    # ------------------------------------------------------------ draws, in the learner's order

    def draw(self, rows: int, blocks: int = 1, boxes: bool = False) -> dict[tuple[int, int], list[Tensor]]:
        """For (block, agent), noise of every discrete head in `rows` rows; of box heads instead where `boxes`."""
        noise: dict[tuple[int, int], list[Tensor]] = {}
        for group in self.groups:
            for head in group.heads:
                if (head.kind == "box") != boxes:
                    continue
                empty = torch.empty(len(group.agents), blocks * rows, head.size, dtype=torch.float64)
                whole = (empty.normal_ if boxes else empty.exponential_)(generator=self.rng)
                for agent, part in zip(group.agents, whole, strict=True):
                    for block in range(blocks):
                        own = part[block * rows : (block + 1) * rows]
                        noise.setdefault((block, agent), []).append(own)
        return noise

    # ------------------------------------------------------------ what networks say

    def seen(self, agent: int, view: View) -> Tensor:
        return view.obs[:, list(self.spec.obs[agent])]

    def log_chances(self, agent: int, numbers: Tensor, view: View) -> list[Tensor]:
        """Of every head, by hand."""
        legal = by_head(self.spec.agents[agent], view.legal[:, self.spec.act[agent]])
        found = []
        for part, allowed in zip(by_head(self.spec.agents[agent], numbers), legal, strict=True):
            odds = (part - part.amax(1, keepdim=True)).exp() * allowed
            chance = odds / odds.sum(1, keepdim=True)
            found.append(torch.where(allowed, torch.where(allowed, chance, 1.0).log(), -1e9))
        return found

    def chances(self, agent: int, numbers: Tensor, view: View) -> Tensor:
        parts = [part.exp() for part in self.log_chances(agent, numbers, view)]
        return torch.cat(parts, 1) * view.acting[:, [agent]]

    def choice(self, agent: int, numbers: Tensor, view: View, noise: list[Tensor]) -> Tensor:
        """A draw with the gradient of a Gumbel-softmax."""
        acts = []
        for log_p, drawn in zip(self.log_chances(agent, numbers, view), noise, strict=True):
            soft = (log_p - drawn.log()).softmax(1)
            acts.append(nn.functional.one_hot(soft.argmax(1), soft.shape[1]) + soft - soft.detach())
        return torch.cat(acts, 1) * view.acting[:, [agent]]

    def act(self, agent: int, numbers: Tensor, view: View, noise: list[Tensor] | None) -> Tensor:
        """What the agent does, without exploring; probabilities where there is no noise."""
        if not self.spec.agents[agent].discrete:
            return numbers.tanh() * view.acting[:, [agent]]
        return self.chances(agent, numbers, view) if noise is None else self.choice(agent, numbers, view, noise)

    def mode(self, agent: int, numbers: Tensor, view: View) -> Tensor:
        return numbers.chunk(2, 1)[0].tanh() * view.acting[:, [agent]]

    def q(self, agent: int, critic: nn.Sequential, obs: Tensor, acts: list[Tensor]) -> Tensor:
        if self.config.critic == "own":
            value: Tensor = critic(torch.cat([obs[:, list(self.spec.obs[agent])], acts[agent]], 1))
        else:
            value = critic(torch.cat([obs, *acts], 1))
        return value.squeeze(1)

    # ------------------------------------------------------------ an update

    def mine(self, rows: Rows, agent: int) -> list[int]:
        """The places of the agent's rows."""
        found = [k for k, ego in enumerate(rows.ego.tolist()) if ego == ALL_AGENTS]
        return found + [k for k, ego in enumerate(rows.ego.tolist()) if ego == agent]

    def told(self, ego: int, view: View, old: bool, noise: dict[tuple[int, int], list[Tensor]] | None) -> list[Tensor]:
        """What the ego takes all agents to do: probabilities or draws, and modes."""
        found = []
        for agent in range(self.spec.n):
            network = (self.models_old if old else self.models)[ego, agent]
            numbers = network(self.seen(agent, view)).detach()
            if not self.spec.agents[agent].discrete:
                found.append(self.mode(agent, numbers, view))
            elif noise is None:
                found.append(self.chances(agent, numbers, view))
            else:
                found.append(self.choice(agent, numbers, view, noise[ego, agent]))
        return found

    def reads(self, agent: int, rows: Rows) -> tuple[View, list[Tensor]]:
        """The agent's rows, and what its critic reads of what was done there."""
        mine = rows[self.mine(rows, agent)]
        done = [mine.act[:, where] for where in self.spec.act]
        if self.config.critic_input == "actions":
            return mine.view, done
        if self.models:
            told = self.told(agent, mine.view, False, None)
        else:
            told = [self.act(j, self.actors[j](self.seen(j, mine.view)).detach(), mine.view, None)
                    for j in range(self.spec.n)]  # fmt: skip
        undrawn = [j != agent and self.spec.agents[j].discrete for j in range(self.spec.n)]
        return mine.view, [theirs if apart else own for own, theirs, apart in zip(done, told, undrawn, strict=True)]

    def targets(self, rows: Rows) -> list[Tensor]:
        view, n = rows.next_view, self.spec.n
        noise = self.draw(len(rows))
        numbers = [self.actors_old[j](self.seen(j, view)).detach() for j in range(n)]
        drawn = [self.act(j, numbers[j], view, noise.get((0, j))) for j in range(n)]
        inferring = self.config.policies == "inferred" and self.config.critic_input == "actions"
        noise = self.draw(len(self.mine(rows, 0)), blocks=n) if inferring else {}
        found = []
        for agent in range(n):
            places = self.mine(rows, agent)
            mine = rows[places]
            acts = [act[places] for act in drawn]
            if self.models:
                told = self.told(agent, mine.next_view, True, noise or None)
                acts = [acts[j] if j == agent else told[j] for j in range(n)]
            elif self.config.critic_input == "probabilities":
                whole = [self.act(j, numbers[j], view, None)[places] for j in range(n)]
                acts = [acts[j] if j == agent else whole[j] for j in range(n)]
            future = self.q(agent, self.critics_old[agent], mine.next_obs, acts)
            going_on = torch.where(mine.terminated[:, agent], 0.0, future)
            found.append((mine.reward[:, agent] + self.config.discount * going_on).detach())
        return found

    def critic_losses(self, rows: Rows, targets: list[Tensor]) -> list[Tensor]:
        found = []
        for agent, target in enumerate(targets):
            view, acts = self.reads(agent, rows)
            found.append(((self.q(agent, self.critics[agent], view.obs, acts) - target) ** 2).mean())
        return found

    def policy_losses(self, rows: Rows) -> list[Tensor]:
        noise = self.draw(len(self.mine(rows, 0)))
        found = []
        for agent in range(self.spec.n):
            view, acts = self.reads(agent, rows)
            numbers = self.actors[agent](self.seen(agent, view))
            acts[agent] = self.act(agent, numbers, view, noise.get((0, agent)))
            each = self.config.shrinkage * (numbers**2).mean(1) - self.q(agent, self.critics[agent], view.obs, acts)
            busy = view.acting[:, agent]
            found.append(each[busy].mean() if bool(busy.any()) else 0.0 * each.sum())
        return found

    def descend(
        self, networks: Networks | dict[tuple[int, int], nn.Sequential], losses: list[Tensor], most: float | None
    ) -> None:
        for network in networks.values():
            self.steps[id(network)].zero_grad()
        torch.autograd.backward(losses)
        for network in networks.values():
            for layer in network:
                if isinstance(layer, nn.Linear):
                    for parameter in (layer.weight, layer.bias):
                        assert parameter.grad is not None
                        norm = float(parameter.grad.square().sum().sqrt())
                        if most is not None and norm > most:
                            parameter.grad *= most / norm
            self.steps[id(network)].step()

    def update(self, rows: Rows) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Targets, and losses of critics and policies before their steps."""
        targets = self.targets(rows)
        critic_losses = self.critic_losses(rows, targets)
        self.descend(self.critics, critic_losses, self.config.gradient_clip)
        policy_losses = self.policy_losses(rows)
        self.descend(self.actors, policy_losses, self.config.gradient_clip)
        copies: list[tuple[dict[Any, nn.Sequential], dict[Any, nn.Sequential]]] = [
            (self.actors_old, self.actors), (self.critics_old, self.critics), (self.models_old, self.models)
        ]  # fmt: skip
        for old, new in copies:
            for key, network in new.items():
                for follower, leader in zip(old[key].parameters(), network.parameters(), strict=True):
                    follower.data += self.config.target_rate * (leader.data - follower.data)
        return targets, critic_losses, policy_losses

    # ------------------------------------------------------------ models

    def follow(self, rows: Rows) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
        """One step of Eq. 7; the likelihoods and entropies before it."""
        bonus, view, n = self.config.inference.entropy_bonus, rows.view, self.spec.n
        noise = self.draw(len(rows), blocks=n, boxes=True)
        losses, nll, entropies = [], {}, {}
        for agent in range(n):
            busy, own = view.acting[:, agent], rows.act[:, self.spec.act[agent]]
            for ego in range(n):
                numbers = self.models[ego, agent](self.seen(agent, view))
                if self.spec.agents[agent].discrete:
                    parts = self.log_chances(agent, numbers, view)
                    log_p = (own * torch.cat(parts, 1)).sum(1)
                    entropy = sum((-(part.exp() * part).sum(1) for part in parts), torch.zeros(()))
                else:
                    mean, log_sigma = numbers.chunk(2, 1)
                    log_p = self.density(own.clamp(-1 + 1e-6, 1 - 1e-6).atanh(), mean, log_sigma)
                    entropy = -self.density(mean + log_sigma.exp() * noise[ego, agent][0], mean, log_sigma)
                nll[ego, agent] = float(-log_p[busy].detach().mean())
                entropies[ego, agent] = float(entropy[busy].detach().mean())
                losses.append(-(log_p + bonus * entropy)[busy].mean())
        self.descend(self.models, losses, self.config.inference.gradient_clip)
        return nll, entropies

    def density(self, u: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
        normal = torch.distributions.Normal(mean, log_sigma.exp()).log_prob(u)  # type: ignore[no-untyped-call]
        found: Tensor = normal.sum(1) - (1 - u.tanh() ** 2 + 2.0**-23).log().sum(1)
        return found
