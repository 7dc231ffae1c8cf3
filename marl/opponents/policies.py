"""Opponents whose policies are known, to judge models by; and teams put together from several actors.

Shape suffixes: B rows, N agents, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from presage.common.game import Actor, Carry, GameError, GameSpec, View, Window
from presage.common.heads import ILLEGAL
from presage.common.policy import JointPolicy
from presage.marl.opponents.assessment import Truth
from presage.marl.opponents.predicted import Part, Predicted, silenced


class Stated:
    """An actor that plays by distributions which it can tell, from views alone."""

    def __init__(self, spec: GameSpec, predicted: Truth) -> None:
        """
        Args:
            predicted: the distributions of all agents' actions at B views.
        """
        self.spec, self.predicted = spec, predicted

    def init(self, window: Window) -> Carry:
        """Nothing to remember."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`; with rng None the modes."""
        told = self.predicted(view)
        return carry, silenced(self.spec, told.mode() if rng is None else told.sample(rng), view)


def uniform(spec: GameSpec) -> Stated:
    """Anything legal, all alike; of box actions a standard normal before squashing."""

    def predicted(view: View) -> Predicted:
        parameters = [view.obs.new_zeros(len(view), _width(spec, i)) for i in range(spec.n)]
        return Predicted.of_parameters(spec, parameters, _legal(spec, view))

    return Stated(spec, predicted)


def linear(spec: GameSpec, rng: torch.Generator, *, scale: float = 1.0, deviation: float = 0.3) -> Stated:
    """Policies drawn at random: logits, or means before squashing, are linear in what each agent observes.

    Args:
        rng: draws the weights, on the CPU. scale: their standard deviation over the root of what is observed; > 0.
        deviation: of box actions before squashing; > 0.
    """
    weights = [
        scale / max(len(agent.obs), 1) ** 0.5 * torch.randn(len(agent.obs) + 1, agent.width, generator=rng)
        for agent in spec.agents
    ]

    def predicted(view: View) -> Predicted:
        parameters = []
        for agent, weight in zip(spec.agents, weights, strict=True):
            own = view.obs[:, list(agent.obs)]
            found = torch.cat([own, own.new_ones(len(own), 1)], 1) @ weight.to(own)
            if not agent.discrete:
                found = torch.cat([found, torch.full_like(found, deviation).log()], 1)
            parameters.append(found)
        return Predicted.of_parameters(spec, parameters, _legal(spec, view))

    return Stated(spec, predicted)


def noisy(spec: GameSpec, actor: Actor, share: float, *, deviation: float = 0.1) -> Stated:
    """A deterministic actor without memory whose one-hot heads choose at random, each for itself, with a chance of
    `share`; its box actions are normal around its own before squashing.

    Args:
        share: in [0, 1]. deviation: of box actions; > 0.
    """
    if not 0 <= share <= 1 or deviation <= 0:
        raise ValueError(f"share={share} must lie in [0, 1] and deviation={deviation} be > 0")

    def predicted(view: View) -> Predicted:
        everybody = View(
            obs=view.obs, acting=torch.ones_like(view.acting), legal=view.legal, achieved=view.achieved,
            desired=view.desired,
        )  # fmt: skip
        act = actor.step(None, everybody, None)[1]
        parameters = []
        for i, agent in enumerate(spec.agents):
            own = act[:, spec.act[i]]
            if not agent.discrete:
                centre = own.clamp(-1 + 1e-6, 1 - 1e-6).atanh()
                parameters.append(torch.cat([centre, torch.full_like(centre, deviation).log()], 1))
                continue
            edges = list(accumulate((head.size for head in agent.heads), initial=0))
            allowed = view.legal[:, spec.act[i]].to(own.dtype)
            heads = []
            for head, low in zip(agent.heads, edges, strict=False):
                columns = slice(low, low + head.size)
                even = allowed[:, columns] / allowed[:, columns].sum(1, keepdim=True)
                heads.append((1 - share) * own[:, columns] + share * even)
            parameters.append(torch.cat(heads, 1).log().clamp_min(ILLEGAL))
        return Predicted.of_parameters(spec, parameters, _legal(spec, view))

    return Stated(spec, predicted)


def learned(policy: JointPolicy, *, temperature: float = 1.0) -> Stated:
    """Trained policies as they sample, or more or less evenly.

    Args:
        temperature: logits are divided by it, and the deviations of box actions multiplied; > 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be > 0")
    spec = policy.spec

    def predicted(view: View) -> Predicted:
        parts = []
        for group, parameters in zip(policy.groups, policy.parameters_of(view), strict=True):
            if group.discrete:
                numbers = parameters / temperature
            else:
                mean, log_sigma = parameters.chunk(2, -1)
                numbers = torch.cat([mean, log_sigma + torch.tensor(temperature).log().to(mean)], -1)
            legal = group.of_actions(view.legal) if spec.legal_varies and group.discrete else None
            zero = numbers.new_zeros(*numbers.shape[:2], 1)
            parts.append(Part(group=group, parameters=numbers[:, :, None], log_weights=zero, legal=legal))
        return Predicted(spec=spec, parts=tuple(parts))

    return Stated(spec, predicted)


class Team:
    """Every agent by an actor of its own choice."""

    def __init__(self, spec: GameSpec, seats: Mapping[str, Actor]) -> None:
        """
        Args:
            seats: by agent name; several agents may share an actor.

        Raises:
            GameError: an unknown agent, or one without an actor.
        """
        unknown, empty = sorted(seats.keys() - set(spec.names)), sorted(set(spec.names) - seats.keys())
        if unknown or empty:
            raise GameError(
                f"{spec.name!r} has agents {', '.join(spec.names)}: {unknown} are none of them, {empty} have no actor"
            )
        self.spec = spec
        self.actors: list[Actor] = []
        self._agents: list[list[int]] = []
        for i, name in enumerate(spec.names):
            place = next((k for k, actor in enumerate(self.actors) if actor is seats[name]), None)
            if place is None:
                self.actors.append(seats[name])
                self._agents.append([])
            self._agents[-1 if place is None else place].append(i)

    def init(self, window: Window) -> Carry:
        """What each actor remembers."""
        return tuple(actor.init(window) for actor in self.actors)

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`, every agent's slice from its own actor."""
        joint = view.obs.new_zeros(len(view), self.spec.act_dim)
        kept = []
        for actor, agents, remembered in zip(self.actors, self._agents, carry, strict=True):
            remembered, act = actor.step(remembered, view, rng)
            kept.append(remembered)
            for i in agents:
                joint[:, self.spec.act[i]] = act[:, self.spec.act[i]]
        return tuple(kept), joint


class Switching:
    """Actors that follow one another within an episode, unannounced."""

    def __init__(self, actors: Sequence[Actor], until: Sequence[int]) -> None:
        """
        Args:
            actors: in the order in which they play. until: env steps of the episode at which the next one takes over,
                one fewer than actors, increasing.

        Raises:
            ValueError: numbers that are not so.
        """
        if len(until) != len(actors) - 1 or list(until) != sorted(set(until)) or any(step < 1 for step in until):
            raise ValueError(
                f"until={list(until)} must be {len(actors) - 1} increasing env steps >= 1 for {len(actors)} actors"
            )
        self.actors, self.until = tuple(actors), tuple(until)

    def who(self, step: Tensor) -> Tensor:
        """The place of the actor that plays at env steps `(B,)` of an episode."""
        return torch.bucketize(step, torch.tensor(self.until, device=step.device), right=True)

    def init(self, window: Window) -> Carry:
        """The time, and what each actor remembers."""
        begin = torch.zeros(len(window), dtype=torch.int64, device=window.obs.device)
        return (begin, *(actor.init(window) for actor in self.actors))

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)` of whoever's turn it is; all actors see everything."""
        time, *remembered = carry
        now = self.who(time)
        kept, joint = [], view.obs.new_zeros(0)
        for k, (actor, own) in enumerate(zip(self.actors, remembered, strict=True)):
            own, act = actor.step(own, view, rng)
            kept.append(own)
            joint = act if k == 0 else torch.where((now == k)[:, None], act, joint)
        return (time + 1, *kept), joint


def _legal(spec: GameSpec, view: View) -> Tensor | None:
    return view.legal if spec.legal_varies else None


def _width(spec: GameSpec, agent: int) -> int:
    """Numbers that describe an agent's distribution."""
    return spec.agents[agent].width * (1 if spec.agents[agent].discrete else 2)
