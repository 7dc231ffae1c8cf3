"""Whether a game shows, pays and ends exactly as its PettingZoo environment does: the checks that adapters fail.

The game is played, and a second environment is played beside it in PettingZoo's own way, with the same seeds and
actions. Everything that the rows say is held against what that one said. `python -m presage.envs.conformance "mpe/*"`
does so for games by name.
"""

from __future__ import annotations

import argparse
import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import AECEnv
from torch import Tensor

from presage.common.game import Game, Rows, episode_seed
from presage.envs.registry import environment, make, names

TOLERANCE = 1e-4
"""relative, of sums of 32-bit rewards"""


def check_conformance(make_env: Callable[[], Any], game: Game, episodes: int = 2, seed: int = 0) -> list[str]:
    """Play `episodes` episodes of the first copy with random legal actions.

    - per agent the stored rewards add up to the environment's; each row pays it what the environment did
    - before and after every step each agent is shown its own observation, at that moment
    - who has ended is terminated or truncated as there, is absent afterwards, and is asked nothing
    - agents who remain go on; no action is chosen that the environment masks

    Args:
        make_env: builds the PettingZoo environment, parallel or in turns, as `game` has it.
        game: of one copy or more.

    Returns:
        what differs, as sentences; [] where nothing does.
    """
    probe: _Probe = (_TurnProbe if isinstance(env := make_env(), AECEnv) else _ParallelProbe)(env, game)
    rng, view = torch.Generator().manual_seed(seed), game.reset(seed)
    faults: list[str] = []
    for episode in range(episodes):
        probe.begin(episode_seed(seed, 0, episode))
        totals, over = np.zeros(game.spec.n), False
        while not over:
            faults += probe.compare(view.obs[0], view.acting[0], view.legal[0], "before a step")
            act = game.spec.random_action(view.acting, view.legal, rng)
            rows, view = game.step(act)
            totals += rows.reward[0].double().numpy()
            faults += probe.play(rows)
            over = bool(rows.truncated[0] | rows.terminated[0].all())
            if over != probe.over and game.spec.episode_limit is None:
                faults.append(f"the game's episode is over: {over}; the environment's: {probe.over}")
            over = over or probe.over
            if len(faults) > 20:
                return faults
        for name, total, wanted in zip(game.spec.names, totals, probe.totals, strict=True):
            if abs(total - wanted) > TOLERANCE * max(1.0, abs(wanted)):
                faults.append(f"{name}: stored rewards add up to {total}, the environment's to {wanted}")
        if not probe.over:
            view = game.reset(seed + episode + 1)
            return faults
    return faults


class _Probe(ABC):
    """A second environment, played as PettingZoo's documentation says."""

    def __init__(self, env: Any, game: Game) -> None:
        self.env, self.spec = env, game.spec
        self.agents = list(env.possible_agents)
        self.totals = np.zeros(len(self.agents))
        self.over = False
        self.seen: dict[Any, Any] = {}

    @abstractmethod
    def begin(self, seed: int) -> None:
        """Start an episode."""

    @abstractmethod
    def play(self, rows: Rows) -> list[str]:
        """Play the first row's actions; what differs from the row."""

    def numbers(self, agent: Any, observation: Any) -> np.ndarray:
        """What an agent is shown, as one vector, without its mask."""
        space = self.env.observation_space(agent)
        if isinstance(space, spaces.Dict) and "observation" in space.spaces:
            space, observation = space["observation"], observation["observation"]
        return np.asarray(spaces.flatten(space, observation), dtype=np.float32).reshape(-1)

    def differing(self, obs: Tensor, when: str) -> list[str]:
        """Agents that the game shows something else."""
        faults = []
        for i, agent in enumerate(self.agents):
            if agent not in self.seen:
                continue
            shown = obs[list(self.spec.obs[i])].numpy()
            if not np.array_equal(shown, self.numbers(agent, self.seen[agent])):
                faults.append(f"{agent} is shown other numbers {when}")
        return faults

    def compare(self, obs: Tensor, acting: Tensor, legal: Tensor, when: str) -> list[str]:
        """What the game shows, who may act and what is legal."""
        self.seen = {agent: shown for agent, shown in self.seen.items() if agent in self.env.agents}
        faults = self.differing(obs, when)
        faults += [
            f"{agent} is shown something {when}, though it is not there"
            for i, agent in enumerate(self.agents)
            if agent not in self.env.agents and bool(obs[list(self.spec.obs[i])].any())
        ]
        for i, agent in enumerate(self.agents):
            if bool(acting[i]) != (agent in self.to_act()):
                faults.append(f"{agent} acts in the game: {bool(acting[i])}; in the environment: {not bool(acting[i])}")
            mask = self.mask(agent) if agent in self.to_act() else None
            if mask is not None and not np.array_equal(legal[self.spec.act[i]].numpy(), mask.astype(bool)):
                faults.append(
                    f"{agent} may do {legal[self.spec.act[i]].tolist()}, the environment says {mask.tolist()}"
                )
        return faults

    @abstractmethod
    def to_act(self) -> list[Any]:
        """Who acts next."""

    def mask(self, agent: Any) -> np.ndarray | None:
        """The agent's action mask, in its observation or its info."""
        observation, info = self.seen[agent], self.env.infos.get(agent, {}) if hasattr(self.env, "infos") else {}
        for holder in (observation, info):
            if isinstance(holder, dict) and "action_mask" in holder:
                return np.asarray(holder["action_mask"])
        return None


class _ParallelProbe(_Probe):
    """All agents act at once."""

    def begin(self, seed: int) -> None:
        self.seen, _ = self.env.reset(seed=seed)
        self.totals[:], self.over = 0.0, False

    def to_act(self) -> list[Any]:
        return list(self.env.agents)

    def play(self, rows: Rows) -> list[str]:
        chosen = self.spec.to_env(rows.act[0].numpy())
        present = list(self.env.agents)
        faults = [
            f"{agent} is asked, though it is not there"
            for i, agent in enumerate(self.agents)
            if agent not in present and bool(rows.act[0, self.spec.act[i]].any())
        ]
        answer = self.env.step({agent: chosen[str(agent)] for agent in present})
        self.seen, rewards, terminations, truncations, _ = answer
        for i, agent in enumerate(self.agents):
            wanted = float(rewards.get(agent, 0.0))
            self.totals[i] += wanted
            if abs(float(rows.reward[0, i]) - wanted) > TOLERANCE * max(1.0, abs(wanted)):
                faults.append(f"{agent} is paid {float(rows.reward[0, i])}, by the environment {wanted}")
            ended = agent not in present or bool(terminations.get(agent, False))
            if bool(rows.terminated[0, i]) != ended:
                faults.append(f"{agent} is terminated in the game: {not ended}; in the environment: {ended}")
        self.over = not self.env.agents
        if bool(rows.truncated[0]) and not any(truncations.values()) and self.spec.episode_limit is None:
            faults.append("the game is truncated, the environment is not")
        return faults + self.differing(rows.next_obs[0], "after a step")


class _TurnProbe(_Probe):
    """Agents act one after another; rewards are those that `last` gives, accumulated since an agent's last turn."""

    def begin(self, seed: int) -> None:
        self.env.reset(seed=seed)
        self.totals[:], self.over = 0.0, False
        self._look()

    def _look(self) -> None:
        self.seen = {agent: self.env.observe(agent) for agent in self.env.agents}

    def to_act(self) -> list[Any]:
        return [self.env.agent_selection] if self.env.agents else []

    def play(self, rows: Rows) -> list[str]:
        agent = self.env.agent_selection
        i = self.agents.index(agent)
        faults = []
        acts = [j for j in range(self.spec.n) if bool(rows.act[0, self.spec.act[j]].any())]
        if acts != [i]:
            faults.append(f"it is {agent}'s turn, and {[self.agents[j] for j in acts]} are asked")
        mask = self.mask(agent)
        choice = int(rows.act[0, self.spec.act[i]].argmax())
        if mask is not None and not mask[choice]:
            faults.append(f"{agent} chose {choice}, which is masked")
        _, reward, *_ = self.env.last(observe=False)
        self.totals[i] += float(reward)
        self.env.step(self.spec.to_env(rows.act[0].numpy())[str(agent)])
        self._look()
        faults += self.differing(rows.next_obs[0], "after a step")
        while self.env.agents and self._ended(self.env.agent_selection):
            last = self.env.agent_selection
            self.totals[self.agents.index(last)] += float(self.env.last(observe=False)[1])
            self.env.step(None)
        self.over = not self.env.agents
        if not self.over:
            self._look()
        return faults

    def _ended(self, agent: Any) -> bool:
        return bool(self.env.terminations[agent] or self.env.truncations[agent])


def main() -> None:
    """Check games by name, and print what differs.

    Raises:
        SystemExit: something does, or no name is like that.
    """
    parser = argparse.ArgumentParser(prog="python -m presage.envs.conformance", description=main.__doc__)
    parser.add_argument("matching", nargs="+", help="names of PettingZoo's games, with * for anything")
    parser.add_argument("--episodes", type=int, default=2)
    options = parser.parse_args()
    chosen = [name for name in names() if any(fnmatch.fnmatch(name, like) for like in options.matching)]
    failures = 0
    for name in chosen:
        game = make(name, 1)
        faults = check_conformance(partial(environment, name), game, options.episodes)
        game.close()
        failures += bool(faults)
        print(f"{name}: {'; '.join(faults[:3]) or 'as it is'}", flush=True)
    if failures or not chosen:
        raise SystemExit(f"{failures} of {len(chosen)} games differ")


if __name__ == "__main__":
    main()
