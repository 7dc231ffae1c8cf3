"""Games that are tensor code: many copies in one tensor, each starting its next episode by itself.

A game is its `Rules`: how episodes begin, what a step does, what is seen and paid. `BatchedGame` plays them, and
`RulesKernel` imagines with them, so that what is imagined is what is played.

Shape suffixes: C copies, B rows, N agents, A action, U chances of a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from presage.common.game import Carry, GameError, GameSpec, GoalRule, Outcome, Rows, View, Window, episode_seed
from presage.envs import chance


class Rules(ABC):
    """What a batched game is. A state is one tensor that holds B games, whose meaning is the rules' own."""

    spec: GameSpec
    device: torch.device
    dtype: torch.dtype
    batch = 0
    """the dimension of the state that counts games"""
    chances = 0
    """U, uniform numbers in [0, 1) that a step of one game takes"""
    cut_first = False
    """whether the last step that the limit allows only truncates, wherever it leads (as in mpe2)"""
    goal_rule: GoalRule | None = None
    """what reaching a goal is worth; None for a game without goals"""

    @abstractmethod
    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """First states of `copies` episodes; one copy's numbers are drawn after another's."""

    @abstractmethod
    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """The states after the joint actions `act (B, A)`; `chance (B, U)` where `chances` is not 0."""

    @abstractmethod
    def see(self, state: Tensor) -> dict[str, Tensor]:
        """What is seen in `state`: the fields of a `View`, `obs` and those that vary."""

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """Each agent's reward `(B, N)` for a step between two states; by the goal rule unless overridden."""
        rule, goals = self._goals(after)
        return rule.reward(*goals)

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """`(B, N)` bool: who has no future after the step; asked where `spec.terminates`. By the goal rule likewise."""
        rule, goals = self._goals(after)
        return rule.terminated(*goals)

    def _goals(self, state: Tensor) -> tuple[GoalRule, tuple[Tensor, Tensor]]:
        if self.goal_rule is None:
            raise NotImplementedError(f"the rules of {self.spec.name!r} lack rewards or ends, and have no goal rule")
        seen = self.see(state)
        return self.goal_rule, (seen["achieved"], seen["desired"])

    def reconstruct(self, window: Window) -> Tensor:
        """A state that goes on exactly like the one behind what is seen.

        Raises:
            GameError: what is seen does not determine it.
        """
        raise GameError(f"the state of {self.spec.name!r} cannot be told from what is seen")

    def check(self, act: Tensor, view: View) -> None:
        """Raise GameError unless `act (B, A)` is one that can be played in `view`."""
        self.spec.check_action(act, view.acting if self.spec.acting_varies else None)
        if self.spec.legal_varies:
            illegal = (act != 0) & ~view.legal
            if bool(illegal.any()):
                row, entry = (int(k) for k in illegal.nonzero()[0])
                raise GameError(f"entry {entry} of the joint action is not legal in row {row} of {self.spec.name!r}")


class BatchedGame:
    """Rules played in `copies` copies.

    Episode e of all copies is drawn at once from (seed, e), one copy after another: it is the same whatever was played
    before it, for any `dtype`, and on a CPU for any number of copies. So are the numbers that a step leaves to chance.
    Flags that never vary are shared between the rows and views that this game returns.

    Args:
        rules: the game. copies: games played side by side, >= 1.

    Raises:
        GameError: for sizes below 1; from `step` before `reset`, or for an action that is not one of this game.
    """

    def __init__(self, rules: Rules, copies: int) -> None:
        limit = rules.spec.episode_limit
        if copies < 1 or (limit is not None and limit < 1):
            raise GameError(f"copies={copies} and episode_limit={limit} must both be >= 1")
        self.rules, self.spec, self.copies = rules, rules.spec, copies
        self.goal_rule = rules.goal_rule
        self._limit = limit
        self._rng = torch.Generator(rules.device)
        self._seed = 0
        self._episode = np.zeros(copies, dtype=np.int64)
        self._clock = np.zeros(copies, dtype=np.int32)
        self._state: Tensor | None = None
        blank = torch.zeros(copies, self.spec.obs_dim, dtype=rules.dtype, device=rules.device)
        self._view = View.of(self.spec, blank)
        self._nobody = torch.zeros(copies, self.spec.n, dtype=torch.bool, device=rules.device)

    def reset(self, seed: int) -> View:
        """Start episode 0 in every copy; C rows."""
        self._seed = seed
        self._episode[:] = 0
        self._begin(np.ones(self.copies, dtype=bool))
        return self._look()

    def step(self, act: Tensor) -> tuple[Rows, View]:
        """Play `act (C, A)` in all copies; the transitions, and the view to act on next."""
        state, rules, before = self._playing(), self.rules, self._view
        act = act.detach()
        if len(act) != self.copies:
            raise GameError(f"{len(act)} joint actions for {self.copies} copies of {self.spec.name!r}")
        rules.check(act, before)
        step = self._on_device(self._clock.copy())
        chances = self.chance() if rules.chances else None
        self._clock += 1
        self._state = arrived = rules.move(state, act, chances)
        after = self._look()
        reward = rules.rewards(state, act, arrived)
        cut = self._clock == self._limit
        ended, terminated = cut, self._nobody
        if self.spec.terminates:
            terminated = rules.ends(state, act, arrived)
            if rules.cut_first:
                terminated = terminated & ~self._on_device(cut)[:, None]
            over = terminated.all(1).cpu().numpy()
            after = replace(after, acting=after.acting & ~terminated)
            ended, cut = cut | over, cut & ~over
        rows = Rows.of(self.spec, before, act, reward, after, terminated, self._on_device(cut), step)
        if ended.any():
            self._episode[ended] += 1
            self._begin(ended)
            after = self._look()
        self._view = after
        return rows, after

    def chance(self) -> Tensor:
        """`(C, U)` the uniform numbers in [0, 1) that the next step takes, float64."""
        return self._on_device(chance.numbers(self._seed, self._episode, self._clock, self.rules.chances))

    def inject(self, state: Tensor) -> View:
        """Go on from `state`, in the rules' own terms, in all copies; the clocks run on from where they are."""
        size = state.shape[self.rules.batch]
        if size != self.copies:
            raise GameError(f"the injected state has {size} rows; this game has {self.copies} copies")
        self._state = state.to(device=self.rules.device, dtype=self.rules.dtype)
        return self._look()

    def state(self) -> dict[str, Any]:
        """Plain data from which `restore` continues exactly; the draws to come follow from seed and episodes."""
        return {
            "game": self.spec.name,
            "seed": self._seed,
            "episode": self._episode.tolist(),
            "clock": self._clock.tolist(),
            "state": self._playing().movedim(self.rules.batch, 0).contiguous().cpu(),
        }

    def restore(self, state: Mapping[str, Any]) -> View:
        """Continue from `state`; the view to act on next.

        Raises:
            GameError: where the state is of another game, other copies, another dtype, or further on than this game's
                episodes last.
        """
        saved: Tensor = state["state"]
        fresh = self.rules.draw(self.copies, self._rng).movedim(self.rules.batch, 0)
        found = (state["game"], tuple(saved.shape), saved.dtype)
        wanted = (self.spec.name, tuple(fresh.shape), fresh.dtype)
        if found != wanted:
            raise GameError(f"the saved state is of {found}; this game continues from {wanted}")
        latest = max(state["clock"])
        if self._limit is not None and latest >= self._limit:
            raise GameError(f"the saved episode is at step {latest}; this game's last {self._limit} steps")
        self._seed = int(state["seed"])
        self._episode[:], self._clock[:] = state["episode"], state["clock"]
        self._state = saved.to(self.rules.device).movedim(0, self.rules.batch).contiguous()
        return self._look()

    def close(self) -> None:
        """Nothing to free."""

    def _begin(self, starting: NDArray[np.bool_]) -> None:
        """Start the episode numbered `_episode` in the copies `starting (C,)`."""
        self._clock[starting] = 0
        for episode in np.unique(self._episode[starting]):
            self._rng.manual_seed(episode_seed(self._seed, 0, int(episode)))
            fresh = self.rules.draw(self.copies, self._rng)
            chosen = starting & (self._episode == episode)
            if self._state is None or chosen.all():
                self._state = fresh
            else:
                shape = [1] * fresh.ndim
                shape[self.rules.batch] = self.copies
                self._state = torch.where(self._on_device(chosen).view(shape), fresh, self._state)

    def _look(self) -> View:
        self._view = replace(self._view, **self.rules.see(self._playing()))
        return self._view

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.rules.device)

    def _playing(self) -> Tensor:
        if self._state is None:
            raise GameError(f"call reset(seed) before playing {self.spec.name!r}")
        return self._state


class RulesKernel:
    """A kernel that plays the rules themselves: the limit that no learned dynamics can beat.

    The carry is the state, batch first, rebuilt at the branch from what is seen there; later steps go on from the carry
    and read the desired goal alone from the view.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules, self.spec = rules, rules.spec
        self._nobody = torch.zeros((), dtype=torch.bool, device=rules.device)

    def init(self, window: Window, ego: Tensor, rng: torch.Generator) -> Carry:
        """Start B branches at what is seen now; egos and chance play no part.

        Raises:
            GameError: where the observations are not of this game, or do not determine its state.
        """
        width = window.now.obs.shape[1]
        if width != self.spec.obs_dim:
            raise GameError(f"{self.spec.name!r} has {self.spec.obs_dim} joint observations, got {width}")
        if len(window.obs[0]) < self.spec.frames:
            raise GameError(f"{self.spec.name!r} needs windows of {self.spec.frames} joint observations")
        return self.rules.reconstruct(window).movedim(self.rules.batch, 0)

    def step(self, carry: Carry, view: View, act: Tensor, rng: torch.Generator) -> tuple[Carry, Outcome]:
        """One step of all branches under `act (B, A)`."""
        rules, before = self.rules, carry.movedim(0, self.rules.batch)
        after = rules.move(before, act, self.chance(len(act), rng) if rules.chances else None)
        seen = rules.see(after)
        if rules.goal_rule is None:
            reward = rules.rewards(before, act, after)
        else:
            seen |= {"desired": view.desired}
            reward = rules.goal_rule.reward(seen["achieved"], view.desired)
        nobody = self._nobody.expand(len(act), self.spec.n)
        if not self.spec.terminates:
            terminated = nobody
        elif rules.goal_rule is None:
            terminated = rules.ends(before, act, after)
        else:
            terminated = rules.goal_rule.terminated(seen["achieved"], view.desired)
        arrived = View.of(self.spec, seen.pop("obs"), **seen)
        if self.spec.terminates:
            arrived = replace(arrived, acting=arrived.acting & ~terminated)
        return after.movedim(rules.batch, 0), Outcome(after=arrived, reward=reward, terminated=terminated)

    def chance(self, rows: int, rng: torch.Generator) -> Tensor:
        """`(B, U)` the uniform numbers in [0, 1) that a step of B rows takes."""
        return torch.rand(rows, self.rules.chances, generator=rng, device=rng.device, dtype=torch.float64)
