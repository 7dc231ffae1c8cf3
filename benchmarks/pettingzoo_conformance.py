"""Whether PettingZoo's games keep their numbers through our adapters; and through tianshou's.

Ours: `presage.envs.conformance` on every mpe2 game, SISL, Butterfly (vectors), Classic (with masks) and multi-agent
MuJoCo. tianshou's `PettingZooEnv`, the usual way into a training library that we build on, is asked the same two
questions on cooperative navigation: do an agent's stored rewards add up to the environment's, and does an agent's next
observation belong to it?
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import mpe2.all_modules
import numpy as np
from mpe2 import simple_spread_v3
from tianshou.env.pettingzoo_env import PettingZooEnv

from benchmarks.claims import Aim, imported, write
from presage.envs.conformance import check_conformance
from presage.envs.registry import MAMUJOCO, make, make_mamujoco, make_pettingzoo

EPISODES = 3


def games() -> dict[str, tuple[Callable[[], Any], dict[str, Any]]]:
    """By name: what builds the environment, and its options."""
    found: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {}
    for name in sorted(mpe2.all_modules.mpe_environments):
        module = importlib.import_module(name.replace("mpe/", "mpe2."))
        found[name] = (module.parallel_env, {})
    zoo: list[tuple[str, str, dict[str, Any]]] = [
        ("sisl", "multiwalker_v9", {"max_cycles": 100}),
        ("sisl", "pursuit_v5", {"max_cycles": 50}),
        ("butterfly", "knights_archers_zombies_v11", {"max_cycles": 300, "spawn_delay": 2, "max_zombies": 40}),
        ("classic", "tictactoe_v3", {}),
        ("classic", "connect_four_v3", {}),
        ("classic", "leduc_holdem_v4", {}),
        ("classic", "rps_v2", {}),
    ]
    for family, game, options in zoo:
        found[f"{family}/{game}"] = (partial(make_pettingzoo, family, game, options), options)
    for body, confs in MAMUJOCO.items():
        options = {"max_episode_steps": 50}
        found[f"mamujoco/{body}-{confs[0]}"] = (partial(make_mamujoco, body, confs[0], options), options)
    return found


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
    for name, (make_env, options) in games().items():
        game = make(name, 1, **options)
        faults = check_conformance(make_env, game, EPISODES)
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
