"""AORPO with goals, sized for goal navigation on two cores: the particle games' numbers, and where goals come from."""

from __future__ import annotations

from typing import Literal

from presage.gcrl.foresight import ForesightConfig
from presage.scenarios import particle_models
from presage.scenarios.goal_aorpo import KEPT, GoalAORPOConfig


def aorpo(relabel: Literal["foresight", "hindsight", "none"]) -> GoalAORPOConfig:
    """AORPO whose real rows are relabelled so; unless it is "none", branches pursue outcomes too, and half of their
    rows get later outcomes of their own branch as their goals.
    """
    base, foresight = particle_models.aorpo(), ForesightConfig(length=10, shortest=0)
    if relabel == "none":
        return GoalAORPOConfig(aorpo=base, relabel=relabel, aims=KEPT)
    return GoalAORPOConfig(aorpo=base, relabel=relabel, foresight=foresight, branch_hindsight=0.5)
