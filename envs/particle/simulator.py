"""One scenario on one device: joint actions in, states, observations and rewards out.

The game and the kernel both step through this, so that what is imagined is what is played.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from presage.common.game import AgentSpec, GameSpec, Symmetry
from presage.envs.particle.controls import MOVES, Controls
from presage.envs.particle.physics import Body, Differences, Physics, Term, WorldState
from presage.envs.particle.scenario import Scenario

MOST_SYMMETRIES = 64
"""renamings that a game declares at most: an even choice where there are more"""


def game_spec(scenario: Scenario, *, continuous: bool = False, episode_limit: int = 25) -> GameSpec:
    """The shape of a scenario's game: what the parallel environment of mpe2 has, observations side by side."""
    world = scenario.world
    agents, vectors, first = [], [], 0
    goals = scenario.goals or ((),) * len(world.agents)
    for body, terms, goal in zip(world.agents, scenario.observed(), goals, strict=True):
        space = action_space(body, world.words, continuous=continuous)
        agents.append(AgentSpec.from_space(body.name, range(first, first + len(terms)), space, goal))
        vectors += [(first + k, first + k + 1) for k, (row, _) in enumerate(terms) if row in world.first_rows]
        first += len(terms)
    return GameSpec(
        name=scenario.name, agents=tuple(agents), obs_dim=first, episode_limit=episode_limit, vectors=tuple(vectors),
        frames=scenario.frames, terminates=scenario.terminates, goal_dim=len(scenario.achieved),
        achieved=scenario.achieved,
        symmetries=symmetries(scenario, [agent.width for agent in agents]),
    )  # fmt: skip


def action_space(body: Body, words: int, *, continuous: bool) -> spaces.Space[Any]:
    """An agent's action space as mpe2 has it; with symbols of its own, a MultiDiscrete of move and symbols.

    Args:
        words: numbers in a message of this world.
    """
    words = 0 if body.silent else words
    if continuous:
        return spaces.Box(0.0, 1.0, (MOVES * body.movable + words,))
    if body.symbols:
        return spaces.MultiDiscrete(np.array([MOVES, *body.symbols] if body.movable else body.symbols))
    return spaces.Discrete((MOVES if body.movable else 1) * max(words, 1))


def symmetries(scenario: Scenario, widths: Sequence[int]) -> tuple[Symmetry, ...]:
    """The scenario's renamings in terms of joint observations and actions; `widths`: of the agents' actions."""
    world, seen = scenario.world, scenario.observed()
    starts = [list(accumulate(sizes, initial=0)) for sizes in (map(len, seen), widths)]
    renamings = scenario.interchangeable()
    found = []
    for renaming in renamings[:: max(1, -(-len(renamings) // MOST_SYMMETRIES))]:
        taken_from = world.renamed(*renaming)
        obs: list[int] = []
        act: list[int] = []
        for terms, old in zip(seen, renaming.agents, strict=True):
            places: dict[Term, list[int]] = {}
            for column, term in enumerate(seen[old], starts[0][old]):
                places.setdefault(term, []).append(column)
            obs += [places[taken_from[row], taken_from[origin]].pop(0) for row, origin in terms]
            act += range(starts[1][old], starts[1][old] + widths[old])
        goal = tuple(k for old in renaming.agents for k in (scenario.goals[old] if scenario.goals else ()))
        found.append(Symmetry(tuple(obs), tuple(act), renaming.agents, goal))
    same = tuple(range(len(widths)))
    return tuple(s for s in found if s.agents != same or s.obs != tuple(range(len(s.obs))))


class Simulator:
    """Steps of one scenario for any number of rows."""

    def __init__(self, scenario: Scenario, spec: GameSpec, *, device: torch.device | str, dtype: torch.dtype) -> None:
        self.scenario = scenario
        self.world = scenario.world
        self.device = torch.device(device)
        self.dtype = dtype
        self._controls = Controls(self.world, spec, device=device)
        self._physics = Physics(self.world, device=device, dtype=dtype)
        self._observed = Differences([term for terms in scenario.observed() for term in terms], device=device)
        self._look = scenario.look(self.device)

    def pack(self, named: WorldState) -> Tensor:
        """The state `(D, B)` of a named one, on this device."""
        return self.world.pack(named, device=self.device, dtype=self.dtype)

    def step(self, state: Tensor, act: Tensor, chance: Tensor | None = None) -> Tensor:
        """The state `(D, B)` after the joint actions `act (B, A)` in `state (D, B)`.

        Args:
            chance: `(B, U)` uniform numbers in [0, 1) where the scenario leaves something to chance; most do not.
        """
        push, message = self._controls(act)
        after = self._physics.step(state, push.to(self.dtype), message.to(self.dtype))
        return after if chance is None else self.scenario.happen(after, chance.T)

    def pushes(self, act: Tensor) -> Tensor:
        """`(B, N, 2)` in [-1, 1]: how joint actions `act (B, A)` push the agents."""
        return self._controls(act)[0].permute(2, 1, 0).to(self.dtype)

    def observe(self, state: Tensor) -> Tensor:
        """The joint observation `(B, O)` of `state (D, B)`."""
        seen = self._observed(state)
        if self._look is not None:
            seen = self._look(state, seen)
        return seen.T.contiguous()
