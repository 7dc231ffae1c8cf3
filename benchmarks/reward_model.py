"""What a learned model knows of spread in layouts that it has not seen, by what its networks read and share.

Cooperative navigation draws its landmarks anew for every episode of 25 steps, so that a few thousand rows are few
layouts. Half of the rows are played at random, half by the scripted controller with 70 % random actions. On 5,000 rows
of other episodes, by the mean over members: the share of the variance of rewards that is explained, and (`_off`) how
far off the next observation is, in standard deviations of its change.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.claims import imported, write
from presage.common.dynamics import DynamicsEnsemble
from presage.common.fit import EnsembleFitter
from presage.common.game import Rows
from presage.common.replay import Replay
from presage.envs.particle import GreedySpread, ParticleGame, Spread
from presage.scenarios.particle_models import aorpo

SEEDS, SIZES, COPIES, TEST_ROWS, RANDOM_SHARE = (0, 1, 2), (1_500, 3_000, 6_000), 20, 5_000, 0.7
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "coordinates": ({"reward_input": "transition", "geometry": False}, {"renamings": 0}),
    "lengths_beside": ({"reward_input": "transition"}, {"renamings": 0}),
    "group_lasso": ({"reward_input": "transition"}, {"renamings": 0, "input_penalty": 0.01}),
    "lengths_alone": ({"reward_input": "lengths"}, {"renamings": 0}),
    "renamed": ({"reward_input": "transition"}, {}),
    "lengths_alone_renamed": ({"reward_input": "lengths"}, {}),
    "in_order": ({"reward_input": "transition", "canonical_order": True}, {}),
    "shared_renamed": ({"reward_input": "transition", "shared_heads": True}, {}),
    "shared_in_order": ({"reward_input": "transition", "shared_heads": True, "canonical_order": True}, {}),
}
"""what the ensemble reads rewards from, and how it is fitted, beside the scenarios' other numbers"""


def play(rows: int, seed: int) -> Rows:
    """`rows` of spread, half of them at random."""
    game, rng = ParticleGame(Spread(), COPIES), torch.Generator().manual_seed(seed)
    spec, controller = game.spec, GreedySpread(Spread())
    replay, view = Replay(spec, rows, COPIES), game.reset(seed)
    for step in range(rows // COPIES):
        act = spec.random_action(view.acting, view.legal, rng)
        if step >= rows // COPIES // 2:
            lazy = torch.rand(COPIES, spec.n, generator=rng) < RANDOM_SHARE
            act = torch.where(lazy.repeat_interleave(5, 1), act, controller.step(None, view, rng)[1])
        played, view = game.step(act)
        replay.extend(played)
    return replay.rows(replay.complete()[0])


def knowledge(variant: str, size: int, seed: int) -> tuple[float, float]:
    """What one fit knows of other episodes: explained share of the rewards' variance, and how far off changes are."""
    method = aorpo()
    of_ensemble, of_fit = VARIANTS[variant]
    game = ParticleGame(Spread(), COPIES)
    ensemble = DynamicsEnsemble(game.spec, replace(method.ensemble, **of_ensemble), torch.Generator().manual_seed(seed))
    rng = torch.Generator().manual_seed(seed)
    EnsembleFitter(ensemble, replace(method.fit, **of_fit), rng).fit(play(size, seed), rng, lanes=COPIES)
    test = play(TEST_ROWS, 1_000 + seed)
    found = ensemble.predict(test.view, test.act)
    missed = (found.reward_mean.mean(0) - test.reward).square().mean(0) / test.reward.var(0)
    change = (test.next_obs - test.obs).std(0)
    off = (found.mean.mean(0) - test.next_obs)[:, change > 0] / change[change > 0]
    return float(1 - missed.mean()), float(off.square().mean().sqrt())


def main() -> None:
    """Fit every variant at every size and keep means and extremes over the seeds."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for size in SIZES:
        for variant in VARIANTS:
            both = np.array([knowledge(variant, size, seed) for seed in SEEDS])
            for name, found in zip((f"{variant}_{size}", f"{variant}_{size}_off"), both.T, strict=True):
                extremes = {f"{name}_low": float(found.min()), f"{name}_high": float(found.max())}
                figures |= {name: float(found.mean()), **extremes}
                print(f"{name}: {found.mean():.3f}", flush=True)
    path = write(
        "reward_model", figures=figures, aims={}, seeds=list(SEEDS),
        depends=imported(),
        notes="explained variance of rewards, and (off) root mean square error of the next observation in standard "
        "deviations of its change; means over seeds, low and high are their extremes; one thread",
    )  # fmt: skip
    print(path.read_text())


if __name__ == "__main__":
    main()
