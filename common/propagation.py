"""Imagining with a dynamics ensemble: which member answers for which row, and one step of all rows at once.

Rows are sent to members in equal groups, so that a step costs one batched product of B rows and not one per member.

Shape suffixes: B batch, K elites of one owner, P particles of one plan, O observation, A action, N agent, S state,
L flags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from presage.common.dynamics import DynamicsEnsemble, Past
from presage.common.ensemble import WHOLE, WHOLE_PLANS, GaussianStack, Networks, Prediction
from presage.common.game import ALL_AGENTS, GameError, Outcome, View, Window

Propagation = Literal["fresh", "fixed", "mean", "mixture", "moments"]


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


def mixture(answer: Prediction) -> Prediction:
    """The moments of what K elites say `(G, K, B, .)` in equal shares: `(G, B, .)`.

    Variances are the elites' mean variance plus the variance of their means (DS of PETS); a flag's chance is the mean
    of theirs.
    """
    variance = answer.std.square().mean(1) + answer.mean.var(1, unbiased=False)
    spread = variance > 0  # the root has no slope at 0
    std = torch.where(spread, torch.where(spread, variance, 1.0).sqrt(), 0.0)
    return Prediction(answer.mean.mean(1), std, answer.logits.sigmoid().mean(1).logit())


@dataclass(frozen=True, kw_only=True)
class EnsembleCarry:
    """What an `EnsembleKernel` remembers of B branches."""

    networks: tuple[Networks, ...]
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

    Propagation, with PETS's names (Chua et al. 2018) in brackets:

    * "fresh" (TS1) draws an elite anew per row and step, as MBPO does (Janner et al. 2019);
    * "fixed" (TS-infinity) keeps one per row for the whole branch;
    * "mean" (E) follows the elites' mean without noise;
    * "mixture" (DS) draws every row from the Gaussian with the mean and the variances of the elites' mixture;
    * "moments" (MM) does as well, and then draws the states of a plan's `particles` rows anew from the Gaussian with
      their mean and covariance. A row's reward and flags are those of its own step, before that. Rows whose branches
      have ended count like the others, and rows of one plan are taken to have played the same actions.

    With "fresh" and "fixed" draws are balanced: elites answer for equally many rows. Assignments and noise are drawn
    for the whole batch.
    """

    def __init__(
        self, ensemble: DynamicsEnsemble, propagation: Propagation = "fresh", particles: int | None = None
    ) -> None:
        """
        Args:
            particles: rows that imagine the same plan, side by side in runs of this length; each run is spread evenly
                over the elites. None where rows have nothing to do with each other.

        Raises:
            ValueError: an unknown propagation; "moments" without at least two particles.
        """
        if propagation not in get_args(Propagation):
            known = ", ".join(map(repr, get_args(Propagation)))
            raise ValueError(f"propagation={propagation!r} must be one of {known}")
        if propagation == "moments" and (particles or 0) < 2:
            raise ValueError(
                f"propagation='moments' fits a Gaussian to the rows of a plan; particles={particles} must be >= 2"
            )
        self._routed = propagation in ("fresh", "fixed")
        self._whole = WHOLE if particles is None else WHOLE_PLANS
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
            networks=tuple(network.elite_networks() for network in ensemble.networks),
            owner=owner,
            capacity=-(-most // config.elites) if self._routed else most,
            route=None,
            past=ensemble.past(window) if ensemble.spec.frames > 1 else None,
        )
        return carry if self.propagation == "fresh" else replace(carry, route=self._route(carry, rng))

    def _route(self, carry: EnsembleCarry, rng: torch.Generator) -> Route:
        owners = self.ensemble.config.owners
        elites = self.ensemble.config.elites if self._routed else 1
        particles = self.particles or len(carry.owner)
        slot = balanced_slots(carry.owner, owners, elites, carry.capacity, particles, rng)
        return Route.of(slot, owners * elites, carry.capacity)

    def step(
        self, carry: EnsembleCarry, view: View, act: Tensor, rng: torch.Generator
    ) -> tuple[EnsembleCarry, Outcome]:
        """One step of all branches under `act (B, A)`; differentiable in the views' tensors and the actions."""
        carry, outcome, state = self._step(carry, view, act, None, rng)
        return self._refit(carry, outcome, state, rng) if self.propagation == "moments" else (carry, outcome)

    def step_to(
        self, carry: EnsembleCarry, view: View, act: Tensor, state: Tensor, rng: torch.Generator
    ) -> tuple[EnsembleCarry, Outcome]:
        """As `step`, where the next `state (B, S)` is known: rewards and flags alone are asked for."""
        return self._step(carry, view, act, state, rng)[:2]

    def _step(
        self, carry: EnsembleCarry, view: View, act: Tensor, known: Tensor | None, rng: torch.Generator
    ) -> tuple[EnsembleCarry, Outcome, Tensor]:
        """One step to the `known` next state `(B, S)`, or to one that is drawn; and that state."""
        if len(view) != len(carry.owner):
            raise GameError(f"{len(carry.owner)} branches were started, {len(view)} rows are to be stepped")
        ensemble = self.ensemble
        route = carry.route or self._route(carry, rng)
        read, width = ensemble.reading(view, act, carry.past), ensemble.state_dim
        inputs = ensemble.inputs(read.view, read.act, read.past)
        if known is None or ensemble.outcome_network is None:  # then the one network tells rewards and flags as well
            answer = self._ask(ensemble.state_network, carry.networks[0], inputs, route)
            answer = ensemble.joint(answer, ensemble.state_network, read.names)
            drawn = self._draw(answer, rng)
            state, reward = drawn[:, :width], drawn[:, width:]
            if ensemble.config.target == "delta":
                state = ensemble.state(view) + state
            state = ensemble.known(state, view, act)
        if known is not None:
            state = known
        if ensemble.outcome_network is not None:
            reads = ensemble.outcome_inputs(inputs, ensemble.read_state(state, read.names), read.view)
            answer = self._ask(ensemble.outcome_network, carry.networks[1], reads, route)
            answer = ensemble.joint(answer, ensemble.outcome_network, read.names)
            reward = self._draw(answer, rng)
        outcome = self._outcome(view, act, state, reward, answer.logits, rng)
        if carry.past is not None and ensemble.steps == 1:  # who steps further knows what was seen in between
            obs = torch.cat([carry.past.obs[:, 1:], view.obs[:, None]], 1)
            acts = torch.cat([carry.past.act[:, 1:], act[:, None]], 1)
            carry = replace(carry, past=Past(obs, acts))
        return carry, outcome, state

    def _refit(
        self, carry: EnsembleCarry, outcome: Outcome, state: Tensor, rng: torch.Generator
    ) -> tuple[EnsembleCarry, Outcome]:
        """The step's end with states `(B, S)`, and the frames before them, drawn anew from each plan's Gaussian.

        A row becomes its plan's mean plus a random combination of the deviations from it: `x + Z (X - x) / sqrt(P - 1)`
        with Z `(P, P)` standard normal has the sample covariance, whatever its rank.
        """
        past, size = carry.past, self.particles or 1
        columns = state if past is None else torch.cat([state, past.obs.flatten(1)], 1)
        plans = columns.view(-1, size, columns.shape[1])
        mean = plans.mean(1, keepdim=True)
        mix = torch.randn(len(plans), size, size, generator=rng, device=state.device) / math.sqrt(size - 1)
        drawn = (mean + mix @ (plans - mean)).view_as(columns)
        if past is not None:
            frames = drawn[:, state.shape[1] :].view_as(past.obs)
            carry = replace(carry, past=Past(frames, past.act))
        return carry, replace(outcome, after=self._at(drawn[:, : state.shape[1]], outcome.after))

    def _at(self, state: Tensor, view: View) -> View:
        """`view` with what the modelled state `(B, S)` says in place of its own."""
        spec = self.ensemble.spec
        obs = state[:, : spec.obs_dim]
        achieved = obs[:, list(spec.achieved)] if spec.achieved else state[:, spec.obs_dim :]
        return replace(view, obs=obs, achieved=achieved)

    def _ask(self, network: GaussianStack, weights: Networks, inputs: Tensor, route: Route) -> Prediction:
        """What the routed networks, or all elites together, predict for rows `(B * R, inputs)`, as `(B * R, .)`; the
        heads of a row are the same member's.
        """
        heads, width = 1 if self.ensemble.naming is None else self.ensemble.naming.heads, inputs.shape[1]
        grouped = route.group(inputs.view(len(route.slot), heads * width)).reshape(route.networks, -1, width)
        if self._routed:
            answer = network.predict(grouped, weights, self._whole)
        else:
            elites = self.ensemble.config.elites
            answer = network.predict(grouped.repeat_interleave(elites, 0), weights, self._whole)
            answer = Prediction(*(part.view(len(part) // elites, elites, *part.shape[1:]) for part in answer))
            mean = self.propagation == "mean"
            answer = Prediction(*(part.mean(1) for part in answer)) if mean else mixture(answer)
        return Prediction(*(self._by_row(part, route, heads) for part in answer))

    def _by_row(self, part: Tensor, route: Route, heads: int) -> Tensor:
        """Answers `(networks, capacity * R, X)` in the order of the rows, `(B * R, X)`."""
        groups, places, width = part.shape
        rows = route.ungroup(part.reshape(groups, places // heads, heads * width))
        return rows.reshape(len(rows) * heads, width)

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
        after = self._at(state, view)
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
            over = torch.zeros_like(terminated) if ensemble.backward else terminated
            after = replace(after, acting=flags["acting"] & ~over)
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
