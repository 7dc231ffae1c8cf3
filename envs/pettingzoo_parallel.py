"""PettingZoo parallel environments: all agents act at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from presage.common.game import GameError
from presage.envs.lane import Declaration, Moment, Transition, of_agent, pettingzoo_agents, unpack
from presage.envs.observations import joint_spec

RESET = ("observations", "infos")
STEP = ("observations", "rewards", "terminations", "truncations", "infos")


class ParallelLane:
    """One PettingZoo parallel environment behind joint rows.

    An agent that ends while others go on is shown its true last observation in its own last row, and is absent (zeros,
    not acting) from the next row on; from then on it counts as terminated in every row, for it has no future left. An
    agent may also join late: it is absent until then.

    Args:
        env: a `pettingzoo.ParallelEnv`.
        declared: what its author says about it.

    Raises:
        GameError: for spaces that are not supported, and wherever the environment breaks its API.
    """

    def __init__(self, env: Any, declared: Declaration) -> None:
        self._env = env
        agents = pettingzoo_agents(env)
        self._agents = [agent for agent, _, _ in agents]
        described = [(str(agent), observed, act) for agent, observed, act in agents]
        self.spec, self._readers = joint_spec(declared, str(env), described, turns=False)
        self._masks = self.spec.legal_varies or any(reader.masked for reader in self._readers)
        self.departed: Sequence[int] = []
        self._acting = [False] * self.spec.n
        self._ended = [False] * self.spec.n

    def reset(self, seed: int, now: Moment, copy: int) -> None:
        observations, infos = unpack(self._env.reset(seed=seed), "reset", RESET, self.spec.name)
        self._acting = [agent in self._env.agents for agent in self._agents]
        self._ended = [False] * self.spec.n
        if not isinstance(infos, Mapping):
            raise GameError(f"infos of {self.spec.name!r} are {infos!r} after reset; they must be a dict by agent")
        if not any(self._acting):
            raise GameError(f"env.agents of {self.spec.name!r} is {self._env.agents} after reset; nobody can act")
        for i, agent in enumerate(self._agents):
            if self._acting[i]:
                observation = of_agent(observations, agent, "observations", self.spec.name)
                self._readers[i].read(observation, now, copy)
                self._readers[i].read_mask(observation, infos.get(agent), now, copy)
                now.acting[copy, i] = True

    def step(self, actions: Sequence[Any], result: Transition, copy: int) -> bool:
        agents, acting, ended, game = self._agents, self._acting, self._ended, self.spec.name
        chosen = {agent: action for agent, action, acts in zip(agents, actions, acting, strict=True) if acts}
        answer = unpack(self._env.step(chosen), "step", STEP, game)
        observations, rewards, terminations, truncations, infos = answer
        present = self._env.agents
        reward, terminated = result.reward[copy], result.terminated[copy]
        following = [False] * len(agents)
        died: list[int] = []
        cut: list[int] = []
        try:
            for i, agent in enumerate(agents):
                if acting[i]:
                    reward[i] = rewards[agent]
                    if terminations[agent]:
                        terminated[i] = True
                        died.append(i)
                    elif truncations[agent]:
                        cut.append(i)
                    elif agent in present:
                        following[i] = True
                    else:
                        raise GameError(f"agent {agent!r} left env.agents of {game!r} neither terminated nor truncated")
                elif ended[i]:
                    terminated[i] = True
                elif agent in present:
                    reward[i] = rewards.get(agent, 0.0)
                    following[i] = True
            over = True not in following
            for i, agent in enumerate(agents):
                if acting[i] or following[i]:
                    self._readers[i].read(observations[agent], result.after, copy)
        except GameError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise self._broken(answer, error) from error
        if over and not cut:
            terminated[:] = True
        follows = cut if over else [i for i, follow in enumerate(following) if follow]
        result.after.acting[copy, follows] = True
        if self._masks:
            for i in follows:
                agent = agents[i]
                self._readers[i].read_mask(observations[agent], infos.get(agent), result.after, copy, over=over)
        self.departed = died + cut
        for i in self.departed:
            ended[i] = True
        self._acting = following
        return over

    def render(self) -> Any:
        return self._env.render()

    def close(self) -> None:
        self._env.close()

    def _broken(self, answer: Sequence[Any], error: Exception) -> GameError:
        """What is wrong with an answer of `step` that could not be read."""
        for part, given in zip(STEP[:4], answer, strict=False):
            for agent, acted in zip(self._agents, self._acting, strict=True):
                if acted and not (isinstance(given, Mapping) and agent in given):
                    return GameError(f"{part} of {self.spec.name!r} lack agent {agent!r}: {given!r}")
        return GameError(f"what step of {self.spec.name!r} returned cannot be read as numbers: {error!r}")
