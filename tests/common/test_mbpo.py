"""MBPO, and AORPO with one agent, against a plain loop over lists that shares no machinery with `Dyna`.

The loop below keeps rows in Python lists, branches with loops of its own, and feeds tianshou's learner from tianshou's
own buffer. It shares the networks, their fitter and the world's kernel with `presage`, and draws from the same streams
in the same order, so that every parameter has to come out the same to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm
from tianshou.data import ReplayBuffer
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor

from presage.common.dyna import Dyna, DynaConfig
from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import Actor, Game, GameError, GameSpec, Kernel, Outcome, Rows, View, Window
from presage.common.mbpo import MBPOConfig
from presage.common.propagation import EnsembleKernel, Propagation
from presage.common.replay import Replay
from presage.common.sac import SACConfig, build_sac
from presage.common.schedules import LengthRamp
from presage.common.streams import streams
from presage.common.worlds import GivenWorld, LearnedWorld
from presage.envs.registry import make
from presage.marl.aorpo import AORPOConfig
from presage.marl.masac import MASAC, MASACConfig
from tests.common.toy import LinearGame, box_agent

CPU = torch.device("cpu")
ONE = GameSpec(name="one", agents=(box_agent("a", (0, 1, 2), 2),), obs_dim=3, terminates=True)

ENSEMBLE = EnsembleConfig(members=3, elites=2, hidden=(8,), outcome_hidden=(8,))
FIT = FitConfig(max_updates=9, evaluate_every=3, batch_size=16, holdout_stretch=5)
LOOP = DynaConfig(
    batch_size=12, updates_per_step=0.75, warmup_steps=40, real_share=0.25, fit_every=35, rollout_every=10,
    rollout_starts=8, kept_rollouts=4, horizon=LengthRamp(start_epoch=1, end_epoch=4, start=1, end=3), epoch_steps=30,
    replay_capacity=120,
)  # fmt: skip
STEPS = 170
SAC = SACConfig(hidden=(8,), learning_rate=3e-3, lean=False)  # the loop feeds it from a buffer of tianshou's
MULTI = MASACConfig(hidden=(8,), learning_rate=3e-3)


@dataclass
class Row:
    """One transition."""

    obs: Tensor
    act: Tensor
    reward: float
    next_obs: Tensor
    terminated: bool
    truncated: bool
    step: int


class Ring(list[Row]):
    """A list that, once full, overwrites its oldest rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.added = most, 0

    def add(self, row: Row) -> None:
        if len(self) < self.most:
            self.append(row)
        else:
            self[self.added % self.most] = row
        self.added += 1

    def oldest_first(self) -> list[Row]:
        turn = self.added % len(self) if self.added > len(self) else 0
        return [*self[turn:], *self[:turn]]


def flag(value: bool) -> Tensor:
    return torch.tensor([[value]])


def rows_for_the_fitter(spec: GameSpec, rows: list[Row]) -> Rows:
    return Rows.of(
        spec,
        View.of(spec, torch.stack([row.obs for row in rows])),
        torch.stack([row.act for row in rows]),
        torch.tensor([[row.reward] for row in rows]),
        View.of(spec, torch.stack([row.next_obs for row in rows])),
        torch.cat([flag(row.terminated) for row in rows]),
        torch.tensor([row.truncated for row in rows]),
        torch.tensor([row.step for row in rows]),
    )


def plain_mbpo(
    game: Game, config: DynaConfig, learner: OffPolicyAlgorithm[Any], actor: Actor, seed: int, kernel: Kernel | None
) -> None:
    """MBPO (Janner et al. 2019, algorithm 2) for one agent on one copy of a game; the learner is improved in place.

    Args:
        kernel: the world; a learned one when None.
    """
    spec, stream = game.spec, streams(seed)
    fitter = None
    if kernel is None:
        ensemble = DynamicsEnsemble(spec, ENSEMBLE, stream("ensemble"))
        fitter, kernel = EnsembleFitter(ensemble, FIT, stream("holdout")), EnsembleKernel(ensemble)
    act_rng, fit_rng, imagine_rng, sample_rng = (stream(name) for name in ("act", "fit", "imagine", "sample"))
    longest = config.horizon.end
    real, imagined = Ring(config.replay_capacity), Ring(config.rollout_starts * longest * config.kept_rollouts)
    pool: list[Row] = []
    view, updates, first_step = game.reset(seed), 0, config.warmup_steps
    for step in range(1, STEPS + 1):
        if step <= first_step:
            act = torch.rand(1, spec.act_dim, generator=act_rng) * 2 - 1
        else:
            act = actor.step(None, view, act_rng)[1]
        made, view = game.step(act)
        real.add(
            Row(made.obs[0], made.act[0], float(made.reward), made.next_obs[0], bool(made.terminated),
                bool(made.truncated), int(made.step))
        )  # fmt: skip
        if step < first_step:
            continue
        if (step - first_step) % config.fit_every == 0 and fitter is not None:
            fitter.fit(rows_for_the_fitter(spec, real.oldest_first()), fit_rng, first=real.added - len(real))
        if (step - first_step) % config.rollout_every == 0:
            length = branch(spec, kernel, actor, real, imagined, config, step, imagine_rng)
            pool = imagined.oldest_first()[-config.rollout_starts * length * config.kept_rollouts :]
        while updates < int(config.updates_per_step * (step - first_step + 1)):
            updates += 1
            count = round(config.real_share * config.batch_size)
            # imagined rows are drawn first, by a share of the pool's length
            shares = torch.rand(1, config.batch_size - count, generator=sample_rng, dtype=torch.float64)[0]
            dreams = [pool[int(share * len(pool))] for share in shares]
            facts = [real[int(k)] for k in torch.randint(len(real), (count,), generator=sample_rng)]
            update(learner, [*facts, *dreams])


def branch(
    spec: GameSpec, kernel: Kernel, actor: Actor, real: Ring, imagined: Ring, config: DynaConfig, step: int,
    rng: torch.Generator,
) -> int:  # fmt: skip
    """Imagine from real states until the horizon, which is returned, or the end of the episode, row after row."""
    ramp, epoch = config.horizon, step // config.epoch_steps
    share = min(max((epoch - ramp.start_epoch) / (ramp.end_epoch - ramp.start_epoch), 0), 1)
    starts = [real[int(k)] for k in torch.randint(len(real), (config.rollout_starts,), generator=rng)]
    obs = torch.stack([row.obs for row in starts])
    window = Window(
        obs=obs[:, None], act=torch.zeros(len(obs), 1, spec.act_dim), valid=torch.ones(len(obs), 1, dtype=torch.bool),
        now=View.of(spec, obs),
    )  # fmt: skip
    carry = kernel.init(window, torch.full((len(obs),), -1), rng)
    over = [False] * len(obs)
    length = int(ramp.start + share * (ramp.end - ramp.start) + 1e-9)
    for u in range(length):
        act = actor.step(None, View.of(spec, obs), rng)[1]
        carry, outcome = kernel.step(carry, View.of(spec, obs), act, rng)
        for k in range(len(obs)):
            if not over[k]:
                over[k] = bool(outcome.terminated[k])
                imagined.add(
                    Row(obs[k], act[k], float(outcome.reward[k]), outcome.after.obs[k], over[k], False, u)
                )  # fmt: skip
        obs = outcome.after.obs
    return length


def update(learner: OffPolicyAlgorithm[Any], rows: list[Row]) -> None:
    """One update from tianshou's own buffer, which holds these rows and is read in their order."""
    data: Any = {
        "obs": torch.stack([row.obs for row in rows]).numpy(),
        "act": torch.stack([row.act for row in rows]).numpy(),
        "rew": np.array([row.reward for row in rows]),
        "terminated": np.array([row.terminated for row in rows]),
        "truncated": np.array([row.truncated for row in rows]),
        "done": np.array([row.terminated or row.truncated for row in rows]),
        "obs_next": torch.stack([row.next_obs for row in rows]).numpy(),
    }
    buffer = ReplayBuffer.from_data(**data)
    with policy_within_training_step(learner.policy):
        learner.update(buffer, 0)


def play(dyna: Dyna, game: Game, seed: int) -> None:
    """presage's own loop."""
    replay = Replay(game.spec, dyna.config.replay_capacity, 1)
    view = game.reset(seed)
    for _ in range(STEPS):
        rows, view = game.step(dyna.explore(view))
        replay.extend(rows)
        dyna.learn(replay, rows)


def assert_same_learner(one: OffPolicyAlgorithm[Any], two: OffPolicyAlgorithm[Any]) -> None:
    pairs = list(zip(one.named_parameters(), two.named_parameters(), strict=True))
    assert pairs
    for (name, mine), (_, other) in pairs:
        assert torch.equal(mine, other), name


class Truth:
    """The linear game's own dynamics as a world, with an end where the game has one."""

    def __init__(self, game: LinearGame) -> None:
        self.game = game

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> None:
        return None

    def step(self, carry: None, view: View, act: Tensor, rng: torch.Generator) -> tuple[None, Outcome]:
        after, reward, over = self.game.predict(view.obs, act)
        return None, Outcome(after=View.of(self.game.spec, after), reward=reward, terminated=over[:, None])


def pendulum() -> Game:
    return make("gym/Pendulum-v1", 1)


def linear() -> LinearGame:
    return LinearGame(ONE, limit=9, bound=0.8)


@pytest.mark.parametrize(("game", "seed"), [(pendulum, 0), (linear, 1)], ids=["Pendulum", "linear game"])
def test_it_is_the_plain_loop_to_the_bit(game: Any, seed: int) -> None:
    spec = game().spec
    torch.manual_seed(seed)
    method = MBPOConfig(sac=SAC, loop=LOOP, ensemble=ENSEMBLE, fit=FIT)
    dyna = method.build(spec, streams(seed), CPU)
    start = [value.detach().clone() for value in dyna.learner.parameters()]
    play(dyna, game(), seed)

    torch.manual_seed(seed)
    learner, actor = build_sac(spec, SAC, streams(seed)("learner"))
    assert all(torch.equal(one, two) for one, two in zip(start, learner.parameters(), strict=True))
    plain_mbpo(game(), LOOP, learner, actor, seed, None)
    assert_same_learner(dyna.learner, learner)
    assert all(not torch.equal(one, two) for one, two in zip(start, learner.parameters(), strict=True))
    assert dyna.updates == int(0.75 * (STEPS - 39))


def test_with_the_true_dynamics_it_is_the_plain_loop_to_the_bit() -> None:
    method = MBPOConfig(sac=SAC, loop=LOOP, model="true")
    torch.manual_seed(0)
    dyna = method.build(ONE, streams(0), CPU, Truth(linear()))
    assert isinstance(dyna.world, GivenWorld)
    play(dyna, linear(), 0)
    torch.manual_seed(0)
    learner, actor = build_sac(ONE, SAC, streams(0)("learner"))
    plain_mbpo(linear(), LOOP, learner, actor, 0, Truth(linear()))
    assert_same_learner(dyna.learner, learner)


def test_aorpo_with_one_agent_is_the_plain_loop_to_the_bit() -> None:
    dyna = AORPOConfig(learner=MULTI, loop=LOOP, ensemble=ENSEMBLE, fit=FIT).build(ONE, streams(0), CPU)
    assert dyna.opponents is None
    play(dyna, linear(), 0)
    learner = MASAC(ONE, MULTI, streams(0)("learner"), streams(0)("update"))
    plain_mbpo(linear(), LOOP, learner, learner.policy, 0, None)
    assert_same_learner(dyna.learner, learner)
    assert dyna.ledger.opponent_queries == dyna.ledger.opponent_samples == 0


def test_aorpo_with_one_agent_over_tianshous_sac_is_the_plain_loop_to_the_bit() -> None:
    torch.manual_seed(0)
    sac = build_sac(ONE, SAC, streams(0)("learner"))
    dyna = AORPOConfig(loop=LOOP, ensemble=ENSEMBLE, fit=FIT).build(ONE, streams(0), CPU, single=sac)
    play(dyna, linear(), 0)
    torch.manual_seed(0)
    learner, actor = build_sac(ONE, SAC, streams(0)("learner"))
    plain_mbpo(linear(), LOOP, learner, actor, 0, None)
    assert_same_learner(dyna.learner, learner)


def test_one_learner_for_several_agents_is_refused() -> None:
    two = replace(ONE, agents=(ONE.agents[0], replace(ONE.agents[0], name="second")))
    with pytest.raises(GameError, match="2 agents"):
        AORPOConfig(loop=LOOP).build(two, streams(0), CPU, single=build_sac(ONE, SAC, streams(0)("learner")))


def test_the_true_dynamics_are_refused_where_there_are_none() -> None:
    with pytest.raises(GameError, match="model='ensemble'"):
        MBPOConfig(sac=SAC, loop=LOOP, model="true").build(ONE, streams(0), CPU)


def test_without_imagination_it_is_sac_with_no_world() -> None:
    method = MBPOConfig(sac=SAC, loop=replace(LOOP, real_share=1), model="true")
    dyna = method.build(ONE, streams(0), CPU)
    assert (dyna.world, dyna.imagined) == (None, None)


def test_weights_are_drawn_on_the_cpu_whatever_the_device() -> None:
    asked: dict[str, Any] = {}

    def note(name: str, device: torch.device | str | None = None) -> torch.Generator:
        asked[name] = device
        return streams(0)(name, device)

    MBPOConfig(sac=SAC, loop=LOOP, ensemble=ENSEMBLE, fit=FIT).build(ONE, note, CPU)
    assert {name: device for name, device in asked.items() if device is not None} == {
        "learner": "cpu",
        "ensemble": "cpu",
    }


# ---------------------------------------------------------------- the paper's numbers


def test_variants_of_the_ensemble_and_of_the_propagation_are_reached_from_the_configuration() -> None:
    variants: list[tuple[EnsembleConfig, Propagation]] = [
        (replace(ENSEMBLE, noise="none"), "mixture"),
        (replace(ENSEMBLE, lipschitz=2.0, linear_skip=False), "fixed"),
    ]
    for ensemble, propagation in variants:
        method = MBPOConfig(sac=SAC, loop=LOOP, ensemble=ensemble, fit=FIT, propagation=propagation)
        torch.manual_seed(0)
        dyna = method.build(ONE, streams(0), CPU)
        play(dyna, LinearGame(ONE), 0)
        assert dyna.updates > 0
        world = dyna.world
        assert isinstance(world, LearnedWorld)
        assert isinstance(world.kernel, EnsembleKernel)
        assert world.kernel.propagation == propagation
        assert world.ensemble.config == ensemble
    with pytest.raises(ValueError, match="particles=None must be >= 2"):
        MBPOConfig(sac=SAC, loop=LOOP, ensemble=ENSEMBLE, fit=FIT, propagation="moments").build(ONE, streams(0), CPU)


def test_the_papers_branches_grow_and_its_pool_keeps_an_epoch() -> None:
    hopper, cheetah, humanoid = (MBPOConfig.paper(body) for body in ("Hopper", "HalfCheetah", "Humanoid"))
    ramp = hopper.loop.horizon
    assert [ramp.at(epoch, 1) for epoch in (0, 20, 85, 150, 300)] == [1, 1, 8, 15, 15]
    assert hopper.loop.rollout_starts * hopper.loop.kept_rollouts == 400_000
    assert (cheetah.loop.updates_per_step, cheetah.sac.target_entropy) == (40, -3.0)
    assert humanoid.loop.kept_rollouts == 5
    assert round((1 - hopper.loop.real_share) * hopper.loop.batch_size) == 243
    assert MBPOConfig.paper("InvertedPendulum").loop.epoch_steps == 250
