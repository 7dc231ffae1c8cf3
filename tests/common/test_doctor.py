import platform
from pathlib import Path

import pytest

from presage.common import doctor as module
from presage.common.doctor import (
    check_gpu,
    check_imports,
    check_names,
    check_packages,
    check_python,
    check_writable,
    doctor,
    installed,
    requirements,
)


@pytest.mark.parametrize(
    ("requirement", "version", "shown", "repair"),
    [
        ("mujoco<3.12,>=3.3", "3.11.0", "3.11.0", ""),
        ("mujoco<3.12,>=3.3", "3.12.0", "3.12.0, needs <3.12,>=3.3", 'python -m pip install "mujoco<3.12,>=3.3"'),
        ("torch>=2.13", None, "missing, needs >=2.13", 'python -m pip install "torch>=2.13"'),
        ("torch>=2.13", "2.13.0+cpu", "2.13.0+cpu", ""),
        ("tqdm", None, "missing, needed", 'python -m pip install "tqdm"'),
    ],
)
def test_versions_are_held_against_requirements(requirement: str, version: str | None, shown: str, repair: str) -> None:
    (check,) = check_packages([requirement], lambda package: version)
    assert (check.ok, check.found, check.repair) == (not repair, shown, repair)


def test_requirements_are_those_of_the_installation() -> None:
    required = {line.split("<")[0].split(">")[0] for line in requirements()}
    assert {"torch", "tianshou", "gymnasium", "gymnasium-robotics", "pettingzoo", "mpe2", "mujoco"} <= required
    assert not any("pytest" in line for line in requirements())


def test_missing_metadata_is_a_problem() -> None:
    (check,) = check_packages([], lambda package: "1")
    assert not check.ok
    assert installed("no-such-package") is None


@pytest.mark.parametrize(("found", "ok"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((4, 0), True)])
def test_python_must_be_new_enough(found: tuple[int, int], ok: bool) -> None:
    check = check_python(found)
    assert check.ok == ok
    assert bool(check.repair) != ok


def test_a_package_that_is_there_and_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise OSError('libmissing.so:\\n no such file')")
    (tmp_path / "halved_package.py").write_text("import no_such_inner_part")
    monkeypatch.syspath_prepend(tmp_path)
    checks = check_imports(["json", "no_such_package", "broken_package", "halved_package"])
    assert [(check.name, check.ok) for check in checks] == [("broken_package", False), ("halved_package", False)]
    assert "libmissing.so: no such file" in checks[0].found
    assert checks[0].repair == "python -m pip install --force-reinstall broken-package"


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    assert check_writable(tmp_path).ok
    check = check_writable(tmp_path / "nowhere")
    assert not check.ok
    assert "--folder" in check.repair
    assert list(tmp_path.iterdir()) == []


def test_scenarios_must_be_installed() -> None:
    assert check_names(["spread_aorpo"]).found == "1 installed"
    assert not check_names([]).ok


def test_a_gpu_that_torch_does_not_see_is_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(module, "which", lambda name: None)
    assert (check_gpu().ok, check_gpu().repair) == (True, "")
    monkeypatch.setattr(module, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("torch.version.cuda", None)
    assert check_gpu().ok
    assert "torch" in check_gpu().repair
    monkeypatch.setattr("torch.version.cuda", "13.0")
    assert not check_gpu().ok


@pytest.mark.parametrize(("version", "code", "last"), [("1.0", 1, "1 problem found"), ("3.5", 0, "no problem found")])
def test_the_code_tells_of_problems(
    version: str, code: int, last: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "requirements", lambda: ["mujoco<3.12,>=3.3"])
    monkeypatch.setattr(module, "installed", lambda package: version)
    monkeypatch.setattr(module, "IMPORTS", ())
    monkeypatch.setattr(module, "check_gpu", lambda: check_python((3, 11)))
    assert doctor([]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last
    assert lines[0].split() == ["ok", "python", platform.python_version()]
    assert ('repair: python -m pip install "mujoco<3.12,>=3.3"' in "\n".join(lines)) == bool(code)


def test_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(["--fix"]) == 2
    assert doctor(["--help"]) == 0
    assert "takes no options" in capsys.readouterr().out
