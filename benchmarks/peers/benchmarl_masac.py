"""BenchMARL's MASAC on three-agent `simple_spread_v3`, as its authors ship it or with the numbers that it is handed.

It runs in the environment that `make peers` builds, at the checkout's root, and knows nothing of presage:

    .peers/benchmarl/bin/python benchmarks/peers/benchmarl_masac.py train --seed 0 --steps 20000 --out curve.json
    .peers/benchmarl/bin/python benchmarks/peers/benchmarl_masac.py play --episodes episodes.json --out returns.json

Shipped numbers (`benchmarl/conf`) hold unless `--changes` names others: a JSON object of the objects `experiment`,
`algorithm` and `model`, with BenchMARL's names of their fields. Three things are never as shipped:

- The copies of the game that are played side by side get seeds of their own. BenchMARL hands all of them the run's
  seed, so that they would start from the same states, and evaluations from the same ones as training.
- Nothing is updated on the random frames of the warm-up, where there are any: as in the learner on the other side.
- Episodes have 25 steps, the game's own default.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarl.algorithms import MasacConfig
from benchmarl.environments import PettingZooTask
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from tensordict import TensorDict

GAME = {"task": "simple_spread_v3", "N": 3, "local_ratio": 0.5, "max_cycles": 25}
PACKAGES = ("benchmarl", "gymnasium", "numpy", "pettingzoo", "tensordict", "torch", "torchrl")
GROUP = "agent"
"""what BenchMARL calls the group of all three agents"""


class Spread(PettingZooClass):
    """The game; every copy that is made draws its episodes from a seed of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__(name=PettingZooTask.SIMPLE_SPREAD.name, config=GAME)
        self.seeds = np.random.SeedSequence(seed)

    def get_env_fun(self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any) -> Callable[[], Any]:
        def make() -> Any:
            own = int(self.seeds.spawn(1)[0].generate_state(1)[0])
            return super(Spread, self).get_env_fun(num_envs, continuous_actions, own, device)()

        return make


class WarmedUp(Experiment):
    """BenchMARL's training loop, which counts updates and makes none on the random frames at the start."""

    updates = 0

    def _optimizer_loop(self, group: str) -> Any:
        if self.total_frames < self.config.off_policy_init_random_frames:
            return TensorDict({})
        self.updates += 1
        return super()._optimizer_loop(group)


class Returns(Callback):
    """The return of every evaluation: summed over an episode, averaged over agents and episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.env_steps: list[int] = []
        self.returns: list[float] = []

    def on_batch_collected(self, batch: Any) -> None:
        torch.set_num_threads(1)  # torchrl takes all cores when collection begins, which is slower where others work

    def on_evaluation_end(self, rollouts: list[Any]) -> None:
        self.env_steps.append(self.experiment.total_frames)
        self.returns.append(round(float(np.mean([episode_return(episode) for episode in rollouts])), 4))


def episode_return(episode: Any) -> float:
    """The sum over steps of the mean over agents of `episode`'s rewards `(T, N, 1)`."""
    return float(episode["next", GROUP, "reward"].mean((1, 2)).sum())


def configured(config: Any, changes: dict[str, Any]) -> Any:
    """A BenchMARL configuration with some of its fields changed.

    Raises:
        AttributeError: for a field that the configuration does not have.
    """
    for name, value in changes.items():
        if not hasattr(config, name):
            raise AttributeError(f"{type(config).__name__} has no field {name!r}")
        setattr(config, name, getattr(torch.nn, value) if name == "activation_class" else value)
    return config


def train(
    seed: int, steps: int, evaluate_every: int, episodes: int, changes: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """One run.

    Args:
        seed: of weights, actions and episodes. steps: env steps; rounded up to whole iterations of BenchMARL's.
        evaluate_every: env steps between two evaluations, which come after whole iterations alone: rounded up.
        episodes: of an evaluation. changes: by configuration and field, what is not as shipped.
    """
    experiment_config = configured(ExperimentConfig.get_from_yaml(), changes.get("experiment", {}))
    frames = experiment_config.off_policy_collected_frames_per_batch
    returns = Returns()
    with tempfile.TemporaryDirectory() as folder:
        own = {
            "sampling_device": "cpu", "train_device": "cpu", "buffer_device": "cpu", "save_folder": folder,
            "prefer_continuous_actions": False, "max_n_frames": -(-steps // frames) * frames, "render": False,
            "evaluation_interval": -(-evaluate_every // frames) * frames, "evaluation_episodes": episodes,
            "loggers": [],
        }  # fmt: skip
        experiment = WarmedUp(
            task=Spread(seed), seed=seed, config=configured(experiment_config, own), callbacks=[returns],
            algorithm_config=configured(MasacConfig.get_from_yaml(), changes.get("algorithm", {})),
            model_config=configured(MlpConfig.get_from_yaml(), changes.get("model", {})),
            critic_model_config=configured(MlpConfig.get_from_yaml(), changes.get("model", {})),
        )  # fmt: skip
        started = time.perf_counter()
        experiment.run()
        seconds = round(time.perf_counter() - started, 1)
    return {"env_steps": returns.env_steps, "returns": returns.returns, "updates": experiment.updates,
            "seconds": seconds, "versions": {name: metadata.version(name) for name in PACKAGES}}  # fmt: skip


def play(seeds: list[int], actions: list[list[list[int]]]) -> list[float]:
    """The return of an episode per seed, in the environment that training sees, under the actions `(T, N)` given."""
    env = PettingZooClass(name=PettingZooTask.SIMPLE_SPREAD.name, config=GAME).get_env_fun(1, False, 0, "cpu")()
    found = []
    for seed, moves in zip(seeds, actions, strict=True):
        state, total = env.reset(seed=seed), 0.0
        for move in moves:
            state[GROUP, "action"] = torch.tensor(move)
            done = env.step(state)["next"]
            total += float(done[GROUP, "reward"].mean())
            state = done
        if not bool(done["done"]):
            raise ValueError(f"an episode goes on after the {len(moves)} actions that were given for it")
        found.append(total)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="one run; writes its curve")
    training.add_argument("--seed", type=int, default=0, help="of weights, actions and episodes")
    training.add_argument("--steps", type=int, default=20_000, help="env steps")
    training.add_argument("--evaluate-every", type=int, default=1_000, help="env steps between two evaluations")
    training.add_argument("--episodes", type=int, default=64, help="of an evaluation")
    training.add_argument("--changes", type=json.loads, default={}, help="what is not as shipped, as JSON")
    playing = commands.add_parser("play", help="given episodes; writes their returns")
    playing.add_argument("--episodes", type=Path, required=True, help="JSON: seeds, and actions (episode, step, agent)")
    for command in (training, playing):
        command.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # one of them per iteration says that no episode ended in it
    torch.set_num_threads(1)
    found: Any
    if options.command == "train":
        found = train(options.seed, options.steps, options.evaluate_every, options.episodes, options.changes)
    else:
        found = play(**json.loads(options.episodes.read_text(encoding="utf-8")))
    options.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
