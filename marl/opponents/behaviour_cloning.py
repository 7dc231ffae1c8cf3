"""Behaviour-cloned opponent models: for every ego, one network per other agent that predicts its action by maximum
likelihood (He et al. 2016's supervised baseline; AORPO, Zhang et al. 2021, section on opponent models). One-hot heads
are categorical, box heads tanh-Gaussian, several heads add their log-likelihoods; mixtures of these, and ensembles, are
options, and so is what the networks may see.

The bank holds `(ego, agent)` networks as one stacked module for each group of agents of equal shape, the ego's own
entry included: it costs a share 1/N and saves every index.

Shape suffixes: I egos, E members of an ensemble, N agents, g agents of a group, M rows of each ego, R = I M rows,
ego-major; K components of a predicted distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from presage.common.game import Carry, GameError, GameSpec, Rows, View, Window
from presage.common.heads import Group, answer, entropy, join, log_prob
from presage.common.learner_state import learner_state, restore_learner
from presage.common.networks import Activation, Normaliser, StackedMLP
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.predicted import Part, Predicted, silenced
from presage.marl.opponents.reading import Reading, Sees


@dataclass(frozen=True, kw_only=True)
class BehaviourCloningConfig:
    """The numbers of the opponent models and of their fitting."""

    hidden: tuple[int, ...] = (64, 64)
    """widths of the hidden layers"""
    activation: Activation = "relu"
    """after every hidden layer"""
    sees: Sees = "opponent"
    """what the models read; anything but "own" needs others' observations when it is asked"""
    members: int = 1
    """networks that answer for each agent, fitted to batches of their own and mixed evenly; >= 1"""
    components: int = 1
    """of each network's distribution; more than one can be of several minds, and tie an agent's heads together; >= 1"""
    geometry: bool = True
    """read the lengths and directions of the vectors that the game declares as well"""
    learning_rate: float = 1e-3
    """Adam's step size; > 0"""
    entropy_bonus: float = 1e-3
    """weight of the predicted entropy in the loss of one-hot heads; >= 0 (AORPO's code: 0.1)"""
    weight_decay: float = 0.0
    """of the weights, decoupled from the gradient (AdamW); >= 0"""
    window: int = 4_000
    """newest rows that a fit reads; opponents learn, so older actions mislead; >= 10"""
    memory: float | None = None
    """rows after which one counts e times less in the loss; > 0. None: all rows of the window count alike"""
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
        if self.learning_rate <= 0 or min(self.entropy_bonus, self.weight_decay) < 0:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be > 0, entropy_bonus={self.entropy_bonus} and "
                f"weight_decay={self.weight_decay} >= 0"
            )
        if self.sees not in get_args(Sees):
            raise ValueError(f"sees={self.sees!r} must be one of {', '.join(map(repr, get_args(Sees)))}")
        if min(self.members, self.components) < 1:
            raise ValueError(f"members={self.members} and components={self.components} must be >= 1")
        if self.memory is not None and self.memory <= 0:
            raise ValueError(f"memory={self.memory} must be > 0, or None")


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


class _Shown(NamedTuple):
    """What a fit reads of W moments about a group of agents, gathered once."""

    group: Group
    read: Tensor
    """(V W, g, w) what the networks read; V: I where egos see different things, else 1"""
    act: Tensor
    """(W, g, a) what the agents did"""
    legal: Tensor | None
    """(W, g, a) bool; None where everything is"""
    acting: Tensor
    """(W, g) 1.0 in moments in which the agent acts, else 0.0"""


class _Part(NamedTuple):
    """A group of agents as a fit sees it, every member in rows of its own: P = E I, member-major."""

    group: Group
    parameters: Tensor
    """(P, g, M, p) the numbers of the predicted distributions, (P, g, M, K, p) with components"""
    log_weights: Tensor | None
    """(P, g, M, K) of the components; None where there is one"""
    act: Tensor
    """(P, g, M, a) what the agents did"""
    legal: Tensor | None
    """(P, g, M, a) bool; None where everything is"""
    acting: Tensor
    """(P, g, M) 1.0 in rows in which the agent acts, else 0.0"""

    def nll(self) -> Tensor:
        """Negative log-likelihood of every action, summed over heads: (P, g, M)."""
        if self.log_weights is None:
            return -log_prob(self.group.heads, self.parameters, self.act, self.legal)
        act = self.act[..., None, :].expand(*self.log_weights.shape, -1)
        each = log_prob(self.group.heads, self.parameters, act, self._allowed())
        return -torch.logsumexp(self.log_weights + each, -1)

    def entropy(self) -> Tensor:
        """Entropy of one-hot heads, (P, g, M); of components the mean, which is no more than their mixture's."""
        if self.log_weights is None:
            return entropy(self.group.heads, self.parameters, self.legal)
        return (self.log_weights.exp() * entropy(self.group.heads, self.parameters, self._allowed())).sum(-1)

    def _allowed(self) -> Tensor | None:
        return None if self.legal is None else self.legal[..., None, :]


class BehaviourCloning(nn.Module):
    """A bank of behaviour-cloned models, `(ego, agent)`; answers in rollouts and inside the learner's losses."""

    history = 1
    """views that an answer reads"""

    def __init__(
        self,
        spec: GameSpec,
        config: BehaviourCloningConfig,
        init_rng: torch.Generator,
        *,
        egos: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            spec: the game. config: the numbers. init_rng: draws initial weights, on the CPU.
            egos: (I) the agents that keep models of everybody; all N when None.

        Raises:
            GameError: the models are to read what their egos observe, and these observe unequally much.
        """
        super().__init__()
        self.spec, self.config = spec, config
        self.ego = tuple(range(spec.n)) if egos is None else tuple(map(spec.index, egos))
        self.reading = Reading(spec, config.sees, self.ego, geometry=config.geometry, device=device)
        self.groups = self.reading.groups
        weights = config.components > 1
        self.networks = nn.ModuleList(
            StackedMLP(
                config.members * self.egos * len(group.agents), width, config.hidden,
                config.components * (group.parameters + weights), init_rng, config.activation,
            )
            for group, width in zip(self.groups, self.reading.widths, strict=True)
        ).to(device)  # fmt: skip
        if config.weight_decay:
            self.optimiser: torch.optim.Optimizer = torch.optim.AdamW(
                self.networks.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
            )
        else:
            self.optimiser = torch.optim.Adam(self.networks.parameters(), lr=config.learning_rate, fused=True)

    @property
    def egos(self) -> int:
        """I, how many agents keep models."""
        return len(self.ego)

    @property
    def normaliser(self) -> Normaliser:
        """Of the joint observation."""
        return self.reading.normaliser

    # -------------------------------------------------------------- answers

    def _outputs(self, reads: Sequence[Tensor]) -> list[tuple[Tensor, Tensor | None]]:
        """Per group, parameters and log-weights as `_Part` has them, of what its networks read, `(P, g, M, w)`; those
        of members that read the same rows lie one behind the other.
        """
        found: list[tuple[Tensor, Tensor | None]] = []
        count = self.config.components
        for group, read, network in zip(self.groups, reads, self.networks, strict=True):
            out = network(read.flatten(0, 1)).view(-1, *read.shape[1:3], network.outputs)
            if count == 1:
                found.append((out, None))
            else:
                log_weights = out[..., :count].log_softmax(-1)
                parameters = out[..., count:].reshape(*out.shape[:-1], count, group.parameters)
                found.append((parameters, log_weights))
        return found

    def _slices(self, x: Tensor) -> list[Tensor]:
        """Per group, the agents' slices `(I, g, M, a)` of joint actions or legality `(I M, A)`."""
        per_ego = x.reshape(self.egos, -1, x.shape[-1])
        return [per_ego[:, :, group.act].transpose(1, 2) for group in self.groups]

    def _legal(self, view: View) -> list[Tensor | None]:
        if not self.spec.legal_varies:
            return [None] * len(self.groups)
        return [s if g.discrete else None for g, s in zip(self.groups, self._slices(view.legal), strict=True)]

    def init(self, window: Window) -> Carry:
        """Nothing: the models are memoryless."""
        return None

    @property
    def _plain(self) -> bool:
        """Whether every answer is of one network and one component."""
        return self.config.members == self.config.components == 1

    def predicted(self, view: View) -> Predicted:
        """What every row's ego expects of all agents, for ego-major views of R rows."""
        parts = []
        found = zip(self.groups, self._outputs(self.reading(view.obs, self.egos)), self._legal(view), strict=True)
        for group, (parameters, log_weights), legal in found:
            if log_weights is None:
                parameters, log_weights = parameters[..., None, :], parameters.new_zeros(*parameters.shape[:3], 1)
            by_member = (x.view(self.config.members, self.egos, *x.shape[1:]) for x in (parameters, log_weights))
            numbers, weights = (x.movedim(0, 3).transpose(0, 1) for x in by_member)  # (g, I, M, E, K, ...)
            parts.append(
                Part(
                    group=group, parameters=numbers.flatten(3, 4).flatten(1, 2),
                    log_weights=weights.flatten(3, 4).flatten(1, 2) - math.log(self.config.members),
                    legal=None if legal is None else legal.transpose(0, 1).flatten(1, 2),
                )
            )  # fmt: skip
        return Predicted(spec=self.spec, parts=tuple(parts))

    def expected(self, window: Window) -> Predicted:
        """As `predicted`, at the ends of windows."""
        return self.predicted(window.now)

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """What every row's ego expects of all agents, `(R, A)` for ego-major views; the modes where rng is None."""
        draw = rng if self.config.answer == "sample" else None
        if self._plain:
            parts = []
            found = zip(self.groups, self._outputs(self.reading(view.obs, self.egos)), self._legal(view), strict=True)
            for group, (parameters, _), legal in found:
                act = answer(group.heads, parameters, legal, draw)[0]
                parts.append(act.transpose(0, 1).flatten(1, 2))  # (g, I M, a)
            joint = join(self.groups, parts)
        else:
            expected = self.predicted(view)
            joint = expected.mode() if draw is None else expected.sample(draw)
        return carry, silenced(self.spec, joint, view)

    def log_prob(self, view: View, act: Tensor) -> Tensor:
        """Log-probability of every agent's slice of `act (R, A)` under its row's ego's model, `(R, N)`, ego-major."""
        if not self._plain:
            return self.predicted(view).log_prob(act)
        found = torch.empty(len(act), self.spec.n, device=act.device, dtype=act.dtype)
        parts = zip(
            self.groups, self._outputs(self.reading(view.obs, self.egos)), self._slices(act), self._legal(view),
            strict=True,
        )  # fmt: skip
        for group, (parameters, _), own, legal in parts:
            value = log_prob(group.heads, parameters, own, legal)
            found[:, list(group.agents)] = value.transpose(1, 2).flatten(0, 1)
        return found

    # ------------------------------------------------------------------ fit

    def fit(self, seen: Moments | Rows, rng: torch.Generator, *, held: Tensor | None = None) -> OpponentFit:
        """Fit all networks to what was done, each with the best weights it had on the held-out moments.

        Every network of an ego, and of an ensemble, draws its own batches, so that models differ from one another.

        Args:
            seen: B real moments, newest last; only the `config.window` newest are read.
            rng: draws the split and the batches.
            held: `(B,)` bool: which moments to hold out, whole episodes for an honest error. None: a share of
                `config.holdout` at random, whose neighbours in time are fitted to.

        Raises:
            GameError: fewer than 10 moments, or none to fit to, or none held out.
        """
        moments = Moments.of(seen) if isinstance(seen, Rows) else seen
        if len(moments) < 10:
            raise GameError(f"opponent models need at least 10 rows to fit, got {len(moments)}")
        moments = moments[-self.config.window :]
        self.normaliser.fit(moments.view.obs)
        train, apart = self._split(len(moments), None if held is None else held[-self.config.window :], rng)
        parts = self.config.members * self.egos
        shown, judged = self._shown(moments), apart.expand(parts, -1)
        best = self._likelihoods(shown, judged)
        kept = {name: value.detach().clone() for name, value in self.networks.named_parameters()}
        stale = passes = 0
        while passes < self.config.passes and stale < self.config.patience:
            orders = [torch.randperm(len(train), generator=rng, device=train.device) for _ in range(parts)]
            batches = torch.split(train[torch.stack(orders)], self.config.batch_size, 1)
            for batch in batches:
                self._descend(shown, batch, self._shares(batch, len(moments)))
            passes += 1
            nll = self._likelihoods(shown, judged)
            better = nll < best
            best = torch.where(better, nll, best)
            self._keep(kept, better)
            stale = 0 if bool(better.any()) else stale + 1
        with torch.no_grad():
            for name, value in self.networks.named_parameters():
                value.copy_(kept[name])
        return self._judge(moments[apart.repeat(self.egos)], best, passes, rng)

    def _split(self, size: int, held: Tensor | None, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Moments to fit to, and those held out."""
        if held is None:
            order = torch.randperm(size, generator=rng, device=self.normaliser.mean.device)
            count = max(1, int(size * self.config.holdout))
            return order[count:], order[:count]
        found = (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)
        if not len(found[0]) or not len(found[1]):
            raise GameError(
                f"of the {size} newest moments, {len(found[1])} are held out; hold out some, and leave some to fit to"
            )
        return found

    def _shares(self, batch: Tensor, size: int) -> Tensor | None:
        """What rows `batch (P, M)` out of `size` count in the loss; None where all count alike."""
        if self.config.memory is None:
            return None
        return torch.exp((batch - (size - 1)) / self.config.memory)

    def _shown(self, moments: Moments) -> list[_Shown]:
        """What the moments say of every group."""
        view, views = moments.view, self.egos if self.config.sees == "own" else 1
        obs = view.obs if views == 1 else view.obs.repeat(views, 1)
        found = []
        for group, read in zip(self.groups, self.reading(obs, views), strict=True):
            legal = view.legal[:, group.act] if self.spec.legal_varies and group.discrete else None
            acting = view.acting[:, list(group.agents)].to(view.obs.dtype)
            by_moment = read.transpose(1, 2).flatten(0, 1).contiguous()
            found.append(_Shown(group, by_moment, moments.act[:, group.act], legal, acting))
        return found

    def _parts(self, shown: Sequence[_Shown], rows: Tensor) -> Iterator[_Part]:
        """The groups of agents, every member in rows of its own, `(P, M)`."""
        apart = rows
        if self.config.sees == "own":
            ego = torch.arange(len(rows), device=rows.device) % self.egos
            apart = rows + ego[:, None] * len(shown[0].acting)
        found = self._outputs([_rows(own.read, apart) for own in shown])
        for own, (parameters, log_weights) in zip(shown, found, strict=True):
            legal = None if own.legal is None else _rows(own.legal, rows)
            acting = _rows(own.acting, rows)
            yield _Part(own.group, parameters, log_weights, _rows(own.act, rows), legal, acting)

    def _descend(self, shown: Sequence[_Shown], rows: Tensor, shares: Tensor | None) -> None:
        """One gradient step of all networks: mean NLL over those of rows `(P, M)` in which the agent acts, by what they
        count.
        """
        loss = torch.zeros((), device=rows.device)
        for part in self._parts(shown, rows):
            losses = part.nll()
            if part.group.discrete and self.config.entropy_bonus:
                losses = losses - self.config.entropy_bonus * part.entropy()
            weight = part.acting if shares is None else part.acting * shares[:, None]
            total = weight.sum(-1, keepdim=True)
            share = weight / (total.clamp_min(1) if shares is None else total.clamp_min(1e-12))
            loss = loss + (losses * share).sum()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()

    @torch.no_grad()
    def _likelihoods(self, shown: Sequence[_Shown], rows: Tensor) -> Tensor:
        """Mean NLL `(P, N)` of every network on rows `(P, M)` in which the agent acts; NaN where it never does."""
        nll = torch.empty(self.config.members * self.egos, self.spec.n, device=rows.device)
        for part in self._parts(shown, rows):
            nll[:, list(part.group.agents)] = _mean(part.nll(), part.acting)
        return nll

    @torch.no_grad()
    def _judge(self, moments: Moments, nll: Tensor, passes: int, rng: torch.Generator) -> OpponentFit:
        """What the fit reached on ego-major held-out rows; `nll` is the networks' own.

        One sample a row stands for the entropy of box actions, which has no closed form.
        """
        accuracy, spread = torch.empty(2, self.egos, self.spec.n, device=moments.act.device)
        acting = moments.view.acting.view(self.egos, -1, self.spec.n).transpose(1, 2).to(moments.act.dtype)
        expected = self.predicted(moments.view)
        for part, act in zip(expected.parts, self._slices(moments.act), strict=True):
            group, acts = part.group, acting[:, list(part.group.agents)]
            mode = self._by_ego(part.mode())
            if group.discrete:
                right = (mode * act).sum(-1) / len(group.heads)
                chaos = part.entropy()
            else:
                right = 1 - (mode - act).abs().mean(-1) / 2
                chaos = -part.log_prob(part.sample(rng))
            accuracy[:, list(group.agents)] = _mean(right, acts)
            spread[:, list(group.agents)] = _mean(self._by_ego(chaos), acts)
        if not self._plain:
            log_p = expected.log_prob(moments.act).view(self.egos, -1, self.spec.n).transpose(1, 2)
            nll = _mean(-log_p, acting)
        return OpponentFit(nll=nll, accuracy=accuracy, entropy=spread, passes=passes)

    def _by_ego(self, x: Tensor) -> Tensor:
        """`(g, I M, ...)` as `(I, g, M, ...)`."""
        return x.reshape(len(x), self.egos, -1, *x.shape[2:]).transpose(0, 1)

    def _keep(self, kept: dict[str, Tensor], better: Tensor) -> None:
        """Copy the weights of the networks that `better (E I, N)` marks into `kept`."""
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


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    """`(P, g, M, ...)`, rows `(P, M)` of `x (W, g, ...)`."""
    return x.index_select(0, rows.reshape(-1)).view(*rows.shape, *x.shape[1:]).transpose(1, 2)
