from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from presage.common.game import GameError, Rows, View, episode_seed
from presage.envs.registry import from_env
from presage.envs.vector import VectorGame
from tests.envs.probes import ACTIONS, AGENTS, ClockGame, all_end, paid, shown

SENT: dict[str, Any] = {"walker": [1.0, -2.0], "caller": 6, "sitter": [1, 2]}
ENDS = {"walker": 2, "caller": 5, "sitter": 4}
HOW = {"walker": "terminated", "caller": "terminated", "sitter": "truncated"}


def drawn(seed: int, copy: int, episode: int) -> float:
    """What a probe adds to all it shows in one episode."""
    return round(float(np.random.default_rng(episode_seed(seed, copy, episode)).random()), 3)


def joint(t: int, first: float, present: set[str]) -> torch.Tensor:
    parts = [shown(agent, t, first) * np.float32(agent in present) for agent in AGENTS]
    return torch.from_numpy(np.concatenate(parts))


def act(game: VectorGame, view: View) -> torch.Tensor:
    """What SENT says for those who act."""
    rows = [
        game.spec.from_env({agent: SENT[agent] for i, agent in enumerate(AGENTS) if acting[i]})
        for acting in view.acting.tolist()
    ]
    return torch.from_numpy(np.stack(rows))


def play(game: VectorGame, steps: int, seed: int = 7) -> list[tuple[Rows, View]]:
    view, found = game.reset(seed), []
    for _ in range(steps):
        rows, view = game.step(act(game, view))
        found.append((rows, view))
    return found


@pytest.mark.parametrize("how", ["terminated", "truncated"])
def test_every_agent_gets_its_own_observation_reward_and_end(how: str) -> None:
    game = from_env(partial(all_end, 3, how), copies=2)
    everybody = set(AGENTS)
    for count, (rows, view) in enumerate(play(game, 7)):
        episode, t = divmod(count, 3)
        for copy in range(2):
            first = drawn(7, copy, episode)
            assert torch.equal(rows.obs[copy], joint(t, first, everybody))
            assert torch.equal(rows.next_obs[copy], joint(t + 1, first, everybody))
            upcoming = joint(0, drawn(7, copy, episode + 1), everybody) if t == 2 else rows.next_obs[copy]
            assert torch.equal(view.obs[copy], upcoming)
        assert rows.reward.tolist() == [[paid(agent, t + 1) for agent in AGENTS]] * 2
        assert rows.terminated.tolist() == [[t == 2 and how == "terminated"] * 3] * 2
        assert rows.truncated.tolist() == [t == 2 and how == "truncated"] * 2
        assert rows.step.tolist() == [t, t]
        assert rows.acting.all()
        assert rows.next_acting.all()
        assert view.acting.all()
        assert rows.ego.tolist() == [-1, -1]


def test_the_environment_receives_each_agents_action_in_its_own_terms() -> None:
    env = all_end(3, "truncated")
    game = from_env(env)
    view = game.reset(0)
    game.step(act(game, view))
    received = env.received[0]
    assert received["walker"].tolist() == [1.0, -2.0]
    assert received["caller"] == 6
    assert received["sitter"].tolist() == [1, 2]
    assert all(ACTIONS[agent].contains(action) for agent, action in received.items())


def test_survivors_go_on_when_an_agent_ends_and_the_dead_stay_dead() -> None:
    env = ClockGame(ENDS, HOW)
    game = from_env(env, acting_varies=True)
    played = play(game, 5)
    first = drawn(7, 0, 0)
    present = [set(AGENTS)] * 2 + [{"caller", "sitter"}] * 2 + [{"caller"}]
    for t, (rows, _) in enumerate(played):
        assert torch.equal(rows.obs[0], joint(t, first, present[t]))
        assert torch.equal(rows.next_obs[0], joint(t + 1, first, present[t]))  # the last one of those who end, too
        assert rows.acting[0].tolist() == [agent in present[t] for agent in AGENTS]
        assert rows.reward[0].tolist() == [paid(agent, t + 1) if agent in present[t] else 0.0 for agent in AGENTS]
        assert set(env.received[t]) == present[t]
    terminated = [rows.terminated[0].tolist() for rows, _ in played]
    # The sitter was cut off at 4: not terminated in its own last row, without a future in later ones.
    assert terminated == [
        [False, False, False], [True, False, False], [True, False, False], [True, False, False], [True, True, True]
    ]  # fmt: skip
    assert [rows.next_acting[0].tolist() for rows, _ in played] == [
        [True, True, True], [False, True, True], [False, True, True], [False, True, False], [False, False, False]
    ]  # fmt: skip
    assert not any(rows.truncated.item() for rows, _ in played)
    assert torch.equal(played[-1][1].obs[0], joint(0, drawn(7, 0, 1), set(AGENTS)))
    assert played[-1][1].acting.all()


def test_an_episode_that_some_leave_by_the_limit_is_truncated_and_only_they_would_have_acted_on() -> None:
    how = {"walker": "terminated", "caller": "truncated", "sitter": "terminated"}
    rows, view = play(from_env(partial(ClockGame, dict.fromkeys(AGENTS, 2), how), acting_varies=True), 2)[-1]
    assert rows.terminated[0].tolist() == [True, False, True]
    assert rows.truncated.tolist() == [True]
    assert rows.next_acting[0].tolist() == [False, True, False]
    assert view.acting.all()


def test_an_agent_may_join_late() -> None:
    env = partial(ClockGame, dict.fromkeys(AGENTS, 4), dict.fromkeys(AGENTS, "terminated"), {"sitter": 2})
    played = play(from_env(env, acting_varies=True), 4)
    first = drawn(7, 0, 0)
    without = {"walker", "caller"}
    assert torch.equal(played[0][0].next_obs[0], joint(1, first, without))
    assert torch.equal(played[1][0].obs[0], joint(1, first, without))
    assert torch.equal(played[1][0].next_obs[0], joint(2, first, set(AGENTS)))
    assert [rows.acting[0, 2].item() for rows, _ in played] == [False, False, True, True]
    assert [rows.next_acting[0, 2].item() for rows, _ in played] == [False, True, True, False]
    assert [rows.terminated[0].tolist() for rows, _ in played] == [[False] * 3] * 3 + [[True] * 3]
    assert [rows.reward[0, 2].item() for rows, _ in played] == [0.0, *(paid("sitter", t) for t in (2, 3, 4))]


def test_an_episode_ends_without_those_who_never_came() -> None:
    lives = dict.fromkeys(AGENTS, 2), {"walker": "terminated", "caller": "terminated"}
    played = play(from_env(partial(ClockGame, *lives, {"sitter": 9}), acting_varies=True), 3)
    assert [rows.terminated[0].tolist() for rows, _ in played] == [[False] * 3, [True] * 3, [False] * 3]
    assert not any(rows.truncated.item() for rows, _ in played)
    assert [rows.step.item() for rows, _ in played] == [0, 1, 0]


@pytest.mark.parametrize("masks", ["observation", "info"])
def test_masks_are_told_before_and_after_a_step(masks: str) -> None:
    env = partial(ClockGame, dict.fromkeys(AGENTS, 3), dict.fromkeys(AGENTS, "truncated"), masks=masks)
    game = from_env(env, legal_varies=True)
    words = game.spec.act[1]
    view = game.reset(0)
    for t in range(3):
        allowed = [word != t % 3 for word in range(3)]
        assert view.legal[0, words].tolist() == allowed
        rest = torch.cat([view.legal[0, : words.start], view.legal[0, words.stop :]])
        assert rest.all()
        sent = game.spec.from_env(SENT | {"caller": 5 + allowed.index(True)})
        rows, view = game.step(torch.from_numpy(sent[None]))
        assert rows.legal[0, words].tolist() == allowed
        assert rows.next_legal[0, words].tolist() == [word != (t + 1) % 3 for word in range(3)]


def test_an_illegal_action_is_refused_by_name() -> None:
    env = partial(ClockGame, dict.fromkeys(AGENTS, 3), dict.fromkeys(AGENTS, "truncated"), masks="observation")
    game = from_env(env, copies=2)
    assert game.spec.legal_varies
    game.reset(0)
    sent = torch.from_numpy(np.stack([game.spec.from_env(SENT), game.spec.from_env(SENT | {"caller": 5})]))
    with pytest.raises(GameError, match=r"'caller' in copy 1 chose entry 0 of its action.*legal are \[1, 2\]"):
        game.step(sent)
    game.step(torch.from_numpy(np.stack([game.spec.from_env(SENT)] * 2)))  # a refused action played nothing


@pytest.mark.parametrize(
    ("env", "declared", "message"),
    [
        (partial(all_end, 2, "terminated"), {"terminates": False}, "'walker' in copy 0 is terminated.*terminates=True"),
        (partial(ClockGame, ENDS, HOW), {}, "'walker' in copy 0 is not acting.*pass acting_varies=True"),
        (
            partial(ClockGame, dict.fromkeys(AGENTS, 3), dict.fromkeys(AGENTS, "truncated"), masks="info"),
            {},
            "'caller' is shown an action mask in its info; pass legal_varies=True",
        ),
        (
            partial(ClockGame, dict.fromkeys(AGENTS, 3), dict.fromkeys(AGENTS, "truncated"), masks="observation"),
            {"legal_varies": False},
            r"'caller' may only choose \[1, 2\] of 3 entries.*pass legal_varies=True",
        ),
    ],
)
def test_a_game_that_breaks_its_declaration_is_told_what_to_pass(env: Any, declared: Any, message: str) -> None:
    with pytest.raises(GameError, match=message):
        play(from_env(env, **declared), 3)


def test_a_limit_cuts_an_episode_that_would_go_on() -> None:
    played = play(from_env(partial(all_end, 9, "terminated"), episode_limit=2), 4)
    assert [rows.truncated.item() for rows, _ in played] == [False, True, False, True]
    assert [rows.step.item() for rows, _ in played] == [0, 1, 0, 1]
    assert all(rows.next_acting.all() and not rows.terminated.any() for rows, _ in played)
    assert torch.equal(played[1][0].next_obs[0], joint(2, drawn(7, 0, 0), set(AGENTS)))
    assert torch.equal(played[1][1].obs[0], joint(0, drawn(7, 0, 1), set(AGENTS)))


class Broken(ParallelEnv):  # type: ignore[misc] # PettingZoo ships no types
    """Two agents; `step` returns what it is given."""

    def __init__(self, **answer: Any) -> None:
        self.metadata = {"name": "broken"}
        self.possible_agents = self.agents = ["a", "b"]
        self._answer = answer

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Box(-1.0, 1.0, (2,))

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = ["a", "b"]
        return self._answer.get("reset", ({"a": np.zeros(2), "b": np.zeros(2)}, {}))

    def step(self, actions: Any) -> Any:
        good: dict[str, Any] = {
            "observations": {"a": np.zeros(2), "b": np.zeros(2)},
            "rewards": {"a": 0.0, "b": 0.0},
            "terminations": {"a": False, "b": False},
            "truncations": {"a": False, "b": False},
            "infos": {},
        }
        self.agents = self._answer.get("agents", self.agents)
        return tuple((good | {key: self._answer[key] for key in good if key in self._answer}).values())[
            : self._answer.get("values", 5)
        ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"observations": {"a": np.zeros(2)}}, "observations of 'broken' lack agent 'b'"),
        ({"rewards": {"b": 1.0}}, "rewards of 'broken' lack agent 'a'"),
        ({"terminations": {"a": False}}, "terminations of 'broken' lack agent 'b'"),
        ({"truncations": [False, False]}, "truncations of 'broken' lack agent 'a'"),
        ({"rewards": {"a": "much", "b": 1.0}}, "step of 'broken' returned cannot be read as numbers.*'much'"),
        ({"observations": {"a": ["x", "y"], "b": np.zeros(2)}}, "cannot be read as numbers"),
        ({"rewards": {"a": 0.0, "b": float("nan")}}, "agent 'b' in copy 0 got the reward nan"),
        ({"observations": {"a": np.zeros(2), "b": np.zeros(3)}}, r"agent 'b' was shown shape \(3,\).*\(2,\)"),
        ({"observations": {"a": np.array([0, np.inf]), "b": np.zeros(2)}}, r"'a' in copy 0 observes \[0.0, inf\]"),
        ({"values": 4}, r"step of 'broken' returned 4 values; it must return 5"),
        ({"agents": ["a"]}, "agent 'b' left env.agents of 'broken' neither terminated nor truncated"),
        ({"reset": {"a": 0}}, r"reset of 'broken' returned a dict; it must return 2: \(observations, infos\)"),
        ({"reset": ({"a": np.zeros(2), "b": np.zeros(2)}, None)}, "infos of 'broken' are None after reset"),
        ({"reset": ({"a": np.zeros(2)}, {})}, "observations of 'broken' lack agent 'b'"),
    ],
)
def test_a_broken_environment_is_told_what_is_wrong(answer: dict[str, Any], message: str) -> None:
    game = from_env(partial(Broken, **answer))
    with pytest.raises(GameError, match=message):
        game.step(game.spec.random_action(*seen(game.reset(0)), torch.Generator()))


def seen(view: View) -> tuple[torch.Tensor, torch.Tensor]:
    return view.acting, view.legal


def test_after_a_broken_step_only_a_reset_goes_on() -> None:
    game = from_env(partial(Broken, values=4))
    sent = game.spec.random_action(*seen(game.reset(0)), torch.Generator())
    with pytest.raises(GameError, match="4 values"):
        game.step(sent)
    with pytest.raises(GameError, match="call reset"):
        game.step(sent)


def test_an_environment_that_takes_no_seed_is_refused() -> None:
    class Unseeded(Broken):
        def reset(self, options: Any = None) -> Any:  # type: ignore[override] # the point of this test
            return super().reset()

    with pytest.raises(GameError, match=r"reset\(options.* of 'broken' takes no seed"):
        from_env(Unseeded)


def test_an_environment_must_know_all_its_agents() -> None:
    class Unknown(Broken):
        def __init__(self) -> None:
            super().__init__()
            self.possible_agents = []

    with pytest.raises(GameError, match="'broken' has no possible_agents"):
        from_env(Unknown)
