"""One scenario on one device: joint actions in, states, observations and rewards out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from presage.common.game import AgentSpec, GameSpec, KnownColumn, Symmetry, View, Window
from presage.envs.batched import Rules
from presage.envs.particle.controls import MOVES, Controls
from presage.envs.particle.physics import Body, Differences, Physics, Term, WorldState
from presage.envs.particle.scenario import Before, Scenario

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
    spec = GameSpec(
        name=scenario.name, agents=tuple(agents), obs_dim=first, episode_limit=episode_limit, vectors=tuple(vectors),
        frames=scenario.frames, terminates=scenario.terminates, goal_dim=len(scenario.achieved),
        achieved=scenario.achieved,
        symmetries=symmetries(scenario, [agent.width for agent in agents]),
    )  # fmt: skip
    return replace(spec, known=known_columns(scenario, spec))


def known_columns(scenario: Scenario, spec: GameSpec) -> tuple[KnownColumn, ...]:
    """Observed numbers that never change in an episode, and words, which are heard one step after they were said.

    None where the scenario hides, sorts or replaces what is observed (`look`); words alone where it moves by itself
    what the physics leave alone (`happen`).
    """
    cpu, world = torch.device("cpu"), scenario.world
    if scenario.look(cpu) is not None:
        return ()
    act = torch.eye(spec.act_dim + 1, spec.act_dim)  # the last row is zeros
    said = Controls(world, spec, device=cpu)(act)[1]  # (words, A + 1), affine in the action
    offset, kept, found = said[:, -1], type(scenario).happen is Scenario.happen, []
    for column, term in enumerate(term for terms in scenario.observed() for term in terms):
        word = world.word(term)
        if word is not None:
            factors = (said[word, :-1] - offset[word]).tolist()
            reads = tuple((k, factor) for k, factor in enumerate(factors) if factor)
            found.append(KnownColumn(column=column, act=reads, offset=float(offset[word])))
        elif kept and world.kept(term):
            found.append(KnownColumn(column=column, obs=((column, 1.0),)))
    return tuple(found)


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


class ParticleRules(Rules):
    """The rules of one scenario: its physics, what it adds to them, and what is seen and paid.

    Args:
        scenario: such as `Spread()`. device: where all tensors live.
        dtype: of states, observations and rewards; mpe2 computes in float64 and shows float32.
        continuous: Box actions in place of discrete ones. episode_limit: env steps in an episode.
    """

    batch = 1
    cut_first = True

    def __init__(
        self, scenario: Scenario, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
        continuous: bool = False, episode_limit: int = 25,
    ) -> None:  # fmt: skip
        self.spec = game_spec(scenario, continuous=continuous, episode_limit=episode_limit)
        self.scenario, self.world = scenario, scenario.world
        self.device, self.dtype = torch.device(device), dtype
        self.chances, self.goal_rule = scenario.chances, scenario.goal_rule
        self._controls = Controls(self.world, self.spec, device=device)
        self._physics = Physics(self.world, device=device, dtype=dtype)
        self._observed = Differences([term for terms in scenario.observed() for term in terms], device=device)
        self._look = scenario.look(self.device)
        self._achieved = list(scenario.achieved)
        self._heads = torch.zeros(self.spec.act_dim, len(self.spec.heads), device=device)
        for column, (_, _, where) in enumerate(self.spec.heads):
            self._heads[where, column] = 1.0
        self._one = torch.ones((), device=device)

    def pack(self, named: WorldState) -> Tensor:
        """The state `(D, B)` of a named one, on this device."""
        return self.world.pack(named, device=self.device, dtype=self.dtype)

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """First states `(D, C)` of episodes."""
        return self.pack(self.scenario.draw(copies, rng))

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """The state `(D, B)` after the joint actions `act (B, A)` in `state (D, B)`."""
        push, message = self._controls(act)
        after = self._physics.step(state, push.to(self.dtype), message.to(self.dtype))
        return after if chance is None else self.scenario.happen(after, chance.T)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """The joint observation `(B, O)`, and the goals of a scenario that has some."""
        seen = self._observed(state)
        if self._look is not None:
            seen = self._look(state, seen)
        obs = seen.T.contiguous()
        if not self._achieved:
            return {"obs": obs}
        return {"obs": obs, "achieved": obs[:, self._achieved], "desired": self.scenario.desired(state)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """Each agent's reward `(B, N)` for arriving in `after`."""
        return self.scenario.rewards(after)

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """`(B, N)` bool: the episode ends for all agents at once."""
        return self.scenario.over(after)[:, None].expand(-1, self.spec.n)

    def reconstruct(self, window: Window) -> Tensor:
        """The state `(D, B)` behind joint observations, mpe2's as well."""
        before = None
        if self.spec.frames > 1:
            push = self._controls(window.act[:, -2])[0].permute(2, 1, 0).to(self.dtype)
            before = Before(window.obs[:, -2], push, window.valid[:, -2])
        return self.pack(self.scenario.reconstruct(window.now.obs, before))

    def check(self, act: Tensor, view: View) -> None:
        """Raise GameError for a bad action; the spec's own check, which says what is wrong, runs on bad ones only."""
        fits = act.ndim == 2 and act.shape[1] == self.spec.act_dim
        if fits and self.spec.discrete:  # noughts and ones, and a single one in every head
            chosen = act.to(self._heads.dtype)
            ones = chosen @ self._heads
            fits = torch.equal(chosen.square(), chosen) and torch.equal(ones, self._one.expand_as(ones))
        elif fits:
            fits = bool((act.abs() <= 1.0 + 1e-6).all())
        if not fits:
            self.spec.check_action(act)
