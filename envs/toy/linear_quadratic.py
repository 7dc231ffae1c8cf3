"""A noisy linear system that is paid quadratically: the one continuous task whose best policy is a formula.

Shape suffixes: B rows, T steps.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules

Matrix = NDArray[np.float64]

DRIFT = ((0.95, 0.3), (-0.1, 0.9))
PUSH = ((0.0,), (0.4,))


class LinearQuadratic(Rules):
    """`x' = A x + B u + noise w`, paid `-(x' Q x + u' R u)` with the state before the step; w is standard normal.

    The default is a damped body on a spring, position and velocity, that is pushed back to the middle; its costs are
    small enough for networks to learn them as they are.

    Args:
        drift: A `(n, n)`. push: B `(n, m)`. state_cost: Q `(n, n)`. push_cost: R `(m, m)`.
        noise: standard deviation of what is added to every component of the state; >= 0.
        most: largest |u| of a component; the formula holds where the best policy does not meet it.
        episode_limit: env steps in an episode, >= 1.

    Raises:
        GameError: the matrices do not fit each other, or a number is out of range.
    """

    def __init__(
        self, drift: Matrix | None = None, push: Matrix | None = None, state_cost: Matrix | None = None,
        push_cost: Matrix | None = None, *, noise: float = 0.02, most: float = 3.2, episode_limit: int = 25,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.drift = np.array(DRIFT) if drift is None else drift
        self.push = np.array(PUSH) if push is None else push
        n, m = self.push.shape
        self.state_cost = 0.1 * np.eye(n) if state_cost is None else state_cost
        self.push_cost = 0.01 * np.eye(m) if push_cost is None else push_cost
        if self.drift.shape != (n, n) or self.state_cost.shape != (n, n) or self.push_cost.shape != (m, m):
            raise GameError(
                f"push of shape {(n, m)} takes drift and state_cost of {(n, n)} and push_cost of {(m, m)}, got "
                f"{self.drift.shape}, {self.state_cost.shape} and {self.push_cost.shape}"
            )
        if noise < 0 or most <= 0:
            raise GameError(f"noise={noise} must be >= 0 and most={most} > 0")
        self.noise, self.most, self.chances = noise, most, n
        self.device, self.dtype = torch.device(device), torch.float32
        every = tuple(range(n))
        agent = AgentSpec(
            name="agent", obs=every, heads=(Head(kind="box", size=m),), low=(-most,) * m, high=(most,) * m, shape=(m,)
        )
        self.spec = GameSpec(name="linear_quadratic", agents=(agent,), obs_dim=n, episode_limit=episode_limit)
        self._drift, self._push, self._state_cost, self._push_cost = (
            torch.as_tensor(x, dtype=torch.float32, device=self.device)
            for x in (self.drift, self.push, self.state_cost, self.push_cost)
        )

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, n)` uniform in [-1, 1]^n."""
        return torch.rand(copies, self.chances, generator=rng, device=self.device) * 2.0 - 1.0

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """One step of the system."""
        after = state @ self._drift.T + (self.most * act) @ self._push.T
        if chance is None:
            return after
        normal: Tensor = torch.special.ndtri(chance.clamp(1e-12, 1.0 - 1e-12))
        return after + self.noise * normal.to(self.dtype)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """The state."""
        return {"obs": state}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """Minus the cost of the state before the step and of the push, `(B, 1)`."""
        push = self.most * act
        cost = ((before @ self._state_cost) * before).sum(1) + ((push @ self._push_cost) * push).sum(1)
        return -cost[:, None]

    def reconstruct(self, window: Window) -> Tensor:
        """The state is what is seen."""
        return window.now.obs

    def riccati(self) -> tuple[list[Matrix], list[Matrix]]:
        """The best policy of an episode (Riccati's recursion): `u_t = -K_t x_t`, of cost `x' P_t x` and noise's share.

        Returns:
            K_0 ... K_T-1 `(m, n)`, and P_0 ... P_T `(n, n)`.
        """
        values = [np.zeros_like(self.state_cost)]
        gains: list[Matrix] = []
        for _ in range(self.spec.episode_limit or 0):
            ahead = values[0]
            lift = self.push_cost + self.push.T @ ahead @ self.push
            gain: Matrix = np.linalg.solve(lift, self.push.T @ ahead @ self.drift).astype(np.float64)
            closed = self.drift - self.push @ gain
            values.insert(0, self.state_cost + gain.T @ self.push_cost @ gain + closed.T @ ahead @ closed)
            gains.insert(0, gain)
        return gains, values

    def optimum(self, obs: Tensor) -> Tensor:
        """The best expected return `(B,)` of an episode from `obs (B, n)`, where pushes stay within their bounds."""
        _, values = self.riccati()
        first = torch.as_tensor(values[0], dtype=obs.dtype, device=obs.device)
        spread = self.noise**2 * sum(float(np.trace(value)) for value in values[1:])
        return -((obs @ first) * obs).sum(1) - spread
