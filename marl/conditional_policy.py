"""Opponent-conditional policies (AORPO, Zhang et al. 2021, as its released code has them): each agent's policy reads,
beside its own observation, what its models of the others expect them to do.

    pi_i(a_i | o_i, a^_-i),   a^_j = argmax pi^_ij(. | o_j)

The models read the others' observations, so that acting needs those of all agents: execution is not decentralised.

Shape suffixes: B batch, N agents, g agents of a group, A action, w width of what a network reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from presage.common.game import GameError, GameSpec, View
from presage.common.heads import Group
from presage.common.networks import Activation
from presage.common.policy import JointPolicy
from presage.marl.opponents.behaviour_cloning import BehaviourCloning


class ConditionalPolicy(JointPolicy):
    """Policies of all agents over their own observation and the others' predicted actions.

    The opponent models belong to the policy's state, so that a trained run acts without anything else; they are fitted
    by whoever made them.
    """

    def __init__(
        self,
        spec: GameSpec,
        models: BehaviourCloning,
        hidden: Sequence[int],
        init_rng: torch.Generator,
        rng: torch.Generator,
        activation: Activation = "relu",
        device: torch.device | str = "cpu",
        geometry: bool = True,
    ) -> None:
        """
        Args:
            models: of every agent for every ego; their modes are read. Everything else is `JointPolicy`'s.

        Raises:
            GameError: the models are not one bank for every agent.
        """
        if models.egos != spec.n:
            raise GameError(f"{spec.name!r} has {spec.n} agents, the opponent models serve {models.egos} egos")
        super().__init__(spec, hidden, init_rng, rng, activation, device, geometry)
        self.models = models

    def width(self, group: Group) -> int:
        """Own observation, and the slices of all others."""
        return super().width(group) + self.spec.act_dim - group.act.shape[1]

    def inputs(self, view: View, rows: Tensor | None = None) -> list[Tensor]:
        """As `JointPolicy.inputs`, with the others' predicted actions behind every agent's observation."""
        predicted = self.predictions(view, rows)
        found = []
        for group, own in zip(self.groups, super().inputs(view, rows), strict=True):
            others = self._others(group)[:, None].expand(-1, own.shape[1], -1)
            found.append(torch.cat([own, predicted[list(group.agents)].gather(2, others)], -1))
        return found

    def predictions(self, view: View, rows: Tensor | None = None) -> Tensor:
        """The joint action `(N, B, A)` that each agent expects in its rows; its own slice means nothing."""
        count = self.spec.n
        index = torch.arange(len(view), device=view.obs.device).expand(count, -1) if rows is None else rows
        _, act = self.models.step(None, view[index.reshape(-1)], None)
        return act.view(count, -1, self.spec.act_dim)

    def _others(self, group: Group) -> Tensor:
        """The entries of the joint action that are not an agent's own: `(g, A - a)`."""
        everything = torch.ones(len(group.agents), self.spec.act_dim, dtype=torch.bool, device=group.act.device)
        return everything.scatter(1, group.act, False).nonzero()[:, 1].view(len(group.agents), -1)
