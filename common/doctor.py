"""`presage doctor`: what is installed, whether it fits, and the command that repairs what does not.

Nothing that may be missing is imported at its head.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from shutil import which

INSTALL = "python -m pip install"
REINSTALL = f"{INSTALL} --force-reinstall --no-deps presage"
PYTHON = (3, 11)
IMPORTS = ("torch", "tianshou", "gymnasium", "pettingzoo", "mpe2", "gymnasium_robotics", "mujoco")
"""packages with parts outside Python, or that break on each other's versions: installed does not yet mean working"""

Installed = Callable[[str], str | None]
"""the version of a package, None where it is missing"""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    """what there is"""
    repair: str = ""
    """the command that repairs or improves it; "" where nothing is to be done"""

    def __str__(self) -> str:
        line = f"{'ok' if self.ok else 'PROBLEM':8} {self.name:20} {self.found}"
        return f"{line}\n{'':8} {'':20} {'to change' if self.ok else 'repair'}: {self.repair}" if self.repair else line


def doctor(arguments: Sequence[str]) -> int:
    """Print all checks; 1 where one of them found a problem."""
    if arguments:
        asked = list(arguments) in (["-h"], ["--help"])
        print("usage: presage doctor   (takes no options)", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    checks = examine()
    for check in checks:
        print(check)
    problems = sum(not check.ok for check in checks)
    print("no problem found" if not problems else f"{problems} problem{'s' if problems > 1 else ''} found")
    return 1 if problems else 0


def examine() -> list[Check]:
    """All checks of this installation."""
    return [
        check_python(sys.version_info[:2]),
        *check_packages(requirements(), installed),
        *check_imports(IMPORTS),
        check_names([point.name for point in entry_points(group="presage.scenarios")]),
        check_writable(Path.cwd()),
        check_gpu(),
    ]


def check_python(found: tuple[int, ...]) -> Check:
    """Whether Python is new enough."""
    shown = platform.python_version() if found == sys.version_info[:2] else ".".join(map(str, found))
    if found >= PYTHON:
        return Check(name="python", ok=True, found=shown)
    wanted = ".".join(map(str, PYTHON))
    return Check(
        name="python", ok=False, found=f"{shown}, needs {wanted} or later", repair=f"python{wanted} -m venv .venv"
    )


def requirements() -> list[str]:
    """What presage requires, as its own metadata says, without extras; [] where the metadata is missing."""
    try:
        return [line for line in requires("presage") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        return []


def installed(package: str) -> str | None:
    """The installed version of a package, None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_packages(required: Iterable[str], installed: Installed) -> list[Check]:
    """Whether every requirement, such as `mujoco<3.12,>=3.3`, is met by what is installed."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [Check(name="packaging", ok=False, found="missing", repair=f"{INSTALL} packaging")]
    checks = []
    for line in required:
        wanted = Requirement(line)
        found = installed(wanted.name)
        ok = found is not None and wanted.specifier.contains(found, prereleases=True)
        needs = f"needs {wanted.specifier}" if str(wanted.specifier) else "needed"
        shown = found if ok and found is not None else f"{found or 'missing'}, {needs}"
        repair = "" if ok else f'{INSTALL} "{wanted.name}{wanted.specifier}"'
        checks.append(Check(name=wanted.name, ok=ok, found=shown, repair=repair))
    return checks or [Check(name="presage", ok=False, found="its metadata is missing", repair=REINSTALL)]


def check_imports(modules: Iterable[str]) -> list[Check]:
    """Those modules that are installed and yet cannot be imported."""
    checks = []
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name == module:
                continue  # missing: the packages' own checks say so
            checks.append(_broken(module, error))
        except Exception as error:  # a broken library raises what it likes
            checks.append(_broken(module, error))
    return checks


def _broken(module: str, error: Exception) -> Check:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    package = module.replace("_", "-")
    return Check(
        name=module, ok=False, found=f"does not import ({reason})", repair=f"{INSTALL} --force-reinstall {package}"
    )


def check_names(scenarios: Sequence[str]) -> Check:
    """Whether presage's scenarios are installed under their names."""
    if scenarios:
        return Check(name="scenarios", ok=True, found=f"{len(scenarios)} installed")
    return Check(name="scenarios", ok=False, found="none is installed", repair=REINSTALL)


def check_writable(folder: Path) -> Check:
    """Whether runs can be written to a folder."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            return Check(name="run folders", ok=True, found=f"{folder} can be written")
    except OSError as error:
        return Check(
            name="run folders", ok=False, found=f"{folder} cannot be written ({error.strerror})",
            repair="change to a folder of your own, or name one with --folder",
        )  # fmt: skip


def check_gpu() -> Check:
    """What torch computes on; the CPU is no problem, but a GPU that torch does not see is worth a word."""
    try:
        import torch
    except ImportError:
        return Check(name="gpu", ok=True, found="unknown without torch")
    if torch.cuda.is_available():
        return Check(name="gpu", ok=True, found=torch.cuda.get_device_name())
    if which("nvidia-smi") is None:
        return Check(name="gpu", ok=True, found="none; runs use the CPU")
    if torch.version.cuda is None:
        return Check(
            name="gpu", ok=True, found="there is one, but this build of torch is for the CPU",
            repair=f"{INSTALL} --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130",
        )  # fmt: skip
    return Check(
        name="gpu", ok=False, found=f"torch is built for CUDA {torch.version.cuda} and sees no device",
        repair="nvidia-smi, which says what is wrong with the driver",
    )  # fmt: skip
