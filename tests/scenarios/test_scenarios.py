import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import presage.scenarios
from presage.common import plugins
from presage.common.dyna import Dyna
from presage.common.evaluate import RandomActor, evaluate, first_window
from presage.common.parts import Parts, build
from presage.common.replay import Replay
from presage.common.scenario import Scenario, read_scenario, write_scenario
from presage.common.streams import streams

FOLDER = Path(presage.scenarios.__file__).parent  # the installed one, also where there is no checkout
NAMES = plugins.names("scenario")


def scenario_of(name: str) -> Scenario[Any]:
    found: Scenario[Any] = plugins.load("scenario", name)
    return found


def test_the_registry_names_the_files_of_the_folder() -> None:
    modules = [path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"]
    holders = [name for name in modules if hasattr(import_module(f"presage.scenarios.{name}"), "scenario")]
    assert sorted(holders) == NAMES
    assert [scenario_of(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_survives_its_file(name: str, tmp_path: Path) -> None:
    scenario = scenario_of(name)
    write_scenario(tmp_path, scenario)
    assert read_scenario(tmp_path) == scenario
    assert scenario.description
    assert scenario.label


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_suits_its_game(name: str) -> None:
    scenario = scenario_of(name)
    game = Parts.of(scenario).training_game(scenario.game)
    device = torch.device("cpu")
    trainee = build(scenario, game.spec, streams(0), device)
    view = game.reset(0)
    carry = trainee.actor.init(first_window(game.spec, view))
    rows, _ = game.step(trainee.actor.step(carry, view, streams(0)("act"))[1])
    assert rows.obs.shape == (scenario.game.copies, game.spec.obs_dim)
    if isinstance(trainee, Dyna):
        assert (trainee.world is None) == (trainee.config.real_share == 1)
    game.close()


def one_per_game(part: Literal["reference", "kernel"]) -> list[str]:
    """The first scenario of every game and its part."""
    found = {(getattr(scenario_of(name), part), scenario_of(name).game.task): name for name in reversed(NAMES)}
    return sorted(name for (what, _), name in found.items() if what)


@pytest.mark.parametrize("name", one_per_game("reference"))
def test_a_reference_beats_chance(name: str) -> None:
    scenario = scenario_of(name)
    parts = Parts.of(scenario)
    game = parts.evaluation_game(scenario.game, 32)
    assert parts.reference is not None
    reference = evaluate(game, parts.reference(game.spec, scenario.game.options), 32, 0)
    chance = evaluate(game, RandomActor(game.spec), 32, 0, rng=torch.Generator().manual_seed(0))
    assert reference.mean_return > chance.mean_return + 5


@pytest.mark.parametrize("name", one_per_game("kernel"))
def test_true_dynamics_are_those_of_the_game(name: str) -> None:
    scenario = scenario_of(name)
    game = Parts.of(scenario).training_game(scenario.game)
    kernel = plugins.load("kernel", scenario.kernel)(game.spec, scenario.game.options, torch.device("cpu"))
    rng, view = torch.Generator().manual_seed(0), game.reset(0)
    replay = Replay(game.spec, 20 * game.copies, game.copies)
    for _ in range(20):
        rows, view = game.step(game.spec.random_action(view.acting, view.legal, rng))
        replay.extend(rows)
    index = replay.all()
    rows, window = replay.rows(index), replay.window(index, game.spec.frames)
    _, outcome = kernel.step(kernel.init(window, torch.zeros(len(rows)), rng), rows.view, rows.act, rng)
    torch.testing.assert_close(outcome.after.obs, rows.next_obs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outcome.reward, rows.reward, atol=1e-4, rtol=1e-4)
    assert torch.equal(outcome.terminated, rows.terminated)


def test_options_reach_references_and_kernels() -> None:
    scenario = scenario_of("spread_aorpo")
    four = replace(scenario, game=replace(scenario.game, options={"N": 4, "local_ratio": 0.25}))
    parts = Parts.of(four)
    game = parts.evaluation_game(four.game, 8)
    kernel = plugins.load("kernel", four.kernel)(game.spec, four.game.options, torch.device("cpu"))
    rng, view = torch.Generator().manual_seed(0), game.reset(0)
    act = game.spec.random_action(view.acting, view.legal, rng)
    _, outcome = kernel.step(kernel.init(first_window(game.spec, view), torch.zeros(8), rng), view, act, rng)
    rows, _ = game.step(act)
    torch.testing.assert_close(outcome.reward, rows.reward, atol=1e-4, rtol=1e-4)
    assert parts.reference is not None
    assert parts.reference(game.spec, four.game.options).step(None, view, None)[1].shape == (8, 20)


@pytest.mark.parametrize(
    "module", [["presage.scenarios.spread_masac"], ["presage.common.cli", "train", "spread_masac"]]
)
def test_a_file_runs_as_a_script(module: list[str]) -> None:
    command = [sys.executable, "-m", *module, "--stepz", "5"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert asked.returncode == 2
    assert "did you mean --steps" in asked.stderr
    assert "Traceback" not in asked.stderr
