import numpy as np
import pytest
import torch

from presage.common.episodes import EpisodeLog
from presage.common.game import Rows
from presage.common.parts import Parts
from tests.common.tiny_runs import PARTICLE, scenario


def play(steps: int) -> list[Rows]:
    """Random rows of two agents in four copies, whose episodes end at different times."""
    game = Parts.of(scenario()).training_game(PARTICLE)
    view, rng = game.reset(0), torch.Generator().manual_seed(0)
    found = []
    for t in range(steps):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        over = torch.tensor([(t + 1) % (k + 2) == 0 for k in range(4)])
        ended_otherwise = torch.tensor([k % 2 == 0 for k in range(4)])
        terminated = (over & ended_otherwise)[:, None].expand(4, 2)
        found.append(rows.with_(truncated=over & ~ended_otherwise, terminated=terminated))
    return found


def by_hand(rows: list[Rows]) -> list[tuple[float, int]]:
    finished = []
    for k in range(4):
        total, length = 0.0, 0
        for row in rows:
            total, length = total + float(row.reward[k].double().mean()), length + 1
            if row.truncated[k] or row.terminated[k].all():
                finished.append((total, length))
                total, length = 0.0, 0
    return finished


def test_finished_episodes_are_averaged() -> None:
    rows, log = play(12), EpisodeLog(4)
    for row in rows:
        log.add(row)
    returns, lengths = zip(*by_hand(rows), strict=True)
    assert len(returns) == 6 + 4 + 3 + 2
    assert log.metrics() == {
        "rollout/ep_rew_mean": pytest.approx(np.mean(returns), rel=1e-6), "rollout/ep_len_mean": np.mean(lengths),
    }  # fmt: skip
    assert log.metrics() == {}


def test_an_agent_that_goes_on_keeps_the_episode_open() -> None:
    (row,) = play(1)
    log = EpisodeLog(4)
    log.add(row.with_(terminated=torch.tensor([[True, False]] * 4), truncated=torch.zeros(4, dtype=torch.bool)))
    assert log.metrics() == {}


def test_a_restored_log_goes_on() -> None:
    rows, whole, first, second = play(9), EpisodeLog(4), EpisodeLog(4), EpisodeLog(4)
    for row in rows:
        whole.add(row)
    for row in rows[:4]:
        first.add(row)
    second.restore(first.state())
    for row in rows[4:]:
        second.add(row)
    assert second.metrics() == whole.metrics()


def test_dropped_episodes_start_anew() -> None:
    rows, log, fresh = play(5), EpisodeLog(4), EpisodeLog(4)
    log.add(rows[0])
    log.drop([0, 1, 2, 3])
    for row in rows[1:]:
        log.add(row)
        fresh.add(row)
    assert log.metrics() == fresh.metrics()
