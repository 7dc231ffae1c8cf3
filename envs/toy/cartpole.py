"""Cart-pole swing-up: a cart on an endless rail swings its hanging pole up by being pushed, and holds it there.

The numbers are those that PILCO made known (Deisenroth and Rasmussen 2011): cart and pole of 0.5 kg each, a pole of
0.6 m, friction 0.1 N/(m/s) at the wheels, pushes of at most 10 N held for 0.1 s.

Shape suffixes: B rows, C copies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from presage.common.game import AgentSpec, GameError, GameSpec, Head, Window
from presage.envs.batched import Rules

GRAVITY = 9.82
CART, POLE, LENGTH, FRICTION, FORCE = 0.5, 0.5, 0.6, 0.1, 10.0
"""kg, kg, m, N s/m, N"""
INTERVAL = 0.1
"""seconds between two actions"""
SPREAD = 0.1
"""standard deviation of every number of the first state"""


class CartPoleSwingUp(Rules):
    """One box action pushes the cart; the pole hangs at the start.

    The state is (x, x', theta, theta'), theta = 0 upright and counted clockwise; seen are (x, x', cos theta, sin theta,
    theta'). The pole is a uniform rod of length l and mass m on a cart of mass M under the push u with friction b:

        (M + m) x'' + m l/2 (theta'' cos theta - theta'^2 sin theta) = u - b x'
        m l^2/3 theta'' + m l/2 x'' cos theta = m g l/2 sin theta

    (Lagrange's equations), integrated by the classic Runge-Kutta method. A step pays exp(-d^2 / l^2) with d the
    distance of the pole's tip from where it is when the pole stands upright at x = 0, as PETS's cart-pole does (Chua et
    al. 2018).

    Args:
        episode_limit: env steps in an episode, >= 1. friction: b, >= 0. substeps: of the integrator in an env step.

    Raises:
        GameError: a number is out of range.
    """

    BEST_KNOWN = 43.6
    """return of an episode of 50 env steps that planning in the true dynamics reaches, mean over 32 starts; a test
    marked `full` reaches it again"""

    def __init__(
        self, *, episode_limit: int = 50, friction: float = FRICTION, substeps: int = 5,
        device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        if friction < 0 or substeps < 1:
            raise GameError(f"friction={friction} must be >= 0 and substeps={substeps} >= 1")
        self.friction, self.substeps = friction, substeps
        self.device, self.dtype = torch.device(device), dtype
        agent = AgentSpec(
            name="agent", obs=(0, 1, 2, 3, 4), heads=(Head(kind="box", size=1),), low=(-FORCE,), high=(FORCE,),
            shape=(1,),
        )  # fmt: skip
        self.spec = GameSpec(name="cartpole_swingup", agents=(agent,), obs_dim=5, episode_limit=episode_limit)

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        """`(C, 4)` about a cart at rest in the middle under a hanging pole."""
        number = torch.rand(copies, 4, generator=rng, device=self.device, dtype=torch.float64)
        noise: Tensor = torch.special.ndtri(number.clamp(1e-12, 1.0 - 1e-12))  # `randn` draws not copy after copy
        return (SPREAD * noise + noise.new_tensor([0.0, 0.0, math.pi, 0.0])).to(self.dtype)

    def accelerations(self, state: Tensor, push: Tensor) -> tuple[Tensor, Tensor]:
        """x'' and theta'' `(B,)` each in `state (B, 4)` under `push (B,)` newtons: the equations, solved for both."""
        _, speed, angle, turn = state.unbind(1)
        sine, cosine, half = angle.sin(), angle.cos(), POLE * LENGTH / 2
        along = push - self.friction * speed + half * turn.square() * sine
        inertia, lift = POLE * LENGTH**2 / 3, half * GRAVITY * sine
        determinant = (CART + POLE) * inertia - (half * cosine).square()
        return (inertia * along - half * cosine * lift) / determinant, (
            (CART + POLE) * lift - half * cosine * along
        ) / determinant

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        """The push is held for a tenth of a second."""
        push, step = FORCE * act[:, 0].to(self.dtype), INTERVAL / self.substeps

        def slope(at: Tensor) -> Tensor:
            cart, pole = self.accelerations(at, push)
            return torch.stack([at[:, 1], cart, at[:, 3], pole], 1)

        for _ in range(self.substeps):
            first = slope(state)
            second = slope(state + 0.5 * step * first)
            third = slope(state + 0.5 * step * second)
            fourth = slope(state + step * third)
            state = state + step / 6 * (first + 2 * second + 2 * third + fourth)
        return state

    def see(self, state: Tensor) -> dict[str, Tensor]:
        """Position, speed, the angle on a circle, and how fast it turns."""
        place, speed, angle, turn = state.unbind(1)
        return {"obs": torch.stack([place, speed, angle.cos(), angle.sin(), turn], 1)}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        """`exp(-d^2 / l^2)`, `(B, 1)`, after the step."""
        place, _, angle, _ = after.unbind(1)
        across, up = place + LENGTH * angle.sin(), LENGTH * angle.cos() - LENGTH
        return (-(across.square() + up.square()) / LENGTH**2).exp()[:, None]

    def reconstruct(self, window: Window) -> Tensor:
        """The angle follows from its cosine and sine."""
        place, speed, cosine, sine, turn = window.now.obs.unbind(1)
        return torch.stack([place, speed, torch.atan2(sine, cosine), turn], 1)

    def energy(self, state: Tensor) -> Tensor:
        """Kinetic and potential energy `(B,)` in joules; it stays where nothing pushes and nothing rubs."""
        _, speed, angle, turn = state.unbind(1)
        coupled = POLE * LENGTH / 2 * speed * turn * angle.cos()
        moving = (CART + POLE) * speed.square() / 2 + coupled + POLE * LENGTH**2 / 6 * turn.square()
        return moving + POLE * GRAVITY * LENGTH / 2 * angle.cos()
