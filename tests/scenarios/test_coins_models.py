"""The board of the coin game's scenarios is worth what they say."""

from __future__ import annotations

import torch

from presage.envs.toy.coins import Coins
from presage.scenarios.coins_models import BOARD


def test_two_who_know_both_goals_can_end_with_7_8_on_average() -> None:
    rules = Coins(**BOARD)  # type: ignore[arg-type]  # options as a scenario holds them
    best = rules.optimum(rules.draw(1_000, torch.Generator().manual_seed(0)))
    assert best.max() <= 8, "two coins of either colour, squared"
    torch.testing.assert_close(best.mean(), torch.tensor(7.84), rtol=0, atol=0.06)
