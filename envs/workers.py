"""Copies of a game in other processes."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from presage.common.game import GameError, GameSpec
from presage.envs.group import Group
from presage.envs.lane import Lane, Moment, Transition

Arrays = TypeVar("Arrays", Moment, Transition)


class WorkerPool:
    """Groups of copies, one in each of `workers` processes; the numbers are those of one `Group` of them all.

    Processes and pipes are the standard library's, pickling is cloudpickle's. tianshou's `SubprocVectorEnv` and
    Gymnasium's `AsyncVectorEnv` do not fit: they give every copy a process of its own and carry one agent's
    observation, reward and end from each, and in tianshou's a copy that raises takes its message down with it.

    Workers are forked from a clean server process (spawned where the system has none), for torch's threads do not
    survive a plain fork; a script that makes workers therefore needs `if __name__ == "__main__":`. Workers end when
    their pipe closes, so also when this process is killed.

    Args:
        make_lane: builds one copy; anything cloudpickle takes.
        copies: in all workers together, >= workers.
        workers: processes, >= 1.

    Raises:
        GameError: naming the copies of the worker, for whatever is raised there; and where a worker dies.
    """

    def __init__(self, make_lane: Callable[[], Lane], copies: int, workers: int) -> None:
        self._blocks = [range(int(block[0]), int(block[-1]) + 1) for block in np.array_split(range(copies), workers)]
        context = _context()
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for block in self._blocks:
            here, there = context.Pipe()
            group = pickle.dumps(CloudpickleWrapper(partial(Group, make_lane, block.start, len(block))))
            process = context.Process(target=serve, args=(there, group), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        specs: list[GameSpec] = self._answers()
        self.spec = specs[0]
        for block, spec in zip(self._blocks, specs, strict=True):
            if spec != self.spec:
                self.close()
                raise GameError(f"copy {block.start} of {self.spec.name!r} differs in its agents or spaces from copy 0")

    def reset(self, seed: int) -> Moment:
        """Start episode 0 in every copy."""
        now: list[Moment] = self._ask("reset", [(seed,)] * len(self._pipes))
        return _stack(now)

    def step(self, act: np.ndarray) -> tuple[Transition, Moment]:
        """Play the checked actions `act (C, A)`; the transitions, and what to act on next."""
        answers = self._ask("step", [(act[block.start : block.stop],) for block in self._blocks])
        result: Transition = _stack([part for part, _ in answers])
        if all(now is part.after for part, now in answers):
            return result, result.after
        return result, _stack([part for _, part in answers])

    def replay(
        self, seed: int, episodes: Sequence[int], actions: Sequence[np.ndarray]
    ) -> tuple[Moment, list[str]]:  # fmt: skip
        """Start the given episode in each copy and play its actions again; see `Group.replay`."""
        parts = [(seed, episodes[b.start : b.stop], actions[b.start : b.stop]) for b in self._blocks]
        answers = self._ask("replay", parts)
        return _stack([now for now, _ in answers]), [fault for _, faults in answers for fault in faults]

    def render(self, copy: int) -> np.ndarray:
        """Draw one copy; `(H, W, 3)` uint8."""
        worker = next(w for w, block in enumerate(self._blocks) if copy in block)
        self._send(worker, "render", (copy - self._blocks[worker].start,))
        frame: np.ndarray = self._answers([worker])[0]
        return frame

    def close(self) -> None:
        """End all workers; asking them anything afterwards is an error."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5.0)
            if process.is_alive():
                process.terminate()
        self._pipes, self._processes = [], []

    def _ask(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        if not self._pipes:
            raise GameError(f"the workers of {self.spec.name!r} have ended; make the game again")
        for worker, given in enumerate(arguments):
            self._send(worker, verb, given)
        return self._answers()

    def _send(self, worker: int, verb: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._pipes[worker].send((verb, arguments))
        except OSError:
            raise self._died(worker) from None

    def _answers(self, workers: Sequence[int] | None = None) -> list[Any]:
        """What `workers` (default: all) answer; where one failed, ends all and raises the first failure."""
        answers, failures = [], []
        for worker in range(len(self._pipes)) if workers is None else workers:
            try:
                good, answer = self._pipes[worker].recv()
            except (EOFError, OSError):
                raise self._died(worker) from None
            if good:
                answers.append(answer)
            else:
                failures.append((worker, *answer))
        if failures:
            worker, sentence, where = failures[0]
            self.close()
            error = GameError(f"{self._named(worker)}: {sentence}")
            error.add_note(where)
            raise error
        return answers

    def _died(self, worker: int) -> GameError:
        process = self._processes[worker]
        process.join(timeout=1.0)
        code = process.exitcode
        self.close()
        return GameError(f"{self._named(worker)}: its process ended with exit code {code} without an answer")

    def _named(self, worker: int) -> str:
        block = self._blocks[worker]
        return f"worker {worker} (copies {block.start}..{block.stop - 1})"


def serve(pipe: Connection, make_group: bytes) -> None:
    """A worker's life: build its group, answer until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    group: Group | None = None

    def answer(verb: str, arguments: tuple[Any, ...]) -> Any:
        nonlocal group
        if group is None:
            group = pickle.loads(make_group)()
            return group.spec
        return getattr(group, verb)(*arguments)

    asked: tuple[str, tuple[Any, ...]] = ("spec", ())
    while True:
        try:
            reply = (True, answer(*asked))
        except Exception as error:  # told to the parent, which raises it
            sentence = str(error) if isinstance(error, GameError) else f"{type(error).__name__}: {error}"
            reply = (False, (sentence, traceback.format_exc()))
        try:
            pipe.send(reply)
            asked = pipe.recv()
        except (EOFError, OSError):
            break
    if group is not None:
        group.close()


def _context() -> ForkServerContext | SpawnContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _stack(parts: Sequence[Arrays]) -> Arrays:
    """The rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {}
    for field in fields(parts[0]):
        columns = [getattr(part, field.name) for part in parts]
        joined[field.name] = _stack(columns) if isinstance(columns[0], Moment) else np.concatenate(columns)
    return type(parts[0])(**joined)
