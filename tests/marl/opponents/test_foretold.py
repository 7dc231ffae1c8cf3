"""What the ego is told of the others is what the model expects where they stand, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from presage.common.dyna import DynaConfig
from presage.common.evaluate import evaluate
from presage.common.game import Game, GameError, GameSpec, View, Window
from presage.common.replay import Replay
from presage.common.streams import streams
from presage.envs.batched import BatchedGame, Rules
from presage.marl.masac import MASACConfig
from presage.marl.model_free import ModelFreeConfig
from presage.marl.opponents.against import Against
from presage.marl.opponents.assessment import Expects
from presage.marl.opponents.behaviour_cloning import BehaviourCloning, BehaviourCloningConfig
from presage.marl.opponents.foretold import Foretold, expectation
from presage.marl.opponents.history_cloning import HistoryCloning, HistoryCloningConfig
from presage.marl.opponents.policies import Stated, linear, uniform
from presage.marl.opponents.pools import Opponent, Pool
from presage.marl.opponents.predicted import Predicted
from tests.common.toy import PLAIN, LinearGame, box_agent, discrete_agent, generator
from tests.marl.opponents.test_against import SPEC, Drifting, Forgetful, equal, rolled


class Knows:
    """The ego's model of others who tell their distributions."""

    history = 1

    def __init__(self, others: Stated, ego: int = 0) -> None:
        self.others, self.ego, self.spec = others, (ego,), others.spec

    def expected(self, window: Window) -> Predicted:
        return self.others.predicted(window.now)


def others(seed: int = 3) -> Stated:
    return linear(SPEC, generator(seed), scale=5.0)


def against(copies: int = 4) -> Against:
    pool = Pool(SPEC, [Opponent(name="linear", actor=others()), Opponent(name="uniform", actor=uniform(SPEC))])
    return Against(BatchedGame(Drifting(), copies), "ego", pool)


def foretold(copies: int = 4, told: Literal["moves"] | None = None) -> Foretold:
    return Foretold(against(copies), told or Knows(others()))


def states(obs: Tensor) -> View:
    """Of the inner game, out of what its three agents see of it."""
    return View.of(SPEC, torch.stack([obs[:, 0], obs[:, 1], obs[:, 2], obs[:, 6]], 1))


def test_the_ego_reads_what_the_model_expects_of_the_others_where_they_are() -> None:
    """Also in states that an episode ends in, and in those that it begins in."""
    game, weights = foretold(), others()
    assert game.spec.obs[0] == (0, 1, 14, 15, 16, 17, 18)
    assert game.spec.obs_dim == 19
    ended = 0
    for rows in rolled(game, 30):
        for obs in (rows.obs, rows.next_obs):
            told = weights.predicted(states(obs))
            chances = {
                agent: torch.cat(part.marginals(), -1)[place]
                for part in told.parts for place, agent in enumerate(part.group.agents)
            }  # fmt: skip
            torch.testing.assert_close(obs[:, 14:], torch.cat([chances[1], chances[2]], 1))
        ended += int((rows.truncated | rows.terminated[:, 0]).sum())
    assert ended > 4


def test_nothing_else_changes() -> None:
    for told, plain in zip(rolled(foretold(), 30), rolled(against(), 30), strict=True):
        for name in ("obs", "next_obs"):
            assert torch.equal(getattr(told, name)[:, :14], getattr(plain, name))
        for name in ("act", "reward", "terminated", "truncated", "step", "acting"):
            assert torch.equal(getattr(told, name), getattr(plain, name))


def test_moves_are_told_as_they_will_be_made() -> None:
    for rows in rolled(foretold(told="moves"), 30):
        assert torch.equal(rows.obs[:, 14:], rows.obs[:, 7:12])
        assert torch.equal(rows.next_obs[:, 14:], rows.next_obs[:, 7:12])


@pytest.mark.parametrize("steps", [0, 1, 9])
def test_it_goes_on_where_it_was_saved(steps: int) -> None:
    game = foretold(5)
    rolled(game, steps)
    saved = game.state()
    expected = rolled(game, 40, seed=8, view=game._view)
    fresh = foretold(5)
    again = rolled(fresh, 40, seed=8, view=fresh.restore(saved))
    assert all(equal(a, b) for a, b in zip(again, expected, strict=True))


def test_where_the_game_does_not_replay_the_boundary_is_its_own() -> None:
    def made() -> Foretold:
        pool = Pool(SPEC, [Opponent(name="linear", actor=others())])
        return Foretold(Against(Forgetful(Drifting(), 3), "ego", pool, greedy=True), "moves")

    game = made()
    rolled(game, 4)
    with pytest.raises(GameError) as raised:
        made().restore(game.state())
    rows, _ = (fresh := made()).step(
        fresh.spec.random_action((view := fresh.restore(raised.value.boundary)).acting, view.legal, generator(0))  # type: ignore[attr-defined]
    )
    assert rows.step.tolist() == [4, 0, 4]


def test_of_box_actions_the_likeliest_is_told() -> None:
    spec = replace(PLAIN, agents=(discrete_agent("ego", (0, 1), 3), box_agent("b", (1, 2), 2)))
    stated = linear(spec, generator(0))
    inner = LinearGame(spec, 3)
    game = Foretold(Against(inner, 0, Pool(spec, [Opponent(name="l", actor=stated)])), Knows(stated))
    for rows in rolled(game, 25):
        view = View.of(spec, torch.stack([rows.obs[:, 0], rows.obs[:, 1], rows.obs[:, 3]], 1))
        torch.testing.assert_close(rows.obs[:, 7:], stated.step(None, view, None)[1][:, 3:])


def test_expectations_are_mixed_over_members_and_ordered_by_agent() -> None:
    model = BehaviourCloning(SPEC, BehaviourCloningConfig(members=3), generator(0), egos=(0,))
    view = View.of(SPEC, torch.randn(6, 4, generator=generator(1)))
    told = model.predicted(view)
    found = expectation(told)
    assert found.shape == (6, SPEC.act_dim)
    torch.testing.assert_close(found[:, 3:6].sum(1), torch.ones(6))
    for column in range(SPEC.act_dim):  # by the definition of a probability: what one-hot actions average to
        sure = torch.zeros(6, SPEC.act_dim)
        agent = next(i for i, where in enumerate(SPEC.act) if where.start <= column < where.stop)
        sure[:, column] = 1.0
        torch.testing.assert_close(found[:, column], told.log_prob(sure).exp()[:, agent])


class Naming(Rules):
    """The ego is paid 1 for naming what the other names in the same step; the ego sees nothing."""

    def __init__(self) -> None:
        self.device, self.dtype = torch.device("cpu"), torch.float32
        agents = (discrete_agent("ego", (0,), 3), discrete_agent("other", (1, 2, 3), 3))
        self.spec = GameSpec(name="naming", agents=agents, obs_dim=4, episode_limit=1)

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        told = torch.eye(3)[torch.randint(3, (copies,), generator=rng)]
        return torch.cat([torch.zeros(copies, 1), told], 1)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        return state

    def see(self, state: Tensor) -> dict[str, Tensor]:
        return {"obs": state}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return (act[:, :3] * act[:, 3:]).sum(1, keepdim=True).expand(-1, 2)


def naming(told: str, copies: int) -> Game:
    """Against one that names what it sees in 0.8 of the steps or so."""
    spec = Naming().spec

    def predicted(view: View) -> Predicted:
        return Predicted.of_parameters(spec, [torch.zeros(len(view), 3), 2.1 * view.obs[:, 1:]])

    other = Stated(spec, predicted)
    game = Against(BatchedGame(Naming(), copies), "ego", Pool(spec, [Opponent(name="other", actor=other)]))
    if told == "nothing":
        return game
    return Foretold(game, "moves" if told == "moves" else Knows(other))


def learned_return(told: str) -> float:
    """Of an independent learner for a few hundred updates, and then greedy."""
    game = naming(told, 32)
    method = ModelFreeConfig(
        learner=MASACConfig(hidden=(32,), learning_rate=1e-2, critic="own", temperature=0.02),
        loop=DynaConfig(real_share=1.0, warmup_steps=320, updates_per_step=0.05, batch_size=128),
    )
    trainee = method.build(game.spec, streams(0), torch.device("cpu"))
    replay, view = Replay(game.spec, 10_000, 32), game.reset(0)
    for _ in range(150):
        rows, view = game.step(trainee.explore(view))
        replay.extend(rows)
        trainee.learn(replay, rows)
    return float(evaluate(naming(told, 64), trainee.actor, 512, 1).returns.mean())


def test_a_learner_that_is_told_gets_what_the_others_know() -> None:
    """The ego names what the other is about to name; the other's choice hangs on what it alone sees."""
    gained = {}
    for name in ("nothing", "model", "moves"):
        gained[name] = learned_return(name)
    assert gained["nothing"] < 0.45, "a guess of three"
    assert gained["model"] > 0.75, "as sure as the other is itself"
    assert gained["moves"] > 0.97


@pytest.mark.parametrize(("model", "message"), [
    (Knows(linear(PLAIN, generator(0))), r"is of 'plain' as it was, the pool plays 'drifting'"),
    (Knows(others(), ego=1), r"is for b; make one for 'ego' alone"),
    (HistoryCloning(SPEC, HistoryCloningConfig(), generator(0), ego=0), r"views at once"),
])  # fmt: skip
def test_models_that_do_not_suit_are_refused(model: Expects, message: str) -> None:
    with pytest.raises(GameError, match=message):
        Foretold(against(), model)


def test_what_is_neither_a_model_nor_moves_is_refused() -> None:
    with pytest.raises(GameError, match=r"told='actions' must be 'moves', or a model"):
        foretold(told="actions")  # type: ignore[arg-type]


def test_games_whose_legal_actions_vary_are_refused_to_models() -> None:
    rules = Drifting()
    spec = rules.spec = replace(SPEC, legal_varies=True)
    game = Against(BatchedGame(rules, 2), "ego", Pool(spec, [Opponent(name="u", actor=uniform(spec))]))
    with pytest.raises(GameError, match=r"in 'drifting' legal actions vary"):
        Foretold(game, Knows(uniform(spec)))


def test_what_was_saved_of_another_game_is_refused() -> None:
    plain = against()
    plain.reset(0)
    with pytest.raises(GameError, match=r"is of 'drifting against 2'; this game is 'drifting against 2, foretold'"):
        foretold().restore(plain.state())


def test_a_step_before_the_first_reset_is_refused() -> None:
    with pytest.raises(GameError, match=r"call reset\(seed\) before playing"):
        foretold().step(torch.zeros(4, 3))
