"""The ego's game against a pool: it is the game that is played, its labels are true, and it goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from presage.common.evaluate import evaluate, play
from presage.common.game import Carry, Game, GameError, GameSpec, Rows, View, Window
from presage.envs.batched import BatchedGame, Rules
from presage.envs.registry import make
from presage.envs.vector import ReplayError
from presage.envs.views import GymnasiumView
from presage.marl.opponents.against import Against, Draw, Hidden
from presage.marl.opponents.policies import Team, linear, uniform
from presage.marl.opponents.pools import Opponent, Pool, seats
from tests.common.toy import PLAIN, LinearGame, box_agent, discrete_agent, generator


class Clocked:
    """Pushes by how many views of the episode it has seen, and remembers the first of them; counts who asks it."""

    def __init__(self, spec: GameSpec, shift: int = 0) -> None:
        self.spec, self.shift, self.asked = spec, shift, list[int]()

    def init(self, window: Window) -> Carry:
        return torch.zeros(len(window)), (window.now.obs.clone(), None)

    def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
        self.asked.append(len(view))
        seen, (first, _) = carry
        assert torch.equal(first[seen == 0], view.obs[seen == 0]), "an episode begins with a look at its first view"
        act = torch.zeros(len(view), self.spec.act_dim)
        for agent, where in zip(self.spec.agents, self.spec.act, strict=True):
            act[:, where] = torch.eye(agent.width)[(seen.long() + self.shift) % agent.width]
        return (seen + 1, (first, None)), act


class Spied:
    """A game that notes what is played."""

    def __init__(self, game: Game) -> None:
        self.game, self.spec, self.copies, self.played = game, game.spec, game.copies, list[Tensor]()

    def reset(self, seed: int) -> View:
        return self.game.reset(seed)

    def step(self, act: Tensor) -> tuple[Rows, View]:
        self.played.append(act)
        return self.game.step(act)

    def state(self) -> dict[str, Any]:
        return self.game.state()

    def restore(self, state: Mapping[str, Any]) -> View:
        return self.game.restore(state)

    def close(self) -> None:
        self.game.close()


class Drifting(Rules):
    """Three agents push one point each; the first one's touch of an edge ends the episode."""

    def __init__(self) -> None:
        self.device, self.dtype = torch.device("cpu"), torch.float32
        agents = (discrete_agent("ego", (0, 1), 3), discrete_agent("b", (2, 0), 3), discrete_agent("c", (1, 2, 3), 2))
        self.spec = GameSpec(name="drifting", agents=agents, obs_dim=4, episode_limit=7, terminates=True)

    def draw(self, copies: int, rng: torch.Generator) -> Tensor:
        return torch.rand(copies, 4, generator=rng)

    def move(self, state: Tensor, act: Tensor, chance: Tensor | None) -> Tensor:
        return state + 0.25 * torch.stack([act[:, 0], act[:, 4], act[:, 7], act[:, 2] + act[:, 5]], 1)

    def see(self, state: Tensor) -> dict[str, Tensor]:
        return {"obs": state}

    def rewards(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return after[:, :3] - act[:, 6:7]

    def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
        return (after[:, :1] > 1.2).expand(-1, 3)


SPEC = Drifting().spec


def pool(*actors: Any) -> Pool:
    return Pool(SPEC, [Opponent(name=f"o{k}", actor=actor) for k, actor in enumerate(actors)])


def three() -> Pool:
    """One with a memory, one that samples, one that does neither."""
    return pool(Clocked(SPEC), uniform(SPEC), linear(SPEC, generator(3), scale=5.0))


def against(copies: int = 4, opponents: Pool | None = None, draw: Draw = "uniform", **numbers: Any) -> Against:
    return Against(BatchedGame(Drifting(), copies), "ego", opponents or three(), draw=draw, **numbers)


def rolled(game: Game, steps: int, seed: int = 5, view: View | None = None) -> list[Rows]:
    rng, found = generator(seed), []
    view = game.reset(2) if view is None else view
    for _ in range(steps):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        found.append(rows)
    return found


def equal(a: Rows, b: Rows) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Rows))


def test_it_is_the_game_that_is_played() -> None:
    """Against one opponent, what the ego sees and gets is what it sees and gets in the game of all."""
    opponent, me = Clocked(SPEC, 1), linear(SPEC, generator(1), scale=4.0)
    game = Against(BatchedGame(Drifting(), 5), "ego", pool(opponent))
    game.reset(9)
    whole = play(BatchedGame(Drifting(), 5), Team(SPEC, seats(SPEC, "ego", me, Clocked(SPEC, 1))), 9)
    for _, (wanted, _) in zip(range(30), whole, strict=False):
        act = me.step(None, View.of(SPEC, wanted.obs), None)[1][:, SPEC.act[0]]
        rows, _ = game.step(act)
        own = game.spec.obs[0]
        assert own == (0, 1)
        assert torch.equal(rows.obs[:, own], wanted.obs[:, (0, 1)])
        assert torch.equal(rows.next_obs[:, own], wanted.next_obs[:, (0, 1)])
        assert torch.equal(rows.reward, wanted.reward[:, :1])
        for name in ("truncated", "step"):
            assert torch.equal(getattr(rows, name), getattr(wanted, name))
        assert torch.equal(rows.terminated, wanted.terminated[:, :1])


def test_hidden_columns_tell_what_the_others_see_do_and_who_they_are() -> None:
    inner = Spied(BatchedGame(Drifting(), 4))
    game = Against(inner, "ego", three())
    assert game.hidden == Hidden(
        observations=(2, 3, 4, 5, 6), actions=(7, 8, 9, 10, 11), choices=(3, 2), identity=(12, 13, 14)
    )
    assert (game.spec.n, game.spec.obs_dim, game.spec.act_dim) == (1, 15, 3)
    view, who, joint = game.reset(2), game.who.clone(), game._joint.clone()
    rng = generator(0)
    for _ in range(40):
        state = inner.game._playing()  # type: ignore[attr-defined]
        act = game.spec.random_action(view.acting, view.legal, rng)
        rows, view = game.step(act)
        assert torch.equal(rows.obs[:, :7], state[:, (0, 1, 2, 0, 1, 2, 3)])
        assert torch.equal(rows.obs[:, 7:12], inner.played[-1][:, 3:]), "they do what they were about to do"
        assert torch.equal(inner.played[-1][:, :3], act)
        assert torch.equal(rows.obs[:, 12:], torch.eye(3)[who])
        over = rows.truncated | rows.terminated.all(1)
        assert torch.equal(rows.next_obs[:, 12:], torch.eye(3)[who]), "also in the state that an episode ends in"
        assert torch.equal(rows.next_obs[~over], view.obs[~over])
        assert torch.equal(who[~over], game.who[~over])
        who = game.who.clone()
    assert not torch.equal(joint, game._joint)


def test_where_an_episode_is_cut_the_others_have_made_up_their_minds_as_well() -> None:
    game = against(opponents=pool(Clocked(SPEC)))
    for rows in rolled(game, 30):
        after = rows.step + 1
        alive = ~rows.terminated[:, 0]
        assert torch.equal(rows.obs[:, 7:10], torch.eye(3)[rows.step.long() % 3])
        assert torch.equal(rows.next_obs[alive, 7:10], torch.eye(3)[after.long() % 3][alive])


def test_each_opponent_is_asked_once_a_step_about_its_own_copies() -> None:
    actors = [Clocked(SPEC, k) for k in range(3)]
    game = against(copies=16, opponents=pool(*actors))
    game.reset(2)
    for _ in range(3):  # nobody's episode ends
        counts = torch.bincount(game.who, minlength=3).tolist()
        for actor in actors:
            actor.asked.clear()
        rows, _ = game.step(torch.eye(3)[torch.ones(16, dtype=torch.int64)])
        assert not bool((rows.truncated | rows.terminated[:, 0]).any())
        assert [actor.asked for actor in actors] == [[count] if count else [] for count in counts]


def test_who_plays_follows_from_seed_copy_and_episode() -> None:
    few, many = (against(copies, greedy=True) for copies in (2, 9))
    for a, b in zip(rolled_alike(few), rolled_alike(many), strict=True):
        assert equal(a, b[:2])
    seen = torch.cat([rows.obs[rows.step == 0, 12:] for rows in rolled(against(copies=64), 60)])
    share = seen.mean(0)
    assert len(seen) > 600
    assert (share - 1 / 3).abs().max() < 3.5 * (2 / 9 / len(seen)) ** 0.5
    again = torch.cat([rows.obs[rows.step == 0, 12:] for rows in rolled(against(copies=64), 60)])
    assert torch.equal(seen, again)
    game = against(copies=64)
    game.reset(3)
    assert not torch.equal(torch.eye(3)[game.who], seen[:64])


def rolled_alike(game: Against) -> list[Rows]:
    """Under actions that follow from what is seen, whoever else plays."""
    view, found = game.reset(2), []
    for _ in range(40):
        rows, view = game.step(torch.eye(3)[(view.obs[:, 0] * 1_000).long() % 3])
        found.append(rows)
    return found


def test_in_turn_everybody_is_met_equally_often() -> None:
    game = against(copies=2, draw="in turn")
    met = [[], []]  # type: list[list[int]]
    view, rng = game.reset(0), generator(0)
    met[0].append(int(game.who[0]))
    met[1].append(int(game.who[1]))
    for _ in range(30):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        for copy in (rows.truncated | rows.terminated[:, 0]).nonzero()[:, 0].tolist():
            met[copy].append(int(game.who[copy]))
    assert met[0][:4] == [0, 2, 1, 0]
    assert met[1][:4] == [1, 0, 2, 1]


@pytest.mark.parametrize("steps", [0, 1, 9, 20])
def test_it_goes_on_where_it_was_saved(steps: int) -> None:
    game = against(copies=5)
    rolled(game, steps)
    saved = game.state()
    expected = rolled(game, 40, seed=8, view=game._view)
    fresh = against(copies=5)
    view = fresh.restore(saved)
    assert all(equal(a, b) for a, b in zip(rolled(fresh, 40, seed=8, view=view), expected, strict=True))
    again = against(copies=5)
    view = again.restore(saved)  # what was saved is not touched by going on
    assert all(equal(a, b) for a, b in zip(rolled(again, 40, seed=8, view=view), expected, strict=True))
    assert any(bool(rows.terminated.any()) for rows in expected)
    assert any(bool(rows.truncated.any()) for rows in expected)


def test_what_was_saved_of_another_game_is_refused() -> None:
    saved = against(copies=5)
    saved.reset(0)
    with pytest.raises(GameError, match=r"is of 'drifting against 3' in 5 copies; this game is .* in 4"):
        against(copies=4).restore(saved.state())


class Forgetful(BatchedGame):
    """Does not replay; offers to begin the next episode in one copy."""

    lost = 1

    def restore(self, state: Mapping[str, Any]) -> View:
        if "boundary" in state:
            view = super().restore(state["boundary"])
            self._episode[self.lost] += 1
            self._begin(np.arange(self.copies) == self.lost)
            return replace(view, obs=self._look().obs)
        raise ReplayError("it does not play again", (self.lost,), {"boundary": dict(state)})


def test_where_the_game_does_not_replay_the_next_episode_begins_against_whoever_it_is() -> None:
    game = Against(Forgetful(Drifting(), 3), "ego", three(), greedy=True)
    rolled(game, 4)
    saved, episode, who = game.state(), game._episode.copy(), game.who.clone()
    with pytest.raises(ReplayError) as raised:
        game.restore(saved)
    view = game.restore(raised.value.boundary)
    assert (game._episode - episode).tolist() == [0, 1, 0]
    assert int(game.who[1]) == game._drawn(1, int(game._episode[1]))
    assert torch.equal(game.who[[0, 2]], who[[0, 2]])
    rows, _ = game.step(game.spec.random_action(view.acting, view.legal, generator(0)))
    assert rows.step[1] == 0


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is:UserWarning")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space:UserWarning")
def test_it_is_a_gymnasium_environment_of_the_ego_alone() -> None:
    view = GymnasiumView(against(copies=1, greedy=True))
    check_env(view, skip_render_check=True)
    assert view.observation_space.shape == (2,)


def test_it_is_evaluated_like_any_other_game() -> None:
    class First:
        """Its first choice, for ever."""

        def init(self, window: Window) -> Carry:
            return None

        def step(self, carry: Carry, view: View, rng: torch.Generator | None) -> tuple[Carry, Tensor]:
            return None, torch.eye(3)[torch.zeros(len(view), dtype=torch.int64)]

    one, two = (evaluate(against(copies=6), First(), 12, 3).returns for _ in range(2))
    assert np.array_equal(one, two)


def test_the_particle_games_are_played_by_it() -> None:
    inner = make("particle/tag", 6)
    game = Against(inner, "agent_0", Pool(inner.spec, [Opponent(name="u", actor=uniform(inner.spec))]))
    assert isinstance(game, Game)
    own, others = len(inner.spec.obs[3]), sum(len(inner.spec.obs[i]) for i in range(3))
    assert (own, others) == (14, 48)
    assert game.spec.obs[0] == tuple(range(own))
    assert game.hidden.choices == (5, 5, 5)
    assert game.spec.vectors == inner.spec.vectors_of(3)
    for rows in rolled(game, 30):
        shown = rows.obs[:, list(game.hidden.actions)].view(6, 3, 5)
        assert torch.equal(shown.sum(2), torch.ones(6, 3))


def test_box_actions_of_the_others_are_numbers() -> None:
    agents = (discrete_agent("ego", (0, 1), 3), box_agent("b", (1, 2), 2))
    spec = replace(PLAIN, agents=agents)
    game = Against(LinearGame(spec, 3), 0, Pool(spec, [Opponent(name="l", actor=linear(spec, generator(0)))]))
    assert game.hidden == Hidden(observations=(2, 3), actions=(4, 5), identity=(6,))
    for rows in rolled(game, 25):
        assert rows.obs[:, 4:6].abs().max() <= 1.0


def test_games_that_do_not_suit_are_refused() -> None:
    turns = replace(SPEC, acting_varies=True)
    rules = Drifting()
    rules.spec = turns
    with pytest.raises(GameError, match=r"turns or deaths: True"):
        Against(BatchedGame(rules, 2), "ego", Pool(turns, [Opponent(name="u", actor=uniform(turns))]))
    with pytest.raises(GameError, match=r"'drifting' as it was, not this game of 'tag'"):
        Against(make("particle/tag", 2), 0, three())
    with pytest.raises(ValueError, match=r"draw='random' must be one of 'uniform', 'in turn'"):
        against(draw="random")  # type: ignore[arg-type]
    mixed = replace(SPEC, agents=(*SPEC.agents[:2], box_agent("c", (1, 2, 3), 2)))
    with pytest.raises(GameError, match=r"some choose and some act in numbers"):
        Hidden.of(mixed, "ego", 2)
    game = against(copies=4)
    with pytest.raises(GameError, match=r"call reset\(seed\) before playing 'drifting against 3'"):
        game.step(torch.zeros(4, 3))
    game.reset(0)
    with pytest.raises(GameError, match=r"takes actions \(4, 3\), got \(4, 8\)"):
        game.step(torch.zeros(4, 8))


def test_a_game_that_ends_for_the_ego_alone_is_refused() -> None:
    class Alone(Drifting):
        def ends(self, before: Tensor, act: Tensor, after: Tensor) -> Tensor:
            return torch.tensor([[True, False, False]]).expand(len(act), -1)

    game = Against(BatchedGame(Alone(), 2), "ego", three())
    game.reset(0)
    with pytest.raises(GameError, match=r"ends for 'ego' at another time than for the others"):
        game.step(torch.eye(3)[:2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"actions": (1, 2), "choices": (3,)}, r"choices=\(3,\) must be >= 1 and sum to the 2 columns"),
     ({"observations": (0, 1), "identity": (1, 2)}, r"columns \[1\] are named twice")],
)  # fmt: skip
def test_contradicting_columns_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hidden(**wrong)


def test_heads_of_several_choices_lie_side_by_side() -> None:
    agents = (discrete_agent("ego", (0,), 2), discrete_agent("b", (1,), 2, 3))
    spec = GameSpec(name="heads", agents=agents, obs_dim=2)
    assert Hidden.of(spec, "ego", 1).choices == (2, 3)


@pytest.mark.parametrize(("rows", "width"), [(1, 8), (4, 3)])
def test_answers_of_a_whole_pool_are_refused_in_another_shape(rows: int, width: int) -> None:
    pool = Pool(SPEC, [Opponent(name="u", actor=uniform(SPEC))], together=lambda *_: torch.zeros(rows, width))
    with pytest.raises(GameError, match=rf"joint actions \(4, 8\) of 'drifting'.* not with \({rows}, {width}\)"):
        Against(BatchedGame(Drifting(), 4), "ego", pool).reset(0)
