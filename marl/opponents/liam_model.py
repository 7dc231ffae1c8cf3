"""LIAM's encoder and decoder without a learner: fitted to a record, asked what the others will do.

Papoudakis, Christianos, Albrecht 2021 (2006.09447); see `presage.marl.opponents.liam`, whose networks these are. It
reads what its ego observed and did, and nothing else; the others' observations and actions are labels of the fit.

What differs from the paper: observations are standardised, as records come in any units, on both sides; histories are
drawn from a record and read from their first moment, instead of chunks with a memory that was kept. With `changes` it
reads differences of what it observed as well: others' speeds, say, which nobody shows, can then be told from two
neighbouring moments without a network that has learned to subtract.

Shape suffixes: B rows, T time, N agents, O observation, A action, Z of the embedding, D numbers that others observe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from presage.common import heads
from presage.common.game import GameError, GameSpec, Window
from presage.common.learner_state import learner_state, restore_learner
from presage.common.networks import Normaliser
from presage.marl.opponents.liam_networks import Decoder, Encoder, EncodingConfig, described
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.predicted import Predicted
from presage.marl.opponents.record import Record


@dataclass(frozen=True, kw_only=True)
class LIAMModelConfig:
    """The numbers of the networks and of their fitting."""

    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    """of the networks, and of their gradient steps"""
    length: int = 32
    """moments of a history, the present one among them; >= 1"""
    batch_size: int = 64
    """histories of one gradient step, every step of which is decoded; >= 1"""
    updates: int = 1_000
    """most gradient steps of a fit; >= 1"""
    evaluate_every: int = 50
    """gradient steps between two looks at the held-out moments; >= 1"""
    patience: int = 5
    """looks without a better model after which a fit ends; >= 1"""
    changes: bool = False
    """whether it reads how much each number has changed since the moment before, too; the paper's does not"""

    def __post_init__(self) -> None:
        for name in ("length", "batch_size", "updates", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 1")


class LIAMModel(nn.Module):
    """One ego's model of all others."""

    def __init__(
        self, spec: GameSpec, config: LIAMModelConfig, init_rng: torch.Generator, *, ego: int | str = 0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. config: the numbers. init_rng: draws initial weights, on the CPU. ego: whose model.

        Raises:
            GameError: there is nobody else.
        """
        super().__init__()
        self.spec, self.config = spec, config
        self.ego = (spec.index(ego),)
        self.others = tuple(i for i in range(spec.n) if i != self.ego[0])
        if not self.others:
            raise GameError(f"{spec.name!r} has one agent; a model of the others needs a game of two or more")
        self.own, self.done = list(spec.obs[self.ego[0]]), spec.act[self.ego[0]]
        agents = [spec.agents[i] for i in self.others]
        self.observed = [len(agent.obs) for agent in agents]
        """widths of what each other agent observes"""
        self.described = [described(agent.heads) for agent in agents]
        """numbers that describe what each does"""
        inputs = (2 if config.changes else 1) * len(self.own) + spec.agents[self.ego[0]].width
        self.normaliser = Normaliser(spec.obs_dim)
        self.differences = Normaliser(len(self.own)) if config.changes else None
        self.encoder = Encoder(inputs, config.encoding, init_rng)
        self.decoder = Decoder(sum(self.observed), sum(self.described), config.encoding, init_rng)
        self.to(device)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=config.encoding.learning_rate)

    @property
    def history(self) -> int:
        """Views that an answer reads."""
        return self.config.length

    # -------------------------------------------------------------- answers

    def embed(self, window: Window) -> Tensor:
        """The embeddings `(B, Z)` at the ends of windows."""
        return self._along(window.obs, window.act, window.valid)[-1]

    def expected(self, window: Window) -> Predicted:
        """What is expected of all agents at the ends of B windows; of the ego nothing is, so that all is alike."""
        _, does = self.decoder(self.embed(window))
        legal = window.now.legal if self.spec.legal_varies else None
        parameters = [does.new_zeros(len(does), described(agent.heads)) for agent in self.spec.agents]
        for i, own in zip(self.others, does.split(self.described, -1), strict=True):
            parameters[i] = own
        return Predicted.of_parameters(self.spec, parameters, legal)

    def observations(self, window: Window) -> dict[str, Tensor]:
        """What each other agent is believed to observe at the ends of windows, `(B, O_j)` by name."""
        sees, _ = self.decoder(self.embed(window))
        found = {}
        for i, own in zip(self.others, sees.split(self.observed, -1), strict=True):
            where = list(self.spec.obs[i])
            found[self.spec.names[i]] = own * self.normaliser.std[where] + self.normaliser.mean[where]
        return found

    def _along(self, obs: Tensor, act: Tensor, valid: Tensor) -> Tensor:
        """The embeddings `(T, B, Z)` at every moment of histories.

        Args:
            obs: `(B, T, O)`. act: `(B, T, A)`, what was done at each of them. valid: `(B, T)` bool.
        """
        earlier = torch.zeros_like(valid)
        earlier[:, 1:] = valid[:, :-1]
        done = act[..., self.done]
        before = torch.cat([torch.zeros_like(done[:, :1]), done[:, :-1]], 1) * earlier[..., None]
        parts = [self.normaliser(obs)[..., self.own], before]
        if self.differences is not None:
            changes = self.differences(obs[..., self.own].diff(dim=1)).masked_fill(~earlier[:, 1:, None], 0.0)
            parts.append(torch.cat([torch.zeros_like(changes[:, :1]), changes], 1))
        read = torch.cat(parts, -1).transpose(0, 1)
        output, _ = self.encoder.along(read, self.encoder.begin(len(obs)), (valid & ~earlier).T)
        return self.encoder.embed(output)

    # ------------------------------------------------------------------ fit

    def fit(
        self, record: Record, rng: torch.Generator, *, index: Tensor | None = None, held: Tensor | None = None
    ) -> dict[str, float]:
        """Fit to what was seen and done; the networks end with the weights that were best on the held-out moments.

        Args:
            rng: draws the histories. index: moments to fit to; all when None. held: moments to stop by, out of other
                episodes; None: those of a fifth of the episodes in `index`, which are then not fitted to.

        Returns:
            the mean held-out NLL by the name of each other agent; "observations", the mean held-out error
            `0.5 ||o_hat - o||^2` in standard deviations; and the gradient steps as "updates".

        Raises:
            GameError: another game, or no moments on one side.
        """
        if record.spec != self.spec:
            raise GameError(f"the model is of {self.spec.name!r} as it was, the record of {record.spec.name!r}")
        if held is None:
            index, held = record.split(0.2, rng, index=index)
        index = torch.arange(len(record)) if index is None else index
        if not len(index) or not len(held):
            raise GameError(f"{len(index)} moments to fit to and {len(held)} held out; both need some")
        self.normaliser.fit(record.moments(index).view.obs)
        if self.differences is not None and len(later := index[record.step[index] > 0]):
            self.differences.fit(record.window(later, 2).obs[..., self.own].diff(dim=1).squeeze(1))
        networks = (self.encoder, self.decoder)
        parameters = [parameter for network in networks for parameter in network.parameters()]
        best, kept = self._judged(record, held), [parameter.detach().clone() for parameter in parameters]
        stale = updates = 0
        while updates < self.config.updates and stale < self.config.patience:
            for _ in range(min(self.config.evaluate_every, self.config.updates - updates)):
                drawn = index[torch.randint(len(index), (self.config.batch_size,), generator=rng)]
                sees, does, counts = self._errors(record, drawn)
                loss = ((sees + does) * counts).sum() / counts.sum().clamp_min(1)
                self.optimiser.zero_grad()
                torch.autograd.backward(loss)
                for network in networks:
                    nn.utils.clip_grad_norm_(network.parameters(), self.config.encoding.gradient_clip)
                self.optimiser.step()
                updates += 1
            found = self._judged(record, held)
            better = sum(found.values()) < sum(best.values())
            stale = 0 if better else stale + 1
            if better:
                best, kept = found, [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            for parameter, good in zip(parameters, kept, strict=True):
                parameter.copy_(good)
        return best | {"updates": float(updates)}

    def _errors(self, record: Record, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """In the histories that end at moments `drawn (B,)`: `0.5 ||o_hat - o||^2` and the NLL of what was done, of
        each other agent `(T, B, N - 1)`, and 1.0 where these count.
        """
        window = record.window(drawn, self.config.length)
        steps = window.valid.shape[1]
        at = drawn[:, None] - torch.minimum(torch.arange(steps - 1, -1, -1), record.step[drawn][:, None])
        moments: Moments = record.moments(at.flatten())
        shape = tuple(at.shape)
        sees, does = self.decoder(self._along(window.obs, moments.act.view(*shape, -1), window.valid))

        def along(x: Tensor) -> Tensor:
            return x.view(*shape, *x.shape[1:]).transpose(0, 1)

        obs, act, legal = (along(x) for x in (self.normaliser(moments.view.obs), moments.act, moments.view.legal))
        missed, unlikely = [], []
        decoded = zip(self.others, sees.split(self.observed, -1), does.split(self.described, -1), strict=True)
        for i, seen, done in decoded:
            agent, where = self.spec.agents[i], self.spec.act[i]
            allowed = legal[..., where] if self.spec.legal_varies and agent.discrete else None
            missed.append(0.5 * (seen - obs[..., list(agent.obs)]).square().sum(-1))
            unlikely.append(-heads.log_prob(agent.heads, done, act[..., where], allowed))
        counts = along(moments.view.acting)[..., list(self.others)] & window.valid.T[..., None]
        return torch.stack(missed, -1), torch.stack(unlikely, -1), counts.to(sees.dtype)

    @torch.no_grad()
    def _judged(self, record: Record, held: Tensor) -> dict[str, float]:
        """Mean errors at the moments `held` themselves, as `fit` returns them."""
        sums = torch.zeros(3, len(self.others))
        for part in torch.split(held, 1_024):
            sees, does, counts = (x[-1] for x in self._errors(record, part))
            sums += torch.stack([(sees * counts).sum(0), (does * counts).sum(0), counts.sum(0)]).cpu()
        sees, does = sums[:2] / sums[2].clamp_min(1)
        names = [self.spec.names[i] for i in self.others]
        return dict(zip(names, does.tolist(), strict=True)) | {"observations": float(sees.sum())}

    def state(self) -> dict[str, Any]:
        """Copies of weights, normaliser and optimiser, from which `restore` continues exactly."""
        return dict(learner_state(self))

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        restore_learner(self, state)
