"""Behaviour-cloned opponent models: for every ego, one network per other agent that predicts its action from its own
observation by maximum likelihood (He et al. 2016's supervised baseline; AORPO, Zhang et al. 2021, section on opponent
models). One-hot heads are categorical, box heads tanh-Gaussian, several heads add their log-likelihoods.

The bank holds `(ego, agent)` networks as one stacked module for each group of agents of equal shape, the ego's own
entry included: it costs a share 1/N and saves every index.

Shape suffixes: I egos, N agents, g agents of a group, M rows of each ego, R = I M rows, ego-major.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from presage.common.game import Carry, GameError, GameSpec, Rows, View, Window
from presage.common.geometry import Geometry
from presage.common.heads import Group, answer, entropy, groups_of, join, log_prob
from presage.common.learner_state import learner_state, restore_learner
from presage.common.networks import Activation, Normaliser, StackedMLP


@dataclass(frozen=True, kw_only=True)
class BehaviourCloningConfig:
    """The numbers of the opponent models and of their fitting."""

    hidden: tuple[int, ...] = (64, 64)
    """widths of the hidden layers"""
    activation: Activation = "relu"
    """after every hidden layer"""
    geometry: bool = True
    """read the lengths and directions of the vectors that the game declares as well"""
    learning_rate: float = 1e-3
    """Adam's step size; > 0"""
    entropy_bonus: float = 1e-3
    """weight of the predicted entropy in the loss of one-hot heads; >= 0 (AORPO's code: 0.1)"""
    window: int = 4_000
    """newest rows that a fit reads; opponents learn, so older actions mislead; >= 10"""
    holdout: float = 0.2
    """share of the window that is held out for errors and early stopping, in (0, 1)"""
    batch_size: int = 256
    """rows of one gradient step; >= 1"""
    passes: int = 5
    """most passes over the window in one fit; >= 1"""
    patience: int = 2
    """passes without a better held-out likelihood of any network after which a fit ends; >= 1"""
    answer: Literal["sample", "greedy"] = "sample"
    """what the models say in rollouts: a sample, as the theory asks, or the mode, as AORPO's released code does"""

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 1:
            raise ValueError(f"holdout={self.holdout} must lie in (0, 1)")
        if self.window < 10 or min(self.batch_size, self.passes, self.patience) < 1:
            raise ValueError(
                f"window={self.window} must be >= 10; batch_size={self.batch_size}, passes={self.passes} and "
                f"patience={self.patience} must be >= 1"
            )
        if self.learning_rate <= 0 or self.entropy_bonus < 0:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be > 0 and entropy_bonus={self.entropy_bonus} >= 0"
            )


@dataclass(frozen=True, kw_only=True)
class OpponentFit:
    """What a fit of the bank reached on its held-out rows.

    Entries `[i, i]` are the ego's own and mean nothing; those of an agent that acted in no held-out row are NaN.
    """

    nll: Tensor
    """(I, N) mean negative log-likelihood of the agents' actions in nats, summed over heads"""
    accuracy: Tensor
    """(I, N) share of one-hot actions that the most likely choice gets right, mean over heads; for box actions, whose
    range is 2, one minus half the mean absolute error of the mode"""
    entropy: Tensor
    """(I, N) mean entropy of the predicted distribution in nats; for box actions, of a sample"""
    passes: int
    """passes over the training rows"""


class _Part(NamedTuple):
    """A group of agents as the bank sees it in ego-major rows."""

    group: Group
    parameters: Tensor
    """(I, g, M, p) the numbers of the predicted distributions"""
    act: Tensor
    """(I, g, M, a) what the agents did"""
    legal: Tensor | None
    """(I, g, M, a) bool; None where everything is"""
    acting: Tensor
    """(I, g, M) 1.0 in rows in which the agent acts, else 0.0"""

    def nll(self) -> Tensor:
        """Negative log-likelihood of every action, summed over heads: (I, g, M)."""
        return -log_prob(self.group.heads, self.parameters, self.act, self.legal)


class BehaviourCloning(nn.Module):
    """A bank of behaviour-cloned models, `(ego, agent)`; answers in rollouts and inside the learner's losses."""

    def __init__(
        self,
        spec: GameSpec,
        config: BehaviourCloningConfig,
        init_rng: torch.Generator,
        *,
        egos: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            spec: the game. config: the numbers. init_rng: draws initial weights, on the CPU.
            egos: I, how many egos keep models of everybody; all N agents when None.
        """
        super().__init__()
        self.spec, self.config = spec, config
        self.egos = spec.n if egos is None else egos
        self.groups = groups_of(spec, device)
        self.normaliser = Normaliser(spec.obs_dim).to(device)
        self.geometries = [Geometry(g.vectors if config.geometry else ()).to(device) for g in self.groups]
        self.networks = nn.ModuleList(
            StackedMLP(
                self.egos * len(g.agents), g.obs.shape[1] + geometry.width, config.hidden, g.parameters, init_rng,
                config.activation,
            )
            for g, geometry in zip(self.groups, self.geometries, strict=True)
        ).to(device)  # fmt: skip
        self.optimiser = torch.optim.Adam(self.networks.parameters(), lr=config.learning_rate, fused=True)

    # -------------------------------------------------------------- answers

    def _distributions(self, obs: Tensor) -> list[Tensor]:
        """Per group, the numbers of all distributions `(I, g, M, p)` at ego-major observations `(I M, O)`."""
        if len(obs) % self.egos:
            raise GameError(f"{len(obs)} rows cannot be shared evenly by {self.egos} egos; order them ego after ego")
        raw, scaled = (x.view(self.egos, -1, self.spec.obs_dim) for x in (obs, self.normaliser(obs)))
        found = []
        for group, geometry, network in zip(self.groups, self.geometries, self.networks, strict=True):
            read = scaled[:, :, group.obs].transpose(1, 2)
            if geometry.width:
                read = torch.cat([read, geometry.features(raw[:, :, group.obs].transpose(1, 2))], -1)
            found.append(network(read.flatten(0, 1)).view(*read.shape[:3], -1))
        return found

    def _slices(self, x: Tensor) -> list[Tensor]:
        """Per group, the agents' slices `(I, g, M, a)` of ego-major joint actions or legality `(I M, A)`."""
        per_ego = x.reshape(self.egos, -1, x.shape[-1])
        return [per_ego[:, :, group.act].transpose(1, 2) for group in self.groups]

    def _legal(self, view: View) -> list[Tensor | None]:
        if not self.spec.legal_varies:
            return [None] * len(self.groups)
        return [s if g.discrete else None for g, s in zip(self.groups, self._slices(view.legal), strict=True)]

    def init(self, window: Window) -> Carry:
        """Nothing: the models are memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """What every row's ego expects of all agents, `(R, A)` for ego-major views; the modes where rng is None."""
        draw = rng if self.config.answer == "sample" else None
        parts = []
        for group, parameters, legal in zip(self.groups, self._distributions(view.obs), self._legal(view), strict=True):
            act = answer(group.heads, parameters, legal, draw)[0]
            parts.append(act.transpose(0, 1).flatten(1, 2))  # (g, I M, a)
        joint = join(self.groups, parts)
        if self.spec.acting_varies:
            widths = torch.tensor([agent.width for agent in self.spec.agents], device=joint.device)
            joint = joint * view.acting.repeat_interleave(widths, 1)
        return carry, joint

    def log_prob(self, view: View, act: Tensor) -> Tensor:
        """Log-probability of every agent's slice of `act (R, A)` under its row's ego's model, `(R, N)`, ego-major."""
        found = torch.empty(len(act), self.spec.n, device=act.device, dtype=act.dtype)
        parts = zip(self.groups, self._distributions(view.obs), self._slices(act), self._legal(view), strict=True)
        for group, parameters, own, legal in parts:
            value = log_prob(group.heads, parameters, own, legal)
            found[:, list(group.agents)] = value.transpose(1, 2).flatten(0, 1)
        return found

    # ------------------------------------------------------------------ fit

    def fit(self, rows: Rows, rng: torch.Generator) -> OpponentFit:
        """Fit all networks to the actions in `rows (B)`, each with the best weights it had on the held-out ones.

        Every ego draws its own batches, so that its models differ from the others'.

        Args:
            rows: real rows, newest last; only the `config.window` newest are read.
            rng: draws the split and the batches.

        Raises:
            GameError: fewer than 10 rows.
        """
        if len(rows) < 10:
            raise GameError(f"opponent models need at least 10 rows to fit, got {len(rows)}")
        rows = rows[-self.config.window :]
        self.normaliser.fit(rows.obs)
        size = len(rows)
        order = torch.randperm(size, generator=rng, device=rows.obs.device)
        held, train = order[: max(1, int(size * self.config.holdout))], order[max(1, int(size * self.config.holdout)) :]
        held_rows = rows[held.repeat(self.egos)]
        best = self._likelihoods(held_rows)
        kept = {name: value.detach().clone() for name, value in self.networks.named_parameters()}
        stale = passes = 0
        while passes < self.config.passes and stale < self.config.patience:
            orders = [torch.randperm(len(train), generator=rng, device=train.device) for _ in range(self.egos)]
            batches = torch.split(train[torch.stack(orders)], self.config.batch_size, 1)
            for batch in batches:
                self._descend(rows[batch.reshape(-1)])
            passes += 1
            nll = self._likelihoods(held_rows)
            better = nll < best
            best = torch.where(better, nll, best)
            self._keep(kept, better)
            stale = 0 if bool(better.any()) else stale + 1
        with torch.no_grad():
            for name, value in self.networks.named_parameters():
                value.copy_(kept[name])
        accuracy, spread = self._scores(held_rows, rng)
        return OpponentFit(nll=best, accuracy=accuracy, entropy=spread, passes=passes)

    def _parts(self, rows: Rows) -> Iterator[_Part]:
        """The groups of agents in ego-major rows."""
        acting = rows.acting.view(self.egos, -1, self.spec.n).transpose(1, 2).to(rows.obs.dtype)
        parts = zip(
            self.groups, self._distributions(rows.obs), self._slices(rows.act), self._legal(rows.view), strict=True
        )
        for group, parameters, act, legal in parts:
            yield _Part(group, parameters, act, legal, acting[:, list(group.agents)])

    def _descend(self, rows: Rows) -> None:
        """One gradient step of all networks on ego-major rows: mean NLL over rows in which the agent acts."""
        loss = torch.zeros((), device=rows.obs.device)
        for part in self._parts(rows):
            losses = part.nll()
            if part.group.discrete and self.config.entropy_bonus:
                losses = losses - self.config.entropy_bonus * entropy(part.group.heads, part.parameters, part.legal)
            share = part.acting / part.acting.sum(-1, keepdim=True).clamp_min(1)
            loss = loss + (losses * share).sum()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()

    @torch.no_grad()
    def _likelihoods(self, rows: Rows) -> Tensor:
        """Mean NLL of every network on ego-major rows in which the agent acts, `(I, N)`; NaN where it never does."""
        nll = torch.empty(self.egos, self.spec.n, device=rows.obs.device)
        for part in self._parts(rows):
            nll[:, list(part.group.agents)] = _mean(part.nll(), part.acting)
        return nll

    @torch.no_grad()
    def _scores(self, rows: Rows, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Accuracy and entropy as `OpponentFit` has them, `(I, N)` each.

        One sample a row stands for the entropy of box actions, which has no closed form.
        """
        accuracy, spread = torch.empty(2, self.egos, self.spec.n, device=rows.obs.device)
        for group, parameters, act, legal, acting in self._parts(rows):
            mode = answer(group.heads, parameters, legal, None)[0]
            if group.discrete:
                right = (mode * act).sum(-1) / len(group.heads)
                chaos = entropy(group.heads, parameters, legal)
            else:
                right = 1 - (mode - act).abs().mean(-1) / 2
                chaos = -answer(group.heads, parameters, legal, rng)[1]
            accuracy[:, list(group.agents)] = _mean(right, acting)
            spread[:, list(group.agents)] = _mean(chaos, acting)
        return accuracy, spread

    def _keep(self, kept: dict[str, Tensor], better: Tensor) -> None:
        """Copy the weights of the networks that `better (I, N)` marks into `kept`."""
        for k, (group, network) in enumerate(zip(self.groups, self.networks, strict=True)):
            mask = better[:, list(group.agents)].reshape(-1, 1, 1)
            for name, value in network.named_parameters():
                kept[f"{k}.{name}"] = torch.where(mask, value.detach(), kept[f"{k}.{name}"])

    def state(self) -> dict[str, Any]:
        """Copies of weights, normaliser and optimiser, from which `restore` continues exactly."""
        return dict(learner_state(self))

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        restore_learner(self, state)


def _mean(x: Tensor, acting: Tensor) -> Tensor:
    """The mean of `x (I, g, M)` over the rows in which the agent acts, `(I, g)`; NaN where it never does."""
    return (x * acting).sum(-1) / acting.sum(-1)
