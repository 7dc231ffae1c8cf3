"""Records: what goes in comes out, whichever way it came, and splits keep episodes and identities apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from mpe2 import simple_spread_v3

from presage.common.evaluate import RandomActor
from presage.common.game import GameError
from presage.common.replay import Replay
from presage.common.run import start
from presage.common.scenario import GameConfig
from presage.envs import registry
from presage.envs.particle import ParticleGame, Spread
from presage.gcrl.her import HERConfig
from presage.marl.opponents.moments import Moments
from presage.marl.opponents.record import Record
from presage.marl.opponents.sources import from_minari, from_run
from tests.common.tiny_runs import AORPO, scenario
from tests.common.toy import generator
from tests.marl.sample_games import motley, random_rows


def filled(lengths: list[int], who: list[str] | str = "", seed: int = 0) -> Record:
    record = Record(motley())
    record.extend_moments(Moments.of(random_rows(record.spec, sum(lengths), seed)), lengths, who=who)
    return record


def test_a_loop_of_ones_own_is_recorded_as_it_was_played() -> None:
    env = simple_spread_v3.parallel_env(max_cycles=4)
    record = Record.of(env)
    kept = []
    for episode in range(3):
        observations, _ = env.reset(seed=episode)
        while env.agents:
            actions = {name: env.action_space(name).sample() for name in env.agents}
            after, _, _, truncations, _ = env.step(actions)
            record.add(observations, actions, over=all(truncations.values()), who=f"player {episode % 2}")
            kept.append((observations, actions))
            observations = after
    moments = record.moments()
    assert len(record) == len(kept) == 12
    for row, (observations, actions) in enumerate(kept):
        obs = np.concatenate([observations[name] for name in record.spec.names])
        np.testing.assert_allclose(moments.view.obs[row].numpy(), obs, rtol=1e-6)
        assert record.spec.to_env(moments.act[row].numpy()) == actions
    assert bool(moments.view.acting.all())
    assert record.episode.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert record.step.tolist() == [0, 1, 2, 3] * 3
    assert [record.names[k] for k in record.who.tolist()] == ["player 0"] * 4 + ["player 1"] * 4 + ["player 0"] * 4


def test_arrays_and_loops_make_equal_records() -> None:
    env = simple_spread_v3.parallel_env(max_cycles=3)
    loop, arrays = Record.of(env), Record.of(env)
    seen: dict[str, list[Any]] = {name: [] for name in loop.spec.names}
    done: dict[str, list[Any]] = {name: [] for name in loop.spec.names}
    for episode in range(2):
        observations, _ = env.reset(seed=episode)
        for t in range(3):
            actions = {name: (t + episode + i) % 5 for i, name in enumerate(env.agents)}
            loop.add(observations, actions, over=t == 2)
            for name in seen:
                seen[name].append(observations[name])
                done[name].append(actions[name])
            observations = env.step(actions)[0]
    arrays.extend({name: np.stack(part) for name, part in seen.items()}, done, [3, 3])
    for one, two in ((loop.moments().view.obs, arrays.moments().view.obs), (loop.moments().act, arrays.moments().act)):
        assert torch.equal(one, two)
    assert torch.equal(loop.episode, arrays.episode)


def test_episodes_of_a_game_are_those_that_its_copies_played_one_by_one() -> None:
    game = ParticleGame(Spread(agents=2), copies=3, episode_limit=4)
    record = Record(game.spec)
    record.play(game, RandomActor(game.spec), 6, seed=3, rng=generator(0), who="random")
    assert len(record) == 24
    assert record.names == ["", "random"]
    for episode in range(6):
        moments = record.moments((record.episode == episode).nonzero().squeeze(1))
        alone = ParticleGame(Spread(agents=2), copies=3, episode_limit=4)
        view, copy = alone.reset(3), episode // 2
        for _ in range(4 * (episode % 2)):
            view = alone.step(alone.spec.random_action(view.acting, view.legal, generator(1)))[1]
        torch.testing.assert_close(moments.view.obs[0], view.obs[copy])
    with pytest.raises(GameError, match=r"3 copies of .* cannot give 4 episodes"):
        record.play(game, RandomActor(game.spec), 4, seed=3)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 5), st.randoms())
def test_windows_are_those_of_a_replay(lengths: list[int], length: int, random: Any) -> None:
    record = filled(lengths)
    spec, rows = record.spec, random_rows(record.spec, sum(lengths), 0)
    steps = torch.tensor([t for size in lengths for t in range(size)])
    replay = Replay(spec, len(rows), 1)
    replay.extend(rows.with_(step=steps.to(torch.int32)))
    index = torch.tensor([random.randrange(len(rows)) for _ in range(4)])
    ours, theirs = record.window(index, length), replay.window(index, length)
    for name in ("obs", "act", "valid"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert torch.equal(ours.now.obs, theirs.now.obs)
    assert torch.equal(ours.now.legal, theirs.now.legal)


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abc")), min_size=2, max_size=8), st.floats(0.01, 0.99))
def test_splits_take_no_episode_and_no_player_apart(episodes: list[tuple[int, str]], share: float) -> None:
    record = filled([size for size, _ in episodes], [who for _, who in episodes])
    for by, label in (("episode", record.episode), ("who", record.who)):
        if len(set(label.tolist())) < 2:
            with pytest.raises(GameError, match="needs at least two of them"):
                record.split(share, generator(0), "who")
            continue
        first, second = record.split(share, generator(0), "episode" if by == "episode" else "who")
        assert sorted(first.tolist() + second.tolist()) == list(range(len(record)))
        assert set(label[first].tolist()) & set(label[second].tolist()) == set()
        assert len(first)
        assert len(second)


def test_a_part_of_a_record_is_split_by_whole_episodes() -> None:
    record = filled([3, 2, 4, 1, 5])
    part = (record.episode != 2).nonzero().squeeze(1)
    first, second = record.split(0.5, generator(0), index=part)
    assert sorted([*first.tolist(), *second.tolist()]) == part.tolist()
    assert {int(k) for k in record.episode[first]}.isdisjoint({int(k) for k in record.episode[second]})
    assert len({int(k) for k in record.episode[second]}) == 2
    whole = record.split(0.5, generator(0))
    assert all(
        torch.equal(a, b) for a, b in zip(whole, record.split(0.5, generator(0), index=torch.arange(15)), strict=True)
    )
    with pytest.raises(GameError, match="a split by episode needs at least two of them, got 1"):
        record.split(0.5, generator(0), index=part[:3])


def test_a_record_comes_back_from_its_file(tmp_path: Path) -> None:
    record = filled([3, 2, 4], ["a", "b", "a"])
    record.save(tmp_path / "seen.npz")
    again = Record.load(tmp_path / "seen.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["seen.npz"]
    assert again.spec == record.spec
    assert again.names == record.names
    for one, two in zip(vars(again.moments().view).values(), vars(record.moments().view).values(), strict=True):
        assert torch.equal(one, two)
    again.extend_moments(record.moments(slice(0, 2)), [2], who="c")
    assert again.episode.tolist()[-2:] == [3, 3]
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(GameError, match=r"holds \['x'\], which Record.save did not write"):
        Record.load(tmp_path / "other.npz")


def test_a_runs_rows_are_its_episodes_copy_by_copy(tmp_path: Path) -> None:
    game = GameConfig(name="particle/spread", copies=4, options={"agents": 2, "episode_limit": 5})
    start(scenario(AORPO, game, steps=60), tmp_path / "run")
    record = from_run(tmp_path / "run")
    assert len(record) == 60
    assert record.step.tolist() == [0, 1, 2, 3, 4] * 12
    assert record.episode.tolist() == [k for k in range(12) for _ in range(5)]


def test_a_run_of_goals_is_read_as_well(tmp_path: Path) -> None:
    game = GameConfig(name="toy/world_2d", copies=4, options={"episode_limit": 6})
    start(scenario(HERConfig(), game, steps=24), tmp_path / "run")
    assert bool((from_run(tmp_path / "run").moments().view.desired > 10).all())


@dataclass
class Episode:
    observations: Any
    actions: Any


class Stored:
    """A dataset as Minari serves it: spaces, and one observation more than actions in every episode."""

    observation_space = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "y": spaces.Discrete(3)})
    action_space = spaces.Discrete(4)

    def iterate_episodes(self) -> Iterator[Episode]:
        for size in (3, 1):
            xs = np.arange(2 * (size + 1), dtype=np.float32).reshape(-1, 2) / 10
            yield Episode({"x": xs, "y": np.arange(size + 1) % 3}, np.arange(size) % 4)


def test_minaris_episodes_are_read() -> None:
    record = from_minari(Stored())
    assert record.step.tolist() == [0, 1, 2, 0]
    assert record.moments().act.argmax(1).tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(record.moments().view.obs[2].numpy(), [0.4, 0.5, 0, 0, 1], rtol=1e-6)


def test_gymnasium_and_masks_are_read() -> None:
    env = gymnasium.make("CartPole-v1")
    record = Record.of(env)
    observation, _ = env.reset(seed=0)
    record.add({"agent": observation}, {"agent": 1}, over=True)
    np.testing.assert_array_equal(record.moments().view.obs[0].numpy(), observation)
    board = registry.environment("classic/tictactoe")
    record = Record.of(board)
    board.reset(seed=0)
    for player, action in (("player_1", 4), ("player_2", 0)):
        record.add({player: board.observe(player)}, {player: action}, over=player == "player_2")
        board.step(action)
    assert record.moments().view.acting.tolist() == [[True, False], [False, True]]
    second = record.spec.act[1]
    assert record.moments().view.legal[1, second].tolist() == [k != 4 for k in range(9)]


def test_what_does_not_fit_is_refused() -> None:
    env = simple_spread_v3.parallel_env()
    record, (observations, _) = Record.of(env), env.reset(seed=0)
    with pytest.raises(GameError, match=r"agents \['agent_1'\] acted without an observation"):
        record.add({"agent_0": observations["agent_0"]}, {"agent_0": 1, "agent_1": 2})
    record.add(observations, dict.fromkeys(observations, 0))
    with pytest.raises(GameError, match="an episode of 1 moments is open"):
        record.extend_moments(record.moments(), [1])
    with pytest.raises(GameError, match=r"lengths=\[2\] must be >= 1 and sum to the 1 moments"):
        record.extend_moments(record.moments(), [2])
    with pytest.raises(GameError, match=r"observations of shape \(2, 18\) and 3 actions"):
        Record.of(env).extend({"agent_0": np.zeros((2, 18))}, {"agent_0": [0, 1, 2]}, [2])
    with pytest.raises(GameError, match=r"acting of \['agent_0'\] was given, .* declares acting_varies=False"):
        Record.of(env).extend(
            {"agent_0": np.zeros((1, 18))}, {"agent_0": [0]}, [1], acting={"agent_0": np.ones(1, dtype=np.bool_)}
        )
    soft = Moments(view=record.moments().view, act=0.5 * record.moments().act)
    with pytest.raises(GameError, match="it must be one-hot"):
        Record(record.spec).extend_moments(soft, [1])
    with pytest.raises(GameError, match="no spaces to read observations by"):
        Record(record.spec).add(observations, {})
    with pytest.raises(GameError, match="nothing has been recorded yet"):
        Record(record.spec).moments()
    with pytest.raises(ValueError, match="share=1 must lie in"):
        record.split(1, generator(0))
