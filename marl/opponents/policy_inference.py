"""MADDPG's policy inference: every agent's models of the others' policies, learned online (Lowe, Wu, Tamar, Harb,
Abbeel, Mordatch 2017, 1706.02275, section 4.2). The model that agent i keeps of agent j reads what j observes and

    L(phi_ij) = -E[ log pi_ij(a_j | o_j) + lambda H(pi_ij(. | o_j)) ]                                       (Eq. 7)

falls by one gradient step on the newest samples at a time. Copies that follow slowly stand for the others' target
policies in what i's critic learns (Eq. 8), so that i needs to know nobody's parameters.

A model predicts what was played, exploration included. The bonus flattens it: chances (.7, .2, .1) become (.6997,
.2002, .1002) at the paper's lambda of 0.001, and (.670, .215, .115) at 0.1. It is no floor: of an opponent that always
does the same a model becomes sure, but for about exp(-1 / lambda).

Box actions are tanh-Gaussian; their entropy is estimated by a draw.

Shape suffixes: I egos, N agents, g agents of a group, M rows of each ego, R = I M rows, ego-major; B rows that all egos
see, A joint action.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from presage.common import heads
from presage.common.game import Carry, GameError, GameSpec, View, Window
from presage.common.heads import groups_of, join
from presage.common.learner_state import learner_state, restore_learner
from presage.common.networks import Activation, StackedMLP
from presage.marl.gradients import hold_gradients
from presage.marl.opponents.predicted import Part, Predicted, silenced


@dataclass(frozen=True, kw_only=True)
class PolicyInferenceConfig:
    """The numbers of the models and of their learning."""

    hidden: tuple[int, ...] = (64, 64)
    """widths of the hidden layers"""
    activation: Activation = "relu"
    """after every hidden layer"""
    geometry: bool = True
    """read the lengths and directions of the vectors that the game declares as well"""
    learning_rate: float = 1e-2
    """Adam's step size; > 0"""
    entropy_bonus: float = 1e-3
    """lambda, the weight of the predicted entropy; >= 0"""
    gradient_clip: float | None = 0.5
    """most that the norm of a weight's or bias's gradient can be, in every network by itself; > 0, None: no limit"""
    window: int = 1_024
    """newest rows that MADDPG shows the models at a time; >= 1"""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.entropy_bonus < 0:
            raise ValueError(
                f"learning_rate={self.learning_rate} must be > 0 and entropy_bonus={self.entropy_bonus} >= 0"
            )
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise ValueError(f"gradient_clip={self.gradient_clip} must be > 0, or None for no limit")
        if self.window < 1:
            raise ValueError(f"window={self.window} must be >= 1")


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """What the models were worth on samples just before they learned from them.

    Entries `[i, i]` are the ego's own and mean nothing; those of an agent that acted in none of the rows are NaN.
    """

    nll: Tensor
    """(I, N) mean negative log-likelihood of the agents' actions in nats, summed over heads"""
    entropy: Tensor
    """(I, N) mean entropy of what was predicted, in nats; of box actions an estimate by one draw a row, NaN without an
    `entropy_bonus`"""
    told: Predicted
    """what was predicted, `(R,)` ego-major"""


class PolicyInference(nn.Module):
    """A bank of models `(ego, agent)` with target copies; the ego's own entry costs a share 1/N and saves every index.

    In a loop of one's own, `learn` from what was seen and done, then ask: `predicted` for distributions, `joint` for a
    vector of probabilities. Observations may be bare tensors where everybody acts and everything is legal.
    """

    history = 1
    """views that an answer reads"""

    def __init__(
        self, spec: GameSpec, config: PolicyInferenceConfig, init_rng: torch.Generator, *,
        egos: Sequence[int | str] | None = None, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. config: the numbers. init_rng: draws initial weights, on the CPU.
            egos: (I) the agents that keep models of everybody; all N when None.

        Raises:
            GameError: the game has one agent, or not the egos that are named.
        """
        super().__init__()
        if spec.n < 2:
            raise GameError(f"policy inference models the other agents; {spec.name!r} has {spec.n}, play one of more")
        self.spec, self.config = spec, config
        self.ego = tuple(range(spec.n)) if egos is None else tuple(map(spec.index, egos))
        self.groups = groups_of(spec, device)
        self.networks = nn.ModuleList(
            StackedMLP(
                len(self.ego) * len(g.agents), g.obs.shape[1], config.hidden, g.parameters, init_rng, config.activation,
                vectors=g.vectors if config.geometry else (),
            )
            for g in self.groups
        ).to(device)  # fmt: skip
        self.networks_old = deepcopy(self.networks).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.networks.parameters(), lr=config.learning_rate, fused=True)
        self.updates = 0

    # -------------------------------------------------------------- answers

    def _view(self, seen: View | Tensor) -> View:
        """A view of R rows.

        Raises:
            GameError: rows that the egos cannot share evenly.
        """
        view = View.of(self.spec, seen) if isinstance(seen, Tensor) else seen
        if len(view) % len(self.ego):
            raise GameError(
                f"{len(view)} rows cannot be shared evenly by {len(self.ego)} egos; order them ego after ego"
            )
        return view

    def predicted(self, seen: View | Tensor, *, old: bool = False) -> Predicted:
        """What every row's ego expects of all agents, for ego-major views or observations `(R, O)`, differentiable in
        the weights.

        Args:
            old: ask the target copies.
        """
        view, egos, parts = self._view(seen), len(self.ego), []
        per_ego = view.obs.view(egos, -1, self.spec.obs_dim)
        for group, network in zip(self.groups, self.networks_old if old else self.networks, strict=True):
            read = per_ego[:, :, group.obs].transpose(1, 2)
            out = network(read.flatten(0, 1)).view(*read.shape[:3], -1)
            numbers = out.transpose(0, 1).flatten(1, 2)[:, :, None]
            legal = group.of_actions(view.legal) if self.spec.legal_varies and group.discrete else None
            zero = numbers.new_zeros(numbers.shape[:3])
            parts.append(Part(group=group, parameters=numbers, log_weights=zero, legal=legal))
        return Predicted(spec=self.spec, parts=tuple(parts))

    def expected(self, window: Window) -> Predicted:
        """As `predicted`, at the ends of windows."""
        return self.predicted(window.now)

    @torch.no_grad()
    def joint(self, seen: View | Tensor, *, old: bool = False, rng: torch.Generator | None = None) -> Tensor:
        """What every row's ego expects of all agents as one vector, `(R, A)`: probabilities of one-hot entries, and the
        modes of box actions, which stand for the policy behind the noise; zeros of who is not acting.

        Args:
            seen, old: as for `predicted`. rng: draws one-hot actions instead of telling their probabilities.
        """
        view, told = self._view(seen), []
        for part in self.predicted(view, old=old).parts:
            if not part.group.discrete:
                told.append(part.mode())
            else:
                told.append(torch.cat(part.marginals(), -1) if rng is None else part.sample(rng))
        return silenced(self.spec, join(self.groups, told), view)

    def init(self, window: Window) -> Carry:
        """Nothing: the models are memoryless."""
        return None

    @torch.no_grad()
    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """What every row's ego expects all agents to do, `(R, A)` for ego-major views; the modes where rng is None."""
        told = self.predicted(view)
        return carry, silenced(self.spec, told.mode() if rng is None else told.sample(rng), view)

    def log_prob(self, view: View, act: Tensor) -> Tensor:
        """Log-probability of every agent's slice of `act (R, A)` under its row's ego's model, `(R, N)`, ego-major."""
        return self.predicted(view).log_prob(act)

    # ------------------------------------------------------------- learning

    def learn(self, seen: View | Tensor, act: Tensor, rng: torch.Generator | None = None) -> Inferred:
        """One gradient step of every model on what was seen and done, which is the same for all egos.

        Args:
            seen: views or observations `(B, O)`, the newest that there are. act: joint actions `(B, A)`.
            rng: draws estimates of box actions' entropy; needed where there are such, and a bonus.

        Raises:
            GameError: box actions, a bonus, and no `rng`.
        """
        view = View.of(self.spec, seen) if isinstance(seen, Tensor) else seen
        bonus, egos, rows = self.config.entropy_bonus, len(self.ego), len(view)
        if bonus and rng is None and not all(group.discrete for group in self.groups):
            raise GameError(f"entropy_bonus={bonus} of box actions is estimated by draws; pass rng=torch.Generator()")
        every = torch.arange(rows, device=act.device).repeat(egos)
        told, weight = self.predicted(view[every]), _shares(view.acting, act.dtype)
        nll, entropy = (act.new_full((egos, self.spec.n), torch.nan) for _ in range(2))
        loss = act.new_zeros(())
        for part in told.parts:
            agents = list(part.group.agents)
            spread = None
            if part.group.discrete:
                spread = part.entropy()
            elif bonus:
                spread = -heads.answer(part.group.heads, part.parameters[:, :, 0], None, rng)[1]
            share = weight[agents][:, None]  # (g, 1, B)
            own = part.group.of_actions(act).repeat(1, egos, 1)
            wrong = (-part.log_prob(own).view(len(agents), egos, rows) * share).sum(2)
            nll[:, agents] = wrong.detach().T
            loss = loss + wrong.sum()
            if spread is not None:
                chaos = (spread.view(len(agents), egos, rows) * share).sum(2)
                entropy[:, agents] = chaos.detach().T
                loss = loss - bonus * chaos.sum()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        hold_gradients(self.networks.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        self.updates += 1
        unknown = ~view.acting.any(0)
        return Inferred(
            nll=nll.masked_fill(unknown, torch.nan), entropy=entropy.masked_fill(unknown, torch.nan), told=told
        )

    @torch.no_grad()
    def move_targets(self, rate: float) -> None:
        """Let the target copies come nearer by a share of the way, in (0, 1]."""
        torch._foreach_lerp_(list(self.networks_old.parameters()), list(self.networks.parameters()), rate)

    def state(self) -> dict[str, Any]:
        """Copies of weights, targets and optimiser, from which `restore` continues exactly."""
        return dict(learner_state(self))

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        restore_learner(self, state)


def _shares(acting: Tensor, dtype: torch.dtype) -> Tensor:
    """What every row of `acting (B, N)` counts in the mean over those in which an agent acts, `(N, B)`."""
    acts = acting.T.to(dtype)
    return acts / acts.sum(1, keepdim=True).clamp_min(1)
