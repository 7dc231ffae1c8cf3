"""mpe2 itself, one game at a time, with its world's state written and read in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mpe2 import simple_speaker_listener_v4, simple_spread_v3
from numpy.typing import NDArray
from torch import Tensor

from presage.common.game import GameSpec
from presage.envs.particle import Scenario, SpeakerListener, Spread, WorldState

Floats = NDArray[np.float64]

SCENARIOS: tuple[Scenario, ...] = (
    Spread(),
    Spread(agents=2, local_ratio=0.0),
    Spread(agents=5, local_ratio=0.8),
    SpeakerListener(),
)


def named(scenario: Scenario) -> str:
    """A readable test id."""
    return f"{scenario.name}{len(scenario.world.agents)}"


class Reference:
    """One mpe2 parallel environment of a scenario."""

    def __init__(self, scenario: Scenario, *, continuous: bool = False) -> None:
        if isinstance(scenario, Spread):
            self.env: Any = simple_spread_v3.parallel_env(
                N=scenario.agents, local_ratio=scenario.local_ratio, continuous_actions=continuous
            )
        else:
            self.env = simple_speaker_listener_v4.parallel_env(continuous_actions=continuous)
        self.env.reset(seed=0)
        self.raw: Any = self.env.unwrapped
        self.world: Any = self.raw.world

    def write(self, state: WorldState, row: int) -> None:
        """Overwrite the world's state with one row of `state`, and begin an episode there."""
        self.env.reset(seed=0)
        for i, agent in enumerate(self.world.agents):
            agent.state.p_pos = state.position[row, i].double().numpy().copy()
            agent.state.p_vel = state.velocity[row, i].double().numpy().copy()
        for k, landmark in enumerate(self.world.landmarks):
            landmark.state.p_pos = state.landmarks[row, k].double().numpy().copy()
        speakers = [agent for agent in self.world.agents if not agent.silent]
        for s, agent in enumerate(speakers):
            agent.state.c = state.message[row, s].double().numpy().copy()
            agent.goal_b = self.world.landmarks[int(state.private[row].argmax())]

    def observation(self) -> Floats:
        """The joint observation `(O,)` before mpe2 rounds it to float32."""
        seen = [self.raw.scenario.observation(agent, self.world) for agent in self.world.agents]
        return np.concatenate(seen).astype(np.float64)

    def step(self, spec: GameSpec, act: Tensor) -> tuple[Floats, Floats, bool]:
        """Play one joint action `(A,)`: next observation, rewards `(N,)`, whether the episode was truncated."""
        _, rewards, terminations, truncations, _ = self.env.step(spec.to_env(act.numpy()))
        assert not any(terminations.values())
        assert len(set(truncations.values())) == 1
        paid = np.array([rewards[name] for name in spec.names], dtype=np.float64)
        return self.observation(), paid, truncations[spec.names[0]]


def world_state(scenario: Scenario, seed: int, rows: int, *, spread: float) -> WorldState:
    """Random float64 states in the middle of play: agents within `spread` of the middle, moving, having spoken."""
    rng = torch.Generator().manual_seed(seed)
    start = scenario.draw(rows, rng)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=rng, dtype=torch.float64)

    movable = torch.tensor([body.movable for body in scenario.world.agents])[:, None]
    return WorldState(
        position=start.position * spread,
        velocity=noise(start.velocity) * movable,
        landmarks=start.landmarks,
        message=noise(start.message),
        private=start.private,
    )


def joint_actions(spec: GameSpec, seed: int, rows: int) -> Tensor:
    """Random joint actions `(rows, A)`."""
    everyone, everything = torch.ones(rows, spec.n, dtype=torch.bool), torch.ones(rows, spec.act_dim, dtype=torch.bool)
    return spec.random_action(everyone, everything, torch.Generator().manual_seed(seed))
