"""What a learned model knows of a block that is pushed: FetchPush, by MapGo's own ensemble and the numbers of its fits.

A scripted pusher goes behind the block and on towards the goal, three of ten actions at random and noise on all, so
that many rows have the hand at the block. Judged on other episodes, by the mean over members, one env step ahead and
five, under the actions that were played:

* `block`: where it moved by more than 5 mm, how far off its place is, as a share of how far it moved (root mean
  squares). Who says that the block stays where it is has an error of 1.
* `still_mm`: how far it is made to move where it lay still.
* `hand`: the error of the hand's place as a share of its motion, everywhere.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.claims import imported, write
from presage.common.dynamics import DynamicsEnsemble
from presage.common.fit import EnsembleFitter
from presage.common.game import Rows, View
from presage.common.replay import Replay
from presage.envs.registry import make
from presage.scenarios.goal_models import fetch_push_mapgo

SEEDS, SIZES, COPIES, TEST_ROWS = (0, 1, 2), (5_000, 20_000, 80_000), 8, 8_000
STEPS = (1, 5)
"""looks ahead, in env steps"""
HAND, BLOCK = slice(0, 3), slice(3, 6)
"""of what is observed"""
RANDOM_SHARE, NOISE = 0.3, 0.2
MOVED, STILL = 5e-3, 5e-4
"""metres over all steps of a look ahead"""
FITS = 10
"""of as many gradient steps as one of MapGo's, on the same rows: training fits again and again"""


def pusher(obs: Tensor, goal: Tensor) -> Tensor:
    """Actions `(B, 4)`: above the point behind the block, down, and through the block towards the goal."""
    hand, block = obs[:, HAND], obs[:, BLOCK]
    way = torch.nn.functional.normalize(goal[:, :2] - block[:, :2], dim=1)
    behind = torch.cat([block[:, :2] - 0.07 * way, block[:, 2:]], 1)
    off = hand - behind
    aside = off[:, :2] - (off[:, :2] * way).sum(1, keepdim=True) * way
    ready = (aside.norm(dim=1) < 0.02) & (off[:, 2].abs() < 0.02) & ((off[:, :2] * way).sum(1) > -0.03)
    above = behind + torch.tensor([0.0, 0.0, 0.08])
    near = off[:, :2].norm(dim=1) < 0.02
    aim = torch.where(near[:, None], behind, above)
    aim = torch.where(ready[:, None], torch.cat([goal[:, :2], block[:, 2:]], 1), aim)
    move = ((aim - hand) / 0.05).clamp(-1, 1)
    return torch.cat([move, torch.zeros_like(move[:, :1])], 1)


def play(rows: int, seed: int) -> tuple[Rows, Tensor]:
    """At least so many rows, in whole episodes, ordered by time, then copy; and those from which an episode goes on for
    as long as is looked ahead.
    """
    game, rng = make("fetch/push", COPIES), torch.Generator().manual_seed(seed)
    spec = game.spec
    length = spec.episode_limit or 1
    steps = -(-rows // (COPIES * length)) * length
    replay, view = Replay(spec, steps * COPIES, COPIES), game.reset(seed)
    for _ in range(steps):
        wanted = pusher(view.obs, view.desired)
        act = (wanted + NOISE * torch.randn(wanted.shape, generator=rng)).clamp(-1, 1)
        chance = torch.rand(COPIES, 1, generator=rng) < RANDOM_SHARE
        act = torch.where(chance, spec.random_action(view.acting, view.legal, rng), act)
        played, view = game.step(act)
        replay.extend(played)
    game.close()
    found = replay.rows(replay.complete()[0])
    return found, (found.step <= length - max(STEPS)).nonzero().squeeze(1)


def errors(ensemble: DynamicsEnsemble, rows: Rows, starts: Tensor) -> dict[str, float]:
    """What is off after each of the looks ahead."""
    found, first = dict[str, float](), rows[starts]
    obs = first.obs
    for step in range(max(STEPS)):
        now = rows[starts + step * COPIES]
        obs = ensemble.predict(View.of(ensemble.spec, obs, desired=now.desired), now.act).mean.mean(0)
        if step + 1 not in STEPS:
            continue
        moved, told = now.next_obs - first.obs, obs - first.obs
        distance = moved[:, BLOCK].norm(dim=1)
        pushed, still = distance > MOVED, distance < STILL
        found |= {
            f"block_{step + 1}": _share(told[pushed, BLOCK], moved[pushed, BLOCK]),
            f"block_mm_{step + 1}": 1e3 * _size(told[pushed, BLOCK] - moved[pushed, BLOCK]),
            f"still_mm_{step + 1}": 1e3 * _size(told[still, BLOCK]),
            f"hand_{step + 1}": _share(told[:, HAND], moved[:, HAND]),
        }
    return found


def pushed_shares(rows: Rows, starts: Tensor) -> dict[str, float]:
    """How often the block is moved within each of the looks ahead."""
    moved = {step: rows[starts + (step - 1) * COPIES].next_obs - rows[starts].obs for step in STEPS}
    return {
        f"pushed_share_{step}": float((way[:, BLOCK].norm(dim=1) > MOVED).double().mean())
        for step, way in moved.items()
    }


def _size(x: Tensor) -> float:
    return float(x.double().square().sum(1).mean().sqrt())


def _share(told: Tensor, true: Tensor) -> float:
    return _size(told - true) / _size(true)


def main() -> None:
    """Fit at every size and keep means and extremes over the seeds."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args()
    torch.set_num_threads(1)
    method, found = fetch_push_mapgo(), defaultdict[str, list[float]](list)
    fit, spec = replace(method.fit, max_updates=FITS * method.fit.max_updates), make("fetch/push", 1).spec
    for seed in SEEDS:
        rows, _ = play(SIZES[-1], seed)
        test, starts = play(TEST_ROWS, 1_000 + seed)
        for name, value in pushed_shares(test, starts).items():
            found[name].append(value)
        for size in SIZES:
            init_rng, rng = (torch.Generator().manual_seed(seed) for _ in range(2))
            ensemble = DynamicsEnsemble(spec, method.ensemble, init_rng)
            EnsembleFitter(ensemble, fit, rng).fit(rows[torch.arange(size)], rng, lanes=COPIES)
            off = errors(ensemble, test, starts)
            for name, value in off.items():
                found[f"{name}_{size}"].append(value)
            print(f"seed {seed}, {size} rows: " + ", ".join(f"{k} {v:.3g}" for k, v in off.items()), flush=True)
    figures: dict[str, float] = {}
    for name, values in found.items():
        figures |= {name: float(np.mean(values)), f"{name}_low": min(values), f"{name}_high": max(values)}
    path = write(
        "push_model", figures=figures, aims={}, seeds=list(SEEDS), depends=imported(),
        notes="`x_k_n`: k env steps ahead, fitted to n rows; pushed_share_k: of moments after whose k env steps the "
        "block has moved. block, hand: root mean square error over root mean square motion, of the block where it "
        "moved by more than 5 mm; block_mm: that error; still_mm: motion foreseen of a block that moved by less than "
        "0.5 mm. Means over seeds, low and high are their extremes; one thread",
    )  # fmt: skip
    print(path.read_text())


if __name__ == "__main__":
    main()
