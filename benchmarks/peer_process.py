"""Another library in a process and an environment of its own, which answers requests one after the other."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class PeerProcess:
    """A file of `benchmarks/peers` that is running: a line of JSON goes in, and one comes out."""

    def __init__(
        self, name: str, file: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            name: of the environment that `make peers` builds. file: what it runs, relative to the checkout.
            environment: variables that are set for it besides those of this process.

        Raises:
            SystemExit: its environment has not been built.
        """
        python = ROOT / ".peers" / name / "bin" / "python"
        if not python.exists():
            raise SystemExit(f"the environment .peers/{name} is not there: run `make peers`, then this again")
        self.process = subprocess.Popen(
            [str(python), str(ROOT / file), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip

    def ask(self, do: str, **request: Any) -> Any:
        """The answer to one request.

        Raises:
            SystemExit: the peer has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended at {do!r}; its message stands above")
        return json.loads(line)

    def end(self) -> None:
        """Let it go."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
