"""What a learner said of its last update, as metric tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tianshou.algorithm.algorithm_base import TrainingStats
from torch import Tensor

from presage.common.game import GameSpec
from presage.common.method import Metrics


def learner_metrics(spec: GameSpec, learner: Any, stats: TrainingStats | None) -> Metrics:
    """Losses and temperatures by tag, `train/<name>` or `train/<name>/<agent>`; {} before the first update.

    A learner for several agents keeps them in its attribute `metrics`, one tensor `(N,)` each; a tianshou algorithm
    returns them from its update.
    """
    own: Mapping[str, Tensor] | None = getattr(learner, "metrics", None)
    if own is None:
        return {} if stats is None else {f"train/{name}": float(v) for name, v in stats.get_loss_stats_dict().items()}
    found: Metrics = {}
    for name, per_agent in own.items():
        values = per_agent.reshape(-1).tolist()
        if len(values) == 1:
            found[f"train/{name}"] = values[0]
        else:
            found |= {f"train/{name}/{agent}": value for agent, value in zip(spec.names, values, strict=True)}
    return found
