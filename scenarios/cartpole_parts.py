"""The true dynamics of the cart-pole that has to be swung up, and what it pays, as a rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from presage.common.evaluate import first_window
from presage.common.game import GameSpec, View
from presage.envs.batched import RulesKernel
from presage.envs.toy import CartPoleSwingUp


class CartPoleKernel(RulesKernel):
    """The cart-pole itself; what it pays follows from where it is after a step."""

    def reward(self, view: View, act: Tensor, after: View) -> Tensor:
        """`(B, 1)`; see `CartPoleSwingUp.rewards`."""
        before, state = (self.rules.reconstruct(first_window(self.spec, each)) for each in (view, after))
        return self.rules.rewards(before, act, state)


def cartpole_kernel(spec: GameSpec, options: Mapping[str, Any], device: torch.device) -> CartPoleKernel:
    """The cart-pole with the run's own friction and substeps."""
    return CartPoleKernel(CartPoleSwingUp(**options, device=device))
