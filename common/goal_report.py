"""Where a run's goals lay: what its episodes pursued, what they achieved, and which pursuits were successful.

Shape suffixes: B rows, M episodes, G goal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from presage.common.episodic_replay import EpisodicReplay
from presage.common.game import GoalRule

GOALS_FILE = "goals.json"
"""the numbers, in a run folder's `report/`"""
CELLS = 20
"""of a heat map, along each axis"""


@dataclass(frozen=True, kw_only=True)
class GoalReport:
    """What was pursued and achieved in the newest rows of a run; entropies are in nats, of cells of equal size."""

    pursuits: int
    """episodes that are over, or as far as they have come"""
    reached_share: float
    """of them, where all agents' goals were reached at some step"""
    pursued_entropy: float
    """of the first two entries of the goals that were pursued"""
    achieved_entropy: float
    """likewise of what was achieved, row by row"""

    def to_plain(self) -> dict[str, float]:
        """As JSON has it."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class GoalPoints:
    """The goals themselves."""

    pursued: Tensor
    """(M, G) one for each episode"""
    reached: Tensor
    """(M,) bool: at some step"""
    achieved: Tensor
    """(B, G) after every step"""

    @classmethod
    def of(cls, replay: EpisodicReplay, rule: GoalRule, newest: int = 200_000) -> GoalPoints:
        """Those of the newest rows; of an episode whose first rows are not among them, the rest counts alone."""
        index = replay.latest(newest)
        lane = index // replay.slots
        order = lane.argsort(stable=True)  # one lane after the other, each by time
        rows, lane = replay.rows(index[order]), lane[order]
        begins = rows.step == 0
        begins[0] = True
        begins[1:] |= lane[1:] != lane[:-1]
        episode = begins.long().cumsum(0) - 1
        hit = rule.success(rows.next_achieved, rows.desired).all(1)
        count = torch.zeros(int(episode[-1]) + 1, dtype=torch.long, device=hit.device).index_add(0, episode, hit.long())
        return cls(pursued=rows.desired[begins], reached=count > 0, achieved=rows.next_achieved)

    def report(self) -> GoalReport:
        """The numbers."""
        axes = self.axes()
        pursued, achieved = (_heat(points, axes) for points in (self.pursued, self.achieved))
        return GoalReport(
            pursuits=len(self.pursued), reached_share=float(self.reached.double().mean()),
            pursued_entropy=entropy(pursued), achieved_entropy=entropy(achieved),
        )  # fmt: skip

    def axes(self) -> list[NDArray[np.float64]]:
        """Edges of the cells along the first two entries of a goal; of a goal with one, along that."""
        every = torch.cat([self.pursued, self.achieved])[:, :2].double().cpu().numpy()
        return [np.linspace(low, high if high > low else low + 1.0, CELLS + 1)
                for low, high in zip(every.min(0), every.max(0), strict=True)]  # fmt: skip


def entropy(counts: NDArray[np.float64]) -> float:
    """Of the shares of `counts`, in nats."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum()) + 0.0


def plot_goals(points: GoalPoints, path: Path) -> None:
    """Three heat maps over the first two entries of a goal as a PNG, of one entry alone three histograms: how often was
    each pursued, how often achieved, and what share of its pursuits was successful.
    """
    axes = points.axes()
    pursued, reached, achieved = (
        _heat(part, axes) for part in (points.pursued, points.pursued[points.reached], points.achieved)
    )
    solved = np.divide(reached, pursued, out=np.full_like(pursued, math.nan), where=pursued > 0)
    figure = Figure(figsize=(11.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, 3)
    for panel, counts, title in zip(
        panels, (pursued, achieved, solved), ("pursued", "achieved", "reached, share of pursuits"), strict=True
    ):
        if len(axes) == 1:
            panel.stairs(np.nan_to_num(counts), axes[0], fill=True, color="#0072B2")
            panel.set(xlabel="goal[0]", ylabel="share" if counts is solved else "count")
            panel.spines[["top", "right"]].set_visible(False)
        else:
            most = 1.0 if counts is solved else None
            shown = counts if counts is solved else np.where(counts > 0, counts, math.nan)
            image = panel.pcolormesh(*axes, shown.T, cmap="viridis", vmin=0.0, vmax=most)
            figure.colorbar(image, ax=panel)
            panel.set(xlabel="goal[0]", ylabel="goal[1]", facecolor="0.95")
        panel.set_title(title)
    figure.savefig(path, dpi=150)


def _heat(points: Tensor, axes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """How many of `points (B, G)` lie in each cell."""
    found: NDArray[np.float64] = np.histogramdd(points[:, : len(axes)].double().cpu().numpy(), bins=axes)[0]
    return found
