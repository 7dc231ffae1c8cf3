"""What a model expects of the others, or what is true of them: distributions over every agent's action.

Each is a mixture of K components, members of an ensemble or of a mixture; a component is a product over the agent's
heads. Everything that a mixture of one-hot heads is asked is exact; of box actions, what has no closed form is
estimated by samples.

Shape suffixes: B moments, N agents, g agents of a group, K components, J joint choices, A action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from presage.common import heads
from presage.common.game import GameError, GameSpec, View
from presage.common.heads import Group, groups_of, join

SAMPLES = 64
"""draws that stand for an integral over box actions"""
CHOICES = 4_096
"""most joint choices of an agent's one-hot heads that are counted up"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The distributions of a group of agents of equal shape."""

    group: Group
    parameters: Tensor
    """(g, B, K, p) logits, or means and log standard deviations before squashing"""
    log_weights: Tensor
    """(g, B, K) of the components, normalised"""
    legal: Tensor | None = None
    """(g, B, a) bool; None where everything is"""

    @property
    def components(self) -> int:
        """K."""
        return self.parameters.shape[2]

    def of_components(self, act: Tensor) -> Tensor:
        """Log-probability of `act (g, B, a)` under every component, summed over heads: `(g, B, K)`."""
        each = act[:, :, None].expand(-1, -1, self.components, -1)
        return heads.log_prob(self.group.heads, self.parameters, each, self._allowed())

    def log_prob(self, act: Tensor) -> Tensor:
        """Log-probability of `act (g, B, a)`: `(g, B)`."""
        return torch.logsumexp(self.log_weights + self.of_components(act), 2)

    def marginals(self) -> list[Tensor]:
        """The probabilities of every head's entries, `(g, B, size)` each."""
        logits = self.parameters
        allowed = self._allowed()
        if allowed is not None:
            logits = logits.masked_fill(~allowed, heads.ILLEGAL)
        weights = self.log_weights.exp()[..., None]
        parts = torch.split(logits, [head.size for head in self.group.heads], -1)
        return [(weights * part.softmax(-1)).sum(2) for part in parts]

    def chances(self) -> Tensor:
        """The log-probabilities of all joint choices of one-hot heads, `(g, B, J)`, in the order of `heads.choices`.

        Raises:
            GameError: there are more than `CHOICES`.
        """
        count = math.prod(head.size for head in self.group.heads)
        if count > CHOICES:
            raise GameError(f"{count} joint choices of one agent are too many to count up; at most {CHOICES} are")
        table = heads.choices(self.group.heads, CHOICES).to(self.parameters.device)
        found = heads.choice_log_probabilities(self.group.heads, self.parameters, self._allowed(), table)
        return torch.logsumexp(self.log_weights[..., None] + found, 2)

    def entropy(self) -> Tensor:
        """Of one-hot heads, in nats: `(g, B)`."""
        if self.components == 1:
            return heads.entropy(self.group.heads, self.parameters[:, :, 0], self.legal)
        log_p = self.chances()
        return -(log_p.exp() * log_p).sum(-1)

    def mode(self) -> Tensor:
        """The likeliest entry of every head, or the centre of the heaviest component: `(g, B, a)`."""
        if self.components == 1:
            return heads.answer(self.group.heads, self.parameters[:, :, 0], self.legal, None)[0]
        if self.group.discrete:
            parts = []
            for marginal in self.marginals():
                parts.append(torch.zeros_like(marginal).scatter_(-1, marginal.argmax(-1, keepdim=True), 1.0))
            return torch.cat(parts, -1)
        heaviest = self.log_weights.argmax(2)[..., None, None].expand(-1, -1, 1, self.parameters.shape[3])
        return heads.answer(self.group.heads, self.parameters.gather(2, heaviest)[:, :, 0], None, None)[0]

    def sample(self, rng: torch.Generator) -> Tensor:
        """A draw `(g, B, a)`."""
        if self.components == 1:
            return heads.answer(self.group.heads, self.parameters[:, :, 0], self.legal, rng)[0]
        shape = self.log_weights.shape
        drawn = torch.multinomial(self.log_weights.exp().flatten(0, 1), 1, generator=rng).view(*shape[:2], 1, 1)
        parameters = self.parameters.gather(2, drawn.expand(-1, -1, 1, self.parameters.shape[3]))[:, :, 0]
        return heads.answer(self.group.heads, parameters, self.legal, rng)[0]

    def _allowed(self) -> Tensor | None:
        return None if self.legal is None else self.legal[:, :, None]


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The distributions of all agents' actions in B moments, every agent's its own: nothing is said of how they go
    together.
    """

    spec: GameSpec
    parts: tuple[Part, ...]
    """one for each group of agents of equal shape, as `presage.common.heads.groups_of` has them"""

    def __len__(self) -> int:
        return self.parts[0].parameters.shape[1]

    def __getitem__(self, index: Tensor | slice) -> Predicted:
        """The moments at `index`."""
        return Predicted(
            spec=self.spec,
            parts=tuple(
                Part(
                    group=part.group, parameters=part.parameters[:, index], log_weights=part.log_weights[:, index],
                    legal=None if part.legal is None else part.legal[:, index],
                )
                for part in self.parts
            ),
        )  # fmt: skip

    @classmethod
    def of_parameters(cls, spec: GameSpec, parameters: Sequence[Tensor], legal: Tensor | None = None) -> Predicted:
        """From what describes each agent's action, without components.

        Args:
            parameters: for every agent `(B, p)`: its heads' logits side by side, or means and log standard deviations
                before squashing. legal: `(B, A)` bool.

        Raises:
            GameError: parameters that are not as many, or not as wide, as the game's heads ask.
        """
        groups = groups_of(spec, parameters[0].device if parameters else "cpu")
        if len(parameters) != spec.n:
            raise GameError(f"{spec.name!r} has {spec.n} agents, got parameters of {len(parameters)}")
        parts = []
        for group in groups:
            for agent in group.agents:
                if parameters[agent].ndim != 2 or parameters[agent].shape[1] != group.parameters:
                    raise GameError(
                        f"agent {spec.names[agent]!r} needs parameters of shape (B, {group.parameters}), got "
                        f"{tuple(parameters[agent].shape)}"
                    )
            numbers = torch.stack([parameters[agent] for agent in group.agents])[:, :, None]
            allowed = group.of_actions(legal) if legal is not None and group.discrete else None
            parts.append(
                Part(group=group, parameters=numbers, log_weights=numbers.new_zeros(numbers.shape[:3]), legal=allowed)
            )
        return cls(spec=spec, parts=tuple(parts))

    def _by_agent(self, found: Sequence[Tensor]) -> Tensor:
        """A quantity `(B, N)` from one `(g, B)` for each group."""
        return heads.join_agents([part.group for part in self.parts], found).T

    def log_prob(self, act: Tensor) -> Tensor:
        """Log-probability in nats, or log-density, of each agent's slice of `act (B, A)`: `(B, N)`."""
        return self._by_agent([part.log_prob(part.group.of_actions(act)) for part in self.parts])

    def probabilities(self, agent: str | int) -> list[Tensor]:
        """The probabilities of the entries of every head of an agent, `(B, size)` each.

        Raises:
            GameError: the agent is unknown, or its actions are numbers.
        """
        part, place = self._place(agent)
        if not part.group.discrete:
            raise GameError(f"agent {agent!r} acts in numbers, which have no probabilities; ask for log_prob or sample")
        return [marginal[place] for marginal in part.marginals()]

    def _place(self, agent: str | int) -> tuple[Part, int]:
        index = self.spec.index(agent)
        part = next(part for part in self.parts if index in part.group.agents)
        return part, part.group.agents.index(index)

    def sample(self, rng: torch.Generator) -> Tensor:
        """A joint action `(B, A)`; `rng` on the parameters' device."""
        return join([part.group for part in self.parts], [part.sample(rng) for part in self.parts])

    def mode(self) -> Tensor:
        """`(B, A)`: the likeliest entry of every one-hot head, the centre of a box action's heaviest component."""
        return join([part.group for part in self.parts], [part.mode() for part in self.parts])

    def entropy(self, rng: torch.Generator | None = None) -> Tensor:
        """In nats, `(B, N)`; of box actions an estimate by `SAMPLES` draws.

        Raises:
            GameError: some actions are numbers, and there is no `rng`.
        """
        found = []
        for part in self.parts:
            found.append(part.entropy() if part.group.discrete else -_average(part.log_prob, part, rng))
        return self._by_agent(found)

    def divergence(self, other: Predicted, rng: torch.Generator | None = None) -> Tensor:
        """Kullback-Leibler divergence in nats of these distributions from `other`, `(B, N)`.

        Squashing loses nothing, so that of two single box components is the Gaussians'; of mixtures of them it is an
        estimate by `SAMPLES` draws.

        Raises:
            GameError: box mixtures, and there is no `rng`.
        """
        found = []
        for one, two in zip(self.parts, other.parts, strict=True):
            if one.components == two.components == 1:
                pair = (one.parameters[:, :, 0], two.parameters[:, :, 0])
                found.append(heads.divergence(one.group.heads, *pair, one.legal))
            elif one.group.discrete:
                p, q = one.chances(), two.chances()
                found.append((p.exp() * (p - q)).sum(-1))
            else:
                found.append(_average(_difference(one, two), one, rng))
        return self._by_agent(found)

    def variation(self, other: Predicted, rng: torch.Generator | None = None) -> Tensor:
        """Total variation distance from `other`, in [0, 1], `(B, N)`; of box actions an estimate by `SAMPLES` draws.

        Raises:
            GameError: some actions are numbers, and there is no `rng`.
        """
        found = []
        for one, two in zip(self.parts, other.parts, strict=True):
            if one.group.discrete:
                found.append(0.5 * (one.chances().exp() - two.chances().exp()).abs().sum(-1))
            else:
                found.append(_average(_shortfall(one, two), one, rng))
        return self._by_agent(found)

    def disagreement(self, rng: torch.Generator | None = None) -> Tensor:
        """How much the components differ: what one learns of the component from an action, in nats, `(B, N)`; 0 for a
        single one (Houlsby et al. 2011). Of an ensemble it is the part of the entropy that more data would take away.

        Raises:
            GameError: box mixtures, and there is no `rng`.
        """
        found = []
        for part in self.parts:
            if part.components == 1:
                found.append(part.parameters.new_zeros(part.parameters.shape[:2]))
                continue
            each = []
            for k in range(part.components):
                one = Part(
                    group=part.group, parameters=part.parameters[:, :, k : k + 1],
                    log_weights=torch.zeros_like(part.log_weights[:, :, :1]), legal=part.legal,
                )  # fmt: skip
                if part.group.discrete:
                    p, q = one.chances(), part.chances()
                    each.append((p.exp() * (p - q)).sum(-1))
                else:
                    each.append(_average(_difference(one, part), one, rng))
            found.append((part.log_weights.exp() * torch.stack(each, -1)).sum(-1))
        return self._by_agent(found)


def silenced(spec: GameSpec, act: Tensor, view: View) -> Tensor:
    """The joint action `(B, A)` with zeros for agents that are not acting."""
    if not spec.acting_varies:
        return act
    widths = torch.tensor([agent.width for agent in spec.agents], device=act.device)
    return act * view.acting.repeat_interleave(widths, 1)


def _average(score: Callable[[Tensor], Tensor], part: Part, rng: torch.Generator | None) -> Tensor:
    """The mean of `score` over draws from `part`: `(g, B)`."""
    if rng is None:
        raise GameError("box actions have no closed form here, only an estimate by samples; pass rng=torch.Generator()")
    return torch.stack([score(part.sample(rng)) for _ in range(SAMPLES)]).mean(0)


def _difference(one: Part, two: Part) -> Callable[[Tensor], Tensor]:
    """How much likelier an action is under `one`, in nats."""
    return lambda act: one.log_prob(act) - two.log_prob(act)


def _shortfall(one: Part, two: Part) -> Callable[[Tensor], Tensor]:
    """By what share an action of `one` is less likely under `two`; its mean is the total variation."""
    return lambda act: (1.0 - (two.log_prob(act) - one.log_prob(act)).exp()).clamp_min(0.0)
