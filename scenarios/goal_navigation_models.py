"""AORPO with goals, sized for goal navigation on two cores: the particle games' numbers, and where goals come from."""

from __future__ import annotations

from typing import Literal

from presage.gcrl.foresight import ForesightConfig
from presage.gcrl.hindsight import Shares
from presage.scenarios import particle_models
from presage.scenarios.goal_aorpo import KEPT, GoalAORPOConfig


def aorpo(relabel: Literal["foresight", "hindsight", "none"]) -> GoalAORPOConfig:
    """AORPO whose real rows are relabelled so, and whose branches pursue outcomes likewise, unless it is "none"."""
    base = particle_models.aorpo()
    aims = KEPT if relabel == "none" else Shares()
    return GoalAORPOConfig(aorpo=base, relabel=relabel, foresight=ForesightConfig(length=10, shortest=0), aims=aims)
