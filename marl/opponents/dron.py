"""DRON: Q-learning against an opponent of several minds, told of it by features of how it has behaved.

He, Boyd-Graber, Kwok, Daumé 2016, "Opponent Modeling in Deep Reinforcement Learning" (1609.05559). The networks are in
`presage.marl.opponents.dron_networks`; the defaults are the numbers of the authors' code for soccer.

The loss of a batch is the mean of

    delta^2 / 2, its slope held to [-1, 1],  delta = r + gamma (1 - terminated) max_a' Q'(s', o', a') - Q(s, o, a)
    + label_weight * cross-entropy(head(s, o), label)

The code sums the first over its 64 rows and averages the second: beside the value of a row, its label weighs 1/64. That
is `label_weight`'s default, whatever the batch.

Shape suffixes: B rows, A actions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from gymnasium import spaces
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import TorchOptimizerFactory
from torch import Tensor, nn
from torch.optim import Optimizer

from presage.common.dqn import DQNConfig, GreedyActor, LeanDQN, check_single_choice
from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import Carry, GameError, GameSpec, GoalRule, Kernel, Rows, View
from presage.common.streams import Streams
from presage.marl.opponents.dron_networks import (
    HIDDEN,
    ColumnValues,
    DRONConcat,
    DRONMixture,
    OpponentNetwork,
    PlainNetwork,
)

Network = Literal["mixture", "concat", "joined", "pooled"]
BATCH = 64
"""rows of an update in the authors' code"""


def _numbers() -> DQNConfig:
    return DQNConfig(
        hidden=HIDDEN, learning_rate=5e-4, discount=0.9, target_rate=1.0, target_every=2_500, random_share=0.3
    )


def _loop() -> DynaConfig:
    return DynaConfig(
        real_share=1.0, batch_size=BATCH, updates_per_step=0.25, warmup_steps=1_000, replay_capacity=100_000
    )


@dataclass(frozen=True, kw_only=True)
class DRONConfig:
    """A network, the columns that it reads, and the numbers of Q-learning."""

    network: Network = "mixture"
    """experts on the state under a gate that sees the opponent (DRON-MoE); both encoded and joined (DRON-concat); or
    without a model of the opponent: one network of both, or of the state alone, which pools all opponents"""
    state: tuple[int, ...] = ()
    """columns of the joint observation that are phi_s; () for all that the agent reads and the other fields leave"""
    opponent: tuple[int, ...] = ()
    """columns that are phi_o; only `pooled` can do without"""
    label: tuple[int, ...] = ()
    """columns that hold the opponent's next action or its type as a one-hot vector, which an extra head of `mixture` or
    `concat` predicts; never an input, and needed in training alone; () for no head"""
    label_weight: float = 1 / BATCH
    """of the extra head's cross-entropy in the loss, beside that of the values; >= 0"""
    experts: int = 3
    """K of `mixture`; the paper has 2 to 4; >= 1"""
    opponent_hidden: int = 50
    """width of the layer that reads phi_o: that of the gate, or of `concat`'s own; >= 1"""
    error_limit: float = 1.0
    """temporal differences beyond it weigh no more than it does; > 0, `inf` for squares all the way"""
    dqn: DQNConfig = field(default_factory=_numbers)
    """numbers of Q-learning; `hidden` are the layers that read phi_s, whose first one alone does so in `concat`"""
    last_random_share: float = 0.1
    """what `dqn.random_share` falls to, in [0, 1]"""
    falling: int = 125_000
    """updates over which it falls, evenly; >= 1"""
    optimiser: Literal["rmsprop", "adam"] = "rmsprop"
    """the code's centred RMSProp, or Adam"""
    loop: DynaConfig = field(default_factory=_loop)
    """how much is collected and updated; what it says of fitting and imagining is not read"""

    def __post_init__(self) -> None:
        if self.network not in get_args(Network):
            raise ValueError(f"network={self.network!r} must be one of {', '.join(map(repr, get_args(Network)))}")
        if self.optimiser not in ("rmsprop", "adam"):
            raise ValueError(f"optimiser={self.optimiser!r} must be 'rmsprop' or 'adam'")
        for name, count in {"experts": self.experts, "opponent_hidden": self.opponent_hidden,
                            "falling": self.falling}.items():  # fmt: skip
            if count < 1:
                raise ValueError(f"{name}={count} must be >= 1")
        if len(self.dqn.hidden) < 1 + (self.network == "concat"):
            raise ValueError(
                f"dqn.hidden={self.dqn.hidden} must have a layer that reads the state, and for 'concat' one behind it"
            )
        if self.label_weight < 0 or self.error_limit <= 0:
            raise ValueError(f"label_weight={self.label_weight} must be >= 0 and error_limit={self.error_limit} > 0")
        if not 0 <= self.last_random_share <= 1:
            raise ValueError(f"last_random_share={self.last_random_share} must lie in [0, 1]")
        if self.loop.real_share != 1:
            raise ValueError(f"loop.real_share={self.loop.real_share} must be 1: this method imagines nothing")
        if self.label and self.network not in ("mixture", "concat"):
            raise ValueError(
                f"network={self.network!r} has no extra head for label={self.label}; leave the label out, or take "
                "'mixture' or 'concat'"
            )
        named = [*self.state, *self.opponent, *self.label]
        twice = sorted({k for k in named if named.count(k) > 1})
        if twice:
            raise ValueError(
                f"columns {twice} are named twice in state={self.state}, opponent={self.opponent}, label={self.label}; "
                "a label is no input, and an input is read once"
            )

    def columns(self, spec: GameSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Those of phi_s and of phi_o in a game of one agent.

        Raises:
            GameError: an input is nothing that the agent reads, a label is no column of the game, or no opponent's
                features are named for a network that needs them.
        """
        own = spec.agents[0].obs
        state = self.state or tuple(k for k in own if k not in self.opponent and k not in self.label)
        for name, columns, allowed, what in (
            ("state", state, own, "what the agent reads"),
            ("opponent", self.opponent, own, "what the agent reads"),
            ("label", self.label, range(spec.obs_dim), f"0..{spec.obs_dim - 1} of the joint observation"),
        ):
            strange = [k for k in columns if k not in allowed]
            if strange:
                raise GameError(f"{name}: columns {strange} of {spec.name!r} are not among {what}; name others")
        if not state or (self.network != "pooled" and not self.opponent):
            raise GameError(
                f"network={self.network!r} needs columns of {spec.name!r} that tell of the state and of the opponent, "
                f"got state={state} and opponent={self.opponent}; name them, or take network='pooled', which reads the "
                "state alone"
            )
        return state, self.opponent

    def make_network(self, states: int, opponents: int, actions: int, rng: torch.Generator) -> OpponentNetwork:
        """The network for so many features and actions.

        Args:
            rng: draws the weights, on the CPU.
        """
        sizes, hidden, classes = (states, opponents, actions, rng), self.dqn.hidden, len(self.label)
        if self.network == "mixture":
            return DRONMixture(
                *sizes, hidden=hidden, opponent_hidden=self.opponent_hidden, experts=self.experts, classes=classes
            )
        if self.network == "concat":
            return DRONConcat(*sizes, hidden=hidden, opponent_hidden=self.opponent_hidden, classes=classes)
        return PlainNetwork(*sizes, hidden=hidden, reads_opponent=self.network == "joined")

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> Dyna:  # fmt: skip
        """The learner on a game of one agent with a single choice; see `presage.common.method.Method`.

        Raises:
            GameError: the game has several agents, or other actions, or not the columns that are named.
        """
        check_single_choice(spec)
        state, opponent = self.columns(spec)
        network = self.make_network(len(state), len(opponent), spec.act_dim, streams("learner", "cpu"))
        model = ColumnValues(network, state, opponent).to(device)
        policy = DiscreteQLearningPolicy(model=model, action_space=spaces.Discrete(spec.act_dim))
        rate = self.dqn.learning_rate
        optimiser = (
            TorchOptimizerFactory(torch.optim.Adam, lr=rate, fused=True)
            if self.optimiser == "adam"
            else TorchOptimizerFactory(CentredRMSProp, lr=rate)
        )
        learner = DRON(self, policy=policy, optim=optimiser)
        return Dyna(spec, self.loop, learner, FallingShareActor(learner), streams, device=device)


class DRON(LeanDQN):
    """DQN with the loss of the module's head; all four networks learn by it, so that they can be compared."""

    checkpoint_skip = ("config", "metrics")
    """configuration, and what every update makes again"""

    def __init__(self, config: DRONConfig, **parts: Any) -> None:
        """
        Args:
            parts: as of tianshou's `DQN`; the policy's model is a `ColumnValues`.
        """
        super().__init__(config.dqn, **parts)
        self.config = config
        self.metrics: dict[str, Tensor] = {}
        """of the last update, on the device: the losses, how often the head is right, the gate's entropy in nats"""

    @property
    def random_share(self) -> float:
        """Share of the actions that are uniform by now."""
        first, last = self.config.dqn.random_share, self.config.last_random_share
        return first + (last - first) * min(1.0, self.updates / self.config.falling)

    def loss(self, rows: Rows) -> Tensor:
        """That of the values and, where there is an extra head, that of the labels of `rows`."""
        model: ColumnValues = self.policy.model
        judged = model.judge(rows.obs)
        values = (judged.values * rows.act).sum(1)
        loss = nn.functional.huber_loss(values, self.targets(rows), delta=self.config.error_limit)
        self.metrics = {"loss": loss.detach()}
        if judged.gate is not None:
            self.metrics["gate_entropy"] = torch.special.entr(judged.gate.detach()).sum(1).mean()
        if judged.logits is None:
            return loss
        label = rows.obs[:, list(self.config.label)]
        wrong = nn.functional.cross_entropy(judged.logits, label)
        right = judged.logits.detach().argmax(1) == label.argmax(1)
        self.metrics |= {"label_loss": wrong.detach(), "label_accuracy": right.to(label.dtype).mean()}
        return loss + self.config.label_weight * wrong


class FallingShareActor(GreedyActor):
    """The best action by its value; with a generator some are uniform, ever fewer of them as the learner learns."""

    def __init__(self, learner: DRON) -> None:
        super().__init__(learner.policy, learner.random_share)
        self.learner = learner

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        """The action `(B, A)`, one-hot; zeros where the agent is not acting."""
        self.random_share = self.learner.random_share
        return super().step(carry, view, rng)


class CentredRMSProp(Optimizer):
    """`w -= rate * gradient / sqrt(mean of squares - square of the mean + floor)`, both means running ones.

    torch's own adds its floor behind the root.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, *, smoothing: float = 0.95, floor: float = 0.01 / BATCH**2
    ) -> None:
        """
        Args:
            params: to be moved. lr: the rate, > 0. smoothing: what is kept of the running means, in [0, 1).
            floor: > 0; the code has 0.01 for gradients that are sums over 64 rows, which for means is 0.01 / 64^2.

        Raises:
            ValueError: a number is out of range.
        """
        if lr <= 0 or floor <= 0 or not 0 <= smoothing < 1:
            raise ValueError(f"lr={lr} and floor={floor} must be > 0, and smoothing={smoothing} in [0, 1)")
        super().__init__(params, {"lr": lr, "smoothing": smoothing, "floor": floor})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch's returns what a closure does
        """Move all parameters that have gradients.

        Raises:
            ValueError: there is a closure, which nothing here asks for.
        """
        if closure is not None:
            raise ValueError("this optimiser takes gradients that are there already; call step() without a closure")
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if not moved:
                continue
            for p in moved:
                if not self.state[p]:
                    self.state[p].update(mean=torch.zeros_like(p), square=torch.zeros_like(p))
            gradients, kept = [p.grad for p in moved], group["smoothing"]
            means, squares = ([self.state[p][name] for p in moved] for name in ("mean", "square"))
            torch._foreach_lerp_(means, gradients, 1.0 - kept)
            torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1.0 - kept)
            root = torch._foreach_addcmul(squares, means, means, -1.0)
            torch._foreach_add_(root, group["floor"])
            torch._foreach_sqrt_(root)
            torch._foreach_addcdiv_(moved, gradients, root, -group["lr"])
