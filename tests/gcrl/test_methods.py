"""HER and MapGo as methods: what they relabel and imagine, what they reduce to, and runs that stop at any instant."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tianshou.data import ReplayBuffer

from presage.common.agent import load
from presage.common.ddpg import DDPGConfig
from presage.common.dqn import DQNConfig
from presage.common.dyna import Dyna, DynaConfig
from presage.common.game import GameError, GameSpec, Rows
from presage.common.mbpo import MBPOConfig
from presage.common.metrics import METRICS_FILE, read_metrics
from presage.common.parts import Parts
from presage.common.progress import Progress
from presage.common.relabel import Pooled
from presage.common.run import start, train
from presage.common.sac import SACConfig
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from presage.common.training import Training
from presage.envs.batched import BatchedGame
from presage.envs.goal_rules import DistanceRule
from presage.envs.toy.bit_flip import BitFlip
from presage.envs.toy.plane import World2D
from presage.gcrl.foresight import Foresight, ForesightConfig
from presage.gcrl.goals.choice import GoalsConfig
from presage.gcrl.goals.goal_gan import GoalGANConfig
from presage.gcrl.goals.hindsight_goals import HindsightGoalsConfig
from presage.gcrl.goals.intermediate import IntermediateConfig
from presage.gcrl.goals.maximum_entropy import MaximumEntropyConfig
from presage.gcrl.goals.pursuit import Pursuit
from presage.gcrl.goals.subgoals import ForeseenSubgoalsConfig, SubgoalSearch
from presage.gcrl.her import HERConfig
from presage.gcrl.hindsight import Hindsight, Shares
from presage.gcrl.learners import GoalLearnerConfig, value_of
from presage.gcrl.mapgo import MapGoConfig
from presage.gcrl.relabelling import RelabellingConfig
from tests.common.tiny_runs import ENSEMBLE, FIT, LOOP, assert_resumes, played, scenario
from tests.common.toy import LinearGame, box_agent

CPU, RULE = torch.device("cpu"), DistanceRule(threshold=0.15)
LINE = GameSpec(name="line", agents=(box_agent("a", (0, 1), 1),), obs_dim=2)
SMALL = GoalLearnerConfig(
    ddpg=DDPGConfig(hidden=(8,), target_every=2), sac=SACConfig(hidden=(8,)), dqn=DQNConfig(hidden=(8,), target_every=2)
)
HER = HERConfig(learner=SMALL, loop=replace(LOOP, real_share=1.0))
NEAR = ForesightConfig(length=4)
MAPGO = MapGoConfig(learner=SMALL, loop=LOOP, ensemble=ENSEMBLE, fit=FIT, relabelling=RelabellingConfig(foresight=NEAR))
POOLED = replace(MAPGO, relabelling=RelabellingConfig(foresight=NEAR, pool=30, pool_updates=3))
WORLD = GameConfig(name="toy/world_2d", copies=4, options={"episode_limit": 6, "spread": True})
SOURCES: dict[str, GoalsConfig] = {
    "uniform": GoalsConfig(source="uniform", low=(0.0, 0.0), high=(3.0, 3.0), wander=0.3),
    "achieved": GoalsConfig(source="achieved"),
    "mega": GoalsConfig(source="maximum_entropy", learn_every=12, maximum_entropy=MaximumEntropyConfig(
        candidates=5, fitted=20, remembered=9, judged=3, annealed=True)),
    "intermediate": GoalsConfig(source="intermediate", learn_every=12, intermediate=IntermediateConfig(
        candidates=5, hidden=(8,), steps=3, batch_size=4)),
    "goal_gan": GoalsConfig(source="goal_gan", low=(0.0, 0.0), high=(3.0, 3.0), learn_every=12, goal_gan=GoalGANConfig(
        generator_hidden=(8,), discriminator_hidden=(8,), steps=3, batch_size=4, goals=4, tries=2, first=20,
        least_positive=1)),
    "hindsight": GoalsConfig(source="hindsight", reach=30.0, learn_every=12, hindsight=HindsightGoalsConfig(
        pool=6, matched=5, noise=0.1)),
}  # fmt: skip
SUBGOALS = GoalsConfig(source="subgoals", subgoals=ForeseenSubgoalsConfig(
    search=SubgoalSearch(population=6, elites=3, iterations=2), length=2, pool=10))  # fmt: skip
BITS = GameConfig(name="toy/bit_flip", copies=4, options={"bits": 5})


def built(method: Any, rules: World2D) -> Dyna:
    found: Dyna = method.build(rules.spec, streams(0), CPU, None, rules.goal_rule)
    return found


def test_hindsight_gives_real_rows_their_goals() -> None:
    rules = World2D(episode_limit=6, spread=True)
    dyna = built(HER, rules)
    replay = played(dyna, BatchedGame(rules, 4), 40)
    assert isinstance(dyna.relabel, Hindsight)
    rows: Rows = dyna.mix(replay)
    stored = replay.rows(replay.all()).desired
    own = (rows.desired[:, None] == stored[None]).all(2).any(1)
    assert int((~own).sum()) in (6, 7)  # four of five of eight
    assert torch.equal(rows.reward, RULE.reward(rows.next_achieved, rows.desired))
    assert dyna.world is None
    assert dyna.updates == 5


@pytest.mark.parametrize(
    ("changes", "imagines", "relabels"),
    [
        ({}, True, Foresight),
        ({"loop": replace(LOOP, real_share=1.0)}, False, Foresight),
        ({"relabelling": RelabellingConfig(source="hindsight")}, True, Hindsight),
        (
            {"relabelling": RelabellingConfig(source="hindsight"), "loop": replace(LOOP, real_share=1.0)},
            False,
            Hindsight,
        ),
        ({"relabelling": RelabellingConfig(source="none")}, True, type(None)),
        ({"relabelling": RelabellingConfig(pool=20, pool_updates=2)}, True, Pooled),
        ({"relabelling": RelabellingConfig(branch_hindsight=0.5)}, True, Foresight),
    ],
)
def test_foresight_and_imagined_rows_can_be_had_apart(changes: Any, imagines: bool, relabels: type) -> None:
    rules = World2D(episode_limit=6, spread=True)
    dyna = built(replace(MAPGO, **changes), rules)
    replay = played(dyna, BatchedGame(rules, 4), 60)
    assert isinstance(dyna.relabel, relabels)
    assert (dyna.imagined is not None and len(dyna.imagined) > 0) == imagines
    fitted = imagines or relabels is Foresight
    assert any(name.startswith("model/") for name in dyna.metrics) == fitted
    rows = dyna.mix(replay)
    assert torch.equal(rows.reward, RULE.reward(rows.next_achieved, rows.desired))
    if dyna.imagined is not None:
        rows = dyna.imagined.rows(dyna.imagined.all())
        assert torch.equal(rows.reward, RULE.reward(rows.next_achieved, rows.desired))
        reached = float((rows.desired == rows.next_achieved).all(1).double().mean())
        assert (reached > 0.3) == (dyna.branch_relabel is not None)
    assert ("goal/foreseen_share" in dyna.losses()) == (relabels in (Foresight, Pooled))


def test_branches_pursue_outcomes_and_own_goals_and_are_paid_for_them() -> None:
    rules = World2D(episode_limit=6, spread=True)
    loop = replace(LOOP, rollout_starts=40, rollout_every=60, kept_rollouts=1)
    dyna = built(replace(MAPGO, loop=loop), rules)
    replay = played(dyna, BatchedGame(rules, 4), 24)
    assert dyna.imagined is not None
    rows = dyna.imagined.rows(dyna.imagined.all())
    assert len(rows) == 80
    stored = replay.rows(replay.all())
    own = (rows.desired[:, None] == stored.desired[None]).all(2).any(1)
    outcomes = (rows.desired[:, None] == stored.next_achieved[None]).all(2).any(1)
    assert (own | outcomes).all()
    assert int(own[:40].sum()) == 8
    assert torch.equal(rows.reward, RULE.reward(rows.next_achieved, rows.desired))
    first, second = rows[:40], rows[40:]
    assert torch.equal(first.desired, second.desired)
    assert torch.equal(first.next_obs, second.obs)


def test_one_agent_without_goals_is_mbpo_to_the_bit() -> None:
    spec = LINE

    def found(method: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        game = LinearGame(spec, copies=2, limit=5)
        dyna = method.build(spec, streams(0), CPU)
        played(dyna, game, 60)
        return [*dyna.policy.parameters(), *dyna.world.ensemble.parameters()]

    sac = SACConfig(hidden=(8,))
    learner = replace(SMALL, algorithm="sac", sac=sac)
    ours = found(MapGoConfig(learner=learner, loop=LOOP, ensemble=ENSEMBLE, fit=FIT))
    theirs = found(MBPOConfig(sac=sac, loop=LOOP, ensemble=ENSEMBLE, fit=FIT))
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("method", "game"),
    [
        (HER, WORLD), (MAPGO, WORLD), (POOLED, WORLD),
        (replace(HER, learner=replace(SMALL, algorithm="sac")), WORLD),
        (replace(HER, learner=replace(SMALL, algorithm="dqn")), BITS),
        (replace(HER, learner=replace(SMALL, ddpg=DDPGConfig(hidden=(8,), twin=True))), WORLD),
        *((replace(HER, goals=goals), WORLD) for goals in SOURCES.values()),
        (replace(MAPGO, goals=SUBGOALS), WORLD),
    ],
    ids=["her", "mapgo", "pool", "sac", "dqn", "td3", *SOURCES, "subgoals"],
)  # fmt: skip
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, method: Any, game: GameConfig) -> None:
    whole = assert_resumes(scenario(method, game), tmp_path)
    last = read_metrics(whole / METRICS_FILE)[-1]
    assert {"eval/success_rate", "eval/success_once_rate", "eval/goal_distance"} <= last.keys()
    assert ("goal/pursued_success_rate" in last) == (method.goals.source != "game")
    obs = {"observation": torch.zeros(2), "achieved_goal": torch.zeros(2), "desired_goal": torch.ones(2)}
    if game is WORLD:
        assert load(whole).act({name: value.numpy() for name, value in obs.items()}).shape == (2,)


def test_a_pool_is_drawn_from_so_many_times() -> None:
    rules = World2D(episode_limit=6, spread=True)
    dyna = built(POOLED, rules)
    replay = played(dyna, BatchedGame(rules, 4), 24)
    pool = dyna.relabel
    assert isinstance(pool, Pooled)
    pools = []
    for _ in range(7):
        dyna.mix(replay)
        pools.append(pool.pool)  # held, so that no later one takes its place in memory
    assert len({id(one) for one in pools}) in (3, 4)
    with pytest.raises(ValueError, match="size=0 and batches=3"):
        Pooled(Hindsight(rules.spec, RULE), 0, 3)


def test_the_papers_numbers_are_at_hand() -> None:
    her, mapgo = HERConfig.paper(length=100), MapGoConfig.paper()
    assert her.learner.ddpg.discount == 0.99
    assert her.learner.ddpg.targets.low == pytest.approx(-100.0)
    assert her.loop.updates_per_step * 38 * 100 == pytest.approx(her.learner.ddpg.target_every)  # targets: once a cycle
    assert (her.loop.batch_size, her.shares) == (4_864, Shares(keep=0.2, future=0.8))
    assert (mapgo.loop.batch_size * mapgo.loop.real_share, mapgo.loop.updates_per_step) == (12, 10)
    assert mapgo.relabelling.branch_hindsight == 0
    for method in (her, mapgo):
        few = replace(method, loop=replace(method.loop, warmup_steps=100, batch_size=16, updates_per_step=0.1))
        if isinstance(few, MapGoConfig):
            few = replace(few, fit=replace(few.fit, max_updates=3), loop=replace(few.loop, rollout_starts=20))
        dyna = built(few, World2D(episode_limit=6, spread=True))
        played(dyna, BatchedGame(World2D(episode_limit=6, spread=True), 4), 124)
        assert dyna.updates == 2


def test_what_does_not_suit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loop.real_share=0\.5 must be 1"):
        HERConfig(loop=DynaConfig(real_share=0.5))
    with pytest.raises(GameError, match="'line' has no goals to look back for"):
        HERConfig().build(LINE, streams(0), CPU)
    with pytest.raises(ValueError, match="source='all' must be one of 'foresight'"):
        RelabellingConfig(source="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pool=-1 must be >= 0"):
        RelabellingConfig(pool=-1)
    with pytest.raises(ValueError, match="branch_hindsight=2 must lie in"):
        RelabellingConfig(branch_hindsight=2)
    rules = World2D()
    with pytest.raises(ValueError, match="source='foresight' needs a world to look ahead in"):
        RelabellingConfig().build(rules.spec, rules.goal_rule, built(HER, rules).actor, None, CPU)
    with pytest.raises(ValueError, match="algorithm='ppo' must be"):
        GoalLearnerConfig(algorithm="ppo")  # type: ignore[arg-type]
    with pytest.raises(GameError, match="offers no true dynamics"):
        MapGoConfig(model="true").build(World2D().spec, streams(0), CPU)
    with pytest.raises(ValueError, match="source='subgoals' needs a model"):
        built(replace(HER, goals=SUBGOALS), World2D())
    with pytest.raises(GameError, match="must have 2 numbers, as many as a goal has"):
        built(replace(HER, goals=GoalsConfig(source="uniform", low=(0.0,), high=(1.0,))), World2D())
    with pytest.raises(ValueError, match=r"needs a box of goals: low=\(\) and high=\(\)"):
        GoalsConfig(source="goal_gan")
    with pytest.raises(ValueError, match="source='maze' must be one of 'game'"):
        GoalsConfig(source="maze")  # type: ignore[arg-type]
    with pytest.raises(GameError, match="this game has none"):
        value_of(*SMALL.build(LINE, streams(0), CPU))


@pytest.mark.parametrize("algorithm", ["ddpg", "td3", "sac", "dqn"])
def test_the_value_of_a_goal_is_the_critics_of_the_greedy_action(algorithm: str) -> None:
    twin = algorithm == "td3"
    chosen: Any = "ddpg" if twin else algorithm
    learner = replace(SMALL, algorithm=chosen, normalise=False, ddpg=DDPGConfig(hidden=(8,), twin=twin))
    rules = BitFlip(bits=3) if algorithm == "dqn" else World2D()
    algo, actor = learner.build(rules.spec, streams(0), CPU)
    view = BatchedGame(rules, 5).reset(0)
    goals = torch.rand(5, rules.spec.goal_dim, generator=torch.Generator().manual_seed(1))
    found = value_of(algo, actor)(view, goals)
    both = torch.cat([view.obs, goals], 1)
    inner: Any = algo.learner
    with torch.no_grad():
        if algorithm == "dqn":
            wanted = inner.policy.model(both)[0].amax(1)
        else:
            act = actor.step(None, replace(view, desired=goals), None)[1]
            wanted = inner.critic(both, act)[:, 0]
            if algorithm != "ddpg":
                wanted = torch.minimum(wanted, inner.critic2(both, act)[:, 0])
    torch.testing.assert_close(found, wanted)


def test_evaluations_keep_the_games_own_goals(tmp_path: Path) -> None:
    far = GoalsConfig(source="uniform", low=(19.0, 19.0), high=(20.0, 20.0))
    tiny = scenario(replace(HER, goals=far), replace(WORLD, options={"episode_limit": 6}), steps=24)
    training = Training(tiny, Parts.of(tiny))
    training.progress = Progress(24, stream=io.StringIO())
    while not training.finished:
        training.step()
    stored = training.replay.rows(training.replay.all())
    assert bool((stored.desired >= 19.0).all())
    assert bool((training.view.desired <= 18.5).all())
    found = training._play()
    assert isinstance(training.trainee.pursuit, Pursuit)
    training.trainee.pursuit = None
    assert training._play().per_episode() == found.per_episode()
    training.close()


def test_a_source_of_goals_is_refused_under_tianshous_trainer() -> None:
    dyna = built(replace(HER, goals=SOURCES["achieved"]), World2D())
    with pytest.raises(RuntimeError, match="leave it out under tianshou's"):
        dyna.update(ReplayBuffer(4), 2)


def test_the_report_of_a_run_shows_goals_and_success(tmp_path: Path) -> None:
    start(scenario(HER, WORLD), tmp_path / "run")
    folder = tmp_path / "run" / "report"
    found = json.loads((folder / "goals.json").read_text())
    assert found["pursuits"] == 12
    page = (folder / "index.md").read_text()
    assert "](goals.png)" in page
    assert "](success.png)" in page


class Slider(gymnasium.Env[Any, Any]):
    """A goal environment of one's own, which holds its rule."""

    goal_rule = DistanceRule(threshold=0.2)
    observation_space = gymnasium.spaces.Dict(
        {key: gymnasium.spaces.Box(-2, 2, (1,)) for key in ("observation", "achieved_goal", "desired_goal")}
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.place, self.goal, self.time = np.zeros(1, dtype=np.float32), self.np_random.uniform(-1, 1, 1), 0
        return self.shown(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        self.place, self.time = np.clip(self.place + action, -2, 2), self.time + 1
        reward = float(abs(self.place - self.goal)[0] <= 0.2) - 1.0
        return self.shown(), reward, False, self.time == 6, {}

    def shown(self) -> Any:
        parts: dict[str, Any] = {"observation": np.zeros(1), "achieved_goal": self.place, "desired_goal": self.goal}
        return {name: part.astype(np.float32) for name, part in parts.items()}


def test_a_goal_environment_of_ones_own_says_what_its_goals_are_worth(tmp_path: Path) -> None:
    train(Slider, HER, tmp_path / "run", steps=48, copies=4, evaluation_episodes=4, options={"terminates": False})
    last = read_metrics(tmp_path / "run" / METRICS_FILE)[-1]
    assert "eval/success_rate" in last
    assert json.loads((tmp_path / "run" / "report" / "goals.json").read_text())["pursuits"] == 8

    class Silent(Slider):
        goal_rule = None  # type: ignore[assignment]

    with pytest.raises(GameError, match="has goals, and how they are paid for is not known"):
        train(Silent, HER, tmp_path / "other", steps=48)
