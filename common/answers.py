"""Who answers for an agent at a step of an imagined branch: the codes of the table that the rollout generator reads."""

from __future__ import annotations

from enum import IntEnum


class Answer(IntEnum):
    """An entry of the table (ego, agent, step) that says where an agent's imagined action comes from."""

    POLICY = 0
    """the policy that is being trained: the ego itself"""
    MODEL = 1
    """the ego's model of that agent; costs nothing"""
    REAL = 2
    """that agent itself, asked for its action at the imagined state; one opponent query"""
