import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Any

import pytest

from presage.common import plugins
from presage.common.cli import COMMANDS, GROUP, main
from presage.common.run import start
from presage.common.run_folder import RunError, RunFolder
from presage.common.scenario import CONFIG_FILE, GameConfig, Scenario
from tests.common.tiny_runs import AORPO, MBPO, MODEL_FREE, scenario

ROOT = Path(__file__).resolve().parents[2]

SCENARIOS: dict[str, Scenario[Any]] = {
    "tiny": scenario(AORPO, description="a tiny run"),
    "tiny_free": scenario(MODEL_FREE),
    "tiny_mbpo": scenario(MBPO),
    "tiny_plain": scenario(MODEL_FREE, GameConfig(name="particle/spread")),
}


class Ours(EntryPoint):
    """A scenario of this file under its name."""

    def load(self) -> Scenario[Any]:
        return SCENARIOS[self.name]


OURS: dict[str, EntryPoint] = {
    name: Ours(name, f"tests.common.test_cli:{name}", "presage.scenarios") for name in (*SCENARIOS, "demo")
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and scenarios that are over in a second."""
    installed = plugins._installed

    def with_ours(kind: plugins.Kind) -> dict[str, EntryPoint]:
        return OURS if kind == "scenario" else installed(kind)

    monkeypatch.setattr(plugins, "_installed", with_ours)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The code, and what was printed."""
    capsys.readouterr()
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["trian"], 2, "no command is called 'trian'; did you mean 'train'?"),
        (["train"], 2, "name the scenario first: presage train SCENARIO"),
        (["train", "tinny"], 2, "no scenario is called 'tinny'; did you mean 'tiny'"),
        (["train", "tiny", "--method.loop.batch-sze", "3"], 2, "did you mean --method.loop.batch-size"),
        (["train", "tiny", "--method.loop.batch-size", "many"], 2, "--method.loop.batch-size: invalid literal for int"),
        (["train", "tiny", "--method.loop.batch-size", "0"], 2, "method.loop: batch_size=0 must be >= 1"),
        (["train", "tiny", "--method.rule", "guess"], 2, "invalid choice 'guess'"),
        (["train", "tiny", "--steps", "0"], 2, "steps=0 must be >= 1"),
        (["train", "tiny", "--seed", "1000000007"], 2, "is the evaluation_seed too"),
        (["train", "tiny", "--game.workers", "5"], 2, "game.workers=5 must lie in 0..game.copies=4"),
        (["train", "tiny_free", "--method.loop.real-share", "0.5"], 2, "real_share=0.5 must be 1"),
        (["train", "tiny_mbpo"], 1, "takes one agent with box actions"),
        (["train", "tiny", "--method.model", "true"], 1, "offers no true dynamics"),
        (["train", "tiny", "--game.name", "particle/spred"], 1, "did you mean 'particle/spread'"),
        (["train", "tiny_plain", "--game.options", "wings", "3"], 1, "takes no option ['wings']"),
        (["train", "tiny", "--evaluation-episodes", "0"], 2, "evaluation_episodes=0 must be >= 1"),
        (["resume"], 2, "Missing"),
        (["resume", "nowhere"], 1, "nowhere is no run folder: it does not exist"),
        (["evaluate", "nowhere"], 1, "nowhere is no run folder"),
        (["plot"], 1, "name at least one run folder"),
        (["plot", "nowhere"], 1, "nowhere holds no evaluation.json"),
        (["list", "robots"], 2, "invalid choice 'robots'"),
        (["doctor", "--fix"], 2, "takes no options"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_sentence(
    arguments: list[str], code: int, sentence: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = run(arguments, capsys)
    assert (found, out) == (code, "")
    assert sentence in err
    assert len(err.splitlines()) == 1, err
    assert list(elsewhere.iterdir()) == []


def test_numbers_that_fail_once_there_are_rows_leave_no_folder(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(["train", "tiny", "--method.loop.warmup-steps", "1"], capsys)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("presage: learning fails at env step 4: 4 rows are too few")
    assert "Traceback" not in err
    assert list(elsewhere.iterdir()) == []


def test_train_writes_a_run_and_prints_its_table(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "tiny_free", "--steps", "28", "--seed", "3", "--method.learner.learning-rate", "0.01"]
    code, out, err = run(arguments, capsys)
    folder = elsewhere / "runs" / "tiny_free" / "seed_3"
    assert code == 0
    assert out == (folder / "report" / "table.txt").read_text() + "report: runs/tiny_free/seed_3/report/index.html\n"
    assert "28/28 env steps" in err
    wanted = replace(SCENARIOS["tiny_free"], steps=28, seed=3)
    learner = replace(MODEL_FREE.learner, learning_rate=0.01)
    assert RunFolder(folder).scenario() == replace(wanted, method=replace(MODEL_FREE, learner=learner))
    assert "presage train tiny_free --steps 28" in (folder / "sittings.yaml").read_text()
    assert run(arguments, capsys)[::2] == (
        1,
        "presage: the run folder runs/tiny_free/seed_3 is not empty (resume it with: presage resume "
        "runs/tiny_free/seed_3); choose another with --folder\n",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    start(scenario(MODEL_FREE, steps=28), folder)
    return folder


def test_resume_goes_on_to_the_report(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["resume", str(finished)], capsys)
    assert code == 0
    assert out.startswith((finished / "report" / "table.txt").read_text())


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(scenario(MODEL_FREE, steps=28), tmp_path / "run")
    for manifest in (tmp_path / "run" / "checkpoints").rglob("manifest.json"):
        manifest.write_text("{}")
    code, out, err = run(["resume", "run"], capsys)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("presage: every checkpoint of run is damaged")
    assert "Traceback" not in err


def test_evaluate_prints_returns_with_intervals(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["evaluate", str(finished), "--episodes", "6", "--seed", "5"], capsys)
    head, columns, *rows = out.splitlines()
    assert code == 0
    assert head == "masac on particle/spread at env step 28, 6 episodes"
    assert columns.split() == ["mean", "[95", "%", "interval]"]
    names = [row.rsplit("  ", 1)[0].strip() for row in rows]
    assert names == ["return", "return of agent_0", "return of agent_1", "length"]
    assert rows[-1].endswith("5.00 [5.00, 5.00]")
    assert run(["evaluate", str(finished), "--episodes", "6", "--seed", "5"], capsys)[1] == out
    assert run(["evaluate", str(finished), "--episodes", "6", "--seed", "6"], capsys)[1] != out


@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_a_folder_of_runs_is_told_from_a_run(command: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {0: "a run; name it: task/seed_0", 1: "2 runs; name one of them: task/seed_0, task/seed_1"}
    for seed, several in told.items():
        run_folder = elsewhere / "task" / f"seed_{seed}"
        run_folder.mkdir(parents=True)
        (run_folder / CONFIG_FILE).touch()
        code, _, said = run([command, "task"], capsys)
        assert code == 1
        assert said == f"presage: task holds {several}\n"


def test_plot_writes_a_page_of_several_runs(
    finished: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(scenario(MODEL_FREE, steps=28, seed=1), elsewhere / "other")
    code, out, _ = run(["plot", str(finished), "other", "--out", "page"], capsys)
    assert code == 0
    assert "2 seeds" in out
    assert {"curves.png", "index.html", "index.md", "table.txt"} <= {path.name for path in Path("page").iterdir()}


def test_list_names_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(["list"], capsys)[1].splitlines()
    assert [line.split() for line in lines if line.startswith("tiny ")] == [["tiny", "a", "tiny", "run"]]
    assert "demo        (cannot be loaded: KeyError: 'demo')" in lines
    assert "aorpo" in run(["list", "methods"], capsys)[1]
    assert "mpe/simple_spread_v3" in run(["list", "games", "--names-only"], capsys)[1].splitlines()
    assert run(["list", "games", "--names-only", "--matching", "toy/cl*"], capsys)[1] == "toy/climb\n"


def test_list_describes_games(capsys: pytest.CaptureFixture[str]) -> None:
    described = run(["list", "games", "--matching", "[pt]*/[bt]*[gp]"], capsys)[1].splitlines()
    assert described[0].split()[:2] == ["game", "agents"]
    tag, flip = (line.split() for line in described[1:])
    assert tag == ["particle/tag", "3", "adversary,", "agent", "16,", "14", "Discrete(5)", "0", "1", "yes"]
    assert flip == ["toy/bit_flip", "agent", "8", "Discrete(8)", "8", "1", "yes"]
    assert run(["list", "games", "--matching", "mpe/simple_spread*"], capsys)[1].splitlines()[1].endswith("no")
    code, _, error = run(["list", "games", "--matching", "nothing"], capsys)
    assert (code, "no name of games is like 'nothing'" in error) == (1, True)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], capsys)[1] == f"presage {version('presage')}\n"
    for arguments in ([], ["--help"]):
        code, out, _ = run(arguments, capsys)
        assert code == 0
        assert all(f"  {command} " in out for command in COMMANDS)
    assert "tiny_free" in run(["train", "--help"], capsys)[1]
    with pytest.raises(SystemExit) as stopped:
        main(["train", "tiny", "--help"])
    assert not stopped.value.code
    assert "--method.loop.updates-per-step" in capsys.readouterr().out


def sing(arguments: Sequence[str]) -> int:
    """Sing something: presage sing WHAT

    The rest is for those who read the source.
    """
    print(*arguments, sep=", ")
    return 7


class Song(EntryPoint):
    """A command of another package; `silent` cannot be loaded."""

    def load(self) -> Any:
        if self.name == "silent":
            raise ImportError("no voice")
        return sing


def test_commands_of_other_packages_are_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = [Song(name, "songs:sing", GROUP) for name in ("silent", "sing", "doctor")]
    asked: list[str] = []

    def entry_points(*, group: str) -> list[Song]:
        asked.append(group)
        return songs

    monkeypatch.setattr("presage.common.cli.entry_points", entry_points)
    assert run(["sing", "do", "re"], capsys) == (7, "do, re\n", "")
    assert set(asked) == {"presage.commands"}
    menu = run(["--help"], capsys)[1].splitlines()
    assert "  sing       sing something: presage sing WHAT" in menu
    assert "  silent     (cannot be loaded: ImportError: no voice)" in menu
    assert sum(line.startswith("  doctor ") for line in menu) == 1, "ours are not replaced"
    assert "takes no options" in run(["doctor", "--fix"], capsys)[2]
    assert "did you mean 'sing'" in run(["sign"], capsys)[2]


def test_demo_takes_the_next_free_folder(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SCENARIOS, "demo", scenario(MODEL_FREE, steps=28))
    (elsewhere / "runs" / "demo").mkdir(parents=True)
    code, out, _ = run(["demo"], capsys)
    assert code == 0
    assert out.endswith("report: runs/demo_2/report/index.html\n")


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("presage.common.cli_train.start", fail)
    with pytest.raises(KeyError, match="a defect"):
        main(["train", "tiny"])


def test_a_plugin_author_can_see_where_an_error_came_from() -> None:
    with pytest.raises(RunError, match="is no run folder"):
        main(["evaluate", "nowhere", "--traceback"])


TERMINATED = """
import sys
from presage.common import plugins
from presage.common.cli import main
from tests.common.tiny_runs import scenario
load = plugins.load
plugins.load = lambda kind, name: scenario(steps=4_000_000) if kind == "scenario" else load(kind, name)
sys.exit(main(["train", "tiny", "--folder", sys.argv[1]]))
"""


def test_sigterm_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TERMINATED, str(tmp_path / "run")]
    pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("32/"):
                child.send_signal(signal.SIGTERM)
                break
        *_, last = child.stderr.read().splitlines()
    assert child.returncode == 143
    assert last.startswith("stopped and saved at env step ")
    assert last.endswith(f"go on with: presage resume {tmp_path / 'run'}")
    assert RunFolder(tmp_path / "run").newest() is not None
