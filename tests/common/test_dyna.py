"""`Dyna` with parts that keep a diary: what happens when, what a batch is made of, and where it must change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tianshou.algorithm.algorithm_base import OffPolicyAlgorithm, TrainingStats
from tianshou.data import Batch, Collector, CollectStats, ReplayBuffer, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor

from presage.common import checkpoint
from presage.common.answers import Answer
from presage.common.dyna import Dyna, DynaConfig
from presage.common.dynamics import EnsembleConfig
from presage.common.fit import FitConfig
from presage.common.game import ALL_AGENTS, Carry, Game, GameSpec, Kernel, Outcome, Rows, View, Window
from presage.common.joint_env import JointEnv
from presage.common.learner_state import learner_state, restore_learner
from presage.common.mbpo import MBPOConfig
from presage.common.method import Metrics
from presage.common.one_batch import rows_of_batch
from presage.common.policy import JointPolicy
from presage.common.random_state import global_random_state, restore_global_random_state
from presage.common.replay import Replay
from presage.common.sac import SACConfig, build_sac
from presage.common.schedules import LengthRamp
from presage.common.streams import streams
from presage.common.worlds import GivenWorld
from presage.envs.particle.game import ParticleGame
from presage.envs.particle.spread import Spread
from presage.envs.registry import make
from presage.marl.aorpo import AORPOConfig
from presage.marl.masac import MASACConfig
from presage.marl.opponents.behaviour_cloning import BehaviourCloningConfig
from tests.common.toy import PLAIN, LinearGame, assert_same_rows, box_agent, generator, random_rows

ONE = GameSpec(name="one", agents=(box_agent("a", (0, 1, 2), 2),), obs_dim=3, terminates=True)
TWO = GameSpec(name="two", agents=(box_agent("a", (0, 1), 2), box_agent("b", (1, 2), 1)), obs_dim=3)


def ramp(start: int, end: int = 0, epochs: int = 0) -> LengthRamp:
    return LengthRamp(start_epoch=0, end_epoch=epochs, start=start, end=end or start)


class Keeps(OffPolicyAlgorithm[JointPolicy]):
    """A learner that learns nothing and keeps its batches."""

    def __init__(self, spec: GameSpec) -> None:
        super().__init__(policy=JointPolicy(spec, (4,), generator(0), generator(1)))
        self.spec = spec
        self.batches: list[Rows] = []

    def _preprocess_batch(self, batch: Any, buffer: Any, indices: Any) -> Any:
        self.batches.append(rows_of_batch(self.spec, batch, "cpu"))
        return Batch()

    def _update_with_batch(self, batch: Any) -> TrainingStats:
        return TrainingStats()


class Marks(Kernel):
    """A world whose rewards are 1000 times the number of the imagining, plus the ego."""

    def __init__(self, spec: GameSpec) -> None:
        self.spec, self.imaginings = spec, 0

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        self.imaginings += 1
        return ego

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        reward = (1000.0 * self.imaginings + carry)[:, None].expand(-1, self.spec.n)
        return carry, Outcome(after=view, reward=reward, terminated=torch.zeros_like(reward, dtype=torch.bool))


class Diary:
    """A world and opponents that write down when they were fitted."""

    def __init__(self, spec: GameSpec) -> None:
        self.spec, self.kernel, self.fits = spec, Marks(spec), count(1)
        self.horizons: list[int] = []
        self.models = self

    def fit(self, replay: Replay, rng: torch.Generator) -> Metrics:
        return {"fits": float(next(self.fits))}

    def doubt(self, window: Window, act: Tensor) -> None:
        return None

    def table(self, horizon: int) -> Tensor:
        self.horizons.append(horizon)
        n = self.spec.n
        own = torch.eye(n, dtype=torch.bool)[:, :, None].expand(n, n, horizon)
        return torch.where(own, int(Answer.POLICY), int(Answer.MODEL)).to(torch.int8)

    def init(self, window: Window) -> Carry:
        return None

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        return None, torch.zeros(len(view), self.spec.act_dim)


def dyna_of(spec: GameSpec, config: DynaConfig, *, per_ego: bool = False) -> tuple[Dyna, Keeps, Diary]:
    learner, world, opponents = Keeps(spec), Diary(spec), Diary(spec)
    found = Dyna(
        spec, config, learner, learner.policy, streams(0), world=world, opponents=opponents if per_ego else None
    )  # fmt: skip
    return found, learner, world


def feed(dyna: Dyna, replay: Replay, seed: int) -> None:
    """One env step in every lane of `replay`."""
    rows = random_rows(dyna.spec, replay.lanes, generator(seed))
    replay.extend(rows)
    dyna.learn(replay, rows)


# -------------------------------------------------------------------- schedule


@settings(max_examples=20)
@given(
    st.integers(1, 5), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9),
    st.fractions(Fraction(1, 4), 2, max_denominator=6), st.booleans(),
)  # fmt: skip
def test_everything_happens_at_its_env_step_and_in_its_order(
    copies: int, warmup: int, fit_every: int, rollout_every: int, ratio: Fraction, per_ego: bool
) -> None:
    config = DynaConfig(
        batch_size=2, updates_per_step=float(ratio), warmup_steps=warmup, fit_every=fit_every,
        rollout_every=rollout_every, rollout_starts=1, horizon=ramp(1),
    )  # fmt: skip
    dyna, learner, world = dyna_of(TWO, config, per_ego=per_ego)
    events: list[tuple[int, str]] = []
    dyna.on_phase = lambda phase: events.append((dyna.env_steps, phase))
    replay = Replay(TWO, 100 * copies, copies)

    expected: list[tuple[int, str]] = []
    due = {"fit": warmup, "rollout": warmup}
    learning = made = 0
    for step in range(copies, 30 * copies + 1, copies):
        feed(dyna, replay, step)
        if step < warmup:
            continue
        learning += copies
        if step >= due["fit"]:
            expected.append((step, "fit"))
            due["fit"] = next(at for at in range(warmup, 10_000, fit_every) if at > step)
        if step >= due["rollout"]:
            expected += [(step, "fit")] * per_ego + [(step, "rollout")]
            due["rollout"] = next(at for at in range(warmup, 10_000, rollout_every) if at > step)
        owed = int(ratio * learning) - made
        made += owed
        expected += [(step, "update")] * owed
    assert events == expected
    assert (dyna.updates, len(learner.batches)) == (made, made)
    assert dyna.ledger.env_steps == dyna.env_steps == 30 * copies
    assert world.kernel.imaginings == sum(phase == "rollout" for _, phase in expected)


@pytest.mark.parametrize("ratio", ["1/10", "1/3", "2/7", "1", "7/3", "20"])
def test_the_ratio_of_updates_to_steps_is_exact_over_thousands_of_steps(
    ratio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = Fraction(ratio)
    dyna, _, _ = dyna_of(ONE, DynaConfig(updates_per_step=float(exact), warmup_steps=1, real_share=1))
    made = count()
    monkeypatch.setattr(dyna, "improve", lambda replay: next(made))
    rows, replay = random_rows(ONE, 1, generator(0)), Replay(ONE, 1, 1)
    for _ in range(4_000):
        dyna.learn(replay, rows)
    assert next(made) == int(4_000 * exact)


def test_the_horizon_follows_its_ramp_and_the_newest_imaginings_are_kept() -> None:
    config = DynaConfig(
        batch_size=2, warmup_steps=1, fit_every=5, rollout_every=5, rollout_starts=4, kept_rollouts=2, epoch_steps=10,
        horizon=ramp(1, 3, 4),
    )  # fmt: skip
    dyna, _, _ = dyna_of(TWO, config, per_ego=True)
    opponents, replay = dyna.opponents, Replay(TWO, 100, 1)
    assert isinstance(opponents, Diary)
    assert dyna.imagined is not None
    for step in range(1, 51):
        feed(dyna, replay, step)
    assert opponents.horizons == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]  # 1 + 2 epoch // 4, at env steps 1, 6, 11, ...
    assert dyna.metrics["model/rollout_len"] == 3.0
    assert dyna.imagined.filled == [4 * 3 * 2] * 2
    rewards = dyna.imagined.rows(dyna.imagined.all()).reward
    assert set(rewards.flatten().tolist()) == {9000.0, 9001.0, 10_000.0, 10_001.0}


def test_short_branches_leave_batches_no_older_than_long_ones_do() -> None:
    config = DynaConfig(
        batch_size=64, warmup_steps=1, fit_every=5, rollout_every=5, rollout_starts=4, kept_rollouts=2, epoch_steps=10,
        horizon=ramp(1, 3, 4), real_share=0.0,
    )  # fmt: skip
    dyna, _, _ = dyna_of(TWO, config, per_ego=True)
    replay = Replay(TWO, 100, 1)
    for step in range(1, 20):
        feed(dyna, replay, step)
    assert dyna.imagined is not None
    assert dyna.imagined.filled == [4 * 4] * 2, "four imaginings of one step"
    assert set(dyna.mix(replay).reward.flatten().tolist()) == {3000.0, 3001.0, 4000.0, 4001.0}


def test_metrics_of_fits_are_kept() -> None:
    dyna, _, _ = dyna_of(TWO, DynaConfig(batch_size=2, warmup_steps=2, fit_every=3, rollout_every=100, horizon=ramp(1)))
    replay = Replay(TWO, 100, 1)
    for step in range(1, 9):
        feed(dyna, replay, step)
    assert dyna.metrics == {"fits": 3.0, "model/rollout_len": 1.0}


def test_exploration_is_random_while_warming_up_and_the_policies_sample_after() -> None:
    dyna, learner, _ = dyna_of(PLAIN, DynaConfig(warmup_steps=4, rollout_starts=1, horizon=ramp(1)))
    view = View.of(PLAIN, torch.randn(2, 3, generator=generator(0)))
    act_rng, replay = streams(0)("act"), Replay(PLAIN, 8, 2)
    for _ in range(2):
        assert torch.equal(dyna.explore(view), PLAIN.random_action(view.acting, view.legal, act_rng))
        feed(dyna, replay, 1)
    for _ in range(2):
        assert torch.equal(dyna.explore(view), learner.policy.step(None, view, act_rng)[1])


# ----------------------------------------------------------------------- mixes


@pytest.mark.parametrize("per_ego", [False, True], ids=["for all", "per ego"])
@pytest.mark.parametrize(("share", "real"), [(0.0, 0), (0.05, 1), (0.5, 10), (0.99, 20)])
def test_a_mix_has_its_shares_of_real_and_of_each_egos_imagined_rows(per_ego: bool, share: float, real: int) -> None:
    config = DynaConfig(
        batch_size=20, updates_per_step=1, warmup_steps=3, real_share=share, fit_every=100, rollout_every=100,
        rollout_starts=5, horizon=ramp(2),
    )  # fmt: skip
    dyna, learner, _ = dyna_of(TWO, config, per_ego=per_ego)
    replay = Replay(TWO, 100, 1)
    for step in range(1, 9):
        feed(dyna, replay, step)
    assert len(learner.batches) == 6
    held = replay.rows(replay.all())
    for batch in learner.batches:
        own = batch[:real]
        assert own.ego.tolist() == [ALL_AGENTS] * real
        assert bool((own.obs[:, None] == held.obs[None]).all(2).any(1).all())
        rest = batch[real:]
        assert torch.equal(rest.reward, (1000.0 + rest.ego)[:, None].expand(-1, 2))
        egos = [0] * (20 - real) + [1] * (20 - real) if per_ego else [ALL_AGENTS] * (20 - real)
        assert rest.ego.tolist() == egos
    drawn = {tuple(batch.obs[:, 0].tolist()) for batch in learner.batches}
    assert len(drawn) == 6  # every update draws anew


def test_before_anything_was_imagined_batches_are_real() -> None:
    config = DynaConfig(
        batch_size=6, updates_per_step=1, warmup_steps=1, horizon=ramp(0, 1, 2), epoch_steps=2, rollout_every=2
    )
    dyna, learner, _ = dyna_of(TWO, config, per_ego=True)
    replay = Replay(TWO, 100, 1)
    for step in range(1, 4):
        feed(dyna, replay, step)
    assert [len(batch) for batch in learner.batches] == [6, 6, 6]
    assert all(bool((batch.ego == ALL_AGENTS).all()) for batch in learner.batches)


class Untouchable:
    """A world that must not be used."""

    @property
    def kernel(self) -> Kernel:
        raise AssertionError("the kernel was asked for")

    def fit(self, replay: Replay, rng: torch.Generator) -> Metrics:
        raise AssertionError("the world was fitted")

    def doubt(self, window: Window, act: Tensor) -> Tensor:
        raise AssertionError("the world was doubted")


def plain_buffer(rows: Rows) -> ReplayBuffer:
    """tianshou's own buffer with `rows` in order."""
    terminated, truncated = rows.terminated[:, 0].numpy(), rows.truncated.numpy()
    data: Any = {
        "obs": rows.obs.numpy(), "act": rows.act.numpy(), "rew": rows.reward[:, 0].double().numpy(),
        "terminated": terminated, "truncated": truncated, "done": terminated | truncated,
        "obs_next": rows.next_obs.numpy(),
    }  # fmt: skip
    return ReplayBuffer.from_data(**data)


def test_with_real_rows_alone_it_is_the_plain_learner_to_the_bit() -> None:
    config = DynaConfig(batch_size=8, updates_per_step=1, warmup_steps=10, real_share=1)
    sac = SACConfig(hidden=(8,), learning_rate=1e-2, lean=False)
    one, actor = build_sac(ONE, sac, generator(0))
    two, _ = build_sac(ONE, sac, generator(0))
    dyna = Dyna(ONE, config, one, actor, streams(5), world=Untouchable())
    assert dyna.imagined is None
    game, replay = LinearGame(ONE, limit=6, bound=0.8), Replay(ONE, 100, 1)
    view, held = game.reset(1), []
    for step in range(40):
        rows, view = game.step(dyna.explore(view))
        replay.extend(rows)
        held.append(rows)
        torch.manual_seed(step)
        dyna.learn(replay, rows)

    sample = streams(5)("sample")
    for step in range(9, 40):
        drawn = torch.randint(step + 1, (8,), generator=sample)
        batch = Rows(**{name: torch.cat([getattr(held[k], name) for k in drawn]) for name in vars(held[0])})
        torch.manual_seed(step)
        with policy_within_training_step(two.policy):
            two.update(plain_buffer(batch), 0)
    assert dyna.updates == 31
    for mine, other in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, other)


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"warmup_steps": 0}, {"fit_every": 0}, {"rollout_every": 0}, {"rollout_starts": 0},
        {"epoch_steps": 0}, {"kept_rollouts": 0}, {"replay_capacity": 0}, {"updates_per_step": 0.0},
        {"real_share": 1.5}, {"real_share": -0.1},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        DynaConfig(**wrong)


def test_imagining_needs_a_horizon_and_a_world() -> None:
    with pytest.raises(ValueError, match="needs a horizon >= 1"):
        DynaConfig(real_share=0.5, horizon=ramp(0))
    DynaConfig(real_share=1, horizon=ramp(0))
    learner = Keeps(ONE)
    with pytest.raises(ValueError, match=r"real_share=0\.5 imagines, but there is no world"):
        Dyna(ONE, DynaConfig(), learner, learner.policy, streams(0))


def test_learners_that_want_several_steps_are_refused() -> None:
    learner = Keeps(ONE)
    vars(learner)["n_step_return_horizon"] = 3
    with pytest.raises(ValueError, match="n_step_return_horizon=3 must be 1"):
        Dyna(ONE, DynaConfig(real_share=1), learner, learner.policy, streams(0))


# ---------------------------------------------------------------- real methods

LOOP = DynaConfig(
    batch_size=8, updates_per_step=0.5, warmup_steps=30, fit_every=25, rollout_every=10, rollout_starts=6,
    kept_rollouts=3, horizon=ramp(2), replay_capacity=1_000,
)  # fmt: skip
ENSEMBLE = EnsembleConfig(members=2, elites=1, hidden=(8,), outcome_hidden=(8,))
FIT = FitConfig(max_updates=6, evaluate_every=3, batch_size=16, holdout_stretch=5)
MBPO = MBPOConfig(sac=SACConfig(hidden=(8,), learning_rate=1e-2), loop=LOOP, ensemble=ENSEMBLE, fit=FIT)
AORPO = AORPOConfig(
    learner=MASACConfig(hidden=(8,)), loop=LOOP, ensemble=ENSEMBLE, fit=FIT,
    opponents=BehaviourCloningConfig(hidden=(8,), passes=2, window=60),
)  # fmt: skip
CPU = torch.device("cpu")


def train_under_tianshou(dyna: Dyna, game: Callable[[], Game], envs: int, reduce: bool) -> ReplayBuffer:
    """48 random env steps, then 64 by the policy in 4 collections with 8 updates each, all by tianshou's trainer."""
    train = DummyVectorEnv([lambda: JointEnv(game()) for _ in range(envs)])
    train.seed(3)
    buffer = VectorReplayBuffer(400, envs)
    collector: Collector[CollectStats] = Collector(dyna, train, buffer)
    collector.reset()
    collector.collect(n_step=48, random=True)
    mean: Callable[[np.ndarray], np.ndarray] | None = (lambda returns: returns.mean(-1)) if reduce else None
    dyna.run_training(
        OffPolicyTrainerParams(
            training_collector=collector, max_epochs=2, epoch_num_steps=32, collection_step_num_env_steps=16,
            update_step_num_gradient_steps_per_sample=0.5, batch_size=4, multi_agent_return_reduction=mean,
            verbose=False, show_progress=False,
        )
    )  # fmt: skip
    return buffer


def spread() -> Game:
    return ParticleGame(Spread(agents=2), 1, episode_limit=10)


def pendulum() -> Game:
    return make("gym/Pendulum-v1", 1)


@pytest.mark.parametrize(
    ("game", "method", "envs"), [(pendulum, MBPO, 1), (spread, AORPO, 2)], ids=["MBPO on Pendulum", "AORPO on Spread"]
)
def test_tianshous_trainer_runs_it_unchanged(
    game: Callable[[], Game], method: MBPOConfig | AORPOConfig, envs: int
) -> None:
    spec = game().spec
    torch.manual_seed(0)
    dyna = method.build(spec, streams(0), CPU)
    before = {name: value.detach().clone() for name, value in dyna.named_parameters()}
    buffer = train_under_tianshou(dyna, game, envs, reduce=spec.n > 1)
    assert (dyna.env_steps, dyna.updates) == (112, 32)
    assert dyna._reader is not None
    assert dyna.imagined is not None
    size = 112 // envs
    stored = buffer[np.r_[tuple(slice(k * 400 // envs, k * 400 // envs + size) for k in range(envs))]]
    replay = dyna._reader.replay
    real = replay.rows(replay.all())
    by_time = np.arange(112).reshape(envs, size).T.reshape(-1)
    assert torch.equal(real.obs, torch.from_numpy(stored.obs[by_time]))
    spec.check_action(real.act)
    imagined = dyna.imagined.rows(dyna.imagined.all())
    spec.check_action(imagined.act)
    # fits and imaginings are looked at once per collection: at 64, 80, 96 and 112 env steps
    assert dyna.imagined.totals == [4 * 6 * 2] * (spec.n if spec.n > 1 else 1)
    assert dyna.ledger.env_steps == 112
    for name, value in dyna.named_parameters():
        assert not torch.equal(value, before[name]) or ".lower" in name or ".upper" in name, name


def test_under_tianshou_nothing_is_updated_while_warming_up() -> None:
    dyna = MBPO.build(ONE, streams(0), CPU)
    dyna.config = replace(LOOP, warmup_steps=10_000)
    before = [value.detach().clone() for value in dyna.parameters()]
    train_under_tianshou(dyna, lambda: LinearGame(ONE), 1, reduce=False)
    assert (dyna.env_steps, dyna.updates) == (112, 0)
    assert all(torch.equal(old, new) for old, new in zip(before, dyna.parameters(), strict=True))


class Sitting:
    """A game, a method and its replay, played step by step; it can be saved and taken up again elsewhere."""

    def __init__(self, spec: GameSpec, method: MBPOConfig | AORPOConfig, seed: int) -> None:
        self.game = LinearGame(spec, limit=7, bound=0.8)
        self.dyna = method.build(spec, streams(seed), CPU)
        self.replay = Replay(spec, 50, 1, block_rows=16)
        self.view = self.game.reset(seed)

    def play(self, steps: int) -> None:
        for _ in range(steps):
            rows, self.view = self.game.step(self.dyna.explore(self.view))
            self.replay.extend(rows)
            self.dyna.learn(self.replay, rows)

    def replays(self) -> dict[str, Replay]:
        assert self.dyna.imagined is not None
        return {"real": self.replay, "imagined": self.dyna.imagined}

    def save(self, folder: Path) -> None:
        saved = {name: replay.save(folder / name) for name, replay in self.replays().items()}
        tree = {
            "learner": learner_state(self.dyna),
            "persistent": {name: part.state() for name, part in self.dyna.persistent.items()},
            "replays": saved,
            "game": self.game.state(),
            "random": global_random_state(),
        }
        files = [folder / name / file for name, replay in saved.items() for file in replay["files"]]
        checkpoint.save(folder / "step_000000001", tree, kind="test", version=1, external=files)

    def take_up(self, folder: Path) -> None:
        tree = checkpoint.load(folder / "step_000000001")
        restore_learner(self.dyna, tree["learner"])
        for name, part in self.dyna.persistent.items():
            part.restore(tree["persistent"][name])
        for name, replay in self.replays().items():
            replay.load(folder / name, tree["replays"][name])
        self.view = self.game.restore(tree["game"])
        restore_global_random_state(tree["random"])


@pytest.mark.parametrize(("spec", "method"), [(ONE, MBPO), (PLAIN, AORPO)], ids=["MBPO", "AORPO"])
@pytest.mark.parametrize("cut", [20, 63])
def test_going_on_from_a_checkpoint_equals_never_having_stopped(
    spec: GameSpec, method: MBPOConfig | AORPOConfig, cut: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole = Sitting(spec, method, 1)
    whole.play(cut)
    whole.save(tmp_path)
    whole.play(110 - cut)
    torch.manual_seed(9)
    resumed = Sitting(spec, method, 2)  # another seed: nothing may be left of it
    resumed.play(5)
    resumed.take_up(tmp_path)
    resumed.play(110 - cut)
    assert whole.dyna.updates == resumed.dyna.updates == 40
    assert whole.dyna.ledger.state() == resumed.dyna.ledger.state()
    before, after = (
        dict(sitting.dyna.named_parameters()) | dict(sitting.dyna.named_buffers()) for sitting in (whole, resumed)
    )
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    for name, replay in whole.replays().items():
        other = resumed.replays()[name]
        assert_same_rows(replay.rows(replay.all()), other.rows(other.all()))


def test_a_given_world_imagines_without_ever_being_fitted() -> None:
    learner = Keeps(TWO)
    dyna = Dyna(TWO, replace(LOOP, warmup_steps=5), learner, learner.policy, streams(0), world=GivenWorld(Marks(TWO)))
    replay = Replay(TWO, 50, 1)
    for step in range(1, 8):
        feed(dyna, replay, step)
    assert dyna.imagined is not None
    assert bool((dyna.imagined.rows(dyna.imagined.all()).reward == 1000 + ALL_AGENTS).all())
    assert dyna.imagined.totals == [6 * 2]
