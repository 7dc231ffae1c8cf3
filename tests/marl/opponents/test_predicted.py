"""Distributions over actions against closed forms, against counting, and against samples."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from presage.common.game import GameError, GameSpec
from presage.common.heads import groups_of
from presage.marl.opponents.predicted import Part, Predicted
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.sample_games import motley, random_view

DICE = GameSpec(name="dice", agents=(discrete_agent("a", (0,), 3),), obs_dim=1)
DIAL = GameSpec(name="dial", agents=(box_agent("a", (0,), 1),), obs_dim=1)


def dice(*chances: float) -> Predicted:
    return Predicted.of_parameters(DICE, [torch.tensor([chances]).log()])


def evenly(*chances: tuple[float, ...]) -> Predicted:
    """A throw of one of several dice, any of them alike."""
    spec = GameSpec(name="dice", agents=(discrete_agent("a", (0,), len(chances[0])),), obs_dim=1)
    weights = torch.full((1, 1, len(chances)), -math.log(len(chances)))
    part = Part(group=groups_of(spec)[0], parameters=torch.tensor([[chances]]).log(), log_weights=weights)
    return Predicted(spec=spec, parts=(part,))


def dial(mean: float, sigma: float) -> Predicted:
    return Predicted.of_parameters(DIAL, [torch.tensor([[mean, math.log(sigma)]])])


def mixture(spec: GameSpec, size: int, components: int, seed: int) -> Predicted:
    rng = generator(seed)
    view = random_view(spec, size, rng)
    parts = []
    for group in groups_of(spec):
        shape = (len(group.agents), size, components)
        parts.append(
            Part(
                group=group, parameters=torch.randn(*shape, group.parameters, generator=rng),
                log_weights=torch.randn(shape, generator=rng).log_softmax(2),
                legal=group.of_actions(view.legal) if group.discrete and spec.legal_varies else None,
            )
        )  # fmt: skip
    return Predicted(spec=spec, parts=tuple(parts))


def component(whole: Predicted, k: int) -> Predicted:
    parts = tuple(
        Part(group=part.group, parameters=part.parameters[:, :, k : k + 1], legal=part.legal,
             log_weights=torch.zeros_like(part.log_weights[:, :, :1]))
        for part in whole.parts
    )  # fmt: skip
    return Predicted(spec=whole.spec, parts=parts)


def weights(whole: Predicted) -> Tensor:
    """The components' weights by agent, (B, N, K)."""
    found = torch.empty(len(whole), whole.spec.n, whole.parts[0].components)
    for part in whole.parts:
        found[:, list(part.group.agents)] = part.log_weights.exp().transpose(0, 1)
    return found


def test_measures_of_two_dice() -> None:
    p, q = dice(0.7, 0.2, 0.1), dice(0.5, 0.3, 0.2)
    assert float(p.entropy()) == pytest.approx(0.801819, abs=1e-5)
    assert float(p.divergence(q)) == pytest.approx(0.085123, abs=1e-5)
    assert float(q.divergence(p)) == pytest.approx(0.092033, abs=1e-5)
    assert float(p.variation(q)) == pytest.approx(0.2, abs=1e-6)
    nll = -sum(c * float(q.log_prob(torch.eye(3)[k][None])) for k, c in enumerate((0.7, 0.2, 0.1)))
    assert nll == pytest.approx(0.886941, abs=1e-5)
    assert nll - float(p.entropy()) == pytest.approx(float(p.divergence(q)), abs=1e-6)
    assert float(evenly((0.7, 0.2, 0.1), (0.5, 0.3, 0.2)).disagreement()) == pytest.approx(0.021901, abs=1e-5)


def test_variation_is_bounded_by_divergence() -> None:
    p, q = dice(0.7, 0.2, 0.1), dice(0.5, 0.3, 0.2)
    bounds = (p.divergence(q) / 2).sqrt(), (1 - (-p.divergence(q)).exp()).sqrt()
    assert [float(bound) for bound in bounds] == pytest.approx([0.206304, 0.285658], abs=1e-5)
    rng = generator(0)
    one, two = (torch.randn(500, 3, generator=rng) * 3 * torch.rand(500, 1, generator=rng) for _ in range(2))
    some, others = (Predicted.of_parameters(DICE, [logits]) for logits in (one, two))
    apart, far = some.variation(others), some.divergence(others)
    assert (apart <= torch.minimum((far / 2).sqrt(), (1 - (-far).exp()).sqrt()) + 1e-6).all()
    assert float(apart.max()) > 0.9


def test_what_an_action_tells_of_who_plays() -> None:
    either = evenly((0.8, 0.2), (0.3, 0.7))
    assert float(either.entropy()) == pytest.approx(0.688139, abs=1e-5)  # the NLL of who does not know who plays
    known = [float(component(either, k).entropy()) for k in range(2)]
    assert sum(known) / 2 == pytest.approx(0.555633, abs=1e-5)
    assert float(either.disagreement()) == pytest.approx(0.132505, abs=1e-5)


def test_measures_of_two_dials() -> None:
    p, q = dial(0.0, 1.0), dial(0.5, 2.0)
    assert float(p.divergence(q)) == pytest.approx(0.349397, abs=1e-5)
    assert float(q.divergence(p)) == pytest.approx(0.931853, abs=1e-5)
    many = torch.zeros(1_000_000, dtype=torch.int64)
    draws = p[many].sample(generator(0))  # squashed, which divergences do not show
    sampled = p[many].log_prob(draws) - q[many].log_prob(draws)
    assert float(sampled.mean()) == pytest.approx(0.349397, abs=2e-3)
    act = torch.tensor([[math.tanh(0.6)]])
    assert float(dial(0.2, 0.5).log_prob(act)) == pytest.approx(-0.205521, abs=1e-4)


def test_two_normals_describe_what_one_cannot() -> None:
    sharp = Predicted(
        spec=DIAL,
        parts=(Part(group=groups_of(DIAL)[0], log_weights=torch.full((1, 1, 2), math.log(0.5)),
                    parameters=torch.tensor([[[[-1.0, math.log(0.1)], [1.0, math.log(0.1)]]]])),),
    )  # fmt: skip
    rng = generator(0)
    before = torch.where(torch.rand(4_000, generator=rng) < 0.5, -1.0, 1.0) + 0.1 * torch.randn(4_000, generator=rng)
    act, many = before.tanh()[:, None], torch.zeros(4_000, dtype=torch.int64)
    squash = torch.log(1 - act.square())[:, 0].mean()  # densities of what was before the squash differ by it alone
    one = dial(0.0, math.sqrt(1.01))
    assert float(-sharp[many].log_prob(act).mean() - squash) == pytest.approx(-0.1905, abs=0.03)
    assert float(-one[many].log_prob(act).mean() - squash) == pytest.approx(1.4239, abs=0.01)
    assert float(one.divergence(sharp, rng)) > float(sharp.divergence(one, rng)) > 1.0
    assert float(sharp.disagreement(rng)) == pytest.approx(math.log(2), abs=0.01)


@pytest.mark.parametrize("flags", [False, True])
def test_mixtures_are_the_sums_of_their_components(flags: bool) -> None:
    spec = motley(flags=flags)
    whole = mixture(spec, 7, 3, seed=1)
    parts = [component(whole, k) for k in range(3)]
    act = whole.sample(generator(2))
    share = weights(whole)
    each = torch.stack([part.log_prob(act) for part in parts], 2)
    torch.testing.assert_close(whole.log_prob(act).exp(), (share * each.exp()).sum(2))
    for agent in ("scout", "guard", "speaker"):
        i = spec.index(agent)
        for head, chances in enumerate(whole.probabilities(agent)):
            wanted = sum(share[:, i, k, None] * part.probabilities(agent)[head] for k, part in enumerate(parts))
            torch.testing.assert_close(chances, wanted)
            torch.testing.assert_close(chances.sum(1), torch.ones(7))
            mode = whole.mode()[:, spec.act[i]][:, sum(h.size for h in spec.agents[i].heads[:head]) :]
            assert torch.equal(mode[:, : chances.shape[1]].argmax(1), chances.argmax(1))


def test_what_is_asked_of_one_hot_mixtures_is_exact() -> None:
    spec = motley(flags=False)
    one, two = mixture(spec, 5, 3, seed=1), mixture(spec, 5, 2, seed=2)
    i = spec.index("speaker")  # two heads, of two and of three
    choices = []
    for first, second in itertools.product(range(2), range(3)):
        act = torch.zeros(5, spec.act_dim)
        act[:, spec.act[i].start + first] = act[:, spec.act[i].start + 2 + second] = 1.0
        choices.append(act)
    p, q = (torch.stack([m.log_prob(act)[:, i] for act in choices], 1) for m in (one, two))
    torch.testing.assert_close(p.exp().sum(1), torch.ones(5))
    rng = generator(0)
    torch.testing.assert_close(one.entropy(rng)[:, i], -(p.exp() * p).sum(1))
    torch.testing.assert_close(one.divergence(two, rng)[:, i], (p.exp() * (p - q)).sum(1))
    torch.testing.assert_close(one.variation(two, rng)[:, i], 0.5 * (p.exp() - q.exp()).abs().sum(1))
    inside = sum(weights(one)[:, i, k] * component(one, k).entropy(rng)[:, i] for k in range(3))
    torch.testing.assert_close(one.disagreement(rng)[:, i], one.entropy(rng)[:, i] - inside)


def test_samples_follow_the_probabilities_and_never_break_a_rule() -> None:
    spec = motley()
    one = mixture(spec, 1, 3, seed=4)
    many = one[torch.zeros(6_000, dtype=torch.int64)]
    act = many.sample(generator(5))
    spec.check_action(act)
    for agent in ("scout", "guard", "speaker"):
        where = spec.act[spec.index(agent)]
        torch.testing.assert_close(act[:, where].mean(0), torch.cat(one.probabilities(agent), 1)[0], rtol=0, atol=0.03)
    part = next(part for part in one.parts if part.legal is not None)
    allowed = part.legal
    assert allowed is not None
    assert not bool(many.parts[one.parts.index(part)].group.of_actions(act)[~allowed.expand(-1, 6_000, -1)].any())


def test_total_variation_of_numbers_is_that_of_counting() -> None:
    p, q = dial(0.0, 0.5), dial(0.4, 0.7)
    grid = torch.linspace(-4, 4, 8_001)
    one, two = ((-0.5 * ((grid - m) / s) ** 2).exp() / (s * math.sqrt(2 * math.pi)) for m, s in ((0, 0.5), (0.4, 0.7)))
    wanted = float(0.5 * (one - two).abs().sum() * 8 / 8_000)
    many = torch.zeros(200, dtype=torch.int64)
    assert float(p[many].variation(q[many], generator(1)).mean()) == pytest.approx(wanted, abs=0.01)


def test_what_cannot_be_answered_is_refused() -> None:
    with pytest.raises(GameError, match="acts in numbers, which have no probabilities"):
        dial(0.0, 1.0).probabilities("a")
    with pytest.raises(GameError, match="pass rng="):
        dial(0.0, 1.0).entropy()
    with pytest.raises(GameError, match="has 1 agents, got parameters of 2"):
        Predicted.of_parameters(DICE, [torch.zeros(1, 3), torch.zeros(1, 3)])
    with pytest.raises(GameError, match=r"agent 'a' needs parameters of shape \(B, 3\), got \(1, 4\)"):
        Predicted.of_parameters(DICE, [torch.zeros(1, 4)])
    wide = GameSpec(name="wide", agents=(discrete_agent("a", (0,), *[10] * 4),), obs_dim=1)
    with pytest.raises(GameError, match="10000 joint choices of one agent are too many"):
        mixture(wide, 1, 2, 0).entropy()
