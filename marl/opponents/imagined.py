"""What models of the others are worth inside imagined branches, whose views are not those that they were fitted to.

At every depth of a branch, two questions. How far is what the models expect from what the others would do, at the views
that the branch has reached? And how far are these views from those that the real game would have reached: with the true
dynamics or learned ones, with the true opponents or their models, so that what is lost can be told apart?

Shape suffixes: B branches, H depth, N agents, O observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from presage.common.game import ALL_AGENTS, Actor, GameError, GameSpec, Kernel, View, Window
from presage.marl.opponents.predicted import Predicted

CELLS = {
    "true dynamics, models": (False, True), "learned dynamics, true opponents": (True, False),
    "learned dynamics, models": (True, True),
}  # fmt: skip
"""what is imagined with: whether the dynamics are learned, and whether models answer for the others"""
MOST_BRANCHES = 2_048
"""whose views are compared, all with all"""


class Tells(Actor, Protocol):
    """An actor without memory that tells its distributions at views: a model of one ego, or `policies.Stated`."""

    @property
    def spec(self) -> GameSpec:
        """The game."""
        ...

    def predicted(self, view: View) -> Predicted:
        """Of all agents at B views."""
        ...


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """Errors by depth; row 0 is the first imagined step, whose views are real."""

    divergence: Tensor
    """(H, N) mean Kullback-Leibler divergence of what the others play from what the models expect, in nats, at views of
    branches in the learned dynamics in which the models answer; NaN for the ego, and for who never acts there"""
    variation: Tensor
    """(H, N) mean total variation distance, likewise"""
    distances: dict[str, Tensor]
    """(H,) by `CELLS`: energy distance of the views behind each step from those that true dynamics and true opponents
    reach, in their standard deviations, without the bias of few branches, so that equal ones are around 0"""
    noise: Tensor
    """(H,) the same of a second draw with true dynamics and true opponents: what is there by chance"""

    def plot(self, names: Sequence[str]) -> Figure:
        """Both against depth; `names` (N) of the agents."""
        depth = torch.arange(1, len(self.noise) + 1)
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        of_models, of_views = figure.subplots(1, 2)
        for i, name in enumerate(names):
            if not bool(self.divergence[:, i].isnan().all()):
                of_models.plot(depth, self.divergence[:, i], marker=".", label=name)
        of_models.set(xlabel="imagined step", ylabel="divergence from the true policies, nats")
        for name, values in self.distances.items():
            of_views.plot(depth, values, marker=".", label=name)
        of_views.plot(depth, self.noise, color="0.6", linestyle=":", label="chance")
        of_views.set(xlabel="imagined step", ylabel="energy distance from real views")
        for axes in (of_models, of_views):
            axes.legend(frameon=False, fontsize=8)
            axes.grid(visible=True, alpha=0.25)
        return figure


@torch.no_grad()
def errors_in_branches(
    models: Tells, others: Tells, starts: Window, horizon: int, *, ego: str | int, policy: Actor, true: Kernel,
    learned: Kernel, rng: torch.Generator,
) -> Imagined:  # fmt: skip
    """Imagine from `starts` in all four ways, and compare.

    Branches go on behind an end of the game, which models of the others are not asked for; keep `horizon` below it.

    Args:
        models: the ego's models of all others. others: the policies that these truly play.
        starts: B windows that end at real views; at least 2.
        horizon: H, imagined steps; >= 1. ego: whose models these are, played by `policy`.
        true, learned: dynamics. rng: draws actions and outcomes, on the device of `starts`.

    Raises:
        GameError: fewer than two starts, a horizon below 1, or models of another game, or of several egos.
    """
    spec = others.spec
    place = spec.index(ego)
    if models.spec != spec:
        raise GameError(f"the models are of {models.spec.name!r} as it was, the others play {spec.name!r}")
    if len(getattr(models, "ego", (place,))) != 1:
        raise GameError("errors in branches are of one ego's models; make the bank with egos=(that one,)")
    if len(starts) < 2 or horizon < 1:
        raise GameError(f"{len(starts)} starts and horizon={horizon}: at least two branches of one step are needed")
    starts = starts[torch.arange(len(starts))[:MOST_BRANCHES]]
    seats = _Seats(spec, place, policy, starts)
    real, again = (seats.branch(true, others, horizon, rng) for _ in range(2))
    reached = {
        name: seats.branch(learned if learns else true, models if modelled else others, horizon, rng)
        for name, (learns, modelled) in CELLS.items()
    }
    asked = [starts.now, *reached["learned dynamics, models"][:-1]]
    errors: list[list[Tensor]] = [[], []]
    for view in asked:
        truth, told, acts = others.predicted(view), models.predicted(view), view.acting.double()
        for found, error in zip(errors, (truth.divergence(told, rng), truth.variation(told, rng)), strict=True):
            mean = (error.double() * acts).sum(0) / acts.sum(0)
            mean[place] = torch.nan
            found.append(mean)
    spread = torch.cat([view.obs for view in real]).std(0)
    scale = torch.where(spread > 0, spread, torch.ones_like(spread))

    def distances(views: Sequence[View]) -> Tensor:
        pairs = zip(real, views, strict=True)
        return torch.stack([energy_distance(one.obs / scale, two.obs / scale, paired=True) for one, two in pairs])

    return Imagined(
        divergence=torch.stack(errors[0]), variation=torch.stack(errors[1]), noise=distances(again),
        distances={name: distances(views) for name, views in reached.items()},
    )  # fmt: skip


def energy_distance(one: Tensor, two: Tensor, *, paired: bool = False) -> Tensor:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of the distributions behind samples `(B, O)` and `(B', O)`, estimated without
    bias (Székely, Rizzo 2013): 0 where they are equal, on average, and else above.

    Args:
        paired: samples of one row have something in common, such as where they began, and are not held against each
            other.

    Raises:
        GameError: fewer than two samples of either, or pairs of unequally many.
    """
    if min(len(one), len(two)) < 2 or (paired and len(one) != len(two)):
        raise GameError(
            f"an energy distance needs two samples of each, equally many in pairs, got {len(one)} and {len(two)}"
        )
    x, y = one.double(), two.double()

    def apart(a: Tensor, b: Tensor) -> Tensor:
        """The mean distance over different rows."""
        far = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return (far.sum() - far.diagonal().sum()) / (len(a) * (len(a) - 1))

    between = apart(x, y) if paired else torch.cdist(x, y).mean()
    return 2 * between - apart(x, x) - apart(y, y)


class _Seats:
    """Branches in which the ego is played by one actor, and everybody else by another."""

    def __init__(self, spec: GameSpec, ego: int, policy: Actor, starts: Window) -> None:
        self.policy, self.starts, self.own = policy, starts, spec.act[ego]

    def branch(self, kernel: Kernel, others: Actor, horizon: int, rng: torch.Generator) -> list[View]:
        """The views after each of the steps."""
        starts, found = self.starts, list[View]()
        everybody = torch.full((len(starts),), ALL_AGENTS, dtype=torch.int16, device=starts.obs.device)
        world = kernel.init(starts, everybody, rng)
        ego, rest, view = self.policy.init(starts), others.init(starts), starts.now
        for _ in range(horizon):
            ego, mine = self.policy.step(ego, view, rng)
            rest, act = others.step(rest, view, rng)
            act = act.clone()
            act[:, self.own] = mine[:, self.own]
            world, outcome = kernel.step(world, view, act, rng)
            view = outcome.after
            found.append(view)
        return found
