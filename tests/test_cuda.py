"""Everything that learns, on a CUDA device where there is one; elsewhere these tests are skipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from presage.common import plugins
from presage.common.run import start
from presage.common.scenario import Scenario

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

SCENARIOS = ("spread_aorpo", "spread_masac", "spread_continuous_aorpo", "tag_aorpo", "pendulum_mbpo", "pendulum_sac",
             "spread_maddpg", "speaker_listener_maddpg_inferred")  # fmt: skip


def short(name: str, steps: int = 560) -> Scenario[Any]:
    scenario: Scenario[Any] = plugins.load("scenario", name)
    return replace(
        scenario, device="cuda", steps=steps, evaluate_every=280, checkpoint_every=280, evaluation_episodes=4
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_learns_and_draws_its_episode(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outcome = start(short(name), tmp_path / "run")
    assert outcome.stopped_by is None
    assert "no episode was recorded" not in caplog.text
