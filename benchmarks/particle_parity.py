"""Our batched particle games against mpe2, number by number, in double precision.

One step from 1,000 injected states of each scenario, half of them crowded; and whole episodes of 25 steps from 20
starts; discrete and continuous actions; observations, rewards, ends. What collect_treasure draws inside a step is
handed to mpe2. Over much longer runs contacts are chaotic: mpe2 then differs from itself, perturbed in the last digit.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.claims import Aim, imported, write
from presage.envs.particle import ParticleGame, Scenario
from presage.envs.particle.parity import SCENARIOS, Mpe2Game, joint_actions, mixed_states

STATES, EPISODES, STEPS = 1_000, 20, 25


def gap(found: Tensor, expected: np.ndarray) -> float:
    """The largest difference."""
    return float(np.abs(found.numpy() - expected).max(initial=0.0))


def one_step(scenario: Scenario, continuous: bool) -> tuple[float, int]:
    """The largest difference after one step from many states, and how many ends differ."""
    game = ParticleGame(scenario, STATES, dtype=torch.float64, continuous=continuous)
    game.reset(0)
    state = mixed_states(scenario, 1, STATES)
    view = game.place(state)
    chance = game.chance() if scenario.chances else [None] * STATES
    act = joint_actions(game.spec, 2, STATES)
    rows, _ = game.step(act)
    reference, worst, ends = Mpe2Game(scenario, continuous=continuous), 0.0, 0
    for row in range(STATES):
        reference.write(state, row)
        worst = max(worst, gap(view.obs[row], reference.observation()))
        seen, paid, terminated, _ = reference.step(game.spec, act[row], chance[row])
        worst = max(worst, gap(rows.next_obs[row], seen), gap(rows.reward[row], paid))
        ends += bool(rows.terminated[row, 0]) != terminated
    return worst, ends


def whole_episodes(scenario: Scenario, continuous: bool) -> tuple[float, int]:
    """The largest difference within whole episodes, and how many ends differ."""
    game = ParticleGame(scenario, EPISODES, dtype=torch.float64, continuous=continuous)
    game.reset(11)
    start, played = game.world_state(), []
    for t in range(STEPS):
        chance = game.chance() if scenario.chances else [None] * EPISODES
        act = joint_actions(game.spec, t, EPISODES)
        played.append((act, chance, game.step(act)[0]))
    reference, worst, ends = Mpe2Game(scenario, continuous=continuous), 0.0, 0
    for row in range(EPISODES):
        reference.write(start, row)
        for act, chance, rows in played:
            seen, paid, terminated, truncated = reference.step(game.spec, act[row], chance[row])
            worst = max(worst, gap(rows.next_obs[row], seen), gap(rows.reward[row], paid))
            ends += (bool(rows.terminated[row, 0]), bool(rows.truncated[row])) != (terminated, truncated)
            if terminated or truncated:
                break
    return worst, ends


def main() -> None:
    """Compare everything, and keep the largest differences."""
    steps: list[float] = []
    episodes: list[float] = []
    ends = 0
    for scenario in SCENARIOS:
        for continuous in (False, True):
            for measure, kept in ((one_step, steps), (whole_episodes, episodes)):
                worst, differing = measure(scenario, continuous)
                kept.append(worst)
                ends += differing
            kind = "continuous" if continuous else "discrete"
            print(f"{scenario}, {kind}: {steps[-1]:.1e}, {episodes[-1]:.1e}", flush=True)
    write(
        "particle_parity",
        figures={
            "scenarios": len({type(scenario) for scenario in SCENARIOS}), "variants": len(SCENARIOS),
            "max_one_step_difference": max(steps), "max_episode_difference": max(episodes), "ends_that_differ": ends,
        },
        aims={
            "scenarios": Aim(op=">=", value=12), "max_one_step_difference": Aim(op="<=", value=1e-12),
            "max_episode_difference": Aim(op="<=", value=1e-9), "ends_that_differ": Aim(op="<=", value=0),
        },
        depends=imported(),
        notes=f"{STATES} states and {EPISODES} episodes of {STEPS} steps for every variant and kind of action.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
