"""A game whose partner is of a hidden kind that is shown once, and whose best return is known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from presage.common.game import Carry, GameSpec, View, Window
from presage.envs.batched import BatchedGame, Rules
from presage.marl.opponents.against import Against, Draw
from presage.marl.opponents.pools import Opponent, Pool
from tests.common.toy import discrete_agent

LENGTH, SHOWN = 8, 3
BEST, GUESSING = 0.5 * SHOWN + (LENGTH - SHOWN), 0.5 * (LENGTH - 1) + 1.0
"""the best expected returns with a memory, and without"""


class Matching(Rules):
    """Two choose at once, and the ego is paid 1 for choosing what its partner does. It sees what that one did last at
    step `SHOWN` alone.
    """

    def __init__(self) -> None:
        self.device, self.dtype = torch.device("cpu"), torch.float32
        agents = (discrete_agent("ego", (0, 1, 2), 2), discrete_agent("partner", (3,), 2))
        self.spec = GameSpec(name="matching", agents=agents, obs_dim=4, terminates=True)

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        return torch.zeros(copies, 2)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        return torch.stack([state[:, 0] + 1, act[:, 3]], 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        time, last = state[:, :1], state[:, 1:]
        shown = (time == SHOWN).float()
        return {"obs": torch.cat([time / LENGTH, shown * (1 - last), shown * last, time / LENGTH], 1)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return (act[:, :1] == act[:, 2:3]).float().expand(-1, 2)

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return (after[:, :1] == LENGTH).expand(-1, 2)


class Always:
    """Makes the same choice for ever."""

    def __init__(self, choice: int) -> None:
        self.choice = choice

    def init(self, window: Window) -> Carry:
        return None

    def step(self, carry: Carry, view: View, rng: Any) -> tuple[Carry, Tensor]:
        return carry, torch.eye(2)[torch.full((len(view),), self.choice)].repeat(1, 2)


SPEC = Matching().spec
POOL = Pool(SPEC, [Opponent(name=f"always {choice}", actor=Always(choice)) for choice in range(2)])


def matching(copies: int, draw: Draw = "uniform") -> Against:
    """Against partners of both kinds."""
    return Against(BatchedGame(Matching(), copies), "ego", POOL, draw=draw)
