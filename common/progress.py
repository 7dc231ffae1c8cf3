"""How far a run is: a bar on a terminal, one line per evaluation elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Shows env steps, the last evaluation's return, env steps per second and the time left."""

    def __init__(
        self, total: int, *, done: int = 0, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            total: env steps of the whole run; > 0.
            done: env steps already done by the run that this one resumes; they count in no rate.
            stream: where to show it; standard error when None. A bar if it is a terminal.
            clock: seconds.
        """
        if not 0 <= done <= total or not total:
            raise ValueError(f"done={done} env steps must lie in 0..total={total}, and total be > 0")
        self._total, self._first, self._done = total, done, done
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._began = clock()
        self._bar = (
            tqdm(total=total, initial=done, file=self._stream, unit=" env steps", dynamic_ncols=True, smoothing=0.1)
            if self._stream.isatty()
            else None
        )

    def update(self, env_steps: int) -> None:
        """Move to `env_steps`, counted from the start of the whole run."""
        if env_steps < self._done:
            raise ValueError(f"env_steps={env_steps} goes back behind {self._done}")
        if self._bar is not None:
            self._bar.update(env_steps - self._done)
        self._done = env_steps

    def evaluated(self, env_steps: int, mean_return: float) -> None:
        """Move to `env_steps` and show the return of the evaluation there."""
        self.update(env_steps)
        if self._bar is not None:
            self._bar.set_postfix_str(f"return {mean_return:.2f}")
            return
        rate = (self._done - self._first) / max(self._clock() - self._began, 1e-9)
        left = tqdm.format_interval((self._total - self._done) / rate) if rate else "?"
        print(
            f"{env_steps:,}/{self._total:,} env steps  return {mean_return:.2f}  {rate:,.0f} env steps/s  {left} left",
            file=self._stream,
            flush=True,
        )

    def close(self) -> None:
        """Leave the bar as it stands and free the terminal's line."""
        if self._bar is not None:
            self._bar.close()
