"""Everything else that a learner may hold beside networks comes back too, or is left out as the module says."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tianshou.exploration import OUNoise
from torch import Tensor, nn

from presage.common import checkpoint
from presage.common.checkpoint import CheckpointError
from presage.common.learner_state import learner_state, restore_learner


class Phase(Enum):
    WARM_UP = 1


class Span(NamedTuple):
    low: float
    high: float


class Slotted:
    __slots__ = ("count", "never_set")

    def __init__(self) -> None:
        self.count = 0


@dataclass(frozen=True)
class Settings:
    rate: float
    network: nn.Module
    totals: np.ndarray = field(default_factory=lambda: np.zeros(2))


class OwnKeeper:
    """Persists itself, like a game."""

    def __init__(self) -> None:
        self.large = 0

    def state(self) -> int:
        return self.large

    def restore(self, state: int) -> None:
        self.large = state


class Learner(nn.Module):
    """Something of every kind that is kept or left out."""

    checkpoint_skip = ("cache",)

    def __init__(self, start: float) -> None:
        super().__init__()
        self.memory = nn.LSTM(2, 3)
        self.tied = nn.ModuleList([self.memory])
        self.register_buffer("mean", torch.full((2,), start), persistent=False)
        self.free = torch.full((2,), start, requires_grad=True)
        self.hidden = torch.full((1,), 3 * start, requires_grad=True)
        self.only_in_optimiser = torch.optim.SGD([self.free, self.hidden.detach().requires_grad_()], lr=start)
        self.lbfgs = torch.optim.LBFGS(self.memory.parameters(), lr=start)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self.only_in_optimiser)
        self.steps = torch.optim.lr_scheduler.MultiStepLR(self.lbfgs, [2, 4])
        self.numpy_rng = np.random.default_rng(int(start))
        self.scale = np.float32(start)
        self.counts = np.array([start, start])
        self.alias = {"counts": self.counts}
        self.recent: deque[float] = deque([start], maxlen=3)
        self.tally = Counter({"wins": int(start)})
        self.by_pair = {(0, 1): start, (1, 0): 2 * start}
        self.span = Span(start, 2 * start)
        self.shape = torch.Size([int(start)])
        self.last: Tensor | float | None = None
        self.flag: bool | None = start > 1
        self.slotted = Slotted()
        self.slotted.count = int(start)
        self.settings = Settings(rate=start, network=nn.Linear(1, 1), totals=np.full(2, start))
        self.pair = (torch.full((1,), start), [nn.Linear(1, 1)], start)
        self.world = OwnKeeper()
        self.world.large = int(start)
        self.phase = Phase.WARM_UP
        self.device = f"cpu:{start}"
        self.cache = start
        self.loss = lambda x: x

    @cached_property
    def derived(self) -> float:
        return float(self.scale * 2)


def assert_is_start(learner: Learner, start: float) -> None:
    """All that is kept has the value that `Learner(start)` gives it."""
    assert learner.get_buffer("mean").tolist() == [start, start]
    assert learner.free.tolist() == [start, start]
    assert [p.tolist() for p in learner.only_in_optimiser.param_groups[0]["params"]] == [[start, start], [3 * start]]
    assert learner.only_in_optimiser.param_groups[0]["lr"] == start
    assert learner.plateau.optimizer is learner.only_in_optimiser
    assert type(learner.scale) is np.float32
    assert learner.scale == start
    assert learner.counts.tolist() == [start, start]
    assert learner.alias["counts"] is learner.counts
    assert learner.recent == deque([start])
    assert learner.recent.maxlen == 3
    assert learner.tally == Counter({"wins": int(start)})
    assert type(learner.tally) is Counter
    assert learner.by_pair == {(0, 1): start, (1, 0): 2 * start}
    assert learner.span == Span(start, 2 * start)
    assert type(learner.span) is Span
    assert learner.shape == torch.Size([int(start)])
    assert learner.flag is (start > 1)
    assert learner.slotted.count == int(start)
    assert learner.settings.totals.tolist() == [start, start]
    assert learner.pair[0].tolist() == [start]


def test_everything_a_learner_holds_comes_back_through_the_disk(tmp_path: Path) -> None:
    one, two = Learner(1.0), Learner(2.0)

    def step(learner: Any) -> None:
        def closure() -> Tensor:
            learner.lbfgs.zero_grad()
            loss: Tensor = learner.memory(torch.ones(4, 2))[0].square().sum()
            torch.autograd.backward(loss)
            return loss

        learner.lbfgs.step(closure)

    step(one)
    for _ in range(2):
        one.plateau.step(1.0)
        one.steps.step()
    one.last = torch.tensor([4.0])
    one.numpy_rng.normal(size=5)
    assert one.derived == 2.0
    checkpoint.save(tmp_path / "one", learner_state(one), kind="test", version=1)
    restore_learner(two, checkpoint.load(tmp_path / "one"))

    assert_is_start(two, 1.0)
    assert isinstance(two.last, Tensor)
    assert two.last.tolist() == [4.0]
    assert two.numpy_rng.normal() == one.numpy_rng.normal()
    assert (two.plateau.num_bad_epochs, two.steps.last_epoch) == (1, 2)
    assert type(two.steps.milestones) is Counter
    assert two.lbfgs.param_groups[0]["lr"] == one.lbfgs.param_groups[0]["lr"] == 0.1
    for mine, theirs in zip(two.parameters(), one.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    saved, restored = (optimiser.state_dict()["state"][0] for optimiser in (one.lbfgs, two.lbfgs))
    assert saved["n_iter"] == restored["n_iter"] > 1
    assert all(map(torch.equal, saved["old_dirs"], restored["old_dirs"]))
    step(one)
    step(two)
    assert all(map(torch.equal, two.parameters(), one.parameters()))
    # what is left out stays the learner's own
    assert (two.settings.rate, two.pair[2], two.world.large, two.device, two.cache) == (2.0, 2.0, 2, "cpu:2.0", 2.0)
    assert two.phase is Phase.WARM_UP
    assert two.derived == 2.0  # computed from what came back


def test_what_came_is_forgotten_when_it_was_not_there_at_the_save() -> None:
    one, two = Learner(1.0), Learner(2.0)
    tree = learner_state(one)
    memory = [name for name in tree["tensors"] if name.startswith("memory")]
    assert memory == [f"memory.{name}" for name in sorted(name for name, _ in one.memory.named_parameters())]
    two.last = torch.zeros(3)
    two.recent.extend([5.0, 6.0])
    two.tally.update({"draws": 1})
    two.only_in_optimiser.state[two.free]["momentum_buffer"] = torch.ones(2)
    restore_learner(two, tree)
    assert_is_start(two, 1.0)
    assert two.last is None
    assert not two.only_in_optimiser.state


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda learner: setattr(learner, "counts", np.zeros(3)), r"counts'\]|'counts' has shape \(2,\)"),
        (
            lambda learner: setattr(learner, "counts", np.zeros(2, dtype=int)),
            "dtype float64 in the checkpoint and int64",
        ),
        (lambda learner: setattr(learner, "pair", (None, *learner.pair[1:])), r"this learner lacks 'pair\[0\]'"),
        (lambda learner: setattr(learner, "numpy_rng", np.random.Generator(np.random.MT19937(0))), "algorithm 'PCG64'"),
        (lambda learner: setattr(learner, "numpy_rng", torch.Generator()), "library 'numpy' in the checkpoint"),
        (lambda learner: setattr(learner, "last", nn.Linear(1, 1)), r"the checkpoint lacks 'last' \(of classes\)"),
        (lambda learner: learner.by_pair.pop((0, 1)), r"this learner lacks 'by_pair\[\(0, 1\)\]'"),
    ],
)
def test_other_parts_are_refused_before_anything_is_changed(change: Callable[[Learner], object], sentence: str) -> None:
    tree, other = learner_state(Learner(1.0)), Learner(2.0)
    change(other)
    with pytest.raises(CheckpointError, match=sentence):
        restore_learner(other, tree)
    assert other.free.tolist() == [2.0, 2.0]
    assert other.recent == deque([2.0])
    assert other.tally == Counter({"wins": 2})


def test_shared_parts_stay_shared_and_what_cannot_be_written_is_replaced() -> None:
    class Holder(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.wide = torch.tensor([value]).expand(3)
            self.named = [Span(value, value)]
            self.array = np.array([value])
            self.views: dict[str, Any] = {"array": self.array, "list": [self.array, self.named]}
            self.frozen_array = np.array([value])
            self.frozen_array.setflags(write=False)
            with torch.inference_mode():
                self.inferred = torch.tensor([value])
            self.kept = torch.tensor([value])
            self.same = self.kept

    learner = Holder(2.0)
    tree = learner_state(Holder(1.0))
    restore_learner(learner, tree)
    assert learner.wide.tolist() == [1.0, 1.0, 1.0]
    assert learner.inferred.tolist() == [1.0]
    assert learner.same is learner.kept
    assert learner.same.tolist() == [1.0]
    assert learner.named == [Span(1.0, 1.0)]
    assert type(learner.named[0]) is Span
    assert learner.array.tolist() == learner.frozen_array.tolist() == [1.0]
    assert learner.views["array"] is learner.views["list"][0] is learner.array
    assert learner.named is learner.views["list"][1]


def test_parts_share_after_restoring_what_they_shared_when_saved_and_nothing_else() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.noise = OUNoise(x0=np.zeros(2))  # starts with _x and _x0 as one array
            self.rows = [np.zeros(1)] * 2
            self.hidden: list[Any] = [None, None]
            self.history: list[Any] = []
            self.first: list[int] = []
            self.second: list[int] = []
            self.register_buffer("mean", torch.zeros(1))
            self.current = self.get_buffer("mean")

    one: Any = Holder()
    one.noise((2,))
    one.rows[:] = [np.ones(1), np.full(1, 2.0)]
    one.hidden = [torch.ones(2), None]
    one.history += [torch.full((1,), 7.0), np.array([8])]
    one.second = one.first
    one.first.append(3)
    one.current = torch.full((1,), 4.0)
    two: Any = Holder()
    restore_learner(two, learner_state(one))
    assert np.array_equal(two.noise._x, one.noise._x)
    assert two.noise._x0.tolist() == [0.0, 0.0]
    assert [row.tolist() for row in two.rows] == [[1.0], [2.0]]
    assert (two.hidden[0].tolist(), two.hidden[1]) == ([1.0, 1.0], None)
    assert [item.tolist() for item in two.history] == [[7.0], [8]]
    assert two.second is two.first
    assert two.first == [3]
    assert two.current.tolist() == [4.0]
    assert two.get_buffer("mean").tolist() == [0.0]
    restore_learner(one, learner_state(Holder()))
    assert one.noise._x is one.noise._x0
    assert one.rows[0] is one.rows[1]
    assert (one.hidden, one.history) == ([None, None], [])
    assert one.second is not one.first
    assert one.current is one.get_buffer("mean")


def test_a_lazy_module_is_refused_until_it_has_a_shape() -> None:
    learner = nn.LazyLinear(2)
    with pytest.raises(CheckpointError, match="'bias' has no shape yet: run one batch"):
        learner_state(learner)
    learner(torch.ones(1, 3))
    assert learner_state(learner)["tensors"]["weight"].shape == (2, 3)


def test_an_optimiser_that_holds_a_function_is_refused_by_name() -> None:
    learner = nn.Linear(1, 1)
    optimiser = torch.optim.SGD(learner.parameters(), lr=1.0)
    optimiser.param_groups[0]["schedule"] = lambda step: step
    learner.tool = optimiser  # type: ignore[assignment] # a plain attribute
    with pytest.raises(CheckpointError, match="'tool' holds a function"):
        learner_state(learner)
