"""Steps of VMAS's own copies of three particle games per CPU-second; runs in VMAS's environment, and imports nothing of
presage.

Everything that a step gives counts: observations, rewards and ends; copies whose 25 steps are over begin again, all at
once, as its authors recommend for games of fixed length. Actions are drawn beforehand.
"""

import argparse
import json
import time
from importlib.metadata import version

import torch
import vmas

STEPS_OF_AN_EPISODE = 25


def steps_per_cpu_second(scenario: str, copies: int, seconds: float) -> float:
    """Env steps, over all copies, per second of CPU time."""
    env = vmas.make_env(scenario=scenario, num_envs=copies, device="cpu", continuous_actions=False, seed=0)
    env.reset()
    actions = [[torch.randint(0, 5, (copies,)) for _ in env.agents] for _ in range(STEPS_OF_AN_EPISODE)]
    if scenario == "simple_speaker_listener":  # the speaker chooses a word, the listener a move
        for act in actions:
            act[0] %= 3
    best = 0.0
    for _ in range(3):
        steps, start = 0, time.process_time()
        while time.process_time() - start < seconds:
            for act in actions:
                env.step(act)
            env.reset()
            steps += STEPS_OF_AN_EPISODE * copies
        best = max(best, steps / (time.process_time() - start))
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenarios", nargs="+", required=True)
    parser.add_argument("--copies", nargs="+", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="of CPU time for each of three repetitions")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {
        f"{scenario}/{copies}": steps_per_cpu_second(scenario, copies, options.seconds)
        for scenario in options.scenarios
        for copies in options.copies
    }
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump({"speeds": found, "versions": {name: version(name) for name in ("vmas", "torch")}}, file)
