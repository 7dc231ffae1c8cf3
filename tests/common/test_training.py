import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from mpe2 import simple_spread_v3

from presage.common import checkpoint
from presage.common.checkpoint import CheckpointError
from presage.common.circumstances import CircumstancesError
from presage.common.configuration import ConfigError
from presage.common.devices import DeviceError, choose_device
from presage.common.game import GameError
from presage.common.marl_eval import RANDOM, REFERENCE, read_evaluations
from presage.common.metrics import read_metrics
from presage.common.phases import PHASES
from presage.common.run import exit_code, resume, start, train
from presage.common.run_folder import SITTINGS_FILE, RunError, RunFolder
from presage.common.scenario import GameConfig
from tests.common.tiny_runs import (
    MBPO,
    MODEL_FREE,
    MPE,
    Interrupted,
    differences,
    final_state,
    interrupt,
    scenario,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    start(scenario(), folder)
    return folder


@pytest.fixture
def unconcluded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without their report, which is half of their time and not what these tests look at."""
    monkeypatch.setattr("presage.common.run.conclude", lambda training, folder: "a table")


# ------------------------------------------------------------------ one run


@pytest.mark.usefixtures("unconcluded")
def test_same_seed_gives_the_same_run(uninterrupted: Path, tmp_path: Path) -> None:
    start(scenario(), tmp_path / "again")
    assert differences(uninterrupted, tmp_path / "again") == []


@pytest.mark.usefixtures("unconcluded")
def test_another_seed_gives_another_run(uninterrupted: Path, tmp_path: Path) -> None:
    start(scenario(seed=1), tmp_path / "other")
    assert "metrics.jsonl" in differences(uninterrupted, tmp_path / "other")


@pytest.mark.usefixtures("unconcluded")
def test_watching_closer_and_saving_more_often_changes_nothing_that_is_learned(
    uninterrupted: Path, tmp_path: Path
) -> None:
    start(scenario(evaluate_every=8, checkpoint_every=12), tmp_path / "watched")
    ours, watched = (
        {name: value for name, value in final_state(folder).items() if name.startswith(("/learner/", "/replays/real"))}
        for folder in (uninterrupted, tmp_path / "watched")
    )
    tensors = [name for name, value in ours.items() if isinstance(value, torch.Tensor)]
    assert len(tensors) > 20
    assert all(torch.equal(ours[name].nan_to_num(), watched[name].nan_to_num()) for name in tensors)


def test_env_steps_of_evaluations_and_checkpoints(uninterrupted: Path) -> None:
    records = read_metrics(uninterrupted / "metrics.jsonl")
    assert [record["env_steps"] for record in records] == [0, 32, 64, 72]
    assert sorted(path.name for path in (uninterrupted / "checkpoints").iterdir()) == [
        "step_000000060", "step_000000072",
    ]  # fmt: skip


def test_metrics_say_what_was_measured(uninterrupted: Path) -> None:
    (result, *_) = read_evaluations(uninterrupted / "evaluation.json")
    records = read_metrics(uninterrupted / "metrics.jsonl")
    for record, (env_steps, episodes) in zip(records, result.evaluations, strict=True):
        assert record["env_steps"] == env_steps
        assert record["eval/mean_reward"] == pytest.approx(np.mean(episodes["return"]))
        assert len(episodes["return"]) == 4
        per_pair = [value for tag, value in record.items() if tag.startswith("rollout/opponent_queries/")]
        assert len(per_pair) == 2
        assert record["rollout/opponent_queries"] == sum(per_pair)
        assert {f"time/{phase}" for phase in PHASES} <= record.keys()
    last = records[-2]
    assert last["rollout/ep_len_mean"] == 5.0
    assert {"train/critic_loss/agent_0", "model/obs_rmse", "opponent/agent_1/error"} <= last.keys()


def test_evaluation_file_holds_the_levels_and_the_best_policy(tmp_path: Path) -> None:
    outcome = start(scenario(MODEL_FREE, reference="greedy_spread"), tmp_path / "run")
    results = {result.algorithm: result for result in read_evaluations(tmp_path / "run" / "evaluation.json")}
    assert results.keys() == {"masac", RANDOM, REFERENCE}
    assert len(results["masac"].absolute["return"]) == 40
    returns = {name: np.mean(result.evaluations[-1][1]["return"]) for name, result in results.items()}
    assert returns[REFERENCE] > returns[RANDOM]
    assert outcome.table == (tmp_path / "run" / "report" / "table.txt").read_text()
    assert all(name in outcome.table for name in results)


def test_only_files_of_kept_checkpoints_remain(uninterrupted: Path) -> None:
    needed = checkpoint.referenced(uninterrupted / "checkpoints")
    assert {path.resolve() for path in (uninterrupted / "replay").rglob("*") if path.is_file()} == needed
    assert len(needed) >= 2


def test_numbers_are_recorded_with_what_they_depend_on(uninterrupted: Path) -> None:
    (sitting,) = yaml.safe_load((uninterrupted / SITTINGS_FILE).read_text())
    assert sitting["from_env_step"] == 0
    assert (sitting["device"], sitting["threads"], sitting["copies"]) == (choose_device("auto").type, 1, 4)
    assert sitting["versions"]["torch"] == str(torch.__version__)
    assert RunFolder(uninterrupted).scenario() == scenario()


# ------------------------------------------------------------- interruptions


@pytest.mark.usefixtures("unconcluded")
@pytest.mark.parametrize(
    ("phase", "occurrence"),
    [("collection", 1), ("collection", 9), ("evaluation", 3), ("fit", 4), ("rollout", 3), ("update", 9),
     ("checkpoint", 2)],
)  # fmt: skip
def test_a_resumed_run_equals_the_uninterrupted_one(
    uninterrupted: Path, tmp_path: Path, phase: str, occurrence: int
) -> None:
    with pytest.raises(Interrupted):
        start(scenario(), tmp_path / "run", on_phase=interrupt(phase, occurrence))
    if (tmp_path / "run").exists():
        resume(tmp_path / "run")
    else:  # it came to no checkpoint
        start(scenario(), tmp_path / "run")
    assert differences(uninterrupted, tmp_path / "run") == []


@pytest.mark.usefixtures("unconcluded")
def test_an_environment_that_cannot_be_saved_resumes_exactly(tmp_path: Path) -> None:
    wanted = scenario(MODEL_FREE, MPE, evaluation_episodes=2, checkpoint_every=16)
    start(wanted, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(wanted, tmp_path / "run", on_phase=interrupt("checkpoint", 4))
    tree: Any = RunFolder(tmp_path / "run").newest()
    assert tree["game"]["lengths"] == [4, 4], "no episode was open"
    resume(tmp_path / "run")
    assert differences(tmp_path / "whole", tmp_path / "run") == []


@pytest.mark.usefixtures("unconcluded")
def test_a_run_killed_before_its_first_checkpoint_starts_over(uninterrupted: Path, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", scenario())
    (folder.path / "metrics.jsonl").write_text('{"env_steps": 0, "eval/mean_reward": 1.0}\n{"env_st')
    resume(folder.path)
    assert differences(uninterrupted, folder.path) == []


@pytest.mark.usefixtures("unconcluded")
def test_a_finished_run_can_be_given_more_steps(uninterrupted: Path, tmp_path: Path) -> None:
    start(scenario(steps=64), tmp_path / "run")
    resume(tmp_path / "run", steps=72)
    assert differences(uninterrupted, tmp_path / "run") == []
    assert RunFolder(tmp_path / "run").scenario().steps == 72
    with pytest.raises(RunError, match="steps=10 is less than the 72 env steps"):
        resume(tmp_path / "run", steps=10)


def test_sigterm_ends_the_step_saves_and_says_so(uninterrupted: Path, tmp_path: Path) -> None:
    phases: list[str] = []

    def terminate(phase: str) -> None:
        phases.append(phase)
        if phase == "fit" and phases.count("fit") == 1:  # a second signal would end the process at once
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    outcome = start(scenario(), tmp_path / "run", on_phase=terminate)
    assert (outcome.stopped_by, outcome.env_steps, outcome.table) == (signal.SIGTERM, 24, "")
    assert exit_code(outcome) == 143
    assert exit_code(replace(outcome, stopped_by=signal.SIGINT)) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()][-1:] == ["step_000000024"]
    resume(tmp_path / "run")
    assert differences(uninterrupted, tmp_path / "run") == []


KILLED = """
import sys
from presage.common.run import start
from tests.common.tiny_runs import scenario
start(scenario(), sys.argv[1], on_phase=lambda phase: print(phase, flush=True))
"""


def test_kill_minus_nine_loses_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as child:
        assert child.stdout is not None
        checkpoints = 0
        for line in child.stdout:
            checkpoints += line == "checkpoint\n"
            if checkpoints == 2 and line == "update\n":
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL
    resume(folder)
    assert differences(uninterrupted, folder) == []
    assert (folder / "evaluation.json").read_bytes() == (uninterrupted / "evaluation.json").read_bytes()


@pytest.mark.usefixtures("unconcluded")
def test_the_newest_intact_checkpoint_is_taken(uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        start(scenario(), tmp_path / "run", on_phase=interrupt("checkpoint", 4))
    newest = tmp_path / "run" / "checkpoints" / "step_000000060"
    (newest / "tensors.safetensors").write_bytes(b"\0" * 100)
    resume(tmp_path / "run")
    assert differences(uninterrupted, tmp_path / "run") == []


def test_a_run_without_an_intact_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        start(scenario(), tmp_path / "run", on_phase=interrupt("checkpoint", 2))
    (tmp_path / "run" / "checkpoints" / "step_000000020" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"every checkpoint of .* is damaged"):
        resume(tmp_path / "run")


# ------------------------------------------------------- other circumstances


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    with pytest.raises(Interrupted):
        start(scenario(MODEL_FREE), tmp_path / "run", on_phase=interrupt("checkpoint", 2))
    return tmp_path / "run"


@pytest.mark.usefixtures("unconcluded")
def test_other_threads_are_refused_unless_asked_for(interrupted: Path) -> None:
    before = torch.get_num_threads()
    said: list[str] = []
    torch.set_num_threads(before + 1)
    try:
        with pytest.raises(CircumstancesError, match=rf"threads {before} \(here {before + 1}\).*--anyway"):
            resume(interrupted)
        outcome = resume(interrupted, anyway=True, say=said.append)
    finally:
        torch.set_num_threads(before)
    assert outcome.env_steps == 72
    (sentence,) = said
    assert "other numbers" in sentence
    sittings = yaml.safe_load((interrupted / SITTINGS_FILE).read_text())
    assert sittings[-1]["differs"] == [f"threads {before} (here {before + 1})"]
    assert sittings[-1]["from_env_step"] == 20


@pytest.mark.usefixtures("unconcluded")
def test_threads_of_the_scenario_are_restored(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        with pytest.raises(Interrupted):
            start(scenario(MODEL_FREE, threads=2), tmp_path / "run", on_phase=interrupt("checkpoint", 2))
        torch.set_num_threads(1)
        assert resume(tmp_path / "run", steps=28).env_steps == 28
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_other_copies_are_refused_whatever_is_asked(interrupted: Path) -> None:
    path = interrupted / "config.yaml"
    path.write_text(path.read_text().replace("copies: 4", "copies: 2"))
    with pytest.raises(CircumstancesError, match=r"with 4 copies of the game, this is (cpu|cuda) with 2"):
        resume(interrupted, anyway=True)


# -------------------------------------------------------------------- folder


def test_a_folder_that_holds_anything_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        start(scenario(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (scenario(MBPO), GameError),
        (scenario(game=replace(MPE, name="mpe/simple_sprad_v3")), GameError),
        (scenario(reference="gready"), ConfigError),
        (scenario(device="cuda"), DeviceError),
    ],
)  # fmt: skip
def test_a_run_that_cannot_start_leaves_no_folder(tmp_path: Path, broken: Any, error: type[Exception]) -> None:
    if broken.device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(error):
        start(broken, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_processes_cannot_train_in_one_folder(interrupted: Path) -> None:
    with RunFolder(interrupted).locked(), pytest.raises(RunError, match="another process"):
        resume(interrupted)


# -------------------------------------------------------- one's own environment


class Drifting(gymnasium.Env[np.ndarray, np.ndarray]):
    """Two numbers that an action moves; with `faithful=False` its episodes do not play again."""

    observation_space = spaces.Box(-10.0, 10.0, (2,))
    action_space = spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, faithful: bool = True) -> None:
        self.faithful = faithful
        self.free = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.clock = 0
        self.place = self.np_random.uniform(-1, 1, 2)
        return self.place.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.clock += 1
        self.place = self.place + 0.1 * action + (0.0 if self.faithful else self.free.normal(size=2))
        return self.place.astype(np.float32), -float(np.abs(self.place).sum()), False, self.clock == 7, {}


OWN = GameConfig(copies=2)
NUMBERS: dict[str, Any] = {"steps": 72, "evaluate_every": 32, "checkpoint_every": 20, "evaluation_episodes": 1}


@pytest.mark.usefixtures("unconcluded")
def test_an_environment_object_serves_training_and_evaluation_at_once(tmp_path: Path) -> None:
    train(Drifting, MODEL_FREE, tmp_path / "class", **NUMBERS)
    train(Drifting(), MODEL_FREE, tmp_path / "object", **NUMBERS)
    assert differences(tmp_path / "class", tmp_path / "object") == []


def test_a_pettingzoo_function_is_trained_on(tmp_path: Path) -> None:
    outcome = train(simple_spread_v3.parallel_env, MODEL_FREE, tmp_path / "own", copies=2, **(NUMBERS | {"steps": 40}))
    assert outcome.env_steps == 40
    (result, level) = read_evaluations(tmp_path / "own" / "evaluation.json")
    assert (result.environment, result.task, result.algorithm) == ("own", "simple_spread_v3", "masac")
    assert level.algorithm == RANDOM


@pytest.mark.usefixtures("unconcluded")
def test_a_run_on_an_own_environment_resumes_with_it(tmp_path: Path) -> None:
    wanted = scenario(MBPO, OWN, evaluation_episodes=2)
    start(wanted, tmp_path / "whole", environment=Drifting)
    with pytest.raises(Interrupted):
        start(wanted, tmp_path / "run", environment=Drifting, on_phase=interrupt("rollout", 3))
    with pytest.raises(ConfigError, match="hand it over: environment="):
        resume(tmp_path / "run")
    resume(tmp_path / "run", environment=Drifting)
    assert differences(tmp_path / "whole", tmp_path / "run") == []


@pytest.mark.usefixtures("unconcluded")
def test_episodes_that_do_not_play_again_are_given_up_and_named(tmp_path: Path) -> None:
    wanted = scenario(MODEL_FREE, OWN, evaluation_episodes=2)
    unfaithful: Callable[[], Drifting] = lambda: Drifting(faithful=False)  # noqa: E731 - a factory, as users write it
    with pytest.raises(Interrupted):
        start(wanted, tmp_path / "run", environment=unfaithful, on_phase=interrupt("checkpoint", 2))
    said: list[str] = []
    outcome = resume(tmp_path / "run", environment=unfaithful, say=said.append)
    assert outcome.env_steps == 72
    assert "open episodes of copies [0, 1]" in said[0]
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert all(record.get("rollout/ep_len_mean", 7.0) == 7.0 for record in records)


def test_unknown_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="evaluate_evry"):
        train(Drifting, MODEL_FREE, tmp_path / "run", steps=10, evaluate_evry=5)


def test_evaluation_json_is_json(uninterrupted: Path) -> None:
    data = json.loads((uninterrupted / "evaluation.json").read_text())
    assert list(data) == ["particle"]
    assert list(data["particle"]) == ["spread (agents=2, episode_limit=5)"]
