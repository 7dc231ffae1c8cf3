"""Action distributions against torch.distributions, enumeration and counted frequencies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import (
    Categorical,
    Gumbel,
    Independent,
    Normal,
    OneHotCategorical,
    TanhTransform,
    TransformedDistribution,
)

from presage.common.game import GameError, GameSpec, Head
from presage.common.heads import (
    answer,
    choice_log_probabilities,
    choices,
    entropy,
    groups_of,
    join,
    join_agents,
    log_prob,
    target_entropy,
)
from tests.common.toy import box_agent, discrete_agent, generator

BOX2 = (Head(kind="box", size=2),)


def discrete(*sizes: int) -> tuple[Head, ...]:
    return tuple(Head(kind="discrete", size=size) for size in sizes)


def split(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """The heads' parts of the last dimension."""
    return torch.split(x, list(sizes), -1)


def log_ps(sizes: Sequence[int], logits: Tensor, legal: Tensor | None = None) -> list[Tensor]:
    """Log-probabilities of each head by torch.distributions, illegal entries left out."""
    parts = []
    for k, part in enumerate(split(logits, sizes)):
        if legal is not None:
            part = part.masked_fill(~split(legal, sizes)[k], -math.inf)
        parts.append(Categorical(logits=part).logits)
    return parts


# -------------------------------------------------------------------- discrete

SIZES = (3, 2)
LOGITS = torch.tensor([[0.3, -1.0, 1.2, 0.5, -0.5]])


def test_five_equal_logits_have_the_log_probability_of_one_fifth() -> None:
    act, value = answer(discrete(5), torch.full((1_000, 5), 0.7), None, generator(0))
    assert float(value.mean()) == pytest.approx(-1.609, abs=5e-4)
    assert float(log_prob(discrete(5), torch.full((1_000, 5), 0.7), act).mean()) == pytest.approx(-math.log(5))
    assert float(entropy(discrete(5), torch.zeros(5))) == pytest.approx(math.log(5))


@pytest.mark.parametrize("legal", [None, torch.tensor([[True, False, True, True, True]])], ids=["all legal", "masked"])
def test_choices_come_as_often_as_their_probabilities_say(legal: Tensor | None) -> None:
    count = 40_000
    wide = None if legal is None else legal.expand(count, -1)
    act, value = answer(discrete(*SIZES), LOGITS.expand(count, -1), wide, generator(1))
    first, second = (part.exp()[0] for part in log_ps(SIZES, LOGITS, legal))
    joint = torch.einsum("bi,bj->ij", act[:, :3].double(), act[:, 3:].double()) / count
    wanted = torch.outer(first, second).double()
    assert float((joint - wanted).abs().max()) < 5 * 0.5 / count**0.5
    assert bool((joint[wanted == 0] == 0).all())
    expected = (act[:, :3] @ first).log() + (act[:, 3:] @ second).log()
    torch.testing.assert_close(value, expected)


@given(st.integers(0, 2**31), st.booleans())
def test_log_probabilities_are_those_of_torch(seed: int, masked: bool) -> None:
    rng = generator(seed)
    sizes = (4, 2, 3)
    logits = 5 * torch.randn(3, 6, 9, generator=rng)
    act = torch.cat([torch.eye(k)[torch.randint(k, (3, 6), generator=rng)] for k in sizes], -1)
    legal = (torch.rand(3, 6, 9, generator=rng) < 0.5) | act.bool() if masked else None
    parts = log_ps(sizes, logits, legal)
    of_torch: list[Any] = [OneHotCategorical(logits=part) for part in parts]
    chosen = torch.stack([one.log_prob(a) for one, a in zip(of_torch, split(act, sizes), strict=True)])
    torch.testing.assert_close(log_prob(discrete(*sizes), logits, act, legal), chosen.sum(0))
    entropies = torch.stack([one.entropy() for one in of_torch])
    torch.testing.assert_close(entropy(discrete(*sizes), logits, legal), entropies.sum(0))


@given(st.integers(0, 2**31), st.floats(0.1, 50))
def test_illegal_entries_are_never_chosen_and_the_rest_sums_to_one(seed: int, spread: float) -> None:
    rng = generator(seed)
    heads = discrete(4, 3)
    logits = spread * torch.randn(200, 7, generator=rng)
    legal = torch.rand(200, 7, generator=rng) < 0.4
    legal[:, 0] = legal[:, 5] = True
    for draw in (rng, None):
        act, value = answer(heads, logits, legal, draw)
        assert bool((act.bool() <= legal).all())
        assert bool(((act == 0) | (act == 1)).all())
        assert act[:, :4].sum(1).tolist() == act[:, 4:].sum(1).tolist() == [1.0] * 200
        torch.testing.assert_close(value, log_prob(heads, logits, act, legal))
    table = choices(heads)
    shares = choice_log_probabilities(heads, logits, legal, table).exp()
    torch.testing.assert_close(shares.sum(1), torch.ones(200))
    possible = torch.stack([(legal | ~row.bool()).all(1) for row in table], 1)
    assert bool((shares[~possible] == 0).all())


@pytest.mark.parametrize("what", ["log_prob", "entropy", "sample", "averaged", "choices"])
def test_illegal_entries_get_no_gradient(what: str) -> None:
    heads, rng = discrete(4, 3), generator(0)
    legal = torch.rand(50, 7, generator=rng) < 0.5
    legal[:, 0] = legal[:, 1] = legal[:, 5] = legal[:, 6] = True
    logits = torch.randn(50, 7, generator=rng).requires_grad_()
    act, value = answer(heads, logits, legal, rng)
    found = {
        "log_prob": lambda: log_prob(heads, logits, act.detach(), legal),
        "entropy": lambda: entropy(heads, logits, legal),
        "sample": lambda: act @ torch.arange(7.0) + value,
        "averaged": lambda: answer(heads, logits, legal, rng, averaged=True)[1],
        "choices": lambda: choice_log_probabilities(heads, logits, legal, choices(heads)).exp().square().sum(1),
    }
    (slope,) = torch.autograd.grad(found[what]().sum(), logits)
    assert not slope[~legal].any()
    assert slope[legal].all()


def test_an_agent_for_which_nothing_is_legal_gets_finite_numbers() -> None:
    heads = discrete(2, 2, 2, 2, 2, 2)
    parameters = torch.zeros(1, 12, requires_grad=True)
    legal = torch.zeros(1, 12, dtype=torch.bool)
    legal[0, ::2] = True
    act = torch.eye(2)[1].repeat(6)[None]  # the illegal one of every head
    values = choice_log_probabilities(heads, parameters, legal, choices(heads))
    loss = (values.exp() * values).sum() + log_prob(heads, parameters, act, legal).sum().mul(0)
    torch.autograd.backward(loss)
    assert parameters.grad is not None
    assert bool(parameters.grad.isfinite().all())
    assert bool(values.isfinite().all())
    nothing = torch.zeros(1, 12, dtype=torch.bool)
    assert float(answer(heads, torch.zeros(1, 12), nothing, None)[1]) == pytest.approx(-6 * math.log(2))


def test_the_mode_is_the_likeliest_choice_and_draws_nothing() -> None:
    rng = generator(2)
    logits = torch.randn(50, 5, generator=rng)
    act, value = answer(discrete(*SIZES), logits, None, None)
    best = [part.max(1) for part in log_ps(SIZES, logits)]
    assert act[:, :3].argmax(1).tolist() == best[0].indices.tolist()
    assert act[:, 3:].argmax(1).tolist() == best[1].indices.tolist()
    torch.testing.assert_close(value, best[0].values + best[1].values)


def gumbel_softmax(logits: Tensor, seed: int) -> Tensor:
    """Soft samples of temperature 1 with the noise that `answer` draws: minus the logarithm of an exponential."""
    noise = -torch.empty_like(logits).exponential_(generator=generator(seed)).log()
    return (logits.log_softmax(-1) + noise).softmax(-1)


def test_the_noise_of_samples_is_gumbel_noise() -> None:
    noise = -torch.empty(100_000).exponential_(generator=generator(3)).log()
    gumbel: Any = Gumbel(0.0, 1.0)
    for at in (-1.0, 0.0, 1.0, 3.0):
        wanted = float(gumbel.cdf(torch.tensor(at)))
        assert float((noise < at).double().mean()) == pytest.approx(wanted, abs=0.008)


def test_the_gradient_of_a_sample_is_that_of_the_gumbel_softmax() -> None:
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)
    logits = torch.randn(6, 5, generator=generator(4), dtype=torch.float64).requires_grad_()
    act, value = answer(discrete(5), logits, None, generator(5))
    assert bool(((act == 0) | (act == 1)).all())  # the value is exactly one-hot
    (straight,) = torch.autograd.grad((act @ weight).sum(), logits)
    (soft,) = torch.autograd.grad((gumbel_softmax(logits, 5) @ weight).sum(), logits)
    torch.testing.assert_close(straight, soft)
    assert act.argmax(-1).tolist() == gumbel_softmax(logits, 5).argmax(-1).tolist()

    step, numeric = 1e-6, torch.zeros_like(logits)
    with torch.no_grad():
        for i, j in itertools.product(range(6), range(5)):
            nudge = torch.zeros_like(logits)
            nudge[i, j] = step
            up, down = (gumbel_softmax(logits + sign * nudge, 5) @ weight for sign in (1, -1))
            numeric[i, j] = (up - down).sum() / (2 * step)
    torch.testing.assert_close(straight, numeric, rtol=1e-6, atol=1e-8)

    (score,) = torch.autograd.grad(answer(discrete(5), logits, None, generator(5))[1].sum(), logits)
    wanted = act.detach() - logits.detach().softmax(-1)  # of log pi(a) at the chosen a
    torch.testing.assert_close(score, wanted)
    assert value.shape == (6,)


def test_samples_with_a_gradient_are_exactly_one_hot_in_single_precision_too() -> None:
    logits = torch.randn(3_000, 5, generator=generator(12)).requires_grad_()
    act, _ = answer(discrete(5), logits, None, generator(13))
    assert act.requires_grad
    assert bool(((act == 0) | (act == 1)).all())


def test_tables_of_choices_hold_every_combination_once() -> None:
    heads = discrete(3, 1, 2)
    table = choices(heads)
    wanted = [
        [float(i == a) for i in range(3)] + [1.0] + [float(i == b) for i in range(2)]
        for a, b in itertools.product(range(3), range(2))
    ]
    assert table.tolist() == wanted
    logits = torch.randn(4, 2, 6, generator=generator(6))
    found = choice_log_probabilities(heads, logits, None, table)
    for k, row in enumerate(table):
        torch.testing.assert_close(found[..., k], log_prob(heads, logits, row.expand(4, 2, -1)))


@pytest.mark.parametrize("heads", [discrete(20, 20), BOX2], ids=["too many", "box"])
def test_choices_that_cannot_be_listed_are_refused(heads: tuple[Head, ...]) -> None:
    with pytest.raises(GameError, match="at most 256 discrete choices"):
        choices(heads)


# ------------------------------------------------------------------------- box


def squashed(parameters: Tensor) -> Any:  # torch leaves the methods of distributions without types
    mean, log_sigma = parameters.chunk(2, -1)
    return TransformedDistribution(Independent(Normal(mean, log_sigma.exp()), 1), [TanhTransform()])


@given(st.integers(0, 2**31))
def test_box_log_probabilities_are_those_of_torchs_squashed_normal(seed: int) -> None:
    rng = generator(seed)
    mean = torch.randn(3, 20, 2, generator=rng, dtype=torch.float64)
    parameters = torch.cat([mean, torch.empty_like(mean).uniform_(-2.0, 1.0, generator=rng)], -1)
    act, value = answer(BOX2, parameters, None, rng)
    assert bool((act.abs() <= 1).all())
    unsquashed = act.clamp(-1 + 1e-9, 1 - 1e-9).atanh()
    usual = unsquashed.abs().amax(-1) < 4  # further out the guard inside the logarithm shows
    wanted = squashed(parameters).log_prob(act)
    torch.testing.assert_close(value[usual], wanted[usual], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(log_prob(BOX2, parameters, act)[usual], wanted[usual], rtol=1e-3, atol=1e-3)


def test_box_log_probabilities_of_stored_corners_are_finite() -> None:
    act = torch.tensor([[1.0, -1.0]])
    value = log_prob(BOX2, torch.tensor([[0.0, 0.0, 0.0, 0.0]]), act)
    inside = torch.tensor([[1 - 1e-6, -1 + 1e-6]])
    torch.testing.assert_close(value, squashed(torch.zeros(1, 4)).log_prob(inside), rtol=0.03, atol=0)


def test_box_samples_lie_where_the_squashed_normal_does() -> None:
    parameters = torch.tensor([0.4, -0.3]).expand(50_000, 2)
    act, _ = answer((Head(kind="box", size=1),), parameters, None, generator(7))
    normal: Any = Normal(0.4, math.exp(-0.3))
    for at in (-0.5, 0.0, 0.4, 0.8):
        wanted = float(normal.cdf(torch.tensor(at).atanh()))
        assert float((act < at).double().mean()) == pytest.approx(wanted, abs=0.01)


def test_the_box_mode_is_the_squashed_mean_and_draws_nothing() -> None:
    parameters = torch.randn(5, 4, generator=generator(8), dtype=torch.float64)
    act, value = answer(BOX2, parameters, None, None)
    assert torch.equal(act, parameters[:, :2].tanh())
    torch.testing.assert_close(value, squashed(parameters).log_prob(act), rtol=1e-4, atol=1e-4)


def test_box_samples_pass_their_gradient_on_to_mean_and_deviation() -> None:
    parameters = torch.randn(4, 4, generator=generator(9), dtype=torch.float64).requires_grad_()
    act, _ = answer(BOX2, parameters, None, generator(10))
    noise = torch.empty(4, 2, dtype=torch.float64).normal_(generator=generator(10))
    slope = 1 - act.detach() ** 2
    wanted = torch.cat([slope, slope * noise * parameters[:, 2:].detach().exp()], 1)
    (found,) = torch.autograd.grad(act.sum(), parameters)
    torch.testing.assert_close(found, wanted)


def test_the_deviation_is_bounded() -> None:
    wide, widest = (torch.tensor([[0.0, raw]]) for raw in (50.0, 2.0))
    one = answer((Head(kind="box", size=1),), wide, None, generator(11))
    two = answer((Head(kind="box", size=1),), widest, None, generator(11))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_a_squashed_normal_has_no_entropy_in_closed_form() -> None:
    with pytest.raises(GameError, match="no closed-form entropy"):
        entropy(BOX2, torch.zeros(1, 4))


def test_entropy_targets() -> None:
    assert target_entropy(discrete(5, 2), 0.3) == pytest.approx(0.3 * math.log(10))
    assert target_entropy(BOX2, 0.3) == -2.0


# ---------------------------------------------------------------------- groups

MIXED = GameSpec(
    name="mixed",
    agents=(
        box_agent("a", (0, 1), 2),
        discrete_agent("b", (2, 3), 3),
        box_agent("c", (0, 1, 2), 2),
        box_agent("d", (3, 4), 2),
        discrete_agent("e", (0, 4), 3),
    ),
    obs_dim=5,
)


def test_agents_of_equal_widths_form_a_group() -> None:
    groups = groups_of(MIXED)
    assert [group.agents for group in groups] == [(0, 3), (1, 4), (2,)]
    assert [group.discrete for group in groups] == [False, True, False]
    assert [group.parameters for group in groups] == [4, 3, 4]


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_joining_undoes_slicing(seed: int, size: int) -> None:
    rng = generator(seed)
    groups = groups_of(MIXED)
    obs, act = torch.randn(size, 5, generator=rng), torch.randn(size, MIXED.act_dim, generator=rng)
    flags = torch.randn(size, MIXED.n, generator=rng)
    for group in groups:
        for k, agent in enumerate(group.agents):
            assert torch.equal(group.read(obs)[k], obs[:, list(MIXED.obs[agent])])
            assert torch.equal(group.of_actions(act)[k], act[:, MIXED.act[agent]])
            assert torch.equal(group.of_agents(flags)[k], flags[:, agent])
    assert torch.equal(join(groups, [group.of_actions(act) for group in groups]), act)
    assert torch.equal(join_agents(groups, [group.of_agents(flags) for group in groups]), flags.T)
    only = groups_of(GameSpec(name="one", agents=MIXED.agents[:1], obs_dim=5))
    assert torch.equal(join(only, [only[0].of_actions(act)]), act[:, :2])
