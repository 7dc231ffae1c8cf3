"""Deterministic policies of all agents, each over its own observation: numbers for box actions, to which noise is
added where they explore, and logits for one-hot actions, whose draw by the Gumbel-max trick is exploration enough.

Shape suffixes: R rows, B rows of each agent (R where all share them), N agents, g agents of a group, w columns, a width
of one action, A joint action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tianshou.algorithm.algorithm_base import Policy
from tianshou.data import Batch
from torch import Tensor, nn

from presage.common.game import Carry, GameSpec, View, Window
from presage.common.heads import Group, answer, groups_of, join
from presage.common.networks import Activation, StackedMLP
from presage.common.policy import joint_action_space
from presage.marl.opponents.predicted import Part


class DeterministicPolicy(Policy):
    """One network per agent, those of equal shape stacked; a tianshou policy and an `Actor`."""

    noise: Tensor
    """() standard deviation of what is added to box actions in [-1, 1] where they explore"""

    def __init__(
        self, spec: GameSpec, hidden: Sequence[int], init_rng: torch.Generator, rng: torch.Generator,
        activation: Activation = "relu", geometry: bool = True, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. hidden: widths of the hidden layers.
            init_rng: draws the initial weights, on the CPU. rng: draws actions when tianshou's collector asks.
            geometry: read the lengths and directions of the vectors that an agent sees as well.
        """
        super().__init__(joint_action_space(spec), action_scaling=False, action_bound_method=None)
        self.spec, self.rng = spec, rng
        self.groups = groups_of(spec, device)
        self.actors = nn.ModuleList(
            StackedMLP(
                len(g.agents), g.obs.shape[1], hidden, g.act.shape[1], init_rng, activation,
                vectors=g.vectors if geometry else (),
            )
            for g in self.groups
        ).to(device)  # fmt: skip
        self.register_buffer("noise", torch.zeros((), device=device))

    @staticmethod
    def _compile() -> None:
        """Nothing: tianshou compiles its return kernels here, for seconds; joint learners call none of them."""

    def numbers(self, view: View, actors: nn.ModuleList | None = None, *, rows: Tensor | None = None) -> list[Tensor]:
        """For each group its agents' logits, or numbers before squashing, `(g, B, a)`.

        Args:
            view: R rows. actors: networks to answer by instead of its own, such as their targets.
            rows: `(N, B)`, those of them that each agent looks at; None: all, in order.
        """
        found = zip(self.groups, self.actors if actors is None else actors, strict=True)
        return [actor(_own(group, view.obs, group.obs, rows)) for group, actor in found]

    def actions(
        self, view: View, numbers: Sequence[Tensor], rng: torch.Generator | None, *, rows: Tensor | None = None
    ) -> list[Tensor]:
        """For each group the actions `(g, B, a)` that such numbers stand for, differentiable in them; zeros of agents
        that are not acting.

        Args:
            view, rows: what they were for. rng: draws one-hot actions, with the straight-through gradient of a
                Gumbel-softmax of temperature 1; None: the likeliest ones.
        """
        acts = []
        for group, own in zip(self.groups, numbers, strict=True):
            act = answer(group.heads, own, self._legal(group, view, rows), rng)[0] if group.discrete else own.tanh()
            acts.append(self._silenced(group, act, view, rows))
        return acts

    def chances(self, view: View, numbers: Sequence[Tensor]) -> list[Tensor]:
        """For each group the probabilities `(g, B, a)` of one-hot entries, or box actions; zeros of agents that are not
        acting.
        """
        found = []
        for group, own in zip(self.groups, numbers, strict=True):
            told = torch.cat(self.part(group, own, view).marginals(), -1) if group.discrete else own.tanh()
            found.append(self._silenced(group, told, view, None))
        return found

    def part(self, group: Group, logits: Tensor, view: View) -> Part:
        """What the agents of a group with one-hot actions play, by their logits `(g, B, a)` at `view`."""
        return Part(
            group=group, parameters=logits[:, :, None], log_weights=logits.new_zeros(*logits.shape[:2], 1),
            legal=self._legal(group, view, None),
        )  # fmt: skip

    def _legal(self, group: Group, view: View, rows: Tensor | None) -> Tensor | None:
        return _own(group, view.legal, group.act, rows) if self.spec.legal_varies and group.discrete else None

    def _silenced(self, group: Group, act: Tensor, view: View, rows: Tensor | None) -> Tensor:
        if not self.spec.acting_varies:
            return act
        agents = torch.tensor(group.agents, device=act.device)[:, None]
        return act * _own(group, view.acting, agents, rows)

    def init(self, window: Window) -> Carry:
        """Nothing: the policy is memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The joint action `(B, A)`; the likeliest one without noise where rng is None."""
        acts = self.actions(view, self.numbers(view), rng)
        if rng is not None:
            for k, (group, act) in enumerate(zip(self.groups, acts, strict=True)):
                if not group.discrete:
                    noisy = (act + self.noise * torch.empty_like(act).normal_(generator=rng)).clamp(-1, 1)
                    acts[k] = self._silenced(group, noisy, view, None)
        return carry, join(self.groups, acts).contiguous()

    def forward(self, batch: Any, state: Any = None, **kwargs: Any) -> Batch:
        """tianshou's door: explores within a training step, and not outside."""
        obs = torch.as_tensor(batch.obs, dtype=torch.float32, device=self.noise.device)
        rng = self.rng if self.is_within_training_step else None
        return Batch(act=self.step(None, View.of(self.spec, obs), rng)[1], state=state)


def _own(group: Group, x: Tensor, columns: Tensor, rows: Tensor | None) -> Tensor:
    """The columns `(g, w)` of `x (R, X)` that are the group's agents', in the rows `(N, B)` of each: `(g, B, w)`."""
    if rows is None:
        return x[:, columns].transpose(0, 1)
    return x[rows[list(group.agents)][:, :, None], columns[:, None]]
