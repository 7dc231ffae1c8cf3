"""Stacked recurrent units against torch's own, one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from presage.common.recurrent import StackedGRU
from tests.common.toy import generator


def alone(stacked: StackedGRU, k: int) -> nn.GRU:
    inputs = stacked.get_parameter("read").shape[1]
    one = nn.GRU(inputs, stacked.hidden, batch_first=True)
    with torch.no_grad():
        one.get_parameter("weight_ih_l0").copy_(stacked.get_parameter("read")[k].T)
        one.get_parameter("weight_hh_l0").copy_(stacked.get_parameter("kept")[k].T)
        one.get_parameter("bias_ih_l0").copy_(stacked.get_parameter("read_bias")[k, 0])
        one.get_parameter("bias_hh_l0").copy_(stacked.get_parameter("kept_bias")[k, 0])
    return one


def test_every_unit_is_torchs() -> None:
    stacked = StackedGRU(3, 4, 5, generator(0))
    x = torch.randn(3, 6, 7, 4, generator=generator(1))
    found = stacked(x)
    memory = stacked.begin(6)
    for t in range(7):
        memory = stacked.step(x[:, :, t], memory)
        torch.testing.assert_close(memory, found[:, :, t])
    for k in range(3):
        torch.testing.assert_close(found[k], alone(stacked, k)(x[k])[0])
    alike = stacked.step(x[0, :, 0], stacked.begin(6))
    torch.testing.assert_close(alike[2], alone(stacked, 2)(x[0, :, :1])[0][:, 0])


def test_nothing_is_remembered_of_what_does_not_count() -> None:
    stacked = StackedGRU(2, 3, 4, generator(0))
    x, length = torch.randn(2, 5, 6, 3, generator=generator(1)), torch.tensor([1, 2, 3, 5, 6])
    valid = torch.arange(6) >= 6 - length[:, None]
    found = stacked(x, valid)
    for row, size in enumerate(length.tolist()):
        torch.testing.assert_close(found[:, row, -1], stacked(x[:, row : row + 1, 6 - size :])[:, 0, -1])


def test_gradients_flow_through_time() -> None:
    stacked = StackedGRU(1, 1, 2, generator(0))
    x = torch.zeros(1, 1, 4, 1, requires_grad=True)
    stacked(x)[:, :, -1].sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).all())


def test_widths_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="stack=1, inputs=0 and hidden=2 must be >= 1"):
        StackedGRU(1, 0, 2, generator(0))
