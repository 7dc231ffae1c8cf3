from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import pettingzoo
import pytest
import torch

from presage.common.game import GameError, Rows, View, episode_seed
from presage.envs.registry import from_env
from presage.envs.vector import VectorGame
from tests.envs.probes import AGENTS, TurnGame, paid, shown

ALL_TERMINATE = dict.fromkeys(AGENTS, (5, "terminated"))
ALL_TRUNCATE = dict.fromkeys(AGENTS, (5, "truncated"))
CALLER_DIES = {"caller": (3, "terminated"), "walker": (7, "terminated"), "sitter": (7, "terminated")}


def drawn(seed: int, copy: int, episode: int) -> float:
    return round(float(np.random.default_rng(episode_seed(seed, copy, episode)).random()), 3)


def joint(t: int, first: float, present: set[str]) -> torch.Tensor:
    parts = [shown(agent, t, first) * np.float32(agent in present) for agent in AGENTS]
    return torch.from_numpy(np.concatenate(parts))


def play(game: VectorGame, choices: list[int], seed: int = 7) -> list[tuple[Rows, View]]:
    """Whoever's turn it is chooses the next of `choices` in every copy."""
    view, found = game.reset(seed), []
    for choice in choices:
        rows = [game.spec.from_env({game.spec.names[int(acting.nonzero())]: choice}) for acting in view.acting]
        row, view = game.step(torch.from_numpy(np.stack(rows)))
        found.append((row, view))
    return found


@pytest.mark.parametrize("line", [False, True], ids=["selection-goes-on", "ended-first"])
@pytest.mark.parametrize("ends", [ALL_TERMINATE, ALL_TRUNCATE], ids=["terminated", "truncated"])
def test_a_turn_is_a_row_with_everybodys_observation_and_reward(ends: Any, line: bool) -> None:
    choices = [1, 2, 3, 0, 2, 3, 0]
    played = play(from_env(partial(TurnGame, ends, line=line), copies=2), choices)
    terminates = ends is ALL_TERMINATE
    for count, (rows, view) in enumerate(played):
        episode, t = divmod(count, 5)
        actor, last = t % 3, t == 4
        for copy in range(2):
            first = drawn(7, copy, episode)
            assert torch.equal(rows.obs[copy], joint(t, first, set(AGENTS)))
            assert torch.equal(rows.next_obs[copy], joint(t + 1, first, set(AGENTS)))
        assert rows.acting.tolist() == [[i == actor for i in range(3)]] * 2
        following = [i == (t + 1) % 3 and not (last and terminates) for i in range(3)]
        # Where all were cut off, the one whose turn it would have been.
        assert rows.next_acting.tolist() == [following] * 2
        expected = [paid(agent, t + 1) + choices[count] * (i == actor) for i, agent in enumerate(AGENTS)]
        assert rows.reward.tolist() == [expected] * 2
        assert rows.terminated.tolist() == [[last and terminates] * 3] * 2
        assert rows.truncated.tolist() == [last and not terminates] * 2
        assert view.acting.tolist() == [[i == (0 if last else (t + 1) % 3) for i in range(3)]] * 2


def test_only_the_mask_of_the_agent_to_act_is_told() -> None:
    played = play(from_env(partial(TurnGame, ALL_TERMINATE)), [1, 2, 3, 0, 2])
    for t, (rows, _) in enumerate(played):
        masks = [[True] * 4, [True] * 4, [True] * 4]
        masks[t % 3] = [entry != t % 4 for entry in range(4)]
        assert rows.legal[0].tolist() == [entry for mask in masks for entry in mask]
        following = [[True] * 4, [True] * 4, [True] * 4]
        if t < 4:
            following[(t + 1) % 3] = [entry != (t + 1) % 4 for entry in range(4)]
        assert rows.next_legal[0].tolist() == [entry for mask in following for entry in mask]


def test_the_others_go_on_when_one_agent_dies_and_no_row_is_made_for_the_dead() -> None:
    env = TurnGame(CALLER_DIES, line=True)
    played = play(from_env(env), [1, 2, 3, 1, 2, 2, 1])
    first = drawn(7, 0, 0)
    survivors = {"walker", "sitter"}
    assert [int(rows.acting[0].nonzero()) for rows, _ in played] == [0, 1, 2, 0, 2, 0, 2]
    for t, (rows, _) in enumerate(played):
        assert torch.equal(rows.obs[0], joint(t, first, set(AGENTS) if t < 3 else survivors))
        assert torch.equal(rows.next_obs[0], joint(t + 1, first, set(AGENTS) if t < 3 else survivors))
        assert rows.terminated[0].tolist() == [t == 6, t >= 2, t == 6]
        assert rows.reward[0, 1].item() == (0.0 if t >= 3 else paid("caller", t + 1) + [1, 2, 3][t] * (t == 1))
    assert not any(rows.truncated.item() for rows, _ in played)


def test_the_reward_of_an_agent_that_waits_is_its_own_as_pettingzoo_accumulates_it() -> None:
    choices = [1, 2, 3, 0, 2]
    game = from_env(partial(TurnGame, ALL_TERMINATE, line=True))
    stored = torch.stack([rows.reward[0] for rows, _ in play(game, choices)]).sum(0)
    env, left = TurnGame(ALL_TERMINATE, line=True), list(choices)
    accumulated: dict[str, float] = defaultdict(float)
    env.reset(seed=episode_seed(7, 0, 0))
    for agent in env.agent_iter():
        _, reward, terminated, truncated, _ = env.last()
        accumulated[agent] += reward
        env.step(None if terminated or truncated else left.pop(0))
    assert stored.tolist() == [accumulated[agent] for agent in AGENTS]
    assert not left


def test_tic_tac_toe_is_that_of_a_plain_pettingzoo_loop() -> None:
    make_env = partial(pettingzoo.make, "aec", "classic/tictactoe-v3")
    game = from_env(make_env)
    assert game.spec.legal_varies
    assert game.spec.acting_varies
    rng = torch.Generator().manual_seed(0)
    view, env = game.reset(3), make_env()
    outcomes = set()
    for episode in range(12):
        env.reset(seed=episode_seed(3, 0, episode))
        accumulated: dict[str, float] = defaultdict(float)
        stored, over = torch.zeros(2), False
        for agent in env.agent_iter():
            observation, reward, terminated, truncated, _ = env.last()
            accumulated[agent] += reward
            if terminated or truncated:
                env.step(None)
                continue
            assert not over
            i = game.spec.names.index(agent)
            assert view.acting[0].tolist() == [i == 0, i == 1]
            assert view.legal[0, game.spec.act[i]].tolist() == observation["action_mask"].astype(bool).tolist()
            both = [env.observe(name)["observation"].astype(np.float32).reshape(-1) for name in env.possible_agents]
            assert torch.equal(view.obs[0], torch.from_numpy(np.concatenate(both)))
            chosen = game.spec.random_action(view.acting, view.legal, rng)
            rows, view = game.step(chosen)
            env.step(int(chosen[0, game.spec.act[i]].argmax()))
            stored += rows.reward[0]
            over = bool(rows.terminated.all())
        assert over
        assert stored.tolist() == [accumulated[agent] for agent in env.possible_agents]
        outcomes.add(tuple(stored.tolist()))
    assert {(1.0, -1.0), (-1.0, 1.0)} <= outcomes  # both sides have won, so a swap would have been seen


class Wrong(TurnGame):
    """A turn game that breaks one rule."""

    def __init__(self, rule: str) -> None:
        super().__init__(CALLER_DIES, line=True)
        self._rule = rule

    def step(self, action: int | None) -> None:
        if self._rule == "keeps" and action is None:
            return
        super().step(action)
        if self._rule == "selects":
            self.agent_selection = "nobody"
        if self._rule == "leaves":
            self.agents = self.agents[:2]
            del self.terminations["sitter"]
        if self._rule == "pays":
            self.rewards["caller"] = float("inf")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("keeps", r"keeps agent 'caller', which has ended, after step\(None\)"),
        ("selects", "selects agent 'nobody', which is not in possible_agents"),
        ("leaves", "agent 'sitter' left .* neither terminated nor truncated"),
        ("pays", "agent 'caller' in copy 0 got the reward inf"),
    ],
)
def test_a_broken_environment_is_told_what_is_wrong(rule: str, message: str) -> None:
    with pytest.raises(GameError, match=message):
        play(from_env(partial(Wrong, rule)), [1, 2, 3, 1])


def test_an_agent_that_is_not_acting_must_write_zeros() -> None:
    game = from_env(partial(TurnGame, ALL_TERMINATE))
    game.reset(0)
    sent = game.spec.from_env({"walker": 1, "sitter": 2})
    with pytest.raises(GameError, match=r"'sitter' in row 0 .* zeros where the agent is not acting"):
        game.step(torch.from_numpy(sent[None]))
