"""Opponents out of training runs, at every level that the runs have kept a checkpoint of.

A run keeps as many checkpoints as its scenario says: `presage train spread_masac --keep-checkpoints 8 ...`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from presage.common import atomic_folder, checkpoint
from presage.common.game import Actor, GameError, GameSpec
from presage.common.parts import build
from presage.common.policy import JointPolicy
from presage.common.run_folder import KIND, VERSION, RunError, RunFolder
from presage.common.streams import streams
from presage.marl.opponents.policies import learned
from presage.marl.opponents.pools import Opponent, Pool


def levels(
    runs: Sequence[Path | str], *, method: type[Any] | None = None, device: torch.device | str = "cpu"
) -> Pool:  # fmt: skip
    """The policies of runs on one game, from the least to the most trained of each.

    Opponents are called `<run> at <env steps>`; those of one run are a family, which `Pool.split` keeps together.
    Policies of `JointPolicy`'s kind state their distributions (`presage.marl.opponents.policies.Stated`).

    Args:
        runs: their folders, of different names. method: the class of their method, where that has no installed name.
        device: where the opponents act.

    Raises:
        RunError, ConfigError, CheckpointError: there is no run, or it has no checkpoint yet, or a damaged one.
        GameError: the runs are of different games, or of one name, or there are none.
    """
    found: list[Opponent] = []
    specs: list[GameSpec] = []
    for path in runs:
        run = RunFolder(path)
        scenario, name = run.scenario(method), run.path.resolve().name
        steps = sorted(name for name in atomic_folder.names(run.checkpoints) if name.startswith("step_"))
        if not steps:
            raise RunError(f"{run.path} has no checkpoint yet; train it on with: presage resume {run.path}")
        for step in steps:
            tree = checkpoint.load(run.checkpoints / step, kind=KIND, version=VERSION)
            spec = GameSpec.from_json(tree["spec"])
            place = torch.device(device)
            trainee = build(scenario, spec, streams(scenario.seed, place), place)
            trainee.policy.load_state_dict(tree["policy"])
            actor: Actor = learned(trainee.policy) if isinstance(trainee.policy, JointPolicy) else trainee.actor
            found.append(Opponent(name=f"{name} at {int(tree['env_steps']):,}", actor=actor, family=name))
            specs.append(spec)
    if any(spec != specs[0] for spec in specs):
        raise GameError(
            f"the runs are of different games, or of one with different options: "
            f"{', '.join(sorted({spec.name for spec in specs}))}; make a pool for each"
        )
    if not specs:
        raise GameError("there are no runs to take opponents from; name the folder of one")
    return Pool(specs[0], found)
