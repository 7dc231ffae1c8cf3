"""Advantages against plain sums, the scale of returns against all of them at once, the loss against numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from presage.common.actor_critic import (
    ActorCriticConfig,
    ActorCriticNetwork,
    ReturnScale,
    actor_critic_loss,
    entropy,
    generalised_advantages,
    value_targets,
)
from presage.common.game import Head
from tests.common.toy import generator

CHOICE, BOX = (Head(kind="discrete", size=3),), (Head(kind="box", size=2),)


def drawn(seed: int, time: int, copies: int = 3, agents: int = 2) -> dict[str, Tensor]:
    rng = generator(seed)
    numbers = {name: torch.randn(time, copies, agents, generator=rng) for name in ("reward", "value", "next_value")}
    terminated = torch.rand(time, copies, agents, generator=rng) < 0.2
    over = (torch.rand(time, copies, generator=rng) < 0.2) | terminated.all(-1)
    return numbers | {"terminated": terminated, "over": over}


@given(st.integers(0, 1_000), st.integers(1, 9), st.floats(0, 1), st.floats(0, 1))
def test_advantages_are_sums_of_discounted_errors_up_to_the_episode_s_end(
    seed: int, time: int, discount: float, trace: float
) -> None:
    given_ = drawn(seed, time)
    found = generalised_advantages(**given_, discount=discount, trace=trace)
    for c in range(3):
        for i in range(2):
            for start in range(time):
                total, weight = 0.0, 1.0
                for t in range(start, time):
                    goes_on = not bool(given_["terminated"][t, c, i])
                    later = discount * float(given_["next_value"][t, c, i]) if goes_on else 0.0
                    total += weight * (float(given_["reward"][t, c, i]) + later - float(given_["value"][t, c, i]))
                    if not goes_on or bool(given_["over"][t, c]):
                        break
                    weight *= discount * trace
                assert float(found[start, c, i]) == pytest.approx(total, abs=1e-4)


def test_a_truncated_step_looks_ahead_and_a_terminated_one_does_not() -> None:
    """Two steps of reward 1 and values 10, at gamma 1/2 and lambda 1: by hand."""
    one, ten = torch.ones(2, 1, 1), torch.full((2, 1, 1), 10.0)
    cut, ended = torch.tensor([[False], [True]]), torch.tensor([[[False]], [[True]]])
    nobody = torch.zeros(2, 1, 1, dtype=torch.bool)
    truncated = generalised_advantages(one, ten, ten, nobody, cut, 0.5, 1.0)
    assert truncated.flatten().tolist() == [1 + 0.5 * (1 + 0.5 * 10) - 10, 1 + 0.5 * 10 - 10]
    terminated = generalised_advantages(one, ten, ten, ended, cut, 0.5, 1.0)
    assert terminated.flatten().tolist() == [1 + 0.5 * 1 - 10, 1 - 10.0]
    two_episodes = generalised_advantages(one, ten, ten, nobody, ~cut, 0.5, 1.0)
    assert two_episodes.flatten().tolist() == [1 + 0.5 * 10 - 10, 1 + 0.5 * 10 - 10]


def test_the_scale_is_that_of_all_returns_so_far() -> None:
    scale, parts = ReturnScale(), [3.0 + 2.0 * torch.randn(k, 2, generator=generator(k)) for k in (5, 1, 40)]
    for part in parts:
        scale.update(part)
    every = torch.cat(parts).double()
    assert float(scale.mean) == pytest.approx(float(every.mean()))
    assert float(scale.variance) == pytest.approx(float(every.var(unbiased=False)))
    there = scale.standardise(parts[2])
    assert there.dtype == torch.float32
    assert torch.allclose(scale.raw(there), parts[2], atol=1e-5)


def test_returns_that_never_differ_are_not_blown_up() -> None:
    scale = ReturnScale()
    assert torch.equal(scale.standardise(torch.tensor([2.0])), torch.tensor([2.0])), "nothing is known yet"
    scale.update(torch.full((4,), 5.0))
    assert scale.standardise(torch.tensor([5.0, 6.0])).tolist() == [0.0, 1.0]


def test_targets_are_set_in_the_rewards_units_and_told_in_the_scale() -> None:
    numbers, scale = ActorCriticConfig(discount=0.9, trace=0.8), ReturnScale()
    scale.update(torch.tensor([0.0, 10.0]))
    before = scale.deviation.clone(), scale.mean.clone()
    given_ = drawn(3, 6)
    target = value_targets(numbers, scale, **given_)
    raw = {name: given_[name] * before[0].float() + before[1].float() for name in ("value", "next_value")}
    wanted = raw["value"] + generalised_advantages(**(given_ | raw), discount=0.9, trace=0.8)
    assert torch.allclose(scale.raw(target), wanted, atol=1e-5)
    assert float(scale.count) == 2 + wanted.numel()
    plain = ReturnScale()
    value_targets(ActorCriticConfig(standardised=False), plain, **given_)
    assert float(plain.count) == 0


def test_the_loss_by_hand() -> None:
    """Three answers, of which the last one was none."""
    numbers = ActorCriticConfig(value_weight=0.5, entropy_weight=0.1)
    log_prob = torch.tensor([-1.0, -2.0, -9.0], requires_grad=True)
    spread = torch.tensor([0.5, 0.7, 9.0], requires_grad=True)
    value, target = torch.tensor([1.0, 2.0, 3.0], requires_grad=True), torch.tensor([3.0, 1.0, 4.0])
    acting = torch.tensor([True, True, False])
    loss, parts = actor_critic_loss(numbers, log_prob, spread, value, target, acting)
    actor, critic, bonus = (2 * 1.0 - 1 * 2.0) / 2, (4 + 1 + 1) / 3, (0.5 + 0.7) / 2
    assert float(loss.detach()) == pytest.approx(actor + 0.5 * critic - 0.1 * bonus)
    assert [float(parts[name]) for name in ("actor_loss", "critic_loss", "entropy")] == pytest.approx(
        [actor, critic, bonus]
    )
    torch.autograd.backward(loss)
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == [-1.0, 0.5, 0.0]
    assert value.grad is not None
    assert value.grad.tolist() == pytest.approx([-2 / 3, 1 / 3, -1 / 3]), "of the squared errors alone"


def test_entropies() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0]])
    assert float(entropy(CHOICE, logits, None, generator(0))) == pytest.approx(math.log(3))
    legal = torch.tensor([[True, True, False]])
    assert float(entropy(CHOICE, logits, legal, generator(0))) == pytest.approx(math.log(2))
    narrow = torch.tensor([0.0, 0.0, -4.0, -4.0]).expand(4_000, -1)  # hardly squashed: a normal's entropy
    wanted = 2 * (0.5 * math.log(2 * math.pi * math.e) - 4.0)
    assert float(entropy(BOX, narrow, None, generator(0)).mean()) == pytest.approx(wanted, abs=0.05)


def test_a_network_describes_an_action_and_values_it() -> None:
    for own, width in ((CHOICE, 3), (BOX, 4)):
        parameters, value = ActorCriticNetwork(5, (8,), own, generator(0))(torch.zeros(2, 3, 5))
        assert (parameters.shape, value.shape) == ((2, 3, width), (2, 3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"discount": 1.1}, "discount=1.1"), ({"trace": -0.1}, "trace=-0.1"), ({"value_weight": 0.0}, "value_weight=0.0"),
     ({"gradient_clip": 0.0}, "gradient_clip=0.0"), ({"entropy_weight": -1.0}, "entropy_weight=-1.0")],
)  # fmt: skip
def test_contradictions_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActorCriticConfig(**wrong)
