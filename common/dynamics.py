"""The learned world: an ensemble over the joint vectors that predicts the next joint observation, rewards and flags.

One agent makes it MBPO's ensemble, several make it AORPO's; nothing in it asks how many there are.

Shape suffixes: B batch, E member, N agent, O observation, A action, G goal, S state (O, plus G where the achieved goal
is in no observation), F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from presage.common.ensemble import GaussianStack, Prediction
from presage.common.game import GameError, GameSpec, Rows, View, Window
from presage.common.geometry import Geometry
from presage.common.known_columns import KnownRule
from presage.common.naming import Naming
from presage.common.networks import Activation

RewardRule = Callable[[View, Tensor, View], Tensor]
"""`(view, act (B, A), after) -> (B, N)` rewards, as tensor code on the views' device"""

TerminationRule = Callable[[View, Tensor, View], Tensor]
"""`(view, act (B, A), after) -> (B, N)` bool, true where the agent has no future after this step"""


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """The networks of a dynamics ensemble."""

    members: int = 7
    """E, networks per owner; >= 1"""
    elites: int = 5
    """members used to imagine, best held-out score first; 1..members"""
    owners: int = 1
    """ensembles side by side: 1 (shared by all egos) or one per agent"""
    hidden: tuple[int, ...] = (128, 128)
    """widths of the hidden layers of the network that predicts the next state"""
    outcome_hidden: tuple[int, ...] = (128, 128)
    """widths of the hidden layers of the network that predicts rewards and flags; unused with reward_input="joint\""""
    activation: Activation = "silu"
    """after every hidden layer"""
    linear_skip: bool = True
    """add an affine map from the inputs to the predicted means, solved in closed form at every fit: point masses move
    linearly away from contacts"""
    target: Literal["delta", "absolute"] = "delta"
    """predict the change of the state (MBPO) or the next state itself (AORPO's code)"""
    normalise_targets: bool = True
    """standardise targets, or what the affine map leaves of them, so that slow columns weigh as much as fast ones"""
    reward_input: Literal["transition", "lengths", "joint"] = "transition"
    """what rewards and flags are read from: (state, action, next state) by networks of their own, fed with the
    predicted next state when imagining; likewise, but from the next state alone, and of the vectors that the game
    declares only their lengths, for games that pay for distances; or (state, action) by further outputs of the one
    network (the papers' form)"""
    geometry: bool = True
    """read the lengths and directions of the vectors that the game declares as well: of the present and, for rewards
    and flags, of the next state"""
    shared_heads: bool = False
    """predict for one agent of those that the game declares alike, and ask again for each of the others under other
    names (`Naming`): so many times fewer outputs and more rows to fit, and so many times the work when imagining"""
    canonical_order: bool = False
    """read agents and landmarks that are alike in one order, whatever their names, as far as the game declares all of
    its renamings (see `Naming`)"""
    known_columns: bool = False
    """pass on the columns that follow a rule (`GameSpec.known`: messages, goals) instead of learning them"""
    log_variance: tuple[float, float] = (-10.0, 0.5)
    """first lower and upper bound of the predicted log-variance, in standardised units"""
    learned_bounds: bool = True
    """whether training moves the bounds"""
    noise: Literal["learned", "none"] = "learned"
    """whether members predict a variance beside every mean (PETS's PE), or means alone, fitted by squared error and
    imagined without noise (its DE); flags are drawn by their odds in both"""
    lipschitz: float | None = None
    """Lipschitz constant that the means of no network exceed (Asadi, Misra, Littman 2018), from all that the network
    reads to all that it predicts, in standardised units (targets in raw ones with normalise_targets=False); of the
    change of the state with target="delta", to which the state itself is added. Needs linear_skip=False: the affine map
    knows no bound. Perceptrons come near their bound with activation="relu", hardly with "silu" (Anil, Lucas, Grosse
    2019): leave room above the slope to be learned. > 0, or None for no bound"""

    def __post_init__(self) -> None:
        if not 1 <= self.elites <= self.members:
            raise ValueError(f"elites={self.elites} must lie in 1..members={self.members}")
        if self.owners < 1:
            raise ValueError(f"owners={self.owners} must be >= 1")
        if min((1, *self.hidden, *self.outcome_hidden)) < 1:
            raise ValueError(f"hidden={self.hidden} and outcome_hidden={self.outcome_hidden} must be widths >= 1")
        if self.lipschitz is not None and not self.lipschitz > 0:
            raise ValueError(f"lipschitz={self.lipschitz} must be > 0, or None")
        if self.lipschitz is not None and self.linear_skip:
            raise ValueError(
                f"lipschitz={self.lipschitz} bounds the perceptrons, linear_skip={self.linear_skip} adds an affine map "
                "that knows no bound; set linear_skip=False"
            )
        if not self.log_variance[0] < self.log_variance[1]:
            raise ValueError(f"log_variance={self.log_variance} must be (lower, upper) with lower < upper")


class Past(NamedTuple):
    """The frames before the present one, where a game declares more than one."""

    obs: Tensor
    """(B, F - 1, O), oldest first"""
    act: Tensor
    """(B, F - 1, A), the action taken at each of them"""


class Reading(NamedTuple):
    """A situation as networks read it: under one name for each of their R heads, a row's heads side by side."""

    view: View
    """(B * R)"""
    act: Tensor
    """(B * R, steps * A)"""
    past: Past | None
    names: Tensor | None
    """(B, R) renamings; None where there is one head that reads things as they are"""


class Regression(NamedTuple):
    """One network of the ensemble with the rows that it is fitted on."""

    network: GaussianStack
    inputs: Tensor
    """(B, inputs)"""
    targets: Tensor
    """(B, C), then the flags (B, L) as 0.0 and 1.0"""
    groups: dict[str, slice]
    """columns of `targets` by what they mean"""


class JointPrediction(NamedTuple):
    """What every member of one owner predicts, in raw units."""

    mean: Tensor
    """(E, B, S) next state"""
    std: Tensor
    """(E, B, S)"""
    reward_mean: Tensor
    """(E, B, N), each member's at its own mean next state; (E, B, 0) where a rule gives the rewards"""
    reward_std: Tensor
    """(E, B, N) or (E, B, 0)"""


class DynamicsEnsemble(nn.Module):
    """Ensemble of the joint dynamics (PETS, Chua et al. 2018; AORPO, Zhang et al. 2021), probabilistic by default.

    It reads the last `spec.frames` joint observations, the joint actions between them, and the present joint action.
    It predicts the next state; rewards unless a rule gives them; and, only where the game declares that they vary,
    termination (unless a rule gives it), who acts next, and what is legal. The desired goal passes on unchanged and is
    read by what predicts rewards and flags alone.
    """

    backward: bool = False
    """whether it predicts what came before what it reads, as the ensembles of `presage.common.backward` do"""

    def __init__(
        self,
        spec: GameSpec,
        config: EnsembleConfig,
        rng: torch.Generator,
        *,
        reward: RewardRule | None = None,
        terminates: TerminationRule | None = None,
        steps: int = 1,
    ) -> None:
        """
        Args:
            spec: the game. config: the networks. rng: draws the weights, on the CPU.
            reward: gives the rewards instead of learning them. terminates: gives the terminations likewise.
            steps: how far ahead the predicted state is. From 2 on (see `multistep`) it reads as many joint actions,
                `act (B, steps * A)` with the first one first, and predicts the state alone.

        Raises:
            ValueError: `owners` is neither 1 nor the number of agents; rewards are to be read from lengths, heads to be
                shared or columns to be passed on, and the game declares no vectors, symmetries or known columns;
                `steps` is below 1, or rules are given for more than one step.
        """
        super().__init__()
        if steps < 1 or (steps > 1 and (reward or terminates)):
            raise ValueError(f"steps={steps} must be >= 1, and 1 where a rule gives rewards or terminations")
        if config.owners not in (1, spec.n):
            raise ValueError(
                f"owners={config.owners} must be 1 (one ensemble for all egos) or {spec.n} (one for each agent of "
                f"{spec.name!r})"
            )
        if config.reward_input == "lengths" and not spec.vectors:
            raise ValueError(
                f"reward_input='lengths' needs vectors, and {spec.name!r} declares none; take 'transition', or declare "
                "them (GameSpec.vectors)"
            )
        for option, needed, what in (
            ("shared_heads", spec.symmetries, "symmetries"), ("canonical_order", spec.symmetries, "symmetries"),
            ("known_columns", spec.known, "known"),
        ):  # fmt: skip
            if getattr(config, option) and not needed:
                raise ValueError(
                    f"{option}=True needs GameSpec.{what}, and {spec.name!r} declares none; set {option}=False, or "
                    "declare them"
                )
        self.spec, self.config = spec, config
        self.reward_rule, self.termination_rule = reward, terminates
        self.state_dim = spec.obs_dim + (0 if spec.achieved else spec.goal_dim)
        self.steps, alone = steps, steps > 1
        self.rewards = 0 if reward or alone else spec.n
        self.flags = {
            "terminated": spec.n if spec.terminates and terminates is None and not alone else 0,
            "acting": spec.n if spec.acting_varies and not alone else 0,
            "legal": spec.act_dim if spec.legal_varies and not alone else 0,
        }
        outcomes = self.rewards + sum(self.flags.values())
        self.naming: Naming | None = None
        if config.shared_heads or config.canonical_order:
            self.naming = Naming(spec, shared=config.shared_heads, canonical=config.canonical_order)
        self.known = KnownRule(spec, config.known_columns, steps, backward=self.backward)
        self.geometry = Geometry(spec.vectors if config.geometry or config.reward_input == "lengths" else ())
        self.scalars = sorted(set(range(self.state_dim)) - {k for vector in spec.vectors for k in vector})
        acts = steps * spec.act_dim + (spec.n if spec.acting_varies else 0)
        frames, before = (spec.frames - 1) * spec.obs_dim, (spec.frames - 1) * spec.act_dim
        start = self.state_dim + acts + frames
        known = [*range(self.state_dim, self.state_dim + acts), *range(start, start + before)]
        width = self.state_dim + acts + frames + before + self.geometry.width
        goal = spec.goal_dim if outcomes else 0

        def network(
            inputs: int, columns: int, flags: int, hidden: tuple[int, ...], unscaled: list[int] = known
        ) -> GaussianStack:
            return GaussianStack(
                owners=config.owners, members=config.members, elites=config.elites, inputs=inputs, columns=columns,
                flags=flags, hidden=hidden, activation=config.activation, linear_skip=config.linear_skip,
                normalise_targets=config.normalise_targets, log_variance=config.log_variance,
                learned_bounds=config.learned_bounds, unscaled=unscaled, rng=rng, noisy=config.noise == "learned",
                lipschitz=config.lipschitz,
            )  # fmt: skip

        said = {"state": self.state_dim, "obs": spec.obs_dim, "reward": self.rewards, **self.flags}  # by one head
        if self.naming is not None:
            said = {name: len(self.naming.columns(name).kept) if width else 0 for name, width in said.items()}
            said["obs"] = int((self.naming.columns("state").kept < spec.obs_dim).sum())
        self.said, flags = said, sum(said[name] for name in self.flags)
        self.outcome_network: GaussianStack | None = None
        if config.reward_input == "joint" or not outcomes:
            self.state_network = network(width + goal, said["state"] + said["reward"], flags, config.hidden)
        else:
            self.state_network = network(width, said["state"], 0, config.hidden)
            if config.reward_input == "lengths":
                reads = len(self.scalars) + len(spec.vectors) + goal
                self.outcome_network = network(reads, said["reward"], flags, config.outcome_hidden, [])
            else:
                reads = width + self.state_dim + goal + self.geometry.width
                self.outcome_network = network(reads, said["reward"], flags, config.outcome_hidden)

    @property
    def networks(self) -> tuple[GaussianStack, ...]:
        """The state network, and the outcome network where there is one."""
        return (self.state_network,) if self.outcome_network is None else (self.state_network, self.outcome_network)

    def state(self, view: View) -> Tensor:
        """The modelled state `(B, S)`: the joint observation, then the achieved goal where no observation holds it."""
        return view.obs if self.spec.achieved else torch.cat([view.obs, view.achieved], 1)

    def past(self, window: Window) -> Past:
        """The frames before the last one of `window`.

        Raises:
            GameError: the window is shorter than the game's frames.
        """
        frames = self.spec.frames
        if window.obs.shape[1] < frames:
            raise GameError(
                f"game {self.spec.name!r} declares frames={frames}, the window has {window.obs.shape[1]}; ask the "
                f"replay for windows of length >= {frames}"
            )
        length = window.obs.shape[1]
        return Past(window.obs[:, length - frames : -1], window.act[:, length - frames : -1])

    def reading(self, view: View, act: Tensor, past: Past | None) -> Reading:
        """The situations `(B)` under `act (B, steps * A)` as the networks read them."""
        naming = self.naming
        if naming is None:
            return Reading(view, act, past, None)
        names = naming.choose(view.obs)
        if past is not None:
            past = Past(naming.rename(past.obs, "obs", names), naming.rename(past.act, "act", names))
        acts = naming.rename(act.view(len(act), self.steps, -1), "act", names).flatten(1)
        return Reading(naming.view(view, names), acts, past, names)

    def read_state(self, state: Tensor, names: Tensor | None) -> Tensor:
        """States `(..., B, S)` under the names of a reading, `(..., B * R, S)`."""
        return state if names is None or self.naming is None else self.naming.rename(state, "state", names)

    def joint(self, answer: Prediction, network: GaussianStack, names: Tensor | None) -> Prediction:
        """What the heads of a network say of B rows, `(..., B * R, .)`, as joint vectors `(..., B, .)`."""
        if names is None or self.naming is None:
            return answer
        apart = self.outcome_network is not None
        columns = ["reward"] if network is self.outcome_network else ["state"] if apart else ["state", "reward"]
        columns = [name for name in columns if self.said[name]]
        flags = [name for name in self.flags if self.said[name]] if network.flags else []
        merge = self.naming.merge
        return Prediction(
            merge(answer.mean, columns, names), merge(answer.std, columns, names), merge(answer.logits, flags, names)
        )

    def _kept(self, part: Tensor, name: str) -> Tensor:
        """The columns of a renamed joint vector that a head predicts."""
        return part if self.naming is None or not self.said[name] else part[..., self.naming.columns(name).kept]

    def inputs(self, view: View, act: Tensor, past: Past | None) -> Tensor:
        """What the state network reads, raw; `past` may be None where the game declares a single frame.

        Args:
            act: `(B, steps * A)`.
        """
        parts = [self.state(view), act]
        if self.spec.acting_varies:
            parts.append(view.acting.to(act.dtype))
        if self.spec.frames > 1:
            if past is None:
                raise GameError(
                    f"game {self.spec.name!r} declares frames={self.spec.frames}: the earlier ones are missing"
                )
            parts += [past.obs.flatten(1), past.act.flatten(1)]
        if self.outcome_network is None and self.rewards + sum(self.flags.values()):
            parts.append(view.desired)
        return torch.cat([*parts, self.geometry.features(parts[0])], 1)

    def outcome_inputs(self, inputs: Tensor, next_state: Tensor, view: View) -> Tensor:
        """What the outcome network reads, raw: all that the state network does, the next state, the desired goal; or,
        with `reward_input="lengths"`, of the next state the lengths of vectors, all other columns, and the goal.

        Args:
            inputs: `(..., B, inputs)`. next_state: `(..., B, S)`.
        """
        if self.config.reward_input == "lengths":
            parts = [next_state[..., self.scalars], self.geometry.lengths(next_state)]
        else:
            parts = [inputs, self.geometry(next_state)]
        if self.spec.goal_dim:
            parts.append(view.desired.expand(*inputs.shape[:-1], -1))
        return torch.cat(parts, -1)

    def regressions(
        self, rows: Rows, window: Window | None = None, following: Sequence[Rows] = ()
    ) -> dict[str, Regression]:
        """The networks by name, each with its inputs and targets on `rows (B)`, a row once for every one of R heads.

        Args:
            window: what led to every row, `(B)` windows that end at it; needed where the game declares several frames.
            following: the `steps - 1` rows `(B)` that follow every row in its episode, the next one first.
        """
        if len(following) != self.steps - 1:
            raise GameError(f"steps={self.steps}: {self.steps - 1} following rows are needed, got {len(following)}")
        if window is not None and len(window) != len(rows):
            raise GameError(
                f"{len(window)} windows were given for {len(rows)} rows; each row needs the one that ends at it"
            )
        if self.naming is not None:
            names = self.naming.choose(rows.obs)
            window = None if window is None else self.naming.window(window, names)
            rows, *following = (self.naming.rows(each, names) for each in (rows, *following))
        view, after = rows.view, (following[-1] if following else rows).next_view
        acts = torch.cat([rows.act, *(more.act for more in following)], 1)
        inputs = self.inputs(view, acts, None if window is None else self.past(window))
        state, target = self.state(view), self.state(after)
        if self.config.target == "delta":
            target = target - state
        target = self.known.forget(target)
        groups = {"obs": self.said["obs"], "achieved": self.said["state"] - self.said["obs"]}
        target, rewards = self._kept(target, "state"), self._kept(rows.reward[:, : self.rewards], "reward")
        truth = {"terminated": rows.terminated, "acting": rows.next_acting, "legal": rows.next_legal}
        flags = [self._kept(truth[name], name).to(target.dtype) for name, width in self.flags.items() if width]
        last = {name: self.said[name] for name in ("reward", *self.flags)}
        if self.outcome_network is None:
            both = torch.cat([target, rewards, *flags], 1)
            return {"state": Regression(self.state_network, inputs, both, _slices(groups | last))}
        reads = self.outcome_inputs(inputs, self.state(after), view)
        return {
            "state": Regression(self.state_network, inputs, target, _slices(groups)),
            "outcome": Regression(self.outcome_network, reads, torch.cat([rewards, *flags], 1), _slices(last)),
        }

    @torch.no_grad()
    def predict(self, view: View, act: Tensor, window: Window | None = None, owner: int = 0) -> JointPrediction:
        """What each member of `owner` predicts for the step from `view` under `act (B, A)`; nothing is sampled.

        With several `steps`: for as many of them, under `act (B, steps * A)`.
        """
        own, width = self.state_network.own(owner), self.state_dim
        read = self.reading(view, act, None if window is None else self.past(window))
        inputs = self.inputs(read.view, read.act, read.past)
        answer = self.state_network.predict(inputs, self.state_network.select(own))
        mean, std, _ = self.joint(answer, self.state_network, read.names)
        state, reward_mean, reward_std = mean[..., :width], mean[..., width:], std[..., width:]
        if self.config.target == "delta":
            state = state + self.state(view)
        state = self.known(state, view, act)
        if self.outcome_network is not None:
            reads = self.outcome_inputs(
                inputs.expand(len(mean), *inputs.shape), self.read_state(state, read.names), read.view
            )
            answer = self.outcome_network.predict(reads, self.outcome_network.select(own))
            reward_mean, reward_std, _ = self.joint(answer, self.outcome_network, read.names)
        return JointPrediction(state, std[..., :width], reward_mean, reward_std)

    @torch.no_grad()
    def disagreement(self, view: View, act: Tensor, window: Window | None = None, owner: int = 0) -> Tensor:
        """How far the members' mean next states lie apart, `(B,)`.

        The standard deviation over members, each column in units of its target's own in the training rows; root mean
        square over the columns that vary.
        """
        mean = self.predict(view, act, window, owner).mean
        spread = self.state_network.spread[self.state_network.own(owner)][0, 0, : self.said["state"]]
        if self.naming is not None:
            names = self.naming.choose(view.obs)
            spread = self.naming.merge(spread.expand(names.numel(), -1), ["state"], names)
        live = spread > 0
        apart = torch.where(live, mean.var(0, unbiased=False) / torch.where(live, spread, 1.0).square(), 0.0)
        return (apart.sum(1) / live.expand_as(apart).sum(1)).sqrt()


def runs(rows: Rows, steps: int, lanes: int) -> Tensor:
    """Positions `(steps, B)` of rows that follow each other inside one episode: wherever a run of `steps` begins.

    Args:
        rows: ordered by time, then copy. lanes: copies of the game.
    """
    ahead = torch.arange(steps, device=rows.obs.device)[:, None]
    first = torch.arange(max(0, len(rows) - (steps - 1) * lanes), device=rows.obs.device)
    at = first + ahead * lanes
    return at[:, (rows.step[at] == rows.step[first] + ahead).all(0)]


def _slices(widths: dict[str, int]) -> dict[str, slice]:
    """Consecutive slices of the given widths, empty ones left out."""
    edges = list(accumulate(widths.values(), initial=0))
    return {name: slice(lo, lo + width) for (name, width), lo in zip(widths.items(), edges, strict=False) if width}
