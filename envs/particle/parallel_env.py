"""Particle games as ordinary PettingZoo environments, for any other library to train on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from presage.common.game import AgentSpec, GameError, View
from presage.envs.particle.game import ParticleGame
from presage.envs.particle.scenario import Scenario
from presage.envs.particle.simulator import action_space

Observations = dict[str, Any]
"""by agent, an array; where the game has goals, `observation`, `achieved_goal` and `desired_goal` as in Gymnasium"""


class ParticleParallelEnv(ParallelEnv[str, NDArray[np.float32], Any]):  # type: ignore[misc]
    """One copy of a particle scenario as a PettingZoo `ParallelEnv`, with the spaces that mpe2 has.

    Args:
        scenario: such as `Tag(adversaries=4)`.
        max_cycles: env steps in an episode, >= 1.
        continuous_actions: Box actions in place of discrete ones.
        render_mode: "rgb_array", or None for an environment that does not draw.

    Raises:
        GameError: for any other render mode, or `max_cycles` below 1.
    """

    def __init__(
        self, scenario: Scenario, *, max_cycles: int = 25, continuous_actions: bool = False,
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        if render_mode not in (None, "rgb_array"):
            raise GameError(f"render_mode={render_mode!r} must be 'rgb_array' or None")
        self.metadata: dict[str, Any] = {
            "name": f"particle_{scenario.name}", "render_modes": ["rgb_array"], "render_fps": 10,
            "is_parallelizable": True,
        }  # fmt: skip
        self.render_mode = render_mode
        self._game = ParticleGame(scenario, 1, continuous=continuous_actions, episode_limit=max_cycles)
        self._spec = self._game.spec
        self.possible_agents = list(self._spec.names)
        self.agents: list[str] = []
        self._rng = np.random.default_rng()
        world = scenario.world
        self._actions = {b.name: action_space(b, world.words, continuous=continuous_actions) for b in world.agents}
        self._observations = {agent.name: _space(agent) for agent in self._spec.agents}
        self.state_space = spaces.Box(-np.inf, np.inf, (self._spec.obs_dim,), np.float32)
        self._obs = np.zeros(self._spec.obs_dim, dtype=np.float32)
        self._achieved = self._desired = np.zeros(self._spec.goal_dim, dtype=np.float32)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """What the agent sees: a Box of any numbers; where it has a goal, a Dict of three."""
        return self._observations[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """What the agent does."""
        return self._actions[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, dict[str, Any]]]:
        """Start an episode; the same `seed` starts the same one, and decides the ones that follow without a seed."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        view = self._game.reset(int(self._rng.integers(2**31)))
        self.agents = list(self.possible_agents)
        self._show(view)
        return self._seen(), self._no_infos()

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[
        Observations, dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:  # fmt: skip
        """Play one action of every agent.

        Raises:
            GameError: the episode is over; an agent's action is missing, or outside its space.
        """
        if not self.agents:
            raise GameError(f"the episode of {self.metadata['name']!r} is over; call reset() before the next step")
        missing = set(self.agents) ^ actions.keys()
        if missing:
            raise GameError(
                f"step() takes one action of every agent, {', '.join(self.agents)}; check {sorted(missing)}"
            )
        rows, _ = self._game.step(torch.from_numpy(self._spec.from_env(actions))[None])
        self._show(rows.next_view)
        rewards = dict(zip(self.agents, rows.reward[0].tolist(), strict=True))
        terminations = dict(zip(self.agents, rows.terminated[0].tolist(), strict=True))
        truncations = dict.fromkeys(self.agents, bool(rows.truncated[0]))
        seen, infos = self._seen(), self._no_infos()
        if truncations[self.agents[0]] or terminations[self.agents[0]]:
            self.agents = []
        return seen, rewards, terminations, truncations, infos

    def state(self) -> NDArray[np.float32]:
        """All agents' observations, one behind the other."""
        return self._obs

    def render(self) -> NDArray[np.uint8] | None:
        """The picture `(H, W, 3)`; None without a render mode."""
        return self._game.render() if self.render_mode else None

    def close(self) -> None:
        """Nothing to free."""

    def _show(self, view: View) -> None:
        self._obs, self._achieved, self._desired = (part[0].numpy() for part in (view.obs, view.achieved, view.desired))

    def _seen(self) -> Observations:
        seen: Observations = {}
        for agent in self._spec.agents:
            own, goal = self._obs[list(agent.obs)], list(agent.goal)
            parts = {"observation": own, "achieved_goal": self._achieved[goal], "desired_goal": self._desired[goal]}
            seen[agent.name] = parts if goal else own
        return seen

    def _no_infos(self) -> dict[str, dict[str, Any]]:
        return {name: {} for name in self.agents}


def _space(agent: AgentSpec) -> spaces.Space[Any]:
    own = spaces.Box(-np.inf, np.inf, (len(agent.obs),), np.float32)
    if not agent.goal:
        return own
    goal = spaces.Box(-np.inf, np.inf, (len(agent.goal),), np.float32)
    return spaces.Dict({"observation": own, "achieved_goal": goal, "desired_goal": goal})
