"""What a run spends its time on, and who else wants to know where it is."""

from __future__ import annotations

import time
from collections.abc import Callable

PHASES = ("collection", "fit", "rollout", "update", "evaluation", "checkpoint")
"""what a run is always in exactly one of"""

OnPhase = Callable[[str], None]
"""called with the name of a phase as it begins; what was before has then ended"""


class PhaseClock:
    """Adds up the seconds of every phase, and passes the beginning of each on."""

    def __init__(self, listener: OnPhase | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._listener, self._clock = listener, clock
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._now = PHASES[0]
        self._since = self._began = clock()

    def __call__(self, phase: str) -> None:
        """Begin `phase`."""
        if phase not in self._seconds:
            raise ValueError(f"phase={phase!r} must be one of {', '.join(PHASES)}")
        moment = self._clock()
        self._seconds[self._now] += moment - self._since
        self._now, self._since = phase, moment
        if self._listener is not None:
            self._listener(phase)

    def metrics(self, env_steps: int) -> dict[str, float]:
        """Seconds of every phase since the last call, and env steps per second, by metric tag; starts over.

        Args:
            env_steps: made since then.
        """
        self._seconds[self._now] += self._clock() - self._since
        self._since = self._clock()
        passed = max(self._since - self._began, 1e-9)
        found = {f"time/{name}": seconds for name, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._began = self._since
        return found | {"time/fps": env_steps / passed}
