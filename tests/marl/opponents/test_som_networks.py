"""The network of SOM: its parts against plain layers, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from presage.common.game import Head
from presage.marl.opponents.som_networks import RoleNetwork
from tests.common.toy import generator

CHOICE = (Head(kind="discrete", size=4),)


def network_of(**numbers: Any) -> RoleNetwork:
    given: dict[str, Any] = {"own": CHOICE, "hidden": (8, 7), "memory": 6} | numbers
    return RoleNetwork(5, 3, rng=generator(0), **given)


def inputs(*rows: int) -> list[torch.Tensor]:
    return [torch.randn(*rows, width, generator=generator(seed)) for seed, width in enumerate((5, 3, 3, 6))]


@pytest.mark.parametrize("rows", [(4,), (2, 3), (2, 3, 2)])
def test_any_leading_dimensions_are_rows(rows: tuple[int, ...]) -> None:
    network = network_of()
    state, own, other, memory = inputs(*rows)
    parameters, value, kept = network(network.read(state), own, other, memory)
    assert (parameters.shape, value.shape, kept.shape) == ((*rows, 4), rows, (*rows, 6))
    flat = [part.reshape(-1, part.shape[-1]) for part in (state, own, other, memory)]
    wanted = network(network.read(flat[0]), *flat[1:])
    torch.testing.assert_close(parameters.reshape(-1, 4), wanted[0])
    torch.testing.assert_close(value.reshape(-1), wanted[1])
    torch.testing.assert_close(kept.reshape(-1, 6), wanted[2])
    assert network.begin(*rows).tolist() == torch.zeros(*rows, 6).tolist()


def test_it_depends_on_everything_it_is_given_and_on_which_goal_is_whose() -> None:
    network, given = network_of(), inputs(4)
    before = network(network.read(given[0]), *given[1:])[0]
    for place in range(4):
        other = [part + (k == place) for k, part in enumerate(given)]
        assert (network(network.read(other[0]), *other[1:])[0] != before).any(1).all()
    assert (network(network.read(given[0]), given[2], given[1], given[3])[0] != before).any(1).all()


def test_without_a_memory_the_heads_read_the_layers() -> None:
    network = network_of(memory=0)
    state, own, other, _ = inputs(4)
    none = network.begin(4)
    parameters, value, kept = network(network.read(state), own, other, none)
    x = network.embed(network.read(state), own, other)
    found = x @ network.heads.weight[0] + network.heads.bias[0]
    torch.testing.assert_close(torch.cat([parameters, value[:, None]], 1), found)
    assert kept.shape == (4, 0)


def test_box_actions_take_two_numbers_each_and_predictions_a_head_of_their_own() -> None:
    box = network_of(own=(Head(kind="box", size=2),), predicts=3)
    state, own, other, memory = inputs(4)
    assert box(box.read(state), own, other, memory)[0].shape == (4, 4)
    x = box.embed(box.read(state), own, other)
    assert box.predict(x, box.remember(x, memory)).shape == (4, 3)
    with pytest.raises(ValueError, match="no head for what the other does"):
        network_of().predict(x, memory)


@pytest.mark.parametrize("numbers", [{"hidden": ()}, {"hidden": (0,)}, {"memory": -1}, {"predicts": -1}])
def test_what_makes_no_network_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must have a layer"):
        network_of(**numbers)
