"""Policies that tell what they play do play it; teams, switches, pools and cross-play put them together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from presage.common.evaluate import RandomActor, first_window, play
from presage.common.game import Carry, Game, GameError, GameSpec, View, Window
from presage.common.policy import JointPolicy
from presage.envs import registry
from presage.marl.opponents.policies import Stated, Switching, Team, learned, linear, noisy, uniform
from presage.marl.opponents.pools import Opponent, Pool, cross_play
from tests.common.toy import LinearGame, box_agent, discrete_agent, generator
from tests.marl.sample_games import motley, random_view

SPEC = motley()


class Always:
    """Does the same for ever."""

    def __init__(self, act: Tensor) -> None:
        self.act = act

    def init(self, window: Window) -> Carry:
        return None

    def step(self, carry: Carry, view: View, rng: Any) -> tuple[Carry, Tensor]:
        return carry, self.act.expand(len(view), -1)


def of_every_kind() -> dict[str, Stated]:
    fixed = SPEC.random_action(torch.ones(1, SPEC.n) > 0, torch.ones(1, SPEC.act_dim) > 0, generator(3))
    policy = JointPolicy(SPEC, (8,), generator(1), generator(2))
    return {
        "uniform": uniform(SPEC), "linear": linear(SPEC, generator(0)), "noisy": noisy(SPEC, Always(fixed), 0.3),
        "learned": learned(policy), "hot": learned(policy, temperature=3.0),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["uniform", "linear", "noisy", "learned", "hot"])
def test_what_is_played_is_what_is_told(kind: str) -> None:
    actor = of_every_kind()[kind]
    one = random_view(SPEC, 1, generator(5))
    view = one[torch.zeros(6_000, dtype=torch.int64)]
    act = actor.step(None, view, generator(6))[1]
    SPEC.check_action(act, view.acting)
    told = actor.predicted(one)
    for i, agent in enumerate(SPEC.agents):
        own = act[:, SPEC.act[i]]
        if not bool(one.acting[0, i]):
            assert not bool(own.any())
        elif agent.discrete:
            torch.testing.assert_close(own.mean(0), torch.cat(told.probabilities(i), 1)[0], rtol=0, atol=0.03)
    assert torch.equal(actor.step(None, one, None)[1], actor.step(None, one, None)[1])


def test_a_noisy_actor_errs_as_often_as_it_should() -> None:
    spec = GameSpec(name="one", agents=(discrete_agent("a", (0,), 4), box_agent("b", (0,), 1)), obs_dim=1)
    actor = noisy(spec, Always(torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.5]])), 0.2, deviation=0.1)
    told = actor.predicted(View.of(spec, torch.zeros(1, 1)))
    torch.testing.assert_close(told.probabilities("a")[0], torch.tensor([[0.05, 0.85, 0.05, 0.05]]))
    draws = actor.step(None, View.of(spec, torch.zeros(4_000, 1)), generator(0))[1][:, 4].atanh()
    assert float(draws.mean()) == pytest.approx(float(torch.tensor(0.5).atanh()), abs=0.01)
    assert float(draws.std()) == pytest.approx(0.1, abs=0.005)
    certain = noisy(spec, Always(torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.5]])), 0.0)
    assert float(certain.predicted(View.of(spec, torch.zeros(1, 1))).entropy(generator(0))[0, 0]) == 0.0


def test_a_learned_policy_tells_its_own_probabilities() -> None:
    policy = JointPolicy(SPEC, (8,), generator(1), generator(2))
    view = random_view(SPEC, 5, generator(3))
    everybody = View.of(SPEC, view.obs, legal=view.legal)
    act, log_p = policy.answers(everybody, generator(4))
    found = learned(policy).predicted(everybody).log_prob(act.detach())
    torch.testing.assert_close(found, log_p.T, rtol=1e-3, atol=1e-3)
    cold = learned(policy, temperature=0.01).predicted(everybody).probabilities("scout")[0]
    assert float(cold.detach().amax(1).mean()) > 0.95


def test_every_seat_is_played_by_its_own_actor() -> None:
    first, second = linear(SPEC, generator(0)), linear(SPEC, generator(1))
    team = Team(SPEC, {"scout": first, "driver": second, "guard": first, "speaker": second})
    assert len(team.actors) == 2
    view = random_view(SPEC, 4, generator(2))
    act = team.step(team.init(first_window(SPEC, view)), view, None)[1]
    for i, name in enumerate(SPEC.names):
        own = (first if name in ("scout", "guard") else second).step(None, view, None)[1]
        assert torch.equal(act[:, SPEC.act[i]], own[:, SPEC.act[i]])
    with pytest.raises(GameError, match=r"\['judge'\] are none of them, \['speaker'\] have no actor"):
        Team(SPEC, {"scout": first, "driver": first, "guard": first, "judge": first})


ONE = GameSpec(name="one", agents=(box_agent("a", (0,), 1),), obs_dim=1)


def test_actors_follow_one_another_and_begin_anew_with_every_episode() -> None:
    low, high = (Always(torch.full((1, 1), x)) for x in (-1.0, 1.0))
    switching = Switching([low, high, low], until=[2, 5])
    game = LinearGame(ONE, copies=2, limit=7)
    seen = []
    for (rows, _), _ in zip(play(game, switching, 0), range(14), strict=False):
        seen.append(rows.act[:, 0].tolist())
    wanted = [[-1.0] * 2] * 2 + [[1.0] * 2] * 3 + [[-1.0] * 2] * 2
    assert seen == wanted * 2
    assert switching.who(torch.arange(7)).tolist() == [0, 0, 1, 1, 1, 2, 2]
    with pytest.raises(ValueError, match=r"until=\[5, 2\] must be 2 increasing env steps >= 1 for 3 actors"):
        Switching([low, high, low], until=[5, 2])


def test_a_team_of_actors_with_and_without_memory_plays_whole_episodes() -> None:
    spec = GameSpec(name="two", agents=(box_agent("a", (0,), 1), box_agent("b", (1,), 1)), obs_dim=2)
    switching = Switching([uniform(spec), linear(spec, generator(0))], until=[3])
    team = Team(spec, {"a": switching, "b": uniform(spec)})
    game = LinearGame(spec, copies=3, limit=4)
    for (rows, _), _ in zip(play(game, team, 0, generator(1)), range(9), strict=False):
        spec.check_action(rows.act)


def pool(spec: GameSpec) -> Pool:
    family = [Opponent(name=f"linear {k}", actor=linear(spec, generator(k)), family="linear") for k in range(3)]
    return Pool(spec, [*family, Opponent(name="uniform", actor=uniform(spec))])


def test_families_are_never_divided() -> None:
    for seed in range(6):
        first, second = pool(SPEC).split(0.5, generator(seed))
        assert sorted(first.names + second.names) == sorted(pool(SPEC).names)
        assert "uniform" in (*first.names, *second.names)
        assert len({name.startswith("linear") for name in first.names}) == 1
    with pytest.raises(GameError, match="are of the family 'linear'; a split needs a second one"):
        Pool(SPEC, pool(SPEC).opponents[:3]).split(0.5, generator(0))
    with pytest.raises(GameError, match="needs opponents of different names"):
        Pool(SPEC, [])


def climb(copies: int) -> Game:
    return registry.make("toy/climb", copies=copies)


def test_a_pool_is_recorded_under_its_names() -> None:
    game = climb(4)
    record = pool(game.spec).record(game, "agent_0", RandomActor(game.spec), 8, 0, generator(0))
    names = [record.names[k] for k in record.who.tolist()]
    assert names == [name for name in pool(game.spec).names for _ in range(8)]
    apart = record.split(0.25, generator(1), by="who")
    assert len(set(record.who[apart[1]].tolist())) == 1


def test_cross_play_of_fixed_choices_is_the_table_of_payoffs() -> None:
    choices = {str(k): Always(torch.eye(3)[[k]].repeat(1, 2)) for k in range(3)}
    found = cross_play(climb, "agent_0", choices, choices, episodes=2)
    np.testing.assert_array_equal(found.means, [[11, -30, 0], [-30, 7, 6], [0, 0, 5]])
    assert found.returns.shape == (3, 3, 2)
    assert str(found).splitlines()[1].split() == ["0", "11.00", "-30.00", "0.00"]
    assert len(found.plot().axes) == 2
    with pytest.raises(GameError, match="needs both sides, got 0 egos and 3 opponents"):
        cross_play(climb, "agent_0", {}, choices)
