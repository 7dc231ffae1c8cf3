"""Batched games as ordinary PettingZoo and Gymnasium environments, for any other library to train on."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import AECEnv, ParallelEnv

from presage.common.game import AgentSpec, Game, GameError, Rows, View

Observation = Any
"""an array; where the game has goals, a dict of `observation`, `achieved_goal` and `desired_goal`"""


@runtime_checkable
class Drawn(Protocol):
    """A game that draws its copies."""

    def render(self, copy: int = 0) -> NDArray[np.uint8]:
        """The picture of one copy, `(H, W, 3)`."""
        ...


class _OneCopy:
    """What both views share: one copy of a game, its spaces, and the latest numbers."""

    def __init__(self, game: Game, render_mode: str | None) -> None:
        if game.copies != 1:
            raise GameError(f"a view shows one copy of a game; {game.spec.name!r} was made with {game.copies}")
        if render_mode not in (None, "rgb_array"):
            raise GameError(f"render_mode={render_mode!r} must be 'rgb_array' or None")
        if render_mode and not isinstance(game, Drawn):
            raise GameError(f"{game.spec.name!r} does not draw itself; make it with render_mode=None")
        self.game, self.spec, self.render_mode = game, game.spec, render_mode
        self.metadata: dict[str, Any] = {
            "name": game.spec.name, "render_modes": ["rgb_array"] if isinstance(game, Drawn) else [],
            "render_fps": 10, "is_parallelizable": True,
        }  # fmt: skip
        self.rng = np.random.default_rng()
        self.view = View.of(self.spec, torch.zeros(1, self.spec.obs_dim))

    def reset(self, seed: int | None) -> None:
        """Start an episode; the same seed starts the same one, and decides the ones that follow without a seed."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.view = self.game.reset(int(self.rng.integers(2**31)))

    def step(self, actions: dict[str, Any]) -> Rows:
        """The row of one step."""
        rows, _ = self.game.step(torch.from_numpy(self.spec.from_env(actions))[None])
        self.view = rows.next_view
        return rows

    def observation(self, agent: AgentSpec) -> Observation:
        """What an agent sees now."""
        obs, achieved, desired = (
            part[0].float().numpy() for part in (self.view.obs, self.view.achieved, self.view.desired)
        )
        own, goal = obs[list(agent.obs)], list(agent.goal)
        if not goal:
            return own
        return {"observation": own, "achieved_goal": achieved[goal], "desired_goal": desired[goal]}

    def info(self, i: int) -> dict[str, Any]:
        """The legal actions of agent number `i` where they vary."""
        if not self.spec.legal_varies:
            return {}
        return {"action_mask": self.view.legal[0, self.spec.act[i]].numpy().astype(np.int8)}

    def render(self) -> NDArray[np.uint8] | None:
        """The picture `(H, W, 3)`; None without a render mode."""
        return self.game.render() if self.render_mode and isinstance(self.game, Drawn) else None


def observation_space(agent: AgentSpec) -> spaces.Space[Any]:
    """A Box of any numbers; where the agent has a goal, a Dict of three, as in Gymnasium's goal environments."""
    own = spaces.Box(-np.inf, np.inf, (len(agent.obs),), np.float32)
    if not agent.goal:
        return own
    goal = spaces.Box(-np.inf, np.inf, (len(agent.goal),), np.float32)
    return spaces.Dict({"observation": own, "achieved_goal": goal, "desired_goal": goal})


class ParallelView(ParallelEnv[str, Observation, Any]):  # type: ignore[misc]  # untyped base
    """One copy of a game in which all agents act at once, as a PettingZoo `ParallelEnv`.

    Args:
        game: made with one copy. render_mode: "rgb_array", or None for an environment that does not draw.

    Raises:
        GameError: for a game of several copies, another render mode, or a picture of a game that does not draw.
    """

    def __init__(self, game: Game, render_mode: str | None = None) -> None:
        self._one = _OneCopy(game, render_mode)
        self.metadata, self.render_mode = self._one.metadata, render_mode
        self.possible_agents = list(game.spec.names)
        self.agents: list[str] = []
        self._spaces = {agent.name: (observation_space(agent), agent.space) for agent in game.spec.agents}
        self.state_space = spaces.Box(-np.inf, np.inf, (game.spec.obs_dim,), np.float32)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """What the agent sees."""
        return self._spaces[agent][0]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """What the agent does."""
        return self._spaces[agent][1]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Start an episode; the same `seed` starts the same one, and decides the ones that follow without a seed.

        Raises:
            GameError: not all agents act at once.
        """
        self._one.reset(seed)
        if not bool(self._one.view.acting.all()):
            raise GameError(f"the agents of {self.metadata['name']!r} take turns; see it as a TurnView")
        self.agents = list(self.possible_agents)
        return self._shown(self.agents)

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[
        dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:  # fmt: skip
        """Play one action of every agent.

        Raises:
            GameError: the episode is over; an agent's action is missing, or outside its space.
        """
        if not self.agents:
            raise GameError(f"the episode of {self.metadata['name']!r} is over; call reset() before the next step")
        wrong = set(self.agents) ^ actions.keys()
        if wrong:
            raise GameError(f"a step takes one action of each of {', '.join(self.agents)}; check {sorted(wrong)}")
        rows = self._one.step(actions)
        played, places = self.agents, {name: i for i, name in enumerate(self.possible_agents)}
        reward, terminated = rows.reward[0].tolist(), rows.terminated[0].tolist()
        truncated = bool(rows.truncated[0])
        observations, infos = self._shown(played)
        self.agents = [name for name in played if not (truncated or terminated[places[name]])]
        return (
            observations,
            {name: reward[places[name]] for name in played},
            {name: terminated[places[name]] for name in played},
            {name: truncated and not terminated[places[name]] for name in played},
            infos,
        )

    def state(self) -> NDArray[np.float32]:
        """The joint observation."""
        joint: NDArray[np.float32] = self._one.view.obs[0].float().numpy()
        return joint

    def render(self) -> NDArray[np.uint8] | None:
        """The picture `(H, W, 3)`; None without a render mode."""
        return self._one.render()

    def close(self) -> None:
        """Close the game."""
        self._one.game.close()

    def _shown(self, names: list[str]) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        chosen = [(i, agent) for i, agent in enumerate(self._one.spec.agents) if agent.name in names]
        return (
            {agent.name: self._one.observation(agent) for _, agent in chosen},
            {agent.name: self._one.info(i) for i, agent in chosen},
        )


class TurnView(AECEnv[str, Observation, Any]):  # type: ignore[misc]  # untyped base
    """One copy of a game in which agents act one after another, as a PettingZoo `AECEnv`.

    Args:
        game: made with one copy. render_mode: "rgb_array", or None for an environment that does not draw.

    Raises:
        GameError: as for `ParallelView`; and later, wherever not exactly one agent is to act.
    """

    def __init__(self, game: Game, render_mode: str | None = None) -> None:
        super().__init__()
        self._one = _OneCopy(game, render_mode)
        self.metadata, self.render_mode = self._one.metadata, render_mode
        self.possible_agents = list(game.spec.names)
        self.agents: list[str] = []
        self._spaces = {agent.name: (observation_space(agent), agent.space) for agent in game.spec.agents}

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """What the agent sees."""
        return self._spaces[agent][0]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """What the agent does."""
        return self._spaces[agent][1]

    def observe(self, agent: str) -> Observation:
        """What the agent sees now."""
        return self._one.observation(self._one.spec.agents[self._one.spec.index(agent)])

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start an episode; the same `seed` starts the same one, and decides the ones that follow without a seed."""
        self._one.reset(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self._turn()

    def step(self, action: Any) -> None:
        """Play the turn of `agent_selection`; None for one that has ended."""
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        rows = self._one.step({agent: action})
        for i, name in enumerate(self.possible_agents):
            if name in self.agents:
                self.rewards[name] = float(rows.reward[0, i])
                self.terminations[name] = bool(rows.terminated[0, i])
                self.truncations[name] = bool(rows.truncated[0]) and not self.terminations[name]
        self._accumulate_rewards()
        if not (rows.truncated[0] or rows.terminated[0].all()):
            self._turn()
        self._deads_step_first()

    def render(self) -> NDArray[np.uint8] | None:
        """The picture `(H, W, 3)`; None without a render mode."""
        return self._one.render()

    def close(self) -> None:
        """Close the game."""
        self._one.game.close()

    def _turn(self) -> None:
        """Select whoever is to act."""
        flags = self._one.view.acting[0].tolist()
        acting = [name for name, acts in zip(self.possible_agents, flags, strict=True) if acts]
        if len(acting) != 1:
            raise GameError(f"{acting} of {self.metadata['name']!r} act at once; see it as a ParallelView")
        self.agent_selection = acting[0]
        self.infos = {name: self._one.info(i) for i, name in enumerate(self.possible_agents) if name in self.agents}


class GymnasiumView(gymnasium.Env[Observation, Any]):
    """One copy of a game of one agent as a Gymnasium environment.

    Args:
        game: made with one copy. render_mode: "rgb_array", or None for an environment that does not draw.

    Raises:
        GameError: as for `ParallelView`, and for a game of several agents.
    """

    def __init__(self, game: Game, render_mode: str | None = None) -> None:
        if game.spec.n != 1:
            raise GameError(f"{game.spec.name!r} has {game.spec.n} agents; see it as a ParallelView")
        self._one = _OneCopy(game, render_mode)
        self._agent = game.spec.agents[0]
        self.metadata, self.render_mode = self._one.metadata, render_mode
        self.observation_space, self.action_space = observation_space(self._agent), self._agent.space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; the same `seed` starts the same one, and decides the ones that follow without a seed."""
        super().reset(seed=seed)
        self._one.reset(seed)
        return self._one.observation(self._agent), self._one.info(0)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one action; raises GameError where it is outside the space."""
        rows = self._one.step({self._agent.name: action})
        ended, info = bool(rows.terminated[0, 0]), self._one.info(0)
        return self._one.observation(self._agent), float(rows.reward[0, 0]), ended, bool(rows.truncated[0]), info

    def render(self) -> Any:
        """The picture `(H, W, 3)`; None without a render mode."""
        return self._one.render()

    def close(self) -> None:
        """Close the game."""
        self._one.game.close()
