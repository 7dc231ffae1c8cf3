"""What was typed behind a command, by tyro, with refusals in one sentence."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from presage.common.configuration import ConfigError, UsageError
from presage.common.run_folder import RunError
from presage.common.scenario import CONFIG_FILE

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], prog: str, default: T | None = None) -> T:
    """A dataclass with the numbers that were typed; `--help` prints them all and ends the program.

    Args:
        prog: the command, for messages. default: what holds for whatever was not typed.

    Raises:
        UsageError: an unknown option, a wrong type, or values that contradict each other.
    """
    said = io.StringIO()
    extra: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            found: T = tyro.cli(kind, args=arguments, prog=prog, **extra)
            return found
    except SystemExit as stopped:
        if not stopped.code:
            raise
        raise UsageError(f"{_sentence(said.getvalue())} (see {prog} --help)") from None
    except (ConfigError, ValueError) as error:  # from the dataclasses' own checks
        raise UsageError(str(error)) from error


def one_run(folder: Path) -> Path:
    """The run folder that was typed.

    Raises:
        RunError: it is none, but holds several.
    """
    inside = sorted(config.parent for config in folder.glob(f"*/{CONFIG_FILE}"))
    if inside and not (folder / CONFIG_FILE).is_file():
        several = f"{len(inside)} runs; name one of them" if len(inside) > 1 else "a run; name it"
        raise RunError(f"{folder} holds {several}: {', '.join(map(str, inside))}")
    return folder


def _sentence(box: str) -> str:
    """The first section of tyro's framed message on one line, and the options that it suggests."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip(" │")
        if text.startswith(("╭", "╰")) or re.fullmatch("─{3,}|-{3,}", text):  # a frame, or a rule between sections
            sections.append([])
        elif text:
            sections[-1].append(text)
    body, others = sections[1:2], sections[2:]  # what stands above the first rule is a title
    found = " ".join(text for section in body for text in section).rstrip(".").removeprefix("Error parsing scenario.")
    close = [text.split()[0] for section in others for text in section if text.startswith("--")]
    if "Perhaps you meant" in box and close:
        found += f"; did you mean {' or '.join(dict.fromkeys(close))}?"
    return found
