"""Copies of a game stepped one after another in this process, each starting its next episode by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from presage.common.game import GameError, GameSpec, episode_seed
from presage.envs.actions import ActionReader
from presage.envs.lane import Lane, Moment, Transition


class Group:
    """The lanes of copies `first`, `first + 1`, ...

    Args:
        make_lane: builds one copy.
        first: number of the first copy; an episode's seed depends on its copy's number.
        copies: how many, >= 1.

    Raises:
        GameError: where two copies differ in their spec, and wherever a lane breaks its declaration.
    """

    def __init__(self, make_lane: Callable[[], Lane], first: int, copies: int) -> None:
        self._first = first
        self._lanes = [make_lane() for _ in range(copies)]
        self.spec: GameSpec = self._lanes[0].spec
        for c, lane in enumerate(self._lanes):
            if lane.spec != self.spec:
                raise GameError(f"copy {first + c} of {self.spec.name!r} differs in its agents or spaces from {first}")
        self._actions = ActionReader(self.spec)
        self._seed = 0
        self._episodes = [0] * copies
        self._steps = [0] * copies

    def reset(self, seed: int) -> Moment:
        """Start episode 0 in every copy."""
        self._seed, self._episodes = seed, [0] * len(self._lanes)
        now = Moment.blank(self.spec, len(self._lanes))
        for c in range(len(self._lanes)):
            self._begin(c, now)
        self._check_moment(now, self._first)
        return now

    def step(self, act: np.ndarray) -> tuple[Transition, Moment]:
        """Play the checked actions `act (C, A)`; the transitions, and what to act on next."""
        result = Transition.blank(self.spec, len(self._lanes))
        ended = [c for c, actions in enumerate(self._actions.read(act)) if self._step(c, actions, result, c)]
        self._check_transition(result, self._first)
        left = [c for c, lane in enumerate(self._lanes) if lane.departed and not result.over[c]]
        if not ended and not left:
            return result, result.after
        now = result.after.copy()
        for c in left:
            self._clear_departed(c, now)
        for c in ended:
            self._episodes[c] += 1
            self._begin(c, now)
        self._check_moment(now, self._first)
        return result, now

    def replay(
        self, seed: int, episodes: Sequence[int], actions: Sequence[np.ndarray]
    ) -> tuple[Moment, list[str]]:  # fmt: skip
        """Start the given episode in each copy and play its `actions (T, A)` again.

        Returns:
            what is shown then; and per copy why it could not be played again, "" where it could.
        """
        self._seed, self._episodes = seed, list(episodes)
        now = Moment.blank(self.spec, len(self._lanes))
        faults = []
        for c, open_episode in enumerate(actions):
            self._begin(c, now)
            faults.append(self._play(c, open_episode, now))
        return now, faults

    def render(self, copy: int) -> np.ndarray:
        """Draw one copy, counted from the group's first; `(H, W, 3)` uint8."""
        frame = self._lanes[copy].render()
        if isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3:
            return frame.astype(np.uint8)
        got = f"shape {frame.shape}" if isinstance(frame, np.ndarray) else repr(frame)
        raise GameError(f"{self.spec.name!r} drew {got}; build its environments with render_mode='rgb_array'")

    def close(self) -> None:
        """Close all environments."""
        for lane in self._lanes:
            lane.close()

    def _begin(self, c: int, now: Moment) -> None:
        """Start the current episode of one copy; writes its row of `now`."""
        self._steps[c] = 0
        now.clear(c)
        self._lanes[c].reset(episode_seed(self._seed, self._first + c, self._episodes[c]), now, c)

    def _step(self, c: int, actions: Sequence[Any], result: Transition, row: int) -> bool:
        """One env step of one copy; writes row `row` of `result`. Returns whether the episode is over."""
        over = self._lanes[c].step(actions, result, row)
        self._steps[c] += 1
        if over and not self.spec.acting_varies:
            result.after.acting[row] = True
        if not over and self._steps[c] != self.spec.episode_limit:
            return False
        result.over[row] = True
        result.truncated[row] = not result.terminated[row].all()
        return True

    def _clear_departed(self, c: int, now: Moment) -> None:
        """Those who ended in the last step are absent from what is shown next."""
        for i in self._lanes[c].departed:
            agent = self.spec.agents[i]
            now.obs[c, list(agent.obs)] = 0.0
            now.desired[c, list(agent.goal)] = 0.0

    def _play(self, c: int, actions: np.ndarray, now: Moment) -> str:
        """Play `actions (T, A)` in one copy; writes its row of `now`. Returns why that failed, "" where it did not."""
        for t, joint in enumerate(self._actions.read(actions)):
            result = Transition.blank(self.spec, 1)
            try:
                over = self._step(c, joint, result, 0)
                self._check_transition(result, self._first + c)
            except Exception as error:  # whatever the environment raises, its episode does not replay
                return f"action {t} of {len(actions)} raised {type(error).__name__}: {error}"
            if over:
                return f"the episode ended after {t + 1} of {len(actions)} actions"
            now.set_row(c, result.after, 0)
            self._clear_departed(c, now)
        return ""

    def _check_moment(self, now: Moment, first: int) -> None:
        """Raise GameError where `now`, of the copies from `first` on, breaks the spec."""
        spec = self.spec
        if not np.isfinite(now.obs).all() or (spec.goal_dim and not np.isfinite(now.desired).all()):
            self._report_not_finite(now, first)
        if not spec.acting_varies and not now.acting.all():
            c, i = _where(~now.acting)
            raise self._undeclared(first + c, i, "is not acting", "acting_varies")

    def _check_transition(self, result: Transition, first: int) -> None:
        """Raise GameError where `result`, of the copies from `first` on, breaks the spec."""
        if not np.isfinite(result.reward).all():
            c, i = _where(~np.isfinite(result.reward))
            raise GameError(f"agent {self.spec.names[i]!r} in copy {first + c} got the reward {result.reward[c, i]}")
        if not self.spec.terminates and result.terminated.any():
            c, i = _where(result.terminated)
            raise self._undeclared(first + c, i, "is terminated", "terminates")
        self._check_moment(result.after, first)

    def _report_not_finite(self, now: Moment, first: int) -> None:
        for c, row in enumerate(now.obs):
            for agent in self.spec.agents:
                part = row[list(agent.obs)]
                if not np.isfinite(part).all():
                    raise GameError(f"agent {agent.name!r} in copy {first + c} observes {part.tolist()}")
        raise GameError(f"a desired goal of {self.spec.name!r} is not finite: {now.desired.tolist()}")

    def _undeclared(self, copy: int, agent: int, fact: str, flag: str) -> GameError:
        return GameError(
            f"agent {self.spec.names[agent]!r} in copy {copy} {fact}, but {self.spec.name!r} declares "
            f"{flag}=False; pass {flag}=True"
        )


def _where(flags: np.ndarray) -> tuple[int, int]:
    """Row and column of the first true entry."""
    row, column = np.argwhere(flags)[0].tolist()
    return row, column
