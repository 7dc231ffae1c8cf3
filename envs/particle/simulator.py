"""One scenario on one device: joint actions in, states, observations and rewards out.

The game and the kernel both step through this, so that what is imagined is what is played.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
from gymnasium import spaces
from torch import Tensor

from presage.common.game import AgentSpec, GameSpec, Symmetry
from presage.envs.particle.controls import MOVES, Controls
from presage.envs.particle.physics import Differences, Physics, Renaming, Term, World, WorldState

MOST_SYMMETRIES = 64
"""renamings that a game declares at most: an even choice where there are more"""


class Scenario(Protocol):
    """A particle game: its bodies, where they start, what agents see and what they are paid."""

    @property
    def name(self) -> str:
        """The scenario's name."""
        ...

    @property
    def world(self) -> World:
        """Its bodies."""
        ...

    def observed(self) -> tuple[tuple[Term, ...], ...]:
        """Per agent, the numbers it sees, each a difference of two rows of the state."""
        ...

    def interchangeable(self) -> list[Renaming]:
        """Orders of bodies (and of private numbers with them) under which the game is the same, the given one too."""
        ...

    def draw(self, copies: int, rng: torch.Generator) -> WorldState:
        """Initial states of `copies` episodes, float64 on the generator's device.

        One copy's numbers are drawn after another's, so that they do not depend on how many copies follow.
        """
        ...

    def rewards(self, state: Tensor) -> Tensor:
        """Each agent's reward `(B, N)` for arriving in `state (D, B)`."""
        ...

    def reconstruct(self, obs: Tensor) -> WorldState:
        """A state that goes on exactly like the one behind the joint observation `obs (B, O)`."""
        ...


def game_spec(scenario: Scenario, *, continuous: bool = False, episode_limit: int = 25) -> GameSpec:
    """The shape of a scenario's game: what the parallel environment of mpe2 has, observations side by side."""
    world = scenario.world
    agents, vectors, first = [], [], 0
    for body, terms in zip(world.agents, scenario.observed(), strict=True):
        words = 0 if body.silent else world.words
        space: spaces.Space[object]
        if continuous:
            space = spaces.Box(0.0, 1.0, (MOVES * body.movable + words,))
        else:
            space = spaces.Discrete((MOVES if body.movable else 1) * max(words, 1))
        agents.append(AgentSpec.from_space(body.name, range(first, first + len(terms)), space))
        vectors += [(first + k, first + k + 1) for k, (row, _) in enumerate(terms) if row in world.first_rows]
        first += len(terms)
    return GameSpec(
        name=scenario.name, agents=tuple(agents), obs_dim=first, episode_limit=episode_limit, vectors=tuple(vectors),
        symmetries=symmetries(scenario, [agent.width for agent in agents]),
    )  # fmt: skip


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
        found.append(Symmetry(tuple(obs), tuple(act), renaming.agents))
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

    def pack(self, named: WorldState) -> Tensor:
        """The state `(D, B)` of a named one, on this device."""
        return self.world.pack(named, device=self.device, dtype=self.dtype)

    def step(self, state: Tensor, act: Tensor) -> Tensor:
        """The state `(D, B)` after the joint actions `act (B, A)` in `state (D, B)`."""
        push, message = self._controls(act)
        return self._physics.step(state, push.to(self.dtype), message.to(self.dtype))

    def observe(self, state: Tensor) -> Tensor:
        """The joint observation `(B, O)` of `state (D, B)`."""
        return self._observed(state).T.contiguous()
