from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mpe2 import simple_spread_v3

from presage.common.agent import Agent, load
from presage.common.game import AgentSpec, Carry, GameError, GameSpec, Head, View, Window, episode_seed
from presage.common.marl_eval import read_evaluations
from presage.common.run import start
from presage.common.run_folder import RunError, RunFolder
from tests.common.tiny_runs import MODEL_FREE, MPE, scenario


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    start(scenario(MODEL_FREE, MPE, evaluation_episodes=2), folder)
    return folder


def spread() -> Any:
    return simple_spread_v3.parallel_env(N=2, max_cycles=5)


def test_a_loaded_agent_plays_as_it_was_evaluated(run: Path) -> None:
    agent = load(run)
    env, returns = spread(), []
    for copy in range(2):  # the two copies' first episodes are the evaluation's
        observations, _ = env.reset(seed=episode_seed(scenario().evaluation_seed, copy, 0))
        total = 0.0
        while env.agents:
            observations, rewards, *_ = env.step(agent.act(observations))
            total += sum(rewards.values()) / 2
        returns.append(total)
    (result, *_) = read_evaluations(run / "evaluation.json")
    assert returns == pytest.approx(result.evaluations[-1][1]["return"], abs=1e-4)


def test_rows_of_observations_get_rows_of_actions(run: Path) -> None:
    agent = load(run)
    observations, _ = spread().reset(seed=0)
    rows = {name: np.stack([row, -row, row * 2]) for name, row in observations.items()}
    actions = agent.act(rows)
    assert {name: action.shape for name, action in actions.items()} == {"agent_0": (3,), "agent_1": (3,)}
    one_by_one = [agent.act({name: row[k] for name, row in rows.items()}) for k in range(3)]
    assert [{name: int(action[k]) for name, action in actions.items()} for k in range(3)] == one_by_one


def test_samples_differ_from_greedy_actions_and_repeat_with_their_seed(run: Path) -> None:
    observations, _ = spread().reset(seed=0)
    rows = {name: np.repeat(row[None], 200, 0) for name, row in observations.items()}
    first, again = (load(run, seed=5).act(rows, greedy=False) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in rows)
    assert len(np.unique(first["agent_0"])) > 1
    assert len(np.unique(load(run).act(rows)["agent_0"])) == 1


def test_agents_that_see_nothing_do_not_act(run: Path) -> None:
    observations, _ = spread().reset(seed=0)
    agent = load(run)
    both = agent.act(observations)
    assert agent.act({"agent_1": observations["agent_1"]}) == {"agent_1": both["agent_1"]}


def test_best_and_newest_policies_are_those_of_the_checkpoint(run: Path) -> None:
    tree = RunFolder(run).newest()
    assert tree is not None
    for which, wanted in (("newest", tree["policy"]), ("best", tree["best"]["policy"])):
        held = load(run, which=which).actor.state_dict()  # type: ignore[arg-type,attr-defined] # MASAC's is a module
        assert all(torch.equal(held[name].cpu(), value.cpu()) for name, value in wanted.items())


@pytest.mark.parametrize(
    ("observations", "sentence"),
    [
        ({}, "nobody observes anything"),
        ({"agent_9": np.zeros(12)}, "has no agent 'agent_9'"),
        ({"agent_0": np.zeros(5)}, r"agent 'agent_0' observes 12 numbers, or rows of them, got shape \(5,\)"),
        ({"agent_0": np.zeros((2, 12)), "agent_1": np.zeros((3, 12))}, r"equally many rows, got \[2, 3\]"),
        ({"agent_0": {"seen": np.zeros(12)}}, r"observes \['seen'\]"),
    ],
)
def test_observations_that_do_not_fit_are_named(run: Path, observations: Any, sentence: str) -> None:
    with pytest.raises(GameError, match=sentence):
        load(run).act(observations)


def test_a_run_without_a_checkpoint_cannot_act(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", scenario())
    with pytest.raises(RunError, match="has no checkpoint yet"):
        load(tmp_path / "run")
    with pytest.raises(RunError, match="is no run folder"):
        load(tmp_path)


class Echo:
    """Answers with what it was shown, counts steps, and remembers the first legal entries."""

    def __init__(self, spec: GameSpec) -> None:
        self.spec = spec
        self.views: list[View] = []
        self.starts = 0

    def init(self, window: Window) -> Carry:
        self.starts += 1
        return torch.zeros(len(window))

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, torch.Tensor]:
        self.views.append(view)
        return carry + 1, view.desired * 0.5


def box(name: str, obs: tuple[int, ...], goal: tuple[int, ...]) -> AgentSpec:
    return AgentSpec(
        name=name, obs=obs, heads=(Head(kind="box", size=2),), goal=goal, low=(0.0, 0.0), high=(4.0, 4.0), shape=(2,)
    )


def test_goals_and_achieved_goals_reach_their_slices() -> None:
    spec = GameSpec(
        name="reach", agents=(box("agent", (0, 1, 2, 3, 4), (0, 1)),), obs_dim=5, goal_dim=2, achieved=(3, 4)
    )
    echo = Echo(spec)
    agent = Agent(spec, echo, torch.device("cpu"), 0)
    shown = {"observation": [1.0, 2.0, 3.0], "achieved_goal": [4.0, 5.0], "desired_goal": [0.5, -1.0]}
    action = agent.act(shown)
    view = echo.views[0]
    assert view.obs.tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]
    assert view.achieved.tolist() == [[4.0, 5.0]]
    assert view.desired.tolist() == [[0.5, -1.0]]
    assert action == pytest.approx([2.5, 1.0])  # 0.25 and -0.5 of [-1, 1] in the environment's [0, 4]


def test_an_agent_that_remembers_starts_afresh_when_told() -> None:
    spec = GameSpec(name="walk", agents=(box("agent", (0, 1), (0, 1)),), obs_dim=2, goal_dim=2, achieved=(0, 1))
    echo = Echo(spec)
    agent = Agent(spec, echo, torch.device("cpu"), 0)
    for _ in range(3):
        agent.act(np.zeros(2))
    assert echo.starts == 1
    agent.reset()
    agent.act(np.zeros(2))
    assert echo.starts == 2


def test_action_masks_reach_their_slice() -> None:
    head = Head(kind="discrete", size=3)
    agents = tuple(AgentSpec(name=f"player_{i}", obs=(i,), heads=(head,)) for i in range(2))
    spec = GameSpec(name="board", agents=agents, obs_dim=2, legal_varies=True, acting_varies=True)

    class First(Echo):
        def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, torch.Tensor]:
            self.views.append(view)
            return carry, spec.random_action(view.acting, view.legal, torch.Generator().manual_seed(0))

    first = First(spec)
    actions = Agent(spec, first, torch.device("cpu"), 0).act(
        {"player_1": {"observation": np.array([7.0]), "action_mask": np.array([0, 0, 1], dtype=np.int8)}}
    )
    assert actions == {"player_1": 2}
    assert first.views[0].legal.tolist() == [[True, True, True, False, False, True]]
    assert first.views[0].acting.tolist() == [[False, True]]
    assert first.views[0].obs.tolist() == [[0.0, 7.0]]
