"""PettingZoo AEC environments: agents act one after another, one turn is one env step and one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from presage.common.game import GameError
from presage.envs.lane import Declaration, Moment, Transition, number, of_agent, pettingzoo_agents
from presage.envs.observations import joint_spec


class TurnLane:
    """One PettingZoo AEC environment behind joint rows.

    The joint observation holds what every agent can observe at that moment, whoever's turn it is. A row's reward is
    what the turn brought to every agent (`env.rewards` after it), so that an agent's rewards add up to what the
    environment accumulates for it, also for an agent that waits. An ended agent is stepped with None as PettingZoo
    demands, which makes no row and belongs to the turn before; it is shown its true last observation in the row where
    it ends, is absent (zeros) afterwards, and counts as terminated in every later row.

    Args:
        env: a `pettingzoo.AECEnv`.
        declared: what its author says about it.

    Raises:
        GameError: for spaces that are not supported, and wherever the environment breaks its API.
    """

    def __init__(self, env: Any, declared: Declaration) -> None:
        self._env = env
        agents = pettingzoo_agents(env)
        self._agents = [agent for agent, _, _ in agents]
        described = [(str(agent), observed, act) for agent, observed, act in agents]
        self.spec, self._readers = joint_spec(declared, str(env), described, turns=True)
        self.departed: Sequence[int] = []
        self._alive: list[int] = []
        self._ended = [False] * self.spec.n

    def reset(self, seed: int, now: Moment, copy: int) -> None:
        self._env.reset(seed=seed)
        self._ended = [False] * self.spec.n
        self._alive = self._living()
        if not self._alive:
            raise GameError(f"env.agents of {self.spec.name!r} is {self._env.agents} after reset; nobody can act")
        shown = self._show(self._alive, now, copy)
        self._turn(self._index(self._env.agent_selection), shown, now, copy, over=False)

    def step(self, actions: Sequence[Any], result: Transition, copy: int) -> bool:
        env, after = self._env, result.after
        env.step(actions[self._index(env.agent_selection)])
        self._add_rewards(result, copy)
        terminations, truncations, result.terminated[copy] = env.terminations, env.truncations, self._ended
        gone, cut = [], []
        for i in self._alive:
            agent = self._agents[i]
            if agent not in terminations:
                raise GameError(f"agent {agent!r} left {self.spec.name!r} neither terminated nor truncated")
            if terminations[agent] or of_agent(truncations, agent, "truncations", self.spec.name):
                gone.append(i)
                self._ended[i] = True
                if terminations[agent]:
                    result.terminated[copy, i] = True
                else:
                    cut.append(i)
        self.departed = gone
        shown = self._show(gone, after, copy)
        # PettingZoo puts ended agents first in line and keeps the one whose turn it was here.
        skipped = getattr(env.unwrapped, "_skip_agent_selection", None)
        following = env.agent_selection if skipped is None else skipped
        if gone:
            self._drop_ended(result, copy)
        self._alive = self._living()
        if self._alive:
            shown = self._show(self._alive, after, copy)
            self._turn(self._index(env.agent_selection), shown, after, copy, over=False)
        elif cut:
            turn = self._index(following)
            self._turn(turn if turn in cut else cut[0], shown, after, copy, over=True)
        else:
            result.terminated[copy] = True
        return not self._alive

    def render(self) -> Any:
        return self._env.render()

    def close(self) -> None:
        self._env.close()

    def _index(self, agent: Any) -> int:
        if agent not in self._agents:
            raise GameError(f"{self.spec.name!r} selects agent {agent!r}, which is not in possible_agents")
        return self._agents.index(agent)

    def _living(self) -> list[int]:
        """Agents that are there and have not ended."""
        present = self._env.agents
        return [i for i, agent in enumerate(self._agents) if agent in present and not self._ended[i]]

    def _show(self, agents: Sequence[int], moment: Moment, copy: int) -> dict[int, Any]:
        """Write what `agents` observe now; returns it."""
        shown = {i: self._env.observe(self._agents[i]) for i in agents}
        for i, observation in shown.items():
            self._readers[i].read(observation, moment, copy)
        return shown

    def _turn(self, actor: int, shown: dict[int, Any], moment: Moment, copy: int, *, over: bool) -> None:
        """Write who acts, and what it may do."""
        if actor not in shown:
            raise GameError(f"{self.spec.name!r} selects agent {self._agents[actor]!r}, which is not in env.agents")
        moment.acting[copy, actor] = True
        self._readers[actor].read_mask(shown[actor], self._env.infos.get(self._agents[actor]), moment, copy, over=over)

    def _add_rewards(self, result: Transition, copy: int) -> None:
        rewards = self._env.rewards
        for i, agent in enumerate(self._agents):
            if agent in rewards:
                result.reward[copy, i] += number(rewards[agent], agent)

    def _drop_ended(self, result: Transition, copy: int) -> None:
        """Step ended agents with None until one is selected that has not ended, or nobody is left."""
        env = self._env
        for _ in range(len(self._agents) + 1):
            if not env.agents or not self._ended[self._index(env.agent_selection)]:
                return
            env.step(None)
            self._add_rewards(result, copy)
        raise GameError(f"{self.spec.name!r} keeps agent {env.agent_selection!r}, which has ended, after step(None)")
