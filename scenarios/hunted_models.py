"""LIAM and what it is held against, sized for two cores. All arms share everything but what the memory learns from."""

from __future__ import annotations

from typing import Any

from presage.common.actor_critic import ActorCriticConfig
from presage.common.on_policy import OnPolicyConfig
from presage.common.scenario import GameConfig, Scenario
from presage.envs.particle.hunted import Hunted
from presage.marl.opponents.liam import LIAMConfig, Model
from presage.marl.opponents.liam_networks import EncodingConfig
from presage.scenarios.hunted_parts import EPISODE_LIMIT, labels
from presage.scenarios.tasks import Task

HUNTED = Task(
    game=GameConfig(name="pool/hunted", copies=32, options={"outside": 1.0}), steps=1_000_000, evaluate_every=100_000
)
"""a short-sighted prey among three predators, who are one of ten sets in every episode; a step outside of its arena
costs the prey 1 and not 10, so that its first mistakes do not set the scale of returns for the whole run"""


def liam(model: Model) -> LIAMConfig:
    """The authors' networks, chunks and weights of the loss; Adam's steps are larger than theirs, and there are three
    times as many copies.
    """
    return LIAMConfig(
        model=model, labels=labels(Hunted()), encoding=EncodingConfig(learning_rate=1e-3),
        numbers=ActorCriticConfig(learning_rate=5e-4), loop=OnPolicyConfig(collect_steps=EPISODE_LIMIT, chunk=5),
    )  # fmt: skip


def scenario_of(name: str, label: str, model: Model, description: str) -> Scenario[Any]:
    """An arm; evaluations meet every set of predators ten times or so."""
    return HUNTED.scenario(name, label, description, liam(model), evaluation_episodes=100)
