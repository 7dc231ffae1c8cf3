"""mbrl-lib's ensemble, timed on request; runs in mbrl-lib's environment, and imports nothing of presage.

It answers one line of JSON on stdin with one on stdout until stdin ends, so that the other side can take turns with it.
Requests have a "do" and its arguments:

- open (folder, obs, act): read `obs`, `act`, `next_obs`, `reward` and the `test_` ones from `folder`, as .npy.
- train (seed, out, epochs): train a new ensemble until the trainer's patience, or `epochs`, ends it. Every epoch's
  predictions of the test rows go to `out`, as `mean_EPOCH.npy` and `std_EPOCH.npy` (member, row, column), those of the
  weights that the trainer restores in the end as epoch -1; answers with the seconds from the start to every epoch's
  end, without these.
- steps (count): seconds of each of `count` gradient steps, the mini-batch's making included.
- imagine (rows, count): seconds of each of `count` imagined steps of `rows` branches that begin anew every time.
- act (count): seconds of each of `count` actions by the cross-entropy method.

Models and planner are as in mbrl-lib's own configuration (`examples/conf`): `dynamics_model/gaussian_mlp_ensemble`,
`algorithm/mbpo` with `overrides/mbpo_halfcheetah` for training and imagining, and `algorithm/pets` with
`overrides/pets_cartpole` for planning, but with the horizon of `overrides/pets_halfcheetah`.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from mbrl.models import GaussianMLP, ModelEnv, ModelTrainer, OneDTransitionRewardModel
from mbrl.planning import create_trajectory_optim_agent_for_model
from mbrl.util.common import get_basic_buffer_iterators
from mbrl.util.replay_buffer import ReplayBuffer
from omegaconf import OmegaConf

MEMBERS, ELITES, LAYERS, WIDTH = 7, 5, 4, 200
BATCH, LEARNING_RATE, WEIGHT_DECAY, VALIDATION, PATIENCE = 256, 1e-3, 1e-5, 0.2, 5
HORIZON, POPULATION, PARTICLES, ITERATIONS, ELITE_RATIO, ALPHA = 30, 350, 20, 5, 0.1, 0.1


class Spaces:
    """What a model environment asks of the real one."""

    def __init__(self, obs: int, act: int) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (act,), np.float32)


def no_termination(_act: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
    """Nothing ever ends: `(B, 1)` false."""
    return torch.zeros(len(next_obs), 1, dtype=torch.bool)


class Peer:
    """One data set and the ensemble that was last trained on it."""

    def __init__(self, folder: str, obs: int, act: int) -> None:
        self.obs, self.act_size = obs, act
        names = ("obs", "act", "next_obs", "reward", "test_obs", "test_act")
        self.data = {name: np.load(Path(folder, f"{name}.npy")) for name in names}
        self.model: Any = None
        self.trainer: Any = None
        self.batches: Any = None

    def build(self, seed: int) -> Any:
        """A new ensemble, its trainer and the data; returns the rows for validation."""
        torch.manual_seed(seed)
        columns = self.obs + 1
        network = GaussianMLP(
            self.obs + self.act_size, columns, "cpu", num_layers=LAYERS, ensemble_size=MEMBERS, hid_size=WIDTH,
            propagation_method="random_model", learn_logvar_bounds=False,
            activation_fn_cfg={"_target_": "torch.nn.SiLU"},
        )  # fmt: skip
        self.model = OneDTransitionRewardModel(
            network, target_is_delta=True, normalize=True, normalize_double_precision=True, learned_rewards=True,
            num_elites=ELITES,
        )  # fmt: skip
        self.trainer = ModelTrainer(self.model, optim_lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        size = len(self.data["obs"])
        buffer = ReplayBuffer(size, (self.obs,), (self.act_size,), rng=np.random.default_rng(seed))
        never = np.zeros(size, dtype=bool)
        buffer.add_batch(
            self.data["obs"], self.data["act"], self.data["next_obs"], self.data["reward"][:, 0], never, never
        )
        self.batches, held_out = get_basic_buffer_iterators(
            buffer, BATCH, VALIDATION, ensemble_size=MEMBERS, shuffle_each_epoch=True, bootstrap_permutes=False
        )
        self.model.update_normalizer(buffer.get_all())
        return held_out

    def train(self, seed: int, out: str, epochs: int | None) -> list[float]:
        """Train until the patience, or `epochs`, ends it; seconds to the end of every epoch."""
        start, paused, ends = time.perf_counter(), 0.0, []
        held_out = self.build(seed)

        def epoch_ends(_model: Any, _calls: int, epoch: int, *_rest: Any) -> None:
            nonlocal paused
            now = time.perf_counter()
            ends.append(now - start - paused)
            self.keep_predictions(out, epoch)
            paused += time.perf_counter() - now

        self.trainer.train(
            self.batches, held_out, num_epochs=epochs, patience=PATIENCE, callback=epoch_ends, silent=True
        )
        self.keep_predictions(out, -1)
        return ends

    @torch.no_grad()
    def keep_predictions(self, out: str, epoch: int) -> None:
        """Save every member's means and standard deviations of the test rows: the observation's change, the reward."""
        inputs = torch.from_numpy(np.concatenate([self.data["test_obs"], self.data["test_act"]], 1))
        normalised = self.model.input_normalizer.normalize(inputs).float()
        mean, log_variance = self.model.forward(normalised, use_propagation=False)
        np.save(Path(out, f"mean_{epoch}.npy"), mean.numpy())
        np.save(Path(out, f"std_{epoch}.npy"), (0.5 * log_variance).exp().numpy())

    def steps(self, count: int) -> list[float]:
        """Seconds of gradient steps."""
        endless: Iterator[Any] = itertools.chain.from_iterable(itertools.repeat(self.batches))
        next(endless)
        return [timed(lambda: self.model.update(next(endless), self.trainer.optimizer)) for _ in range(count)]

    def imagine(self, rows: int, count: int) -> list[float]:
        """Seconds of imagined steps, each from `rows` real rows, as MBPO's example starts its branches."""
        self.model.set_propagation_method("random_model")
        world = ModelEnv(Spaces(self.obs, self.act_size), self.model, no_termination, None, torch.Generator())
        index = np.arange(rows) % len(self.data["obs"])
        obs, act = self.data["obs"][index], self.data["act"][index]
        return [timed(lambda: world.step(act, world.reset(obs), sample=True)) for _ in range(count)]

    def act(self, count: int) -> list[float]:
        """Seconds of actions, each planned from another row."""
        self.model.set_propagation_method("fixed_model")
        world = ModelEnv(Spaces(self.obs, self.act_size), self.model, no_termination, None, torch.Generator())
        planner = OmegaConf.create(
            {
                "_target_": "mbrl.planning.TrajectoryOptimizerAgent",
                "_recursive_": False,  # as in the hydra it was written for: the planner is made by the agent
                "action_lb": [-1.0] * self.act_size, "action_ub": [1.0] * self.act_size,
                "planning_horizon": HORIZON, "replan_freq": 1, "verbose": False,
                "optimizer_cfg": {
                    "_target_": "mbrl.planning.CEMOptimizer", "num_iterations": ITERATIONS, "elite_ratio": ELITE_RATIO,
                    "population_size": POPULATION, "lower_bound": "???", "upper_bound": "???", "alpha": ALPHA,
                    "device": "cpu", "return_mean_elites": True, "clipped_normal": False,
                },
            }
        )  # fmt: skip
        agent = create_trajectory_optim_agent_for_model(world, planner, num_particles=PARTICLES)
        return [timed(lambda k=k: agent.act(self.data["obs"][k])) for k in range(count)]


def timed(call: Any) -> float:
    """Seconds of wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    torch.set_num_threads(parser.parse_args().threads)
    peer: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        answer: Any = None
        if do == "open":
            peer, answer = Peer(**request), {name: version(name) for name in ("mbrl", "torch")}
        else:
            answer = getattr(peer, do)(**request)
        print(json.dumps(answer), flush=True)
