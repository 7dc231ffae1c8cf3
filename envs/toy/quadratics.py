"""The max of two quadratics: a wide hill that is easy to climb, and a steep one beside it that is higher.

Panait, Luke, Wiegand 2006; played by learners of continuous actions in Wei, Wicke, Freelan, Luke 2018 (1804.09817),
and in the papers of PR2 (1901.09207) and ROMMEO (1905.08087).

Shape suffixes: B rows.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules

Form = Literal["paper", "code"]
"""whether the distance to the lower hill is divided by its width before it is squared, or afterwards"""

REACH = 10.0
"""environment units between the middle and a bound of every action"""
LOW, HIGH = -5.0, 5.0
"""where the tops of the lower and of the higher hill are, on both axes"""
STEEPNESS, WIDTH, HEIGHT = 0.8, 3.0, 10.0


class TwoQuadratics(Rules):
    """Two agents name one number each, `a` and `b` in [-10, 10], and both are paid the larger one of

        0.8 (-((a + 5) / 3)^2 - ((b + 5) / 3)^2)        and        10 - (a - 5)^2 - (b - 5)^2.

    Whoever follows what its own number is worth against what the other does now ends at (-5, -5), which pays 0. What is
    seen is a 1 for each agent, since networks need something to read.

    Args:
        form: "paper" as above; "code" as PR2's and ROMMEO's released environment has it, `(a + 5)^2 / 3`, whose lower
            hill is three times as steep.
        episode_limit: with 1 every move is an episode and terminates; more of them are independent of each other, and
            the last one truncates, so that values add up what is still to come. >= 1.

    Raises:
        GameError: the form is unknown.
    """

    def __init__(
        self, *, form: Form = "paper", episode_limit: int = 1, device: torch.device | str = "cpu"
    ) -> None:  # fmt: skip
        if form not in get_args(Form):
            raise GameError(f"form={form!r} of the two quadratics must be 'paper' or 'code'")
        self.form: Form = form
        self.device, self.dtype = torch.device(device), torch.float32
        box = Head(kind="box", size=1)
        self.spec = GameSpec(
            name="two_quadratics",
            agents=tuple(
                AgentSpec(name=f"agent_{i}", obs=(i,), heads=(box,), low=(-REACH,), high=(REACH,), shape=(1,))
                for i in range(2)
            ),
            obs_dim=2, episode_limit=episode_limit, terminates=episode_limit == 1,
        )  # fmt: skip

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """Nothing to draw: `(C, 1)` ones."""
        return torch.ones(copies, 1, device=self.device)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """Nothing moves."""
        return state

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """A 1 for each agent."""
        return {"obs": state.expand(-1, 2)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """The same for both, `(B, 2)`."""
        return self.payoff(REACH * act)[:, None].expand(-1, 2)

    def payoff(self, numbers: Tensor) -> Tensor:
        """What both numbers `(..., 2)`, in environment units, are paid: `(...)`."""
        divisor = WIDTH**2 if self.form == "paper" else WIDTH
        lower = -STEEPNESS * ((numbers - LOW).square() / divisor).sum(-1)
        return torch.maximum(lower, HEIGHT - (numbers - HIGH).square().sum(-1))

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """Always; asked where episodes are of one move."""
        return torch.ones(len(act), 2, dtype=torch.bool, device=self.device)

    def reconstruct(self, window: Window) -> Tensor:
        """`(B, 1)` ones."""
        return window.now.obs[:, :1]

    def optimum(self) -> tuple[float, tuple[float, float]]:
        """The largest reward of a move, and the numbers that are paid it."""
        return HEIGHT, (HIGH, HIGH)
