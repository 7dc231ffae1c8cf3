"""`presage opponents` from what is typed to what lies on disk, and every refusal in one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from presage.common.cli import main
from presage.common.run import start
from presage.common.scenario import CONFIG_FILE, OWN_GAME, GameConfig
from presage.marl.opponents import fitting
from presage.marl.opponents.assessment import assess
from presage.marl.opponents.behaviour_cloning import BehaviourCloningConfig
from presage.marl.opponents.sources import from_policy, from_run, read
from tests.common.tiny_runs import MODEL_FREE, scenario
from tests.marl.opponents.test_archive import arrays

SMALL = ["--model.hidden", "8", "--model.passes", "2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three agents, and one of two."""
    folder = tmp_path_factory.mktemp("runs")
    for name, agents in (("spread", 3), ("smaller", 2)):
        game = GameConfig(name="particle/spread", copies=4, options={"agents": agents, "episode_limit": 5})
        start(scenario(MODEL_FREE, game, steps=40), folder / name)
    return folder


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The code, and what was printed."""
    capsys.readouterr()
    code = main(["opponents", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def write_archive(name: str = "mine.npz", **changed: Any) -> str:
    np.savez(name, **(arrays() | {"lengths": [1] * 6} | changed))
    return name


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fitt"], 2, "no command of presage opponents is called 'fitt'; did you mean 'fit'?"),
        (["fit"], 2, "Missing"),
        (["fit", "nowhere"], 1, "'nowhere' is no run"),
        (["fit", "mine.npz", "--famly", "frequencies"], 2, "did you mean --family"),
        (["fit", "mine.npz", "--family", "frequency"], 2, "invalid choice 'frequency'"),
        (["fit", "mine.npz", "--family=counts"], 2, "invalid choice 'counts'"),
        (["fit", "mine.npz", "--family"], 2, "--family"),
        (["fit", "mine.npz", "--model.members", "0"], 2, "members=0"),
        (["fit", "mine.npz", "--model.members", "few"], 2, "--model.members: invalid literal for int"),
        (["fit", "mine.npz", "--family", "frequencies", "--model.members", "3"], 2, "--model.members"),
        (["fit", "mine.npz", "--family", "history_cloning", "--model.length", "0"], 2, "length=0 must be >= 1"),
        (["fit", "mine.npz", "--held", "1"], 2, "held=1.0 must lie in (0, 1)"),
        (["fit", "mine.npz", "--episodes", "0"], 2, "episodes=0 must be >= 1"),
        (["fit", "mine.npz", "--ego", "four"], 1, "has no agent 'four'; its agents are one, two, three"),
        (["fit", "mine.npz", "--by", "who"], 1, "a split by who needs at least two of them, got 1"),
        (["fit", "mine.npz", "--rows", "replay"], 1, "rows='replay' and greedy=False are of runs, and mine.npz"),
        (["fit", "mine.npz"], 1, "at least 10 rows to fit"),
        (["fit", "mine.npz", "--out", "."], 1, ". is not an empty folder; choose another with --out"),
        (["fit", "short.npz"], 1, "a split by episode needs at least two of them, got 1"),
        (["fit", "bad.npz"], 1, "bad.npz: lengths must be >= 1 and sum to the moments"),
        (["fit", "."], 1, ". is a folder of neither a run (config.yaml) nor a Minari dataset"),
        (["evaluate", "nowhere", "mine.npz"], 1, "nowhere holds no opponent model (model.json)"),
        (["evaluate", "nowhere"], 2, "RUN-OR-DATA"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_sentence(
    arguments: list[str], code: int, sentence: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_archive()
    write_archive("short.npz", lengths=[6])
    write_archive("bad.npz", lengths=[6, 1])
    before = sorted(elsewhere.iterdir())
    found, out, err = run(arguments, capsys)
    said = [line for line in err.splitlines() if line.startswith("presage: ")]
    assert (found, out) == (code, "")
    assert len(said) == 1, err
    assert sentence in said[0]
    assert "Traceback" not in err
    assert sorted(elsewhere.iterdir()) == before, "nothing is left behind"


def test_a_folder_of_runs_names_them(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(["fit", str(runs)], capsys)
    assert code == 1
    assert f"{runs} holds 2 runs; name one of them: {runs / 'smaller'}, {runs / 'spread'}" in said


def test_fit_keeps_a_model_of_a_runs_agents_and_tells_how_good_it_is(
    runs: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", str(runs / "spread"), "--episodes", "12", "--seed", "3", "--ego", "agent_1", *SMALL]
    code, out, err = run(arguments, capsys)
    folder = elsewhere / "opponents" / "behaviour_cloning" / "seed_3"
    assert code == 0
    head, *table, last = out.splitlines()
    assert head == "behaviour_cloning on spread, moments: 40 fitted, 10 watched, 10 judged"
    assert [line.split()[:2] for line in table] == [
        ["ego", "agent"], ["agent_1", "agent_0"], ["agent_1", "agent_2"],
    ]  # fmt: skip
    assert "–" not in out, "the run's policies are known"
    assert last == "model: opponents/behaviour_cloning/seed_3"
    assert err == "behaviour_cloning on spread: 60 moments of 12 episodes\n"
    about = json.loads((folder / "model.json").read_text())
    assert (about["family"], about["ego"]) == ("behaviour_cloning", "agent_1")
    assert about["about"]["command"].startswith("presage opponents fit ")
    record, truth = from_policy(runs / "spread", 12, 3)
    config = fitting.FAMILIES["behaviour_cloning"]
    assert isinstance(config, BehaviourCloningConfig)
    config = BehaviourCloningConfig(hidden=(8,), passes=2, window=config.window, patience=config.patience)
    again = fitting.fit(record, config, ego="agent_1", seed=3, truth=truth)
    assert str(again.assessment).splitlines() == table
    assert fitting.load(folder).config == config
    taken = "presage: opponents/behaviour_cloning/seed_3 holds a model already; choose another with --out, or remove it"
    assert run(arguments, capsys)[::2] == (1, f"{taken}\n")


@pytest.mark.parametrize("family", fitting.FAMILIES)
def test_every_family_is_fitted_and_judged_by_other_data(
    family: str, runs: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--model.updates", "2", "--model.length", "3"]
    numbers = {"behaviour_cloning": SMALL, "history_cloning": short, "liam": short}
    data = str(runs / "spread")
    arguments = ["fit", data, "--family", family, "--out", "a/model", "--episodes", "12", *numbers.get(family, [])]
    assert run(arguments, capsys)[0] == 0
    code, out, err = run(["evaluate", "a/model", data, "--episodes", "8", "--seed", "5", "--out", "judged"], capsys)
    assert (code, err) == (0, "")
    head, *table, last = out.splitlines()
    record, truth = from_policy(data, 8, 5)
    wanted = assess(fitting.load("a/model"), record, truth=truth)
    assert head == f"{family} on spread, moments: 40 judged"
    assert table == str(wanted).splitlines()
    assert last == "assessment: judged"
    assert json.loads((elsewhere / "judged" / "opponents.json").read_text()) == wanted.to_plain()
    assert (elsewhere / "judged" / "opponents.png").stat().st_size > 1_000
    code, _, err = run(["evaluate", "a/model", data, "--out", "judged"], capsys)
    assert (code, "judged is not an empty folder" in err) == (1, True)


def test_data_that_was_fitted_to_is_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, _ = from_policy(runs / "spread", 12, 3)
    record.save("seen.npz")
    assert run(["fit", "seen.npz", "--family", "frequencies", "--out", "model"], capsys)[0] == 0
    for data, told in (("seen.npz", True), (str(runs / "spread"), False)):
        code, _, err = run(["evaluate", "model", data], capsys)
        assert (code, "was fitted to most of these moments" in err) == (0, told)


def test_data_of_another_game_is_refused_with_what_differs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_archive()
    wider = np.zeros((6, 5))
    write_archive("wider.npz", **{"observations/two": wider})
    write_archive("more.npz", **{"choices/one": 4})
    assert run(["fit", "mine.npz", "--family", "frequencies", "--out", "model"], capsys)[0] == 0
    for data, sentence in {
        str(runs / "spread"): "agents agent_0, agent_1, agent_2 instead of one, two, three; give data of the same game",
        "wider.npz": "agent 'two': 5 observed numbers instead of 4",
        "more.npz": "agent 'one': heads=",
    }.items():
        code, out, err = run(["evaluate", "model", data], capsys)
        assert (code, out) == (1, "")
        assert f"is of another game than model: {sentence}" in err


def test_a_runs_rows_are_played_anew_or_those_of_its_replay(runs: Path) -> None:
    replay, truth = read(runs / "spread", rows="replay")
    assert truth is None
    assert torch.equal(replay.moments().act, from_run(runs / "spread").moments().act)
    played, truth = read(runs / "spread", episodes=8, seed=1)
    assert truth is not None
    assert len(played) == 40
    assert played.spec == replay.spec
    with torch.no_grad():
        log_p = truth(played.moments().view).log_prob(played.moments().act)
    assert float(log_p.mean()) > -1.7, "of five choices"
    greedy, truth = read(runs / "spread", episodes=8, seed=1, greedy=True)
    assert truth is None
    again, _ = read(runs / "spread", episodes=8, seed=1, greedy=True)
    assert torch.equal(greedy.moments().act, again.moments().act)
    assert not torch.equal(greedy.moments().act, played.moments().act)


def test_a_run_on_an_environment_without_a_name_has_its_replay(
    runs: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "spread", "mine")
    config = elsewhere / "mine" / CONFIG_FILE
    config.write_text(config.read_text().replace("particle/spread", OWN_GAME))
    code, _, err = run(["fit", "mine"], capsys)
    assert (code, "environment without a name" in err, "take rows='replay'" in err) == (1, True, True)
    assert run(["fit", "mine", "--rows", "replay", *SMALL], capsys)[0] == 0


def test_help_needs_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        code, out, _ = run(arguments, capsys)
        assert code == 0
        assert all(f"  {command} " in out for command in ("fit", "evaluate"))
    with pytest.raises(SystemExit) as stopped:
        main(["opponents", "fit", "--family", "history_cloning", "--help"])
    assert not stopped.value.code
    assert "--model.length" in capsys.readouterr().out
    listed = "import sys; from presage.common.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "  opponents  models of the other agents" in done.stdout
