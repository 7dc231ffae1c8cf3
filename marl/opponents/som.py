"""SOM: two agents with hidden goals, each of which asks under which goal it would itself have done what the other did.

Raileanu, Denton, Szlam, Fergus 2018, "Modeling Others using Oneself in Multi-Agent Reinforcement Learning"
(1802.09640). One network answers in both places (`presage.marl.opponents.som_networks`):

    self:   pi, V = f(s_self,  z_self,  z~)             z~ = G(zeta), what is believed of the other's goal
    other:  pi'   = f(s_other, z~,      z_self)         the same weights, roles exchanged

    zeta <- zeta - rate d/dzeta [ -log pi'(what the other did) ],     n times after each of its moves, f untouched

`zeta` starts at zero in every episode, which makes all goals alike; G is a softmax, or a Gumbel-softmax. The memory of
the other's place goes on by one step for each env step, with the last `zeta`, however many steps the inference takes.
f learns by advantage actor-critic on the agents' own rewards, with z~ as a given number.

No code of the authors was found, and the paper's numbers could not be checked: all defaults here are the suite's own.
A2C stands in for A3C, and its updates are made chunk by chunk.

Both agents learn, and one network with one optimiser answers for both of them: what either does is data for it. So the
other really is as oneself, which is what the method assumes.

To infer a goal with a policy of one's own, `infer` suffices; it takes any differentiable policy:

    zeta = torch.zeros(1, goals)
    for seen, did in moves:  # what the other saw, and the number of the action it chose
        zeta = infer(lambda z: policy(seen, z).log_softmax(-1)[..., did], zeta)
    print(belief(zeta))  # how likely each goal is held to be

Shape suffixes: T time, C game copies, B rows, N = 2 agents, w numbers of a state, K goals, H width of what is
remembered, A action, a an agent's part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from presage.common import heads
from presage.common.actor_critic import ActorCriticConfig, ReturnScale, actor_critic_loss, entropy, value_targets
from presage.common.game import Game, GameError, GameSpec, GoalRule, Kernel, KnownColumn, View
from presage.common.on_policy import Chunk, Kept, Memory, OnPolicy, OnPolicyConfig, side_by_side
from presage.common.streams import Streams
from presage.marl.opponents.som_networks import RoleNetwork

Other = Literal["inferred", "true", "none", "predictor"]
Relaxation = Literal["softmax", "gumbel"]
LogProb = Callable[[Tensor], Tensor]
"""log-probability `(B,)` of what the other did, in its place, under the goals `(B, K)` that it is given"""


def belief(zeta: Tensor, temperature: float = 1.0, rng: torch.Generator | None = None) -> Tensor:
    """G: how much each goal is believed in `(..., K)`, by `zeta (..., K)`.

    Args:
        temperature: what `zeta` is divided by; > 0. rng: adds Gumbel noise first (Jang, Gu, Poole 2017, 1611.01144).
    """
    if rng is not None:
        zeta = zeta - torch.empty_like(zeta).exponential_(generator=rng).clamp_min(1e-30).log()
    return (zeta / temperature).softmax(-1)


def infer(
    log_prob: LogProb, zeta: Tensor, *, steps: int = 10, rate: float = 0.1, temperature: float = 1.0,
    rng: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """`zeta` after `steps` steps down the slope of `-log_prob(belief(zeta))`, each row for itself.

    Nothing but `zeta` gets a gradient: parameters behind `log_prob` are as they were, and so is their `grad`. A policy
    that remembers has to begin at the same memory whenever it is asked, and to be advanced afterwards, once.

    Args:
        log_prob: see `LogProb`. zeta: `(..., K)`, zeros at an episode's start; not edited in place.
        steps: >= 0. rate: of gradient descent, > 0. temperature, rng: as for `belief`; each step draws noise anew.
    """
    zeta = zeta.detach()
    for _ in range(steps):
        with torch.enable_grad():
            free = zeta.requires_grad_()
            surprise = -log_prob(belief(free, temperature, rng)).sum()
            (slope,) = torch.autograd.grad(surprise, free)
        zeta = (zeta - rate * slope).detach()
    return zeta


@dataclass(frozen=True, kw_only=True)
class SOMConfig:
    """What a policy is told of the other's goal, where a game shows goals and moves, and the numbers of learning.

    The defaults are the suite's own numbers.
    """

    other: Other = "inferred"
    """what z~ is: inferred from moves (SOM); `true`, the other's goal itself, an upper bound; `none`, even for all
    goals, always; `predictor`, likewise, but one's memory also learns to predict what the other does"""
    goals: tuple[int, ...] = ()
    """columns of the joint observation that show the agents' goals as one-hot vectors, K of the first agent and then K
    of the second, each of which reads its own alone; () for those that one agent reads and the other does not"""
    acted: tuple[int, ...] = ()
    """columns that show the last joint action (A), zeros for who did not act, read by both agents; () for those that
    the game declares known to be copies of it, if there are any"""
    reads_acted: bool = True
    """whether policies read `acted` too; without it, the other's moves are known to inference alone"""
    hidden: tuple[int, ...] = (64, 64)
    """widths of the layers"""
    memory: int = 64
    """H, of a gated recurrent unit behind the layers; 0: no memory"""
    steps: int = 10
    """of inference, after each move of the other; >= 1"""
    rate: float = 0.1
    """of inference; > 0"""
    relaxation: Relaxation = "softmax"
    """G; a greedy actor draws no noise"""
    temperature: float = 1.0
    """of G; > 0"""
    predictor_weight: float = 1.0
    """of the cross-entropy of `predictor` in the loss; > 0"""
    numbers: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    """of actor-critic learning"""
    loop: OnPolicyConfig = field(default_factory=OnPolicyConfig)
    """how much is collected"""

    def __post_init__(self) -> None:
        if self.other not in get_args(Other) or self.relaxation not in get_args(Relaxation):
            raise ValueError(
                f"other={self.other!r} must be one of {', '.join(map(repr, get_args(Other)))}, and "
                f"relaxation={self.relaxation!r} 'softmax' or 'gumbel'"
            )
        if self.steps < 1 or min(self.rate, self.temperature, self.predictor_weight) <= 0:
            raise ValueError(
                f"steps={self.steps} must be >= 1, and rate={self.rate}, temperature={self.temperature} and "
                f"predictor_weight={self.predictor_weight} > 0"
            )

    def build(
        self, spec: GameSpec, streams: Streams, device: torch.device, true_kernel: Kernel | None = None,
        goal_rule: GoalRule | None = None,
    ) -> OnPolicy:  # fmt: skip
        """SOM on a game; see `presage.common.method.Method`.

        Raises:
            GameError: the game is not of two agents that see and do alike, or does not show what is named.
        """
        learner = SOM(spec, self, streams("learner", "cpu"), streams("update"), device=device)
        return OnPolicy(spec, self.loop, learner, streams, device)


@dataclass(frozen=True)
class Places:
    """Where a joint observation of two agents shows what, per agent."""

    state: Tensor
    """(N, w) int64: whatever an agent reads but its goal"""
    goal: Tensor
    """(N, K)"""
    acted: Tensor
    """(N, a): what it did last; a = 0 where that is not shown"""

    @classmethod
    def of(cls, spec: GameSpec, config: SOMConfig, device: torch.device | str) -> Places:
        """The columns that the configuration names, checked against the game.

        Raises:
            GameError: the game is not of two agents that see and do alike, or does not show what is named.
        """
        if spec.n != 2 or spec.agents[0].heads != spec.agents[1].heads or spec.goal_dim:
            raise GameError(
                f"SOM takes two agents with the same actions, and goals as columns of what they see; {spec.name!r} has "
                f"{spec.n} agents and goal_dim={spec.goal_dim}"
            )
        half = len(config.goals) // 2
        own = (config.goals[:half], config.goals[half:])
        if not config.goals:
            mine, theirs = (agent.obs for agent in spec.agents)
            own = (tuple(k for k in mine if k not in theirs), tuple(k for k in theirs if k not in mine))
        goals = own[0] + own[1]
        if not own[0] or len(own[0]) != len(own[1]):
            raise GameError(
                f"goals={goals} must be columns of {spec.name!r} that show the goal of the first agent, and as many "
                "for that of the second; name them"
            )
        copied = {known.act[0][0]: known.column for known in spec.known if _copies_an_action(known)}
        acted = config.acted or tuple(copied[k] for k in range(spec.act_dim) if len(copied) == spec.act_dim)
        if len(acted) not in (0, spec.act_dim) or (config.other == "inferred" and not acted):
            raise GameError(
                f"acted={acted} must name the {spec.act_dim} columns of {spec.name!r} that show the last joint action; "
                "other='inferred' cannot do without"
            )
        unread = set(goals) | (set() if config.reads_acted else set(acted))
        state = [tuple(k for k in agent.obs if k not in unread) for agent in spec.agents]
        for i, agent in enumerate(spec.agents):
            hidden = sorted((set(own[i]) | set(acted) | set(state[1 - i])) - set(agent.obs))
            if hidden:
                raise GameError(
                    f"agent {agent.name!r} of {spec.name!r} does not see the columns {hidden}: both have to see all "
                    f"but each other's goal, goals={goals}"
                )
            told = sorted(set(own[1 - i]) & set(agent.obs))
            if told:
                raise GameError(f"agent {agent.name!r} of {spec.name!r} sees the other's goal, columns {told}")
        if len(state[0]) != len(state[1]) or not state[0]:
            raise GameError(f"the agents of {spec.name!r} see {len(state[0])} and {len(state[1])} columns of the state")
        made = (torch.tensor(part, dtype=torch.int64, device=device) for part in (state, own, acted))
        states, goal, done = made
        return cls(states, goal, done.view(2, -1))


def _copies_an_action(known: KnownColumn) -> bool:
    """Whether a column is one number of the last joint action."""
    return not known.obs and known.offset == 0.0 and len(known.act) == 1 and known.act[0][1] == 1.0


class SOM(nn.Module):
    """The learner: one network for both agents and both roles, and one optimiser.

    An agent remembers what its network does as itself and, where goals are inferred, what it does in the other's place,
    `zeta`, and the last view, since a move is judged once it is shown.
    """

    checkpoint_skip = ("metrics", "places")
    """made again, by every update and from the spec"""

    def __init__(
        self, spec: GameSpec, config: SOMConfig, init_rng: torch.Generator, rng: torch.Generator, *,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        """
        Args:
            spec: the game. config: the numbers. init_rng: draws initial weights, on the CPU.
            rng: draws the noise of Gumbel-softmax and of box actions' entropies in updates, on `device`.
        """
        super().__init__()
        self.spec, self.config, self.rng = spec, config, rng
        self.places = Places.of(spec, config, device)
        self.components = spec.agents[0].heads
        """of each agent's action"""
        predicts = spec.agents[0].width if config.other == "predictor" else 0
        if predicts and not spec.agents[0].discrete:
            raise GameError(f"other='predictor' takes discrete actions; {spec.name!r} has others")
        self.policy = RoleNetwork(
            self.places.state.shape[1], self.places.goal.shape[1], self.components, init_rng,
            hidden=config.hidden, memory=config.memory, predicts=predicts,
        ).to(device)  # fmt: skip
        self.scale = ReturnScale().to(device)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=config.numbers.learning_rate)
        self.metrics: dict[str, Tensor] = {}
        """of the last update: losses, the policies' entropy; how goals are inferred (see `goal_measures`)"""

    @property
    def infers(self) -> bool:
        """Whether goals are inferred."""
        return self.config.other == "inferred"

    # ---------------------------------------------------------------- acting

    def begin(self, rows: int) -> Memory:
        """What is remembered as oneself `(C, N, H)`; and where goals are inferred, in the other's place likewise, zeta
        `(C, N, K)`, and of the last view: what was seen `(C, O)`, who acted `(C, N)`, what was legal `(C, A)`, and
        whether there was one `(C, 1)`.
        """
        own = self.policy.begin(rows, 2)
        if not self.infers:
            return (own,)
        widths = (self.spec.obs_dim, 2, self.spec.act_dim, 1)
        zeta = own.new_zeros(rows, *self.places.goal.shape)
        return own, own.clone(), zeta, *(own.new_zeros(rows, width) for width in widths)

    def act(self, memory: Memory, view: View, rng: torch.Generator | None) -> tuple[Memory, Tensor, Kept]:
        """See `presage.common.on_policy.OnPolicyLearner`. First the other's last move is judged, which `view` shows."""
        own, rest, kept = memory[0], memory[1:], {}
        zeta = own.new_zeros(len(view), *self.places.goal.shape)
        if self.infers:
            other, zeta, *last = rest
            zeta, other = self._watch(zeta, other, last, view.obs, rng)
            kept = {"zeta": zeta, "other": other}
            flags = (view.acting, view.legal, torch.ones_like(view.acting[:, :1]))
            rest = (other, zeta, view.obs, *(flag.to(zeta.dtype) for flag in flags))
        believed = self._believed(view.obs, zeta, rng)
        read = self.policy.read(view.obs[:, self.places.state])
        parameters, _, own = self.policy(read, view.obs[:, self.places.goal], believed, own)
        act = heads.answer(self.components, parameters, self._legal(view.legal), rng)[0].flatten(1)
        if self.spec.acting_varies:
            act = act * view.acting.repeat_interleave(self.spec.agents[0].width, 1)
        return (own, *rest), act, kept | {"belief": believed}

    def told(self, memory: Memory, act: Tensor) -> Memory:
        """The memory as it is: what was done is in the next view."""
        return memory

    def _believed(self, obs: Tensor, zeta: Tensor, rng: torch.Generator | None) -> Tensor:
        """z~ of both agents, `(B, N, K)`."""
        if self.config.other == "true":
            return obs[:, self.places.goal].flip(1)
        return belief(zeta, self.config.temperature, self._noise(rng) if self.infers else None)

    def _noise(self, rng: torch.Generator | None) -> torch.Generator | None:
        """What draws the noise of G, None where there is none."""
        return rng if self.config.relaxation == "gumbel" else None

    def _watch(
        self, zeta: Tensor, other: Tensor, last: Sequence[Tensor], obs: Tensor, rng: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Zeta, and what is remembered in the other's place, after its last move, which `obs (B, O)` shows.

        Args:
            last: what was seen, who acted, what was legal then, and whether there was such a view.
        """
        seen, acting, legal, there = last
        config, network = self.config, self.policy
        noise = self._noise(rng)
        read = network.read(seen[:, self.places.state].flip(1)).detach()
        mine, did, moved = seen[:, self.places.goal], obs[:, self.places.acted].flip(1), acting.flip(1) > 0
        if bool(moved.any()):
            allowed = self._flipped(self._legal(legal > 0))
            told = [part[moved] for part in (read, mine, other, did)]
            among = None if allowed is None else allowed[moved]

            def log_prob(goal: Tensor) -> Tensor:
                parameters, _, _ = network(told[0], goal, told[1], told[2])
                return heads.log_prob(self.components, parameters, told[3], among)

            zeta = zeta.masked_scatter(
                moved[..., None],
                infer(
                    log_prob, zeta[moved], steps=config.steps, rate=config.rate, temperature=config.temperature,
                    rng=noise,
                ),
            )  # fmt: skip
        with torch.no_grad():
            x = network.embed(read, belief(zeta, config.temperature, noise), mine)
            other = torch.where(there[..., None] > 0, network.remember(x, other), other)
        return zeta, other

    def _legal(self, legal: Tensor) -> Tensor | None:
        """Legality `(..., N, a)` from that of the joint action, None where it does not vary."""
        if not self.spec.legal_varies or not self.spec.agents[0].discrete:
            return None
        return self._apart(legal)

    @staticmethod
    def _apart(joint: Tensor) -> Tensor:
        """Both agents' parts `(..., N, a)` of a joint action or its legality `(..., A)`."""
        return joint.view(*joint.shape[:-1], 2, -1)

    # -------------------------------------------------------------- learning

    def update(self, chunks: Sequence[Chunk]) -> None:
        """One step of Adam for every chunk, towards targets that were set before the first of them."""
        with torch.no_grad():
            whole = side_by_side(chunks)
            rows = whole.rows
            x, own = self._unrolled(whole)
            value = self.policy.answer(x, own)[1]
            ahead = self._values_ahead(whole, own, value)
            targets = value_targets(
                self.config.numbers, self.scale, rows.reward, value, ahead, rows.terminated, whole.over
            )
        for chunk, target in zip(chunks, targets.chunk(len(chunks), 1), strict=True):
            self._descend(chunk, target)
        if self.infers:
            goal = rows.obs[..., self.places.goal].flip(-2)
            self.metrics |= goal_measures(whole.kept["zeta"], goal, self.config.temperature)
            if bool(whole.over.any()):
                at_end = goal_measures(whole.kept["zeta"][whole.over], goal[whole.over], self.config.temperature)
                self.metrics |= {f"{name}_at_end": measure for name, measure in at_end.items()}

    def _unrolled(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Along the chunk, as oneself: what the layers say `(T, C, N, h)`, and what is remembered then."""
        obs, network = chunk.rows.obs, self.policy
        x = network.embed(
            network.read(obs[..., self.places.state]), obs[..., self.places.goal], chunk.kept["belief"]
        )  # fmt: skip
        own, steps = chunk.memory[0], []
        for now, begins in zip(x, chunk.first, strict=True):
            own = network.remember(now, own.masked_fill(begins[:, None, None], 0.0))
            steps.append(own)
        return x, torch.stack(steps)

    def _values_ahead(self, chunk: Chunk, own: Tensor, value: Tensor) -> Tensor:
        """Values `(T, C, N)` of what the steps ended in: those of the next steps, and where there is no next one, what
        is seen, believed and remembered then.

        Args:
            own: `(T, C, N, H)` what is remembered after each step. value: `(T, C, N)` of the steps.
        """
        rows, network = chunk.rows, self.policy
        ahead = torch.cat([value[1:], torch.zeros_like(value[:1])])
        cut = chunk.over.clone()
        cut[-1] = True
        cut &= ~rows.terminated.all(-1)
        if not bool(cut.any()):
            return ahead
        obs, then = rows.obs[cut], rows.next_obs[cut]
        zeta = own.new_zeros(len(obs), *self.places.goal.shape)
        if self.infers:
            flags = (rows.acting[cut], rows.legal[cut], torch.ones_like(rows.acting[cut][:, :1]))
            last = [obs, *(flag.to(zeta.dtype) for flag in flags)]
            zeta, _ = self._watch(chunk.kept["zeta"][cut], chunk.kept["other"][cut], last, then, self.rng)
        believed = self._believed(then, zeta, self.rng)
        read = network.read(then[:, self.places.state])
        ahead[cut] = network(read, then[:, self.places.goal], believed, own[cut])[1]
        return ahead

    def _descend(self, chunk: Chunk, target: Tensor) -> None:
        rows, own = chunk.rows, self.components
        x, memory = self._unrolled(chunk)
        parameters, value = self.policy.answer(x, memory)
        act, legal = self._apart(rows.act), self._legal(rows.legal)
        log_prob = heads.log_prob(own, parameters, act, legal)
        spread = entropy(own, parameters, legal, self.rng)
        loss, self.metrics = actor_critic_loss(self.config.numbers, log_prob, spread, value, target, rows.acting)
        if self.config.other == "predictor":
            told = heads.log_prob(own, self.policy.predict(x, memory), act.flip(-2), self._flipped(legal))
            others = rows.acting.flip(-1)
            wrong = -(told * others).sum() / others.sum().clamp_min(1)
            loss = loss + self.config.predictor_weight * wrong
            self.metrics["predictor_loss"] = wrong.detach()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.numbers.gradient_clip)
        self.optimiser.step()

    @staticmethod
    def _flipped(legal: Tensor | None) -> Tensor | None:
        return None if legal is None else legal.flip(-2)


def goal_measures(zeta: Tensor, goal: Tensor, temperature: float = 1.0) -> dict[str, Tensor]:
    """How well goals are inferred, each averaged over all rows: "goal_accuracy", how often the goal that is believed in
    most is the right one; "goal_surprise", -log of what the right one is believed in; "goal_entropy" of the belief. The
    last two are in nats. Where zeta is all alike, the first goal counts as believed in most.

    An agent that knows both goals to differ is right with one in K - 1 by chance.

    Args:
        zeta, goal: `(..., K)`, the latter one-hot.
    """
    believed = belief(zeta, temperature)
    right = believed.argmax(-1) == goal.argmax(-1)
    return {
        "goal_accuracy": right.to(zeta.dtype).mean(),
        "goal_surprise": -(believed.clamp_min(1e-30).log() * goal).sum(-1).mean(),
        "goal_entropy": torch.special.entr(believed).sum(-1).mean(),
    }


@dataclass(frozen=True, kw_only=True)
class GoalTrack:
    """How goals are inferred along an episode, in E episodes of both agents; by env steps before the moment."""

    returns: NDArray[np.float64]
    """(E,) of the team"""
    accuracy: NDArray[np.float64]
    """(T,) see `goal_measures`"""
    surprise: NDArray[np.float64]
    entropy: NDArray[np.float64]

    def __str__(self) -> str:
        """The return, and accuracies at the beginning, in the middle and at the end."""
        last = len(self.accuracy) - 1
        told = ", ".join(f"{self.accuracy[t]:.2f} at env step {t}" for t in sorted({0, last // 2, last}))
        return f"return {self.returns.mean():.2f}; goals right {told}"


@torch.no_grad()
def track_goals(learner: SOM, game: Game, seed: int, *, rng: torch.Generator | None = None) -> GoalTrack:
    """One episode of every copy of a game, played by both agents.

    Args:
        learner: one that infers. seed: of the game. rng: draws the actions; None: greedy ones.

    Raises:
        GameError: the learner infers no goals, or the game is another one than it was made for.
    """
    if not learner.infers or game.spec != learner.spec:
        raise GameError(
            f"goals are tracked of a learner with other='inferred' in its own game {learner.spec.name!r}; this one has "
            f"other={learner.config.other!r}, and the game is {game.spec.name!r}"
        )
    view, memory = game.reset(seed), learner.begin(game.copies)
    going = torch.ones(game.copies, dtype=torch.bool, device=view.obs.device)
    total, found = view.obs.new_zeros(game.copies), []
    while bool(going.any()):
        memory, act, kept = learner.act(memory, view, rng)
        goal = view.obs[:, learner.places.goal].flip(1)
        found.append(goal_measures(kept["zeta"][going], goal[going], learner.config.temperature))
        rows, view = game.step(act)
        total += rows.reward.mean(1) * going
        going &= ~(rows.truncated | rows.terminated.all(1))
    by_name = {name: np.array([float(step[f"goal_{name}"]) for step in found])
               for name in ("accuracy", "surprise", "entropy")}  # fmt: skip
    return GoalTrack(returns=total.double().cpu().numpy(), **by_name)
