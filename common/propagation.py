"""Imagining with a dynamics ensemble: which member answers for which row, and one step of all rows at once.

Rows are sent to members in equal groups, so that a step costs one batched product of B rows and not one per member.

Shape suffixes: B batch, K elites of one owner, R routed networks (owners * K), O observation, A action, N agent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble, Past
from presage.common.ensemble import GaussianStack, Prediction
from presage.common.game import ALL_AGENTS, GameError, Outcome, View, Window

Propagation = Literal["fresh", "fixed", "mean"]


class Route(NamedTuple):
    """Rows laid out in groups of equal size, one group per network; spare places hold row 0 and are dropped again."""

    slot: Tensor
    """(B,) place of each row among the `networks * capacity` places"""
    source: Tensor
    """(networks * capacity,) the row that stands in each place"""
    networks: int

    @classmethod
    def of(cls, slot: Tensor, networks: int, capacity: int) -> Route:
        """The route that puts row b into place `slot[b]`, that is into the group of network `slot[b] // capacity`."""
        source = slot.new_zeros(networks * capacity)
        source[slot] = torch.arange(len(slot), device=slot.device)
        return cls(slot, source, networks)

    def group(self, x: Tensor) -> Tensor:
        """Rows `(B, X)` as `(networks, capacity, X)`."""
        return x[self.source].view(self.networks, -1, x.shape[1])

    def ungroup(self, y: Tensor) -> Tensor:
        """The inverse of `group`."""
        return y.flatten(0, 1)[self.slot]


def balanced_slots(
    owner: Tensor, owners: int, elites: int, capacity: int, particles: int, rng: torch.Generator
) -> Tensor:
    """Random places `(B,)` such that an owner's elites answer for equally many of its rows, give or take one.

    Every run of `particles` consecutive rows of one owner is spread evenly over the elites as well.

    Args:
        owner: `(B,)` 0..owners-1. capacity: places per elite; at least rows per owner / elites, rounded up.
    """
    size, device = len(owner), owner.device
    if particles == size:
        order = torch.randperm(size, generator=rng, device=device)
    else:
        noise = torch.rand(size // particles, particles, generator=rng, device=device)
        order = (noise.argsort(1) + particles * torch.arange(len(noise), device=device)[:, None]).flatten()
    first = torch.zeros(owners, dtype=torch.long, device=device)
    if owners > 1:
        order = order[owner[order].argsort(stable=True)]
        count = torch.zeros_like(first).index_add_(0, owner, torch.ones_like(owner))
        first = count.cumsum(0) - count
    rank = torch.empty_like(order)
    rank[order] = torch.arange(size, device=device)
    rank -= first[owner]
    turn = torch.randint(elites, (1,), generator=rng, device=device)  # else the first elites would answer more often
    return (owner * elites + (rank + turn) % elites) * capacity + rank // elites


@dataclass(frozen=True, kw_only=True)
class EnsembleCarry:
    """What an `EnsembleKernel` remembers of B branches."""

    networks: tuple[dict[str, Tensor], ...]
    """the elites of every network as they were when the branches began"""
    owner: Tensor
    """(B,) whose ensemble answers for each row"""
    capacity: int
    """rows that one group of a route can hold"""
    route: Route | None
    """who answers, where it stays the same for the whole branch"""
    past: Past | None


class EnsembleKernel:
    """A dynamics ensemble as a world to imagine in; satisfies `Kernel`.

    Propagation: "fresh" draws an elite anew per row and step (MBPO, Janner et al. 2019; TS1 of PETS), "fixed" keeps one
    per row for the whole branch (TS-infinity, Chua et al. 2018), "mean" follows the elites' mean without noise.
    Draws are balanced: elites answer for equally many rows. Assignments and noise are drawn for the whole batch.
    """

    def __init__(
        self, ensemble: DynamicsEnsemble, propagation: Propagation = "fresh", particles: int | None = None
    ) -> None:
        """
        Args:
            particles: rows that imagine the same plan, side by side in runs of this length; each run is spread evenly
                over the elites. None where rows have nothing to do with each other.
        """
        if propagation not in ("fresh", "fixed", "mean"):
            raise ValueError(f"propagation={propagation!r} must be 'fresh', 'fixed' or 'mean'")
        self.ensemble, self.propagation, self.particles = ensemble, propagation, particles

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> EnsembleCarry:
        """Start B branches at the end of `window`; `ego (B,)` picks the owner where every agent has its own ensemble.

        Raises:
            GameError: an ego has no ensemble of its own, or B is no multiple of `particles`.
        """
        ensemble, size = self.ensemble, len(ego)
        config = ensemble.config
        if self.particles is not None and size % self.particles:
            raise GameError(f"{size} rows cannot be split into runs of particles={self.particles}")
        owner, most = torch.zeros_like(ego, dtype=torch.long), size
        if config.owners > 1:
            owner = ego.long()
            if bool((owner == ALL_AGENTS).any()) or int(owner.max()) >= config.owners:
                raise GameError(
                    f"owners={config.owners}: every branch needs an ego in 0..{config.owners - 1}, got "
                    f"{sorted(set(owner.tolist()))}; use owners=1 for branches that serve all agents"
                )
            most = int(torch.bincount(owner).max())
        carry = EnsembleCarry(
            networks=tuple(network.select(network.elite_index()) for network in ensemble.networks),
            owner=owner,
            capacity=most if self.propagation == "mean" else -(-most // config.elites),
            route=None,
            past=ensemble.past(window) if ensemble.spec.frames > 1 else None,
        )
        return carry if self.propagation == "fresh" else replace(carry, route=self._route(carry, rng))

    def _route(self, carry: EnsembleCarry, rng: torch.Generator) -> Route:
        owners = self.ensemble.config.owners
        elites = 1 if self.propagation == "mean" else self.ensemble.config.elites
        particles = self.particles or len(carry.owner)
        slot = balanced_slots(carry.owner, owners, elites, carry.capacity, particles, rng)
        return Route.of(slot, owners * elites, carry.capacity)

    def step(
        self, carry: EnsembleCarry, view: View, act: Tensor, rng: torch.Generator
    ) -> tuple[EnsembleCarry, Outcome]:
        """One step of all branches under `act (B, A)`; differentiable in the views' tensors and the actions."""
        if len(view) != len(carry.owner):
            raise GameError(f"{len(carry.owner)} branches were started, {len(view)} rows are to be stepped")
        ensemble = self.ensemble
        route = carry.route or self._route(carry, rng)
        inputs, width = ensemble.inputs(view, act, carry.past), ensemble.state_dim
        answer = self._ask(ensemble.state_network, carry.networks[0], inputs, route)
        drawn = self._draw(answer, rng)
        state, reward = drawn[:, :width], drawn[:, width:]
        if ensemble.config.target == "delta":
            state = ensemble.state(view) + state
        if ensemble.outcome_network is not None:
            reads = ensemble.outcome_inputs(inputs, state, view)
            answer = self._ask(ensemble.outcome_network, carry.networks[1], reads, route)
            reward = self._draw(answer, rng)
        outcome = self._outcome(view, act, state, reward, answer.logits, rng)
        if carry.past is not None:
            obs = torch.cat([carry.past.obs[:, 1:], view.obs[:, None]], 1)
            acts = torch.cat([carry.past.act[:, 1:], act[:, None]], 1)
            carry = replace(carry, past=Past(obs, acts))
        return carry, outcome

    def _ask(self, network: GaussianStack, weights: dict[str, Tensor], inputs: Tensor, route: Route) -> Prediction:
        """What the routed networks predict for rows `(B, inputs)`, as `(B, .)`."""
        grouped = route.group(inputs)
        if self.propagation != "mean":
            return Prediction(*(route.ungroup(part) for part in network.predict(grouped, weights)))
        elites = self.ensemble.config.elites
        answer = network.predict(grouped.repeat_interleave(elites, 0), weights)
        return Prediction(
            *(route.ungroup(part.view(len(part) // elites, elites, *part.shape[1:]).mean(1)) for part in answer)
        )

    def _draw(self, answer: Prediction, rng: torch.Generator) -> Tensor:
        if self.propagation == "mean":
            return answer.mean
        noise = torch.randn(answer.mean.shape, generator=rng, device=answer.mean.device)
        return answer.mean + answer.std * noise

    def _outcome(
        self, view: View, act: Tensor, state: Tensor, reward: Tensor, logits: Tensor, rng: torch.Generator
    ) -> Outcome:
        """The step's outcome from the next `state (B, S)`, learned rewards `(B, N)` and flags' log-odds `(B, L)`."""
        ensemble, spec = self.ensemble, self.ensemble.spec
        obs = state[:, : spec.obs_dim]
        achieved = obs[:, list(spec.achieved)] if spec.achieved else state[:, spec.obs_dim :]
        after = replace(view, obs=obs, achieved=achieved)
        terminated = torch.zeros_like(view.acting)
        flags: dict[str, Tensor] = {}
        if logits.shape[1]:
            odds = torch.rand(logits.shape, generator=rng, device=logits.device).logit()
            on = logits > (0.0 if self.propagation == "mean" else odds)
            flags = dict(zip(ensemble.flags, torch.split(on, list(ensemble.flags.values()), 1), strict=True))
        if ensemble.flags["terminated"]:
            terminated = flags["terminated"]
        elif ensemble.termination_rule is not None:
            terminated = ensemble.termination_rule(view, act, after)
        if ensemble.flags["acting"]:
            after = replace(after, acting=flags["acting"] & ~terminated)
        if ensemble.flags["legal"]:
            after = replace(after, legal=self._some_legal(flags["legal"], logits[:, -spec.act_dim :]))
        if ensemble.reward_rule is not None:
            reward = ensemble.reward_rule(view, act, after)
        return Outcome(after=after, reward=reward, terminated=terminated)

    def _some_legal(self, legal: Tensor, logits: Tensor) -> Tensor:
        """`legal (B, A)` with the likeliest entry added where a one-hot head has none left; boxes are always legal."""
        legal = legal.clone()
        for _, head, where in self.ensemble.spec.heads:
            if head.kind == "box":
                legal[:, where] = True
            else:
                none = ~legal[:, where].any(1, keepdim=True)
                best = torch.nn.functional.one_hot(logits[:, where].argmax(1), head.size).bool()
                legal[:, where] |= none & best
        return legal
