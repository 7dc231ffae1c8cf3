"""The networks of ROMMEO's actor-critic: policies that read what a biased model expects of the others, that model, and
the prior, which alone says what the others do.

Shape suffixes: B rows, N agents, I = N egos, R = I M ego-major rows, g agents of a seat, A joint action, a own action,
r = A - a the rest, w width of one observation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from presage.common.game import Carry, GameError, GameSpec, View, Window
from presage.common.heads import Group, join, join_agents
from presage.common.networks import Activation, StackedMLP
from presage.common.policy import JointPolicy
from presage.marl.opponents.seats import Seat, seats_of
from presage.marl.opponents.squashed import SquashedGaussian, unsquash


def models_of_the_rest(
    seats: Sequence[Seat], hidden: Sequence[int], rng: torch.Generator, activation: Activation, geometry: bool
) -> nn.ModuleList:
    """For every seat, a network of each agent over its own observation that describes what all others do."""
    return nn.ModuleList(
        StackedMLP(
            len(seat.agents), seat.group.obs.shape[1], hidden, 2 * seat.rest_width, rng, activation,
            vectors=seat.group.vectors if geometry else (),
        )
        for seat in seats
    )  # fmt: skip


class ROMMEOPolicy(JointPolicy):
    """Policies `pi(a_i | o_i, a-)` of all agents, and the models `rho(a- | o_i)` that they act on.

    An agent acts on a sample of its model; greedily, on the model's mode. The models expect what would suit the agent,
    not what the others do, and so have no log-probability here.
    """

    def __init__(
        self,
        spec: GameSpec,
        hidden: Sequence[int],
        init_rng: torch.Generator,
        rng: torch.Generator,
        activation: Activation = "relu",
        device: torch.device | str = "cpu",
        geometry: bool = True,
        sigma_floor: float = 0.0,
    ) -> None:
        """
        Args:
            sigma_floor: added to all standard deviations before squashing. Everything else is `JointPolicy`'s.

        Raises:
            GameError: the game has one agent, or discrete actions.
        """
        super().__init__(spec, hidden, init_rng, rng, activation, device, geometry)
        self.seats, self.sigma_floor = seats_of(spec, "ROMMEO-AC", device), sigma_floor
        self.models = models_of_the_rest(self.seats, hidden, init_rng, activation, geometry).to(device)

    def width(self, group: Group) -> int:
        """Own observation, and the slices of all others."""
        return super().width(group) + self.spec.act_dim - group.act.shape[1]

    def expected(self, obs: Tensor) -> list[SquashedGaussian]:
        """rho for joint observations `(B, O)`: for every seat over `(g, B, r)`."""
        found = zip(self.seats, self.models, strict=True)
        return [SquashedGaussian.of(model(seat.group.read(obs)), self.sigma_floor) for seat, model in found]

    def conditional(self, obs: Tensor, rest: Sequence[Tensor]) -> list[SquashedGaussian]:
        """pi for joint observations `(B, O)` and what all others do, for every seat `(g, B, r)`: over `(g, B, a)`."""
        found = zip(self.seats, self.actors, rest, strict=True)
        return [
            SquashedGaussian.of(actor(torch.cat([seat.group.read(obs), act], -1)), self.sigma_floor)
            for seat, actor, act in found
        ]

    def inputs(self, view: View, rows: Tensor | None = None) -> list[Tensor]:
        """As `JointPolicy.inputs`, with the model's mode of the others' actions behind every agent's observation."""
        found = []
        for seat, model, own in zip(self.seats, self.models, super().inputs(view, rows), strict=True):
            mode = SquashedGaussian.of(model(own)).mean.tanh()
            acting = view.acting.expand(len(own), -1, -1) if rows is None else view.acting[rows[seat.agents]]
            found.append(torch.cat([own, mode * acting.gather(2, seat.writers[:, None].expand_as(mode))], -1))
        return found

    def answers(self, view: View, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """As `JointPolicy.answers`; log-probabilities are pi's, given what was expected of the others."""
        rest = []
        for seat, model in zip(self.seats, self.expected(view.obs), strict=True):
            u = model.mean if rng is None else model.sample(rng)
            rest.append(u.tanh() * seat.acts(view)[1])
        acts, log_probs = [], []
        for policy in self.conditional(view.obs, rest):
            u = policy.mean if rng is None else policy.sample(rng)
            acts.append(u.tanh())
            log_probs.append(policy.log_prob(u).sum(-1))
        return self.silence(join(self.groups, acts), view), join_agents(self.groups, log_probs)


class Prior(nn.Module):
    """What every agent has seen the others do, `P(a- | o_i)`: a prediction, by maximum likelihood.

    Satisfies `OpponentModels`, for whoever imagines with it; rows are then ego-major, equally many for every ego.
    """

    def __init__(
        self,
        spec: GameSpec,
        hidden: Sequence[int],
        init_rng: torch.Generator,
        activation: Activation = "relu",
        device: torch.device | str = "cpu",
        geometry: bool = True,
        sigma_floor: float = 0.0,
    ) -> None:
        """
        Args:
            spec: the game. hidden: widths of the hidden layers. init_rng: draws initial weights, on the CPU.
            sigma_floor: added to all standard deviations before squashing.

        Raises:
            GameError: the game has one agent, or discrete actions.
        """
        super().__init__()
        self.spec, self.sigma_floor = spec, sigma_floor
        self.seats = seats_of(spec, "ROMMEO's prior", device)
        self.networks = models_of_the_rest(self.seats, hidden, init_rng, activation, geometry).to(device)

    def expected(self, obs: Tensor, frozen: bool = False) -> list[SquashedGaussian]:
        """P for joint observations `(B, O)`, for every seat over `(g, B, r)`; `frozen`: no gradient to the weights."""
        found = zip(self.seats, self.networks, strict=True)
        return [
            SquashedGaussian.of(network(seat.group.read(obs), frozen=frozen), self.sigma_floor)
            for seat, network in found
        ]

    def init(self, window: Window) -> Carry:
        """Nothing: the prior is memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """What every row's ego expects of all others, `(R, A)`, zeros in its own slice; the modes where rng is None."""
        joint = view.obs.new_zeros(self.spec.n, len(view) // self.spec.n, self.spec.act_dim)
        for seat, prior, acting in self._of_egos(view):
            u = prior.mean if rng is None else prior.sample(rng)
            joint[seat.agents] = joint[seat.agents].scatter(2, self._columns(seat, u), u.tanh() * acting)
        return carry, joint.flatten(0, 1)

    def log_prob(self, view: View, act: Tensor) -> Tensor:
        """Log density of every agent's slice of `act (R, A)` under its row's ego's prior, `(R, N)`; 0 for the ego's own
        and for who is not acting.
        """
        parts = self._of_egos(view)
        joint = act.reshape(self.spec.n, -1, self.spec.act_dim)
        found = act.new_zeros(self.spec.n, joint.shape[1], self.spec.n)
        for seat, prior, acting in parts:
            each = prior.log_prob(unsquash(joint[seat.agents].gather(2, self._columns(seat, prior.mean)))) * acting
            writers = seat.writers[:, None].expand_as(each)
            found[seat.agents] = found[seat.agents].scatter_add(2, writers, each)
        return found.flatten(0, 1)

    def _of_egos(self, view: View) -> list[tuple[Seat, SquashedGaussian, Tensor]]:
        """For every seat, what its agents expect in their own rows `(g, M, r)`, and 1.0 where the writer acts."""
        if len(view) % self.spec.n:
            raise GameError(f"{len(view)} rows cannot be shared evenly by {self.spec.n} egos; order them ego after ego")
        obs, acting = (x.reshape(self.spec.n, -1, x.shape[1]) for x in (view.obs, view.acting))
        found = []
        for seat, network in zip(self.seats, self.networks, strict=True):
            rows = obs.shape[1]
            own = obs[seat.agents].gather(2, seat.group.obs[:, None].expand(-1, rows, -1))
            flags = acting[seat.agents].gather(2, seat.writers[:, None].expand(-1, rows, -1)).to(obs.dtype)
            found.append((seat, SquashedGaussian.of(network(own), self.sigma_floor), flags))
        return found

    def _columns(self, seat: Seat, like: Tensor) -> Tensor:
        return seat.others[:, None].expand_as(like)
