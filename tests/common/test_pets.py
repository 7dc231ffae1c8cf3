"""PETS: near the optimum of a known world with a perfect and with a learned model, and stoppable at any instant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from presage.common.evaluate import evaluate
from presage.common.fit import FitConfig
from presage.common.game import GameError, Kernel, View
from presage.common.learner_state import learner_state
from presage.common.pets import PETS, PETSConfig
from presage.common.planning import CEM, ICEM
from presage.common.replay import Replay
from presage.common.run import resume, start
from presage.common.scenario import GameConfig
from presage.common.streams import streams
from presage.envs.batched import BatchedGame, RulesKernel
from presage.envs.toy import PointMass
from tests.common.tiny_runs import ENSEMBLE, FIT, Interrupted, differences, interrupt, scenario

CPU = torch.device("cpu")
PLANNER = ICEM(horizon=4, population=40, elites=8, iterations=3, noise_exponent=2.0)
SMALL = PETSConfig(planner="icem", icem=PLANNER, particles=5, warmup_steps=60, fit_every=60)
TINY = PETSConfig(
    planner="icem", icem=replace(PLANNER, horizon=3, population=8, elites=4), particles=2, warmup_steps=24,
    fit_every=24, replay_capacity=80, ensemble=ENSEMBLE, fit=FIT,
)  # fmt: skip
POINT = GameConfig(name="toy/point_mass", copies=4, options={"episode_limit": 5})


def pets(config: PETSConfig, rules: PointMass, kernel: Kernel | None = None, seed: int = 0) -> PETS:
    return config.build(rules.spec, streams(seed), CPU, kernel)


def distance_paid(view: View, act: Tensor, after: View) -> Tensor:
    return -torch.hypot(after.obs[:, :1], after.obs[:, 1:])


def played(method: PETS, game: BatchedGame, steps: int) -> Replay:
    replay, view = Replay(game.spec, 1_000, game.copies), game.reset(0)
    while method.env_steps < steps:
        rows, view = game.step(method.explore(view))
        replay.extend(rows)
        method.learn(replay, rows)
    return replay


def loss_over_optimum(method: PETS, rules: PointMass) -> float:
    """The share of the optimum that is lost on eight episodes; 3 or so at random."""
    best = float(rules.optimum(BatchedGame(rules, 8).reset(5).obs).mean())
    return evaluate(BatchedGame(rules, 8), method.actor, 8, 5).mean_return / best - 1.0


def test_in_the_true_dynamics_it_is_near_the_optimum() -> None:
    rules = PointMass(episode_limit=15)
    method = pets(replace(SMALL, model="true", particles=1), rules, RulesKernel(rules))
    assert loss_over_optimum(method, rules) < 0.2
    assert len(list(method.policy.parameters())) == 0


@pytest.mark.parametrize(
    ("given", "steps", "sampling"), [(True, 60, "TSinf"), (False, 124, "E"), (True, 60, "DS"), (True, 60, "MM")]
)
def test_with_a_learned_model_it_comes_near_within_a_hundred_env_steps(
    given: bool, steps: int, sampling: Literal["TSinf", "E", "DS", "MM"]
) -> None:
    rules = PointMass(episode_limit=15)
    config = replace(SMALL, fit=FitConfig(max_updates=500), sampling=sampling)
    method = PETS(rules.spec, config, streams(0), CPU, reward=distance_paid if given else None)
    before = loss_over_optimum(method, rules)
    played(method, BatchedGame(rules, 4), steps)
    assert loss_over_optimum(method, rules) < 0.5
    assert before > 2.0


def test_it_is_told_the_dynamics_or_learns_them() -> None:
    rules = PointMass()
    with pytest.raises(GameError, match="no true dynamics to plan in"):
        pets(replace(SMALL, model="true"), rules)


class Paying(RulesKernel):
    """The true dynamics, with a rule for rewards."""

    def reward(self, view: View, act: Tensor, after: View) -> Tensor:
        return distance_paid(view, act, after)


def test_rewards_are_given_by_the_true_dynamics_or_learned() -> None:
    rules = PointMass(episode_limit=5)
    given = replace(SMALL, rewards="given")
    assert pets(given, rules, Paying(rules)).world.ensemble.outcome_network is None  # type: ignore[union-attr]
    assert pets(SMALL, rules, Paying(rules)).world.ensemble.outcome_network is not None  # type: ignore[union-attr]
    for kernel in (None, RulesKernel(rules)):
        with pytest.raises(GameError, match="offers no rule for its rewards; use rewards='learned'"):
            pets(given, rules, kernel)
    with pytest.raises(ValueError, match="rewards='told' must be 'learned' or 'given'"):
        PETSConfig(rewards="told")  # type: ignore[arg-type]


def test_random_actions_come_before_the_first_fit_and_plans_after_it() -> None:
    rules = PointMass(episode_limit=5)
    method, game = pets(TINY, rules), BatchedGame(rules, 4)
    asked: list[int] = []
    plan = method.memory.step

    def noted(view: View, rng: torch.Generator) -> Tensor:
        asked.append(method.env_steps)
        return plan(view, rng)

    method.memory.step = noted  # type: ignore[method-assign]
    fits: list[tuple[str, int]] = []
    method.on_phase = lambda phase: fits.append((phase, method.env_steps))
    played(method, game, 60)
    assert asked == list(range(24, 60, 4))
    assert fits == [("fit", 24), ("fit", 48)]
    assert method.ledger.env_steps == 60


def test_a_new_episode_begins_with_nothing_of_the_last_one() -> None:
    rules = PointMass(episode_limit=5)
    method, game = pets(TINY, rules), BatchedGame(rules, 4)
    played(method, game, 24)
    view, clocks = game.reset(3), []
    for _ in range(7):
        rows, view = game.step(method.explore(view))
        clocks.append(int(method.memory._carry[-1].max()))
        method.memory.forget(rows.truncated)
    assert clocks == [1, 2, 3, 4, 5, 1, 2]


def test_same_seed_same_numbers() -> None:
    rules = PointMass(episode_limit=5)
    states = []
    for seed in (0, 0, 1):
        method = pets(TINY, rules, seed=seed)
        replay = played(method, BatchedGame(rules, 4), 60)
        states.append((learner_state(method), replay.rows(replay.complete()[0]).act))
    first, again, other = states
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    for name, tensor in first[0]["tensors"].items():
        assert torch.equal(tensor, again[0]["tensors"][name]), name


@pytest.mark.parametrize(("phase", "occurrence"), [("collection", 13), ("fit", 2), ("checkpoint", 2)])
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, occurrence: int
) -> None:
    monkeypatch.setattr("presage.common.run.conclude", lambda training, folder: "a table")
    run: Any = scenario(TINY, POINT)
    start(run, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(run, tmp_path / "stopped", on_phase=interrupt(phase, occurrence))
    resume(tmp_path / "stopped")
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


def test_it_plans_for_teams_with_discrete_actions(tmp_path: Path) -> None:
    outcome = start(
        scenario(replace(TINY, planner="cem", cem=CEM(horizon=2, population=8, elites=4))), tmp_path / "run"
    )
    assert "pets" in outcome.table


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"particles": 0}, "particles=0"), ({"discount": 1.5}, "discount=1.5"), ({"warmup_steps": 0}, "warmup_steps=0"),
     ({"risk": 0.5, "particles": 1}, "risk=0.5"), ({"sampling": "MM", "particles": 1}, "particles=1 must be >= 2"),
     ({"sampling": "TS2"}, "sampling='TS2' must be one of 'TSinf', 'TS1', 'E', 'DS', 'MM'")],
)  # fmt: skip
def test_contradictions_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PETSConfig(**wrong)
