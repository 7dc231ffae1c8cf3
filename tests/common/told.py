"""Games whose goals tell where they come from: what is achieved is a number made of lane, episode and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GameSpec, Rows, View, concatenate
from tests.common.toy import box_agent

EPISODE, LANE, PURSUED = 100, 100_000, -1.0
"""what an episode and a lane add to the number of a step; the goal that was pursued in lane 0, episode 0"""


@dataclass(frozen=True)
class Exactly:
    """-1 until the goal is what was achieved, for every agent's own entry; the episode ends there."""

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.success(achieved, desired).to(achieved.dtype) - 1.0

    def terminated(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return self.success(achieved, desired)

    def success(self, achieved: Tensor, desired: Tensor) -> Tensor:
        return achieved == desired


def told_spec(agents: int, achieved: bool) -> GameSpec:
    """Agents that each read one number of their own; `achieved`: whether it is what they achieve."""
    return GameSpec(
        name="told", agents=tuple(box_agent(f"agent_{i}", (i,), 1, (i,)) for i in range(agents)), obs_dim=agents,
        goal_dim=agents, achieved=tuple(range(agents)) if achieved else (), terminates=True,
    )  # fmt: skip


@dataclass
class Told:
    """Lanes that play episodes of given lengths, and a replay that takes their rows."""

    spec: GameSpec
    replay: EpisodicReplay
    lengths: Sequence[Sequence[int]]
    """of every lane's episodes"""
    played: list[list[tuple[int, int]]] = field(default_factory=list)
    """(episode, step) of every row ever inserted, per lane"""

    def __post_init__(self) -> None:
        self.played = [[] for _ in self.lengths]
        self.plan = [[(e, t) for e, length in enumerate(lane) for t in range(length)] for lane in self.lengths]

    def row(self, lane: int, episode: int, step: int) -> Rows:
        """The transition from one number to the next."""
        told = LANE * lane + EPISODE * episode + step + torch.zeros(1, self.spec.n)
        desired = torch.full_like(told, PURSUED - LANE * lane - EPISODE * episode)
        never = torch.zeros(1, self.spec.n, dtype=torch.bool)
        view, after = (View.of(self.spec, x, achieved=x, desired=desired) for x in (told, told + 1))
        over = torch.tensor([step + 1 == self.lengths[lane][episode]])
        return Rows.of(
            self.spec, view, told * 0, told * 0 - 1, after, never, over, torch.tensor([step], dtype=torch.int32)
        )

    def play(self, counts: Sequence[int]) -> None:
        """Insert so many further rows of every lane at once; lanes whose plan is at its end give none."""
        rows, lanes = [], []
        for lane, count in enumerate(counts):
            for place in self.plan[lane][len(self.played[lane]) :][:count]:
                rows.append(self.row(lane, *place))
                lanes.append(lane)
                self.played[lane].append(place)
        if rows:
            self.replay.extend(concatenate(rows), torch.tensor(lanes))

    def held(self, lane: int) -> list[tuple[int, int]]:
        """(episode, step) of the rows that the replay still holds, oldest first."""
        return self.played[lane][max(0, len(self.played[lane]) - self.replay.slots) :]

    def at(self, index: int) -> tuple[int, int, int]:
        """(lane, episode, step) of the row at a place of the replay."""
        told = int(self.replay.rows(torch.tensor([index])).achieved[0, 0])
        return told // LANE, told % LANE // EPISODE, told % EPISODE

    def steps(self, lane: int, episode: int) -> list[int]:
        """The steps of an episode that are held."""
        return [step for e, step in self.held(lane) if e == episode]


@st.composite
def told_games(draw: st.DrawFn, agents: int | None = None) -> Told:
    """Lanes and rings of many sizes, fed unevenly, wrapped around, with episodes open, cut off and as long as rings."""
    lanes = draw(st.integers(1, 3))
    n = draw(st.integers(1, 3)) if agents is None else agents
    spec = told_spec(n, draw(st.booleans()))
    replay = EpisodicReplay(spec, draw(st.integers(lanes, 30 * lanes)), lanes)
    lengths = draw(st.lists(st.lists(st.integers(1, 22), min_size=1, max_size=6), min_size=lanes, max_size=lanes))
    told = Told(spec, replay, lengths)
    for _ in range(draw(st.integers(1, 6))):
        one = draw(st.integers(0, 40))
        told.play(draw(st.lists(st.integers(0, 40), min_size=lanes, max_size=lanes) | st.just([one] * lanes)))
    if not any(told.played):
        told.play([1] * lanes)
    return told
