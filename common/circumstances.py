"""What the numbers of a run depend on besides its configuration: device, threads and library versions."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("presage", "torch", "numpy", "tianshou", "gymnasium", "pettingzoo", "mpe2", "mujoco")
"""whose versions are recorded"""


class CircumstancesError(RuntimeError):
    """A run cannot go on here with the same numbers; the message says what differs and what to do."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Where and with what a run was made."""

    device: str
    """"cpu" or "cuda" """
    threads: int
    """torch's CPU threads"""
    copies: int
    """of the game"""
    versions: Mapping[str, str]
    """of Python, of presage's source, and of the packages that the numbers depend on, as far as installed"""

    @classmethod
    def here(cls, device: torch.device, copies: int) -> Circumstances:
        """This process, with these libraries."""
        return cls(device=device.type, threads=torch.get_num_threads(), copies=copies, versions=installed(PACKAGES))

    def to_plain(self) -> dict[str, Any]:
        """Plain data, of which `Circumstances(**data)` is an equal one."""
        plain = {"device": self.device, "threads": self.threads, "copies": self.copies}
        return plain | {"versions": dict(self.versions)}

    def check(self, here: Circumstances, *, anyway: bool = False) -> list[str]:
        """Compare with those of the process that is to continue a run.

        Args:
            anyway: let threads and versions differ.

        Returns:
            what differs, each as "torch 2.12 (here 2.13)"; [] where the numbers will be the same.

        Raises:
            CircumstancesError: something differs that may not.
        """
        if (self.device, self.copies) != (here.device, here.copies):
            raise CircumstancesError(
                f"the run was made on {self.device} with {self.copies} copies of the game, this is {here.device} with "
                f"{here.copies}; its random generators and its replay do not move: resume it where and as it was made"
            )
        soft = {"threads": str(self.threads), **self.versions}
        now = {"threads": str(here.threads), **here.versions}
        differing = [
            f"{name} {soft.get(name, 'none')} (here {now.get(name, 'none')})"
            for name in sorted(soft.keys() | now.keys()) if soft.get(name) != now.get(name)
        ]  # fmt: skip
        if differing and not anyway:
            raise CircumstancesError(
                f"the run was made with {', '.join(differing)}, so its numbers would not be an uninterrupted "
                "run's; resume it with what it was made with, or add --anyway to go on with other numbers"
            )
        return differing


@cache
def installed(packages: tuple[str, ...]) -> Mapping[str, str]:
    """Versions of Python and of those packages that are installed; `source` stands for presage's own code."""
    found = {"python": platform.python_version(), "source": digest(source_folders())}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"torch": str(torch.__version__)}  # which names the build: those for CPU and CUDA differ in numbers


def source_folders() -> list[Path]:
    """Where presage's packages lie."""
    specs = (find_spec(f"presage.{name}") for name in ("common", "envs", "marl", "gcrl"))
    return [Path(folder) for spec in specs if spec is not None for folder in spec.submodule_search_locations or ()]


def digest(folders: Iterable[Path]) -> str:
    """Twelve letters that change whenever a Python file in `folders` does: versions do not tell of edits."""
    found = sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{folder.name}/{path.relative_to(folder).as_posix()}\0".encode())
            found.update(sha256(path.read_bytes()).digest())
    return found.hexdigest()[:12]
