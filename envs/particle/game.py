"""Particle games played in many copies at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from presage.common.game import GameError, Rows, View, episode_seed
from presage.envs.particle.drawing import draw
from presage.envs.particle.physics import WorldState
from presage.envs.particle.scenario import Scenario, uniform
from presage.envs.particle.simulator import Simulator, game_spec


class ParticleGame:
    """A particle scenario in `copies` copies, equal to mpe2's parallel environment step by step.

    Episode e of all copies is drawn at once from (seed, e), one copy after another: it is the same whatever was played
    before it, for any `dtype`, and on a CPU for any number of copies. So are the numbers that a step leaves to chance.
    Where no episode terminates, all are truncated after the same number of steps. Flags that never vary are shared
    between the rows and views that this game returns.

    Args:
        scenario: `Spread()`, `Tag()` or another one.
        copies: games played side by side, >= 1.
        device: where all tensors live.
        dtype: of states, observations and rewards; mpe2 computes in float64 and shows float32.
        continuous: Box actions in place of discrete ones.
        episode_limit: env steps in an episode, >= 1.

    Raises:
        GameError: for sizes below 1; from `step` before `reset`, or for an action that is not one of this game.
    """

    def __init__(
        self,
        scenario: Scenario,
        copies: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        continuous: bool = False,
        episode_limit: int = 25,
    ) -> None:
        if copies < 1 or episode_limit < 1:
            raise GameError(f"copies={copies} and episode_limit={episode_limit} must both be >= 1")
        self.spec = game_spec(scenario, continuous=continuous, episode_limit=episode_limit)
        self.copies = copies
        self.goal_rule = scenario.goal_rule
        self._achieved = list(self.spec.achieved)
        self._limit = episode_limit
        if scenario.chances and scenario.terminates:
            raise GameError(f"{scenario.name!r} leaves steps to chance and terminates; its copies need one clock")
        self._simulator = Simulator(scenario, self.spec, device=device, dtype=dtype)
        self._rng = torch.Generator(device)
        self._seed = 0
        self._episode = np.zeros(copies, dtype=np.int64)
        self._clock = np.zeros(copies, dtype=np.int32)
        self._state: Tensor | None = None
        self._view = View.of(self.spec, torch.zeros(copies, self.spec.obs_dim, dtype=dtype, device=device))
        self._never = torch.zeros(copies, self.spec.n, dtype=torch.bool, device=device)
        self._heads = torch.zeros(self.spec.act_dim, len(self.spec.heads), device=device)
        for column, (_, _, where) in enumerate(self.spec.heads):
            self._heads[where, column] = 1.0
        self._one_each = torch.ones(copies, len(self.spec.heads), device=device)

    def reset(self, seed: int) -> View:
        """Start episode 0 in every copy; C rows."""
        self._seed = seed
        self._episode[:] = 0
        self._begin(np.ones(self.copies, dtype=bool))
        return self._look()

    def step(self, act: Tensor) -> tuple[Rows, View]:
        """Play `act (C, A)` in all copies; the transitions, and the view to act on next."""
        state = self._playing()
        act = act.detach()
        self._check(act)
        before, step = self._view, self._on_device(self._clock.copy())
        chance = None
        if self._simulator.scenario.chances:
            chance = self.chance(int(self._episode[0]), int(self._clock[0]))
        self._clock += 1
        self._state = self._simulator.step(state, act, chance)
        after = self._look()
        cut = self._clock == self._limit
        ended, terminated = cut, self._never
        if self.spec.terminates:  # a step that is the last one anyway does not terminate
            done = self._simulator.scenario.over(self._state) & ~self._on_device(cut)
            terminated = done[:, None].expand(-1, self.spec.n)
            after = replace(after, acting=~terminated)
            ended = cut | done.cpu().numpy()
        rows = Rows.of(
            self.spec, before, act, self._simulator.scenario.rewards(self._state), after, terminated,
            self._on_device(cut), step,
        )  # fmt: skip
        if ended.any():
            self._episode[ended] += 1
            self._begin(ended)
            after = self._look()
        return rows, after

    def chance_seed(self, episode: int, step: int) -> int:
        """What draws the numbers of step number `step` (from 0) of an episode, after `reset(seed)`."""
        words = np.random.SeedSequence((self._seed, 0, episode, step + 1)).generate_state(1, dtype=np.uint32)
        return int(words[0])

    def chance(self, episode: int, step: int) -> Tensor:
        """`(C, U)` the uniform numbers in [0, 1) that this step takes."""
        self._rng.manual_seed(self.chance_seed(episode, step))
        return uniform(self.copies, self._simulator.scenario.chances, self._rng)

    def world_state(self) -> WorldState:
        """Where everything is now, batch first."""
        return self._simulator.world.unpack(self._playing())

    def inject(self, state: WorldState) -> View:
        """Go on from `state` in all copies; the clock runs on from where it is.

        Raises:
            GameError: where a shape does not fit this game.
        """
        packed = self._simulator.pack(state)
        if packed.shape[1] != self.copies:
            raise GameError(f"the injected state has {packed.shape[1]} rows; this game has {self.copies} copies")
        self._state = packed
        return self._look()

    def state(self) -> dict[str, Any]:
        """Plain data from which `restore` continues exactly; the draws to come follow from seed and episode."""
        return {
            "game": self.spec.name,
            "seed": self._seed,
            "episode": self._episode.tolist(),
            "clock": self._clock.tolist(),
            "state": self._playing().T.contiguous().cpu(),
        }

    def restore(self, state: Mapping[str, Any]) -> View:
        """Continue from `state`; the view to act on next.

        Raises:
            GameError: where the state is of another scenario, other bodies, other copies, another dtype, or further on
                than this game's episodes last.
        """
        saved: Tensor = state["state"]
        found = (state["game"], tuple(saved.shape), saved.dtype)
        wanted = (self.spec.name, (self.copies, self._simulator.world.zero + 1), self._simulator.dtype)
        if found != wanted:
            raise GameError(f"the saved state is of {found}; this game continues from {wanted}")
        if not 0 <= max(state["clock"]) < self._limit:
            raise GameError(f"the saved episode is at step {max(state['clock'])}; this game's last {self._limit} steps")
        self._seed = int(state["seed"])
        self._episode[:], self._clock[:] = state["episode"], state["clock"]
        self._state = saved.to(self._simulator.device).T.contiguous()
        return self._look()

    def render(self, copy: int = 0) -> NDArray[np.uint8]:
        """Draw one copy; `(H, W, 3)` uint8."""
        return draw(self._simulator.world, self.world_state(), copy)

    def close(self) -> None:
        """Nothing to free."""

    def _begin(self, starting: NDArray[np.bool_]) -> None:
        """Start the episode numbered `_episode` in the copies `starting (C,)`."""
        self._clock[starting] = 0
        for episode in np.unique(self._episode[starting]):
            self._rng.manual_seed(episode_seed(self._seed, 0, int(episode)))
            fresh = self._simulator.pack(self._simulator.scenario.draw(self.copies, self._rng))
            chosen = starting & (self._episode == episode)
            if self._state is None or chosen.all():
                self._state = fresh
            else:
                self._state = torch.where(self._on_device(chosen), fresh, self._state)

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._simulator.device)

    def _look(self) -> View:
        state = self._playing()
        obs = self._simulator.observe(state)
        if self.spec.goal_dim:
            goals = {"achieved": obs[:, self._achieved], "desired": self._simulator.scenario.desired(state)}
            self._view = replace(self._view, obs=obs, **goals)
        else:
            self._view = replace(self._view, obs=obs)
        return self._view

    def _playing(self) -> Tensor:
        if self._state is None:
            raise GameError(f"call reset(seed) before playing {self.spec.name!r}")
        return self._state

    def _check(self, act: Tensor) -> None:
        """Raise GameError for a bad action; the spec's own check, which says what is wrong, runs on bad ones only."""
        fits = tuple(act.shape) == (self.copies, self.spec.act_dim)
        if fits and self.spec.discrete:
            ones_of_head = (act == 1).to(self._heads.dtype) @ self._heads
            fits = torch.equal(ones_of_head, self._one_each) and int(act.count_nonzero()) == ones_of_head.numel()
        elif fits:
            fits = bool((act.abs() <= 1.0 + 1e-6).all())
        if not fits:
            self.spec.check_action(act)
            raise GameError(f"{len(act)} joint actions for {self.copies} copies of {self.spec.name!r}")
