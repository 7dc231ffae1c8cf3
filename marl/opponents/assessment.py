"""One call that says how good a model of the others is: a table by agent, and a figure.

Shape suffixes: B moments, N agents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from presage.common.game import GameError, GameSpec, View, Window
from presage.marl.opponents import measures
from presage.marl.opponents.measures import Calibration
from presage.marl.opponents.predicted import Predicted
from presage.marl.opponents.record import Record

Truth = Callable[[View], Predicted]
"""the distributions that were played, where they are known"""
FILE, PICTURE = "opponents.json", "opponents.png"
CHUNK = 4_096
"""moments that are predicted at once"""


class Expects(Protocol):
    """A model of the others, as an assessment asks it: for one ego, or with one behind the other for several."""

    @property
    def spec(self) -> GameSpec:
        """The game."""
        ...

    @property
    def ego(self) -> tuple[int, ...]:
        """(I) the agents that keep models."""
        ...

    @property
    def history(self) -> int:
        """Views of a window that it reads; 1: the present one alone."""
        ...

    def expected(self, window: Window) -> Predicted:
        """What each row's ego expects of all agents at the ends of windows, ego-major."""
        ...


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well one agent is predicted by one ego, in nats and shares; None where it cannot be said."""

    agent: str
    ego: str
    moments: int
    """in which the agent acted"""
    nll: float
    """mean negative log-likelihood of its actions"""
    entropy: float
    """of what is predicted"""
    disagreement: float
    """of the model's components: what more data would take away"""
    floor: float | None
    """entropy of what it truly plays: no model has a smaller NLL in the long run"""
    divergence: float | None
    """mean Kullback-Leibler divergence of what it truly plays from what is predicted"""
    variation: float | None
    """mean total variation distance between the two"""
    worst_variation: float | None
    """the largest one at any moment"""
    accuracy: float | None
    """share of one-hot actions that the likeliest entry gets right"""
    best_accuracy: float | None
    """the best that can be had"""
    calibration_error: float
    """expected calibration error of one-hot actions; of box actions the largest gap between a central interval's level
    and the share of actions in it"""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What a model is worth on moments that it was not fitted to."""

    qualities: tuple[Quality, ...]
    """by ego and agent"""
    curves: Mapping[tuple[str, str], Calibration] = field(repr=False)
    """reliability by (ego, agent), of one-hot actions"""
    by_step: Mapping[tuple[str, str], tuple[Sequence[int], Sequence[float]]] = field(repr=False)
    """NLL by (ego, agent) against moments since the episode began"""

    @property
    def worst_divergence(self) -> float:
        """The largest divergence of any agent.

        Raises:
            GameError: what is true is not known.
        """
        found = [quality.divergence for quality in self.qualities]
        if not found or any(value is None for value in found):
            raise GameError("divergences need the distributions that were played; assess with truth=...")
        return max(value for value in found if value is not None)

    def to_plain(self) -> list[dict[str, Any]]:
        """As JSON has it."""
        return [asdict(quality) for quality in self.qualities]

    def __str__(self) -> str:
        """The table."""
        names = ["nll", "floor", "divergence", "variation", "accuracy", "best_accuracy", "calibration_error"]
        head = ["ego", "agent", *names]
        rows = [
            [quality.ego, quality.agent, *(_number(getattr(quality, name)) for name in names)]
            for quality in self.qualities
        ]
        widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                         for row in (head, *rows))  # fmt: skip

    def save(self, folder: Path | str) -> None:
        """Write `opponents.json` and `opponents.png`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(self.to_plain(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        self.plot().savefig(folder / PICTURE, dpi=110)

    def plot(self) -> Figure:
        """Reliability, and NLL against moments since the episode began, a line for every ego and agent."""
        figure = Figure(figsize=(9, 4), layout="constrained")
        FigureCanvasAgg(figure)
        reliability, time = figure.subplots(1, 2)
        reliability.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for (ego, agent), curve in self.curves.items():
            reliability.plot(curve.confidence, curve.success, marker="o", markersize=3, label=f"{ego} of {agent}")
        reliability.set(xlabel="confidence", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
        for (ego, agent), (steps, nll) in self.by_step.items():
            time.plot(steps, nll, marker=".", label=f"{ego} of {agent}")
        time.set(xlabel="moments since the episode began", ylabel="negative log-likelihood, nats")
        if len(self.by_step) <= 12:
            time.legend(fontsize=7)
        return figure


@torch.no_grad()
def assess(
    model: Expects, record: Record, index: Tensor | None = None, *, truth: Truth | None = None, seed: int = 0
) -> Assessment:
    """How well a model predicts what was done at moments that it was not fitted to.

    An ego is not judged by what it expects of itself, but in a game of one agent, which is seen from outside.

    Args:
        index: `(B,)` the moments; all of the record when None.
        truth: what was played there, from views alone. seed: of the estimates that box actions need.

    Raises:
        GameError: another game, no moment in which anybody but an ego acted, or predictions that are not finite.
    """
    if model.spec != record.spec:
        raise GameError(f"the model is of {model.spec.name!r} as it was, the record of {record.spec.name!r}")
    index = torch.arange(len(record)) if index is None else index
    rng = torch.Generator().manual_seed(seed)
    found: dict[tuple[int, int], list[dict[str, Tensor]]] = {}
    for part in torch.split(index, CHUNK):
        window, moments = record.window(part, model.history), record.moments(part)
        true = None if truth is None else truth(moments.view)
        several = len(model.ego)
        repeated = window if several == 1 else window[torch.arange(len(part)).repeat(several)]
        expected = model.expected(repeated)
        for k, ego in enumerate(model.ego):
            own = expected[k * len(part) : (k + 1) * len(part)]
            columns = _columns(own, moments.act, true, rng)
            for agent in range(model.spec.n):
                if agent != ego or model.spec.n == 1:
                    acts = moments.view.acting[:, agent]
                    numbers = {name: value[:, agent][acts] for name, value in columns.items()}
                    if not model.spec.agents[agent].discrete:
                        numbers["place"] = measures.place(own, agent, moments.act)[acts]
                    numbers["step"] = record.step[part][acts]
                    found.setdefault((ego, agent), []).append(numbers)
    names = model.spec.names
    whole = {
        (names[ego], names[agent]): {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        for (ego, agent), parts in found.items()
    }
    whole = {pair: numbers for pair, numbers in whole.items() if len(numbers["nll"])}
    if not whole:
        raise GameError("nobody but the egos acted in these moments; record others as well, or take other egos")
    discrete = {agent.name for agent in model.spec.agents if agent.discrete}
    curves = {
        pair: measures.calibration(numbers["confidence"], numbers["right"])
        for pair, numbers in whole.items()
        if pair[1] in discrete
    }
    return Assessment(
        qualities=tuple(_quality(pair, numbers, curves.get(pair)) for pair, numbers in whole.items()),
        curves=curves, by_step={pair: _by_step(numbers) for pair, numbers in whole.items()},
    )  # fmt: skip


def _columns(expected: Predicted, act: Tensor, true: Predicted | None, rng: torch.Generator) -> dict[str, Tensor]:
    """Everything that is asked of B predictions, `(B, N)` each."""
    found = {
        "nll": -expected.log_prob(act), "entropy": expected.entropy(rng), "disagreement": expected.disagreement(rng),
        "right": measures.likeliest_is_right(expected, act), "confidence": measures.confidence(expected),
    }  # fmt: skip
    if true is not None:
        found |= {
            "floor": true.entropy(rng), "divergence": true.divergence(expected, rng),
            "variation": true.variation(expected, rng), "best": measures.confidence(true),
        }  # fmt: skip
    return found


def _quality(pair: tuple[str, str], numbers: Mapping[str, Tensor], curve: Calibration | None) -> Quality:
    ego, agent = pair

    def mean(name: str) -> float | None:
        value = float(numbers[name].double().mean()) if name in numbers else math.nan
        return None if math.isnan(value) else value

    def finite(name: str) -> float:
        value = float(numbers[name].double().mean())
        if not math.isfinite(value):
            raise GameError(
                f"{name} of what {ego!r} expects of {agent!r} is {value}: the model has diverged, or was given "
                "observations that are not finite; look at these, or fit it again with a smaller learning_rate"
            )
        return value

    if curve is not None:
        error = curve.error
    else:
        error = max(abs(level - share) for level, share in measures.coverage(numbers["place"].flatten()).items())
    return Quality(
        ego=ego, agent=agent, moments=len(numbers["nll"]), nll=finite("nll"), entropy=finite("entropy"),
        disagreement=finite("disagreement"), floor=mean("floor"), divergence=mean("divergence"),
        variation=mean("variation"), accuracy=mean("right"), best_accuracy=mean("best"), calibration_error=error,
        worst_variation=float(numbers["variation"].amax()) if "variation" in numbers else None,
    )  # fmt: skip


def _by_step(numbers: Mapping[str, Tensor]) -> tuple[list[int], list[float]]:
    steps, nll = numbers["step"].numpy(), numbers["nll"].double().numpy()
    known = np.unique(steps)
    return known.tolist(), [float(nll[steps == step].mean()) for step in known]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
