"""Behaviour-cloned opponent models against opponents whose policies are known, and against a loop over networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from presage.common.game import GameError, GameSpec, Rows, View, Window
from presage.marl.lengths import rollout_lengths
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig, OpponentFit
from presage.marl.opponents.moments import Moments
from tests.common.toy import box_agent, discrete_agent, generator
from tests.marl.sample_games import (
    by_head,
    motley,
    one_step_rows,
    random_rows,
    random_view,
    stack,
)


def bank(spec: GameSpec, seed: int = 0, egos: int | None = None, **config: Any) -> BehaviourCloning:
    numbers = BehaviourCloningConfig(**({"hidden": (16,)} | config))
    return BehaviourCloning(spec, numbers, generator(seed), egos=None if egos is None else range(egos))


def weights(models: BehaviourCloning) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in models.networks.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------- a loop over networks


class Loop:
    """The bank network by network, `(ego, agent)`, with ordinary layers."""

    def __init__(self, models: BehaviourCloning) -> None:
        self.models, self.spec = models, models.spec
        self.networks: dict[tuple[int, int], nn.Sequential] = {}
        for k, group in enumerate(models.groups):
            for ego in range(models.egos):
                for p, agent in enumerate(group.agents):
                    self.networks[ego, agent] = stack(models.networks, k).member(ego * len(group.agents) + p)

    def numbers(self, ego: int, agent: int, obs: Tensor) -> Tensor:
        mean, std = self.models.normaliser.mean, self.models.normaliser.std
        read = list(self.spec.obs[agent])
        found: Tensor = self.networks[ego, agent](((obs - mean) / std)[:, read]).detach()
        return found

    def chances(self, ego: int, agent: int, view: View) -> list[Tensor]:
        """Probabilities of every head of a discrete agent."""
        legal = by_head(self.spec.agents[agent], view.legal[:, self.spec.act[agent]])
        parts = by_head(self.spec.agents[agent], self.numbers(ego, agent, view.obs))
        odds = [part.exp() * allowed for part, allowed in zip(parts, legal, strict=True)]
        return [part / part.sum(1, keepdim=True) for part in odds]

    def log_prob(self, ego: int, agent: int, view: View, act: Tensor) -> Tensor:
        own = act[:, self.spec.act[agent]]
        if self.spec.agents[agent].discrete:
            return (own * torch.cat(self.chances(ego, agent, view), 1).clamp_min(1e-30).log()).sum(1)
        mean, log_sigma = self.numbers(ego, agent, view.obs).chunk(2, 1)
        normal = -0.5 * ((own.atanh() - mean) / log_sigma.exp()) ** 2 - log_sigma - 0.5 * math.log(2 * math.pi)
        found: Tensor = (normal - (1 - own**2 + 2.0**-23).log()).sum(1)
        return found

    def mode(self, ego: int, agent: int, view: View) -> Tensor:
        if self.spec.agents[agent].discrete:
            parts = self.chances(ego, agent, view)
            return torch.cat([nn.functional.one_hot(part.argmax(1), part.shape[1]) for part in parts], 1).double()
        return self.numbers(ego, agent, view.obs).chunk(2, 1)[0].tanh()


def every_pair(models: BehaviourCloning, size: int) -> list[tuple[int, int, slice]]:
    """All (ego, agent) with the ego's rows among `egos * size` ego-major ones."""
    return [(i, j, slice(i * size, (i + 1) * size)) for i in range(models.egos) for j in range(models.spec.n)]


@pytest.mark.parametrize("egos", [None, 1, 3])
def test_every_ego_asks_its_own_network_of_every_agent(egos: int | None) -> None:
    spec = motley()
    models = bank(spec, egos=egos).double()
    models.normaliser.fit(3 * torch.randn(100, spec.obs_dim, generator=generator(1)) + 1)
    rows = random_rows(spec, 12 * models.egos, seed=2, dtype=torch.float64)
    loop = Loop(models)
    density = models.log_prob(rows.view, rows.act).detach()
    modes = models.step(None, rows.view, None)[1]
    assert density.shape == (12 * models.egos, spec.n)
    for ego, agent, mine in every_pair(models, 12):
        acts = rows.acting[mine, agent]
        expected = loop.log_prob(ego, agent, rows.view[mine], rows.act[mine])
        torch.testing.assert_close(density[mine, agent][acts], expected[acts], rtol=1e-5, atol=1e-5)
        mode = loop.mode(ego, agent, rows.view[mine]) * acts[:, None]
        torch.testing.assert_close(modes[mine, spec.act[agent]], mode)
    spec.check_action(modes, rows.acting)


def test_rows_that_the_egos_cannot_share_evenly_are_refused() -> None:
    models = bank(motley(), egos=3)
    view = random_view(motley(), 7, generator(0))
    with pytest.raises(GameError, match="7 rows cannot be shared evenly by 3 egos"):
        models.step(None, view, None)


def test_samples_follow_the_predicted_chances_and_greedy_models_never_sample() -> None:
    spec = motley()
    one = random_view(spec, 1, generator(3))
    everybody = View.of(spec, one.obs, legal=one.legal)
    view = everybody[torch.zeros(8000, dtype=torch.int64)]
    models = bank(spec, egos=2)
    found = models.step(None, view, generator(4))[1]
    loop = Loop(models)
    for ego, agent, mine in every_pair(models, 4000):
        own = found[mine, spec.act[agent]]
        if spec.agents[agent].discrete:
            chances = torch.cat(loop.chances(ego, agent, everybody), 1)[0]
            torch.testing.assert_close(own.mean(0), chances, rtol=0, atol=0.04)
            assert not bool(own[:, ~everybody.legal[0, spec.act[agent]]].any())
        else:
            mean, log_sigma = loop.numbers(ego, agent, everybody.obs)[0].chunk(2)
            torch.testing.assert_close(own.atanh().mean(0), mean, rtol=0, atol=0.08)
            torch.testing.assert_close(own.atanh().std(0), log_sigma.exp(), rtol=0.06, atol=0)
    greedy = bank(spec, egos=2, answer="greedy")
    assert torch.equal(greedy.step(None, view, generator(4))[1], models.step(None, view, None)[1])


def test_the_models_remember_nothing() -> None:
    spec = motley()
    view = random_view(spec, 4, generator(0))
    window = Window(obs=view.obs[:, None], act=torch.zeros(4, 1, spec.act_dim), valid=torch.ones(4, 1), now=view)
    models = bank(spec)
    assert models.init(window) is None
    assert models.step(None, view, generator(0))[0] is None


# ---------------------------------------------------------------- opponents whose policies are known


class Known:
    """Agents whose logits, or means before squashing, are linear in what they see."""

    sigma = 0.4

    def __init__(self, spec: GameSpec, seed: int = 0) -> None:
        self.spec = spec
        rng = generator(seed)
        self.weights = [1.5 * torch.randn(len(agent.obs), agent.width, generator=rng) for agent in spec.agents]

    def means(self, agent: int, obs: Tensor) -> Tensor:
        return 0.2 * obs[:, list(self.spec.obs[agent])] @ self.weights[agent]

    def chances(self, agent: int, obs: Tensor) -> list[Tensor]:
        logits = obs[:, list(self.spec.obs[agent])] @ self.weights[agent]
        return [part.softmax(1) for part in by_head(self.spec.agents[agent], logits)]

    def rows(self, size: int, seed: int) -> Rows:
        rng = generator(seed)
        obs = torch.randn(size, self.spec.obs_dim, generator=rng)
        acts = []
        for agent, who in enumerate(self.spec.agents):
            if who.discrete:
                for chance in self.chances(agent, obs):
                    drawn = torch.multinomial(chance, 1, generator=rng).squeeze(1)
                    acts.append(nn.functional.one_hot(drawn, chance.shape[1]).float())
            else:
                means = self.means(agent, obs)
                acts.append((means + self.sigma * torch.randn(means.shape, generator=rng)).tanh())
        return one_step_rows(self.spec, obs, torch.cat(acts, 1))


Fitted = tuple[BehaviourCloning, OpponentFit, Known]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    spec = motley(flags=False)
    models = bank(spec, egos=2, hidden=(32,), learning_rate=5e-3, window=8000, passes=8, entropy_bonus=0.0)
    known = Known(spec)
    return models, models.fit(known.rows(8000, seed=1), generator(2)), known


@pytest.mark.parametrize("agent", [0, 2, 3])
def test_a_softmax_linear_opponent_is_recovered(fitted: Fitted, agent: int) -> None:
    models, fit, known = fitted
    view = View.of(models.spec, known.rows(4000, seed=9).obs)  # unseen
    truth = known.chances(agent, view.obs)
    entropy = sum(-float((p * p.log()).sum(1).mean()) for p in truth)
    surest = sum(float(p.amax(1).mean()) for p in truth) / len(truth)
    loop = Loop(models)
    for ego in range(2):
        found = loop.chances(ego, agent, view)
        nll = sum(-float((p * q.log()).sum(1).mean()) for p, q in zip(truth, found, strict=True))
        right = [p.gather(1, q.argmax(1, keepdim=True)).mean() for p, q in zip(truth, found, strict=True)]
        predicted = sum(-float((q * q.log()).sum(1).mean()) for q in found)
        assert entropy <= nll <= 1.02 * entropy
        assert float(sum(right)) / len(right) == pytest.approx(surest, abs=0.02)
        # what the fit reports are estimates of these from 1600 held-out rows
        assert float(fit.nll[ego, agent]) == pytest.approx(nll, rel=0.1)
        assert float(fit.accuracy[ego, agent]) == pytest.approx(surest, abs=0.04)
        assert float(fit.entropy[ego, agent]) == pytest.approx(predicted, rel=0.06)


def test_a_tanh_gaussian_opponent_is_recovered(fitted: Fitted) -> None:
    models, fit, known = fitted
    obs = known.rows(4000, seed=9).obs
    means = known.means(1, obs)
    noise = torch.randn(means.shape, generator=generator(5))

    def entropy(mean: Tensor, log_sigma: Tensor) -> float:
        """A normal's entropy plus the mean log-derivative of tanh at its samples."""
        squash = (1 - (mean + log_sigma.exp() * noise).tanh() ** 2).log()
        return float((0.5 * math.log(2 * math.pi * math.e) + log_sigma + squash).sum(1).mean())

    loop = Loop(models)
    for ego in range(2):
        mean, log_sigma = loop.numbers(ego, 1, obs).chunk(2, 1)
        assert float((mean - means).abs().mean()) < 0.06
        assert float((log_sigma.exp() - known.sigma).abs().mean()) < 0.04
        # what the fit reports are estimates of these from 1600 held-out rows
        truth = torch.full_like(means, math.log(known.sigma))
        assert float(fit.entropy[ego, 1]) == pytest.approx(entropy(mean, log_sigma), abs=0.12)
        assert float(fit.nll[ego, 1]) == pytest.approx(entropy(means, truth), abs=0.12)
        off = ((means + known.sigma * noise).tanh() - means.tanh()).abs().mean()
        assert float(fit.accuracy[ego, 1]) == pytest.approx(float(1 - off / 2), abs=0.01)


def test_a_deterministic_opponent_is_predicted_without_fail() -> None:
    spec = GameSpec(name="two", agents=(discrete_agent("a", (0, 1), 3), box_agent("b", (1,), 1)), obs_dim=2)
    obs = torch.randint(3, (2000, 2), generator=generator(0)).float()
    acts = torch.cat([nn.functional.one_hot(obs[:, 0].long(), 3), 0.3 * obs[:, 1:] - 0.4], 1)
    models = bank(spec, learning_rate=0.01, passes=20, patience=5)
    fit = models.fit(one_step_rows(spec, obs, acts), generator(1))
    assert fit.accuracy[:, 0].tolist() == [1.0, 1.0]  # not a rounding error above: lengths refuse that
    assert rollout_lengths("accuracy_ratio", 7, fit.accuracy)[:, 0].tolist() == [7, 7]
    assert float(fit.nll[:, 0].max()) < 0.05
    assert float(fit.accuracy[:, 1].min()) > 0.98


def test_the_loss_is_the_likelihood_and_the_entropy_bonus() -> None:
    # counts (70, 20, 10): the minimiser of NLL - bonus * entropy, known to 1e-5
    acts = torch.eye(3).repeat_interleave(torch.tensor([70, 20, 10]), 0)
    spec = GameSpec(name="dice", agents=(discrete_agent("a", (0,), 3),), obs_dim=1)
    rows = one_step_rows(spec, torch.ones(100, 1), acts)
    for bonus, expected in (
        (0.0, (0.7, 0.2, 0.1)),
        (0.1, (0.67004, 0.21483, 0.11513)),
        (1.0, (0.51446, 0.27389, 0.21165)),
    ):
        models = bank(spec, hidden=(), learning_rate=0.05, entropy_bonus=bonus)
        for _ in range(250):
            models._descend(models._shown(Moments.of(rows)), torch.arange(len(rows)).view(models.egos, -1), None)
        chances = Loop(models).chances(0, 0, rows.view)[0][0]
        assert chances.tolist() == pytest.approx(expected, abs=1e-3)


def test_an_opponent_that_switches_has_a_larger_error_within_one_window() -> None:
    agents = tuple(discrete_agent(name, (k,), 3) for k, name in enumerate(("steady", "fickle")))
    spec = GameSpec(name="two", agents=agents, obs_dim=2)

    def rows(size: int, shift: int, seed: int) -> Rows:
        obs = torch.randint(3, (size, 2), generator=generator(seed))
        choice = torch.stack([obs[:, 0], (obs[:, 1] + shift) % 3], 1)
        return one_step_rows(spec, obs.float(), nn.functional.one_hot(choice, 3).flatten(1).float())

    models = bank(spec, hidden=(32,), learning_rate=0.01, window=1000, passes=15, egos=1)
    history = rows(1000, 0, seed=0)
    errors = [float(models.fit(history, generator(1)).nll[0, 1])]
    for seed, shift in ((1, 1), (2, 1)):
        new = rows(500, shift, seed)
        history = Rows(**{name: torch.cat([value, getattr(new, name)]) for name, value in vars(history).items()})
        fit = models.fit(history, generator(1))
        errors.append(float(fit.nll[0, 1]))
        assert float(fit.nll[0, 0]) < 0.05
    assert errors[0] < 0.05
    assert errors[1] > 0.9 * math.log(2)  # half the window contradicts the other half: nobody can do better
    assert errors[2] < 0.15  # the window holds the new behaviour alone


# ---------------------------------------------------------------- what a fit reads and keeps


def test_rows_in_which_an_agent_idles_are_ignored() -> None:
    spec = motley()
    rows = random_rows(spec, 200, seed=0)
    widths = torch.tensor([agent.width for agent in spec.agents])
    other = spec.random_action(torch.ones_like(rows.acting), rows.legal, generator(9))
    idle = (~rows.acting).repeat_interleave(widths, 1)
    assert bool(idle.any())
    fits, models = [], []
    for act in (rows.act, torch.where(idle, other, rows.act)):
        models.append(bank(spec))
        fits.append(models[-1].fit(rows.with_(act=act), generator(1)))
    assert equal(*map(weights, models))
    assert torch.equal(fits[0].nll, fits[1].nll)
    assert torch.equal(fits[0].accuracy, fits[1].accuracy)
    models.append(bank(spec))
    models[-1].fit(rows.with_(act=torch.where(idle, rows.act, other)), generator(1))
    assert not equal(weights(models[0]), weights(models[-1]))


def test_an_agent_that_never_acts_is_unknown_and_keeps_its_first_weights() -> None:
    spec = motley()
    rows = random_rows(spec, 100, seed=0)
    acting = rows.acting.clone()
    acting[:, 1] = False
    models = bank(spec)
    before = weights(models)
    fit = models.fit(rows.with_(acting=acting), generator(1))
    assert fit.nll.isnan().tolist() == [[False, True, False, False]] * 4
    assert torch.equal(fit.nll.isnan(), fit.accuracy.isnan())
    assert torch.equal(fit.nll.isnan(), fit.entropy.isnan())
    driver = [group.agents for group in models.groups].index((1,))
    own = len(list(stack(models.networks, 0).parameters()))
    changed = [not torch.equal(a, b) for a, b in zip(before, weights(models), strict=True)]
    assert changed == [k // own != driver for k in range(len(changed))]


def test_scores_are_means_over_held_out_rows() -> None:
    spec = motley()
    rows = random_rows(spec, 300, seed=0)
    models = bank(spec, egos=2)
    fit = models.fit(rows, generator(1))
    held = rows[torch.randperm(300, generator=generator(1))[:60]]
    loop = Loop(models)
    for ego, agent, _ in every_pair(models, 1):
        acts = held.acting[:, agent]
        density = loop.log_prob(ego, agent, held.view, held.act)[acts]
        assert float(fit.nll[ego, agent]) == pytest.approx(-float(density.mean()), rel=1e-4)
        mode, own = loop.mode(ego, agent, held.view)[acts], held.act[acts][:, spec.act[agent]]
        who = spec.agents[agent]
        if who.discrete:
            right = [(m * o).sum(1).mean() for m, o in zip(by_head(who, mode), by_head(who, own), strict=True)]
            assert float(fit.accuracy[ego, agent]) == pytest.approx(float(sum(right)) / len(right), rel=1e-5)
            chances = [part[acts] for part in loop.chances(ego, agent, held.view)]
            entropy = sum(-float(torch.special.xlogy(p, p).sum(1).mean()) for p in chances)
            assert float(fit.entropy[ego, agent]) == pytest.approx(entropy, rel=1e-4)
        else:
            assert float(fit.accuracy[ego, agent]) == pytest.approx(float(1 - (mode - own).abs().mean() / 2), rel=1e-5)


def test_every_network_keeps_the_best_weights_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = motley()
    models = bank(spec, egos=2, batch_size=1000, passes=6, patience=6)
    rows = random_rows(spec, 100, seed=0)
    noise = generator(3)
    snapshots: list[Loop] = []

    def shake(*_: Any) -> None:
        with torch.no_grad():
            for parameter in models.networks.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=noise))
        snapshots.append(Loop(models))

    monkeypatch.setattr(models, "_descend", shake)
    models.normaliser.fit(rows.obs)
    snapshots.append(Loop(models))
    fit = models.fit(rows, generator(1))
    held = rows[torch.randperm(100, generator=generator(1))[:20]]
    kept, chosen = Loop(models), set()
    for ego, agent, _ in every_pair(models, 1):
        acts = held.acting[:, agent]
        scores = [-float(s.log_prob(ego, agent, held.view, held.act)[acts].mean()) for s in snapshots]
        best = scores.index(min(scores))
        chosen.add(best)
        assert float(fit.nll[ego, agent]) == pytest.approx(scores[best], rel=1e-4)
        theirs, ours = snapshots[best].networks[ego, agent], kept.networks[ego, agent]
        assert equal(list(theirs.parameters()), list(ours.parameters()))
    assert len(snapshots) == 7
    assert len(chosen) > 2  # the networks do not agree on which pass was best


def test_a_fit_ends_when_no_network_gets_better(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = motley()
    models = bank(spec, passes=50, patience=3, learning_rate=5.0)
    before = weights(models)
    models.normaliser.fit(random_rows(spec, 100, seed=0).obs)
    monkeypatch.setattr(models, "_descend", lambda *_: None)
    assert models.fit(random_rows(spec, 100, seed=0), generator(1)).passes == 3
    assert equal(before, weights(models))


def test_only_the_newest_rows_are_read() -> None:
    spec = motley()
    old, new = random_rows(spec, 50, seed=0), random_rows(spec, 120, seed=1)
    both = Rows(**{name: torch.cat([value, getattr(new, name)]) for name, value in vars(old).items()})
    found = []
    for rows in (new, both):
        models = bank(spec, window=120)
        models.fit(rows, generator(1))
        found.append(weights(models))
    assert equal(*found)


def test_every_ego_draws_its_own_batches() -> None:
    spec = motley()
    models = bank(spec, egos=2)
    networks = [stack(models.networks, k) for k in range(len(models.groups))]
    with torch.no_grad():  # the same weights for both egos
        for parameter in models.networks.parameters():
            parameter[len(parameter) // 2 :] = parameter[: len(parameter) // 2]
    models.fit(random_rows(spec, 600, seed=0), generator(1))
    for network in networks:
        for parameter in network.parameters():
            first, second = parameter.chunk(2)
            assert not torch.equal(first, second)


# ---------------------------------------------------------------- repeatability


def test_the_same_seeds_give_the_same_models() -> None:
    spec = motley()

    def run(seed: int, rng: int) -> list[Tensor]:
        models = bank(spec, seed=seed)
        models.fit(random_rows(spec, 200, seed=0), generator(rng))
        return weights(models)

    assert equal(run(0, 1), run(0, 1))
    assert not equal(run(0, 1), run(1, 1))
    assert not equal(run(0, 1), run(0, 2))


def test_a_restored_bank_goes_on_bit_for_bit() -> None:
    spec = motley()
    first, second = random_rows(spec, 200, seed=0), random_rows(spec, 200, seed=1)
    whole = bank(spec)
    whole.fit(first, generator(1))
    saved = whole.state()
    fit = whole.fit(second, generator(2))  # must not reach into what was saved
    resumed = bank(spec, seed=5)
    resumed.restore(saved)
    again = resumed.fit(second, generator(2))
    assert equal(weights(whole), weights(resumed))
    for name in ("nll", "accuracy", "entropy"):
        assert torch.equal(getattr(fit, name), getattr(again, name))
    assert torch.equal(whole.normaliser.mean, resumed.normaliser.mean)


# ---------------------------------------------------------------- refusals


def test_too_few_rows_are_refused() -> None:
    spec = motley()
    with pytest.raises(GameError, match="at least 10 rows to fit, got 9"):
        bank(spec).fit(random_rows(spec, 9, seed=0), generator(0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BehaviourCloningConfig(holdout=1.0), "holdout=1.0"),
        (lambda: BehaviourCloningConfig(window=9), "window=9"),
        (lambda: BehaviourCloningConfig(batch_size=0), "batch_size=0"),
        (lambda: BehaviourCloningConfig(passes=0), "passes=0"),
        (lambda: BehaviourCloningConfig(patience=0), "patience=0"),
        (lambda: BehaviourCloningConfig(learning_rate=0.0), "learning_rate=0.0"),
        (lambda: BehaviourCloningConfig(entropy_bonus=-1.0), "entropy_bonus=-1.0"),
    ],
)
def test_contradictions_are_named(build: Callable[[], BehaviourCloningConfig], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# ---------------------------------------------------------------- what they see, ensembles, mixtures


def told(spec: GameSpec, obs: Tensor, choice: Tensor) -> Moments:
    """Moments of one-hot agents with one head each, who chose `choice (B, N)`."""
    acts = [nn.functional.one_hot(choice[:, i], agent.width) for i, agent in enumerate(spec.agents)]
    return Moments(view=View.of(spec, obs), act=torch.cat(acts, 1).float())


PAIR = GameSpec(
    name="pair", agents=(discrete_agent("a", (0, 1), 3), discrete_agent("b", (2, 3), 3)), obs_dim=5
)  # the last column is nobody's


@pytest.mark.parametrize(("sees", "columns"), [("opponent", (2, 3)), ("own", (0, 1)), ("state", (0, 1, 2, 3, 4))])
def test_models_read_what_they_may_see_and_nothing_else(sees: Any, columns: tuple[int, ...]) -> None:
    models = bank(PAIR, egos=1, sees=sees)
    obs = torch.randn(6, 5, generator=generator(0))
    before = models.predicted(View.of(PAIR, obs)).probabilities("b")[0]
    for column in range(5):
        other = obs.clone()
        other[:, column] = torch.nan
        after = models.predicted(View.of(PAIR, other)).probabilities("b")[0]
        assert bool(after.isnan().all()) == (column in columns)
        assert torch.equal(after, before) != (column in columns)


def test_a_model_of_what_its_ego_sees_learns_what_follows_from_it_alone() -> None:
    obs = torch.randint(3, (2_000, 5), generator=generator(0)).float()
    choice = torch.stack([obs[:, 2], obs[:, 0]], 1).long()  # each does what the other is shown
    for sees, best in (("opponent", math.log(3)), ("own", 0.0), ("state", 0.0)):
        models = bank(PAIR, sees=sees, passes=20, learning_rate=0.01)
        fit = models.fit(told(PAIR, obs, choice), generator(1))
        found = [float(fit.nll[0, 1]), float(fit.nll[1, 0])]
        assert found == pytest.approx([best, best], abs=0.1)


def test_egos_that_see_unequally_much_need_banks_of_their_own() -> None:
    with pytest.raises(GameError, match=r"egos \['scout', 'driver', 'guard', 'speaker'\] observe \[2, 3, 4\] numbers"):
        bank(motley(), sees="own")
    models = BehaviourCloning(motley(), BehaviourCloningConfig(sees="own"), generator(0), egos=(1,))
    assert models.ego == (1,)


@pytest.mark.parametrize("components", [1, 2])
def test_an_ensemble_is_the_even_mixture_of_its_members(components: int) -> None:
    spec = motley()
    models = bank(spec, egos=2, members=3, components=components)
    view = random_view(spec, 10, generator(1))
    whole = models.predicted(view)
    act = models.step(None, view, generator(2))[1]
    spec.check_action(act, view.acting)
    single = bank(spec, egos=2, components=components)
    each = []
    for k in range(3):
        for own, all_ in zip(single.networks, models.networks, strict=True):
            for one, many in zip(own.parameters(), all_.parameters(), strict=True):
                one.data.copy_(many.data.view(3, -1, *many.shape[1:])[k])
        each.append(single.predicted(view).log_prob(act))
    wanted = torch.logsumexp(torch.stack(each), 0) - math.log(3)
    torch.testing.assert_close(whole.log_prob(act), wanted)
    torch.testing.assert_close(models.log_prob(view, act), wanted)
    assert {part.components for part in whole.parts} == {3 * components}


def test_members_differ_where_there_are_no_data_and_agree_where_there_are() -> None:
    obs = 0.3 * torch.randn(4_000, 5, generator=generator(0))
    choice = (torch.rand(4_000, 2, generator=generator(1)) < obs[:, [0, 2]].sigmoid()).long()
    models = bank(PAIR, egos=1, members=5, hidden=(32,), passes=15)
    models.fit(told(PAIR, obs, choice), generator(2))
    far = torch.zeros(50, 5)
    far[:, 2:4] = 4.0 * torch.randn(50, 2, generator=generator(3)).sign()
    with torch.no_grad():
        known, unknown = (models.predicted(View.of(PAIR, x)).disagreement()[:, 1].mean() for x in (obs[:500], far))
    assert float(unknown) > 5 * float(known)


def test_components_hold_two_minds_and_tie_heads_together() -> None:
    spec = GameSpec(name="two", agents=(discrete_agent("a", (0,), 2, 2), box_agent("b", (0,), 1)), obs_dim=1)
    coin = torch.randint(2, (3_000,), generator=generator(0))
    side = torch.where(coin == 0, -0.6, 0.6) + 0.05 * torch.randn(3_000, generator=generator(1))
    act = torch.cat([nn.functional.one_hot(coin, 2).repeat(1, 2), side[:, None]], 1).float()
    moments = Moments(view=View.of(spec, torch.ones(3_000, 1)), act=act)
    nll = {}
    for components in (1, 2):
        models = bank(spec, egos=1, components=components, passes=25, learning_rate=0.01, entropy_bonus=0.0)
        nll[components] = models.fit(moments, generator(2)).nll[0].tolist()
    assert nll[1][0] == pytest.approx(2 * math.log(2), abs=0.02)
    assert nll[2][0] == pytest.approx(math.log(2), abs=0.02)  # both heads say the same
    assert nll[2][1] < nll[1][1] - 1.0


def test_memory_lets_old_moments_count_less() -> None:
    obs = torch.zeros(2_000, 5)
    choice = torch.zeros(2_000, 2, dtype=torch.int64)
    choice[1_000:] = 1  # the newer half
    chances = {}
    for memory in (None, 500.0):
        models = bank(PAIR, egos=1, hidden=(), memory=memory, passes=40, patience=40, learning_rate=0.02)
        held = torch.zeros(2_000, dtype=torch.bool)
        held[1_900:] = True
        models.fit(told(PAIR, obs, choice), generator(0), held=held)
        with torch.no_grad():
            chances[memory] = float(models.predicted(View.of(PAIR, obs[:1])).probabilities("b")[0][0, 1])
    assert chances[None] == pytest.approx(900 / 1_900, abs=0.05)
    counted = [math.exp(-(1_999 - k) / 500) for k in range(1_900)]
    assert chances[500.0] == pytest.approx(sum(counted[1_000:]) / sum(counted), abs=0.04)


def test_what_is_held_out_is_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    obs = torch.randn(400, 5, generator=generator(0))
    choice = torch.randint(3, (400, 2), generator=generator(1))
    held = torch.arange(400) // 10 % 2 == 1  # whole episodes of ten
    found = []
    scores = itertools.count(0, -1)  # every pass counts as better than the last
    monkeypatch.setattr(BehaviourCloning, "_likelihoods", lambda *_: torch.full((1, 2), float(next(scores))))
    for where in (held, ~held):
        for shift in (0, 1):
            models = bank(PAIR, egos=1, passes=2)
            moved = torch.where(where[:, None], (choice + shift) % 3, choice)
            models.fit(told(PAIR, obs, moved), generator(3), held=held)
            found.append(weights(models))
    assert equal(found[0], found[1])
    assert not equal(found[2], found[3])
    with pytest.raises(GameError, match="of the 400 newest moments, 0 are held out"):
        bank(PAIR).fit(told(PAIR, obs, choice), generator(3), held=torch.zeros(400, dtype=torch.bool))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sees": "nothing"}, "sees='nothing' must be one of 'opponent', 'own', 'state'"),
        ({"members": 0}, "members=0 and components=1 must be >= 1"),
        ({"memory": 0.0}, "memory=0.0 must be > 0, or None"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 >= 0"),
    ],
)
def test_new_numbers_that_make_no_sense_are_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BehaviourCloningConfig(**change)
