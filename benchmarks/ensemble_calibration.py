"""How well ensembles know known systems: means and noise of a linear one, noise that differs between two regions,
whether stated uncertainty covers what happens, and whether members disagree more where they have seen nothing.

Every system is fitted from 6,000 random rows with the suite's own defaults, but that members are compared by
likelihood, and judged on 5,000 fresh rows, over three seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.claims import Aim, imported, write
from presage.common.dynamics import DynamicsEnsemble, EnsembleConfig
from presage.common.fit import EnsembleFitter, FitConfig
from presage.common.game import AgentSpec, GameSpec, Head, Rows, View
from presage.common.model_report import calibration_error, coverage, one_step

ROWS, FRESH, SEEDS = 6_000, 5_000, (0, 1, 2)
FIT = FitConfig(score="likelihood")


@dataclass(frozen=True)
class System:
    """A law of one agent: the mean of the next observation, and the standard deviation of its noise."""

    obs: int
    act: int
    mean: Callable[[Tensor, Tensor], Tensor]
    """(obs (B, O), act (B, A)) -> (B, O)"""
    noise: Callable[[Tensor, Tensor], Tensor]
    """likewise"""

    @property
    def spec(self) -> GameSpec:
        """The game's contract: everything is seen, and actions are boxes."""
        agent = AgentSpec(
            name="agent", obs=tuple(range(self.obs)), heads=(Head(kind="box", size=self.act),),
            low=(-1.0,) * self.act, high=(1.0,) * self.act, shape=(self.act,),
        )  # fmt: skip
        return GameSpec(name="system", agents=(agent,), obs_dim=self.obs)

    def rows(self, size: int, rng: torch.Generator, low: float = -1.0, high: float = 1.0) -> Rows:
        """Independent rows from observations uniform in [low, high] and actions uniform in [-1, 1]; nothing is paid."""
        obs = low + (high - low) * torch.rand(size, self.obs, generator=rng)
        act = 2 * torch.rand(size, self.act, generator=rng) - 1
        after = self.mean(obs, act) + self.noise(obs, act) * torch.randn(size, self.obs, generator=rng)
        never = torch.zeros(size, 1, dtype=torch.bool)
        view, next_view = View.of(self.spec, obs), View.of(self.spec, after)
        paid, step = torch.zeros(size, 1), torch.zeros(size)
        return Rows.of(self.spec, view, act, paid, next_view, never, never[:, 0], step)


DRIFT = torch.tensor([[0.9, 0.2, 0.0], [-0.1, 0.95, 0.1], [0.0, -0.2, 0.8]])
PUSH = torch.tensor([[0.0, 0.5], [0.3, 0.0], [0.1, 0.2]])


def turned(obs: Tensor, act: Tensor) -> Tensor:
    """A smooth system that no linear map comes near."""
    x, y = obs[:, :1], obs[:, 1:]
    return torch.cat([x + 0.3 * (3 * y).sin() * (1 + act), y + 0.3 * (3 * x).cos() + 0.2 * act * x], 1)


def constant(std: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Noise that is everywhere the same."""
    return lambda obs, act: torch.full_like(obs, std)


SYSTEMS = {
    "linear": System(3, 2, lambda obs, act: obs @ DRIFT.T + act @ PUSH.T, constant(0.1)),
    "two_regions": System(
        1, 1, lambda obs, act: 0.9 * obs + 0.5 * act, lambda obs, act: torch.where(obs > 0, 0.5, 0.05)
    ),
    "turned": System(2, 1, turned, lambda obs, act: 0.05 + 0.1 * obs.abs()),
}


def judged(name: str, seed: int) -> dict[str, float]:
    """One system, one seed."""
    system, rng = SYSTEMS[name], torch.Generator().manual_seed(seed)
    ensemble = DynamicsEnsemble(system.spec, EnsembleConfig(), rng)
    rows, fresh = system.rows(ROWS, rng), system.rows(FRESH, rng)
    EnsembleFitter(ensemble, FIT, rng).fit(rows, rng)
    answers = one_step(ensemble, fresh)["obs"]
    mean, noise = system.mean(fresh.obs, fresh.act), system.noise(fresh.obs, fresh.act)
    off = (answers.mean.mean(0) - mean).abs() / mean.std(0)
    stated = answers.std.square().mean(0).sqrt()
    found = {
        "mean_error": float(off.mean()), "mean_error_largest": float(off.max()),
        "noise_error": float((stated / noise - 1).abs().mean()),
        "calibration_error": calibration_error(coverage(answers)),
    }  # fmt: skip
    if name == "two_regions":
        for region, where in (("quiet", fresh.obs[:, 0] < -0.1), ("loud", fresh.obs[:, 0] > 0.1)):
            found[f"{region}_noise"] = float(stated[where].mean())
    away = system.rows(FRESH, rng, 1.5, 2.0)
    near, far = (ensemble.disagreement(part.view, part.act).mean() for part in (fresh, away))
    return found | {"disagreement_off_over_on": float(far / near)}


def main() -> None:
    """Judge every system, and keep the worst over systems of what has an aim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name in SYSTEMS:
        seeds = [judged(name, seed) for seed in SEEDS]
        for figure in seeds[0]:
            values = [found[figure] for found in seeds]
            figures[f"{name}_{figure}"] = sum(values) / len(values)
            figures[f"{name}_{figure}_low"], figures[f"{name}_{figure}_high"] = min(values), max(values)
        print(name, {key: round(value, 4) for key, value in figures.items() if key.startswith(name)}, flush=True)
    worst = max(figures[f"{name}_calibration_error_high"] for name in SYSTEMS)
    least = min(figures[f"{name}_disagreement_off_over_on_low"] for name in SYSTEMS)
    figures |= {"calibration_error": worst, "disagreement_off_over_on": least}
    write(
        "ensemble_calibration", figures=figures, seeds=SEEDS, depends=imported(),
        aims={
            "calibration_error": Aim(op="<=", value=0.05), "linear_mean_error": Aim(op="<=", value=0.01),
            "linear_noise_error": Aim(op="<=", value=0.1), "disagreement_off_over_on": Aim(op=">=", value=1.0),
        },
        notes=f"{ROWS} rows; low and high are the extremes over seeds; calibration_error is the largest and "
        "disagreement_off_over_on the least over systems and seeds; errors of means in their standard deviations.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
