"""Whether PettingZoo's games keep their numbers through our adapters; and through tianshou's.

Ours: `presage.envs.conformance` on every mpe2 game, SISL, Butterfly (vectors), Classic (with masks) and multi-agent
MuJoCo. tianshou's `PettingZooEnv`, the usual way into a training library that we build on, is asked the same two
questions on cooperative navigation: do an agent's stored rewards add up to the environment's, and does an agent's next
observation belong to it?
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from mpe2 import simple_spread_v3
from tianshou.env.pettingzoo_env import PettingZooEnv

from benchmarks.claims import Aim, imported, write
from presage.envs.conformance import check_conformance
from presage.envs.registry import MAMUJOCO, environment, make, names

EPISODES = 3


def games() -> dict[str, dict[str, Any]]:
    """Names, and options under which episodes are short and agents die."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names() if name.startswith("mpe/")}
    found |= {
        "sisl/multiwalker": {"max_cycles": 100}, "sisl/pursuit": {"max_cycles": 50},
        "butterfly/knights_archers_zombies": {"max_cycles": 300, "spawn_delay": 2, "max_zombies": 40},
        "classic/tictactoe": {}, "classic/connect_four": {}, "classic/leduc_holdem": {}, "classic/rps": {},
    }  # fmt: skip
    return found | {f"mamujoco/{body}-{parts[0]}": {"max_episode_steps": 50} for body, parts in MAMUJOCO.items()}


def tianshous_faults(steps: int = 24) -> tuple[int, int]:
    """Of `steps` times three agents, how many stored rewards, and how many next observations, are not the agent's."""
    wrapped, plain = PettingZooEnv(simple_spread_v3.env()), simple_spread_v3.parallel_env()
    wrapped.reset(seed=0)
    observations, _ = plain.reset(seed=0)
    rng = np.random.default_rng(0)
    rewards = following = 0
    agents = plain.possible_agents
    for _ in range(steps):
        actions = {agent: int(rng.integers(5)) for agent in agents}
        observations, paid, _, _, _ = plain.step(actions)
        for i, agent in enumerate(agents):
            seen, stored, *_ = wrapped.step(actions[agent])
            rewards += not np.isclose(stored[i], paid[agent])
            following += seen["agent_id"] != agent or not np.allclose(seen["obs"], observations[agent])
    return rewards, following


if __name__ == "__main__":
    failures = 0
    for name, options in games().items():
        game = make(name, 1, **options)
        faults = check_conformance(partial(environment, name, **options), game, EPISODES)
        failures += bool(faults)
        print(f"{name}: {'as it is' if not faults else '; '.join(faults[:3])}", flush=True)
        game.close()
    wrong_rewards, wrong_observations = tianshous_faults()
    write(
        "pettingzoo_conformance",
        figures={
            "games": len(games()), "failures": failures, "tianshou_wrong_rewards_of_72": wrong_rewards,
            "tianshou_wrong_next_observations_of_72": wrong_observations,
        },
        aims={"games": Aim(op=">=", value=20), "failures": Aim(op="<=", value=0)},
        depends=imported(), seeds=[0],
        notes=f"{EPISODES} episodes of random legal actions each. tianshou: PettingZooEnv over simple_spread_v3, "
        "24 steps of 3 agents: what an agent's own step stores, against PettingZoo's parallel environment.",
    )  # fmt: skip
