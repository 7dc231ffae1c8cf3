"""Relabelling: rows as they would have been under other goals. The rule of the game says what is then paid and ended.

Goals do not move the world, so a transition is as true under any of them; what changes is `desired`, and with it
`reward` and `terminated`. Stored rows are never edited: relabelled ones are new tensors.

Shape suffixes: B rows, N agents, G goal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameError, GameSpec, GoalRule, Rows

Ends = Literal["rule", "success", "never"]


class Relabeller(Protocol):
    """Gives drawn rows other goals."""

    def __call__(self, replay: EpisodicReplay, index: Tensor, rows: Rows, rng: torch.Generator) -> Rows:
        """The rows under the goals that are chosen for them, as new tensors.

        Args:
            replay: where they were drawn. index: `(B,)` their places in it. rows: `replay.rows(index)`.
            rng: on the replay's device.
        """
        ...


class BranchRelabeller(Protocol):
    """Gives imagined rows other goals, when their branches are done."""

    def __call__(self, steps: Sequence[tuple[Rows, Tensor]], rng: torch.Generator) -> Iterable[Rows]:
        """The rows of every step under the goals that are chosen for them, as new tensors.

        Args:
            steps: for every step, the first of which all branches made, its rows and which branches these are, `(B,)`
            rng: on the rows' device.
        """
        ...


class Goals:
    """Whose goals are whose: the agents of a game, and how rows are rewritten under goals of their own.

    Agents that share an entry of the goal vector are of one group, whose goals are replaced together. A rule is taken
    to pay every agent for its own goal alone.
    """

    def __init__(self, spec: GameSpec, rule: GoalRule, ends: Ends = "rule", device: torch.device | str = "cpu") -> None:
        """
        Args:
            rule: the game's own (`goal_rule`).
            ends: when a row under a new goal has no future: as the game's rule says; wherever the goal is reached
                ("success"), as in first-visit returns; or nowhere ("never"), as in the papers on hindsight, whose
                goals are to be held on to.

        Raises:
            GameError: the game has no goals, or entries of its goal vector that are no agent's.
            ValueError: `ends` is none of these.
        """
        if ends not in get_args(Ends):
            raise ValueError(f"ends={ends!r} must be one of {', '.join(map(repr, get_args(Ends)))}")
        if not spec.goal_dim:
            raise GameError(f"{spec.name!r} has no goals to replace; relabel games whose GameSpec.goal_dim is > 0")
        self.spec, self.rule, self.ends = spec, rule, ends
        group = _groups(spec)
        nobody = sorted(set(range(spec.goal_dim)) - {k for agent in spec.agents for k in agent.goal})
        if nobody:
            raise GameError(
                f"{spec.name!r}: entries {nobody} of the goal vector belong to no agent; name them in AgentSpec.goal"
            )
        names = sorted({place for place, agent in zip(group, spec.agents, strict=True) if agent.goal})
        self.groups = len(names)
        """K, groups of agents that have goals"""
        owner = {k: names.index(group[i]) for i, agent in enumerate(spec.agents) for k in agent.goal}
        self.of_entry = torch.tensor([owner[k] for k in range(spec.goal_dim)], device=device)
        """(G,) the group that each entry belongs to"""
        self._aiming = [i for i, agent in enumerate(spec.agents) if agent.goal]
        self._of_agent = torch.tensor([names.index(group[i]) for i in self._aiming], device=device)

    def by_entry(self, of_groups: Tensor) -> Tensor:
        """`(B, K)`, one for each group, as `(B, G)`, one for each entry of the goal; `(B, 1)` where all are of one
        group.
        """
        return of_groups if self.groups == 1 else of_groups[:, self.of_entry]

    def places(self, size: int, rng: torch.Generator) -> Tensor:
        """`(B, K)` numbers in [0, 1), evenly spread over the rows, and for every group in an order of its own.

        Of B rows, as many lie in a part of [0, 1) as its length says, or a whole number next to that: rows that are
        chosen by them are chosen in exact shares.
        """
        device = self.of_entry.device
        turn = torch.rand(1, generator=rng, device=device, dtype=torch.float64)
        place = (torch.arange(size, device=device) + turn) / size
        if self.groups == 1:
            return place[:, None]
        return place[torch.rand(size, self.groups, generator=rng, device=device).argsort(0)]

    def replaced(self, rows: Rows, desired: Tensor, chosen: Tensor) -> Rows:
        """The rows under the goals `desired (B, G)` of the groups in `chosen (B, K)`; whoever is not chosen keeps goal,
        reward and termination. Nothing is edited in place.
        """
        desired = torch.where(self.by_entry(chosen), desired, rows.desired)
        reward, terminated = self.rule.reward(rows.next_achieved, desired), rows.terminated
        if self.ends == "never":
            terminated = torch.zeros_like(rows.terminated)
        elif self.ends == "success":
            terminated = self.rule.success(rows.next_achieved, desired)
        elif self.spec.terminates:
            terminated = self.rule.terminated(rows.next_achieved, desired)
        mine = chosen
        if self.spec.n > 1:
            mine = torch.zeros_like(rows.acting)
            mine[:, self._aiming] = chosen[:, self._of_agent]
        found = rows.with_(desired=desired, reward=torch.where(mine, reward, rows.reward))
        if terminated is rows.terminated:
            return found
        return found.with_(terminated=torch.where(mine, terminated, rows.terminated))


class Pooled:
    """A relabeller that rewrites many rows at once, and then gives out batches of them for a while.

    What is costly for small batches, such as rollouts of the present policy, is cheap for one large one; goals are then
    those of a policy that is at most so many batches old.
    """

    def __init__(self, relabel: Relabeller, size: int, batches: int) -> None:
        """
        Args:
            size: rows of the pool. batches: that are drawn from the same pool.

        Raises:
            ValueError: a number is below 1.
        """
        if size < 1 or batches < 1:
            raise ValueError(f"size={size} and batches={batches} must be >= 1")
        self.relabel, self.size, self.batches = relabel, size, batches
        self.drawn = batches
        """batches that the present pool has given"""
        self.pool: Rows | None = None

    @property
    def metrics(self) -> Mapping[str, Tensor]:
        """What the relabeller says of the pool."""
        found: Mapping[str, Tensor] = getattr(self.relabel, "metrics", {})
        return found

    def __call__(self, replay: EpisodicReplay, index: Tensor, rows: Rows, rng: torch.Generator) -> Rows:
        """As many rows as `index`, of the pool; which ones were asked for is not read."""
        if self.pool is None or self.drawn >= self.batches:
            chosen = replay.sample(self.size, rng)
            self.pool, self.drawn = self.relabel(replay, chosen, replay.rows(chosen), rng), 0
        self.drawn += 1
        return self.pool[torch.randint(self.size, (len(index),), generator=rng, device=index.device)]

    def state(self) -> dict[str, Any]:
        """Tensors from which `restore` goes on exactly."""
        pool = {} if self.pool is None else {f.name: getattr(self.pool, f.name).cpu() for f in fields(Rows)}
        return {"drawn": self.drawn, "pool": pool}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.drawn, pool = int(state["drawn"]), state["pool"]
        self.pool = Rows(**pool) if pool else None


def _groups(spec: GameSpec) -> list[int]:
    """For every agent the first one that it is tied to by shared entries of the goal vector."""
    group = list(range(spec.n))
    for i, agent in enumerate(spec.agents):
        for j in range(i):
            if group[i] != group[j] and set(agent.goal) & set(spec.agents[j].goal):
                low, high = sorted((group[i], group[j]))
                group = [low if place == high else place for place in group]
    return group
