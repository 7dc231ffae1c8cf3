"""AORPO with goals, sized for goal navigation on two cores: the particle games' numbers, and where goals come from."""

from __future__ import annotations

from presage.gcrl.foresight import ForesightConfig
from presage.gcrl.hindsight import Shares
from presage.gcrl.relabelling import RelabellingConfig, Source
from presage.scenarios import particle_models
from presage.scenarios.goal_aorpo import GoalAORPOConfig


def aorpo(source: Source) -> GoalAORPOConfig:
    """AORPO whose real rows get their goals so; unless it is "none", branches pursue outcomes too, and half of their
    rows get later outcomes of their own branch as their goals.
    """
    if source == "none":
        relabelling = RelabellingConfig(source=source, aims=Shares.of(0))
    else:
        foresight = ForesightConfig(length=10, shortest=0)
        relabelling = RelabellingConfig(source=source, foresight=foresight, branch_hindsight=0.5)
    return GoalAORPOConfig(aorpo=particle_models.aorpo(), relabelling=relabelling)
