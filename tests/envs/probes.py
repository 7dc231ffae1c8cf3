"""Small environments whose observations and rewards say which agent, which time and which episode they belong to."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

AGENTS = ("walker", "caller", "sitter")
WIDTHS = {"walker": 2, "caller": 3, "sitter": 1}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "walker": spaces.Box(-2.0, 4.0, (2,)),
    "caller": spaces.Discrete(3, start=5),
    "sitter": spaces.MultiDiscrete([2, 3]),
}


def shown(agent: str, t: int, first: float) -> np.ndarray:
    """What `agent` observes at time `t`: 100 times its place, plus the time, plus what the seed drew; then counting."""
    return np.float32(100.0 * AGENTS.index(agent) + t + first) + np.arange(WIDTHS[agent], dtype=np.float32)


def paid(agent: str, t: int) -> float:
    """What `agent` gets for the step that leads to time `t`."""
    return 10.0 * AGENTS.index(agent) + t


class ClockGame(ParallelEnv):  # type: ignore[misc] # PettingZoo ships no types
    """Agents with different spaces that live from `born` to `ends` and end there as `how` says.

    Args:
        ends: per agent, the time at which it is shown for the last time.
        how: per agent, "terminated" or "truncated".
        born: time from which an agent is there; 0 where left out.
        masks: where the caller is told what it may say: "observation", "info", or "" for nowhere.
    """

    def __init__(
        self,
        ends: dict[str, int],
        how: dict[str, str],
        born: dict[str, int] | None = None,
        masks: str = "",
        render_mode: str | None = None,
    ) -> None:
        self.metadata = {"name": "clock"}
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        self.render_mode = render_mode
        self.received: list[dict[str, Any]] = []
        self._ends, self._how, self._born, self._masks = ends, how, born or {}, masks
        self._t, self._first = 0, 0.0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        box = spaces.Box(-np.inf, np.inf, (WIDTHS[agent],))
        if self._masks == "observation" and agent == "caller":
            return spaces.Dict({"observation": box, "action_mask": spaces.MultiBinary(3)})
        return box

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return ACTIONS[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self._t, self._first = 0, round(float(np.random.default_rng(seed).random()), 3)
        self.agents = [agent for agent in AGENTS if self._born.get(agent, 0) == 0]
        return self._observe(self.agents), self._infos(self.agents)

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        self.received.append(actions)
        self._t += 1
        before = self.agents
        done = [agent for agent in before if self._ends[agent] == self._t]
        self.agents = [agent for agent in before if agent not in done]
        self.agents += [agent for agent in AGENTS if self._born.get(agent, 0) == self._t]
        told = [agent for agent in AGENTS if agent in before or agent in self.agents]
        return (
            self._observe(told),
            {agent: paid(agent, self._t) for agent in told},
            {agent: agent in done and self._how[agent] == "terminated" for agent in told},
            {agent: agent in done and self._how[agent] == "truncated" for agent in told},
            self._infos(told),
        )

    def mask(self) -> np.ndarray:
        """What the caller may say now: everything but one word, which turns with time."""
        return np.array([word != self._t % 3 for word in range(3)], dtype=np.int8)

    def render(self) -> np.ndarray:
        return np.full((4, 6, 3), self._t, dtype=np.uint8)

    def _observe(self, agents: list[str]) -> dict[str, Any]:
        seen: dict[str, Any] = {agent: shown(agent, self._t, self._first) for agent in agents}
        if self._masks == "observation" and "caller" in seen:
            seen["caller"] = {"observation": seen["caller"], "action_mask": self.mask()}
        return seen

    def _infos(self, agents: list[str]) -> dict[str, Any]:
        infos: dict[str, Any] = {agent: {} for agent in agents}
        if self._masks == "info" and "caller" in infos:
            infos["caller"]["action_mask"] = self.mask()
        return infos


def all_end(t: int, how: str) -> ClockGame:
    """A clock game whose agents all end at time `t`."""
    return ClockGame(dict.fromkeys(AGENTS, t), dict.fromkeys(AGENTS, how))


class TurnGame(AECEnv):  # type: ignore[misc] # PettingZoo ships no types
    """Agents take turns; a turn pays the actor its action at once, and everybody else at the same time.

    The turn that leads to time t pays agent i `10 i + t`, and the actor its action on top. An action that is masked is
    t modulo the number of actions.

    Args:
        ends: at what time an agent ends, and how: "terminated" or "truncated".
        line: ended agents go to the head of the line, which PettingZoo asks of a game that goes on without them.
    """

    def __init__(self, ends: dict[str, tuple[int, str]], *, line: bool = False) -> None:
        super().__init__()
        self.metadata = {"name": "turns"}
        self.possible_agents = list(AGENTS)
        self._ends, self._line = ends, line
        self._t, self._first = 0, 0.0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        box = spaces.Box(-np.inf, np.inf, (WIDTHS[agent],))
        return spaces.Dict({"observation": box, "action_mask": spaces.MultiBinary(4)})

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete(4)

    def observe(self, agent: str) -> dict[str, Any]:
        mask = np.zeros(4, dtype=np.int8)
        if agent == self.agent_selection:
            mask = (np.arange(4) != self._t % 4).astype(np.int8)
        return {"observation": shown(agent, self._t, self._first), "action_mask": mask}

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self._t, self._first = 0, round(float(np.random.default_rng(seed).random()), 3)
        self.agents = list(AGENTS)
        self.agent_selection = AGENTS[0]
        self.rewards = dict.fromkeys(AGENTS, 0.0)
        self._cumulative_rewards = dict.fromkeys(AGENTS, 0.0)
        self.terminations = dict.fromkeys(AGENTS, False)
        self.truncations = dict.fromkeys(AGENTS, False)
        self.infos: dict[str, Any] = {agent: {} for agent in AGENTS}

    def step(self, action: int | None) -> None:
        actor = self.agent_selection
        if self.terminations[actor] or self.truncations[actor]:
            self._was_dead_step(action)
            return
        if action is None:
            raise ValueError("a living agent needs an action")
        self._t += 1
        self._cumulative_rewards[actor] = 0.0
        self.rewards = {agent: paid(agent, self._t) for agent in self.agents}
        self.rewards[actor] += action
        self._accumulate_rewards()
        for agent, (when, how) in self._ends.items():
            if when == self._t:
                (self.terminations if how == "terminated" else self.truncations)[agent] = True
        self.agent_selection = self.agents[(self.agents.index(actor) + 1) % len(self.agents)]
        if self._line:
            self._deads_step_first()


class Forgetful(gymnasium.Env[np.ndarray, np.integer[Any]]):
    """Draws its observations from a source that `reset(seed)` does not seed, so that no episode can be played again."""

    observation_space = spaces.Box(0.0, 1.0, (2,))
    action_space = spaces.Discrete(2)
    source = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return self.source.random(2, dtype=np.float32), {}

    def step(self, action: np.integer[Any]) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.source.random(2, dtype=np.float32), 0.0, False, False, {}


class Answers(gymnasium.Env[Any, Any]):
    """Shows and returns exactly what it is given."""

    def __init__(
        self,
        space: spaces.Space[Any],
        first: Any,
        answer: Any = None,
        action: spaces.Space[Any] | None = None,
    ) -> None:
        self.observation_space = space
        self.action_space = action or spaces.Discrete(2)
        self._first, self._answer = first, answer

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._first

    def step(self, action: Any) -> Any:
        return self._answer
