"""The cost of one learner update: MASAC, SAC and tianshou's own SAC, against the bare matrix products of the same step.

The bare products are every forward and backward product of the update, alone, at the same shapes, threads and dtype.
All sides are timed in turn, round after round, and medians are compared, so that a drift of the machine's speed hits
all of them alike. The process keeps the memory that it frees, as training does.

Remedies for what an update costs beside its products: tianshou's update by a shorter way (`sac` beside `tianshou_sac`),
twin critics as one stack (`masac_one_agent`), a compiler (`sac_compiled`: losses and targets through `torch.compile`),
memory that is kept (`_given_back` is what training did before), one thread in place of two (`_one_thread`: products
gain from the second thread, small tensors do not). The ceiling is `sac_narrow`: the same update of networks one unit
wide, whose products are nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from benchmarks.claims import Aim, write
from presage.common.game import AgentSpec, GameSpec, Head, Rows, View
from presage.common.memory import keep_freed_memory
from presage.common.one_batch import OneBatch
from presage.common.sac import SACConfig, build_sac
from presage.marl.masac import MASAC, MASACConfig

BATCH, ROUNDS, WARMUP, THREADS = 256, 200, 10, 2


def products(
    stack: int, widths: Sequence[int], *, weights: bool = True, inputs: bool = False, backward: bool = True
) -> list[Callable[[], torch.Tensor]]:
    """The products of one pass through `stack` networks: forward, then the gradients of weights and inputs.

    Args:
        widths: of the layers, input to output. weights: whether weight gradients are needed.
        inputs: whether the gradient of the input is needed. backward: whether there is a backward pass at all.
    """
    calls: list[Callable[[], torch.Tensor]] = []
    for k, (fan_in, fan_out) in enumerate(pairwise(widths)):
        x, w, g = (torch.randn(stack, *shape) for shape in ((BATCH, fan_in), (fan_in, fan_out), (BATCH, fan_out)))
        if fan_out == 1:  # the fastest form found: batched products with one column are several times slower
            calls.append(partial(narrow_product, x, w))
            if backward and weights:
                calls.append(partial(torch.bmm, g.transpose(1, 2), x))
            if backward and (inputs or k > 0):
                calls.append(partial(torch.mul, g, w.transpose(1, 2)))
            continue
        calls.append(partial(torch.bmm, x, w))
        if backward and weights:
            calls.append(partial(torch.bmm, x.transpose(1, 2), g))
        if backward and (inputs or k > 0):
            calls.append(partial(torch.bmm, g, w.transpose(1, 2)))
    return calls


def narrow_product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The product with matrices of one column."""
    return (x * w.transpose(1, 2)).sum(2, keepdim=True)


def soft_actor_critic_products(
    agents: int, obs: int, joint: int, outputs: int, hidden: Sequence[int]
) -> Callable[[], None]:
    """Every product of one update: targets, critic step, policy step."""
    actor, critic = [obs, *hidden, outputs], [joint, *hidden, 1]
    calls = [
        *products(agents, actor, backward=False),  # next actions
        *products(2 * agents, critic, backward=False),  # target critics
        *products(2 * agents, critic),  # critic step
        *products(agents, actor),  # policy step
        *products(2 * agents, critic, weights=False, inputs=True),  # gradient of the critics with respect to actions
    ]

    def run() -> None:
        for call in calls:
            call()

    return run


def rows_of(spec: GameSpec, seed: int) -> Rows:
    """Random rows of the game."""
    rng = torch.Generator().manual_seed(seed)
    view, after = (View.of(spec, torch.randn(BATCH, spec.obs_dim, generator=rng)) for _ in range(2))
    never = torch.zeros(BATCH, spec.n, dtype=torch.bool)
    act = spec.random_action(view.acting, view.legal, rng)
    reward = torch.randn(BATCH, spec.n, generator=rng)
    return Rows.of(spec, view, act, reward, after, never, never[:, 0], torch.zeros(BATCH))


def spread() -> GameSpec:
    """The shapes of three-agent `simple_spread`: 18 numbers seen, 5 moves."""
    agents = tuple(
        AgentSpec(name=f"agent_{i}", obs=tuple(range(18 * i, 18 * i + 18)), heads=(Head(kind="discrete", size=5),))
        for i in range(3)
    )
    return GameSpec(name="spread", agents=agents, obs_dim=54)


def single() -> GameSpec:
    """One agent with 17 numbers seen and 6 box actions."""
    agent = AgentSpec(
        name="agent",
        obs=tuple(range(17)),
        heads=(Head(kind="box", size=6),),
        low=(-1.0,) * 6,
        high=(1.0,) * 6,
        shape=(6,),
    )
    return GameSpec(name="single", agents=(agent,), obs_dim=17)


def all_sides() -> dict[str, Callable[[], object]]:
    """One update of every learner, and the products of each."""
    sides: dict[str, Callable[[], object]] = {}

    def masac(name: str, spec: GameSpec, hidden: tuple[int, ...]) -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        learner = MASAC(spec, MASACConfig(hidden=hidden), *generators)
        learner.policy.is_within_training_step = True
        rows = rows_of(spec, 2)
        sides[name] = lambda: learner.update(OneBatch(rows), 0)

    def sac(name: str, *, compiled: bool = False, **numbers: Any) -> None:
        learner, _ = build_sac(single(), SACConfig(**numbers), torch.Generator().manual_seed(0))
        learner.policy.is_within_training_step = True
        if compiled:
            for part in ("targets", "_answer", "_values"):
                setattr(learner, part, torch.compile(getattr(learner, part), dynamic=False))
        rows = rows_of(single(), 3)
        sides[name] = lambda: learner.update(OneBatch(rows), 0)

    masac("masac_128", spread(), (128, 128))
    masac("masac", spread(), (256, 256))
    masac("masac_one_agent", single(), (256, 256))
    sac("sac")
    sac("tianshou_sac", lean=False)
    sac("sac_compiled", compiled=True)
    sac("sac_narrow", hidden=(1, 1))
    sides["masac_128_products"] = soft_actor_critic_products(3, 18, 69, 5, (128, 128))
    sides["masac_products"] = soft_actor_critic_products(3, 18, 69, 5, (256, 256))
    sides["sac_products"] = soft_actor_critic_products(1, 17, 23, 12, (256, 256))
    return sides


def medians(sides: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of every side, all of which take turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(WARMUP + ROUNDS):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if round_ >= WARMUP:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def over_products(median: Mapping[str, float], end: str = "") -> dict[str, float]:
    """The times of sides in times of their bare products, `x_over_products`; `end` stands behind every side's name."""
    others = {"masac_one_agent": "sac", "tianshou_sac": "sac", "sac_compiled": "sac", "sac_narrow": "sac"}
    return {
        f"{name}{end}_over_products": seconds / median[f"{others.get(name, name)}_products"]
        for name, seconds in median.items()
        if not name.endswith("_products")
    }


def main() -> None:
    """Time all sides in turn and keep the ratios of their medians."""
    torch.set_num_threads(THREADS)
    sides = all_sides()
    figures = over_products(medians(sides), "_given_back")
    keep_freed_memory()
    sides = all_sides()
    median = medians(sides)
    torch.set_num_threads(1)
    figures |= over_products(medians(sides), "_one_thread")
    figures |= {f"{name}_ms": 1e3 * seconds for name, seconds in median.items()} | over_products(median)
    figures["tianshou_sac_over_sac"] = median["tianshou_sac"] / median["sac"]
    notes = (
        f"batch {BATCH}, {THREADS} threads, float32, medians of {ROUNDS} rounds in turn; masac: 3 agents, observations "
        "18, 5 moves, joint critics 69 -> 2 x 256 (masac_128: 2 x 128); sac: 17 + 6, 2 x 256; tianshou_sac: the same "
        "through tianshou's own update; the others: see the benchmark"
    )
    path = write(
        "learner_update", figures=figures, notes=notes,
        aims={"masac_over_products": Aim(op="<=", value=1.5), "sac_over_products": Aim(op="<=", value=1.5)},
        depends=["benchmarks/learner_update.py", "marl/masac.py", "common/networks.py", "common/heads.py",
                 "common/policy.py", "common/one_batch.py", "common/sac.py", "common/memory.py"],
    )  # fmt: skip
    print(path.read_text())


if __name__ == "__main__":
    main()
