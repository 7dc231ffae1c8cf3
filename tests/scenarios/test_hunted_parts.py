"""The prey's game by its name: it is deterministic, a run of LIAM on it resumes to the bit, and is loaded to act."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from presage.common.agent import load
from presage.common.game import Game, GameError, Rows
from presage.common.on_policy import OnPolicyConfig
from presage.common.run import resume, start
from presage.common.scenario import GameConfig
from presage.envs.particle.game import ParticleGame
from presage.envs.particle.hunted import Hunted
from presage.envs.registry import make
from presage.marl.opponents.against import Against
from presage.marl.opponents.liam import Model
from presage.marl.opponents.liam_networks import EncodingConfig
from presage.marl.opponents.pools import Pool
from presage.scenarios.hunted_models import liam
from presage.scenarios.hunted_parts import PREY, TRIPLES, hunted, labels, pool
from tests.common.tiny_runs import Interrupted, differences, interrupt, scenario
from tests.common.toy import generator

SMALL = replace(
    liam("liam"), hidden=(8,), encoding=EncodingConfig(embedding=3, memory=4, hidden=(8,)),
    loop=OnPolicyConfig(collect_steps=6, chunk=3),
)  # fmt: skip
TINY = GameConfig(name="pool/hunted", copies=4, options={"episode_limit": 5})


def rolled(game: Game, steps: int) -> list[Rows]:
    rng, view, found = generator(0), game.reset(2), []
    for _ in range(steps):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        found.append(rows)
    return found


def test_it_is_found_by_its_name_and_has_the_labels_that_the_scenarios_name() -> None:
    game = make("pool/hunted", 6)
    assert game.spec.names == ("agent_0",)
    assert (len(game.spec.obs[0]), game.spec.act_dim, game.spec.episode_limit) == (14, 5, 50)
    assert game.hidden == labels(Hunted())  # type: ignore[attr-defined]
    assert game.hidden.choices == (5, 5, 5)  # type: ignore[attr-defined]
    assert game.spec.obs_dim == 14 + 48 + 15 + len(TRIPLES)
    with pytest.raises(GameError, match=r"workers=2 must be 0"):
        hunted(4, workers=2)


def test_same_seed_same_episodes() -> None:
    for one, two in zip(*(rolled(hunted(12, episode_limit=6), 20) for _ in range(2)), strict=True):
        assert all(torch.equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(Rows))


def test_predators_who_answer_together_are_those_of_the_pool() -> None:
    found = []
    for together in (True, False):
        scenario = Hunted()
        everyone = pool(scenario, 6)
        alone = Pool(everyone.spec, everyone.opponents)
        game = ParticleGame(scenario, 12, episode_limit=6)
        found.append(rolled(Against(game, PREY, everyone if together else alone, greedy=True), 20))
    for one, two in zip(*found, strict=True):
        assert all(torch.equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(Rows))


def test_parts_of_the_pool_answer_together_as_well() -> None:
    everyone = pool(Hunted())
    game = ParticleGame(Hunted(), 12)
    view = game.reset(0)
    for part in everyone.split(0.3, generator(1)):
        assert part.together is not None
        who = torch.arange(12) % len(part)
        act = part.together(view, who, None)
        for place, opponent in enumerate(part):
            assert torch.equal(act[who == place], opponent.actor.step(None, view[who == place], None)[1])


@pytest.fixture
def unconcluded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presage.common.run.conclude", lambda training, folder: "a table")


@pytest.mark.usefixtures("unconcluded")
@pytest.mark.parametrize("model", ["liam", "none", "full", "identity"])
@pytest.mark.parametrize(("phase", "occurrence"), [("collection", 13), ("checkpoint", 2)])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, model: Model, phase: str, occurrence: int) -> None:
    run: Any = scenario(replace(SMALL, model=model), TINY)
    start(run, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(run, tmp_path / "stopped", on_phase=interrupt(phase, occurrence))
    resume(tmp_path / "stopped")
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


def test_a_run_is_loaded_to_act_with_its_memory(tmp_path: Path) -> None:
    outcome = start(scenario(SMALL, TINY), tmp_path / "run")
    assert "liam" in outcome.table
    agent = load(tmp_path / "run")
    game = hunted(1, episode_limit=5)
    view, memory = game.reset(0), agent.actor.learner.begin(1)  # type: ignore[attr-defined]
    for _ in range(3):
        memory, act, _ = agent.actor.learner.act(memory, view, None)  # type: ignore[attr-defined]
        assert agent.act(view.obs[:, :14].numpy()) == [int(act.argmax())]
        _, view = game.step(act)
