"""The contracts of the layout: what is packaged, under which name, and who may import whom."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("common", "envs", "gcrl", "marl", "scenarios")

# Who may import what, by prefix. `envs` knows the protocol of a game and nothing else of `common`.
MAY_IMPORT = {
    "common": ("presage.common",),
    "envs": ("presage.envs", "presage.common.game"),
    "gcrl": ("presage.gcrl", "presage.common", "presage.envs"),
    "marl": ("presage.marl", "presage.common", "presage.envs"),
    "scenarios": tuple(f"presage.{folder}" for folder in FOLDERS),
    "benchmarks": ("benchmarks", *(f"presage.{folder}" for folder in FOLDERS)),
}


PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENTRY_POINTS = [
    EntryPoint(name, value, group)
    for group, points in {
        "console_scripts": PYPROJECT["project"]["scripts"],
        **PYPROJECT["project"].get("entry-points", {}),
    }.items()
    for name, value in points.items()
]


def package_folders() -> dict[str, Path]:
    """Every folder with Python files below the packaged ones, by its dotted name."""
    holders = {file.parent for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")}
    return {".".join(("presage", *folder.relative_to(ROOT).parts)): folder for folder in sorted(holders)}


def imported(source: str) -> Iterator[str]:
    """Dotted names that `source` imports, by statement or by `import_module` on a literal."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and "import_module" in (getattr(node.func, "attr", ""), getattr(node.func, "id", ""))
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def violations(folder: str, source: str) -> list[str]:
    """Imports of ours in `source` that a file in `folder` may not make."""
    ours = ("presage", "benchmarks", "tests", *FOLDERS)
    found = (name for name in imported(source) if name.startswith(".") or name.split(".")[0] in ours)
    return [name for name in found if not any(f"{name}.".startswith(f"{may}.") for may in MAY_IMPORT[folder])]


def test_packages_are_those_of_the_tree() -> None:
    setuptools = PYPROJECT["tool"]["setuptools"]
    folders = package_folders()
    assert sorted(setuptools["packages"]) == sorted(folders)
    assert {name: ROOT / folder for name, folder in setuptools["package-dir"].items()} == folders


def test_nothing_but_presage_is_packaged() -> None:
    assert all(name.startswith("presage.") for name in PYPROJECT["tool"]["setuptools"]["packages"])
    assert not (ROOT / "presage").exists(), "a folder of this name would hide the installed packages from the root"


@pytest.mark.parametrize(("name", "folder"), package_folders().items(), ids=package_folders())
def test_package_refuses_its_bare_name(name: str, folder: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", f"import {folder.name}"], cwd=folder.parent, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 1
    message = asked.stderr.strip().splitlines()[-1]
    assert message.startswith(f"ImportError: write `import {name}`")
    assert repr(folder.name) in message


@pytest.mark.parametrize("folder", package_folders().values(), ids=package_folders())
def test_package_is_typed(folder: Path) -> None:
    assert (folder / "py.typed").is_file()


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_run_one_way(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(ROOT)): violations(folder, file.read_text(encoding="utf-8")) for file in files}
    assert {file: names for file, names in wrong.items() if names} == {}


@pytest.mark.parametrize(
    ("folder", "source", "expected"),
    [
        ("common", "from presage.envs import registry", ["presage.envs.registry"]),
        ("common", "def late():\n    import presage.marl.masac", ["presage.marl.masac"]),
        ("common", "from importlib import import_module\nimport_module('presage.gcrl.graph')", ["presage.gcrl.graph"]),
        ("common", "from presage import scenarios, common", ["presage.scenarios"]),
        ("envs", "from presage.common.replay import Replay", ["presage.common.replay.Replay"]),
        ("envs", "import presage.common", ["presage.common"]),
        ("envs", "from presage.common.game import Game\nfrom presage.common import game\nimport presage.envs.toy", []),
        ("envs", "from presage.common.games import Game", ["presage.common.games.Game"]),
        ("marl", "from presage.gcrl.goals import Goals", ["presage.gcrl.goals.Goals"]),
        ("gcrl", "from presage.marl import masac", ["presage.marl.masac"]),
        ("marl", "import torch\nfrom presage.common.replay import Replay\nfrom presage.envs import registry", []),
        ("scenarios", "from benchmarks.claims import write", ["benchmarks.claims.write"]),
        ("benchmarks", "from presage.scenarios import tag\nfrom benchmarks.claims import write", []),
        ("marl", "from common.game import Game", ["common.game.Game"]),
        ("marl", "from . import masac", ["..masac"]),
        ("common", "import tests.toys", ["tests.toys"]),
    ],
)
def test_wrong_imports_are_seen(folder: str, source: str, expected: list[str]) -> None:
    assert violations(folder, source) == expected


@pytest.mark.parametrize("point", ENTRY_POINTS, ids=lambda point: f"{point.group}-{point.name}")
def test_entry_point_names_something_of_ours(point: EntryPoint) -> None:
    assert point.module.startswith("presage.")
    point.load()  # raises where the module or the name in it is gone


def test_every_scenario_is_an_entry_point() -> None:
    files = sorted((ROOT / "scenarios").glob("*.py"))
    defining = {
        f"presage.scenarios.{file.stem}:scenario"
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and any(getattr(name, "id", "") == "scenario" for name in node.targets)
    }
    assert {point.value for point in ENTRY_POINTS if point.group == "presage.scenarios"} == defining


def test_mypy_never_ignores_a_missing_module_of_ours() -> None:
    mypy = PYPROJECT["tool"]["mypy"]
    assert "ignore_missing_imports" not in mypy
    for override in mypy["overrides"]:
        assert [module for module in override["module"] if module.startswith(("presage", "*"))] == []


def test_constraints_pin_every_direct_dependency_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PYPROJECT["project"]["optional-dependencies"]
    named = [
        *PYPROJECT["project"]["dependencies"],
        *(text for extra in ("dev", "docs", "games", "minari") for text in extras[extra]),
    ]
    for text in named:
        requirement = Requirement(text)
        if requirement.name == "presage":  # an extra of its own
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_citation_and_changelog_name_the_version() -> None:
    version = PYPROJECT["project"]["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_readme_says_how_the_folders_are_imported() -> None:
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25]
    assert "`marl/` is imported as `presage.marl`" in "\n".join(first_screen)
