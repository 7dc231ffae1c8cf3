"""Behaviour cloning from histories: for each agent a recurrent network that predicts its action from all that was seen
and done in the last moments, for opponents with a memory, or of a kind that shows only in what they do.

Histories may be unequally long: before an episode's start nothing is remembered.

Shape suffixes: E members, g agents of a group, B rows, T time, H width of what is remembered, w numbers read, A action.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from presage.common.game import Carry, GameError, GameSpec, View, Window
from presage.common.heads import Group
from presage.common.learner_state import learner_state, restore_learner
from presage.common.networks import StackedMLP
from presage.common.recurrent import StackedGRU
from presage.marl.opponents.predicted import Part, Predicted, silenced
from presage.marl.opponents.reading import Reading, Sees
from presage.marl.opponents.record import Record


@dataclass(frozen=True, kw_only=True)
class HistoryCloningConfig:
    """The numbers of the networks and of their fitting."""

    sees: Sees = "own"
    """what the networks read at every step, beside the joint action of the step before; see `Sees`"""
    length: int = 16
    """moments of a history, the present one among them; >= 1"""
    memory: int = 64
    """H, numbers remembered; >= 1"""
    hidden: tuple[int, ...] = (64,)
    """widths of the hidden layers behind them"""
    members: int = 1
    """networks that answer for each agent, mixed evenly; >= 1"""
    geometry: bool = True
    """read the lengths and directions of the vectors that the game declares as well"""
    learning_rate: float = 1e-3
    """Adam's step size; > 0"""
    gradient_clip: float = 1.0
    """largest norm of a network's gradient; > 0"""
    batch_size: int = 128
    """histories of one gradient step, every step of which is predicted; >= 1"""
    updates: int = 1_000
    """most gradient steps of a fit; >= 1"""
    evaluate_every: int = 50
    """gradient steps between two looks at the held-out moments; >= 1"""
    patience: int = 5
    """looks without a better network after which a fit ends; >= 1"""

    def __post_init__(self) -> None:
        if self.sees not in get_args(Sees):
            raise ValueError(f"sees={self.sees!r} must be one of {', '.join(map(repr, get_args(Sees)))}")
        for name in ("length", "memory", "members", "batch_size", "updates", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 1")
        if self.learning_rate <= 0 or self.gradient_clip <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} and gradient_clip={self.gradient_clip} must be > 0")


class HistoryCloning(nn.Module):
    """One ego's recurrent models of all agents.

    While it answers step by step, it takes its own answer for what was done, unless it is `told`.
    """

    def __init__(
        self, spec: GameSpec, config: HistoryCloningConfig, init_rng: torch.Generator, *, ego: int | str = 0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. config: the numbers. init_rng: draws initial weights, on the CPU. ego: whose models.
        """
        super().__init__()
        self.spec, self.config = spec, config
        self.ego = (spec.index(ego),)
        self.reading = Reading(spec, config.sees, self.ego, geometry=config.geometry, device=device)
        self.groups = self.reading.groups
        self.units, self.networks = nn.ModuleList(), nn.ModuleList()
        for group, width in zip(self.groups, self.reading.widths, strict=True):
            stack = config.members * len(group.agents)
            self.units.append(StackedGRU(stack, width + spec.act_dim, config.memory, init_rng))
            self.networks.append(StackedMLP(stack, config.memory, config.hidden, group.parameters, init_rng))
        self.to(device)
        parameters = [*self.units.parameters(), *self.networks.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)

    @property
    def _stacks(self) -> list[tuple[StackedGRU, nn.Module]]:
        """Every group's units and the networks behind them."""
        return [
            (unit, network)
            for unit, network in zip(self.units, self.networks, strict=True)
            if isinstance(unit, StackedGRU)
        ]

    @property
    def history(self) -> int:
        """Views that an answer reads."""
        return self.config.length

    # -------------------------------------------------------------- answers

    def _inputs(self, obs: Tensor, before: Tensor) -> list[Tensor]:
        """Per group, what its units read `(E g, B, w + A)` at `obs (B, O)`, after the joint actions `before (B, A)`."""
        found = []
        for read in self.reading(obs, 1):
            own = torch.cat([read[0], before.expand(len(read[0]), -1, -1)], -1)
            found.append(own.repeat(self.config.members, 1, 1))
        return found

    def _sequences(self, obs: Tensor, act: Tensor, valid: Tensor) -> list[Tensor]:
        """Per group, the distributions' numbers `(E g, B, T, p)` at every moment of histories.

        Args:
            obs: `(B, T, O)`. act: `(B, T, A)`, what was done at each of them. valid: `(B, T)` bool.
        """
        rows, steps = valid.shape
        shown = valid.clone()
        shown[:, 0] = False
        shown[:, 1:] &= valid[:, :-1]
        before = torch.cat([torch.zeros_like(act[:, :1]), act[:, :-1]], 1) * shown[..., None]
        found = []
        inputs = self._inputs(obs.flatten(0, 1), before.flatten(0, 1))
        for read, unit, network in zip(inputs, self.units, self.networks, strict=True):
            memory = unit(read.view(len(read), rows, steps, -1), valid)
            found.append(network(memory.flatten(1, 2)).view(len(read), rows, steps, -1))
        return found

    def _predicted(self, numbers: list[Tensor], view: View) -> Predicted:
        """The members' mixture, from numbers `(E g, B, p)` for each group."""
        parts = []
        for group, own in zip(self.groups, numbers, strict=True):
            by_agent = own.view(self.config.members, len(group.agents), *own.shape[1:]).permute(1, 2, 0, 3)
            legal = group.of_actions(view.legal) if self.spec.legal_varies and group.discrete else None
            even = by_agent.new_full(by_agent.shape[:3], -math.log(self.config.members))
            parts.append(Part(group=group, parameters=by_agent, log_weights=even, legal=legal))
        return Predicted(spec=self.spec, parts=tuple(parts))

    def expected(self, window: Window) -> Predicted:
        """What is expected of all agents at the ends of B windows."""
        numbers = self._sequences(window.obs, window.act, window.valid)
        return self._predicted([own[:, :, -1] for own in numbers], window.now)

    @torch.no_grad()
    def init(self, window: Window) -> Carry:
        """What is remembered before the last view of `window`: the units' memories, and the action before it."""
        if len(window.valid[0]) == 1:
            memories = [unit.begin(len(window)) for unit, _ in self._stacks]
            return (*(memory.transpose(0, 1) for memory in memories), window.act[:, 0])
        earlier = window.valid[:, :-1]
        shown = torch.cat([torch.zeros_like(earlier[:, :1]), earlier[:, :-1]], 1)[..., None]
        done = torch.cat([torch.zeros_like(window.act[:, :1]), window.act[:, :-2]], 1) * shown
        inputs = self._inputs(window.obs[:, :-1].flatten(0, 1), done.flatten(0, 1))
        memories = [
            unit(read.view(len(read), *earlier.shape, -1), earlier)[:, :, -1]
            for read, unit in zip(inputs, self.units, strict=True)
        ]
        return (*(memory.transpose(0, 1) for memory in memories), window.act[:, -2])

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """What all agents are expected to do, `(B, A)`; the modes where rng is None."""
        *memories, before = carry
        kept, numbers = [], []
        for read, memory, (unit, network) in zip(self._inputs(view.obs, before), memories, self._stacks, strict=True):
            new = unit.step(read, memory.transpose(0, 1))
            kept.append(new.transpose(0, 1))
            numbers.append(network(new))
        told = self._predicted(numbers, view)
        act = silenced(self.spec, told.mode() if rng is None else told.sample(rng), view)
        return (*kept, act), act

    def told(self, carry: Carry, act: Tensor) -> Carry:
        """The carry after a step, had all agents done `act (B, A)` in it."""
        return (*carry[:-1], act)

    # ------------------------------------------------------------------ fit

    def fit(
        self, record: Record, rng: torch.Generator, *, index: Tensor | None = None, held: Tensor | None = None
    ) -> dict[str, float]:
        """Fit to what was done, every network with the best weights it had on the held-out moments.

        Args:
            rng: draws the histories. index: moments to fit to; all when None. held: moments to stop by, out of other
                episodes; None: those of a fifth of the episodes in `index`, which are then not fitted to.

        Returns:
            the mean held-out NLL by agent name, and the gradient steps as "updates".

        Raises:
            GameError: another game, or no moments on one side.
        """
        if record.spec != self.spec:
            raise GameError(f"the models are of {self.spec.name!r} as it was, the record of {record.spec.name!r}")
        if held is None:
            index, held = record.split(0.2, rng, index=index)
        index = torch.arange(len(record)) if index is None else index
        if not len(index) or not len(held):
            raise GameError(f"{len(index)} moments to fit to and {len(held)} held out; both need some")
        self.reading.normaliser.fit(record.moments(index).view.obs)
        parameters = [*self.units.parameters(), *self.networks.parameters()]
        best, kept = self._likelihoods(record, held), [p.detach().clone() for p in parameters]
        stale = updates = 0
        while updates < self.config.updates and stale < self.config.patience:
            for _ in range(min(self.config.evaluate_every, self.config.updates - updates)):
                drawn = index[torch.randint(len(index), (self.config.batch_size,), generator=rng)]
                self._descend(record, drawn)
                updates += 1
            nll = self._likelihoods(record, held)
            better = nll < best
            best = torch.where(better, nll, best)
            self._keep(kept, better)
            stale = 0 if bool(better.any()) else stale + 1
        with torch.no_grad():
            for parameter, good in zip(parameters, kept, strict=True):
                parameter.copy_(good)
        found = {name: float(best[:, i].mean()) for i, name in enumerate(self.spec.names)}
        return found | {"updates": float(updates)}

    def _losses(self, record: Record, drawn: Tensor) -> Iterator[tuple[Group, Tensor, Tensor]]:
        """Per group, the NLL `(E, g, B, T)` of what its agents did in the histories that end at moments `drawn (B,)`,
        and which of it counts.
        """
        window = record.window(drawn, self.config.length)
        steps = window.valid.shape[1]
        at = drawn[:, None] - torch.minimum(torch.arange(steps - 1, -1, -1), record.step[drawn][:, None])
        moments = record.moments(at.flatten())
        numbers = self._sequences(window.obs, moments.act.view(*at.shape, -1), window.valid)
        predicted = zip(self.groups, numbers, strict=True)
        for group, own in predicted:
            shape = (self.config.members, len(group.agents), *at.shape)
            act = group.of_actions(moments.act).view(1, *shape[1:], -1)
            legal = None
            if self.spec.legal_varies and group.discrete:
                legal = group.of_actions(moments.view.legal).view(*shape[1:], -1).flatten(1, 2)
            part = Part(
                group=group, parameters=own.reshape(*shape, -1).movedim(0, 3).flatten(1, 2),
                log_weights=own.new_zeros(shape[1], at.numel(), shape[0]), legal=legal,
            )  # fmt: skip
            nll = -part.of_components(act[0].flatten(1, 2)).view(*shape[1:], shape[0]).movedim(3, 0)
            counts = group.of_agents(moments.view.acting).view(*shape[1:]) & window.valid
            yield group, nll, counts.to(nll.dtype)

    def _descend(self, record: Record, drawn: Tensor) -> None:
        """One gradient step of all networks on every moment of the histories."""
        loss = torch.zeros(())
        for _, nll, counts in self._losses(record, drawn):
            loss = loss + (nll * counts).sum() / counts.sum((1, 2)).clamp_min(1).mean()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        stack = [*self.units.parameters(), *self.networks.parameters()]
        nn.utils.clip_grad_norm_(stack, self.config.gradient_clip * math.sqrt(sum(len(p) for p in stack)))
        self.optimiser.step()

    @torch.no_grad()
    def _likelihoods(self, record: Record, held: Tensor) -> Tensor:
        """Mean NLL of every network at the moments `held` themselves: `(E, N)`; NaN for agents that never act."""
        total, count = torch.zeros(2, self.config.members, self.spec.n)
        for part in torch.split(held, 1_024):
            for group, nll, counts in self._losses(record, part):
                total[:, list(group.agents)] += (nll * counts)[..., -1].sum(2)
                count[:, list(group.agents)] += counts[..., -1].sum(1)
        found: Tensor = total / count
        return found

    def _keep(self, kept: list[Tensor], better: Tensor) -> None:
        """Copy the weights of the networks that `better (E, N)` marks into `kept`."""
        place = 0
        for modules in (self.units, self.networks):
            for group, module in zip(self.groups, modules, strict=True):
                chosen = better[:, list(group.agents)].reshape(-1, 1, 1)
                for parameter in module.parameters():
                    kept[place] = torch.where(chosen, parameter.detach(), kept[place])
                    place += 1

    def state(self) -> dict[str, Any]:
        """Copies of weights, normaliser and optimiser, from which `restore` continues exactly."""
        return dict(learner_state(self))

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        restore_learner(self, state)
