"""What the cart-pole's kernel offers, against the game itself."""

from __future__ import annotations

import torch

from presage.envs.batched import BatchedGame
from presage.envs.toy import CartPoleSwingUp
from presage.scenarios.cartpole_parts import cartpole_kernel


def test_the_rule_for_rewards_is_the_game_s() -> None:
    game = BatchedGame(CartPoleSwingUp(friction=0.3), 16)
    kernel = cartpole_kernel(game.spec, {"friction": 0.3}, torch.device("cpu"))
    view, rng = game.reset(0), torch.Generator().manual_seed(0)
    for _ in range(30):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        torch.testing.assert_close(kernel.reward(rows.view, rows.act, rows.next_view), rows.reward)
    assert kernel.rules.friction == 0.3  # type: ignore[attr-defined]
