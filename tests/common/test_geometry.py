"""Lengths and directions of declared vectors, and the networks that read them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from presage.common.game import AgentSpec, GameError, GameSpec, Head
from presage.common.geometry import Geometry
from presage.common.networks import StackedMLP


def game(*vectors: tuple[int, ...]) -> GameSpec:
    """Two agents that see three numbers each, the middle one both."""
    box = {"heads": (Head(kind="box", size=1),), "low": (-1.0,), "high": (1.0,), "shape": (1,)}
    agents = (AgentSpec(name="a", obs=(0, 1, 2), **box), AgentSpec(name="b", obs=(4, 3, 2), **box))  # type: ignore[arg-type]  # one dict of several types
    return GameSpec(name="pair", agents=agents, obs_dim=5, vectors=vectors)


def test_lengths_and_directions_follow_the_observation() -> None:
    geometry = Geometry(((0, 2), (3, 1)))
    obs = torch.tensor([[3.0, 0.0, 4.0, -2.0], [0.0, 0.0, 0.0, 0.5]])
    wanted = torch.tensor([[5.0, 2.0, 0.6, -1.0, 0.8, 0.0], [0.0, 0.5, 0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(geometry.features(obs), wanted)
    assert torch.equal(geometry(obs), torch.cat([obs, geometry.features(obs)], 1))
    assert torch.equal(geometry(obs.expand(7, 2, 4))[3], geometry(obs)), "any leading shape"


def test_without_vectors_nothing_is_added() -> None:
    obs = torch.randn(4, 3)
    assert Geometry(()).width == 0
    assert Geometry(())(obs) is obs


def test_the_gradient_at_a_vector_of_length_zero_is_finite() -> None:
    obs = torch.zeros(1, 2, requires_grad=True)
    torch.autograd.backward(Geometry(((0, 1),))(obs).sum())
    assert obs.grad is not None
    assert obs.grad.isfinite().all()


def test_an_agent_has_the_vectors_that_it_sees_whole_in_its_own_numbering() -> None:
    spec = game((0, 1), (2, 3), (3, 4))
    assert spec.vectors_of(0) == ((0, 1),)
    assert spec.vectors_of(1) == ((2, 1), (1, 0))
    assert GameSpec.from_json(spec.to_json()) == spec


def test_vectors_that_do_not_fit_the_observation_are_refused() -> None:
    with pytest.raises(GameError, match=r"indices into the joint observation, 0\.\.4"):
        game((0, 5))
    with pytest.raises(GameError, match="groups of one length"):
        game((0, 1), (0, 1, 2))


def test_a_stacked_network_reads_the_vectors_of_its_input() -> None:
    rng = torch.Generator().manual_seed(0)
    stack = StackedMLP(2, 3, (4,), 1, rng, vectors=((0, 1),))
    x = torch.randn(5, 3, generator=rng)
    length = x[:, :2].norm(dim=1, keepdim=True)
    read = torch.cat([x, length, x[:, :2] / length], 1)
    for m in range(2):
        first, last = stack.layers
        hidden = torch.relu(read @ first.weight[m] + first.bias[m])  # type: ignore[index]  # Module attributes
        torch.testing.assert_close(stack(x)[m], hidden @ last.weight[m] + last.bias[m])  # type: ignore[index]
        torch.testing.assert_close(stack.member(m)(x), stack(x)[m])


def test_a_length_does_not_depend_on_the_direction() -> None:
    geometry = Geometry(((0, 1),))
    for angle in torch.linspace(0, 2 * math.pi, 7).tolist():
        found = geometry.features(torch.tensor([[2 * math.cos(angle), 2 * math.sin(angle)]]))
        torch.testing.assert_close(found, torch.tensor([[2.0, math.cos(angle), math.sin(angle)]]))


def test_a_spec_with_other_vectors_is_another_spec() -> None:
    assert replace(game((0, 1)), vectors=()) == game()
