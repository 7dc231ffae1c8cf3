"""Stopping between two env steps: SIGINT and SIGTERM become a flag that a loop reads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

NOTICE = b"\nstopping after this env step and saving; a second signal ends at once and saves nothing\n"


@dataclass
class Stop:
    """Whether somebody asked to stop."""

    signal: int | None = None
    """the number of the signal that asked, None while none has"""

    @property
    def asked(self) -> bool:
        return self.signal is not None


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within the block, the first SIGINT or SIGTERM is noted and answered; a second one does what it always did.

    Python delivers signals to the main thread alone; elsewhere the flag is never raised. A signal that the process was
    started to ignore, as shells start jobs in the background, stays ignored.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def note(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        os.write(2, NOTICE)  # not print, which a signal in the middle of another print would break
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
