"""The bound's terms against torch's own divergences, and what a run logs of them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Normal, kl_divergence

from presage.common.bounds import best_branch_length
from presage.common.game import GameSpec, View
from presage.common.heads import divergence
from presage.common.live_terms import LiveTerms, pairwise_divergence, total_variation
from presage.common.metrics import read_metrics
from presage.common.policy import JointPolicy
from presage.common.run import start
from presage.common.sac import GaussianActor, SACConfig, build_sac
from presage.common.scenario import GameConfig
from tests.common.tiny_runs import AORPO, MBPO, MODEL_FREE, scenario
from tests.common.toy import PLAIN, box_agent, discrete_agent, generator

TAGS = {"theory/policy_shift", "theory/model_error", "theory/best_branch_length"}
POINT = GameConfig(name="toy/point_mass", copies=4, options={"episode_limit": 5})
ONE = GameSpec(name="one", agents=(box_agent("a", (0, 1, 2), 2),), obs_dim=3)


def test_divergences_of_heads_are_torchs() -> None:
    rng = generator(0)
    one, other = torch.randn(2, 5, 4, generator=rng)
    discrete, box = discrete_agent("a", (0,), 4).heads, ONE.agents[0].heads
    logits = torch.randn(2, 5, 4, generator=rng)
    wanted = kl_divergence(Categorical(logits=logits[0]), Categorical(logits=logits[1]))
    torch.testing.assert_close(divergence(discrete, logits[0], logits[1]), wanted)
    p, q = (Normal(x[:, :2], x[:, 2:].exp()) for x in (one, other))
    torch.testing.assert_close(divergence(box, one, other), kl_divergence(p, q).sum(1))


def test_members_are_compared_in_pairs() -> None:
    mean = torch.tensor([[[0.0]], [[1.0]], [[3.0]]])
    apart = pairwise_divergence(mean, torch.ones(3, 1, 1))
    assert float(apart) == pytest.approx((1 + 9 + 4) / 2 / 3)  # KL of unit Gaussians: half the squared distance
    assert float(pairwise_divergence(mean[:1], torch.ones(1, 1, 1))) == 0.0
    std = torch.tensor([[[1.0]], [[2.0]]])
    both = [kl_divergence(Normal(0.0, a), Normal(0.0, b)) for a, b in ((1.0, 2.0), (2.0, 1.0))]
    assert float(pairwise_divergence(torch.zeros(2, 1, 1), std)) == pytest.approx(float(sum(both)) / 2)


def test_pinsker_bounds_the_total_variation_of_coins() -> None:
    for p, q in ((0.5, 0.6), (0.1, 0.4), (0.3, 0.3)):
        nats = kl_divergence(Categorical(torch.tensor([p, 1 - p])), Categorical(torch.tensor([q, 1 - q])))
        assert abs(p - q) <= float(total_variation(nats)) + 1e-6
    assert total_variation(torch.tensor([100.0, -1e-9])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("kind", ["team", "sac"])
def test_a_policy_is_measured_against_the_one_of_the_last_time(kind: str) -> None:
    policy: nn.Module
    actor: JointPolicy | GaussianActor
    if kind == "team":
        spec, rng = PLAIN, generator(0)
        policy = actor = JointPolicy(spec, (8,), rng, rng)
    else:
        spec = ONE
        learner, actor = build_sac(spec, SACConfig(hidden=(8,)), generator(0))
        policy = learner.policy
    view = View.of(spec, torch.randn(6, spec.obs_dim, generator=generator(1)))
    terms = LiveTerms(policy, gamma=0.9)
    assert terms.measure(policy, actor.divergence, view, None) == {"theory/policy_shift": 0.0}
    before = deepcopy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    doubt = torch.full((6,), 0.01)
    found = terms.measure(policy, actor.divergence, view, doubt)
    shift = float(total_variation(actor.divergence(before, view)).mean().detach())
    assert found["theory/policy_shift"] == pytest.approx(shift)
    assert shift > 0.0
    assert found["theory/best_branch_length"] == best_branch_length(shift, 0.01, 0.9, longest=100)
    assert terms.measure(policy, actor.divergence, view, doubt)["theory/policy_shift"] == 0.0


@pytest.mark.parametrize("method", [AORPO, MBPO, MODEL_FREE], ids=["aorpo", "mbpo", "model-free"])
def test_runs_that_imagine_log_the_terms(method: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presage.common.run.conclude", lambda training, folder: "a table")
    start(scenario(method, POINT) if method is MBPO else scenario(method), tmp_path / "run")
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    if method is MODEL_FREE:
        assert not TAGS & last.keys()
    else:
        assert last.keys() >= TAGS
        assert 0 <= last["theory/model_error"] <= 1
