"""How an agent that models all others sees the joint action: its own part, and the rest.

Shape suffixes: B rows, N agents, g agents of a group, A joint action, a own action, r = A - a the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from presage.common.game import ALL_AGENTS, GameError, GameSpec, Rows, View
from presage.common.heads import Group, groups_of
from presage.common.networks import Activation, StackedMLP


@dataclass(frozen=True)
class Seat:
    """Agents of equal shape, and the columns of the joint action that are not theirs."""

    group: Group
    others: Tensor
    """(g, r) int64: columns that all others write, in order"""
    writers: Tensor
    """(g, r) int64: the agent that writes each of them"""

    @property
    def agents(self) -> list[int]:
        """The g agents."""
        return list(self.group.agents)

    @property
    def own_width(self) -> int:
        """a."""
        return self.group.act.shape[1]

    @property
    def rest_width(self) -> int:
        """r."""
        return self.others.shape[1]

    def rest(self, act: Tensor) -> Tensor:
        """What all others do in a joint action `(B, A)`: `(g, B, r)`."""
        return act[:, self.others].transpose(0, 1)

    def acts(self, view: View) -> tuple[Tensor, Tensor]:
        """As 1.0 or 0.0, whether every agent acts `(g, B, 1)`, and whether who writes the rest does `(g, B, r)`."""
        flags = view.acting.to(view.obs.dtype)
        return self.group.of_agents(flags)[..., None], flags[:, self.writers].transpose(0, 1)

    def critics(self, spec: GameSpec, rest: bool, hidden: Sequence[int], rng: torch.Generator,
                activation: Activation, geometry: bool) -> StackedMLP:  # fmt: skip
        """A critic for every agent over the joint observation and its own action, and the rest where `rest`."""
        width = spec.obs_dim + self.own_width + rest * self.rest_width
        vectors = spec.vectors if geometry else ()
        return StackedMLP(len(self.agents), width, hidden, 1, rng, activation, vectors=vectors)


def seats_of(spec: GameSpec, method: str, device: torch.device | str = "cpu") -> tuple[Seat, ...]:
    """The game's agents by equal shape.

    Raises:
        GameError: the game has one agent, or discrete actions, which `method` does not take.
    """
    if spec.n < 2:
        raise GameError(f"{method} models the other agents; {spec.name!r} has {spec.n}. Play a game of two or more")
    discrete = [agent.name for agent in spec.agents if agent.discrete]
    if discrete:
        raise GameError(
            f"{method} takes box actions, but {', '.join(discrete)} of {spec.name!r} choose among discrete ones; where "
            "states and actions are finitely many, take ROMMEO-Q (presage.marl.opponents.rommeo_q)"
        )
    writer = torch.tensor([i for i, agent in enumerate(spec.agents) for _ in range(agent.width)], device=device)
    found = []
    for group in groups_of(spec, device):
        everything = torch.ones(len(group.agents), spec.act_dim, dtype=torch.bool, device=device)
        others = everything.scatter(1, group.act, False).nonzero()[:, 1].view(len(group.agents), -1)
        found.append(Seat(group, others, writer[others]))
    return tuple(found)


def judged(critic: nn.Module, obs: Tensor, *actions: Tensor, frozen: bool = False) -> Tensor:
    """Values of a seat's critics.

    Args:
        obs: `(B, O)`. actions: the own one and the rest, or the own one alone: `(g, B, width)` each; or with K
            alternatives `(g, B, K, width)`, one of either serving all of the other. frozen: keep gradients off the
            weights.

    Returns:
        `(g, B)`, or `(g, B, K)` for K alternatives.
    """
    agents, rows = actions[0].shape[:2]
    if actions[0].ndim == 3:
        inputs = torch.cat([obs.expand(agents, -1, -1), *actions], -1)
        value: Tensor = critic(inputs, frozen=frozen)
        return value.squeeze(-1)
    count = max(act.shape[2] for act in actions)
    parts = [obs[None, :, None].expand(agents, -1, count, -1), *(act.expand(-1, -1, count, -1) for act in actions)]
    values: Tensor = critic(torch.cat(parts, -1).flatten(1, 2), frozen=frozen)
    return values.view(agents, rows, count)


def check_rows(rows: Rows, method: str) -> None:
    """Raise GameError where rows serve single agents: nothing is imagined with models that are biased on purpose."""
    if bool((rows.ego != ALL_AGENTS).any()):
        raise GameError(f"{method} learns from rows that serve all agents, got rows of single egos; use real ones")
